"""The loss curve as SVG: drawn by hand, for the report is one file that loads nothing."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup

from charalora_trainer.history import History

Point = tuple[float, float]

WIDTH, HEIGHT = 860, 330
LEFT, RIGHT, TOP, BOTTOM = 62, 16, 16, 46
MOST_POINTS = 430  # about one for every two pixels
TREND_SHARE = 14  # the trend is the mean over one part in this many of the training


@dataclass(frozen=True)
class Axis:
    """A linear scale: values from `low` to `high` lie at pixels `start` to `end`, with round numbers marked."""

    low: float
    high: float
    start: float
    end: float
    ticks: tuple[float, ...]

    def at(self, value: float) -> float:
        """The pixel of a value, not beyond the ends."""
        share = (value - self.low) / (self.high - self.low)
        return self.start + min(1.0, max(0.0, share)) * (self.end - self.start)


def round_ticks(low: float, high: float, about: int = 7) -> tuple[float, ...]:
    """Multiples of 1, 2 or 5 times a power of ten within low … high, about as many as asked for."""
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    return tuple(index * step for index in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1))


def thinned(points: Sequence[Point], most: int = MOST_POINTS) -> list[Point]:
    """At most `most` points, each the mean of its neighbours."""
    size = max(1, -(-len(points) // most))
    groups = [points[index : index + size] for index in range(0, len(points), size)]
    return [(sum(x for x, _ in group) / len(group), sum(y for _, y in group) / len(group)) for group in groups]


def trend(points: Sequence[Point], window: int) -> list[Point]:
    """Each point's mean with the neighbours on both sides, `window` points in all; fewer at the ends."""
    half = window // 2
    around = (points[max(0, index - half) : index + half + 1] for index in range(len(points)))
    return [(point[0], sum(y for _, y in near) / len(near)) for point, near in zip(points, around, strict=True)]


def loss_chart(history: History, saves: Sequence[int], steps: int) -> Markup | None:
    """The chart, or None where there are fewer than two losses. Every text in it is ours or a number."""
    if len(history.losses) < 2:
        return None
    raw = thinned([(float(step), loss) for step, loss in history.losses])
    smooth = trend(raw, max(3, len(raw) // TREND_SHARE))
    x, y = _axes(smooth, history, steps)
    parts = [*_grid(x, y), *_saves(x, saves)]
    parts.append(f'<path class="raw" d="{_path(raw, x, y)}"/>')
    parts.append(f'<path class="trend" d="{_path(smooth, x, y)}"/>')
    parts.extend(_held_out(history, x, y))
    title = f"Loss over {steps} steps: from {smooth[0][1]:.4f} to {smooth[-1][1]:.4f}."
    head = f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-labelledby="curve"><title id="curve">{title}</title>'
    return Markup(head + "".join(parts) + "</svg>")  # noqa: S704 - made of numbers and of the sentences above


def _axes(smooth: Sequence[Point], history: History, steps: int) -> tuple[Axis, Axis]:
    """Steps from 0 to the last; losses around the trend, for single losses jump far and say little."""
    values = [value for _, value in smooth] + [value for _, value in history.held_out]
    spread = max(max(values) - min(values), 0.05 * max(values), 1e-6)
    low, high = max(0.0, min(values) - 0.3 * spread), max(values) + 0.3 * spread
    x = Axis(0.0, float(steps), LEFT, WIDTH - RIGHT, round_ticks(0.0, float(steps), 8))
    return x, Axis(low, high, HEIGHT - BOTTOM, TOP, round_ticks(low, high))


def _grid(x: Axis, y: Axis) -> list[str]:
    step = min((b - a for a, b in pairwise(y.ticks)), default=1.0)
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    lines = [f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y.at(tick):.1f}" y2="{y.at(tick):.1f}"/>' for tick in y.ticks]
    labels = [f'<text class="y" x="{LEFT - 8}" y="{y.at(tick) + 4.5:.1f}">{tick:.{digits}f}</text>' for tick in y.ticks]
    labels += [f'<text class="x" x="{x.at(tick):.1f}" y="{HEIGHT - BOTTOM + 20}">{tick:g}</text>' for tick in x.ticks]
    labels.append(f'<text class="x name" x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 6}">step</text>')
    labels.append(f'<text class="x name" transform="translate(14 {(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)">loss</text>')
    return [*lines, *labels]


def _saves(x: Axis, saves: Sequence[int]) -> list[str]:
    """A small flag on the axis for each checkpoint."""
    foot = HEIGHT - BOTTOM
    return [f'<path class="save" d="M{x.at(step):.1f} {foot - 7}l4.5 7h-9z"><title>saved at step {step}</title></path>' for step in saves]


def _held_out(history: History, x: Axis, y: Axis) -> list[str]:
    if not history.held_out or not history.best:
        return []
    points = [(float(step), loss) for step, loss in history.held_out]
    dots = [f'<circle class="held" cx="{x.at(step):.1f}" cy="{y.at(loss):.1f}" r="3.5"/>' for step, loss in points]
    step, loss = history.best
    across, side = x.at(step), "end" if x.at(step) > WIDTH / 2 else "start"
    label = f'<text class="best {side}" x="{across:.1f}" y="{y.at(loss) - 14:.1f}">best {loss:.4f} at {step}</text>'
    ring = f'<circle class="ring" cx="{across:.1f}" cy="{y.at(loss):.1f}" r="7"/>'
    return [f'<path class="held-line" d="{_path(points, x, y)}"/>', *dots, ring, label]


def _path(points: Sequence[Point], x: Axis, y: Axis) -> str:
    return "M" + "L".join(f"{x.at(step):.1f} {y.at(value):.1f}" for step, value in points)
