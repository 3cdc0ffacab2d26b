"""What is seen and decided → the status that users read."""

from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from pydantic import ValidationError

from charalora_operator.conditions import conditions_of
from charalora_operator.costs import attempts_and_usage, newly_preempted
from charalora_operator.endings import End
from charalora_operator.model import Observed, Resource, Sample, to_the_second
from charalora_operator.picture import Picture
from charalora_operator.settings import Settings
from charalora_spec.outcome import Outcome
from charalora_spec.spec import CharacterLora
from charalora_spec.status import Artifact, Best, CheckpointStatus, Condition, DatasetStatus, Progress, Status
from charalora_spec.values import Number

_Told = TypeVar("_Told", DatasetStatus, Best, Artifact)


def has_succeeded(status: Status) -> bool:
    """Whether the training is done, for good."""
    return any(condition.type == Condition.SUCCEEDED.value and condition.status == "True" for condition in status.conditions)


def status_of(resource: Resource, observed: Observed, picture: Picture, settings: Settings, now: datetime) -> Status:
    """The status after an observation. What cannot be seen any more stays as it was written."""
    before, run = resource.status, resource.run
    current = picture.current
    checkpoint = _checkpoint(before, run, observed.sample, picture)
    progress = _progress(before, run, observed.sample, picture, settings)
    attempts, usage = attempts_and_usage(before, run, picture, checkpoint, now, moved=progress != before.progress)
    status = before.model_copy(
        update={
            "observed_generation": resource.generation,
            "progress": progress,
            "dataset": _dataset(before, picture),
            "checkpoint": checkpoint,
            "best": _best(before, observed.sample, picture),
            "attempt": max(before.attempt, current.number if current else 0),
            "attempts": attempts,
            "preemptions": before.preemptions + newly_preempted(before, attempts),
            "usage": usage,
            "artifacts": _artifacts(before, picture),
            "start_time": before.start_time or min((one.began for one in picture.attempts if one.began), default=None),
            "completion_time": (before.completion_time or picture.ended.at) if picture.ended else None,
            "job_name": current.job.name if current else before.job_name,
        }
    )
    return status.model_copy(update={"conditions": conditions_of(resource, observed, picture, status, now)})


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
            update={"step": steps, "steps": steps, "percent": "100%", "eta_seconds": None, "updated_at": to_the_second(picture.ended.at)}
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
            "etaSeconds": None if eta is None else max(0, round(eta)),
            "updatedAt": to_the_second(sample.at),
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
    found += [last for one in picture.attempts if one.end and (last := _last_saved(one.end))]
    known = before.checkpoint.step if before.checkpoint else 0
    step, at = max(found, default=(0, datetime.min.replace(tzinfo=UTC)))
    if step <= known:
        return before.checkpoint
    uri = f"{run.spec.output.uri.rstrip('/')}/state/step-{step:06d}/"
    return CheckpointStatus.model_validate({"step": step, "uri": uri, "time": to_the_second(at)})


def _last_saved(end: End) -> tuple[int, datetime] | None:
    """Step and time of the last state, as the trainer's last words have them; one of an older version does not tell the time."""
    step, since = end.details.get("savedStep"), end.details.get("savedAt")
    if not isinstance(step, int):
        return None
    return step, datetime.fromtimestamp(since, UTC) if isinstance(since, int) and 0 < since <= end.at.timestamp() else end.at


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
