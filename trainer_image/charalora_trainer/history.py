"""history.jsonl: each step's loss and each held-out loss, one JSON object a line; what the report's curve is drawn from."""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import geometric_mean

FILE = "history.jsonl"


@dataclass(frozen=True)
class History:
    """The losses of a training, in the order of their steps.

    Attributes:
        losses: (step, loss); a step whose loss was not finite is left out.
        held_out: (step, loss on pictures that training never sees, see `held_out_loss`).
        measurements: (step, the single losses that it is made of): at each step of the same pictures, noises and timesteps in one order.
    """

    losses: tuple[tuple[int, float], ...] = ()
    held_out: tuple[tuple[int, float], ...] = ()
    measurements: tuple[tuple[int, tuple[float, ...]], ...] = ()

    def mean(self, first: int, last: int) -> float | None:
        """Mean loss of the steps first … last; None where there is none."""
        chosen = [loss for step, loss in self.losses if first <= step <= last]
        return sum(chosen) / len(chosen) if chosen else None

    @property
    def best(self) -> tuple[int, float] | None:
        """The step with the lowest held-out loss."""
        return min(self.held_out, key=lambda point: point[1], default=None)


def line(step: int, **losses: float | Sequence[float]) -> str:
    """One entry; JSON has no NaN, so a loss that is not finite is null."""
    noted = {name: [_finite(one) for one in value] if isinstance(value, Sequence) else _finite(value) for name, value in losses.items()}
    return json.dumps({"step": step} | noted) + "\n"


def held_out_loss(losses: Sequence[float]) -> float:
    """The geometric mean of a save's measurements: a tenth less counts the same at every noise level.

    Little noise is the hardest to tell from a picture, so its losses are the highest, and would decide a plain mean alone. But what makes
    a character is decided where there is much noise: benchmarks/README.md has what a judge of pictures says of both.
    """
    return geometric_mean(losses) if all(losses) else 0.0


def held_out_line(step: int, losses: Sequence[float]) -> str:
    """The entry of a save's held-out loss, and the measurements that it is made of, to six digits."""
    return line(step, held_out_loss=held_out_loss(losses), held_out_losses=[float(f"{loss:.6g}") for loss in losses])


def parse(text: str) -> History:
    """Read a history back. A last line that a crash cut short is passed over; of a step written twice the later entry counts.

    Held-out losses are made from their measurements again: an earlier version may have written another mean, and saves are compared.
    """
    losses: dict[int, float] = {}
    held_out: dict[int, float] = {}
    measurements: dict[int, tuple[float, ...]] = {}
    for step, entry in _entries(text):
        for name, curve in (("loss", losses), ("held_out_loss", held_out)):
            value = entry.get(name)
            if isinstance(value, (int, float)):
                curve[step] = float(value)
        values = entry.get("held_out_losses")
        if isinstance(values, list) and all(isinstance(value, (int, float)) for value in values):
            measurements[step] = tuple(map(float, values))
            held_out[step] = held_out_loss(measurements[step])
    return History(tuple(sorted(losses.items())), tuple(sorted(held_out.items())), tuple(sorted(measurements.items())))


def until(text: str, step: int) -> str:
    """The part of a history that a training which resumes after `step` keeps."""
    return "".join(json.dumps(entry) + "\n" for at, entry in _entries(text) if at <= step)


def read(folder: Path) -> History:
    """The history in an output folder; empty where there is none."""
    path = folder / FILE
    return parse(path.read_text(encoding="utf-8")) if path.exists() else History()


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _entries(text: str) -> Iterator[tuple[int, dict[str, object]]]:
    """The whole lines, as a step and what was noted of it."""
    for raw in text[: text.rfind("\n") + 1].splitlines():
        entry = json.loads(raw)
        yield int(entry["step"]), entry
