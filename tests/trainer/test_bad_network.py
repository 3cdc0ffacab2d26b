"""Whole trainings on a bad network: what ends in time only costs time, what stays is said in a line, nothing wrong is published."""

import hashlib
import io
import json
import random
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from charalora_spec.outcome import Outcome
from faults import Fault
from services import S3, Answer, FaultyS3, ToxicS3, fresh_bucket
from trainings import Ended, TrainingJob, differences, pictures

STEPS = 8
PICTURE = 250_000  # bytes; some seconds on the slow line
LIMITS = {"downstream": 200_000, "upstream": 100_000}
"""Bytes that a connection carries: to here less than a picture or the UNet, from here little more than the largest file that is sent."""
SECONDS_AWAY = 2.0
LASTING = 10_000  # requests; more than a training makes


def prepared(s3: S3, folder: Path, base_model: Path) -> TrainingJob:
    """A training whose base model comes from the bucket too. Its pictures carry data of other programs, which makes them big files."""
    for file in (path for path in base_model.rglob("*") if path.is_file()):
        s3.put(f"base/{file.relative_to(base_model).as_posix()}", file.read_bytes())
    files = {name: heavy(data) if name.endswith(".png") else data for name, data in pictures().items()}
    return TrainingJob(s3, folder, s3.uri("base/")).with_fields(training__steps=STEPS).upload_dataset(files)


def heavy(data: bytes) -> bytes:
    """The same picture with a private chunk."""
    chunks, file = PngInfo(), io.BytesIO()
    chunks.add(b"ruNd", random.Random(0).randbytes(PICTURE), after_idat=True)
    Image.open(io.BytesIO(data)).save(file, "PNG", pnginfo=chunks)
    return file.getvalue()


@pytest.fixture(scope="module")
def undisturbed(_seaweedfs: S3, base_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, bytes]]:
    """What the training leaves on a good network."""
    with fresh_bucket(_seaweedfs) as s3:
        job = prepared(s3, tmp_path_factory.mktemp("undisturbed"), base_model)
        ended = job.run()
        assert Outcome.SUCCEEDED is ended.outcome, ended.err
        yield job.output()


@pytest.fixture
def toxic_job(toxic_s3: ToxicS3, base_model: Path, tmp_path: Path) -> TrainingJob:
    return prepared(toxic_s3, tmp_path, base_model)


@pytest.fixture
def faulty_job(faulty_s3: FaultyS3, base_model: Path, tmp_path: Path) -> TrainingJob:
    return prepared(faulty_s3, tmp_path, base_model)


def wrong(job: TrainingJob, undisturbed: dict[str, bytes]) -> list[str]:
    """The files that are not as the manifest says, or not what a good network gives."""
    found = job.output()
    listed = {file["path"]: file["sha256"] for file in json.loads(found["manifest.json"])["files"]}
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in found.items()}
    damaged = [name for name, digest in listed.items() if digests.get(name) != digest]
    unlisted = [name for name in digests.keys() - listed.keys() if name != "manifest.json" and not name.startswith("state/")]
    return [*damaged, *unlisted, *differences(undisturbed, found)]


def failures(ended: Ended, doing: str, key: str) -> int:
    """How many requests were told to have failed and been tried again."""
    return len(re.findall(rf"Storage request failed doing={doing} key={key}", ended.err))


def told_in_a_line(ended: Ended) -> bool:
    """Whether it ended with exit code 69 and one line that names what was tried, where, the reason, and what to do."""
    assert Outcome.STORAGE_UNREACHABLE is ended.outcome, ended.err
    assert 69 == ended.code
    assert "StorageUnreachable" == ended.told["reason"]
    assert "Traceback" not in ended.err
    what = r"StorageUnreachable: (Reading|Writing|Listing) s3://.+ failed: .*http://127\.0\.0\.1:\d+ .*; check .*\.$"
    return re.search(what, ended.line) is not None


@pytest.mark.fault(Fault.STORAGE_SLOW)
def test_a_slow_line_is_no_fault(toxic_job: TrainingJob, toxic_s3: ToxicS3, undisturbed: dict[str, bytes]) -> None:
    """50 ms more for every answer, 100 kB/s for every connection: the UNet takes longer than the patience, and nothing fails."""
    toxic_s3.poison("latency", latency=50)
    for stream in ("downstream", "upstream"):
        toxic_s3.poison("bandwidth", stream, rate=100)

    ended = toxic_job.with_environment(CHARALORA_STORAGE_TIMEOUT="4").run()

    assert Outcome.SUCCEEDED is ended.outcome, ended.err
    assert 0 == failures(ended, r"\w+", "")
    assert [] == wrong(toxic_job, undisturbed)


@pytest.mark.fault(Fault.STORAGE_SLOW)
def test_connections_that_are_cut_in_the_middle_of_files(toxic_job: TrainingJob, toxic_s3: ToxicS3, undisturbed: dict[str, bytes]) -> None:
    """Every connection breaks after some bytes, in both directions, from the first request to the last."""
    for stream, limit in LIMITS.items():
        toxic_s3.poison("limit_data", stream, bytes=limit)

    ended = toxic_job.run()

    assert Outcome.SUCCEEDED is ended.outcome, ended.err
    assert failures(ended, "reading", "dataset/") >= 6
    assert failures(ended, "reading", "base/unet/") >= 2
    assert failures(ended, "writing", "output/") >= 1  # connections are used again, and no two of the larger files fit through one
    assert [] == wrong(toxic_job, undisturbed)


@pytest.mark.fault(Fault.STORAGE_SLOW)
def test_a_service_that_turns_every_second_request_away(
    faulty_job: TrainingJob, faulty_s3: FaultyS3, undisturbed: dict[str, bytes]
) -> None:
    """HTTP 503 in all parts of a training, as a service under load answers."""
    for _ in range(LASTING // 20):
        faulty_s3.answer(Answer(503, "SlowDown"))
        faulty_s3.pass_on("")

    ended = faulty_job.run()

    assert Outcome.SUCCEEDED is ended.outcome, ended.err
    for doing, key in (("reading", "dataset/"), ("reading", "base/"), ("writing", "output/")):
        assert failures(ended, doing, key) >= 2
    assert [] == wrong(faulty_job, undisturbed)


def resets(s3: ToxicS3) -> None:
    """Connections break, and new ones at once."""
    s3.poison("reset_peer", timeout=0)


def silence(s3: ToxicS3) -> None:
    """Connections stand, and nothing comes any more."""
    for stream in ("downstream", "upstream"):
        s3.poison("timeout", stream, timeout=0)


def nobody_there(s3: ToxicS3) -> None:
    """Connections are refused."""
    s3.connected(enabled=False)


def healed(s3: ToxicS3) -> None:
    """A good network again."""
    s3.cure()
    s3.connected(enabled=True)


def data_set_arrives(job: TrainingJob) -> bool:
    return any(job.folder.glob("work/dataset/*"))


def base_model_arrives(job: TrainingJob) -> bool:
    return any(job.folder.glob("work/models/*/*"))


def first_state_is_saved(job: TrainingJob) -> bool:
    return 4 in job.states()


@dataclass(frozen=True)
class Outage:
    """What happens to the network, when, and to which requests.

    Attributes:
        moment: True from the moment on when the requests are under way.
        spoil: Makes the network bad.
        doing: What then fails, "reading" or "writing".
        key: How its key begins.
    """

    moment: Callable[[TrainingJob], bool]
    spoil: Callable[[ToxicS3], None]
    doing: str
    key: str


@pytest.fixture(
    params=[
        pytest.param(Outage(data_set_arrives, resets, "reading", "dataset/"), id="data_set-resets"),
        pytest.param(Outage(base_model_arrives, silence, "reading", "base/"), id="base_model-silence"),
        pytest.param(Outage(first_state_is_saved, nobody_there, "writing", "output/"), id="save-nobody_there"),
    ]
)
def outage(request: pytest.FixtureRequest, toxic_s3: ToxicS3) -> Outage:
    """The line is slow until it breaks, so that the moment does not pass."""
    toxic_s3.poison("bandwidth", rate=150)
    assert isinstance(request.param, Outage)
    return request.param


@pytest.mark.fault(Fault.STORAGE_GONE)
def test_a_network_that_comes_back_in_time(
    toxic_job: TrainingJob, toxic_s3: ToxicS3, undisturbed: dict[str, bytes], outage: Outage
) -> None:
    """It is gone for two seconds while something is on its way. Nobody has to do anything."""
    running = toxic_job.with_environment(CHARALORA_STORAGE_TIMEOUT="20").start()
    running.until_true(lambda: outage.moment(toxic_job))
    outage.spoil(toxic_s3)
    back = threading.Timer(SECONDS_AWAY, healed, [toxic_s3])
    back.start()
    ended = running.wait()
    back.join()

    assert Outcome.SUCCEEDED is ended.outcome, ended.err
    assert failures(ended, outage.doing, outage.key) >= 1
    assert [] == wrong(toxic_job, undisturbed)


@pytest.mark.fault(Fault.STORAGE_GONE)
def test_a_network_that_stays_away(toxic_job: TrainingJob, toxic_s3: ToxicS3, undisturbed: dict[str, bytes], outage: Outage) -> None:
    """Nothing says success; on another machine with a good network the same command goes on from what the bucket has."""
    running = toxic_job.with_environment(CHARALORA_STORAGE_TIMEOUT="2").start()
    running.until_true(lambda: outage.moment(toxic_job))
    outage.spoil(toxic_s3)
    ended = running.wait()
    saved = toxic_job.states()

    assert told_in_a_line(ended), ended.err
    assert failures(ended, outage.doing, outage.key) >= 1
    assert "manifest.json" not in toxic_job.output_keys()

    healed(toxic_s3)
    again = toxic_job.run(work="another")

    assert Outcome.SUCCEEDED is again.outcome, again.err
    assert saved[-1:] == [int(step) for step in re.findall(rf"Going on after step (\d+) of {STEPS}", again.err)]
    assert [] == wrong(toxic_job, undisturbed)


@pytest.mark.fault(Fault.STORAGE_GONE)
def test_a_service_that_stays_overloaded_during_a_save(faulty_job: TrainingJob, faulty_s3: FaultyS3, undisturbed: dict[str, bytes]) -> None:
    """Training goes on to its end on this disk; later the same command in the same folder only has to send what is there."""
    running = faulty_job.with_environment(CHARALORA_STORAGE_TIMEOUT="2").start()
    running.until_true(lambda: first_state_is_saved(faulty_job))
    faulty_s3.answer(Answer(503, "SlowDown"), LASTING, "PUT")
    ended = running.wait()

    assert told_in_a_line(ended), ended.err
    assert "SlowDown (HTTP 503)" in ended.line
    assert failures(ended, "writing", "output/") >= 2
    assert "manifest.json" not in faulty_job.output_keys()

    reached = faulty_job.local_states()[-1]
    faulty_s3.faults.clear()
    again = faulty_job.run()

    assert Outcome.SUCCEEDED is again.outcome, again.err
    assert f"Going on after step {reached} of {STEPS}" in again.err
    assert [] == wrong(faulty_job, undisturbed)


def test_checkpoints_that_nobody_keeps_do_not_come_back_by_a_slow_upload(toxic_job: TrainingJob, toxic_s3: ToxicS3) -> None:
    """With `keep: Last` the older ones go at the end, when some of them are still on their way at 20 kB/s."""
    toxic_s3.poison("bandwidth", "upstream", rate=20)

    ended = toxic_job.with_fields(output__keep="Last").run()

    assert Outcome.SUCCEEDED is ended.outcome, ended.err
    assert {str(STEPS)} == {Path(key).stem.rpartition("-")[2] for key in toxic_job.output_keys() if key.startswith("ckpts/")}
