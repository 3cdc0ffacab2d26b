"""Whole trainings on a bucket that changes under them: the output is complete with its digests, or the run says why it is not."""

import hashlib
import json
import re
from pathlib import Path

import pytest

from charalora_spec.outcome import Outcome
from faults import Fault
from services import Answer, FaultyS3
from trainings import Ended, TrainingJob

STEPS = 12
LASTING = 10_000  # requests; more than a training makes
ALL = "output/"
CHECKPOINT = "ckpts/lora-4.safetensors"


@pytest.fixture
def training(faulty_s3: FaultyS3, base_model: Path, tmp_path: Path) -> TrainingJob:
    """Twelve steps, a save every four."""
    return TrainingJob(faulty_s3, tmp_path, base_model.as_uri()).with_fields(training__steps=STEPS).upload_dataset()


def untrue(job: TrainingJob) -> list[str]:
    """What the manifest says that is not so; it lists every save."""
    found = job.output()
    listed = {file["path"]: file["sha256"] for file in json.loads(found["manifest.json"])["files"]}
    assert {f"ckpts/lora-{step}.safetensors" for step in (4, 8, 12)} <= listed.keys()
    return [name for name, digest in listed.items() if digest != hashlib.sha256(found.get(name, b"")).hexdigest()]


def resumed_after(ended: Ended) -> list[int]:
    """The steps that it went on after."""
    return [int(step) for step in re.findall(rf"Going on after step (\d+) of {STEPS}", ended.err)]


def stopped_after(job: TrainingJob, step: int) -> None:
    """A training that ends on request when a state is whole in the bucket."""
    running = job.start()
    running.until_true(lambda: step in job.states())
    running.terminate()
    assert Outcome.INTERRUPTED is running.wait().outcome


@pytest.mark.fault(Fault.STORAGE_FULL, Fault.STORAGE_DENIED)
@pytest.mark.parametrize(
    ("answer", "method", "outcome", "says"),
    [
        (Answer(507, "InsufficientStorage"), "PUT", Outcome.DISK_FULL, r"The bucket \S+ at http\S+ is full: writing s3://.+"),
        (Answer(403, "AccessDenied"), "PUT", Outcome.STORAGE_ACCESS_DENIED, r"refuses writing s3://.+: the credentials may not do this"),
        (Answer(403, "InvalidAccessKeyId"), "", Outcome.STORAGE_ACCESS_DENIED, r"refuses .+ s3://.+: the access key is unknown there"),
    ],
    ids=["full", "denied", "rotated"],
)
def test_a_bucket_that_takes_nothing_any_more(
    training: TrainingJob, faulty_s3: FaultyS3, answer: Answer, method: str, outcome: Outcome, says: str
) -> None:
    """From its first state on. Nothing says success, and with room, rights or new keys another machine goes on from what is there."""
    running = training.start()
    running.until_true(lambda: 4 in training.states())
    faulty_s3.answer(answer, LASTING, method)
    ended = running.wait()
    saved = training.states()

    assert outcome is ended.outcome, ended.err
    assert re.search(says, ended.line), ended.line
    assert ended.told["reason"] == outcome.reason
    assert "manifest.json" not in training.output_keys()

    faulty_s3.faults.clear()
    again = training.run(work="another")

    assert Outcome.SUCCEEDED is again.outcome, again.err
    assert saved[-1:] == resumed_after(again)
    assert [] == untrue(training)


@pytest.mark.fault(Fault.LISTING_LAGS)
def test_a_listing_that_lags_behind_loses_nothing(training: TrainingJob, faulty_s3: FaultyS3) -> None:
    """It shows nothing that was written: neither the newest state nor the files of the saves. A resume finds both by their names."""
    stopped_after(training, 8)
    newest = training.states()[-1]
    faulty_s3.unlisted.append(ALL)

    ended = training.run(work="another")

    assert Outcome.SUCCEEDED is ended.outcome, ended.err
    assert [newest] == resumed_after(ended)
    assert [] == untrue(training)
    assert training.states()[-1] == STEPS


@pytest.mark.fault(Fault.OBJECT_CHANGED)
def test_an_object_that_changes_after_its_upload_is_sent_again(training: TrainingJob, faulty_s3: FaultyS3) -> None:
    """Of the same size, so that only its digest tells; the digest is looked at before the manifest is written."""
    faulty_s3.spoilt.append(ALL + CHECKPOINT)

    ended = training.run()

    assert Outcome.SUCCEEDED is ended.outcome, ended.err
    assert [] == faulty_s3.spoilt
    assert [] == untrue(training)


@pytest.mark.fault(Fault.OBJECT_CHANGED)
def test_an_object_that_keeps_changing_ends_without_a_manifest(training: TrainingJob, faulty_s3: FaultyS3) -> None:
    """The run is not believed, and says which file it is."""
    faulty_s3.spoilt.extend([ALL + CHECKPOINT] * 100)

    ended = training.run()

    assert Outcome.EXPORT_INVALID is ended.outcome, ended.err
    assert f"1 files are not in {training.s3.uri('output/')} as they were sent, the first is {CHECKPOINT}" in ended.line
    assert "manifest.json" not in training.output_keys()


@pytest.mark.fault(Fault.OBJECT_CHANGED)
def test_a_changed_checkpoint_stops_a_resume_that_cannot_mend_it(training: TrainingJob) -> None:
    """On another machine nothing could make it again; deleted, the result lacks it and says so; a damaged state is passed over."""
    stopped_after(training, 8)
    here = training.s3.get(ALL + CHECKPOINT)
    training.s3.put(ALL + CHECKPOINT, here[:-1])

    refused = training.run(work="another")

    assert Outcome.EXPORT_INVALID is refused.outcome, refused.err
    assert f"{training.s3.uri(ALL + CHECKPOINT)} is not what an earlier attempt saved" in refused.line

    newest = training.states()[-1]
    training.s3.client.delete_object(Bucket=training.s3.bucket, Key=ALL + CHECKPOINT)
    training.s3.put(f"output/state/step-{newest:06d}/training.safetensors", b"cut off")
    ended = training.run(work="third")

    assert Outcome.SUCCEEDED is ended.outcome, ended.err
    assert "1 files of earlier saves are not in" in ended.err
    assert [step for step in training.states() if step < newest] or resumed_after(ended) < [newest]
    assert CHECKPOINT not in training.output_keys()


@pytest.mark.fault(Fault.OBJECT_CHANGED)
def test_the_machine_that_has_a_file_mends_the_bucket(training: TrainingJob) -> None:
    """Truncated in the bucket, whole here: the resumed run sends it again. A finished training is proven again when it is asked for."""
    stopped_after(training, 8)
    training.s3.put(ALL + CHECKPOINT, b"cut off")

    ended = training.run()

    assert Outcome.SUCCEEDED is ended.outcome, ended.err
    assert [] == untrue(training)

    assert "nothing is left to do" in training.run(work="another").err
    training.s3.put(ALL + CHECKPOINT, b"cut off")
    told = training.run(work="another")

    assert Outcome.EXPORT_INVALID is told.outcome, told.err
    assert f"{CHECKPOINT} has 7 bytes, but the manifest says " in told.line


@pytest.mark.fault(Fault.HOSTILE_TEXT)
def test_keys_of_the_output_prefix_lead_nowhere(training: TrainingJob, faulty_s3: FaultyS3) -> None:
    """Who writes to the bucket must not write to the machine that trains: a resume fetches nothing that would leave its folder."""
    stopped_after(training, 4)
    faulty_s3.forge(b"<Key>output/train.log<", b"<Key>output/../../a.b<", LASTING)

    ended = training.run(work="deep/another")

    assert Outcome.SUCCEEDED is ended.outcome, ended.err
    assert len(faulty_s3.faults) < LASTING
    assert [] == list(training.folder.rglob("a.b"))
