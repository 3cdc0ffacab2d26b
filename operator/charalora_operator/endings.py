"""How a Job ended, and why, from what its pods and the cluster left behind."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from charalora_operator import names
from charalora_operator.model import Ending, JobFacts, JobState, PodFacts
from charalora_spec.outcome import Outcome, Retry
from charalora_spec.software import VERSION

_LOST_AFTER = timedelta(seconds=30)
"""A pod that is still there so long after its grace period is on a node that nobody hears of."""

_PODS_FAILED = "BackoffLimitExceeded"
"""The Job controller's reason when a pod failed: for whatever reason, its deletion among them."""

_KILLED = 137
"""Exit code of a container that SIGKILL ended."""

_UNKNOWN = {"Unknown", "ContainerStatusUnknown"}
"""What containerd and the kubelet give as the reason of an end that they slept through: the node was restarted, or they were."""

_LESS = "raise resources.memory, or lower training.batchSize"
_LESS_OF_CHECK = "use smaller pictures, or ask the administrator to raise preflight.memory in the operator's settings"
_CHECK_TOO_LONG = "The check did not end within an hour, so it was given up; annotate the resource with charalora.dev/retry to check again."
_UNTOLD = "All files are in the output prefix. Their list is manifest.json there: the pod was deleted before an operator could read it."
_EXIT_CODE = re.compile(r"exit code (\d+)")


@dataclass(frozen=True)
class End:
    """The end of a Job.

    Attributes:
        outcome: Why.
        message: For people: what happened and what to do.
        at: When.
        details: What the container told beside it, such as `artifacts` or `dataset`.
    """

    outcome: Outcome
    message: str
    at: datetime
    details: Mapping[str, Any] = field(default_factory=dict)


def end_of(job: JobFacts, pods: Sequence[PodFacts], now: datetime) -> End | None:
    """How a Job ended; None while it goes on, while pods of it may still run, or while the news of their end is still on its way."""
    if not all(_is_gone(pod, now) for pod in pods):
        return None
    if job.state is JobState.SUCCEEDED:
        told = _told(_first(pods))
        untold = Outcome.SUCCEEDED.meaning if _is_check(job) else _UNTOLD
        return End(Outcome.SUCCEEDED, told.get("message", untold), job.ended or now, told)
    if job.state in {JobState.FAILED, JobState.ENDING}:
        return _failure(job, pods, job.ended or max((_gone_at(pod) for pod in pods), default=now))
    return None


def _failure(job: JobFacts, pods: Sequence[PodFacts], at: datetime) -> End:
    """The most telling cause: what we did, what the program says for good, what the cluster did, what else a pod or the Job says."""
    outcomes = [(pod, _outcome_of(job, pod, pod.ending)) for pod in pods if pod.ending is not None and pod.ending.exit_code != 0]
    final = [(pod, outcome) for pod, outcome in outcomes if outcome.retry is Retry.NEVER]
    disrupted = any(pod.disruption[0] for pod in pods) or any(outcome is Outcome.PREEMPTED for _, outcome in outcomes)
    others = sorted(outcomes, key=lambda one: (one[1] is Outcome.INTERRUPTED, one[0].ending.at if one[0].ending else at, one[0].index))
    details = _told(_first(pods))
    if (ours := Outcome.of_reason(job.ended_because)) and ours is not Outcome.PREEMPTED:
        return End(ours, ours.meaning, at, details)
    if job.why[0] == "DeadlineExceeded" and not ours:
        return End(Outcome.DEADLINE_EXCEEDED, _CHECK_TOO_LONG if _is_check(job) else Outcome.DEADLINE_EXCEEDED.meaning, at, details)
    if final and not ours:
        return _pod_end(job, *final[0], at)
    if ours or lost_at(pods) or disrupted:
        return End(Outcome.PREEMPTED, _taken_away(pods), at, details)
    return _pod_end(job, *others[0], at) if others else _job_end(job, at)


def outcome_of(ending: Ending) -> Outcome:
    """What a container's end stands for: its own word, unless the kernel had the last one."""
    if ending.cluster_reason == "OOMKilled":
        return Outcome.HOST_OUT_OF_MEMORY
    told = Outcome.of_reason(_parsed(ending.message).get("reason", ""))
    if told is Outcome.INTERRUPTED and ending.exit_code == _KILLED:
        return told  # it had been asked to stop, and was not given the time to end by itself
    return told if told is not None and told.exit_code == ending.exit_code else Outcome.of_exit_code(ending.exit_code)


def _outcome_of(job: JobFacts, pod: PodFacts, ending: Ending) -> Outcome:
    """What a pod's end stands for where it left no word: that of a training which was deleted and had to be killed, or fell with its node.

    A check has no further attempts of ours: its Job has had all of them.
    """
    outcome, unknown = outcome_of(ending), ending.cluster_reason in _UNKNOWN
    if outcome is not Outcome.INTERNAL_ERROR or _is_check(job) or _parsed(ending.message):
        return outcome
    if pod.deleted is not None and (unknown or ending.exit_code == _KILLED):
        return Outcome.INTERRUPTED
    return Outcome.PREEMPTED if unknown else outcome


def _pod_end(job: JobFacts, pod: PodFacts, outcome: Outcome, at: datetime) -> End:
    ending = pod.ending
    told = _parsed(ending.message) if ending else {}
    if outcome is Outcome.HOST_OUT_OF_MEMORY and "message" not in told:
        message = f"The kernel killed pod {pod.name}, which took more memory than its limit; {_LESS_OF_CHECK if _is_check(job) else _LESS}."
    else:
        message = told.get("message") or _last_words(pod, ending)
        if (reason := told.get("reason")) and Outcome.of_reason(reason) is None:
            message = f"{reason}, a reason that this operator of version {VERSION} does not know: {message}"
    return End(outcome, message, at, told)


def _last_words(pod: PodFacts, ending: Ending | None) -> str:
    """For a container that left no termination message of ours: how it ended, and its log's end."""
    if ending is None:
        return f"Pod {pod.name} ended without a word."
    if pod.deleted is not None and ending.exit_code == _KILLED:
        return f"Pod {pod.name} was deleted and had to be killed: it did not end in the time that it was given."
    words = " ".join(ending.message.split())[-500:]
    return f"Pod {pod.name} ended with exit code {ending.exit_code} ({ending.cluster_reason or 'Error'})" + (
        f": … {words}" if words else "."
    )


def _job_end(job: JobFacts, at: datetime) -> End:
    """The pods are gone: what the Job controller noted is all there is."""
    reason, message = job.why
    if code := _EXIT_CODE.search(message):
        outcome = Outcome.of_exit_code(int(code[1]))
    elif "DisruptionTarget" in message:
        outcome = Outcome.PREEMPTED
    elif reason == _PODS_FAILED and not _is_check(job):  # one that failed by itself would still be there
        outcome = Outcome.INTERRUPTED
    else:
        outcome = Outcome.INTERNAL_ERROR
    return End(outcome, f"Job {job.name} failed and its pods are gone; the cluster says: {reason}: {message}", at)


def _is_check(job: JobFacts) -> bool:
    return job.component == names.PREFLIGHT


def lost_at(pods: Sequence[PodFacts]) -> datetime | None:
    """When the last of the pods that should have ended counts as lost with its node; None where all of them run on or have ended."""
    return max((pod.deleted + _LOST_AFTER for pod in pods if pod.deleted is not None and not _has_ended(pod)), default=None)


def _taken_away(pods: Sequence[PodFacts]) -> str:
    """For an attempt that lost a pod to the cluster: to something more urgent, to an administrator, or with its node."""
    lost = [pod for pod in pods if pod.deleted is not None and not _has_ended(pod)]
    if lost:
        why = next((f" ({pod.disruption[0]})" for pod in lost if pod.disruption[0]), "")
        return f"Node {lost[0].node} is lost{why}: its pod {lost[0].name} did not end in the time that it was given."
    told = next((pod for pod in pods if pod.disruption[0]), None)
    if told is None:
        fell = next((pod for pod in pods if pod.ending is not None and pod.ending.cluster_reason in _UNKNOWN), None)
        return f"Node {fell.node} was restarted under its pod {fell.name}." if fell else Outcome.PREEMPTED.meaning
    return f"The cluster took pod {told.name} away ({told.disruption[0]}): {told.disruption[1].rstrip('.')}."


def _is_gone(pod: PodFacts, now: datetime) -> bool:
    return _has_ended(pod) or (pod.deleted is not None and pod.deleted + _LOST_AFTER <= now)


def _has_ended(pod: PodFacts) -> bool:
    return pod.phase in {"Succeeded", "Failed"}


def _gone_at(pod: PodFacts) -> datetime:
    return pod.ending.at if pod.ending else (pod.deleted or pod.created)


def _first(pods: Sequence[PodFacts]) -> Ending | None:
    """The newest end of the pod that writes the files."""
    return next((pod.ending for pod in reversed(pods) if pod.index == 0 and pod.ending is not None), None)


def _told(ending: Ending | None) -> Mapping[str, Any]:
    return _parsed(ending.message) if ending else {}


def _parsed(message: str) -> Mapping[str, Any]:
    """The container's own words as an object; empty where it left none (killed, or another program)."""
    try:
        told = json.loads(message)
    except json.JSONDecodeError:
        return {}
    return told if isinstance(told, dict) else {}
