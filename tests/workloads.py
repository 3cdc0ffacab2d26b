"""Kueue without Kueue: its Workload as far as the operator reads it, and the hand that a test lends its controller.

The shape is that of kueue.x-k8s.io/v1beta1. Names, labels, reasons and sentences are those that Kueue's own controller writes.
"""

from datetime import UTC, datetime
from typing import Any

from apiserver import ApiServer, Json

QUEUE = "team"
CLUSTER_QUEUE = "artists"

_ANYTHING: Json = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
_CONDITION: Json = {
    "type": "object",
    "required": ["lastTransitionTime", "message", "reason", "status", "type"],
    "properties": {
        "type": {"type": "string"},
        "status": {"type": "string", "enum": ["True", "False", "Unknown"]},
        "reason": {"type": "string", "minLength": 1},
        "message": {"type": "string"},
        "lastTransitionTime": {"type": "string", "format": "date-time"},
        "observedGeneration": {"type": "integer"},
    },
}
_SCHEMA: Json = {
    "type": "object",
    "properties": {
        "spec": {
            "type": "object",
            "properties": {
                "active": {"type": "boolean", "default": True},
                "queueName": {"type": "string"},
                "podSets": {"type": "array", "items": _ANYTHING},
            },
        },
        "status": {
            "type": "object",
            "properties": {
                "admission": _ANYTHING,
                "conditions": {
                    "type": "array",
                    "items": _CONDITION,
                    "x-kubernetes-list-type": "map",
                    "x-kubernetes-list-map-keys": ["type"],
                },
            },
        },
    },
}
WORKLOADS: Json = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {
        "name": "workloads.kueue.x-k8s.io",
        "annotations": {"api-approved.kubernetes.io": "https://github.com/kubernetes-sigs/kueue"},
    },
    "spec": {
        "group": "kueue.x-k8s.io",
        "scope": "Namespaced",
        "names": {"kind": "Workload", "listKind": "WorkloadList", "plural": "workloads", "singular": "workload"},
        "versions": [
            {"name": "v1beta1", "served": True, "storage": True, "schema": {"openAPIV3Schema": _SCHEMA}, "subresources": {"status": {}}}
        ],
    },
}


class Workload:
    """What Kueue makes for a Job in one of its queues, moved by hand."""

    def __init__(self, server: ApiServer, job: Json) -> None:
        self._server = server
        self._namespace, self._job = job["metadata"]["namespace"], job["metadata"]["name"]
        self.name = f"job-{self._job}-{job['metadata']['uid'][:5]}"
        self._conditions: dict[str, Json] = {}
        owner = {"apiVersion": "batch/v1", "kind": "Job", "name": self._job, "uid": job["metadata"]["uid"], "controller": True}
        metadata = {
            "name": self.name,
            "namespace": self._namespace,
            "labels": {"kueue.x-k8s.io/job-uid": job["metadata"]["uid"]},
            "ownerReferences": [owner],
        }
        spec = {"queueName": job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"], "podSets": []}
        server.create({"apiVersion": "kueue.x-k8s.io/v1beta1", "kind": "Workload", "metadata": metadata, "spec": spec})

    def wait(self, message: str) -> None:
        """There is no quota for it yet."""
        self._say(QuotaReserved=("False", "Pending", message))

    def admit(self) -> None:
        """There is quota: Kueue puts its choice of nodes into the Job's template and lets the Job go."""
        self._say(
            QuotaReserved=("True", "QuotaReserved", f"Quota reserved in ClusterQueue {CLUSTER_QUEUE}"),
            Evicted=("False", "QuotaReserved", "Previously: evicted"),
            Admitted=("True", "Admitted", "The workload is admitted"),
        )
        self._server.change("jobs", self._namespace, self._job, {"spec": {"template": {"spec": {"nodeSelector": {"pool": "a100"}}}}})
        self._suspend(whether=False)

    def evict(self, message: str) -> None:
        """Somebody with more right to the quota gets it."""
        self._say(
            Evicted=("True", "Preempted", message),
            QuotaReserved=("False", "Pending", message),
            Admitted=("False", "NoReservation", "The workload has no reservation"),
        )
        self._suspend(whether=True)

    def deactivate(self) -> None:
        """An administrator takes it out of the queue."""
        self._server.change("workloads", self._namespace, self.name, {"spec": {"active": False}})
        self._say(QuotaReserved=("False", "Inadmissible", "The workload is deactivated"))

    def _suspend(self, *, whether: bool) -> None:
        self._server.change("jobs", self._namespace, self._job, {"spec": {"suspend": whether}})

    def _say(self, **conditions: tuple[str, str, str]) -> None:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        for kind, (status, reason, message) in conditions.items():
            self._conditions[kind] = {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": now}
        told: dict[str, Any] = {"status": {"conditions": list(self._conditions.values())}}
        self._server.change("workloads", self._namespace, f"{self.name}/status", told)
