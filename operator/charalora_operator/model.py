"""What the operator sees and decides, as values. Everything here is frozen, and nothing here reads a clock or the cluster."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Any

from charalora_spec.outcome import Outcome
from charalora_spec.spec import CharacterLora
from charalora_spec.status import Status

Manifest = dict[str, Any]
"""A Kubernetes object as plain values."""


@dataclass(frozen=True, order=True)
class Key:
    """Which resource."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True)
class Resource:
    """A CharacterLora as the API server has it.

    Attributes:
        key: Its place.
        uid: Tells it from an earlier one of the same name.
        generation: Counts changes of its spec.
        created: When it was made.
        deleting: Whether it is on its way out.
        run: What is asked for, without fields that this version does not have; None where it cannot be read.
        problem: What of it cannot be read, and why; empty when all of it is understood.
        status: What was written last; empty at the first visit.
        version: Which of its states this is; a write that names it is refused when there is a newer one.
    """

    key: Key
    uid: str
    generation: int
    created: datetime
    deleting: bool
    run: CharacterLora | None
    problem: str
    status: Status
    version: str = ""


class JobState(Enum):
    """Where a Job stands."""

    SUSPENDED = "Suspended"
    ACTIVE = "Active"
    ENDING = "Ending"
    """It has failed, and its last pods are still on their way out."""
    FAILED = "Failed"
    SUCCEEDED = "Succeeded"


@dataclass(frozen=True)
class JobFacts:
    """What counts of a Job.

    Attributes:
        name: Its name.
        component: `preflight` or `training`.
        attempt: Number of the attempt; 0 for a check.
        run: Short digest of what it was given, from its label.
        state: Where it stands.
        why: Reason and message of the condition that ended it, as the Job controller wrote them.
        ended_because: The reason with which we ended it ourselves, from its annotation; empty otherwise.
        created: When it was made.
        started: When its pods could first start; None while suspended.
        ended: When it succeeded or failed.
        deleting: Whether it is on its way out.
        uid: Tells it from an earlier one of the same name.
    """

    name: str
    component: str
    attempt: int
    state: JobState
    created: datetime
    run: str = ""
    why: tuple[str, str] = ("", "")
    ended_because: str = ""
    started: datetime | None = None
    ended: datetime | None = None
    deleting: bool = False
    uid: str = ""


@dataclass(frozen=True)
class Ending:
    """How a pod's container ended.

    Attributes:
        exit_code: The process's.
        cluster_reason: What the kubelet says: Completed, Error, OOMKilled, ContainerCannotRun …
        message: The termination message, JSON as outcome.termination_message writes it or the log's last lines.
        at: When.
    """

    exit_code: int
    cluster_reason: str
    message: str
    at: datetime


@dataclass(frozen=True)
class PodFacts:
    """What counts of a Pod.

    Attributes:
        name: Its name.
        job: The Job that it belongs to.
        index: Its completion index.
        phase: Pending, Running, Succeeded, Failed or Unknown.
        ip: Where its metrics are; empty until it has one.
        node: Where it runs; empty until it is scheduled.
        created: When it was made.
        scheduled: When a node was found: from then on it holds its GPUs.
        unschedulable: The scheduler's own words while there is no node; empty otherwise.
        waiting: Reason and message of a container that cannot start, in the kubelet's own words.
        disruption: Reason and message of the DisruptionTarget condition: it was preempted, evicted, or its node is gone.
        running_since: When its container started.
        ending: How its container ended; None while it runs.
        deleted: Until when it may still run once it was asked to go; None otherwise.
    """

    name: str
    job: str
    index: int
    phase: str
    created: datetime
    ip: str = ""
    node: str = ""
    scheduled: datetime | None = None
    unschedulable: str = ""
    waiting: tuple[str, str] = ("", "")
    disruption: tuple[str, str] = ("", "")
    running_since: datetime | None = None
    ending: Ending | None = None
    deleted: datetime | None = None


@dataclass(frozen=True)
class Workload:
    """What Kueue says of a Job in one of its queues.

    Attributes:
        name: Its name.
        active: Whether it may be admitted.
        admitted: Whether its quota is reserved and its pods may start.
        reason: Why it is pending or was evicted, in Kueue's own words.
        message: The same for people.
    """

    name: str
    active: bool
    admitted: bool
    reason: str
    message: str


@dataclass(frozen=True)
class Sample:
    """What a training's metrics said.

    Attributes:
        job: The attempt's Job.
        at: When they were read.
        moved: When the step or the stage last changed; the first reading counts as a change.
        figures: Values by metric name without labels, such as charalora_step.
        stage: The stage that runs, empty when unknown.
        heard_nearby: When a training of its namespace, this one or another, was last heard; None while this operator heard none.
    """

    job: str
    at: datetime
    moved: datetime
    figures: Mapping[str, float]
    stage: str = ""
    heard_nearby: datetime | None = None


@dataclass(frozen=True)
class Observed:
    """Everything that is known of one resource's world at one moment.

    Attributes:
        jobs: Its Jobs by name.
        pods: Its Pods.
        sample: The newest figures of the running attempt; without any while it does not answer, None before it was asked.
        workload: What Kueue has for the current attempt's Job; None without a queue.
        refused: Why the Job controller cannot make pods (quota, admission), by Job; in the cluster's own words.
        in_the_way: What has the name of an object that was to be made, and belongs to something else; empty otherwise.
    """

    jobs: Mapping[str, JobFacts] = field(default_factory=dict)
    pods: tuple[PodFacts, ...] = ()
    sample: Sample | None = None
    workload: Workload | None = None
    refused: Mapping[str, str] = field(default_factory=dict)
    in_the_way: str = ""

    def pods_of(self, job: str) -> tuple[PodFacts, ...]:
        """The pods of one Job, oldest first."""
        return tuple(sorted((pod for pod in self.pods if pod.job == job), key=lambda pod: (pod.created, pod.name)))


@dataclass(frozen=True)
class Create:
    """Make an object that does not exist; one that does is left as it is."""

    manifest: Manifest


@dataclass(frozen=True)
class EndJob:
    """End a running attempt, so that its pods save and go; the Job stays and keeps the reason."""

    job: str
    outcome: Outcome


@dataclass(frozen=True)
class DeleteJob:
    """Take back a Job that waits in a queue and never ran."""

    job: str


@dataclass(frozen=True)
class DeleteResource:
    """Delete the CharacterLora itself, and with it everything that it owns in the cluster."""

    uid: str


Action = Create | EndJob | DeleteJob | DeleteResource


def to_the_second(at: datetime) -> datetime:
    """As Kubernetes writes times."""
    return at.replace(microsecond=0)
