"""What a soak does to the cluster and to the trainings in it; each fault is one that happens to clusters."""

import base64
import json
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any

from soak_verdict import Kind

from charalora_operator.names import ATTEMPT, RESOURCE
from cluster_runs import Place
from machine import api_server_of, power, processes_of, repair, send
from target import OPERATOR_NAMESPACE, TargetError

AWAY = "node-b"
"""The node that may be lost; the other one holds the storage."""
OPERATORS = "app.kubernetes.io/component=operator"
_SECRET = "s3-credentials"  # noqa: S105 - its name


@dataclass(frozen=True)
class Done:
    """What was done.

    Attributes:
        resource: Whom it met; empty where it may have met everybody.
        about: What was hit.
        undo: Ends it; None for what happens in a moment.
        lasts: Seconds until then.
    """

    resource: str = ""
    about: str = ""
    undo: Callable[[], None] | None = None
    lasts: float = 0.0


@dataclass(frozen=True)
class Scene:
    """What faults are done to.

    Attributes:
        place: The trainings' namespace and bucket.
        facts: What `cluster.py status --json` says.
        random: Decides everything.
        running: Names of trainings that were seen training and are not over.
    """

    place: Place
    facts: Mapping[str, Any]
    random: Random
    running: Sequence[str]

    def pods(self) -> list[dict[str, Any]]:
        """Pods of trainings, each of which may be hit; the one that is hit is first."""
        listed = self.place.target.get("pods", "-n", self.place.namespace, "-l", ATTEMPT)["items"]
        hit = [pod for pod in listed if pod["status"].get("phase") == "Running" and "deletionTimestamp" not in pod["metadata"]]
        self.random.shuffle(hit)
        return hit


Strike = Callable[[Scene], Done | None]
"""Does a fault; None when there is nothing that it could hit."""


def _operator_killed(scene: Scene) -> Done | None:
    target = scene.place.target
    listed = [pod["metadata"]["name"] for pod in target.get("pods", "-n", OPERATOR_NAMESPACE, "-l", OPERATORS)["items"]]
    hit = scene.random.sample(listed, scene.random.randint(1, len(listed))) if listed else []
    if not hit:
        return None
    target.run("delete", "pods", *hit, "-n", OPERATOR_NAMESPACE, "--grace-period=0", "--force", "--ignore-not-found")
    return Done(about=" ".join(hit))


def _deleted(scene: Scene, options: Sequence[str] = ()) -> Done | None:
    for pod in scene.pods()[:1]:
        name = pod["metadata"]["name"]
        scene.place.target.run("delete", "pod", name, "-n", scene.place.namespace, "--wait=false", "--ignore-not-found", *options)
        return Done(_resource(pod), name)
    return None


def _evicted(scene: Scene) -> Done | None:
    for pod in scene.pods()[:1]:
        name = pod["metadata"]["name"]
        scene.place.target.evict(scene.place.namespace, name)
        return Done(_resource(pod), name)
    return None


def _job_deleted(scene: Scene) -> Done | None:
    for pod in scene.pods()[:1]:
        job = pod["metadata"]["labels"]["batch.kubernetes.io/job-name"]
        scene.place.target.run("delete", "job", job, "-n", scene.place.namespace, "--wait=false", "--ignore-not-found")
        return Done(_resource(pod), job)
    return None


def _stopped(scene: Scene) -> Done | None:
    for pod in scene.pods()[:1]:
        send(signal.SIGSTOP, *processes_of(pod))
        return Done(_resource(pod), pod["metadata"]["name"])
    return None


def _paused(scene: Scene) -> Done | None:
    if not scene.running:
        return None
    name = scene.random.choice(scene.running)

    def suspend(*, wanted: bool) -> None:
        change = json.dumps({"spec": {"run": {"suspend": wanted}}})
        scene.place.target.run("patch", "clora", name, "-n", scene.place.namespace, "--type=merge", "-p", change)

    suspend(wanted=True)
    return Done(name, name, _where_it_is_there(partial(suspend, wanted=False)), scene.random.uniform(2, 30))


def _resource_deleted(scene: Scene) -> Done | None:
    if not scene.running:
        return None
    name = scene.random.choice(scene.running)
    scene.place.target.run("delete", "clora", name, "-n", scene.place.namespace, "--wait=false", "--ignore-not-found")
    return Done(name, name)


def _node_killed(scene: Scene) -> Done:
    power("kill", AWAY)
    return Done("", AWAY, partial(power, "start", AWAY), scene.random.choice([5.0, 30.0, 90.0]))


def _storage_frozen(scene: Scene) -> Done | None:
    pods = scene.place.target.get("pods", "-n", "devcluster", "-l", "app=s3")["items"]
    processes = [process for pod in pods for process in processes_of(pod)]
    send(signal.SIGSTOP, *processes)
    return Done("", f"{len(processes)} processes", partial(send, signal.SIGCONT, *processes), scene.random.uniform(3, 40))


def _storage_denied(scene: Scene) -> Done:
    keys = scene.facts["s3"]
    target = scene.place.target
    _set_keys(scene.place, keys["readerAccessKey"], keys["readerSecretKey"])
    return Done("", _SECRET, partial(_set_keys, scene.place, target.access_key, target.secret_key), scene.random.uniform(3, 20))


def _set_keys(place: Place, access_key: str, secret_key: str) -> None:
    encoded = {
        name: base64.b64encode(value.encode()).decode()
        for name, value in (("AWS_ACCESS_KEY_ID", access_key), ("AWS_SECRET_ACCESS_KEY", secret_key))
    }
    place.target.run("patch", "secret", _SECRET, "-n", place.namespace, "--type=merge", "-p", json.dumps({"data": encoded}))


def _api_server_killed(scene: Scene) -> Done:
    process = api_server_of(scene.facts)
    send(signal.SIGKILL, process)
    return Done("", str(process), repair, scene.random.uniform(0, 15))


def _where_it_is_there(undo: Callable[[], None]) -> Callable[[], None]:
    """What is undone only if its object has not been deleted meanwhile."""

    def undone() -> None:
        try:
            undo()
        except TargetError as error:
            if "not found" not in str(error):
                raise

    return undone


def _resource(pod: Mapping[str, Any]) -> str:
    return str(pod["metadata"]["labels"][RESOURCE])


STRIKES: Mapping[Kind, tuple[int, Strike]] = {
    Kind.OPERATOR_KILLED: (4, _operator_killed),
    Kind.POD_DELETED: (3, _deleted),
    Kind.POD_FORCED_AWAY: (2, partial(_deleted, options=("--grace-period=0", "--force"))),
    Kind.POD_EVICTED: (3, _evicted),
    Kind.JOB_DELETED: (2, _job_deleted),
    Kind.TRAINING_STOPPED: (2, _stopped),
    Kind.PAUSED: (3, _paused),
    Kind.RESOURCE_DELETED: (1, _resource_deleted),
    Kind.NODE_KILLED: (1, _node_killed),
    Kind.STORAGE_FROZEN: (2, _storage_frozen),
    Kind.STORAGE_DENIED: (1, _storage_denied),
    Kind.API_SERVER_KILLED: (2, _api_server_killed),
}
"""How often each comes, relative to the others, and how it is done."""


def patiently(work: Callable[[], Any], seconds: float = 180.0) -> Any:
    """What `work` returns, once the API server answers; it may just have been killed.

    Raises:
        TargetError: It did not for so long, or refused.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            return work()
        except TargetError as error:
            if time.monotonic() > deadline or not any(word in str(error) for word in _AWAY_WORDS):
                raise
            time.sleep(1)


_AWAY_WORDS = ("refused", "EOF", "timeout", "unable to", "ServiceUnavailable", "not ready", "reset by peer", "InternalError", "etcdserver")
"""What kubectl says of an API server that is away or has just come back."""
