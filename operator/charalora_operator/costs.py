"""What each attempt cost, and what of that was lost."""

from collections.abc import Sequence
from datetime import datetime

from charalora_operator.attempts import Attempt
from charalora_operator.model import to_the_second
from charalora_operator.picture import Picture
from charalora_spec.outcome import Outcome
from charalora_spec.spec import CharacterLora
from charalora_spec.status import AttemptStatus, CheckpointStatus, Status, Usage

_ATTEMPTS_SHOWN = 20


def attempts_and_usage(
    before: Status, run: CharacterLora | None, picture: Picture, checkpoint: CheckpointStatus | None, now: datetime, *, moved: bool
) -> tuple[tuple[AttemptStatus, ...], Usage]:
    """Each attempt's cost, and the sum. Only growth is added: pods that are gone by now have been counted.

    Unless the training has `moved`, a running attempt's cost stays as it was written: it would change every second.
    """
    known = {one.attempt: one for one in before.attempts}
    forgotten = min(known) if len(known) == _ATTEMPTS_SHOWN else 0  # what came before is in the sum, though it is not listed any more
    gpus = run.spec.resources.gpus if run is not None else 0
    total = before.usage or Usage()
    gained = wasted = 0
    for attempt in picture.attempts:
        old = known.get(attempt.number)
        if attempt.number < forgotten or (old is not None and old.end_time is not None):
            continue  # its account is closed
        new = _account(attempt, old, gpus, checkpoint, now if moved else None)
        gained += new.gpu_seconds - (old.gpu_seconds if old else 0)
        wasted += new.wasted_gpu_seconds - (old.wasted_gpu_seconds if old else 0)
        known[attempt.number] = new
    there = {attempt.number for attempt in picture.attempts}
    known |= {number: _taken_away(old, now) for number, old in known.items() if number not in there and old.end_time is None}
    shown = tuple(known[number] for number in sorted(known))[-_ATTEMPTS_SHOWN:]
    usage = total.model_copy(update={"gpu_seconds": total.gpu_seconds + gained, "wasted_gpu_seconds": total.wasted_gpu_seconds + wasted})
    return shown, usage


def _taken_away(old: AttemptStatus, now: datetime) -> AttemptStatus:
    """The account of an attempt whose Job somebody deleted: what it cost last, and nothing more to come."""
    return old.model_copy(update={"reason": Outcome.INTERRUPTED.reason, "end_time": to_the_second(now)})


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
            "endTime": to_the_second(end.at) if end else None,
            "gpuSeconds": spent,
            "wastedGpuSeconds": wasted,
        }
    )


def newly_preempted(before: Status, attempts: Sequence[AttemptStatus]) -> int:
    """Attempts that the cluster ended since the last status; each is counted when its account closes."""
    closed = {one.attempt for one in before.attempts if one.end_time is not None}
    taken = {Outcome.PREEMPTED.reason, Outcome.INTERRUPTED.reason}
    return sum(one.end_time is not None and one.attempt not in closed and one.reason in taken for one in attempts)
