"""How far a stage is, in words: figures in, one line out."""

from dataclasses import dataclass
from enum import Enum

SECONDS_BETWEEN_LINES = 10.0
PERCENT_BETWEEN_LINES = 5.0
SHORTEST_PAUSE = 5.0  # a stage of a few seconds needs no line but its last
MINUTE, HOUR, KIBI = 60, 3600, 1024


class Unit(Enum):
    """What a stage counts."""

    ITEMS = "items"
    BYTES = "bytes"


@dataclass(frozen=True)
class Progress:
    """Where a stage stands.

    Attributes:
        stage: Its name: fetch, check, encode, train, preview, save, upload or report.
        done: Units finished, those of an earlier attempt included.
        total: Units in all; None where nobody knows.
        start: Units that an earlier attempt had finished; they say nothing about the speed of this one.
        seconds: Since the stage began.
        unit: What is counted.
        loss: The newest training loss.
        images_per_second: The newest speed of training.
    """

    stage: str
    done: int = 0
    total: int | None = None
    start: int = 0
    seconds: float = 0.0
    unit: Unit = Unit.ITEMS
    loss: float | None = None
    images_per_second: float | None = None

    @property
    def percent(self) -> float | None:
        """Share that is done, 0 to 100; None without a total."""
        return 100.0 * self.done / self.total if self.total else None

    @property
    def eta(self) -> float | None:
        """Seconds that remain at the speed so far; None while there is none."""
        fresh = self.done - self.start
        if self.total is None or fresh <= 0:
            return None
        return self.seconds / fresh * max(0, self.total - self.done)


def duration(seconds: float) -> str:
    """`0.4s`, `37s`, `1m20s` or `2h05m`: as exact as a person cares for."""
    if seconds < MINUTE:
        return f"{seconds:.1f}s" if seconds < 10 else f"{int(seconds)}s"
    whole = int(seconds)
    if whole < HOUR:
        return f"{whole // MINUTE}m{whole % MINUTE:02d}s"
    return f"{whole // HOUR}h{whole % HOUR // MINUTE:02d}m"


def amount(number: int, unit: Unit) -> str:
    """A count as it is, bytes in the binary unit that gives a short number."""
    if unit is Unit.ITEMS:
        return str(number)
    size, names = float(number), iter(("B", "KiB", "MiB", "GiB"))
    name = next(names)
    for larger in names:
        if size < KIBI:
            break
        size, name = size / KIBI, larger
    return f"{number} B" if name == "B" else f"{size:.1f} {name}"


def facts(progress: Progress) -> str:
    """What is known of a running stage: `120/1000 12% loss 0.0812 11.4 img/s eta 1m20s`."""
    done = amount(progress.done, progress.unit)
    parts = (
        [done if progress.total is None else f"{done}/{amount(progress.total, progress.unit)}"] if progress.done or progress.total else []
    )
    if progress.percent is not None:
        parts.append(f"{int(progress.percent)}%")
    if progress.loss is not None:
        parts.append(f"loss {progress.loss:.4f}")
    if progress.images_per_second is not None:
        parts.append(f"{progress.images_per_second:.1f} img/s")
    if progress.eta is not None and progress.done != progress.total:
        parts.append(f"eta {duration(progress.eta)}")
    return " ".join(parts)


def running_line(progress: Progress) -> str:
    """The line of a stage under way."""
    return f"{progress.stage} {facts(progress)}".rstrip()


def closing_line(progress: Progress, *, whole: bool) -> str:
    """The last line of a stage: finished, or stopped by an error."""
    return f"{running_line(progress)} {'took' if whole else 'stopped after'} {duration(progress.seconds)}"


def line_is_due(now: Progress, last: Progress | None) -> bool:
    """A line every ten seconds or five percent, never two within five seconds; the closing line is not asked for here."""
    if last is None:
        return now.seconds >= SHORTEST_PAUSE
    pause = now.seconds - last.seconds
    moved = (now.percent or 0.0) - (last.percent or 0.0)
    return pause >= SECONDS_BETWEEN_LINES or (pause >= SHORTEST_PAUSE and moved >= PERCENT_BETWEEN_LINES)
