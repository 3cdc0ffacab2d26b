"""A node of paper: it takes every pod of ours, starts nothing, and says of each what a test's script says.

It is scheduler and kubelet at once. Times are the script's, so that what a training costs does not depend on the machine that tests.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from threading import Event, Thread
from typing import Any

from apiserver import ApiServer, Json, owner_of, path_of
from charalora_operator.names import OURS
from charalora_spec.outcome import Outcome, termination_message

NODE = "paper"
_BEAT_SECONDS = 5.0
_PAUSE = 0.15
_FINALIZER = "charalora.dev/paper"
"""Of pods that are to stay for a while: one that has ended when the Job controller deletes it would be gone at once."""


@dataclass(frozen=True)
class End:
    """How a pod's container ends.

    Attributes:
        outcome: As the program says.
        details: What its termination message has beside that.
        disrupted: Reason of the pod's DisruptionTarget condition; empty when the program ended by itself.
    """

    outcome: Outcome
    details: Json
    disrupted: str = ""


Script = Callable[[Json], End | None]
"""How a running pod ends, or None while it goes on. It is asked for one pod of a Job, and the others end as that one does."""


@dataclass(frozen=True)
class Lived:
    """How long each container ran, however long it really was."""

    seconds: int = 10


class PaperNode:
    """The node; `script` may be changed at any time. A deleted pod that has ended stays for some seconds, as a real one does."""

    def __init__(self, server: ApiServer, script: Script, keeps: float) -> None:
        self.script = script
        self._server = server
        self._keeps = timedelta(seconds=keeps)
        self._stop = Event()
        self._beaten = 0.0
        self._ends: dict[str, End | None] = {}  # of this round, by Job
        self.failure: BaseException | None = None

    def run(self) -> None:
        """Work until stopped; what goes wrong is kept for the test."""
        try:
            while not self._stop.wait(_PAUSE):
                self._beat()
                self._ends.clear()
                for pod in self._server.all_of("pods", labelSelector=OURS):
                    self._serve(pod)
        except Exception as error:  # the thread's end is the test's failure, which asks for it
            self.failure = error
            raise

    def stop(self) -> None:
        """End with the present round."""
        self._stop.set()

    def _beat(self) -> None:
        """A node that is silent is lost, and its pods with it."""
        if time.monotonic() - self._beaten < _BEAT_SECONDS:
            return
        self._beaten = time.monotonic()
        ready = {"type": "Ready", "status": "True", "reason": "Paper", "message": "", "lastHeartbeatTime": _stamp(datetime.now(UTC))}
        self._server.change("nodes", "", f"{NODE}/status", {"status": {"conditions": [ready]}})

    def _serve(self, pod: Json) -> None:
        phase = pod.get("status", {}).get("phase", "Pending")
        if phase in {"Succeeded", "Failed"}:
            if "deletionTimestamp" in pod["metadata"] and _deleted_at(pod) + self._keeps <= datetime.now(UTC):
                self._ask("DELETE", pod, "", {"gracePeriodSeconds": 0})
                self._ask("PATCH", pod, "", {"metadata": {"$deleteFromPrimitiveList/finalizers": [_FINALIZER]}})
        elif "nodeName" not in pod["spec"]:
            if self._keeps:
                self._ask("PATCH", pod, "", {"metadata": {"finalizers": [_FINALIZER]}})
            self._ask("POST", pod, "/binding", {"metadata": {"name": pod["metadata"]["name"]}, "target": {"kind": "Node", "name": NODE}})
        elif "deletionTimestamp" in pod["metadata"]:
            self._end(pod, End(Outcome.INTERRUPTED, {}))
        elif phase == "Pending":
            self._report(pod, "Running", {"running": {"startedAt": _stamp(_began(pod))}})
        elif end := self._end_of(pod):
            self._end(pod, end)

    def _end_of(self, pod: Json) -> End | None:
        job = owner_of(pod)
        if job not in self._ends:
            self._ends[job] = self.script(pod)
        return self._ends[job]

    def _end(self, pod: Json, end: End) -> None:
        code = end.outcome.exit_code or 0
        state = {
            "exitCode": code,
            "reason": "Error" if code else "Completed",
            "message": termination_message(end.outcome, end.outcome.meaning, end.details),
            "startedAt": _stamp(_began(pod)),
            "finishedAt": _stamp(_began(pod) + timedelta(seconds=Lived.seconds)),
        }
        disruption = {"type": "DisruptionTarget", "status": "True", "reason": end.disrupted, "message": "The node is needed."}
        self._report(pod, "Failed" if code else "Succeeded", {"terminated": state}, [disruption] if end.disrupted else [])

    def _report(self, pod: Json, phase: str, state: Json, more: list[Json] | None = None) -> None:
        scheduled = {"type": "PodScheduled", "status": "True", "lastTransitionTime": _stamp(_began(pod))}
        container = pod["spec"]["containers"][0]
        told = {
            "name": container["name"],
            "image": container["image"],
            "imageID": "",
            "ready": phase == "Running",
            "restartCount": 0,
            "state": state,
        }
        status = {"phase": phase, "conditions": [scheduled, *(more or [])], "containerStatuses": [told]}
        self._ask("PATCH", pod, "/status", {"status": status})

    def _ask(self, verb: str, pod: Json, what: str, body: Json) -> None:
        """A pod that has gone or changed in the meantime is seen again in the next round."""
        metadata = pod["metadata"]
        content_type = "application/strategic-merge-patch+json" if verb == "PATCH" else "application/json"
        path = path_of("pods", metadata["namespace"], metadata["name"]) + what
        answer = self._server.ask(verb, path, body, content_type=content_type)
        assert answer.accepted or answer.code in {404, 409}, answer.message


def _began(pod: Json) -> datetime:
    """Long enough ago that its end lies in the past as well."""
    return datetime.fromisoformat(pod["metadata"]["creationTimestamp"]) - timedelta(seconds=2 * Lived.seconds)


def _deleted_at(pod: Json) -> datetime:
    """When somebody asked for it: the stamp is of the time at which it should be gone."""
    metadata = pod["metadata"]
    return datetime.fromisoformat(metadata["deletionTimestamp"]) - timedelta(seconds=metadata.get("deletionGracePeriodSeconds", 0))


def _stamp(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


@contextmanager
def paper_node(server: ApiServer, script: Script, keeps: float = 0.0) -> Iterator[PaperNode]:
    """The node, at work until the block ends."""
    server.create({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}})
    node = PaperNode(server, script, keeps)
    thread = Thread(target=node.run, name="paper node")
    thread.start()
    try:
        yield node
    finally:
        node.stop()
        thread.join()
        server.delete("nodes", "", NODE)
    assert node.failure is None, f"The paper node ended: {node.failure!r}"


def labels_of(body: Json) -> dict[str, Any]:
    """An object's labels."""
    return dict(body["metadata"].get("labels") or {})
