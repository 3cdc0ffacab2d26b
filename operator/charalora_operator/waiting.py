"""Why pods that should run do not, in the cluster's own words."""

from collections.abc import Sequence

from charalora_operator.model import JobFacts, JobState, PodFacts, Workload
from charalora_spec.outcome import Outcome

_NO_IMAGE = {"ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName", "ImageInspectError", "RegistryUnavailable"}

Waiting = tuple[Outcome, str]
"""What keeps it, and what to know of that."""


def waiting_for(pods: Sequence[PodFacts], refused: str) -> Waiting | None:
    """What keeps a Job's pods from running; None when nothing does."""
    if refused:
        return _refusal(refused)
    for pod in pods:
        if pod.phase == "Pending" and pod.deleted is None and (found := _of_pod(pod)):
            return found
    return None


def waiting_for_the_end(attempt: int, pods: Sequence[PodFacts]) -> Waiting | None:
    """What is so while a pod of a running attempt has been asked to go and has not ended; None where none has."""
    leaving = next((pod for pod in pods if pod.deleted is not None and pod.phase not in {"Succeeded", "Failed"}), None)
    if leaving is None:
        return None
    why = f" ({leaving.disruption[0]})" if leaving.disruption[0] else ""
    then = "the next attempt begins when it has ended, or without it when its time is over"
    return Outcome.PENDING, f"Pod {leaving.name} of attempt {attempt} was asked to leave node {leaving.node}{why}; {then}."


def waiting_in_queue(job: JobFacts, queue: str, workload: Workload | None) -> Waiting | None:
    """What Kueue says of a Job that it has not let go yet; None where no queue holds it."""
    if job.state is not JobState.SUSPENDED:
        return None
    if workload is None:
        return (
            Outcome.QUEUED,
            f"Nobody has taken the Job into queue {queue} yet; is Kueue installed, and is there a LocalQueue of that name?",
        )
    if not workload.active:
        return Outcome.QUEUED, f"Workload {workload.name} was deactivated: {workload.message or workload.reason}"
    return Outcome.QUEUED, f"Queue {queue}: {workload.message or workload.reason or 'waits for quota'}"


def _refusal(message: str) -> Waiting:
    if "exceeded quota" in message:
        return Outcome.QUOTA_EXCEEDED, f"The namespace's quota leaves no room for the pods; the cluster tries again by itself: {message}"
    return Outcome.PODS_REFUSED, f"The cluster refuses to make the pods, and tries again by itself: {message}"


def _of_pod(pod: PodFacts) -> Waiting | None:
    reason, message = pod.waiting
    if pod.unschedulable:
        return Outcome.UNSCHEDULABLE, f"No node has room for pod {pod.name}; the cluster keeps looking: {pod.unschedulable}"
    if reason in _NO_IMAGE:
        return Outcome.IMAGE_PULL_FAILED, f"Node {pod.node} cannot fetch the image of pod {pod.name} and keeps trying: {message or reason}"
    if reason == "CreateContainerConfigError":
        return Outcome.SECRET_MISSING, f"Pod {pod.name} lacks something and starts as soon as it is there: {message}"
    if reason in {"CreateContainerError", "RunContainerError"}:
        return Outcome.PODS_REFUSED, f"Node {pod.node} cannot start the container of pod {pod.name}: {message}"
    return None
