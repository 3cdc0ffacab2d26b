"""What is seen and decided, in the conditions that users read: one question each, always with a reason and a message."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from unicodedata import category

from charalora_operator.endings import End
from charalora_operator.model import Observed, Resource, Sample, to_the_second
from charalora_operator.picture import Picture
from charalora_spec.outcome import Outcome
from charalora_spec.spec import CharacterLora
from charalora_spec.status import Condition, ConditionStatus, DatasetStatus, Status

_MESSAGE = 4000
"""Characters of a condition's message; a list of findings may be longer than anybody reads."""

_UNSEEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Kinds of characters that are instructions and no letters."""

_Truth = Literal["True", "False", "Unknown"]
_NOT_ADMITTED = {Outcome.UNSCHEDULABLE, Outcome.QUOTA_EXCEEDED, Outcome.PODS_REFUSED, Outcome.QUEUED}


@dataclass(frozen=True)
class _Said:
    """A condition before it has its dates."""

    status: _Truth
    reason: str
    message: str


def conditions_of(resource: Resource, observed: Observed, picture: Picture, status: Status, now: datetime) -> tuple[ConditionStatus, ...]:
    """All conditions, every one with a reason and a message; `status` holds everything else that is known by now."""
    before = {condition.type: _Said(condition.status, condition.reason, condition.message) for condition in resource.status.conditions}
    said = {
        Condition.DATASET_READY: _dataset_ready(before.get(Condition.DATASET_READY.value), picture, status.dataset),
        Condition.ADMITTED: _admitted(before.get(Condition.ADMITTED.value), resource.run, picture),
        Condition.TRAINING: _training(observed.sample, picture, resource.problem),
        Condition.ARTIFACTS_UPLOADED: _uploaded(resource.run, picture, status),
        Condition.SUCCEEDED: _succeeded(picture),
    }
    return tuple(_dated(said, resource.status, resource.generation, now))


def _dataset_ready(before: _Said | None, picture: Picture, dataset: DatasetStatus | None) -> _Said:
    if picture.checked is not None:
        if picture.checked.outcome is Outcome.SUCCEEDED:
            return _Said("True", "Checked", _found(picture.checked, dataset))
        return _Said("False", picture.checked.outcome.reason, picture.checked.message)
    if picture.attempts and before is not None:
        return before  # the training runs on what was checked
    if picture.waiting is not None:
        return _Said("Unknown", picture.waiting[0].reason, picture.waiting[1])
    return _Said("Unknown", "NotChecked", "The data set was not looked at.")


def _found(checked: End, dataset: DatasetStatus | None) -> str:
    """What the check saw, and what it warns of."""
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


def _training(sample: Sample | None, picture: Picture, unread: str) -> _Said:
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
    warning = f" It is the last one that this operator can start: {' '.join(unread.split())}." if unread else ""
    return _Said("True", Outcome.RUNNING.reason, f"Attempt {current.number} runs{f', stage {stage}' if stage else ''}.{warning}")


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
                "message": _shown(one.message),
                "lastTransitionTime": old.last_transition_time if old and old.status == one.status else to_the_second(now),
                "observedGeneration": generation,
            }
        )


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _shown(message: str) -> str:
    """A message for terminals: cut, and without what would move a cursor, change a colour or turn letters round."""
    cut = message if len(message) <= _MESSAGE else f"{message[:_MESSAGE]} …"
    return "".join(letter if letter == "\n" or category(letter) not in _UNSEEN else "\N{REPLACEMENT CHARACTER}" for letter in cut)
