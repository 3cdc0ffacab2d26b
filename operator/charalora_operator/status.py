"""What is seen and decided → the status that users read."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, TypeVar

from pydantic import ValidationError

from charalora_operator.attempts import Attempt
from charalora_operator.endings import End
from charalora_operator.model import Observed, Resource, Sample
from charalora_operator.settings import Settings
from charalora_operator.waiting import Waiting
from charalora_spec.outcome import Outcome
from charalora_spec.spec import CharacterLora
from charalora_spec.status import (
    Artifact,
    AttemptStatus,
    Best,
    CheckpointStatus,
    Condition,
    ConditionStatus,
    DatasetStatus,
    Progress,
    Status,
    Usage,
)
from charalora_spec.values import Number

_ATTEMPTS_SHOWN = 20
_MESSAGE = 4000
"""Characters of a condition's message; a list of findings may be longer than anybody reads."""

_Told = TypeVar("_Told", DatasetStatus, Best, Artifact)
_Truth = Literal["True", "False", "Unknown"]
_NOT_ADMITTED = {Outcome.UNSCHEDULABLE, Outcome.QUOTA_EXCEEDED, Outcome.PODS_REFUSED, Outcome.QUEUED}


@dataclass(frozen=True)
class Picture:
    """What was made of an observation.

    Attributes:
        attempts: The attempts that the cluster still knows of, oldest first.
        checked: How the check ended, where it was looked at.
        waiting: What keeps the training from running, if anything does.
        ended: How the training ended for good; None while it goes on.
    """

    attempts: tuple[Attempt, ...] = ()
    checked: End | None = None
    waiting: Waiting | None = None
    ended: End | None = None

    @property
    def current(self) -> Attempt | None:
        """The newest attempt."""
        return self.attempts[-1] if self.attempts else None


def has_succeeded(status: Status) -> bool:
    """Whether the training is done, for good."""
    return any(condition.type == Condition.SUCCEEDED.value and condition.status == "True" for condition in status.conditions)


def status_of(resource: Resource, observed: Observed, picture: Picture, settings: Settings, now: datetime) -> Status:
    """The status after an observation. What cannot be seen any more stays as it was written."""
    before, run = resource.status, resource.run
    current = picture.current
    checkpoint = _checkpoint(before, run, observed.sample, picture)
    progress = _progress(before, run, observed.sample, picture, settings)
    attempts, usage = _attempts(before, run, picture, checkpoint, now if progress != before.progress else None)
    status = before.model_copy(
        update={
            "observed_generation": resource.generation,
            "progress": progress,
            "dataset": _dataset(before, picture),
            "checkpoint": checkpoint,
            "best": _best(before, observed.sample, picture),
            "attempt": max(before.attempt, current.number if current else 0),
            "attempts": attempts,
            "preemptions": before.preemptions + _newly_preempted(before, attempts),
            "usage": usage,
            "artifacts": _artifacts(before, picture),
            "start_time": before.start_time or min((one.began for one in picture.attempts if one.began), default=None),
            "completion_time": (before.completion_time or picture.ended.at) if picture.ended else None,
            "job_name": current.job.name if current else before.job_name,
        }
    )
    said = _conditions(resource, observed, picture, status)
    return status.model_copy(update={"conditions": tuple(_dated(said, before, resource.generation, now))})


@dataclass(frozen=True)
class _Said:
    """A condition before it has its dates."""

    status: _Truth
    reason: str
    message: str


def _conditions(resource: Resource, observed: Observed, picture: Picture, status: Status) -> Mapping[Condition, _Said]:
    before = {condition.type: _Said(condition.status, condition.reason, condition.message) for condition in resource.status.conditions}
    return {
        Condition.DATASET_READY: _dataset_ready(before.get(Condition.DATASET_READY.value), picture),
        Condition.ADMITTED: _admitted(before.get(Condition.ADMITTED.value), resource.run, picture),
        Condition.TRAINING: _training(observed.sample, picture),
        Condition.ARTIFACTS_UPLOADED: _uploaded(resource.run, picture, status),
        Condition.SUCCEEDED: _succeeded(picture),
    }


def _dataset_ready(before: _Said | None, picture: Picture) -> _Said:
    if picture.checked is not None:
        if picture.checked.outcome is Outcome.SUCCEEDED:
            return _Said("True", "Checked", _found(picture.checked))
        return _Said("False", picture.checked.outcome.reason, picture.checked.message)
    if picture.attempts and before is not None:
        return before  # the training runs on what was checked
    if picture.waiting is not None:
        return _Said("Unknown", picture.waiting[0].reason, picture.waiting[1])
    return _Said("Unknown", "NotChecked", "The data set was not looked at.")


def _found(checked: End) -> str:
    """What the check saw, and what it warns of."""
    dataset = _read(DatasetStatus, checked.details.get("dataset"))
    if dataset is None:
        return checked.message
    size = f"of {dataset.width} × {dataset.height}" if dataset.width and dataset.height else f"in {dataset.buckets} sizes"
    warnings = [f"Warning: {warning}" for warning in checked.details.get("warnings") or []]
    return " ".join([f"{_count(dataset.images, 'picture')} {size}, captions of at most {dataset.tokens} tokens.", *warnings])


def _admitted(before: _Said | None, run: CharacterLora | None, picture: Picture) -> _Said:
    current = picture.current
    if current is None:
        return _Said("Unknown", "NotAsked", "No GPU was asked for yet.")
    if current.end is not None:
        return before or _Said("Unknown", "NotAsked", "No GPU is asked for at the moment.")
    if picture.waiting is not None and picture.waiting[0] in _NOT_ADMITTED:
        return _Said("False", picture.waiting[0].reason, picture.waiting[1])
    nodes = [pod.node for pod in current.pods if pod.node]
    if run is not None and len(nodes) >= run.spec.resources.nodes:
        gpus = len(nodes) * run.spec.resources.gpus
        return _Said("True", "Admitted", f"Attempt {current.number} has {_count(gpus, 'GPU')} on {', '.join(sorted(set(nodes)))}.")
    return _Said("Unknown", Outcome.PENDING.reason, f"The pods of attempt {current.number} wait for nodes.")


def _training(sample: Sample | None, picture: Picture) -> _Said:
    current = picture.current
    if picture.ended is not None and picture.ended.outcome is Outcome.SUCCEEDED:
        return _Said("False", "Completed", "Every step is done.")
    if current is None:
        return _Said("Unknown", "NotStarted", "No attempt was made yet.")
    if current.end is not None:
        return _Said("False", current.end.outcome.reason, f"Attempt {current.number}: {current.end.message}")
    if picture.waiting is not None:
        return _Said("False", picture.waiting[0].reason, picture.waiting[1])
    stage = sample.stage if sample is not None and sample.job == current.job.name else ""
    return _Said("True", Outcome.RUNNING.reason, f"Attempt {current.number} runs{f', stage {stage}' if stage else ''}.")


def _uploaded(run: CharacterLora | None, picture: Picture, status: Status) -> _Said:
    where = run.spec.output.uri if run is not None else "the output prefix"
    saved = f"; {where} has everything up to step {status.checkpoint.step}" if status.checkpoint else ""
    if picture.ended is None:
        return _Said("Unknown", "Pending", f"The manifest is written last{saved}.")
    if picture.ended.outcome is Outcome.SUCCEEDED:
        return _Said("True", "Uploaded", f"{where} is complete; its manifest.json lists every file with its digest.")
    return _Said("False", "Incomplete", f"There is no manifest{saved}.")


def _succeeded(picture: Picture) -> _Said:
    if picture.ended is not None:
        truth: _Truth = "True" if picture.ended.outcome is Outcome.SUCCEEDED else "False"
        return _Said(truth, picture.ended.outcome.reason, picture.ended.message)
    if picture.waiting is not None:
        return _Said("Unknown", picture.waiting[0].reason, picture.waiting[1])
    return _Said("Unknown", Outcome.RUNNING.reason, Outcome.RUNNING.meaning)


def _dated(said: Mapping[Condition, _Said], before: Status, generation: int, now: datetime) -> Iterable[ConditionStatus]:
    """A condition's time is when its status last changed, whatever its words did."""
    known = {condition.type: condition for condition in before.conditions}
    for condition, one in said.items():
        old = known.get(condition.value)
        yield ConditionStatus.model_validate(
            {
                "type": condition.value,
                "status": one.status,
                "reason": one.reason,
                "message": _cut(one.message),
                "lastTransitionTime": old.last_transition_time if old and old.status == one.status else _whole(now),
                "observedGeneration": generation,
            }
        )


def _progress(before: Status, run: CharacterLora | None, sample: Sample | None, picture: Picture, settings: Settings) -> Progress | None:
    old, current = before.progress, picture.current
    if run is None or current is None:
        return old
    steps = run.spec.training.steps
    if picture.ended is not None:
        if picture.ended.outcome is not Outcome.SUCCEEDED:
            return old and old.model_copy(update={"eta_seconds": None})
        done = old or Progress()
        return done.model_copy(
            update={"step": steps, "steps": steps, "percent": "100%", "eta_seconds": None, "updated_at": _whole(picture.ended.at)}
        )
    if sample is None or sample.job != current.job.name or "charalora_step" not in sample.figures:
        return old
    new = _measured(sample, steps)
    if old is None or old.percent != new.percent or old.updated_at is None:
        return new
    return new if sample.at - old.updated_at >= timedelta(seconds=settings.progress_seconds) else old


def _measured(sample: Sample, steps: int) -> Progress:
    figures = sample.figures
    step = int(figures["charalora_step"])
    loss, speed, eta = (figures.get(f"charalora_{name}") for name in ("loss", "images_per_second", "eta_seconds"))
    return Progress.model_validate(
        {
            "step": step,
            "steps": steps,
            "percent": f"{100 * step // steps}%",
            "loss": _number(loss, 4),
            "imagesPerSecond": _number(speed, 1),
            "etaSeconds": None if eta is None or eta != eta else max(0, round(eta)),  # noqa: PLR0124 - not a number
            "updatedAt": _whole(sample.at),
        }
    )


def _dataset(before: Status, picture: Picture) -> DatasetStatus | None:
    told = picture.checked.details.get("dataset") if picture.checked is not None else None
    return _read(DatasetStatus, told) or before.dataset


def _checkpoint(before: Status, run: CharacterLora | None, sample: Sample | None, picture: Picture) -> CheckpointStatus | None:
    """The newest state that is whole in the store, as the running attempt or its last words tell it."""
    if run is None:
        return before.checkpoint
    found: list[tuple[int, datetime]] = []
    if sample is not None:
        saved, since = (int(sample.figures.get(f"charalora_last_checkpoint_{name}", 0)) for name in ("step", "timestamp_seconds"))
        found.append((saved, datetime.fromtimestamp(since, UTC)))
    found += [(told, one.end.at) for one in picture.attempts if one.end and isinstance(told := one.end.details.get("savedStep"), int)]
    known = before.checkpoint.step if before.checkpoint else 0
    step, at = max(found, default=(0, datetime.min.replace(tzinfo=UTC)))
    if step <= known:
        return before.checkpoint
    uri = f"{run.spec.output.uri.rstrip('/')}/state/step-{step:06d}/"
    return CheckpointStatus.model_validate({"step": step, "uri": uri, "time": _whole(at)})


def _best(before: Status, sample: Sample | None, picture: Picture) -> Best | None:
    told = picture.ended.details.get("best") if picture.ended is not None else None
    if told is None and sample is not None and "charalora_best_step" in sample.figures:
        loss = _number(sample.figures.get("charalora_best_held_out_loss"), 6)
        told = {"step": int(sample.figures["charalora_best_step"]), "heldOutLoss": loss}
    return _read(Best, told) or before.best


def _artifacts(before: Status, picture: Picture) -> tuple[Artifact, ...]:
    told = picture.ended.details.get("artifacts") if picture.ended is not None else None
    if not isinstance(told, list):
        return before.artifacts
    return tuple(artifact for one in told if (artifact := _read(Artifact, one)))


def _attempts(
    before: Status, run: CharacterLora | None, picture: Picture, checkpoint: CheckpointStatus | None, now: datetime | None
) -> tuple[tuple[AttemptStatus, ...], Usage]:
    """Each attempt's cost, and the sum. Only growth is added: pods that are gone by now have been counted.

    Without `now`, a running attempt's cost stays as it was written: it would change every second.
    """
    known = {one.attempt: one for one in before.attempts}
    gpus = run.spec.resources.gpus if run is not None else 0
    total = before.usage or Usage()
    gained = wasted = 0
    for attempt in picture.attempts:
        old = known.get(attempt.number)
        if old is not None and old.end_time is not None:
            continue  # its account is closed
        new = _account(attempt, old, gpus, checkpoint, now)
        gained += new.gpu_seconds - (old.gpu_seconds if old else 0)
        wasted += new.wasted_gpu_seconds - (old.wasted_gpu_seconds if old else 0)
        known[attempt.number] = new
    shown = tuple(known[number] for number in sorted(known))[-_ATTEMPTS_SHOWN:]
    usage = total.model_copy(update={"gpu_seconds": total.gpu_seconds + gained, "wasted_gpu_seconds": total.wasted_gpu_seconds + wasted})
    return shown, usage


def _account(
    attempt: Attempt, old: AttemptStatus | None, gpus: int, checkpoint: CheckpointStatus | None, now: datetime | None
) -> AttemptStatus:
    spent, wasted, end = old.gpu_seconds if old else 0, 0, attempt.end
    if at := end.at if end else now:
        spent = max(spent, attempt.gpu_seconds(gpus, at))
    if end is not None and end.outcome is not Outcome.SUCCEEDED:
        saved = checkpoint is not None and attempt.began is not None and attempt.began <= checkpoint.time <= end.at
        kept = attempt.gpu_seconds(gpus, checkpoint.time) if checkpoint and saved else 0
        wasted = max(0, spent - kept)
    return AttemptStatus.model_validate(
        {
            "attempt": attempt.number,
            "reason": end.outcome.reason if end else Outcome.RUNNING.reason,
            "startTime": attempt.began or (old.start_time if old else None),
            "endTime": _whole(end.at) if end else None,
            "gpuSeconds": spent,
            "wastedGpuSeconds": wasted,
        }
    )


def _newly_preempted(before: Status, attempts: Sequence[AttemptStatus]) -> int:
    """Attempts that the cluster ended since the last status; each is counted when its account closes."""
    closed = {one.attempt for one in before.attempts if one.end_time is not None}
    taken = {Outcome.PREEMPTED.reason, Outcome.INTERRUPTED.reason}
    return sum(one.end_time is not None and one.attempt not in closed and one.reason in taken for one in attempts)


def _read(kind: type[_Told], told: Any) -> _Told | None:
    """A part of the status in a container's own words; None where they do not fit, as another version's may not."""
    try:
        return kind.model_validate(told) if told is not None else None
    except ValidationError:
        return None


def _number(value: float | None, digits: int) -> Number | None:
    if value is None or not 0 <= value < 1e12:  # excludes what is not a number
        return None
    return Number(f"{value:.{digits}f}")


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _cut(message: str) -> str:
    return message if len(message) <= _MESSAGE else f"{message[:_MESSAGE]} …"


def _whole(at: datetime) -> datetime:
    """To the second, as Kubernetes writes times."""
    return at.replace(microsecond=0)
