"""Whether what a soak's trainings say of themselves is true. Pure: times are seconds of one clock."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from charalora_spec.outcome import Outcome
from charalora_spec.status import AttemptStatus, Condition, ConditionStatus, Status

SLACK = 90.0
"""Seconds by which an effect may come after its cause: a lost node is noticed late, and clocks of statuses have whole seconds."""

NAMED_LATER = 15.0
"""Seconds by which a pause may follow the end that is called by it: the operator has just seen the pause, and not the end yet."""


class Kind(Enum):
    """A fault, as it is reported."""

    OPERATOR_KILLED = "operator pod killed"
    POD_DELETED = "training pod deleted"
    POD_FORCED_AWAY = "training pod forced away"
    POD_EVICTED = "training pod evicted"
    JOB_DELETED = "Job deleted"
    TRAINING_STOPPED = "trainer stopped (SIGSTOP)"
    PAUSED = "paused, then continued"
    RESOURCE_DELETED = "CharacterLora deleted"
    NODE_KILLED = "node killed, then started"
    STORAGE_FROZEN = "storage frozen, then continued"
    STORAGE_DENIED = "storage keys replaced by a reader's, then restored"
    API_SERVER_KILLED = "API server killed, then started"
    NODE_UNHEARD = "node not heard of, whatever the cause"


EXPLAINS: Mapping[Outcome, frozenset[Kind]] = {
    Outcome.PREEMPTED: frozenset({Kind.POD_EVICTED, Kind.NODE_KILLED, Kind.NODE_UNHEARD}),
    Outcome.INTERRUPTED: frozenset({Kind.POD_DELETED, Kind.POD_FORCED_AWAY, Kind.JOB_DELETED}),
    Outcome.SUSPENDED: frozenset({Kind.PAUSED}),
    Outcome.STALLED: frozenset({Kind.TRAINING_STOPPED, Kind.STORAGE_FROZEN}),
    Outcome.STORAGE_UNREACHABLE: frozenset({Kind.STORAGE_FROZEN, Kind.NODE_KILLED}),
    Outcome.STORAGE_ACCESS_DENIED: frozenset({Kind.STORAGE_DENIED}),
}
"""Which faults may lead to a reason. A reason that is not here may not be given at all."""


@dataclass(frozen=True)
class Stroke:
    """A fault as it was done.

    Attributes:
        kind: Which.
        began: When.
        ended: When it was undone; as it began for what happens in a moment.
        resource: Whom it met; empty where it may have met everybody.
        about: What was hit.
    """

    kind: Kind
    began: float
    ended: float
    resource: str = ""
    about: str = ""


@dataclass
class Training:
    """What is known of one of the stream's trainings.

    Attributes:
        name: Its name.
        began: When it was made.
        status: As it was read last.
        ended: When it was first seen to have ended; None while it goes on.
        deleted: Whether somebody deleted it on purpose.
        lies: Figures of its status that went back.
    """

    name: str
    began: float
    status: Status = field(default_factory=Status)
    ended: float | None = None
    deleted: bool = False
    lies: list[str] = field(default_factory=list)

    @property
    def end(self) -> ConditionStatus | None:
        """What its condition Succeeded says; None before the first visit."""
        return next((one for one in self.status.conditions if one.type == Condition.SUCCEEDED.value), None)

    @property
    def has_ended(self) -> bool:
        """Whether nothing more will come, as far as its status says."""
        return self.end is not None and self.end.status != "Unknown"

    def read(self, status: Status, now: float) -> None:
        """Take a newer status; what may only grow must not have shrunk."""
        before, after = _counted(self.status), _counted(status)
        self.lies += [f"{name} went from {before[name]} back to {after[name]}" for name in before if after[name] < before[name]]
        self.status = status
        if self.has_ended and self.ended is None:
            self.ended = now
        elif not self.has_ended:
            self.ended = None


def problems_of(training: Training, strokes: Sequence[Stroke]) -> Iterator[str]:
    """What is not true of a training that had the time to end; empty where all is well."""
    yield from training.lies
    if training.deleted:
        return
    end = training.end
    if end is None or not training.has_ended:
        yield f"It has not ended: {end.reason if end else 'never visited'}: {end.message if end else ''}"
        return
    succeeded = Outcome.SUCCEEDED.reason
    if end.reason != succeeded and not _explained(end.reason, training, strokes, training.began, training.ended or training.began):
        yield f"It ended with {end.reason}, which nothing explains: {end.message}"
    for attempt in training.status.attempts:
        if attempt.end_time is None:
            yield f"It has ended, but the account of attempt {attempt.attempt} is open."
        elif attempt.reason != succeeded and not _explained(attempt.reason, training, strokes, *_span(attempt, training)):
            yield f"Attempt {attempt.attempt} ended with {attempt.reason}, which nothing explains."
    yield from _costs(training.status)


def _span(attempt: AttemptStatus, training: Training) -> tuple[float, float]:
    began = attempt.start_time.timestamp() if attempt.start_time else training.began
    return began, attempt.end_time.timestamp() if attempt.end_time else began


def _explained(reason: str, training: Training, strokes: Iterable[Stroke], began: float, ended: float) -> bool:
    outcome = Outcome.of_reason(reason)
    kinds = EXPLAINS.get(outcome, frozenset()) if outcome else frozenset()
    return any(
        stroke.kind in kinds
        and stroke.resource in {"", training.name}
        and stroke.began <= ended + (NAMED_LATER if stroke.kind is Kind.PAUSED else 2.0)
        and stroke.ended + SLACK >= began
        for stroke in strokes
    )


def _costs(status: Status) -> Iterator[str]:
    usage = status.usage
    if usage is None:
        return
    if usage.wasted_gpu_seconds > usage.gpu_seconds:
        yield f"{usage.wasted_gpu_seconds} GPU seconds are wasted of {usage.gpu_seconds}."
    if len(status.attempts) == status.attempt and usage.gpu_seconds != sum(one.gpu_seconds for one in status.attempts):
        yield f"The attempts' GPU seconds do not add up to {usage.gpu_seconds}."
    taken = {Outcome.PREEMPTED.reason, Outcome.INTERRUPTED.reason}
    if len(status.attempts) == status.attempt and status.preemptions > sum(one.reason in taken for one in status.attempts):
        yield f"It counts {status.preemptions} preemptions, and its attempts fewer."


def _counted(status: Status) -> dict[str, int]:
    usage, saved = status.usage, status.checkpoint
    return {
        "attempt": status.attempt,
        "preemptions": status.preemptions,
        "gpuSeconds": usage.gpu_seconds if usage else 0,
        "wastedGpuSeconds": usage.wasted_gpu_seconds if usage else 0,
        "checkpoint.step": saved.step if saved else 0,
    }
