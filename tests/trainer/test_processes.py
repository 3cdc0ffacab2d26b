"""Several processes under a real `accelerate launch` are one training: the same pictures, gradients and files, one reason when it ends."""

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from charalora_spec.outcome import Outcome
from charalora_trainer import history
from joined_gradient import write_gradient
from services import S3, Answer, FaultyS3, fresh_bucket
from trainings import SECONDS, Running, TrainingJob, fork_context, tensors_of

STEPS, SAVE_EVERY = 20, 5
# Two halves of a sum are added in another order than four quarters, and each step rounds on from there. Measured, relative to the length
# of the tensor: 1.1e-6 in a gradient, 2.2e-6 in what is trained after 20 steps; other CPUs may add in yet another order.
GRADIENT_TOLERANCE, TRAINED_TOLERANCE = 1e-5, 1e-4


def joined(job: TrainingJob, processes: int) -> TrainingJob:
    """Four pictures a step, however many processes share them."""
    return job.with_fields(
        training__steps=STEPS, training__save_every=SAVE_EVERY, training__batch_size=4 // processes, training__loss__held_out=1
    )


@pytest.fixture(scope="module")
def alone(_seaweedfs: S3, base_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrainingJob]:
    """The training that one process has done."""
    with fresh_bucket(_seaweedfs) as s3:
        job = joined(TrainingJob(s3, tmp_path_factory.mktemp("alone"), base_model.as_uri()).upload_dataset(), 1)
        ended = job.run()
        assert Outcome.SUCCEEDED is ended.outcome, ended.err
        yield job


def gradients(job: TrainingJob, count: int) -> list[dict[str, Tensor]]:
    """What each of `count` processes holds after the reduction."""
    files = [job.folder / f"gradient-{rank}-of-{count}" for rank in range(count)]
    started = [
        fork_context().Process(target=write_gradient, args=(job.folder / "work", rank, count, file)) for rank, file in enumerate(files)
    ]
    for process in started:
        process.start()
    for process in started:
        process.join(SECONDS)
        assert 0 == process.exitcode
    return [load_file(file) for file in files]


def test_two_processes_reduce_to_the_gradient_of_the_joined_batch(alone: TrainingJob) -> None:
    """They see its pictures, noise, timesteps and captions in its order, and end with one gradient, the same as its own."""
    [whole] = gradients(alone, 1)
    first, second = gradients(alone, 2)

    for name in ("latents", "noise", "timesteps", "ids"):
        assert torch.equal(whole[name], torch.cat([first[name], second[name]])), name
    for group in ("unet", "text_encoder", "embedding"):
        assert whole[group].abs().max() > 0
        assert torch.equal(first[group], second[group])
        assert agree(whole[group], first[group], GRADIENT_TOLERANCE), group


def agree(expected: Tensor, found: Tensor, tolerance: float) -> bool:
    """Whether the difference is short, measured in lengths of what is expected. What clip skip leaves untrained stays exactly zero."""
    return float((found.double() - expected.double()).norm()) <= tolerance * float(expected.double().norm())


def test_two_processes_train_what_one_trains_also_when_they_are_stopped_and_killed(job: TrainingJob, alone: TrainingJob) -> None:
    """LoRA, word and losses agree after 20 steps; kill -9 of the launcher ends its processes, SIGTERM saves the state and exits with 75."""
    job = joined(job, 2)
    killed = job.start(processes=2)
    killed.until_true(lambda: SAVE_EVERY in job.states())
    workers = children(killed)
    assert 2 == len(workers)
    killed.kill()
    assert gone(workers)

    running = job.start(processes=2)
    running.until_true(lambda: 2 * SAVE_EVERY in job.states())
    running.terminate()
    stopped = running.wait()
    assert Outcome.INTERRUPTED is stopped.outcome, stopped.err
    told = re.search(rf"Stopped on request after step (\d+) of {STEPS}, state saved", stopped.line)
    assert told, stopped.err
    assert int(told[1]) == job.states()[-1]
    assert "Traceback" not in stopped.err

    finished = job.run(processes=2, work="another")

    assert Outcome.SUCCEEDED is finished.outcome, finished.err
    assert f"Going on after step {told[1]}" in finished.err
    for name in ("lora-20.safetensors", "surtr_arknights-20.pt"):
        expected, found = (tensors_of(name, each.s3.get(f"output/ckpts/{name}")) for each in (alone, job))
        assert expected.keys() == found.keys()
        for key in expected:
            assert agree(expected[key].float(), found[key].float(), TRAINED_TOLERANCE), key
    for curve in ("losses", "held_out"):
        expected_curve, found_curve = (getattr(history.parse(each.s3.get("output/history.jsonl").decode()), curve) for each in (alone, job))
        assert [step for step, _ in expected_curve] == [step for step, _ in found_curve]
        assert [loss for _, loss in expected_curve] == pytest.approx([loss for _, loss in found_curve], rel=TRAINED_TOLERANCE)


def children(running: Running) -> list[int]:
    return [int(child) for child in Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split()]


def gone(processes: list[int], seconds: float = 30) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not any(alive(process) for process in processes):
            return True
        time.sleep(0.05)
    return False


def alive(process: int) -> bool:
    """Whether it runs; one that has ended and that nobody has asked about yet does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_the_reason_of_a_process_that_fails_is_that_of_the_run(faulty_s3: FaultyS3, job: TrainingJob) -> None:
    """The service refuses the credentials in mid-run: one line, its exit code, no traceback of the process that lost its partner."""
    job = joined(TrainingJob(faulty_s3, job.folder, job.base), 2)
    running = job.start(processes=2)
    running.until_true(lambda: SAVE_EVERY in job.states())
    faulty_s3.answer(Answer(403, "AccessDenied"), times=1000)
    ended = running.wait()

    assert Outcome.STORAGE_ACCESS_DENIED is ended.outcome, ended.err
    assert "the credentials may not do this" in ended.line
    assert "Traceback" not in ended.err
    assert "manifest.json" not in job.output_keys()


def test_a_process_that_comes_alone_says_that_others_are_missing(alone: TrainingJob) -> None:
    """Fewer GPUs than asked for: nothing is trained, whoever started it hears why."""
    job_file = alone.folder / "work/job.json"
    other = alone.folder / "two"
    other.mkdir()
    (other / "job.json").write_text(job_file.read_text().replace('"processes": 1', '"processes": 2'))

    worker = subprocess.run(
        [sys.executable, "-m", "charalora_trainer.worker", str(other)],
        env=alone.variables,
        capture_output=True,
        timeout=SECONDS,
        check=False,
    )

    assert Outcome.GPU_MISMATCH.exit_code == worker.returncode, worker.stderr
    assert "1 processes met where 2 were asked for" in (other / "outcome.json").read_text()
