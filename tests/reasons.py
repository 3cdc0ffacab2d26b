"""What tests of reasons share: many resources at once, what must be true of each end, and an operator with settings of its own."""

import json
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from charalora_operator import names
from charalora_operator.desired import TRAINER
from charalora_spec.outcome import Outcome, Retry
from charalora_spec.spec import GROUP
from charalora_spec.status import AttemptStatus, Condition, Status
from cluster_runs import Place, Run
from target import OPERATOR_NAMESPACE

Files = dict[str, bytes]

PAUSED = {"run.suspend": True}
"""For one that would train until somebody ends it: until its test comes, it shall not take the cores of the others."""


@dataclass(frozen=True)
class Cause:
    """Something wrong with one resource, and what its user is told.

    Attributes:
        outcome: The reason.
        says: What stands in the message; `{place}` is the namespace, and the bucket.
        fields: Of the resource, as `builders.character_lora` takes them; `{place}` as above.
        files: What becomes of a good data set; None: it stays good.
    """

    outcome: Outcome
    says: tuple[str, ...]
    fields: Mapping[str, Any] = field(default_factory=dict)
    files: Callable[[Files], Files] | None = None


def start_all(place: Place, causes: Mapping[str, Cause], dataset: Files) -> dict[str, Run]:
    """`kubectl apply` of them all; a resource is called as its cause."""
    wires = []
    for name, cause in causes.items():
        fields = {path: _placed(value, place) for path, value in cause.fields.items()}
        if cause.files is not None:
            place.upload_dataset(cause.files(dataset), f"{name}/")
            fields = {"dataset.uri": place.uri(f"{name}/")} | fields
        wires.append(place.resource(name, **fields))
    place.target.run("apply", "-f", "-", content=json.dumps({"apiVersion": "v1", "kind": "List", "items": wires}))
    return {name: Run(place, name) for name in causes}


def _placed(value: Any, place: Place) -> Any:
    match value:
        case str():
            return value.replace("{place}", place.namespace)
        case dict():
            return {key: _placed(part, place) for key, part in value.items()}
    return value


def until_said(run: Run, cause: Cause, seconds: float = 300.0) -> Status:
    """Wait until the resource is in the cause's state and says all of it."""
    says = [_placed(text, run.place) for text in cause.says]

    def told(status: Status) -> bool:
        one = succeeded(status)
        return one is not None and one.reason == cause.outcome.reason and all(text in one.message for text in says)

    return run.until(f"{cause.outcome.reason} with {says}", told, seconds)


def ended(run: Run, cause: Cause, seconds: float = 300.0) -> Status:
    """Wait for the end for good, and assert what is true of every one."""
    run.finish(seconds)
    status = until_said(run, cause, 5)
    end = succeeded(status)
    assert end is not None
    assert end.status == "False"
    assert status.completion_time is not None
    return status


def succeeded(status: Status) -> Any:
    """The condition that the STATE column shows; None before the first visit."""
    return next((one for one in status.conditions if one.type == Condition.SUCCEEDED.value), None)


def refused_by_check(run: Run, cause: Cause, seconds: float = 300.0) -> Status:
    """Assert an end that the check found: told in its log too, by the exit code that the table has, and without any GPU."""
    status = ended(run, cause, seconds)
    ready = next(one for one in status.conditions if one.type == Condition.DATASET_READY.value)
    assert ("False", cause.outcome.reason) == (ready.status, ready.reason)
    assert f"charalora: {cause.outcome.reason}: " in log(run, names.PREFLIGHT)
    codes = exit_codes(run)
    assert {cause.outcome.exit_code} == set(codes)
    assert cause.outcome.retry is Retry.RETRY or len(codes) == 1, "what cannot pass was tried again"
    no_gpu_was_asked_for(run)
    return status


def no_gpu_was_asked_for(run: Run) -> None:
    """Assert that no training was ever made, so that no pod wanted a GPU. Jobs outlive their pods."""
    status = run.status
    assert status.attempt == 0
    assert status.usage is None or status.usage.gpu_seconds == 0
    assert [] == [job["metadata"]["name"] for job in run.owned("jobs") if job["metadata"]["labels"][names.COMPONENT] == names.TRAINING]
    assert [] == [pod["metadata"]["name"] for pod in run.owned("pods") if asks_for_gpus(pod)]


def no_gpu_was_given(run: Run) -> None:
    """Assert that a training waits, and that it costs nothing."""
    usage = run.status.usage
    assert usage is None or usage.gpu_seconds == 0
    assert [] == [pod["metadata"]["name"] for pod in run.owned("pods") if asks_for_gpus(pod) and pod["spec"].get("nodeName")]


def asks_for_gpus(pod: Mapping[str, Any]) -> bool:
    """Whether a pod claims a GPU."""
    return any("nvidia.com/gpu" in container["resources"].get("limits", {}) for container in pod["spec"]["containers"])


def exit_codes(run: Run) -> list[int]:
    """With what its containers ended."""
    containers = [container for pod in run.owned("pods") for container in pod["status"].get("containerStatuses", [])]
    return [container["state"]["terminated"]["exitCode"] for container in containers if "terminated" in container["state"]]


def log(run: Run, component: str) -> str:
    """What the pods that check, or those that train, have printed."""
    labels = f"{names.RESOURCE}={run.name},{names.COMPONENT}={component}"
    return run.place.target.run("logs", "-n", run.place.namespace, "-l", labels, "--tail=-1")


@contextmanager
def watching(place: Place) -> Iterator[Callable[[str], list[str]]]:
    """What `kubectl get clora --watch` prints meanwhile: each STATE of a resource, as its user sees them come."""
    target = place.target
    command = [target.kubectl, f"--kubeconfig={target.kubeconfig}", "get", "clora", "-n", place.namespace, "--watch"]
    with tempfile.TemporaryFile("w+") as printed, subprocess.Popen(command, stdout=printed) as watch:

        def states(name: str) -> list[str]:
            printed.seek(0)
            columns = [line.split() for line in printed.read().splitlines()]
            return [state for state, _ in groupby(column[1] for column in columns if column[0] == name)]

        yield states
        watch.terminate()


def trainer(run: Run, seconds: float = 300.0) -> dict[str, Any]:
    """The pod of the running attempt, once its container runs."""
    found: list[dict[str, Any]] = []

    def runs(_: Status) -> bool:
        pods = [pod for pod in run.owned("pods") if pod["metadata"]["labels"][names.COMPONENT] == names.TRAINING]
        found[:] = [pod for pod in pods if pod["status"]["phase"] == "Running" and "deletionTimestamp" not in pod["metadata"]]
        return bool(found)

    run.until("a training pod", runs, seconds)
    return found[0]


def until_step(run: Run, step: int, seconds: float = 300.0) -> Status:
    """Wait until the running attempt has made a step."""
    return run.until(f"step {step}", lambda status: status.progress is not None and (status.progress.step or 0) >= step, seconds)


def signal_workers(run: Run, number: int) -> None:
    """Send a signal to every process of the training but its first, from within its container."""
    script = (
        "import os,pathlib\n"
        "for file in pathlib.Path('/proc').glob('[0-9]*/cmdline'):\n"
        "  pid=int(file.parent.name)\n"
        f"  if pid not in (1, os.getpid()) and b'charalora_trainer.worker' in file.read_bytes(): os.kill(pid, {number}); print(pid)\n"
    )
    name = trainer(run)["metadata"]["name"]
    assert run.place.target.run("exec", "-n", run.place.namespace, name, "-c", TRAINER, "--", "python", "-c", script).split()


@contextmanager
def own_operator(place: Place, *values: str) -> Iterator[None]:
    """An operator for this namespace alone, with settings of its own; the cluster's other operator is kept from writing there."""
    name, target = place.namespace, place.target
    everywhere = f"system:serviceaccount:{OPERATOR_NAMESPACE}:charalora"
    meant = [
        ([GROUP], ["characterloras/status"]),
        (["batch"], ["jobs"]),
        ([""], ["configmaps", "services", "events"]),
    ]
    rules = [{"apiGroups": groups, "apiVersions": ["*"], "operations": ["*"], "resources": kinds} for groups, kinds in meant]
    policy = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": name},
        "spec": {
            "matchConstraints": {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}, "resourceRules": rules},
            "validations": [
                {"expression": f"request.userInfo.username != '{everywhere}'", "message": "This namespace has its own operator."}
            ],
        },
    }
    binding = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": name},
        "spec": {"policyName": name, "validationActions": ["Deny"]},
    }
    target.apply(policy, binding)
    own = [f"settings.namespaces={{{name}}}", "crds.install=false", "rbac.aggregate=false", "replicas=1", *values]
    try:
        target.install(*(part for value in own for part in ("--set", value)), release=name, namespace=name)
        yield
    finally:
        target.run("delete", "validatingadmissionpolicybinding,validatingadmissionpolicy", name)


def go_on(run: Run) -> None:
    """End its pause."""
    run.patch({"spec": {"run": {"suspend": False}}})


def until_attempt(run: Run, number: int, reason: Outcome) -> AttemptStatus:
    """Wait until an attempt has ended for a reason, and the next one has begun."""

    def went_on(status: Status) -> bool:
        return status.attempt == number + 1 and any(one.attempt == number and one.reason == reason.reason for one in status.attempts)

    status = run.until(f"attempt {number + 1} after {reason.reason}", went_on)
    return next(one for one in status.attempts if one.attempt == number)


def over(run: Run, codes: set[int], *, attempts: list[Outcome]) -> Status:
    """Assert how a training that is over has got there, and take it away, so that nothing of it runs on."""
    status = run.status
    assert [outcome.reason for outcome in attempts] == [attempt.reason for attempt in status.attempts]
    assert codes <= set(exit_codes(run))
    assert status.usage is not None
    assert status.usage.gpu_seconds == sum(attempt.gpu_seconds for attempt in status.attempts) > 0
    run.place.target.run("delete", "clora", run.name, "-n", run.place.namespace, "--wait=false")
    return status


def pod(place: Place, name: str, command: list[str], **spec: Any) -> dict[str, Any]:
    """A pod of the test's own, as the restricted standard wants it."""
    container = {
        "name": "main",
        "image": place.target.images["preflight"],
        "command": command,
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "resources": spec.pop("resources", {}),
    }
    security = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    metadata = {"name": name, "namespace": place.namespace, "labels": {"app": name}}
    body = {"terminationGracePeriodSeconds": 0, "containers": [container], "securityContext": security, **spec}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": body}
