"""What each attempt cost, and what of that was lost."""

from collections.abc import Sequence
from datetime import datetime

from charalora_operator.attempts import Attempt
from charalora_operator.endings import End
from charalora_operator.model import to_the_second
from charalora_operator.picture import Picture
from charalora_spec.outcome import Outcome
from charalora_spec.spec import CharacterLora, Resources
from charalora_spec.status import AttemptStatus, CheckpointStatus, Condition, Status, Usage

_ATTEMPTS_SHOWN = 20


def attempts_and_usage(
    before: Status, run: CharacterLora | None, picture: Picture, checkpoint: CheckpointStatus | None, now: datetime, *, moved: bool
) -> tuple[tuple[AttemptStatus, ...], Usage]:
    """Each attempt's cost, and the sum. Only growth is added: pods that are gone by now have been counted.

    Unless the training has `moved`, a running attempt's cost stays as it was written: it would change every second.
    """
    known = {one.attempt: one for one in before.attempts}
    forgotten = min(known) if len(known) == _ATTEMPTS_SHOWN else 0  # what came before is in the sum, though it is not listed any more
    open_ones = {number for number, one in known.items() if one.end_time is None}
    size = run.spec.resources if run is not None else None
    changed = {
        attempt.number: _account(attempt, before, size, checkpoint, now if moved else None)
        for attempt in picture.attempts
        if attempt.number in open_ones or (attempt.number not in known and attempt.number >= forgotten)
    }
    changed |= {number: _taken_away(known[number], size, checkpoint, now) for number in open_ones - changed.keys()}
    grown = [(new, known.get(number, AttemptStatus(attempt=number, reason=new.reason))) for number, new in changed.items()]
    total = before.usage or Usage()
    spent = total.gpu_seconds + sum(new.gpu_seconds - old.gpu_seconds for new, old in grown)
    wasted = total.wasted_gpu_seconds + sum(new.wasted_gpu_seconds - old.wasted_gpu_seconds for new, old in grown)
    usage = total.model_copy(update={"gpu_seconds": spent, "wasted_gpu_seconds": wasted})
    known |= changed
    return tuple(known[number] for number in sorted(known))[-_ATTEMPTS_SHOWN:], usage


def _account(
    attempt: Attempt, before: Status, size: Resources | None, checkpoint: CheckpointStatus | None, now: datetime | None
) -> AttemptStatus:
    old = next((one for one in before.attempts if one.attempt == attempt.number), None)
    began, end = attempt.began or (old.start_time if old else None), attempt.end
    unseen = _unseen(attempt, before, size)

    def held(until: datetime) -> int:  # pods that went while nobody looked held their GPUs all the time
        return attempt.gpu_seconds(size.gpus if size else 0, until) + _held(size, unseen, began, until)

    spent, wasted = old.gpu_seconds if old else 0, 0
    if at := end.at if end else now:
        spent = max(spent, held(at))
    if end is not None and end.outcome is not Outcome.SUCCEEDED:
        saved = checkpoint is not None and began is not None and began <= checkpoint.time <= end.at
        wasted = max(0, spent - (held(_kept_until(end, checkpoint)) if checkpoint and saved else 0))
    return AttemptStatus.model_validate(
        {
            "attempt": attempt.number,
            "reason": end.outcome.reason if end else Outcome.RUNNING.reason,
            "startTime": began,
            "endTime": to_the_second(end.at) if end else None,
            "gpuSeconds": spent,
            "wastedGpuSeconds": wasted,
        }
    )


def _kept_until(end: End, checkpoint: CheckpointStatus) -> datetime:
    """Until when an attempt's time was of use: of one that saved its last step nothing is lost, whatever its way out took."""
    return end.at if end.details.get("step") == checkpoint.step else checkpoint.time


def _taken_away(old: AttemptStatus, size: Resources | None, checkpoint: CheckpointStatus | None, now: datetime) -> AttemptStatus:
    """The account of an attempt whose Job somebody deleted, and its pods with it: they held their GPUs until about now."""
    pods = size.nodes if size else 0
    spent = max(old.gpu_seconds, _held(size, pods, old.start_time, now))
    kept = _held(size, pods, old.start_time, checkpoint.time) if checkpoint is not None else 0
    figures = {"gpu_seconds": spent, "wasted_gpu_seconds": max(0, spent - kept)}
    return old.model_copy(update={"reason": Outcome.INTERRUPTED.reason, "end_time": to_the_second(now), **figures})


def _unseen(attempt: Attempt, before: Status, size: Resources | None) -> int:
    """How many of an attempt's pods went while nobody looked: all of them, or of one that had every node those that are not there."""
    if size is None or attempt.end is None:
        return 0
    had_all = before.attempt == attempt.number and any(
        one.type == Condition.ADMITTED.value and one.status == "True" for one in before.conditions
    )
    return max(0, size.nodes - len(attempt.pods)) if had_all or not attempt.pods else 0


def _held(size: Resources | None, pods: int, began: datetime | None, until: datetime) -> int:
    """GPU seconds of pods from their training's start on."""
    if size is None or began is None:
        return 0
    return size.gpus * pods * max(0, round((until - began).total_seconds()))


def newly_preempted(before: Status, attempts: Sequence[AttemptStatus]) -> int:
    """Attempts that the cluster ended since the last status; each is counted when its account closes."""
    closed = {one.attempt for one in before.attempts if one.end_time is not None}
    taken = {Outcome.PREEMPTED.reason, Outcome.INTERRUPTED.reason}
    return sum(one.end_time is not None and one.attempt not in closed and one.reason in taken for one in attempts)
