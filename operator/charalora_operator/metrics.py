"""What Prometheus can ask of the operator. No label grows with the number of resources.

Each fact is counted when the status that tells it was written, so that a new process counts nothing a second time; one that stands by shows
no figure of the cluster, so that a sum over all operators is true.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, disable_created_metrics
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from charalora_operator.model import Key, Resource
from charalora_spec import metrics as figures
from charalora_spec.metrics import TOTAL, Figure
from charalora_spec.outcome import FINAL, Outcome
from charalora_spec.status import Condition, ConditionStatus, Status

_LONGEST_EXEMPLAR = 128 - len("resource")
_LOST_TO = ("preemption", "failure", "pause")
_TAKEN = {Outcome.PREEMPTED.reason, Outcome.INTERRUPTED.reason}


@dataclass(frozen=True)
class Views:
    """What is counted at the moment when Prometheus asks.

    Attributes:
        states: Resources by namespace and state; empty where this process does not know the cluster.
        depth: Keys in the queue.
        oldest: Seconds that the oldest has waited.
        ages: Seconds since each watch was last known to tell everything; empty where there is none.
        leads: Whether this process works.
    """

    states: Callable[[], Mapping[tuple[str, str], int]]
    depth: Callable[[], int]
    oldest: Callable[[], float]
    ages: Callable[[], Mapping[str, float]]
    leads: Callable[[], bool]


class Metrics:
    """The operator's own figures."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a series more for each counter, which nobody reads
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._outcomes = self._counter(figures.OUTCOMES)
        self._attempts = self._counter(figures.ATTEMPTS)
        self._gpu_seconds = self._counter(figures.GPU_SECONDS)
        self._to_job = self._histogram(figures.CREATE_TO_JOB)
        self._to_step = self._histogram(figures.CREATE_TO_FIRST_STEP)
        self._visits = self._histogram(figures.RECONCILE)
        self._errors = self._counter(figures.ERRORS)
        self._requests = self._counter(figures.REQUESTS)
        self._namespaces: set[str] = set()
        for result in ("ok", "error"):
            self._visits.labels(result)

    def show(self, views: Views) -> None:
        """Count these whenever Prometheus asks."""
        self.registry.register(_Viewed(views))
        for figure, view in ((figures.QUEUE_DEPTH, views.depth), (figures.QUEUE_OLDEST, views.oldest), (figures.LEADER, views.leads)):
            Gauge(figure.name, figure.meaning, registry=self.registry).set_function(view)

    def requested(self, verb: str, code: str) -> None:
        """A request to the API server was answered, or `none` was."""
        self._requests.labels(verb, code).inc()

    def visiting(self, key: Key) -> None:
        """A resource is visited. The counters of a namespace begin at 0 with its first: what rises from nothing is no increase."""
        namespace = key.namespace
        if namespace in self._namespaces:
            return
        self._namespaces.add(namespace)
        for end in FINAL:
            self._outcomes.labels(namespace, end.reason)
        for cause in ("first", *_LOST_TO):
            self._attempts.labels(namespace, cause)
        for cause in _LOST_TO:
            self._gpu_seconds.labels(namespace, "wasted", cause)
        self._gpu_seconds.labels(namespace, "useful", "none")

    def visited(self, key: Key, seconds: float, error: str = "") -> None:
        """A visit to a resource has ended; an error by its kind."""
        self._visits.labels("error" if error else "ok").observe(seconds, _exemplar(key))
        if error:
            self._errors.labels(error).inc()

    def attempted(self, resource: Resource, status: Status) -> None:
        """A training Job was made."""
        self._attempts.labels(resource.key.namespace, _cause(status)).inc()

    def first_job(self, resource: Resource, now: datetime) -> None:
        """The first Job of a resource was made."""
        self._to_job.observe((now - resource.created).total_seconds(), _exemplar(resource.key))

    def told(self, resource: Resource, status: Status, now: datetime) -> None:
        """A status was written: what it says that the one before did not."""
        before, namespace = resource.status, resource.key.namespace
        if not _steps(before) and _steps(status) and status.attempt == 1:
            self._to_step.observe((now - resource.created).total_seconds(), _exemplar(resource.key))
        open_until_now = {one.attempt for one in status.attempts if one.end_time} - {one.attempt for one in before.attempts if one.end_time}
        for attempt in status.attempts:
            if attempt.attempt in open_until_now:
                self._gpu_seconds.labels(namespace, "useful", "none").inc(attempt.gpu_seconds - attempt.wasted_gpu_seconds)
                self._gpu_seconds.labels(namespace, "wasted", _lost_to(attempt.reason)).inc(attempt.wasted_gpu_seconds)
        if _finish(status) and not _finish(before):
            self._outcomes.labels(namespace, _finish(status)).inc()

    def _counter(self, figure: Figure) -> Counter:
        return Counter(figure.name.removesuffix(TOTAL), figure.meaning, figure.labels, registry=self.registry, unit=figure.unit)

    def _histogram(self, figure: Figure) -> Histogram:
        return Histogram(figure.name, figure.meaning, figure.labels, buckets=figure.buckets, registry=self.registry, unit=figure.unit)


class _Viewed(Collector):
    """Figures with labels that are counted when they are asked for: nothing is left of what is gone."""

    def __init__(self, views: Views) -> None:
        self._views = views

    def collect(self) -> Iterable[Metric]:
        trainings, ages = _family(figures.TRAININGS), _family(figures.WATCH_AGE)
        for (namespace, state), count in sorted(self._views.states().items()):
            trainings.add_metric([namespace, state], count)
        for resource, seconds in sorted(self._views.ages().items()):
            ages.add_metric([resource], seconds)
        return [trainings, ages]


def condition_of(status: Status, condition: Condition) -> ConditionStatus | None:
    """One condition; None before the first visit."""
    return next((one for one in status.conditions if one.type == condition.value), None)


def _family(figure: Figure) -> GaugeMetricFamily:
    return GaugeMetricFamily(figure.name, figure.meaning, labels=figure.labels, unit=figure.unit)


def _exemplar(key: Key) -> dict[str, str]:
    """Whose observation it was: a dashboard shows it at a slow one. What Prometheus takes of it is limited."""
    return {"resource": str(key)[:_LONGEST_EXEMPLAR]}


def _cause(status: Status) -> str:
    """Why the newest attempt was made: by how the one before it ended."""
    ends = [one.reason for one in status.attempts if one.end_time is not None]
    return _lost_to(ends[-1]) if ends else "first"


def _lost_to(reason: str) -> str:
    """What ended an attempt that had this reason, in a word."""
    return "preemption" if reason in _TAKEN else "pause" if reason == Outcome.SUSPENDED.reason else "failure"


def _finish(status: Status) -> str:
    """The reason with which a training ended; empty while it has not."""
    succeeded = condition_of(status, Condition.SUCCEEDED)
    return succeeded.reason if succeeded is not None and succeeded.status != "Unknown" else ""


def _steps(status: Status) -> int:
    return status.progress.step if status.progress else 0
