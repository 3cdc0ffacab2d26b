"""The training's attempts: which there were, what they cost, and whether another one may follow."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from charalora_operator import names
from charalora_operator.endings import End, end_of
from charalora_operator.model import JobFacts, JobState, Observed, PodFacts
from charalora_spec.outcome import Outcome, Retry
from charalora_spec.spec import Run
from charalora_spec.status import Condition, Status

FIRST_PAUSE, LONGEST_PAUSE = 10, 300
"""Seconds between a failure and the next attempt; doubled with every failure."""

_NO_FAILURE = {Outcome.PREEMPTED, Outcome.INTERRUPTED, Outcome.SUSPENDED}


@dataclass(frozen=True)
class Attempt:
    """One start of the training.

    Attributes:
        job: Its Job.
        pods: The Job's pods, oldest first.
        end: How it ended; None while it goes on.
    """

    job: JobFacts
    pods: tuple[PodFacts, ...]
    end: End | None

    @property
    def number(self) -> int:
        """Its number, from 1."""
        return self.job.attempt

    @property
    def began(self) -> datetime | None:
        """When its first pod had a node, and with it its GPUs."""
        return min((pod.scheduled for pod in self.pods if pod.scheduled), default=None)

    def has_started_on(self, nodes: int) -> bool:
        """Whether the containers of all its nodes run, or ran. The Job controller makes one pod after the other."""
        return len(self.pods) >= nodes and all(pod.running_since is not None for pod in self.pods)

    @property
    def is_decided(self) -> bool:
        """Whether what its pods did ends its Job: one failed, or the one that writes the files is done. The Job may say so much later.

        Pods of a Job that Kueue took back have ended too, and it goes on with others.
        """
        ended = any(pod.phase == "Failed" or (pod.phase == "Succeeded" and pod.index == 0) for pod in self.pods)
        return ended and self.job.state is not JobState.SUSPENDED

    def gpu_seconds(self, gpus: int, until: datetime) -> int:
        """GPU seconds that its pods held up to a moment, each from its scheduling to its end."""
        held = [(min(until, pod.ending.at if pod.ending else until) - pod.scheduled).total_seconds() for pod in self.pods if pod.scheduled]
        return gpus * round(sum(max(0.0, seconds) for seconds in held))


def attempts_of(observed: Observed, before: Status, now: datetime) -> tuple[Attempt, ...]:
    """The attempts that the cluster still knows of, oldest first."""
    jobs = sorted((job for job in observed.jobs.values() if job.component == names.TRAINING), key=lambda job: job.attempt)
    return tuple(Attempt(job, pods := observed.pods_of(job.name), _as_written(end_of(job, pods, now), job.attempt, before)) for job in jobs)


def _as_written(end: End | None, attempt: int, before: Status) -> End | None:
    """The end of an attempt as the status has it: its pods may be gone by now, and with them why it ended."""
    written = next((one for one in before.attempts if one.attempt == attempt and one.end_time is not None), None)
    if end is None or written is None or (outcome := Outcome.of_reason(written.reason)) is None:
        return end
    about = f"Attempt {attempt}: "
    said = next((one.message for one in before.conditions if one.type == Condition.TRAINING.value and one.reason == outcome.reason), "")
    message = said.removeprefix(about) if said.startswith(about) else end.message
    return replace(end, outcome=outcome, message=message, at=written.end_time or end.at)


@dataclass(frozen=True)
class Verdict:
    """What follows from the end of an attempt.

    Attributes:
        again: Whether another attempt may follow.
        at: When it may start, at the earliest.
        message: What happened and what happens next.
    """

    again: bool
    at: datetime
    message: str


def verdict(ended: Sequence[End], run: Run) -> Verdict:
    """Whether the last of some ends, oldest first, is the training's end.

    Failures and preemptions have budgets of their own; pausing costs neither.
    """
    last = ended[-1]
    failures = sum(end.outcome not in _NO_FAILURE for end in ended)
    preemptions = sum(end.outcome in {Outcome.PREEMPTED, Outcome.INTERRUPTED} for end in ended)
    if last.outcome is Outcome.SUSPENDED:
        return Verdict(again=True, at=last.at, message=last.message)
    if last.outcome.retry is Retry.NEVER:
        return Verdict(again=False, at=last.at, message=last.message)
    if last.outcome in _NO_FAILURE:
        if preemptions > run.preemption_retries:
            spent = f"It was taken away {preemptions} times; run.preemptionRetries allows {run.preemption_retries}."
            return Verdict(again=False, at=last.at, message=f"{last.message} {spent}")
        return Verdict(again=True, at=last.at, message=last.message)
    if failures > run.retries:
        return Verdict(
            again=False, at=last.at, message=f"{last.message} It failed {failures} times; run.retries allows {run.retries} more attempts."
        )
    pause = timedelta(seconds=min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (failures - 1)))
    return Verdict(again=True, at=last.at + pause, message=f"{last.message} Failure {failures} of {run.retries + 1}; tried again.")


def seconds_left(limit: int | None, attempts: Sequence[Attempt], now: datetime) -> int | None:
    """What remains of run.deadlineSeconds after the time that attempts took, from 0; None without a limit."""
    if limit is None:
        return None
    taken = sum(
        ((attempt.end.at if attempt.end else now) - attempt.job.started).total_seconds() for attempt in attempts if attempt.job.started
    )
    return max(0, limit - round(taken))
