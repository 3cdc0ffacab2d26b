"""history.jsonl: each step's loss and each held-out loss, one JSON object a line; what the report's curve is drawn from."""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from charalora_spec.spec import Keep

FILE = "history.jsonl"


@dataclass(frozen=True)
class History:
    """The losses of a training, in the order of their steps.

    Attributes:
        losses: (step, loss); a step whose loss was not finite is left out.
        held_out: (step, loss on pictures that training never sees).
    """

    losses: tuple[tuple[int, float], ...] = ()
    held_out: tuple[tuple[int, float], ...] = ()

    def mean(self, first: int, last: int) -> float | None:
        """Mean loss of the steps first … last; None where there is none."""
        chosen = [loss for step, loss in self.losses if first <= step <= last]
        return sum(chosen) / len(chosen) if chosen else None

    @property
    def best(self) -> tuple[int, float] | None:
        """The step with the lowest held-out loss."""
        return min(self.held_out, key=lambda point: point[1], default=None)


def chosen_step(history: History, keep: Keep, steps: int) -> int:
    """The step that is published: the last one, or with `keep: Best` the one with the lowest held-out loss."""
    return history.best[0] if keep is Keep.BEST and history.best is not None else steps


def line(step: int, **losses: float) -> str:
    """One entry; JSON has no NaN, so a loss that is not finite is null."""
    return json.dumps({"step": step} | {name: value if math.isfinite(value) else None for name, value in losses.items()}) + "\n"


def parse(text: str) -> History:
    """Read a history back. A last line that a crash cut short is passed over; of a step written twice the later entry counts."""
    losses: dict[int, float] = {}
    held_out: dict[int, float] = {}
    for step, entry in _entries(text):
        for name, curve in (("loss", losses), ("held_out_loss", held_out)):
            value = entry.get(name)
            if isinstance(value, (int, float)):
                curve[step] = float(value)
    return History(tuple(sorted(losses.items())), tuple(sorted(held_out.items())))


def until(text: str, step: int) -> str:
    """The part of a history that a training which resumes after `step` keeps."""
    return "".join(json.dumps(entry) + "\n" for at, entry in _entries(text) if at <= step)


def read(folder: Path) -> History:
    """The history in an output folder; empty where there is none."""
    path = folder / FILE
    return parse(path.read_text(encoding="utf-8")) if path.exists() else History()


def _entries(text: str) -> Iterator[tuple[int, dict[str, object]]]:
    """The whole lines, as a step and what was noted of it."""
    for raw in text[: text.rfind("\n") + 1].splitlines():
        entry = json.loads(raw)
        yield int(entry["step"]), entry
