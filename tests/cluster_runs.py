"""Whole trainings on a real cluster for tests: a namespace and buckets of their own, a tiny base model, eight steps on six pictures."""

import json
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from builders import character_lora_wire
from charalora_operator.names import ATTEMPT, COMPONENT, RESOURCE, TRAINING
from charalora_spec.status import Condition, Status
from target import Target, TargetError
from trainings import QUICK, pictures

SECONDS = 480.0
"""A training takes ten to thirty; machines are shared, and a limit that is not reached costs nothing."""

SMALL: dict[str, Any] = {
    "resources.gpus": 1,
    "resources.cpu": "200m",
    "resources.memory": "2Gi",
    "resources.sharedMemory": "128Mi",
}


@dataclass(frozen=True)
class Place:
    """A namespace with credentials, a bucket with a data set and a base model.

    Attributes:
        target: The cluster, with the operator in it.
        namespace: Its name, and the bucket's.
    """

    target: Target
    namespace: str

    def uri(self, prefix: str) -> str:
        """A place in the bucket."""
        return f"s3://{self.namespace}/{prefix}"

    def upload(self, prefix: str, files: Mapping[str, bytes]) -> None:
        """Put files into the bucket."""
        s3 = self.target.s3()
        for name, content in files.items():
            s3.put_object(Bucket=self.namespace, Key=f"{prefix}{name}", Body=content)

    def upload_dataset(self, files: Mapping[str, bytes] | None = None, prefix: str = "dataset/") -> None:
        """A data set; by default six pictures with captions."""
        self.upload(prefix, pictures() if files is None else files)

    def resource(self, name: str = "surtr", **fields: Any) -> dict[str, Any]:
        """A quick training as it stands in a file; fields as `builders.character_lora` takes them."""
        places = {"dataset.uri": self.uri("dataset/"), "baseModel.uri": self.uri("base/"), "output.uri": self.uri(f"output/{name}/")}
        wire = character_lora_wire(**(QUICK | SMALL | places | fields))
        wire["metadata"] |= {"name": name, "namespace": self.namespace}
        return wire

    def start(self, name: str = "surtr", **fields: Any) -> "Run":
        """`kubectl apply` of a quick training."""
        self.target.run("apply", "-f", "-", content=json.dumps(self.resource(name, **fields)))
        return Run(self, name)

    def output(self, name: str = "surtr") -> dict[str, bytes]:
        """Every file of a training's output prefix."""
        s3, prefix = self.target.s3(), f"output/{name}/"
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket=self.namespace, Prefix=prefix)
        keys = [item["Key"] for page in pages for item in page.get("Contents", [])]
        return {key.removeprefix(prefix): s3.get_object(Bucket=self.namespace, Key=key)["Body"].read() for key in keys}


@contextmanager
def own_place(target: Target, base: Mapping[str, bytes]) -> Iterator[Place]:
    """A namespace with credentials, and a bucket with a base model and a data set; both go at the end of the `with`."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    s3 = target.s3()
    s3.create_bucket(Bucket=name)
    target.namespace(name)
    here = Place(target, name)
    here.upload("base/", base)
    here.upload_dataset()
    try:
        yield here
    finally:
        target.run("delete", "namespace", name, "--wait=false")
        for page in s3.get_paginator("list_objects_v2").paginate(Bucket=name):
            for item in page.get("Contents", []):
                s3.delete_object(Bucket=name, Key=item["Key"])
        s3.delete_bucket(Bucket=name)


@dataclass(frozen=True)
class Run:
    """A CharacterLora in the cluster."""

    place: Place
    name: str

    @property
    def status(self) -> Status:
        """As users see it now; empty before the first visit."""
        return Status.model_validate(self.place.target.get("clora", self.name, "-n", self.place.namespace).get("status", {}))

    @property
    def state(self) -> str:
        """The STATE column."""
        return next((one.reason for one in self.status.conditions if one.type == Condition.SUCCEEDED.value), "")

    def message(self, condition: Condition = Condition.SUCCEEDED) -> str:
        """What a condition says."""
        return next((one.message for one in self.status.conditions if one.type == condition.value), "")

    def until(self, what: str, holds: Callable[[Status], bool], seconds: float = SECONDS) -> Status:
        """The first status of which something holds; the test fails with the whole story when that takes too long."""
        deadline = time.monotonic() + seconds
        while not holds(status := self.status):
            assert time.monotonic() < deadline, f"waited {seconds:.0f} s in vain for {what}:\n{self.story()}"
            time.sleep(0.5)
        return status

    def until_state(self, *reasons: str, seconds: float = SECONDS) -> Status:
        """Wait for one of some STATEs."""
        return self.until(" or ".join(reasons), lambda status: _state(status) in reasons, seconds)

    def finish(self, seconds: float = SECONDS) -> Status:
        """Wait for the end, whatever it is."""
        return self.until("the end", lambda status: _truth(status) in {"True", "False"}, seconds)

    def patch(self, change: Mapping[str, Any]) -> None:
        """Edit the resource."""
        self.place.target.run("patch", "clora", self.name, "-n", self.place.namespace, "--type=merge", "-p", json.dumps(change))

    def owned(self, kind: str) -> list[dict[str, Any]]:
        """The objects of a kind that belong to it."""
        found = self.place.target.get(kind, "-n", self.place.namespace, "-l", f"charalora.dev/resource={self.name}")
        return list(found["items"])

    def trainers(self) -> list[dict[str, Any]]:
        """The training's pods that the cluster still knows."""
        return [pod for pod in self.owned("pods") if pod["metadata"]["labels"][COMPONENT] == TRAINING]

    def log(self, attempt: int) -> str:
        """What an attempt's pods have printed."""
        labels = f"{RESOURCE}={self.name},{ATTEMPT}={attempt}"
        return self.place.target.run("logs", "-n", self.place.namespace, "-l", labels, "--tail=-1")

    def story(self) -> str:
        """Everything that helps to see what went wrong."""
        target, namespace = self.place.target, self.place.namespace
        told = []
        for arguments in (
            ("describe", "clora", self.name),
            ("get", "jobs,pods", "-o", "wide"),
            ("get", "events", "--sort-by=.metadata.creationTimestamp"),
            ("get", "events", "--field-selector=involvedObject.kind=Node", "--all-namespaces"),
            ("logs", "-l", f"charalora.dev/resource={self.name}", "--tail=40", "--prefix"),
        ):
            try:
                told.append(target.run(*arguments, "-n", namespace))
            except TargetError as error:
                told.append(str(error))
        return "\n".join([*told, *self._deletions()])

    def _deletions(self) -> list[str]:
        """Who has taken pods of this namespace away; the development cluster writes it down."""
        log = self.place.target.kubeconfig.parent / "control-plane/audit.log"
        asked = map(json.loads, log.read_text(encoding="utf-8").splitlines()) if log.exists() else ()
        return [
            f"{one['requestReceivedTimestamp']} {one['user']['username']} {one['verb']} {one['objectRef'].get('name', 'all pods')}"
            for one in asked
            if one.get("objectRef", {}).get("namespace") == self.place.namespace
            and one["objectRef"]["resource"] == "pods"
            and (one["verb"].startswith("delete") or one["objectRef"].get("subresource") == "eviction")
        ]


def scheduled(pod: Mapping[str, Any]) -> datetime:
    """When a pod got its node, and with it its GPUs."""
    return datetime.fromisoformat(next(one["lastTransitionTime"] for one in pod["status"]["conditions"] if one["type"] == "PodScheduled"))


def ended(pod: Mapping[str, Any]) -> datetime:
    """When a pod's container ended."""
    return datetime.fromisoformat(pod["status"]["containerStatuses"][0]["state"]["terminated"]["finishedAt"])


def held(pod: Mapping[str, Any]) -> float:
    """Seconds for which a pod held its GPUs."""
    return (ended(pod) - scheduled(pod)).total_seconds()


def results(files: Mapping[str, bytes], steps: int) -> dict[str, bytes]:
    """An output prefix with the last state alone: which earlier one stays depends on when a training was stopped."""
    last = f"state/step-{steps:06}/"
    return {name: data for name, data in files.items() if not name.startswith("state/step-") or name.startswith(last)}


def _state(status: Status) -> str:
    return next((one.reason for one in status.conditions if one.type == Condition.SUCCEEDED.value), "")


def _truth(status: Status) -> str:
    return next((one.status for one in status.conditions if one.type == Condition.SUCCEEDED.value), "")
