"""What the API server answers, as the values of model.py. Nothing here raises for what a user or another controller wrote."""

import json
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from charalora_operator.model import Ending, JobFacts, JobState, Key, PodFacts, Resource, Workload
from charalora_operator.names import ATTEMPT, COMPONENT, ENDED, RESOURCE, RUN
from charalora_spec.outcome import TrainingError
from charalora_spec.problems import known_part, read_resource
from charalora_spec.software import VERSION
from charalora_spec.spec import CharacterLora
from charalora_spec.status import Condition, Status

Body = Mapping[str, Any]
"""An object as the API server sends it."""

_JOB_NAME = "batch.kubernetes.io/job-name"
_INDEX = "batch.kubernetes.io/job-completion-index"
_STARTING = {"ContainerCreating", "PodInitializing"}
_CONTAINERS = {"check", "trainer"}


@dataclass(frozen=True)
class Place:
    """Where an object stands.

    Attributes:
        key: The resource that it belongs to, or is.
        uid: Its own.
        owner: The uid of the object that controls it; empty without one.
        version: Its resource version; those of one kind can be compared.
    """

    key: Key
    uid: str
    owner: str
    version: int


@dataclass(frozen=True)
class State:
    """A resource in one word.

    Attributes:
        reason: Reason of its condition Succeeded, Pending before the first visit.
        finished: Whether nothing will happen to it any more.
        packed: All that is read of it, in a tenth of the memory: see `unpacked`.
    """

    reason: str
    finished: bool
    packed: bytes


def place_of_resource(body: Body) -> Place:
    """A CharacterLora's place."""
    return _place(body, body["metadata"]["name"])


def place_of_owned(body: Body) -> Place | None:
    """The place of one of our Jobs and Pods; None for an object that only wears our label."""
    resource = _labels(body).get(RESOURCE)
    return _place(body, resource) if resource else None


def resource_of(body: Body) -> Resource:
    """A CharacterLora; what this version cannot read of it stands in `problem`."""
    metadata = body["metadata"]
    run, problem = _run(body)
    return Resource(
        key=Key(metadata["namespace"], metadata["name"]),
        uid=metadata["uid"],
        generation=metadata.get("generation", 0),
        created=_created(body),
        deleting="deletionTimestamp" in metadata,
        run=run,
        problem=problem,
        status=_status(body),
        version=metadata["resourceVersion"],
    )


def _run(body: Body) -> tuple[CharacterLora | None, str]:
    """What is asked for, as far as this version can read it, and what it cannot read."""
    metadata = body["metadata"]
    try:
        return read_resource(body, f"{metadata['namespace']}/{metadata['name']}"), ""
    except TrainingError as error:
        known = known_part(body)
        hint = f"; this operator has version {VERSION}, and what a newer one added needs a newer operator" if known else ""
        return known, f"{error.message}{hint}"


def state_of(body: Body) -> State:
    """A CharacterLora's state."""
    succeeded = _condition(body, Condition.SUCCEEDED.value)
    metadata = {name: value for name, value in body["metadata"].items() if name != "managedFields"}
    packed = zlib.compress(json.dumps({**body, "metadata": metadata}).encode(), 1)
    return State(succeeded.get("reason", "Pending"), succeeded.get("status") in {"True", "False"}, packed)


def unpacked(state: State) -> Resource:
    """A CharacterLora as it was when its state was read."""
    return resource_of(json.loads(zlib.decompress(state.packed)))


def job_of(body: Body) -> JobFacts:
    """A Job."""
    state, ended, why = _job_state(body)
    status = body.get("status", {})
    return JobFacts(
        name=body["metadata"]["name"],
        uid=body["metadata"]["uid"],
        component=_labels(body).get(COMPONENT, ""),
        attempt=_whole(_labels(body).get(ATTEMPT)),
        run=_labels(body).get(RUN, ""),
        state=state,
        created=_created(body),
        why=(why.get("reason", ""), why.get("message", "")),
        ended_because=_annotations(body).get(ENDED, ""),
        started=_moment(status.get("startTime")),
        ended=ended,
        deleting="deletionTimestamp" in body["metadata"],
    )


def pod_of(body: Body) -> PodFacts:
    """A Pod."""
    metadata, status = body["metadata"], body.get("status", {})
    placed = _condition(body, "PodScheduled")
    disruption = _condition(body, "DisruptionTarget")
    container = _container(status)
    waiting = _waiting([*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])])
    ran = container.get("state", {}).get("running") or container.get("state", {}).get("terminated") or {}
    deleted = _moment(metadata.get("deletionTimestamp"))
    return PodFacts(
        name=metadata["name"],
        job=_labels(body).get(_JOB_NAME, ""),
        index=_whole(_annotations(body).get(_INDEX) or _labels(body).get(_INDEX)),
        phase=status.get("phase", "Pending"),
        created=_created(body),
        ip=status.get("podIP", ""),
        node=body.get("spec", {}).get("nodeName", ""),
        scheduled=_moment(placed.get("lastTransitionTime")) if placed.get("status") == "True" else None,
        unschedulable=placed.get("message", "") if placed.get("reason") == "Unschedulable" else "",
        waiting=waiting,
        disruption=(disruption.get("reason", ""), disruption.get("message", "")) if disruption.get("status") == "True" else ("", ""),
        running_since=_moment(ran.get("startedAt")),
        ending=_ending(container, deleted or _created(body)),
        deleted=deleted,
    )


def workload_of(body: Body) -> Workload:
    """A Workload of Kueue's."""
    told = [_condition(body, "Evicted", "True"), _condition(body, "QuotaReserved", "False"), _condition(body, "Admitted")]
    why = next((condition for condition in told if condition), {})
    return Workload(
        name=body["metadata"]["name"],
        active=body.get("spec", {}).get("active", True),
        admitted=_condition(body, "Admitted").get("status") == "True",
        reason=why.get("reason", ""),
        message=why.get("message", ""),
    )


def controller_of(body: Body) -> str:
    """The uid of the object that controls this one; empty without one."""
    owners = body["metadata"].get("ownerReferences", [])
    return next((str(owner["uid"]) for owner in owners if owner.get("controller")), "")


def _place(body: Body, resource: str) -> Place:
    metadata = body["metadata"]
    return Place(Key(metadata["namespace"], resource), metadata["uid"], controller_of(body), int(metadata["resourceVersion"]))


def _status(body: Body) -> Status:
    try:
        return Status.model_validate(body.get("status", {}))
    except ValidationError:
        return Status()  # another version's, or written by hand: it is only ever rebuilt


def _job_state(body: Body) -> tuple[JobState, datetime | None, Body]:
    """The state, since when it is the last one, and the condition that says so."""
    if failed := _condition(body, "Failed", "True"):
        return JobState.FAILED, _moment(failed.get("lastTransitionTime")), failed
    if complete := _condition(body, "Complete", "True") or _condition(body, "SuccessCriteriaMet", "True"):
        return JobState.SUCCEEDED, _moment(body["status"].get("completionTime") or complete.get("lastTransitionTime")), complete
    if ending := _condition(body, "FailureTarget", "True"):
        return JobState.ENDING, None, ending
    suspended = _condition(body, "Suspended", "True")
    if body.get("spec", {}).get("suspend"):
        return JobState.SUSPENDED, None, suspended
    return JobState.ACTIVE, None, {}


def _container(status: Body) -> Body:
    """The status of the container that does the work."""
    statuses: list[Body] = status.get("containerStatuses", [])
    return next((container for container in statuses if container.get("name") in _CONTAINERS), {})


def _waiting(containers: Iterable[Body]) -> tuple[str, str]:
    """Why a container cannot start, unless it is just starting."""
    states: list[Body] = [container.get("state", {}).get("waiting", {}) for container in containers]
    stuck: Body = next((state for state in states if state.get("reason", "") not in {"", *_STARTING}), {})
    return stuck.get("reason", ""), stuck.get("message", "")


def _ending(container: Body, otherwise: datetime) -> Ending | None:
    ended = container.get("state", {}).get("terminated")
    if ended is None:
        return None
    at = _moment(ended.get("finishedAt")) or otherwise  # a kubelet that lost the container has no time for it
    return Ending(ended.get("exitCode", 0), ended.get("reason", ""), ended.get("message", ""), at)


def _condition(body: Body, kind: str, status: str = "") -> Body:
    """One condition, of that status when one is named; empty when it is not there."""
    conditions: list[Body] = body.get("status", {}).get("conditions", [])
    return next((one for one in conditions if one.get("type") == kind and status in {"", one.get("status")}), {})


def _labels(body: Body) -> Mapping[str, str]:
    labels: Mapping[str, str] = body["metadata"].get("labels") or {}
    return labels


def _annotations(body: Body) -> Mapping[str, str]:
    annotations: Mapping[str, str] = body["metadata"].get("annotations") or {}
    return annotations


def _whole(text: str | None) -> int:
    """A number that a label holds; 0 for anything else."""
    return int(text) if text and text.isascii() and text.isdigit() else 0


def _created(body: Body) -> datetime:
    return datetime.fromisoformat(body["metadata"]["creationTimestamp"])


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text).astimezone(UTC) if text else None
