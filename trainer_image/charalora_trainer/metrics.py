"""What a run tells Prometheus: figures, kept by name, served from the first second of `charalora run` to its last.

A training in processes of its own leaves their figures in files, each replaced as a whole, that the serving process reads at a scrape. So a
scrape never waits for a step, a step never for a scrape, and neither sees half of the other.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import CollectorRegistry, Histogram, disable_created_metrics, start_http_server, write_to_textfile
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from charalora_spec.metrics import STAGE, STAGE_SECONDS, STEP_SECONDS, TOTAL, TRAINING, Figure, Kind
from charalora_spec.outcome import Outcome, TrainingError

PORT = "CHARALORA_METRICS_PORT"
"""Environment variable: the port that figures are served on; without it nothing is served."""

SECONDS_BETWEEN_FILES = 1.0
_FIGURES = {figure.short: figure for figure in TRAINING}

Value = float | Callable[[], float]
"""A figure, or what to ask for it at each scrape."""

disable_created_metrics()  # type: ignore[no-untyped-call]


@dataclass
class _Stopwatch:
    """How long a stage has run, all its visits together."""

    seconds: float = 0.0
    running: int = 0
    since: float = 0.0

    @property
    def total(self) -> float:
        return self.seconds + (time.monotonic() - self.since if self.running else 0.0)


class Metrics(Collector):
    """The figures of one process, and of the files that it follows. A figure that was never set does not show. Safe to use from threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: dict[str, dict[tuple[tuple[str, str], ...], Value]] = {}
        self._stages: dict[str, _Stopwatch] = {}
        self._step_seconds = Histogram(STEP_SECONDS.name, STEP_SECONDS.meaning, registry=None, buckets=STEP_SECONDS.buckets)
        self._has_steps = False
        self._followed: Path | None = None
        self.began = time.time()

    def set(self, name: str, value: Value, **labels: str) -> None:
        """Set a gauge, or a counter's total: one of those that charalora_spec.metrics lists, by its short name and with its labels."""
        if name not in _FIGURES or set(labels) != set(_FIGURES[name].labels):
            raise KeyError(name, *labels)
        with self._lock:
            self._values.setdefault(name, {})[tuple(labels.items())] = value

    def step_took(self, seconds: float) -> None:
        """Count a step into the histogram."""
        self._has_steps = True
        self._step_seconds.observe(seconds)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """A stage runs while the block does; several may, and one may several times."""
        with self._lock:
            watch = self._stages.setdefault(name, _Stopwatch())
            if not watch.running:
                watch.since = time.monotonic()
            watch.running += 1
        try:
            yield
        finally:
            with self._lock:
                watch.seconds, watch.since = watch.total, time.monotonic()
                watch.running -= 1

    def follow(self, folder: Path | None) -> None:
        """Show the figures that other processes leave in a folder, too."""
        self._followed = folder

    def value(self, name: str) -> float | None:
        """A figure without labels, whichever process has it; None where nobody knows it."""
        samples = (sample for metric in self.collect() for sample in metric.samples)
        return next((sample.value for sample in samples if sample.name == f"charalora_{name}" and not sample.labels), None)

    def collect(self) -> Iterator[Metric]:
        """Own figures and those of the followed files, a family each."""
        families: dict[str, Metric] = {}
        for metric in (*self._own(), *self._others()):
            families.setdefault(metric.name, metric)
            if families[metric.name] is not metric:
                families[metric.name].samples.extend(metric.samples)
        yield from families.values()

    @contextmanager
    def handed_over(self, file: Path) -> Iterator[None]:
        """Keep the figures in a file for the process that follows its folder: every second, and at the end of the block."""
        file.parent.mkdir(parents=True, exist_ok=True)
        registry = CollectorRegistry()
        registry.register(self)
        stopped = threading.Event()

        def keep() -> None:
            while not stopped.wait(SECONDS_BETWEEN_FILES):
                write_to_textfile(str(file), registry)

        keeper = threading.Thread(target=keep, name="metrics", daemon=True)
        keeper.start()
        try:
            yield
        finally:
            stopped.set()
            keeper.join()
            write_to_textfile(str(file), registry)

    def _own(self) -> Iterator[Metric]:
        with self._lock:
            values = {name: dict(series) for name, series in self._values.items()}
            stages = {name: (float(watch.running > 0), watch.total) for name, watch in self._stages.items()}
        for name, series in values.items():
            family = _family(_FIGURES[name])
            for labels, value in series.items():
                family.add_metric([text for _, text in labels], value() if callable(value) else value)
            yield family
        if stages:
            running, seconds = _family(STAGE), _family(STAGE_SECONDS)
            for stage, (is_running, total) in stages.items():
                running.add_metric([stage], is_running)
                seconds.add_metric([stage], total)
            yield from (running, seconds)
        if self._has_steps:
            yield from self._step_seconds.collect()

    def _others(self) -> Iterator[Metric]:
        for file in sorted(self._followed.glob("*.prom")) if self._followed else ():
            yield from text_string_to_metric_families(file.read_text(encoding="utf-8"))


def _family(figure: Figure) -> GaugeMetricFamily | CounterMetricFamily:
    family = CounterMetricFamily if figure.kind is Kind.COUNTER else GaugeMetricFamily
    return family(figure.name.removesuffix(TOTAL), figure.meaning, labels=figure.labels, unit=figure.unit)


@contextmanager
def served(environ: Mapping[str, str]) -> Iterator[Metrics]:
    """Figures, served as the environment says while the block runs.

    Raises:
        TrainingError: `SpecInvalid` when they cannot be served on the port that it names.
    """
    metrics = Metrics()
    if not environ.get(PORT):
        yield metrics
        return
    registry = CollectorRegistry()
    registry.register(metrics)
    try:
        server, thread = start_http_server(int(environ[PORT]), registry=registry)
    except (ValueError, OverflowError, OSError) as error:
        raise TrainingError(Outcome.SPEC_INVALID, f"{PORT} is {environ[PORT]!r}: {error}; name a free port, such as 9400.") from error
    try:
        yield metrics
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
