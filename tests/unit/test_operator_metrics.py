"""What the operator tells Prometheus: true after restarts and lost attempts, and no more of it with more resources."""

from collections import Counter
from dataclasses import replace
from typing import Any

from prometheus_client import Metric, generate_latest
from prometheus_client.openmetrics import exposition
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from charalora_operator import names
from charalora_operator.metrics import Metrics, Views
from charalora_operator.model import Create, Key
from charalora_spec.metrics import GPU_SECONDS, OPERATOR
from charalora_spec.outcome import Outcome
from operator_world import World, after, told
from promtool import promtool

KEY = Key("artists", "surtr")


def of(metrics: Metrics, name: str, **labels: str) -> float:
    """A figure; the test fails where there is none."""
    value = metrics.registry.get_sample_value(name, labels)
    assert value is not None, f"there is no {name} {labels}"
    return value


def views(states: dict[tuple[str, str], int] | None = None) -> Views:
    """As those of an operator that works."""
    ages = {"characterloras": 1.0, "jobs": 2.0, "pods": 3.0}
    return Views(states=lambda: states or {}, depth=lambda: 0, oldest=lambda: 0.0, ages=lambda: ages, leads=lambda: True)


class Watched(World):
    """A world whose operator counts; it can be started again."""

    def begin(self) -> "Watched":
        """A new process: its counters begin at 0, and whatever is sure is that it meets the world as the last one left it."""
        self.metrics = Metrics()
        self.metrics.visiting(KEY)
        return self

    def look(self) -> Any:
        """Let the operator work once, and count as the reconciler does."""
        before = self.resource
        plan = super().look()
        made = [action.manifest for action in plan.actions if isinstance(action, Create) and action.manifest["kind"] == "Job"]
        if any(job["metadata"]["labels"][names.COMPONENT] == names.TRAINING for job in made):
            self.metrics.attempted(before, plan.status)
        if self.status != before.status:
            self.metrics.told(before, self.status, self.now)
        return plan

    def preempt(self, job: str, **told_last: Any) -> None:
        """The cluster takes a running attempt away."""
        self.pods[f"{job}-0"] = replace(self.pods[f"{job}-0"], disruption=("PreemptionByScheduler", "preempted"))
        self.end_pod(job, told(Outcome.INTERRUPTED, **told_last), exit_code=75)
        self.end_job(job)
        self.look()

    def gpu_seconds(self) -> tuple[float, float]:
        """Useful and wasted, as this process counted them."""
        return of(self.metrics, GPU_SECONDS.name, namespace="artists", outcome="useful", cause="none"), sum(self.lost())

    def lost(self) -> tuple[float, ...]:
        """Wasted GPU seconds, by what they were lost to."""
        causes, wasted = ("preemption", "failure", "pause"), {"namespace": "artists", "outcome": "wasted"}
        return tuple(of(self.metrics, GPU_SECONDS.name, **wasted, cause=cause) for cause in causes)


def test_an_end_is_counted_once_and_not_by_the_operator_that_comes_after() -> None:
    world = Watched().begin()
    world.succeed(world.train())
    ended = {"namespace": "artists", "reason": "Succeeded"}
    assert 1 == of(world.metrics, "charalora_training_outcomes_total", **ended)

    world.wait(60)
    world.look()
    assert 1 == of(world.metrics, "charalora_training_outcomes_total", **ended)

    world.begin().look()
    assert 0 == of(world.metrics, "charalora_training_outcomes_total", **ended)
    assert (0, 0) == world.gpu_seconds()


def test_gpu_seconds_of_a_lost_attempt_are_counted_once_whoever_sees_its_end() -> None:
    """100 seconds of two GPUs, saved after 70; then 50 seconds to the end, the second half of them under another operator."""
    world = Watched().begin()
    job = world.train()
    world.wait(100)
    world.report(job, 500, last_checkpoint_step=400, last_checkpoint_timestamp_seconds=after(70).timestamp())
    world.look()
    assert (0, 0) == world.gpu_seconds()
    world.fail(job, Outcome.INTERNAL_ERROR)
    assert (140, 60) == world.gpu_seconds()
    assert (0, 60, 0) == world.lost()

    world.wait(10)
    world.look()
    job = world.train(2)
    world.wait(25)
    world.begin().look()
    world.wait(25)
    world.succeed(job)

    assert (100, 0) == world.gpu_seconds()
    assert world.status.usage is not None
    assert (300, 60) == (world.status.usage.gpu_seconds, world.status.usage.wasted_gpu_seconds)


def test_a_training_that_goes_on_after_its_end_counts_its_seconds_once() -> None:
    """More retries were allowed; what the attempts before them cost is in the counter already."""
    world = Watched().begin()
    world.change(run__retries=0)
    job = world.train()
    world.wait(50)
    world.fail(job, Outcome.INTERNAL_ERROR)
    world.change(run__retries=3)
    world.wait(10)
    world.look()
    job = world.train(2)
    world.wait(50)
    world.succeed(job)

    assert (100, 100) == world.gpu_seconds()
    outcomes = [
        of(world.metrics, "charalora_training_outcomes_total", namespace="artists", reason=reason)
        for reason in ("InternalError", "Succeeded")
    ]
    assert [1, 1] == outcomes


def test_an_attempt_is_counted_by_how_the_one_before_it_ended() -> None:
    world = Watched().begin()
    world.preempt(world.train())
    job = world.train(2)
    world.fail(job, Outcome.INTERNAL_ERROR)
    world.wait(10)
    world.look()
    job = world.train(3)
    world.change(run__suspend=True)
    world.look()
    world.jobs[job] = replace(world.jobs[job], ended_because="Suspended")
    world.end_pod(job, told(Outcome.INTERRUPTED), exit_code=75)
    world.end_job(job)
    world.look()
    world.change(run__suspend=False)
    world.look()

    assert "surtr-a4" in world.jobs
    causes = ("first", "preemption", "failure", "pause")
    assert [1, 1, 1, 1] == [of(world.metrics, "charalora_attempts_total", namespace="artists", cause=cause) for cause in causes]


def test_the_counters_of_a_namespace_begin_at_zero() -> None:
    """Prometheus sees no increase in a series that begins with 1."""
    metrics = Metrics()
    metrics.visiting(KEY)

    assert 0 == of(metrics, "charalora_training_outcomes_total", namespace="artists", reason="LossDiverged")
    assert 0 == of(metrics, "charalora_attempts_total", namespace="artists", cause="failure")
    assert 0 == of(metrics, "charalora_gpu_seconds_total", namespace="artists", outcome="wasted", cause="failure")
    assert 0 == of(metrics, "charalora_reconcile_seconds_count", result="error")


def exercised(resources: int) -> Metrics:
    """An operator that has seen so many resources of 20 namespaces, in every state, and everything that can happen to them."""
    metrics, reasons = Metrics(), [outcome.reason for outcome in Outcome]
    keys = [Key(f"team-{number % 20}", f"lora-{number}") for number in range(resources)]
    states = Counter((key.namespace, reasons[number // 20 % len(reasons)]) for number, key in enumerate(keys))
    metrics.show(views(dict(states)))
    world = World()
    world.succeed(world.train())
    for key in keys:
        resource = replace(World().resource, key=key)
        metrics.visiting(key)
        metrics.first_job(resource, after(3))
        metrics.attempted(resource, world.status)
        metrics.told(resource, world.status, after(60))
        metrics.visited(key, 0.01)
        metrics.visited(key, 0.01, "api_500")
        for verb in ("GET", "POST", "PATCH"):
            metrics.requested(verb, "200")
    return metrics


def families(metrics: Metrics) -> list[Metric]:
    """What OpenMetrics' own parser reads."""
    page: bytes = exposition.generate_latest(metrics.registry)  # type: ignore[no-untyped-call]
    return list(text_string_to_metric_families(page.decode()))  # type: ignore[no-untyped-call]


def series(metrics: Metrics) -> int:
    """How many series Prometheus keeps of an operator."""
    return sum(not line.startswith(b"#") for line in generate_latest(metrics.registry).splitlines())


def test_ten_times_the_resources_are_no_series_more() -> None:
    """A namespace has its states, ends and causes; a resource has nothing of its own."""
    few, many = series(exercised(1_000)), series(exercised(10_000))

    print(f"An operator with 1,000 resources in 20 namespaces and {len(Outcome)} states serves {few} series; with 10,000, {many}.")
    assert few == many
    assert few <= 20 * 65 + 80


def test_the_page_is_as_prometheus_wants_it() -> None:
    """Names, types and explanations as promtool checks them; OpenMetrics for who asks for it."""
    metrics = exercised(3)

    assert not promtool("check", "metrics", content=generate_latest(metrics.registry).decode())
    assert families(metrics)


def test_a_slow_one_is_named_by_an_exemplar() -> None:
    """Whose first Job came after 45 seconds; a name of any length fits into what Prometheus takes."""
    metrics = Metrics()
    long = Key("n" * 63, "x" * 63)
    metrics.first_job(replace(World().resource, key=long), after(45))
    metrics.visited(KEY, 7.0)

    found = {
        (sample.name, sample.labels["le"], sample.exemplar.labels["resource"], sample.exemplar.value)
        for family in families(metrics)
        for sample in family.samples
        if sample.exemplar
    }
    assert {
        ("charalora_create_to_job_seconds_bucket", "60.0", str(long)[:120], 45.0),
        ("charalora_reconcile_seconds_bucket", "10.0", "artists/surtr", 7.0),
    } == found


def test_each_declared_figure_is_served_as_it_is_declared() -> None:
    """Name, type, meaning and labels."""
    collected = list(exercised(3).registry.collect())
    declared = {figure.name: (figure.kind.value, figure.meaning) for figure in OPERATOR}
    served = {
        family.name + ("_total" if family.type == "counter" else ""): (family.type, family.documentation)
        for family in collected
        if family.name.startswith("charalora_")
    }
    samples = [sample for family in collected for sample in family.samples]
    labels = {figure.name: {frozenset(sample.labels) - {"le"} for sample in samples if sample.name in figure.series} for figure in OPERATOR}

    assert declared == served
    assert {figure.name: {frozenset(figure.labels)} for figure in OPERATOR} == labels
