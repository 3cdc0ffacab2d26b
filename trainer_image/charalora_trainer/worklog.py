"""What a training writes down as it goes: train.log and tblog/ as the guide's users know them, and history.jsonl for the report."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from torch.utils.tensorboard import SummaryWriter

from charalora_trainer import history, logs

LINE_EVERY = 20
TENSORBOARD_EVERY = 5

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Rates:
    """Learning rates as the optimizer used them in a step, scaled and warmed up."""

    model: float
    word: float


def step_line(step: int, steps: int, steps_per_epoch: int, rates: Rates, loss: float) -> str:
    """`Step = [20/1000], Epoch = [1/4]<5/25>, LR_model = 4.00e-04, LR_word = 1.20e-02, Loss = 0.12345`."""
    epoch, batch = divmod(step - 1, steps_per_epoch)
    epochs = -(-steps // steps_per_epoch)
    place = f"Step = [{step}/{steps}], Epoch = [{epoch + 1}/{epochs}]<{batch + 1}/{steps_per_epoch}>"
    return f"{place}, LR_model = {rates.model:.2e}, LR_word = {rates.word:.2e}, Loss = {loss:.5f}"


@dataclass
class _Mean:
    """A mean that starts again when it is taken."""

    total: float = 0.0
    count: int = 0

    @classmethod
    def since(cls, step: int, every: int, noted: str) -> Self:
        """As it stood after `step`, when it is taken every so many steps: an interrupted attempt's history says what went into it."""
        mean = cls()
        for at, loss in history.parse(noted).losses:
            if step - step % every < at <= step:
                mean.add(loss)
        return mean

    def add(self, value: float) -> None:
        self.total += value
        self.count += 1

    def take(self) -> float:
        mean = self.total / self.count
        self.total, self.count = 0.0, 0
        return mean


class TrainingLog:
    """The files that tell how a training went, in its output folder; only rank 0 keeps one.

    While it is open, our own log lines from INFO on go to train.log as well.
    """

    def __init__(self, folder: Path, steps: int, steps_per_epoch: int, resumed_after: int = 0) -> None:
        """Open the files; what an interrupted attempt wrote of steps beyond `resumed_after` is dropped, for they run again."""
        folder.mkdir(parents=True, exist_ok=True)
        self._steps, self._steps_per_epoch = steps, steps_per_epoch
        path = folder / history.FILE
        kept = history.until(path.read_text(encoding="utf-8"), resumed_after) if path.exists() else ""
        path.write_text(kept, encoding="utf-8")
        self._history = path.open("a", encoding="utf-8", buffering=1)
        begun_before = any(folder.glob("tblog/*"))
        self._tensorboard = SummaryWriter(folder / "tblog", purge_step=resumed_after + 1 if begun_before else None)
        self._handler = logs.keep_in(folder / "train.log")
        self._for_line, self._for_tensorboard = (_Mean.since(resumed_after, every, kept) for every in (LINE_EVERY, TENSORBOARD_EVERY))

    def step(self, step: int, loss: float, rates: Rates) -> None:
        """Note one step. Call it for every step, in order; it may be late, so that losses are read from the device several at a time."""
        self._history.write(history.line(step, loss=loss))
        self._for_line.add(loss)
        self._for_tensorboard.add(loss)
        if step % TENSORBOARD_EVERY == 0 or step == self._steps:
            self._tensorboard.add_scalar("Loss", self._for_tensorboard.take(), step)
            self._tensorboard.add_scalar("LR_model", rates.model, step)
            self._tensorboard.add_scalar("LR_word", rates.word, step)
        if step % LINE_EVERY == 0 or step == self._steps:
            logger.info(step_line(step, self._steps, self._steps_per_epoch, rates, self._for_line.take()))
            self.flush()

    def held_out(self, step: int, losses: Sequence[float]) -> None:
        """Note the loss on the pictures that training never sees, from its measurements."""
        loss = history.held_out_loss(losses)
        self._history.write(history.held_out_line(step, losses))
        self._tensorboard.add_scalar("HeldOutLoss", loss, step)
        logger.info("Held-out loss measured", extra={"step": step, "loss": round(loss, 5)})
        self.flush()

    def flush(self) -> None:
        """Put everything noted so far on the disk; call it before a training state is saved, which the history belongs to."""
        self._history.flush()
        self._tensorboard.flush()

    def close(self) -> None:
        """Close the files."""
        self._history.close()
        self._tensorboard.close()
        logs.leave_off(self._handler)
