"""A training's life on a paper node: checked, taken away once, finished. What is left of it is told without what depends on the clock."""

import re
from collections.abc import Mapping
from typing import Any

from apiserver import ApiServer, Json, until
from builders import character_lora_wire
from charalora_operator import names
from charalora_spec.outcome import Outcome
from paper_node import End, labels_of

DIGEST = "d" * 64
CHECKED = {"dataset": {"images": 24, "width": 128, "height": 128, "buckets": 1, "tokens": 31, "digest": DIGEST}}
SAVED = {"step": 250, "savedStep": 200}
FINISHED = {
    "artifacts": [{"kind": "webui", "uri": "s3://loras/surtr/civitai/surtr.safetensors", "bytes": 7, "sha256": "a" * 64}],
    "best": {"step": 900, "heldOutLoss": "0.1"},
    "steps": 1000,
    "savedStep": 1000,
}
_OWNED = ("jobs", "configmaps", "services", "pods")
_DIGEST = re.compile("-[0-9a-f]{8}$")
"""Of what is trained, and its namespace is a part of that."""


def resource(namespace: str, name: str = "surtr", **overrides: Any) -> Json:
    """A training on two nodes with one GPU each."""
    return character_lora_wire(
        **{"metadata.namespace": namespace, "metadata.name": name, "resources.nodes": 2, "resources.gpus": 1, **overrides}
    )


def conditions_of(body: Json) -> Mapping[str, Json]:
    """A resource's conditions by their type."""
    return {condition["type"]: condition for condition in body.get("status", {}).get("conditions", [])}


def state_of(body: Json) -> str:
    """The STATE column."""
    return str(conditions_of(body).get("Succeeded", {}).get("reason", ""))


class PreemptedOnce:
    """Script of a life: a check passes, the first attempt is taken away when the operator has said that it runs, the second finishes."""

    def __init__(self, server: ApiServer) -> None:
        self._server = server

    def __call__(self, pod: Json) -> End | None:
        """How this pod ends."""
        labels = labels_of(pod)
        if labels[names.COMPONENT] == names.PREFLIGHT:
            return End(Outcome.SUCCEEDED, CHECKED)
        found = self._server.find("characterloras", pod["metadata"]["namespace"], labels[names.RESOURCE])
        if found is None or not self._is_told(found, int(labels[names.ATTEMPT])):
            return None
        return (
            End(Outcome.INTERRUPTED, SAVED, "PreemptionByScheduler") if labels[names.ATTEMPT] == "1" else End(Outcome.SUCCEEDED, FINISHED)
        )

    @staticmethod
    def _is_told(body: Json, attempt: int) -> bool:
        training = conditions_of(body).get("Training", {})
        return training.get("status") == "True" and training["message"].startswith(f"Attempt {attempt} ")


def finished(server: ApiServer, namespace: str, name: str = "surtr", seconds: float = 120) -> Json:
    """The resource when it has ended, well or not."""

    def ended() -> Json | None:
        body = server.get("characterloras", namespace, name)
        return body if conditions_of(body).get("Succeeded", {}).get("status") in {"True", "False"} else None

    return dict(until(f"{namespace}/{name} to end", ended, seconds, pause=0.3))


def remains(server: ApiServer, body: Json) -> Json:
    """What a life has left behind: all of the status but its times, and every object of the resource by its kind."""
    namespace, status = body["metadata"]["namespace"], body["status"]
    query = {"labelSelector": f"{names.RESOURCE}={body['metadata']['name']}"}
    found = {plural: server.all_of(plural, namespace, **query) for plural in _OWNED}
    objects = {plural: [one["metadata"]["name"] for one in listed] for plural, listed in found.items()}
    # Whether a Job that has ended still has each of its pods is up to the Job controller, which deletes those that had not ended yet.
    objects["pods"] = list({one["metadata"]["labels"]["batch.kubernetes.io/job-name"] for one in found["pods"]})
    return {
        "conditions": {kind: (one["status"], one["reason"], one["message"]) for kind, one in conditions_of(body).items()},
        "attempts": [
            (one["attempt"], one["reason"], one["gpuSeconds"], one["wastedGpuSeconds"], "endTime" in one) for one in status["attempts"]
        ],
        "progress": {name: value for name, value in status.get("progress", {}).items() if name != "updatedAt"},
        "checkpoint": {name: value for name, value in status.get("checkpoint", {}).items() if name != "time"},
        "rest": {name: status.get(name) for name in ("dataset", "best", "attempt", "preemptions", "usage", "artifacts", "jobName")},
        "times": sorted(name for name in status if name.endswith("Time")),
        "objects": {plural: sorted(_DIGEST.sub("-digest", name) for name in names_found) for plural, names_found in objects.items()},
    }
