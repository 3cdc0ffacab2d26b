"""One output prefix, one training: what happens when two want to write to it."""

import json

import pytest

from charalora_spec.outcome import Outcome
from faults import Fault
from trainings import TrainingJob, picture


@pytest.mark.fault(Fault.SECOND_WRITER)
def test_another_trainings_prefix_is_refused_by_name(job: TrainingJob) -> None:
    """Also a finished one's, and before anything is fetched: its files stay as they are."""
    assert Outcome.SUCCEEDED is job.run().outcome
    before = job.output()

    other = job.with_fields(metadata__name="hoshiguma", training__seed=7).run(work="other")

    assert Outcome.OUTPUT_OCCUPIED is other.outcome
    assert f"{job.s3.uri('output/')} belongs to surtr (attempt 1 since " in other.line
    assert "which trains something else; choose another output.uri or empty that prefix." in other.line
    assert before == job.output()
    assert not (job.folder / "other").exists()


@pytest.mark.fault(Fault.SECOND_WRITER)
def test_files_of_nobody_are_not_overwritten(job: TrainingJob) -> None:
    """A folder of the guide's own exps, say, copied there by hand."""
    job.s3.put("output/ckpts/lora-100.safetensors", b"precious")

    ended = job.run()

    assert Outcome.OUTPUT_OCCUPIED is ended.outcome
    assert "holds files of a training that left no state/run.json" in ended.line
    assert {"ckpts/lora-100.safetensors": b"precious"} == job.output()


@pytest.mark.fault(Fault.SECOND_WRITER)
def test_a_newer_attempt_takes_over_and_the_older_one_stops(job: TrainingJob) -> None:
    """A node that everybody thought dead goes on training: it finds the newer attempt's claim at its next save and writes no result."""
    job = job.with_fields(training__steps=60)
    older = job.start(work="older")
    older.until_true(lambda: 4 in job.states())

    newer = job.run(work="newer")
    ended = older.wait()

    assert Outcome.SUCCEEDED is newer.outcome, newer.err
    assert "Going on after step " in newer.err
    assert Outcome.OUTPUT_OCCUPIED is ended.outcome, ended.err
    assert f"{job.s3.uri('output/')} was taken over by surtr (attempt 2 since " in ended.line
    assert "while this was attempt 1" in ended.line
    assert 2 == json.loads(job.s3.get("output/state/run.json"))["attempt"]
    assert "prove" not in ended.err


def test_a_resume_on_other_pictures_is_refused(job: TrainingJob) -> None:
    """Half a training on one data set and half on another would be nobody's result; what was saved stays."""
    running = job.start()
    running.until_true(lambda: 4 in job.states())
    running.terminate()
    assert Outcome.INTERRUPTED is running.wait().outcome
    before = job.output()
    job.s3.put("dataset/00.png", picture(seed=99))

    resumed = job.run()

    assert Outcome.DATASET_CHANGED is resumed.outcome, resumed.err
    assert "The data set changed: surtr (attempt 1 since " in resumed.line
    assert "bring the old files back, or train to another output.uri" in resumed.line
    assert before == job.output()
