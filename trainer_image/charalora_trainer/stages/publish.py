"""What a training leaves in its output prefix: files at every save, the closing set at the end.

The training loop only hands over copies. Writing, proving and uploading happen in a thread of their own, so that steps go on.
"""

import logging
import shutil
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from safetensors.torch import save_file
from torch import Tensor

from charalora_spec.outcome import Outcome, TrainingError
from charalora_trainer import cfg, history
from charalora_trainer.best import choose
from charalora_trainer.checkpoint import MANIFEST, Checkpoints, State
from charalora_trainer.console import Console
from charalora_trainer.data.held_out import held_out_count
from charalora_trainer.export import hcp, proof, webui
from charalora_trainer.job import Job, Workspace
from charalora_trainer.learner import Learner
from charalora_trainer.metrics import Metrics
from charalora_trainer.stages import closing
from charalora_trainer.stages.best_so_far import BestSoFar
from charalora_trainer.stages.facts import training_facts
from charalora_trainer.stages.gallery import Gallery
from charalora_trainer.stages.inventory import Inventory, files_of_saves
from charalora_trainer.stages.report_sources import write_report
from charalora_trainer.stages.train import Measured, StopAsked, is_save_step
from charalora_trainer.storage import open_store
from charalora_trainer.storage.uploads import Uploads
from charalora_trainer.weights import Adapter, Word
from charalora_trainer.words import embedding
from charalora_trainer.worklog import Rates, TrainingLog

logger = logging.getLogger(__name__)

STATE_FILE = "training.safetensors"
LOGS = ("train.log", history.FILE)  # they belong to a state: what an interrupted attempt wrote beyond it is dropped


@dataclass(frozen=True)
class Snapshot:
    """Copies of what was learned up to a step; later steps do not change them.

    Attributes:
        logs: The bytes of each log up to here: steps go on, and write into them, while the state is written.
    """

    step: int
    adapter: Adapter
    word: Word
    state: dict[str, Tensor]
    logs: dict[str, int]
    taken: float = field(default_factory=time.monotonic)


class Publisher:
    """The files of one training; only the first process has one.

    Args:
        job: What is trained.
        workspace: Where files are written before they are uploaded.
        learner: What they are made from.
        console: Where saves and uploads are shown.
        metrics: Where figures about them are told.
        done: The last step of the state that this attempt goes on from.
    """

    def __init__(self, job: Job, workspace: Workspace, learner: Learner, console: Console, metrics: Metrics, done: int) -> None:
        self._began = time.monotonic()
        self._job = job
        self._learner = learner
        self._console = console
        self._metrics = metrics
        self._output = workspace.output
        self._store = open_store(job.run.spec.output.uri, job.run.spec.storage)
        self._uploads = Uploads(self._store)
        metrics.set("upload_bytes", lambda: float(self._uploads.bytes_sent))
        metrics.set("upload_failures", lambda: float(self._uploads.failures))
        self._states = Checkpoints(workspace.states, job.claim.identity)
        self._inventory = Inventory(self._output, job.claim.identity, workspace.states / f"step-{done:06d}")
        self._gallery = Gallery(job, learner, workspace.output / "previews", console)
        self._restore_logs(workspace, done)
        self._log = TrainingLog(self._output, job.run.spec.training.steps, _steps_per_epoch(job), resumed_after=done)
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="publish")
        self._pending: list[Future[None]] = []
        self._write_settings()
        self._saved = done
        self._best = BestSoFar(metrics, console)
        self._best.tell(history.read(self._output))
        if is_save_step(job.run.spec.training, done):
            self._previews(done)  # before anything is sent: pictures that are not complete are made again
        if done:
            self._send_missing(done)

    def measured(self, step: Measured) -> None:
        """Note one step."""
        rates = self._learner.optimizer.rates_at(step.step)
        self._log.step(step.step, step.loss, Rates(model=rates.unet, word=rates.embedding))

    def save(self, step: int, held_out: Sequence[float], stop_asked: StopAsked) -> None:
        """Hand over everything that belongs to a save step, then make its pictures, unless the run is asked to stop meanwhile.

        Args:
            step: The step.
            held_out: Its measurements of the held-out loss; none where nothing is held out.
            stop_asked: Whether the run is asked to stop.

        Raises:
            TrainingError: What an earlier save met.
        """
        if held_out:
            self._log.held_out(step, held_out)
            self._best.tell(history.read(self._output))
        self._submit(self._snapshot(step), exports=True)
        self._previews(step, stop_asked)

    def stop(self, step: int) -> None:
        """Save the training state alone, unless the last save holds it, and wait until it is in the store: the process is about to end.

        Raises:
            TrainingError: What a save or an upload met.
        """
        if self._saved != step:
            self._submit(self._snapshot(step), exports=False)
        self._settle()
        self._uploads.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Let the thread finish what it was given, after a failure as well, so that a begun save is whole."""
        self._writer.shutdown(wait=True)
        self._log.close()
        self._uploads.close()

    def finish(self) -> None:
        """Make the closing files, prove them in diffusers, upload all, and write the manifest last.

        Raises:
            TrainingError: What a save or an upload met; nothing then says success.
        """
        self._settle()
        self._log.close()
        with self._console.stage("prove"):
            spec = self._job.run.spec
            choice = choose(history.read(self._output), spec.output.keep, spec.training.steps)
            logger.info("Step chosen", extra={"step": choice.step, "why": choice.reason})
            closing.publish(self._job, self._output, choice)
            closing.drop_unwanted(self._job, self._output, self._store, self._uploads, choice.step)
        with self._console.stage("report"):
            closing.note_facts(self._job, self._output, self._began)
            write_report(self._output)
        with self._console.stage("upload"):
            self._uploads.wait()
            self._states.prune_remote(self._store)  # of an attempt that was killed before it could
            closing.upload(self._job, self._output, self._store, self._uploads)

    def _snapshot(self, step: int) -> Snapshot:
        self._log.flush()
        sizes = {name: (self._output / name).stat().st_size for name in LOGS}
        return Snapshot(step, self._learner.adapter(), self._learner.word(), self._learner.optimizer.state(), sizes)

    def _submit(self, snapshot: Snapshot, *, exports: bool) -> None:
        self._settle()  # at most one save behind
        self._saved = snapshot.step
        self._pending.append(self._writer.submit(self._write, snapshot, exports=exports))

    def _settle(self) -> None:
        while self._pending:
            self._pending.pop(0).result()

    def _write(self, snapshot: Snapshot, *, exports: bool) -> None:
        """Write, prove, upload; the state last, so that a resumed run has every file of the steps before it."""
        with self._metrics.stage("save"):
            files = self._exports(snapshot) if exports else []
            state = self._states.save(snapshot.step, lambda folder: self._write_state(snapshot, folder))
            self._stay_owner()
        settings = [self._output / cfg.FILE, self._output / "train.log", *(self._output / "tblog").iterdir()]
        for file in [*files, *settings]:
            self._uploads.submit(file, file.relative_to(self._output).as_posix())
        self._upload_state(state, since=snapshot.taken)

    def _upload_state(self, state: State, since: float) -> None:
        """Send a state; once it is whole in the store, say so, and remove those that it replaces."""

        def arrived() -> None:
            self._metrics.set("checkpoint_seconds", time.monotonic() - since)
            self._tell_checkpoint(state.step)
            self._states.announce(state, self._store)
            self._states.prune_remote(self._store)

        self._states.upload(state, self._uploads, and_then=arrived)

    def _tell_checkpoint(self, step: int) -> None:
        self._metrics.set("last_checkpoint_step", step)
        self._metrics.set("last_checkpoint_timestamp_seconds", time.time())

    def _stay_owner(self) -> None:
        """Stop when a newer start has taken the output prefix. A storage that does not answer ends no training: uploads are tried again."""
        try:
            self._job.claim.verify(self._store)
        except TrainingError as error:
            if error.outcome is not Outcome.STORAGE_UNREACHABLE:
                raise
            logger.warning("Storage unreachable, the save stays on this machine for now", extra={"why": error.message})

    def _send_missing(self, done: int) -> None:
        """Send what an earlier attempt saved on this machine and could not send; the state last, as at a save.

        Without it a later state in the store would stand there without the files of the steps before it, or with those of another attempt,
        which was killed before its own state was sent.
        """
        there = {entry.key: entry for entry in self._store.list()}
        for file in files_of_saves(self._output, done):
            key = file.relative_to(self._output).as_posix()
            if key not in there or not self._store.holds(file, there[key]):
                self._uploads.submit(file, key)
        state = State(done, self._output / "state" / f"step-{done:06d}")
        if f"state/{state.folder.name}/{MANIFEST}" in there:
            self._tell_checkpoint(done)
        else:
            self._upload_state(state, since=time.monotonic())

    def _exports(self, snapshot: Snapshot) -> list[Path]:
        folder, name, step = self._output / "ckpts", self._job.run.spec.character.name, snapshot.step
        folder.mkdir(parents=True, exist_ok=True)
        facts = training_facts(self._job, step, datetime.now(UTC))
        written = [*hcp.write(snapshot.adapter, folder, step), webui.write(snapshot.adapter, folder / f"lora-{step}.safetensors", facts)]
        embedding.save_pt(snapshot.word, folder / f"{name}-{step}.pt", step=step)
        written.append(folder / f"{name}-{step}.pt")
        proof.prove_hcp(folder, step, snapshot.adapter)
        proof.prove_webui(folder / f"lora-{step}.safetensors", snapshot.adapter)
        proof.prove_word(folder / f"{name}-{step}.pt", snapshot.word)
        return written

    def _write_state(self, snapshot: Snapshot, folder: Path) -> None:
        save_file(snapshot.state, folder / STATE_FILE)
        for name, size in snapshot.logs.items():
            (folder / name).write_bytes((self._output / name).read_bytes()[:size])
        self._inventory.write(snapshot.step, folder)

    def _previews(self, step: int, stop_asked: StopAsked = lambda: False) -> None:
        """Make the pictures of a save step; whatever goes wrong there is reported, and training goes on."""
        try:
            for file in self._gallery.make(step, stop_asked):
                self._uploads.submit(file, file.relative_to(self._output).as_posix())
        except (TrainingError, RuntimeError, OSError, ValueError, LookupError, MemoryError) as error:
            logger.warning("Previews failed, training goes on", extra={"step": step, "why": str(error)})
            self._console.say(f"Previews of step {step} failed ({error}); training goes on.")

    def _restore_logs(self, workspace: Workspace, done: int) -> None:
        """The logs as they were when the state was saved; empty ones where training starts from the beginning."""
        self._output.mkdir(parents=True, exist_ok=True)
        for name in LOGS:
            if done:
                shutil.copyfile(workspace.states / f"step-{done:06d}" / name, self._output / name)
            else:
                (self._output / name).unlink(missing_ok=True)

    def _write_settings(self) -> None:
        (self._output / cfg.FILE).write_text(cfg.text(self._job.run), encoding="utf-8")


def _steps_per_epoch(job: Job) -> int:
    training = job.run.spec.training
    pictures = len(job.plan.pairs) - held_out_count(training.loss.held_out, len(job.plan.pairs))
    return max(1, -(-pictures // (training.batch_size * job.processes * training.gradient_accumulation)))
