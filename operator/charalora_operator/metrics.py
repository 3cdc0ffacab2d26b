"""What Prometheus can ask of the operator. No label grows with the number of resources."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from charalora_operator.model import Resource
from charalora_spec.status import Condition, ConditionStatus, Status

_START_SECONDS = (0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 300)
_FIRST_STEP_SECONDS = (5, 10, 30, 60, 120, 300, 600, 1800, 3600, 14400)


@dataclass(frozen=True)
class Views:
    """What is counted at the moment when Prometheus asks.

    Attributes:
        states: Resources by namespace and state.
        depth: Keys in the queue.
        oldest: Seconds that the oldest has waited.
        ages: Seconds since each watch was last known to tell everything.
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
        registry = self.registry
        self._outcomes = Counter("charalora_training_outcomes", "Trainings that ended.", ["namespace", "reason"], registry=registry)
        self._attempts = Counter("charalora_attempts", "Training Jobs that were made.", ["namespace", "cause"], registry=registry)
        self._gpu_seconds = Counter("charalora_gpu_seconds", "GPU seconds that pods held.", ["namespace", "outcome"], registry=registry)
        self._to_job = Histogram(
            "charalora_create_to_job_seconds", "From a resource to its first Job.", buckets=_START_SECONDS, registry=registry
        )
        self._to_step = Histogram(
            "charalora_create_to_first_step_seconds", "From a resource to its first step.", buckets=_FIRST_STEP_SECONDS, registry=registry
        )
        self._visits = Histogram("charalora_reconcile_seconds", "Seconds of a visit to a resource.", ["result"], registry=registry)
        self._errors = Counter("charalora_reconcile_errors", "Visits that failed and are repeated.", ["kind"], registry=registry)
        self._requests = Counter("charalora_api_requests", "Requests to the API server.", ["verb", "code"], registry=registry)

    def show(self, views: Views) -> None:
        """Count these whenever Prometheus asks."""
        self.registry.register(_Viewed(views))
        Gauge("charalora_queue_depth", "Resources that are due.", registry=self.registry).set_function(views.depth)
        Gauge("charalora_queue_oldest_seconds", "Seconds that the oldest of them has waited.", registry=self.registry).set_function(
            views.oldest
        )
        Gauge("charalora_leader", "1 where this operator works, 0 where it stands by.", registry=self.registry).set_function(views.leads)

    def requested(self, verb: str, code: str) -> None:
        """A request to the API server was answered, or `none` was."""
        self._requests.labels(verb, code).inc()

    def visited(self, seconds: float, error: str = "") -> None:
        """A visit to a resource has ended; an error by its kind."""
        self._visits.labels("error" if error else "ok").observe(seconds)
        if error:
            self._errors.labels(error).inc()

    def attempted(self, resource: Resource, status: Status) -> None:
        """A training Job was made."""
        cause = "first" if status.attempt <= 1 else "preemption" if status.preemptions > resource.status.preemptions else "failure"
        self._attempts.labels(resource.key.namespace, cause).inc()

    def first_job(self, resource: Resource, now: datetime) -> None:
        """The first Job of a resource was made."""
        self._to_job.observe((now - resource.created).total_seconds())

    def told(self, resource: Resource, status: Status, now: datetime) -> None:
        """A status was written: what it says that the one before did not."""
        before, namespace = resource.status, resource.key.namespace
        if not _steps(before) and _steps(status) and status.attempt == 1:
            self._to_step.observe((now - resource.created).total_seconds())
        wasted = _wasted(status)
        self._gpu_seconds.labels(namespace, "wasted").inc(max(0, wasted - _wasted(before)))
        if _finish(status) and not _finish(before):
            self._outcomes.labels(namespace, _finish(status)).inc()
            self._gpu_seconds.labels(namespace, "useful").inc(max(0, (status.usage.gpu_seconds if status.usage else 0) - wasted))


class _Viewed(Collector):
    """Figures with labels that are counted when they are asked for: nothing is left of what is gone."""

    def __init__(self, views: Views) -> None:
        self._views = views

    def collect(self) -> Iterable[Metric]:
        trainings = GaugeMetricFamily("charalora_trainings", "Resources by state.", labels=["namespace", "state"])
        for (namespace, state), count in sorted(self._views.states().items()):
            trainings.add_metric([namespace, state], count)
        ages = GaugeMetricFamily("charalora_watch_age_seconds", "Seconds since a watch was last known to be complete.", labels=["resource"])
        for resource, seconds in sorted(self._views.ages().items()):
            ages.add_metric([resource], seconds)
        return [trainings, ages]


def condition_of(status: Status, condition: Condition) -> ConditionStatus | None:
    """One condition; None before the first visit."""
    return next((one for one in status.conditions if one.type == condition.value), None)


def _finish(status: Status) -> str:
    """The reason with which a training ended; empty while it has not."""
    succeeded = condition_of(status, Condition.SUCCEEDED)
    return succeeded.reason if succeeded is not None and succeeded.status != "Unknown" else ""


def _steps(status: Status) -> int:
    return status.progress.step if status.progress else 0


def _wasted(status: Status) -> int:
    return status.usage.wasted_gpu_seconds if status.usage else 0
