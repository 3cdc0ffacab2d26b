"""The training loop."""

import logging
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import zip_longest
from types import FrameType
from typing import Self

import torch
from torch import Tensor

from charalora_spec.outcome import Outcome, TrainingError
from charalora_spec.spec import Training
from charalora_trainer.feed import Feed
from charalora_trainer.learner import Learner
from charalora_trainer.optimizer import NAN_STEPS_IN_A_ROW
from charalora_trainer.processes import Processes

logger = logging.getLogger(__name__)

StopAsked = Callable[[], bool]
"""Whether the run was asked to end early."""

# How many steps a GPU may run ahead of this program. Reading a loss waits for the device, so it is done this often and no more.
STEPS_AHEAD = 5


@dataclass(frozen=True)
class Measured:
    """What is known of one step after the device has finished it."""

    step: int
    loss: float
    gradient_norm: float
    images: int
    seconds: float

    @property
    def images_per_second(self) -> float:
        """Of all processes together."""
        return self.images / self.seconds


@dataclass(frozen=True)
class Health:
    """How the training stands at a moment when the device is waited for anyway.

    Attributes:
        nonfinite_steps: Steps skipped so far, because their gradients were not finite.
        nonfinite_in_a_row: The last of them without a good one between.
        embedding_norm: Mean length of the trigger word's vectors.
    """

    nonfinite_steps: int
    nonfinite_in_a_row: int
    embedding_norm: float

    @classmethod
    def of(cls, learner: Learner) -> Self:
        """Read from the device in one go."""
        optimizer = learner.optimizer
        length = torch.linalg.vector_norm(learner.rows.detach().float(), dim=-1).mean()
        total, in_a_row, norm = torch.stack([optimizer.nonfinite_steps, optimizer.nonfinite_in_a_row, length]).tolist()
        return cls(int(total), int(in_a_row), norm)


@dataclass(frozen=True)
class Hooks:
    """What happens beside the steps; each is called by every process.

    Attributes:
        measured: Called with the steps since its last call, in order, up to STEPS_AHEAD steps late.
        save: Called at every save step, the last step included; what takes long there ends when a stop is asked for.
        stop: Called when the run is asked to end early, with the last finished step; it saves the state.
    """

    measured: Callable[[Sequence[Measured], Health], None]
    save: Callable[[int, StopAsked], None]
    stop: Callable[[int], None]


def train(learner: Learner, feed: Feed, processes: Processes, hooks: Hooks, done: int) -> None:
    """Train from step `done` + 1 to the last one.

    Raises:
        TrainingError: `LossDiverged` when the loss stays not finite; `Interrupted` after SIGTERM, once the state is saved.
    """
    training = learner.spec.training
    meter = _Meter(feed.global_batch * training.gradient_accumulation, learner.flat.master.device)
    learner.training(active=True)
    with _stop_signal() as stop_asked:
        for step in range(done + 1, training.steps + 1):
            torch.manual_seed(training.seed + step * processes.count + processes.rank)  # for LoRA dropout, the only draw on the device
            for micro in range(training.gradient_accumulation):
                noisy, text = feed.batch(step, micro)
                loss = learner.loss(noisy, text.ids) / training.gradient_accumulation
                learner.optimizer.backward(loss)
                meter.add(loss)
            learner.optimizer.step(step)
            meter.close(step, learner.optimizer.gradient_norm)

            is_save = is_save_step(training, step)
            if is_save or meter.is_full:
                measured, health = meter.read(processes), Health.of(learner)
                hooks.measured(measured, health)
                _refuse_divergence(training, health, step)
                if is_save:
                    hooks.save(step, stop_asked)
                    learner.training(active=True)
                    meter.restart()
                if processes.any(flag=stop_asked()):
                    hooks.stop(step)
                    raise TrainingError(
                        Outcome.INTERRUPTED,
                        f"Stopped on request after step {step} of {training.steps}, state saved; the same run resumes there.",
                    )
    learner.training(active=False)


def is_save_step(training: Training, step: int) -> bool:
    """Whether a step ends with a save: every `saveEvery` steps, and the last one; 0 stands for a training that has not begun."""
    return step > 0 and (step % training.save_every == 0 or step == training.steps)


@torch.no_grad()
def held_out_losses(learner: Learner, feed: Feed, processes: Processes) -> tuple[float, ...]:
    """Loss of each measurement on the held-out pictures, in one order for any number of processes; none when no picture is held out."""
    if not feed.held_out:
        return ()
    learner.training(active=False)
    own = [learner.losses(noisy, text.ids) for noisy, text in feed.held_out_batches()]
    shares = processes.gather([losses.tolist() for losses in own])
    learner.training(active=True)
    return tuple(loss for batches in zip_longest(*shares, fillvalue=[]) for losses in batches for loss in losses)


@dataclass
class _Meter:
    """Losses that stay on the device until several steps are read at once."""

    images_per_step: int
    device: torch.device
    _loss: Tensor = field(init=False)
    _entries: list[tuple[int, Tensor]] = field(default_factory=list)
    _since: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self._loss = torch.zeros((), device=self.device)

    @property
    def is_full(self) -> bool:
        """On a CPU nothing runs ahead, so each step is read at once."""
        return len(self._entries) >= (1 if self.device.type == "cpu" else STEPS_AHEAD)

    def add(self, loss: Tensor) -> None:
        self._loss = self._loss + loss.detach()

    def close(self, step: int, gradient_norm: Tensor) -> None:
        self._entries.append((step, torch.stack([self._loss, gradient_norm])))
        self._loss = torch.zeros((), device=self.device)

    def read(self, processes: Processes) -> list[Measured]:
        """The steps since the last call; waits for the device."""
        rows = processes.mean(torch.stack([entry for _, entry in self._entries])).tolist()
        seconds = max(time.monotonic() - self._since, 1e-9) / len(rows)
        steps = [step for step, _ in self._entries]
        self._entries.clear()
        self.restart()
        return [Measured(step, loss, norm, self.images_per_step, seconds) for step, (loss, norm) in zip(steps, rows, strict=True)]

    def restart(self) -> None:
        """Leave out what was not training (a save, a preview)."""
        self._since = time.monotonic()


def _refuse_divergence(training: Training, health: Health, step: int) -> None:
    in_a_row = health.nonfinite_in_a_row
    if in_a_row:
        logger.warning("Steps skipped, their gradients were not finite", extra={"step": step, "in_a_row": in_a_row})
    if in_a_row >= min(NAN_STEPS_IN_A_ROW, training.steps):
        raise TrainingError(
            Outcome.LOSS_DIVERGED,
            f"The loss was not finite in {in_a_row} steps in a row, up to step {step}; lower training.learningRate or use bf16 or fp32.",
        )


@contextmanager
def _stop_signal() -> Iterator[StopAsked]:
    """Whether SIGTERM or SIGINT came; while this is open they end the run at the next step instead of at once."""
    asked: list[int] = []

    def note(number: int, _: FrameType | None) -> None:
        asked.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
