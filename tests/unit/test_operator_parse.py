"""What the API server answers, in the shapes that its controllers and kubelets write."""

from datetime import UTC, datetime
from typing import Any

import pytest

from builders import character_lora_wire
from charalora_operator.model import Ending, JobState, Key
from charalora_operator.parse import job_of, place_of_owned, pod_of, resource_of, state_of, workload_of

LABELS = {
    "app.kubernetes.io/component": "training",
    "app.kubernetes.io/managed-by": "charalora-operator",
    "charalora.dev/resource": "surtr",
    "charalora.dev/attempt": "2",
    "charalora.dev/run": "5516c115",
}


def noon(seconds: int) -> datetime:
    return datetime(2026, 6, 1, 12, 0, seconds, tzinfo=UTC)


def at(seconds: int) -> str:
    return f"2026-06-01T12:00:{seconds:02d}Z"


def metadata(name: str, **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "namespace": "artists",
        "uid": "0d3f",
        "resourceVersion": "41",
        "creationTimestamp": at(0),
        "labels": LABELS,
    } | more


def condition(kind: str, status: str = "True", reason: str = "", message: str = "", seconds: int = 30) -> dict[str, str]:
    return {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": at(seconds)}


def job(*conditions: dict[str, str], suspend: bool = False, **status: Any) -> dict[str, Any]:
    return {"metadata": metadata("surtr-a2"), "spec": {"suspend": suspend}, "status": {"conditions": list(conditions), **status}}


def pod(**status: Any) -> dict[str, Any]:
    labels = LABELS | {"batch.kubernetes.io/job-name": "surtr-a2", "batch.kubernetes.io/job-completion-index": "1"}
    return {"metadata": metadata("surtr-a2-1-x8k2p", labels=labels), "spec": {"nodeName": "node-b"}, "status": status}


def container(state: dict[str, Any], name: str = "trainer") -> dict[str, Any]:
    return {"name": name, "state": state}


def resource(**more: Any) -> dict[str, Any]:
    wire = character_lora_wire()
    wire["metadata"] |= {"uid": "7c1d", "resourceVersion": "9", "generation": 3, "creationTimestamp": at(0), "managedFields": []}
    return wire | more


def test_a_resource_is_read() -> None:
    read = resource_of(resource())
    assert (read.key, read.uid, read.generation, read.created, read.deleting) == (Key("artists", "surtr"), "7c1d", 3, noon(0), False)
    assert read.run is not None
    assert read.run.spec.character.name == "surtr_arknights"
    assert read.status.conditions == ()


def test_a_resource_of_another_version_says_what_cannot_be_read() -> None:
    """The CRD may be newer than the operator."""
    newer = resource()
    newer["spec"]["training"] = {"quantum": True}
    read = resource_of(newer)
    assert read.run is not None
    assert "spec.training.quantum: is not a field" in read.problem


@pytest.mark.parametrize(
    "status", [{"conditions": "none"}, {"progress": {"step": "many"}}, {"conditions": [{"type": "Succeeded", "status": "Perhaps"}]}]
)
def test_a_status_that_cannot_be_read_counts_as_none(status: dict[str, Any]) -> None:
    """It is only ever rebuilt."""
    assert resource_of(resource(status=status)).status.conditions == ()


def test_fields_of_a_newer_status_are_let_through() -> None:
    assert resource_of(resource(status={"attempt": 2, "mood": "good"})).status.attempt == 2


def test_a_resource_that_is_deleted_is_on_its_way_out() -> None:
    gone = resource()
    gone["metadata"]["deletionTimestamp"] = at(5)
    assert resource_of(gone).deleting


@pytest.mark.parametrize(("status", "finished"), [("True", True), ("False", True), ("Unknown", False)])
def test_a_state_is_the_reason_of_succeeded(status: str, finished: bool) -> None:  # noqa: FBT001
    state = state_of(resource(status={"conditions": [condition("Succeeded", status, "Why")]}))
    assert (state.reason, state.finished) == ("Why", finished)


def test_an_unvisited_resource_is_pending() -> None:
    assert (state_of(resource()).reason, state_of(resource()).finished) == ("Pending", False)


STATES: dict[str, tuple[dict[str, Any], JobState]] = {
    "just made": ({"metadata": metadata("surtr-a2"), "spec": {}}, JobState.ACTIVE),
    "running": (job(startTime=at(1), active=1, ready=1), JobState.ACTIVE),
    "resumed": (job(condition("Suspended", "False", "JobResumed"), startTime=at(1)), JobState.ACTIVE),
    "made suspended, not yet noticed": ({"metadata": metadata("surtr-a2"), "spec": {"suspend": True}}, JobState.SUSPENDED),
    "suspended": (job(condition("Suspended", reason="JobSuspended"), suspend=True), JobState.SUSPENDED),
    "failing, pods still there": (job(condition("FailureTarget", reason="PodFailurePolicy"), startTime=at(1)), JobState.ENDING),
    "succeeded, pods of other nodes still there": (job(condition("SuccessCriteriaMet", reason="SuccessPolicy")), JobState.SUCCEEDED),
    "failed": (job(condition("FailureTarget"), condition("Failed", reason="DeadlineExceeded")), JobState.FAILED),
    "complete": (job(condition("SuccessCriteriaMet"), condition("Complete"), completionTime=at(40)), JobState.SUCCEEDED),
}


@pytest.mark.parametrize(("body", "expected"), STATES.values(), ids=STATES.keys())
def test_a_jobs_state(body: dict[str, Any], expected: JobState) -> None:
    assert job_of(body).state is expected


def test_a_job_is_read() -> None:
    body = job(startTime=at(1))
    body["metadata"]["annotations"] = {"charalora.dev/ended": "Stalled"}
    read = job_of(body)
    assert (read.name, read.uid, read.component, read.attempt, read.run) == ("surtr-a2", "0d3f", "training", 2, "5516c115")
    assert (read.created, read.started, read.ended, read.ended_because, read.deleting) == (noon(0), noon(1), None, "Stalled", False)


FAILURES = [
    ("PodFailurePolicy", "Container trainer for pod artists/surtr-a2-0-x8k2p failed with exit code 65 matching FailJob rule at index 1"),
    ("BackoffLimitExceeded", "Job has reached the specified backoff limit"),
    ("DeadlineExceeded", "Job was active longer than specified deadline"),
]


@pytest.mark.parametrize(("reason", "message"), FAILURES)
def test_a_failed_job_says_why_and_when(reason: str, message: str) -> None:
    read = job_of(
        job(condition("FailureTarget", reason=reason, seconds=20), condition("Failed", reason=reason, message=message, seconds=31))
    )
    assert (read.why, read.ended) == ((reason, message), noon(31))


def test_a_complete_job_ended_when_it_completed() -> None:
    assert job_of(job(condition("Complete", seconds=42), completionTime=at(40))).ended == noon(40)


@pytest.mark.parametrize("attempt", ["two", "", "-1", "٣"])
def test_an_attempt_that_somebody_wrote_by_hand_counts_as_none(attempt: str) -> None:
    body = job()
    body["metadata"]["labels"] = LABELS | {"charalora.dev/attempt": attempt}
    assert job_of(body).attempt == 0


def test_a_place_names_its_resource_and_its_controller() -> None:
    owners = [{"uid": "other"}, {"uid": "7c1d", "controller": True}]
    place = place_of_owned({"metadata": metadata("surtr-a2", ownerReferences=owners)})
    assert place is not None
    assert (place.key, place.uid, place.owner, place.version) == (Key("artists", "surtr"), "0d3f", "7c1d", 41)


def test_a_new_pod_is_pending_and_nowhere() -> None:
    read = pod_of({"metadata": metadata("surtr-a2-0-x8k2p", labels=LABELS), "spec": {}})
    assert (read.phase, read.node, read.ip, read.scheduled, read.running_since, read.ending) == ("Pending", "", "", None, None, None)


def test_a_running_pod_is_read() -> None:
    ready = [condition("PodScheduled", seconds=3), condition("Ready", seconds=9)]
    read = pod_of(
        pod(phase="Running", podIP="10.0.1.7", conditions=ready, containerStatuses=[container({"running": {"startedAt": at(8)}})])
    )
    assert (read.name, read.job, read.index, read.phase, read.ip, read.node) == (
        "surtr-a2-1-x8k2p", "surtr-a2", 1, "Running", "10.0.1.7", "node-b",
    )  # fmt: skip
    assert (read.scheduled, read.running_since, read.waiting, read.disruption) == (noon(3), noon(8), ("", ""), ("", ""))


def test_an_unschedulable_pod_has_the_schedulers_words() -> None:
    words = "0/2 nodes are available: 2 Insufficient nvidia.com/gpu. preemption: 0/2 nodes are available: 2 No preemption victims found."
    read = pod_of(pod(phase="Pending", conditions=[condition("PodScheduled", "False", "Unschedulable", words)]))
    assert (read.unschedulable, read.scheduled) == (words, None)


def test_a_gated_pod_is_not_unschedulable() -> None:
    """Kueue opens the gate when it is time."""
    gated = condition("PodScheduled", "False", "SchedulingGated", "Scheduling is blocked due to non-empty scheduling gates")
    assert pod_of(pod(conditions=[gated])).unschedulable == ""


WAITING = {
    "ImagePullBackOff": 'Back-off pulling image "docker.io/charalora/trainer:1"',
    "CreateContainerConfigError": 'secret "s3-credentials" not found',
}


@pytest.mark.parametrize(("reason", "message"), WAITING.items())
def test_a_container_that_cannot_start_has_the_kubelets_words(reason: str, message: str) -> None:
    assert pod_of(pod(containerStatuses=[container({"waiting": {"reason": reason, "message": message}})])).waiting == (reason, message)


def test_a_container_that_is_just_starting_is_not_stuck() -> None:
    assert pod_of(pod(containerStatuses=[container({"waiting": {"reason": "ContainerCreating"}})])).waiting == ("", "")


def test_an_ended_container_says_how() -> None:
    ended = {"exitCode": 65, "reason": "Error", "message": '{"reason": "DatasetInvalid"}', "startedAt": at(8), "finishedAt": at(20)}
    read = pod_of(pod(phase="Failed", containerStatuses=[container({"running": None}, "sidecar"), container({"terminated": ended})]))
    assert read.ending == Ending(65, "Error", '{"reason": "DatasetInvalid"}', noon(20))
    assert read.running_since == noon(8)


def test_a_container_that_its_node_lost_ended_at_some_time() -> None:
    """ContainerStatusUnknown has no times."""
    lost = {"exitCode": 137, "reason": "ContainerStatusUnknown", "startedAt": None, "finishedAt": None}
    read = pod_of(pod(phase="Failed", containerStatuses=[container({"terminated": lost})]))
    assert read.ending == Ending(137, "ContainerStatusUnknown", "", noon(0))
    assert read.running_since is None


def test_a_pod_that_is_taken_away_says_by_whom() -> None:
    taken = pod(phase="Running", conditions=[condition("DisruptionTarget", reason="PreemptionByScheduler", message="preempting")])
    taken["metadata"]["deletionTimestamp"] = at(50)
    read = pod_of(taken)
    assert (read.disruption, read.deleted) == (("PreemptionByScheduler", "preempting"), noon(50))


WORKLOADS = {
    "waits for quota": (
        [condition("QuotaReserved", "False", "Pending", "couldn't assign flavors to pod set main: insufficient quota for nvidia.com/gpu")],
        (False, "Pending", "couldn't assign flavors to pod set main: insufficient quota for nvidia.com/gpu"),
    ),
    "admitted": (
        [condition("QuotaReserved", reason="QuotaReserved"), condition("Admitted", reason="Admitted", message="The workload is admitted")],
        (True, "Admitted", "The workload is admitted"),
    ),
    "evicted": (
        [condition("QuotaReserved", "False", "Pending"), condition("Evicted", reason="Preempted", message="by a more urgent workload")],
        (False, "Preempted", "by a more urgent workload"),
    ),
    "just made": ([], (False, "", "")),
}


@pytest.mark.parametrize(("conditions", "expected"), WORKLOADS.values(), ids=WORKLOADS.keys())
def test_a_workload_is_read(conditions: list[dict[str, str]], expected: tuple[bool, str, str]) -> None:
    read = workload_of({"metadata": {"name": "job-surtr-a2-f1"}, "spec": {}, "status": {"conditions": conditions}})
    assert (read.admitted, read.reason, read.message) == expected
    assert (read.name, read.active) == ("job-surtr-a2-f1", True)
