"""Progress for people: a bar on a terminal, plain lines in a log, nothing from the other processes of a training.

Everything goes to stderr, so that a command's answer alone is on stdout.
"""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol, TextIO

import rich.console
from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichProgress
from rich.text import Text

from charalora_trainer import logs
from charalora_trainer.progress import Progress, Unit, closing_line, facts, line_is_due, running_line

if TYPE_CHECKING:
    from charalora_trainer.metrics import Metrics


class Stage(Protocol):
    """A stage under way."""

    def advance(self, by: int = 1, *, loss: float | None = None, images_per_second: float | None = None) -> None:
        """Count `by` more units as done; callable from any thread."""


class Console(Protocol):
    """Where a person reads how far a run is."""

    def stage(self, name: str, total: int | None = None, *, start: int = 0, unit: Unit = Unit.ITEMS) -> AbstractContextManager[Stage]:
        """Show a stage while the block runs; stages may be nested. `start` units were finished by an earlier attempt."""

    def say(self, sentence: str) -> None:
        """Show one sentence."""


@dataclass
class _Shown:
    """A stage and how it is drawn; `draw` is called under the lock."""

    progress: Progress
    draw: Callable[[Progress], None]
    began: float = field(default_factory=time.monotonic)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def advance(self, by: int = 1, *, loss: float | None = None, images_per_second: float | None = None) -> None:
        with self.lock:
            before = self.progress
            self.progress = replace(
                before,
                done=before.done + by,
                seconds=time.monotonic() - self.began,
                loss=before.loss if loss is None else loss,
                images_per_second=before.images_per_second if images_per_second is None else images_per_second,
            )
            self.draw(self.progress)

    def ended(self) -> Progress:
        """The final figures."""
        return replace(self.progress, seconds=time.monotonic() - self.began)


class LogConsole:
    """Plain lines for a log, or JSON lines for machines: few, whole and flushed."""

    def __init__(self, stream: TextIO | None = None, *, as_json: bool = False) -> None:
        self._stream = stream
        self._as_json = as_json

    def say(self, sentence: str) -> None:
        """Write one line."""
        print(logs.spoken(sentence) if self._as_json else logs.safe(sentence), file=self._stream or sys.stderr, flush=True)

    @contextmanager
    def stage(self, name: str, total: int | None = None, *, start: int = 0, unit: Unit = Unit.ITEMS) -> Iterator[Stage]:
        """Write a line now and then, and one at the end."""
        last: Progress | None = None

        def draw(progress: Progress) -> None:
            nonlocal last
            if line_is_due(progress, last) and progress.done != progress.total:
                last = progress
                self.say(running_line(progress))

        shown = _Shown(Progress(name, done=start, total=total, start=start, unit=unit), draw)
        whole = False
        try:
            yield shown
            whole = True
        finally:
            self.say(closing_line(shown.ended(), whole=whole))


class TerminalConsole:
    """A live bar for each running stage, and a line for each finished one above them."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._rich = rich.console.Console(stderr=True) if stream is None else rich.console.Console(file=stream, force_terminal=True)
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=28),
            TextColumn("{task.fields[facts]}", markup=False),
            TimeElapsedColumn(),
        )
        self._bars = RichProgress(*columns, console=self._rich, transient=True)
        self._open = 0

    def say(self, sentence: str) -> None:
        """Print above the bars."""
        self._rich.print(Text(sentence), soft_wrap=True)

    @contextmanager
    def stage(self, name: str, total: int | None = None, *, start: int = 0, unit: Unit = Unit.ITEMS) -> Iterator[Stage]:
        """Draw a bar; leave a line behind."""
        progress = Progress(name, done=start, total=total, start=start, unit=unit)
        bar = self._bars.add_task(name, total=total, completed=start, facts=facts(progress))
        shown = _Shown(progress, lambda now: self._bars.update(bar, completed=now.done, facts=facts(now)))
        self._open += 1
        self._bars.start()
        whole = False
        try:
            yield shown
            whole = True
        finally:
            self._bars.remove_task(bar)
            self._open -= 1
            if self._open == 0:
                self._bars.stop()
            self.say(f"{'✓' if whole else '✗'} {closing_line(shown.ended(), whole=whole)}")


class MeteredConsole:
    """Another console, whose stages are told to Prometheus by the first word of their names as well."""

    def __init__(self, console: Console, metrics: "Metrics") -> None:
        self._console = console
        self._metrics = metrics

    def say(self, sentence: str) -> None:
        """Show one sentence."""
        self._console.say(sentence)

    @contextmanager
    def stage(self, name: str, total: int | None = None, *, start: int = 0, unit: Unit = Unit.ITEMS) -> Iterator[Stage]:
        """Show a stage and measure it."""
        with self._metrics.stage(name.partition(" ")[0]), self._console.stage(name, total, start=start, unit=unit) as shown:
            yield shown


class SilentConsole:
    """For the processes of a training that are not the first."""

    def say(self, sentence: str) -> None:
        """Say nothing."""

    @contextmanager
    def stage(self, name: str, total: int | None = None, *, start: int = 0, unit: Unit = Unit.ITEMS) -> Iterator[Stage]:
        """Show nothing."""
        yield _Shown(Progress(name, done=start, total=total, start=start, unit=unit), lambda _: None)


def open_console(rank: int = 0) -> Console:
    """The console for this process: bars where a person looks, lines where a file does, silence beside rank 0."""
    if rank != 0:
        return SilentConsole()
    as_json = os.environ.get(logs.ENV_JSON) == "1"
    return TerminalConsole() if sys.stderr.isatty() and not as_json else LogConsole(as_json=as_json)
