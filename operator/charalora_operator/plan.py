"""What to do for one resource, decided from what is seen of it. Everything that the operator ever does starts here."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from charalora_operator import desired, document, names
from charalora_operator.attempts import Attempt, attempts_of, seconds_left, verdict
from charalora_operator.checks import first_blocker
from charalora_operator.endings import End, end_of, lost_at
from charalora_operator.model import Action, Create, DeleteJob, DeleteResource, EndJob, JobState, Observed, PodFacts, Resource
from charalora_operator.picture import Picture
from charalora_operator.settings import Settings
from charalora_operator.status import has_succeeded, status_of
from charalora_operator.waiting import Waiting, waiting_for, waiting_for_the_end, waiting_in_queue
from charalora_spec.outcome import Outcome
from charalora_spec.spec import CharacterLora
from charalora_spec.status import Condition, Status

_WHILE_IN_THE_WAY = timedelta(seconds=30)
_SAVING = "The training saves its state and gives its GPUs back."


@dataclass(frozen=True)
class Plan:
    """What follows from an observation.

    Attributes:
        actions: What to do, in order.
        status: What to write when that is done.
        requeue_after: Seconds until the resource must be looked at again although nothing happened; None: never.
    """

    actions: tuple[Action, ...]
    status: Status
    requeue_after: float | None


@dataclass(frozen=True)
class _Scene:
    """A readable resource, and all that is known of it."""

    resource: Resource
    run: CharacterLora
    attempts: tuple[Attempt, ...]
    observed: Observed
    settings: Settings
    now: datetime

    @property
    def seconds_left(self) -> int | None:
        """What remains of run.deadlineSeconds; None without a limit."""
        return seconds_left(self.run.spec.run.deadline_seconds, self.attempts, self.now)


@dataclass(frozen=True)
class _Step:
    """One decision: what to do now, what it means, and when to look again."""

    picture: Picture
    actions: tuple[Action, ...] = ()
    again_at: datetime | None = None


def plan_of(resource: Resource, observed: Observed, settings: Settings, now: datetime) -> Plan:
    """Decide what to do for a resource. The same arguments give the same plan."""
    if resource.deleting:
        return Plan((), resource.status, None)
    if has_succeeded(resource.status):
        return _retired(resource, resource.status, (), now)
    step = _step(resource, observed, settings, now)
    status = status_of(resource, observed, step.picture, settings, now)
    if step.picture.ended is not None:
        return _retired(resource, status, step.actions, now)
    after = None if step.again_at is None else max(0.0, (step.again_at - now).total_seconds())
    return Plan(step.actions, status, after)


def _step(resource: Resource, observed: Observed, settings: Settings, now: datetime) -> _Step:
    """A running attempt is watched; without one the next is prepared: checks that read nothing, the check that reads, the attempt."""
    attempts = attempts_of(observed, resource.status, now)
    if observed.in_the_way:
        return _Step(Picture(attempts, waiting=(Outcome.PODS_REFUSED, observed.in_the_way)), again_at=now + _WHILE_IN_THE_WAY)
    current = attempts[-1] if attempts else None
    if resource.run is not None and current is not None and current.end is None:
        return _watch(_Scene(resource, resource.run, attempts, observed, settings, now), current)
    if current is not None and current.end is not None and current.end.outcome is Outcome.SUCCEEDED:
        return _Step(Picture(attempts, ended=current.end))
    blocker = resource.problem or (first_blocker(resource.run, settings) if resource.run is not None else "")
    if blocker or resource.run is None:  # nothing is begun of which a part would be left out; what runs already runs on
        return _Step(Picture(attempts, ended=End(Outcome.SPEC_INVALID, blocker, now)))
    return _after_attempts(_Scene(resource, resource.run, attempts, observed, settings, now))


def _after_attempts(scene: _Scene) -> _Step:
    """Nothing trains: is the last end final, and if not, may the next attempt begin?"""
    run, given = scene.run, names.short(document.run_digest(scene.run))
    ends = [attempt.end for attempt in scene.attempts if attempt.end is not None and attempt.job.run == given]
    if ends:
        last, judged = ends[-1], verdict(ends, run.spec.run)
        if not judged.again:
            return _Step(Picture(scene.attempts, ended=End(last.outcome, judged.message, last.at, last.details)))
        if judged.at > scene.now:
            return _Step(Picture(scene.attempts, waiting=(last.outcome, judged.message)), again_at=judged.at)
    if scene.seconds_left == 0:
        return _Step(Picture(scene.attempts, ended=End(Outcome.DEADLINE_EXCEEDED, Outcome.DEADLINE_EXCEEDED.meaning, scene.now)))
    return _checked(scene)


def _checked(scene: _Scene) -> _Step:
    """The data set must have passed its check before a GPU is claimed."""
    run, attempts = scene.run, scene.attempts
    job = scene.observed.jobs.get(names.preflight_job(run.metadata.name, document.run_digest(run)))
    if job is None:
        make = tuple(Create(manifest) for manifest in desired.manifests_of_check(scene.resource, run, scene.settings))
        return _Step(Picture(attempts, waiting=(Outcome.CHECKING, Outcome.CHECKING.meaning)), make)
    pods = scene.observed.pods_of(job.name)
    checked = _as_written(end_of(job, pods, scene.now), pods, scene.resource.status)
    if checked is None:
        why = waiting_for(pods, scene.observed.refused.get(job.name, ""))
        return _Step(Picture(attempts, waiting=why or (Outcome.CHECKING, Outcome.CHECKING.meaning)))
    if checked.outcome is not Outcome.SUCCEEDED:
        return _Step(Picture(attempts, checked=checked, ended=checked))
    if run.spec.run.suspend:
        return _Step(Picture(attempts, checked=checked, waiting=(Outcome.SUSPENDED, "run.suspend is true; set it to false to go on.")))
    return _begin(scene, checked)


def _as_written(checked: End | None, pods: Sequence[PodFacts], before: Status) -> End | None:
    """The end of a check as the status has it, where its pods are gone, and with them what they found."""
    written = next((one for one in before.conditions if one.type == Condition.DATASET_READY.value and one.status != "Unknown"), None)
    if checked is None or written is None or any(pod.ending for pod in pods):
        return checked
    if checked.outcome is Outcome.SUCCEEDED:
        return replace(checked, message=written.message)
    return replace(checked, outcome=Outcome.of_reason(written.reason) or checked.outcome, message=written.message)


def _begin(scene: _Scene, checked: End) -> _Step:
    """Start the next attempt on the data set that was checked."""
    seen = scene.resource.status.dataset  # from the same check, where its pod is gone by now
    digest = dict(checked.details.get("dataset") or {}).get("digest") or (seen.digest if seen else "")
    if not digest:
        message = "The check succeeded but told no digest of the data set; is the preflight image of another version than the operator?"
        return _Step(Picture(scene.attempts, checked=checked, ended=End(Outcome.INTERNAL_ERROR, message, scene.now)))
    number = 1 + max([scene.resource.status.attempt, *(attempt.number for attempt in scene.attempts)])
    wanted = desired.manifests_of_attempt(scene.resource, scene.run, scene.settings, number, digest, scene.seconds_left)
    waiting = (Outcome.PENDING, f"Attempt {number} is being started.")
    return _Step(Picture(scene.attempts, checked=checked, waiting=waiting), tuple(Create(manifest) for manifest in wanted))


def _watch(scene: _Scene, current: Attempt) -> _Step:
    """An attempt goes on, unless it is to pause, took too long or stands still."""
    run, attempts, job = scene.run, scene.attempts, current.job
    if job.deleting or job.ended_because or job.state is JobState.ENDING:
        return _Step(Picture(attempts, waiting=_ending(current.number, job.ended_because)), again_at=lost_at(current.pods))
    if current.is_decided:  # nothing of ours may come between, and be told as the cause
        return _Step(Picture(attempts, waiting=waiting_for_the_end(current.number, current.pods)))
    if run.spec.run.suspend:
        action = DeleteJob(job.name) if job.state is JobState.SUSPENDED else EndJob(job.name, Outcome.SUSPENDED)
        return _Step(Picture(attempts, waiting=(Outcome.SUSPENDED, _SAVING)), (action,))
    if scene.seconds_left == 0:
        return _given_up(attempts, Outcome.DEADLINE_EXCEEDED)
    has_started = current.has_started_on(run.spec.resources.nodes)
    given_up = [
        (lost_at(current.pods), Outcome.PREEMPTED),
        (_stalls_at(current, scene) if has_started else None, Outcome.STALLED),
    ]
    due = {at: outcome for at, outcome in given_up if at is not None}
    if due and min(due) <= scene.now:
        return _given_up(attempts, due[min(due)])
    queued = waiting_in_queue(job, run.spec.scheduling.queue_name or "", scene.observed.workload)
    why = queued or waiting_for_the_end(current.number, current.pods) or waiting_for(current.pods, scene.observed.refused.get(job.name, ""))
    if why is None and not has_started:
        why = (Outcome.PENDING, f"The pods of attempt {current.number} are being started.")
    return _Step(Picture(attempts, waiting=why), again_at=min(due, default=None))


def _given_up(attempts: tuple[Attempt, ...], outcome: Outcome) -> _Step:
    current = attempts[-1]
    return _Step(Picture(attempts, waiting=_ending(current.number, outcome.reason)), (EndJob(current.job.name, outcome),))


def _ending(attempt: int, because: str) -> Waiting:
    if because == Outcome.SUSPENDED.reason:
        return Outcome.SUSPENDED, _SAVING
    return Outcome.PENDING, f"Attempt {attempt} has ended{f' ({because})' if because else ''}; its last pods are on their way out."


def _stalls_at(current: Attempt, scene: _Scene) -> datetime | None:
    """When the attempt will have stood still for too long; None while nobody can tell."""
    sample, told = scene.observed.sample, scene.resource.status.progress
    if sample is None or sample.job != current.job.name:
        return None
    heard = (sample.heard_nearby, told.updated_at if told is not None else None)
    if not sample.figures and not any(at is not None and current.began is not None and at >= current.began for at in heard):
        return None  # perhaps the network's rules keep trainings of its namespace from being reached
    return sample.moved + timedelta(seconds=scene.settings.stall_seconds)


def _retired(resource: Resource, status: Status, actions: tuple[Action, ...], now: datetime) -> Plan:
    """What has ended stays as it is, until the time that its user set has passed."""
    limit = resource.run.spec.run.ttl_seconds_after_finished if resource.run is not None else None
    if limit is None or status.completion_time is None:
        return Plan(actions, status, None)
    due = status.completion_time + timedelta(seconds=limit)
    if due > now or status != resource.status:  # how it ended is told before it goes
        return Plan(actions, status, max(0.0, (due - now).total_seconds()))
    return Plan((*actions, DeleteResource(resource.uid)), status, None)
