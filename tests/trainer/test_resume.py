"""Whatever ends a training early, the same command goes on where it was: on the same machine or another, to the same bits."""

import json
import random
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from charalora_spec.outcome import Outcome
from charalora_trainer import history
from charalora_trainer.weights import Adapter
from services import S3, fresh_bucket
from trainings import Running, TrainingJob, charalora, differences, pictures

STEPS, SAVE_EVERY = 36, 3
TRAINED = r"train .*took"
# Everything that draws random numbers or keeps a memory between steps.
DEMANDING: dict[str, Any] = {
    "training__steps": STEPS,
    "training__save_every": SAVE_EVERY,
    "training__gradient_accumulation": 2,
    "training__lora__dropout": 0.1,
    "training__learning_rate__schedule": "cosine",
    "training__loss__noise_offset": 0.05,
    "training__loss__held_out": 1,
    "dataset__flip": True,
    "dataset__captions__tag_dropout": 0.2,
    "dataset__captions__caption_dropout": 0.1,
}


@dataclass(frozen=True)
class Undisturbed:
    """What a training leaves that nothing disturbs, and how many seconds it takes."""

    files: dict[str, bytes]
    seconds: float


@pytest.fixture(scope="module")
def uninterrupted(_seaweedfs: S3, base_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Undisturbed]:
    """What the demanding training leaves when nothing disturbs it."""
    with fresh_bucket(_seaweedfs) as s3:
        job = TrainingJob(s3, tmp_path_factory.mktemp("whole"), base_model.as_uri()).with_fields(**DEMANDING).upload_dataset()
        job.start_command("--version").wait()  # the first start imports everything
        began = time.monotonic()
        ended = job.run()
        seconds = time.monotonic() - began
        assert Outcome.SUCCEEDED is ended.outcome, ended.err
        yield Undisturbed(job.output(), seconds)


@pytest.fixture
def demanding(job: TrainingJob) -> TrainingJob:
    return job.with_fields(**DEMANDING)


def test_a_stopped_training_goes_on_bit_by_bit_on_another_machine(demanding: TrainingJob, uninterrupted: Undisturbed) -> None:
    """SIGTERM between two saves: exit code 75, the state in the bucket; N steps are k steps and N - k steps, in every file."""
    running = demanding.start()
    running.until(r"preview .*took")
    running.terminate()
    stopped = running.wait()

    assert Outcome.INTERRUPTED is stopped.outcome, stopped.err
    told = re.search(rf"Stopped on request after step (\d+) of {STEPS}, state saved", stopped.line)
    assert told, stopped.err
    step = int(told[1])
    assert SAVE_EVERY <= step < STEPS
    assert step == demanding.states()[-1]
    assert "manifest.json" not in demanding.output_keys()

    resumed = demanding.run(work="another")

    assert Outcome.SUCCEEDED is resumed.outcome, resumed.err
    assert f"Going on after step {step} of {STEPS}" in resumed.err
    assert [] == differences(uninterrupted.files, demanding.output())


def test_a_stop_while_pictures_are_encoded(job: TrainingJob) -> None:
    """Nothing was learned, so nothing is saved but the latents that stand; the same command goes on with the others."""
    job.upload_dataset(pictures(40, 128, 128))
    running = job.start()
    latents = job.folder / "work/latents"
    running.until_true(lambda: any(latents.rglob("*.safetensors")))
    running.terminate()
    stopped = running.wait()
    encoded = {file.name: file.stat().st_mtime_ns for file in latents.rglob("*.safetensors")}

    assert Outcome.INTERRUPTED is stopped.outcome, stopped.err
    assert stopped.line.endswith("Stopped on request; the same command goes on where it was.")
    assert 0 < len(encoded) < 40
    assert ["state/run.json"] == job.output_keys()

    assert Outcome.SUCCEEDED is job.run().outcome
    now = {file.name: file.stat().st_mtime_ns for file in latents.rglob("*.safetensors")}
    assert 40 == len(now)
    assert encoded.items() <= now.items()


def test_a_stop_while_previews_are_made_does_not_wait_for_them(job: TrainingJob) -> None:
    """They take longer than a grace period may be. The save they belong to is whole, and the next start makes them."""
    job = job.with_fields(preview__inference_steps=100)
    running = job.start()
    running.until_true(lambda: 4 in job.local_states())
    running.terminate()
    stopped = running.wait()

    assert Outcome.INTERRUPTED is stopped.outcome, stopped.err
    assert re.search(r"^preview .*stopped after", stopped.err, re.MULTILINE)
    assert "after step 4 of 8, state saved" in stopped.line
    assert [4] == job.states()
    assert {"ckpts/lora-4.safetensors", "ckpts/surtr_arknights-4.pt"} <= set(job.output_keys())
    assert [] == [key for key in job.output_keys() if key.startswith("previews/")]

    resumed = job.run(work="another")

    assert Outcome.SUCCEEDED is resumed.outcome, resumed.err
    assert 4 == sum(key.startswith(("previews/4/", "previews/8/")) for key in job.output_keys())


def test_a_stop_during_the_closing_steps(job: TrainingJob) -> None:
    """Training is over, its state is saved, the files are being proven: a later start only finishes."""
    running = job.start()
    running.until(TRAINED)
    running.terminate()
    stopped = running.wait()

    assert Outcome.INTERRUPTED is stopped.outcome, stopped.err
    assert "manifest.json" not in job.output_keys()

    finished = job.run()

    assert Outcome.SUCCEEDED is finished.outcome, finished.err
    assert "manifest.json" in job.output_keys()


def _charalora_that_writes_slowly(arguments: list[str], environment: dict[str, str], folder: Path) -> None:
    from charalora_trainer.export import hcp

    write = hcp.write

    def later(adapter: Adapter, folder: Path, step: int) -> tuple[Path, ...]:
        time.sleep(2)
        return write(adapter, folder, step)

    hcp.write = later
    charalora(arguments, environment, folder)


def test_a_state_has_the_logs_up_to_its_step_however_slowly_it_is_written(job: TrainingJob) -> None:
    """Steps go on meanwhile, and write into the logs."""
    ended = Running(job.arguments(), job.variables, job.folder / "run-0", _charalora_that_writes_slowly).wait()

    assert Outcome.SUCCEEDED is ended.outcome, ended.err
    files = job.output()
    assert {step: step for step in job.states()} == {
        step: history.parse(files[f"state/step-{step:06}/history.jsonl"].decode()).losses[-1][0] for step in job.states()
    }


def test_files_of_another_attempt_do_not_stand_under_a_state_that_is_sent_later(job: TrainingJob) -> None:
    """Two attempts made the same step, and neither could send its state: one sent its files, the other has them on its machine."""
    job = job.with_fields(preview__inference_steps=100)
    _kill_after_save(job)
    for key in job.output_keys():
        if key.startswith("state/step-"):
            job.s3.client.delete_object(Bucket=job.s3.bucket, Key=f"output/{key}")
    job.s3.put("output/ckpts/lora-4.safetensors", b"another attempt's")

    _kill_after_save(job)

    assert job.local("ckpts/lora-4.safetensors").read_bytes() == job.output()["ckpts/lora-4.safetensors"]
    resumed = job.run(work="another")
    assert Outcome.SUCCEEDED is resumed.outcome, resumed.err
    assert "Going on after step 4 of 8" in resumed.err


def _kill_after_save(job: TrainingJob) -> None:
    """Until its state is in the store; pictures keep it from the next step."""
    running = job.start()
    running.until_true(lambda: 4 in job.states())
    running.kill()


def test_a_second_run_in_the_same_folder_is_refused(job: TrainingJob) -> None:
    """Two runs that write the same files would spoil both; the first one is not disturbed."""
    job = job.with_fields(preview__inference_steps=50)
    first = job.start()
    first.until(r"load base model .*took")
    second = job.run()

    assert Outcome.OUTPUT_OCCUPIED is second.outcome, second.err
    assert f"Another run works in {job.folder / 'work'}" in second.line
    assert Outcome.SUCCEEDED is first.wait().outcome


@dataclass
class Killer:
    """Kills a training at moments that a seed draws, and starts it again, by turns in the same folder and in a new one.

    Attributes:
        seconds: What the whole training took undisturbed. The machine may have been busier then, so a pause is at most a share of it.
        progress: The last step that any attempt is known to have made.
        lost: Steps that had to be made again, for each attempt that trained.
    """

    job: TrainingJob
    seconds: float
    random: random.Random
    work: str = "work-0"
    kills: int = 0
    progress: int = 0
    lost: list[int] = field(default_factory=list)

    def kill_one(self, moment: str) -> bool:
        """Start an attempt and kill it: at "start", at "save", when one more state is whole here, or when `moment` shows on stderr.

        Returns:
            Whether it was killed; towards its end a training may be faster.
        """
        if self.kills % 2:
            self.work = f"work-{self.kills}"
        before = max([0, *self.job.local_states(self.work), *self.job.states()])
        attempt = self.job.start(work=self.work)
        if moment == "start":
            longest = min(self.seconds / 8, 3.0)
        elif moment == "save" and before < STEPS:
            attempt.until_true(lambda: max([0, *self.job.local_states(self.work)]) > before)
            longest = min(self.seconds * SAVE_EVERY / STEPS, 0.25)
        else:
            attempt.until(TRAINED if moment == "save" else moment)
            longest = min(self.seconds / 50, 0.2)
        time.sleep(self.random.uniform(0, longest))
        killed = attempt.alive
        attempt.kill()
        self.kills += killed
        self.note(attempt, before)
        return killed

    def note(self, attempt: Running, saved: int) -> None:
        """See from where an attempt went on, and how far it came; one that was killed before that counts with the next."""
        told = re.search(r"Going on after step (\d+)", attempt.err)
        if told is None and saved:
            return
        begin = int(told[1]) if told else 0
        self.lost.append(self.progress - begin)
        history = self.job.local("history.jsonl", self.work)
        lines = history.read_text().splitlines() if history.exists() else []
        self.progress = max([begin, *(json.loads(line)["step"] for line in lines if line.endswith("}"))])


def test_twenty_kills_at_random_moments_change_nothing(demanding: TrainingJob, uninterrupted: Undisturbed) -> None:
    """SIGKILL while it starts, trains, saves, uploads, draws, proves: the end is bit by bit that of an undisturbed run.

    A kill loses the steps since the last save, and that save's where it was still being written or sent.
    """
    killer = Killer(demanding, uninterrupted.seconds, random.Random(20))
    moments = ["start"] * 9 + ["save"] * 9
    killer.random.shuffle(moments)
    for moment in (*moments, TRAINED, TRAINED):
        assert killer.kill_one(moment)
    for moment in (r"prove .*took", r"report .*took"):
        killer.kill_one(moment)

    final = demanding.start(work=killer.work)
    ended = final.wait()
    killer.note(final, saved=STEPS)

    assert 20 <= killer.kills
    assert Outcome.SUCCEEDED is ended.outcome, ended.err
    assert [] == differences(uninterrupted.files, demanding.output())
    assert max(killer.lost) < 2 * SAVE_EVERY, killer.lost
    assert [] == list(demanding.local(work=killer.work).rglob(".*"))
