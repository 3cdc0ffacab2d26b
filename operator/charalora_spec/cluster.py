"""What surrounds a training: `spec.storage`, `spec.resources`, `spec.cache`, `spec.scheduling` and `spec.run`."""

from collections.abc import Mapping
from enum import Enum
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from charalora_spec.parts import Part, Rule
from charalora_spec.values import (
    LABEL_KEYS,
    Endpoint,
    LabelKeyOrEmpty,
    LabelValue,
    ObjectName,
    ObjectNameOrEmpty,
    Quantity,
    QueueName,
    Region,
    ResourceName,
    Switch,
    Whole,
)


class AddressingStyle(Enum):
    """Where a bucket's name stands in a request."""

    AUTO = "auto"
    PATH = "path"
    VIRTUAL = "virtual"


class Storage(Part):
    """How the object storage is reached."""

    endpoint: Endpoint = Field(
        "",
        description="Address of the S3 service, http(s)://host[:port]; empty: AWS_ENDPOINT_URL of the Secret or the environment, else AWS.",
    )
    region: Region = Field("us-east-1", description="Region that requests are signed for.")
    secret_name: ObjectNameOrEmpty = Field(
        "s3-credentials",
        description="Secret with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, where needed AWS_SESSION_TOKEN and AWS_ENDPOINT_URL; "
        "empty: the pods' service account.",
    )
    ca_secret_name: ObjectNameOrEmpty = Field(
        "", description="Secret whose ca.crt signs the endpoint's certificate; empty: the public authorities."
    )
    addressing_style: AddressingStyle = Field(
        AddressingStyle.AUTO, description="Bucket in the path or in the host name (virtual); auto chooses by the endpoint."
    )


class Resources(Part):
    """What the training may use in a cluster; `charalora run` takes its machine's GPUs, or without one `gpus` processes."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "nodes",
            ("gpus", "nodes"),
            "self.nodes == 1 || self.gpus >= 1",
            "several nodes need gpus of 1 or more; train without a GPU on one node",
            lambda gpus, nodes: nodes == 1 or gpus >= 1,
        ),
    )

    gpus: Whole = Field(2, ge=0, le=64, description="GPUs of each node; 0: train on the CPU.")
    nodes: Whole = Field(1, ge=1, le=64, description="Nodes that train together.")
    gpu_resource: ResourceName = Field("nvidia.com/gpu", description="Name under which nodes offer their GPUs.")
    cpu: Quantity = Field("8", description="CPU cores of each node, a Kubernetes quantity.")
    memory: Quantity = Field("32Gi", description="Memory of each node, a Kubernetes quantity; shared memory counts.")
    shared_memory: Quantity = Field("8Gi", description="Size of /dev/shm, a Kubernetes quantity.")


class Cache(Part):
    """A warm place for base models and compiled kernels."""

    claim_name: ObjectName | None = Field(None, description="PersistentVolumeClaim that is mounted as the cache; null: none.")
    node: Switch = Field(default=False, description="Use the folder of the node that the operator's settings name.")


class Toleration(Part):
    """A Kubernetes toleration."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "operator",
            ("key", "operator"),
            "self.key != '' || self.operator == 'Exists'",
            "must be Exists where there is no key; write the taint's key, or Exists to tolerate every taint",
            lambda key, operator: bool(key) or operator == "Exists",
        ),
        Rule(
            "value",
            ("operator", "value"),
            "self.value == '' || self.operator == 'Equal'",
            "is compared by operator: Equal alone; leave it out, or write Equal",
            lambda operator, value: not value or operator == "Equal",
        ),
        Rule(
            "toleration_seconds",
            ("effect", "toleration_seconds"),
            "!has(self.tolerationSeconds) || self.effect == 'NoExecute'",
            "counts with effect: NoExecute alone; leave it out, or write NoExecute",
            lambda effect, seconds: seconds is None or effect == "NoExecute",
        ),
    )

    key: LabelKeyOrEmpty = Field("", description="Taint key; empty with Exists: every key.")
    operator: Literal["Exists", "Equal"] = Field("Equal", description="Exists, or Equal to value.")
    value: LabelValue = Field("", description="Taint value for Equal.")
    effect: Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"] = Field("", description="Taint effect; empty: every effect.")
    toleration_seconds: Whole | None = Field(None, description="Seconds that a NoExecute taint is tolerated; null: for ever.")


class Scheduling(Part):
    """Where and when the cluster runs the pods."""

    queue_name: QueueName | None = Field(None, description="Kueue LocalQueue; null: no queue.")
    priority_class_name: ObjectName | None = Field(None, description="PriorityClass of the pods; null: the cluster's default.")
    node_selector: Annotated[Mapping[str, LabelValue], LABEL_KEYS] = Field(
        {}, max_length=16, description="Labels that a node must have, at most 16."
    )
    tolerations: tuple[Toleration, ...] = Field((), max_length=16, description="Taints that the pods tolerate, at most 16.")
    service_account_name: ObjectName | None = Field(
        None, description="Service account of the pods, one of those that the operator allows; null: default."
    )


class Run(Part):
    """What may change while the training runs."""

    suspend: Switch = Field(default=False, description="Pause: the training saves its state and gives its GPUs back.")
    retries: Whole = Field(3, ge=0, le=100, description="Attempts after a failure that another attempt can help.")
    preemption_retries: Whole = Field(20, ge=0, le=1000, description="Attempts after the cluster took the pods away.")
    deadline_seconds: Annotated[int, Field(strict=True, ge=60, le=31_536_000)] | None = Field(
        None, description="Seconds that all attempts may take together, 60 to 31536000; null: no limit."
    )
    ttl_seconds_after_finished: Annotated[int, Field(strict=True, ge=0, le=31_536_000)] | None = Field(
        None, description="Seconds after which a finished resource deletes itself; its files stay; null: never."
    )
