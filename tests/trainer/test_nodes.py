"""Several nodes: two `charalora run` on this machine, each with a folder of its own, are one training."""

import re
import shutil
import time
from pathlib import Path

import pytest

from charalora_spec.outcome import Outcome
from charalora_trainer import history
from services import S3, free_port, fresh_bucket
from trainings import Ended, Running, TrainingJob, pictures, tensors_of

STEPS, SAVE_EVERY = 20, 5
TOLERANCE = 1e-4  # as for processes of one node: test_processes.py
SECONDS_TO_NOTICE = 60


def shared(job: TrainingJob, nodes: int) -> TrainingJob:
    """Four pictures a step, however many nodes share them."""
    return job.with_fields(
        training__steps=STEPS, training__save_every=SAVE_EVERY, training__batch_size=4 // nodes, training__loss__held_out=1
    )


def start_nodes(job: TrainingJob, attempt: int) -> list[Running]:
    """Both nodes of an attempt, one process each; each has its own folder, as pods have, and nothing of the attempt before."""
    port = free_port()
    return [
        job.start(
            "--nodes", "2", "--node-rank", str(rank), "--rendezvous", f"127.0.0.1:{port}", "--run-id", f"uid-{attempt}",
            work=f"node-{rank}-attempt-{attempt}",
        )
        for rank in range(2)
    ]  # fmt: skip


@pytest.fixture
def one_process(_seaweedfs: S3, base_model: Path, tmp_path: Path) -> dict[str, bytes]:
    """The files of the same training in one process."""
    with fresh_bucket(_seaweedfs) as s3:
        (tmp_path / "alone").mkdir()
        alone = shared(TrainingJob(s3, tmp_path / "alone", base_model.as_uri()).upload_dataset(), 1)
        ended = alone.run()
        assert Outcome.SUCCEEDED is ended.outcome, ended.err
        return alone.output()


def ended_soon(node: Running) -> Ended:
    began = time.monotonic()
    ended = node.wait()
    assert SECONDS_TO_NOTICE > time.monotonic() - began, ended.err
    return ended


def test_two_nodes_train_what_one_process_trains_also_when_they_are_killed_and_stopped(
    job: TrainingJob, one_process: dict[str, bytes]
) -> None:
    """Kill a node and the other ends soon; stop one and both save and say so; start both again and they go on from one state."""
    job = shared(job, 2)

    first, second = start_nodes(job, attempt=1)
    first.until_true(lambda: SAVE_EVERY in job.states())
    second.kill()
    lost = ended_soon(first)
    assert Outcome.INTERNAL_ERROR is lost.outcome, lost.err
    assert "Another node of this training is gone" in lost.line
    assert "Traceback" not in lost.err
    assert lost.told["savedStep"] in {0, *job.states()}
    assert lost.told["savedStep"] <= lost.told["step"]
    assert ("savedAt" in lost.told) is (lost.told["savedStep"] > 0)

    first, second = start_nodes(job, attempt=2)
    first.until_true(lambda: 2 * SAVE_EVERY in job.states())
    second.terminate()
    stopped = [ended_soon(node) for node in (first, second)]
    assert [Outcome.INTERRUPTED] * 2 == [ended.outcome for ended in stopped], [ended.err for ended in stopped]
    told = re.search(rf"Stopped on request after step (\d+) of {STEPS}, state saved", stopped[0].line)
    assert told, stopped[0].err
    assert int(told[1]) == job.states()[-1] == stopped[0].told["savedStep"] == stopped[0].told["step"]

    finished = [node.wait() for node in start_nodes(job, attempt=3)]
    assert [Outcome.SUCCEEDED] * 2 == [ended.outcome for ended in finished], [ended.err for ended in finished]
    assert f"Going on after step {told[1]}" in finished[0].err
    found = job.output()
    for name in ("ckpts/lora-20.safetensors", "ckpts/surtr_arknights-20.pt"):
        for key, tensor in tensors_of(name, one_process[name]).items():
            difference = (tensors_of(name, found[name])[key].double() - tensor.double()).norm()
            assert float(difference) <= TOLERANCE * float(tensor.double().norm()), key
    losses, found_losses = (history.parse(files["history.jsonl"].decode()).losses for files in (one_process, found))
    assert [loss for _, loss in losses] == pytest.approx([loss for _, loss in found_losses], rel=TOLERANCE)


def test_the_node_that_writes_the_files_is_missed_too(job: TrainingJob) -> None:
    """It hosts the meeting: the other one has nobody left to ask, and ends all the same."""
    job = shared(job, 2)
    first, second = start_nodes(job, attempt=1)
    first.until_true(lambda: SAVE_EVERY in job.states())

    first.kill()
    ended = ended_soon(second)

    assert Outcome.INTERNAL_ERROR is ended.outcome, ended.err
    assert "Traceback" not in ended.err


def test_the_reason_of_one_node_is_that_of_the_other(job: TrainingJob) -> None:
    """Node 1 finds other pictures than node 0: both say which reason, and nothing is trained."""
    elsewhere = job.folder / "pictures"
    elsewhere.mkdir()
    for name, content in pictures().items():
        (elsewhere / name).write_bytes(content)
    local = shared(job.with_fields(dataset__uri=elsewhere.as_uri() + "/"), 2)
    port = free_port()
    common = ["--nodes", "2", "--rendezvous", f"127.0.0.1:{port}", "--run-id", "uid-1"]
    first = local.start(*common, "--node-rank", "0", work="node-0")
    first.until("check took")
    shutil.copy(elsewhere / "00.txt", elsewhere / "01.txt")
    second = local.start(*common, "--node-rank", "1", work="node-1")

    ended = [node.wait() for node in (first, second)]

    assert [Outcome.DATASET_CHANGED] * 2 == [each.outcome for each in ended], [each.err for each in ended]
    assert "node 0 has another one" in ended[0].line
    assert [] == job.states()
