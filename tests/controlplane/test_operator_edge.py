"""The operator's calls and its process against a real API server with its controllers: no node is needed, the test plays the kubelet.

The operator has the permissions of permissions.py and no other.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest
import yaml

from apiserver import control_plane
from builders import character_lora_wire
from charalora_operator import cluster as cluster_calls
from charalora_operator import names
from charalora_operator.api import APPLY, MERGE, Api, ApiError, connect
from charalora_operator.cluster import JOBS, KUEUE_MISSING, PODS, RESOURCES, Cluster, NotOursError
from charalora_operator.model import Create, DeleteJob, DeleteResource, EndJob, JobState, Key, Resource
from charalora_operator.parse import job_of, pod_of
from charalora_operator.permissions import PERMISSIONS
from charalora_spec.outcome import Outcome, termination_message
from charalora_spec.status import Progress, Status
from faults import Fault
from services import free_port

ROOT = Path(__file__).resolve().parents[2]
HOME = "charalora"
OPERATOR = f"system:serviceaccount:{HOME}:operator"
LEASE_SECONDS = 10
DATASET = {"images": 24, "width": 128, "height": 128, "buckets": 1, "tokens": 31, "digest": "d" * 64}

T = TypeVar("T")


@dataclass(frozen=True)
class Plane:
    """A control plane.

    Attributes:
        admin: The kubeconfig of who may do everything.
        operator: The kubeconfig of who may do what the operator needs.
        audit_log: One line of JSON for each request.
    """

    admin: Path
    operator: Path
    audit_log: Path

    def as_admin(self, verb: str, path: str, body: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
        """One request of the admin's."""
        return call(self.admin, lambda api: api.request(verb, path, body, **more))

    def as_operator(self, work: Callable[[Cluster], Coroutine[Any, Any, T]]) -> T:
        """Calls of the operator's, with no more than its permissions."""
        return call(self.operator, lambda api: work(Cluster(api)))

    def namespace(self) -> str:
        """A new one."""
        made = self.as_admin("POST", "/api/v1/namespaces", {"metadata": {"generateName": "artists-"}})
        return str(made["metadata"]["name"])

    def resource(self, namespace: str, name: str = "surtr", **overrides: Any) -> Resource:
        """A new CharacterLora."""
        wire = character_lora_wire(**overrides)
        wire["metadata"] |= {"name": name, "namespace": namespace}
        self.as_admin("POST", RESOURCES.path(namespace), wire)
        return self.read(Key(namespace, name))

    def read(self, key: Key) -> Resource:
        """A CharacterLora as it is now."""
        found = self.as_operator(lambda cluster: cluster.get_resource(key))
        assert found is not None
        return found

    def job(self, namespace: str, name: str) -> dict[str, Any]:
        """A Job as it is now."""
        return self.as_admin("GET", JOBS.path(namespace, name))

    def pods(self, namespace: str, job: str) -> list[dict[str, Any]]:
        """The Pods of a Job."""
        return list(self.as_admin("GET", PODS.path(namespace), query={"labelSelector": f"batch.kubernetes.io/job-name={job}"})["items"])

    def start(self, namespace: str, job: str) -> str:
        """Bind the Job's pod to a node and let it run, as a scheduler and a kubelet would; its name."""
        (pod,) = wait_for(lambda: self.pods(namespace, job))
        name = str(pod["metadata"]["name"])
        binding = {"metadata": {"name": name}, "target": {"kind": "Node", "name": "node-x"}}
        self.as_admin("POST", f"{PODS.path(namespace, name)}/binding", binding)
        self._report(namespace, name, pod, "Running", {"running": {"startedAt": now()}})
        return name

    def finish(self, namespace: str, job: str, message: str, exit_code: int = 0) -> None:
        """Let the container of the Job's pod end."""
        (pod,) = wait_for(lambda: self.pods(namespace, job))
        state = {"exitCode": exit_code, "reason": "Error" if exit_code else "Completed", "message": message}
        ended = {"terminated": state | {"startedAt": now(), "finishedAt": now()}}
        self._report(namespace, pod["metadata"]["name"], pod, "Failed" if exit_code else "Succeeded", ended)

    def _report(self, namespace: str, name: str, pod: Mapping[str, Any], phase: str, state: dict[str, Any]) -> None:
        container = pod["spec"]["containers"][0]
        reported = {
            "name": container["name"],
            "image": container["image"],
            "imageID": "",
            "ready": False,
            "restartCount": 0,
            "state": state,
        }
        status = {"status": {"phase": phase, "containerStatuses": [reported]}}
        self.as_admin("PATCH", f"{PODS.path(namespace, name)}/status", status, content_type=MERGE)


def call(kubeconfig: Path, work: Callable[[Api], Coroutine[Any, Any, T]]) -> T:
    """Talk to the API server."""

    async def talk() -> T:
        api = connect(kubeconfig, lambda *_: None)
        try:
            return await work(api)
        finally:
            await api.close()

    return asyncio.run(talk())


def wait_for(look: Callable[[], T], seconds: float = 20) -> T:
    """What is there at last; what is empty, None or False is not there yet."""
    end = time.monotonic() + seconds
    while not (found := look()) and time.monotonic() < end:
        time.sleep(0.1)
    assert found, f"it is still {found} after {seconds} s"
    return found


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    """One for this file, with our CRD and the operator's permissions."""
    folder = tmp_path_factory.mktemp("control-plane")
    with control_plane(folder) as facts:
        made = Plane(Path(facts["kubeconfig"]), folder / "operator.kubeconfig", Path(facts["auditLog"]))
        _install(made)
        yield made


def _install(plane: Plane) -> None:
    definition = yaml.safe_load((ROOT / "crds/characterloras.charalora.dev.yaml").read_text())
    plane.as_admin("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition)
    plane.as_admin("POST", "/api/v1/namespaces", {"metadata": {"name": HOME}})
    plane.as_admin("POST", f"/api/v1/namespaces/{HOME}/serviceaccounts", {"metadata": {"name": "operator"}})
    rules = [{"apiGroups": [one.group], "resources": [one.resource], "verbs": list(one.verbs)} for one in PERMISSIONS]
    rbac = "/apis/rbac.authorization.k8s.io/v1"
    plane.as_admin("POST", f"{rbac}/clusterroles", {"metadata": {"name": "operator"}, "rules": rules})
    binding = {
        "metadata": {"name": "operator"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "operator"},
        "subjects": [{"kind": "ServiceAccount", "name": "operator", "namespace": HOME}],
    }
    plane.as_admin("POST", f"{rbac}/clusterrolebindings", binding)
    answer = plane.as_admin("POST", f"/api/v1/namespaces/{HOME}/serviceaccounts/operator/token", {"spec": {}})
    config = json.loads(plane.admin.read_text())
    config["users"][0]["user"] = {"token": answer["status"]["token"]}
    config["contexts"][0]["context"]["namespace"] = HOME
    plane.operator.write_text(json.dumps(config))

    def allowed() -> bool:
        try:
            return bool(plane.as_operator(lambda cluster: cluster.list_all(RESOURCES, dict)))
        except ApiError:
            return False

    wait_for(allowed)


@dataclass(frozen=True)
class Process:
    """A running operator."""

    popen: subprocess.Popen[bytes]
    port: int
    log: Path

    def says(self, sentence: str) -> bool:
        """Whether its log has this line."""
        return sentence in self.log.read_text()

    def get(self, path: str) -> str:
        """What it answers."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
            return str(answer.read().decode())


@contextmanager
def operator(plane: Plane, folder: Path, namespaces: list[str], name: str = "one") -> Iterator[Process]:
    """An operator's process, which ends with the block."""
    port = free_port()
    settings = {
        "namespaces": namespaces,
        "trainerImage": "charalora/trainer:1",
        "preflightImage": "charalora/preflight:1",
        "resyncSeconds": 10,
        "lease": {"name": f"{namespaces[0]}", "durationSeconds": LEASE_SECONDS, "renewSeconds": 3},
        "http": {"port": port},
        "log": {"format": "text"},
    }
    (folder / f"{name}.json").write_text(json.dumps(settings))
    log = folder / f"{name}.log"
    command = [sys.executable, "-m", "charalora_operator", "--settings", str(folder / f"{name}.json"), "--kubeconfig", str(plane.operator)]
    environment = os.environ | {"POD_NAME": name}
    with log.open("wb") as output, subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=output) as popen:
        try:
            yield Process(popen, port, log)
        finally:
            popen.kill()


def config_map(resource: Resource, name: str = "surtr-run") -> dict[str, Any]:
    """One of the resource's own."""
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": owned(resource, name), "data": {"run.json": "{}"}}


def owned(resource: Resource, name: str) -> dict[str, Any]:
    """Metadata of one of the resource's own."""
    owner = {
        "apiVersion": "charalora.dev/v1alpha1",
        "kind": "CharacterLora",
        "name": resource.key.name,
        "uid": resource.uid,
        "controller": True,
    }
    labels = {names.MANAGED_BY: names.MANAGER, names.RESOURCE: resource.key.name, names.COMPONENT: names.TRAINING, names.ATTEMPT: "1"}
    return {"name": name, "namespace": resource.key.namespace, "labels": labels, "ownerReferences": [owner]}


def training(resource: Resource, name: str = "surtr-a1", *, suspend: bool = False, memory: str = "1Gi") -> dict[str, Any]:
    """A Job as an attempt has it, as far as it matters here."""
    metadata = owned(resource, name)
    limits = {"cpu": "1", "memory": memory}
    container = {"name": "trainer", "image": "charalora/trainer:1", "resources": {"limits": limits, "requests": limits}}
    template = {"metadata": {"labels": metadata["labels"]}, "spec": {"restartPolicy": "Never", "containers": [container]}}
    spec = {"completionMode": "Indexed", "completions": 1, "parallelism": 1, "backoffLimit": 0, "suspend": suspend, "template": template}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec | {"podReplacementPolicy": "Failed"}}


def performed(plane: Plane, resource: Resource, action: Create | EndJob | DeleteJob | DeleteResource) -> None:
    """Let the operator do it."""
    plane.as_operator(lambda cluster: cluster.perform(resource.key, action))


def test_a_resource_that_is_gone_is_none(plane: Plane) -> None:
    assert plane.as_operator(lambda cluster: cluster.get_resource(Key("default", "nobody"))) is None


@pytest.mark.fault(Fault.CONFLICT)
def test_what_stands_already_is_left_as_it_is(plane: Plane) -> None:
    """A create whose answer was lost is a conflict and never a twin."""
    resource = plane.resource(plane.namespace())
    for manifest in (config_map(resource), training(resource)):
        performed(plane, resource, Create(manifest))
        performed(plane, resource, Create(manifest))
    jobs, _ = plane.as_operator(lambda cluster: cluster.list_all(JOBS, dict, [resource.key.namespace]))
    assert ["surtr-a1"] == [job["metadata"]["name"] for job in jobs]


def test_what_is_somebody_elses_is_not_taken_for_ours(plane: Plane) -> None:
    """Neither a stranger's object nor one of another resource of ours."""
    resource = plane.resource(plane.namespace())
    other = plane.resource(resource.key.namespace, "other")
    performed(plane, other, Create(config_map(other, "others")))
    plane.as_admin("POST", f"/api/v1/namespaces/{resource.key.namespace}/configmaps", {"metadata": {"name": "strange"}})
    for name in ("others", "strange"):
        with pytest.raises(
            NotOursError, match=f"ConfigMap {resource.key.namespace}/{name} exists and belongs to something else; delete it"
        ):
            performed(plane, resource, Create(config_map(resource, name)))


def test_a_status_is_written_whole(plane: Plane) -> None:
    """What it no longer says is taken back."""
    resource = plane.resource(plane.namespace())
    first = Status(attempt=1, observed_generation=1, progress=Progress(step=41, steps=1000, percent="4%"), job_name="surtr-a1")
    plane.as_operator(lambda cluster: cluster.write_status(resource, first))
    assert plane.read(resource.key).status == first
    second = Status(attempt=2, observed_generation=1)
    again = plane.read(resource.key)
    plane.as_operator(lambda cluster: cluster.write_status(again, second))
    assert plane.read(resource.key).status == second


def test_another_writers_status_fields_are_taken_over(plane: Plane) -> None:
    """The status is ours; somebody's kubectl edit does not stop us."""
    resource = plane.resource(plane.namespace())
    path = f"{RESOURCES.path(resource.key.namespace, 'surtr')}/status"
    body = {"apiVersion": "charalora.dev/v1alpha1", "kind": "CharacterLora", "metadata": {"name": "surtr"}, "status": {"attempt": 7}}
    plane.as_admin("PATCH", path, body, content_type=APPLY, query={"fieldManager": "somebody"})
    changed = plane.read(resource.key)
    plane.as_operator(lambda cluster: cluster.write_status(changed, Status(attempt=1)))
    assert plane.read(resource.key).status.attempt == 1


@pytest.mark.fault(Fault.CONFLICT)
def test_a_status_is_not_written_to_what_has_changed(plane: Plane) -> None:
    """Another resource that has the name by now, or the same one after an edit, is looked at first."""
    namespace = plane.namespace()
    edited, replaced = plane.resource(namespace, "edited"), plane.resource(namespace, "replaced")
    body = {"spec": {"run": {"retries": 7}}}
    plane.as_admin("PATCH", RESOURCES.path(namespace, "edited"), body, content_type=MERGE)
    plane.as_admin("DELETE", RESOURCES.path(namespace, "replaced"))
    plane.resource(namespace, "replaced")
    for old in (edited, replaced):
        with pytest.raises(ApiError, match="the object has been modified") as refused:
            plane.as_operator(partial(_attempt_three, old))
        assert refused.value.code == 409
        assert plane.read(old.key).status.attempt == 0


def test_a_namesake_is_not_deleted(plane: Plane) -> None:
    resource = plane.resource(plane.namespace())
    with pytest.raises(ApiError, match="the UID in the precondition"):
        performed(plane, resource, DeleteResource("b5e1"))
    performed(plane, resource, DeleteResource(resource.uid))
    performed(plane, resource, DeleteResource(resource.uid))
    assert plane.as_operator(lambda cluster: cluster.get_resource(resource.key)) is None


def test_a_listing_has_every_chunk(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_calls, "_CHUNK", 2)
    one, other = plane.namespace(), plane.namespace()
    made = {plane.resource(namespace, f"surtr-{number}").key for namespace in (one, other) for number in range(5)}
    bodies, version = plane.as_operator(lambda cluster: cluster.list_all(RESOURCES, dict, [one, other]))
    assert made == {Key(body["metadata"]["namespace"], body["metadata"]["name"]) for body in bodies}
    assert version >= max(int(body["metadata"]["resourceVersion"]) for body in bodies if body["metadata"]["namespace"] == one)


def test_a_refused_pod_has_the_clusters_words(plane: Plane) -> None:
    """The Job controller tells them in an Event only."""
    resource = plane.resource(plane.namespace())
    quota = {"metadata": {"name": "small"}, "spec": {"hard": {"requests.memory": "512Mi"}}}
    plane.as_admin("POST", f"/api/v1/namespaces/{resource.key.namespace}/resourcequotas", quota)
    performed(plane, resource, Create(training(resource)))
    uid = plane.job(resource.key.namespace, "surtr-a1")["metadata"]["uid"]
    words = wait_for(lambda: plane.as_operator(lambda cluster: cluster.refusal_of(resource.key.namespace, "surtr-a1", uid)))
    assert "exceeded quota: small" in words
    assert not plane.as_operator(lambda cluster: cluster.refusal_of(resource.key.namespace, "surtr-a1", "b5e1"))


def test_a_running_job_that_is_ended_lets_its_pod_save(plane: Plane) -> None:
    """It fails as at a deadline: the pod has its grace period, the Job is ENDING until the pod is gone, and then FAILED for our reason."""
    resource = plane.resource(plane.namespace())
    namespace = resource.key.namespace
    performed(plane, resource, Create(training(resource)))
    pod = plane.start(namespace, "surtr-a1")
    performed(plane, resource, EndJob("surtr-a1", Outcome.SUSPENDED))
    wait_for(lambda: job_of(plane.job(namespace, "surtr-a1")).state is JobState.ENDING)
    (going,) = plane.pods(namespace, "surtr-a1")
    assert pod_of(going).deleted is not None
    assert going["metadata"]["deletionGracePeriodSeconds"] == 30
    plane.finish(namespace, "surtr-a1", termination_message(Outcome.INTERRUPTED, "Saved."), Outcome.INTERRUPTED.exit_code or 1)
    plane.as_admin("DELETE", PODS.path(namespace, pod), {"gracePeriodSeconds": 0})
    wait_for(lambda: job_of(plane.job(namespace, "surtr-a1")).state is JobState.FAILED)
    ended = job_of(plane.job(namespace, "surtr-a1"))
    assert (ended.why[0], ended.ended_because) == ("DeadlineExceeded", "Suspended")


def test_a_job_that_never_ran_is_taken_back(plane: Plane) -> None:
    resource = plane.resource(plane.namespace())
    performed(plane, resource, Create(training(resource, suspend=True)))
    performed(plane, resource, DeleteJob("surtr-a1"))
    performed(plane, resource, DeleteJob("surtr-a1"))
    with pytest.raises(ApiError):
        plane.job(resource.key.namespace, "surtr-a1")


def test_without_kueue_a_queue_says_so(plane: Plane) -> None:
    workload = plane.as_operator(lambda cluster: cluster.workload_of("default", "b5e1"))
    assert workload is not None
    assert workload.reason == KUEUE_MISSING


def test_an_operator_takes_a_resource_through_its_check(plane: Plane, tmp_path: Path) -> None:
    """From kubectl apply to the first attempt's Job, by watches alone; what happened is told in Events, once."""
    namespace = plane.namespace()
    with operator(plane, tmp_path, [namespace]) as process:
        wait_for(lambda: process.says("Caught up with the cluster"))
        key = plane.resource(namespace).key
        check = wait_for(lambda: next((name for name in _jobs(plane, namespace) if "-check-" in name), ""))
        assert _state(plane, key) in {"Checking", "Pending"}
        plane.finish(namespace, check, termination_message(Outcome.SUCCEEDED, "24 pictures of 128 × 128.", {"dataset": DATASET}))
        wait_for(lambda: "surtr-a1" in _jobs(plane, namespace))
        wait_for(lambda: plane.read(key).status.attempt == 1)
        assert plane.read(key).status.dataset is not None
        events = plane.as_admin("GET", f"/apis/events.k8s.io/v1/namespaces/{namespace}/events")["items"]
        ours = [(event["reason"], event["note"]) for event in events if event["reportingController"] == f"charalora.dev/{names.MANAGER}"]
        assert len(ours) == len(set(ours)) > 1
        assert process.get("/healthz") == process.get("/readyz") == "ok"
        page = process.get("/metrics")
        assert "charalora_leader 1.0" in page
        assert f'charalora_attempts_total{{cause="first",namespace="{namespace}"}} 1.0' in page
        assert "charalora_reconcile_errors_total{" not in page
        process.popen.send_signal(signal.SIGTERM)
        assert process.popen.wait(15) == 0


@pytest.mark.fault(Fault.LEADER_KILLED)
def test_a_standby_takes_over_from_a_killed_leader(plane: Plane, tmp_path: Path) -> None:
    """With what happened in between; after a clean stop without waiting for the Lease to run out."""
    namespace = plane.namespace()
    with ExitStack() as stack:
        first = stack.enter_context(operator(plane, tmp_path, [namespace], "first"))
        wait_for(lambda: first.says("Caught up with the cluster"))
        second = stack.enter_context(operator(plane, tmp_path, [namespace], "second"))
        wait_for(lambda: second.says("Serving metrics and probes"))
        time.sleep(2)
        assert not second.says("This operator leads")
        assert second.get("/healthz") == second.get("/readyz") == "ok"

        first.popen.kill()
        plane.resource(namespace)
        wait_for(lambda: _jobs(plane, namespace), 120)

        third = stack.enter_context(operator(plane, tmp_path, [namespace], "third"))
        wait_for(lambda: third.says("Serving metrics and probes"))
        time.sleep(2)
        second.popen.send_signal(signal.SIGTERM)
        assert second.popen.wait(15) == 0
        wait_for(lambda: third.says("Caught up with the cluster"), 5)


def test_the_calls_are_those_that_are_permitted(plane: Plane, tmp_path: Path) -> None:
    """The API server's own record of every call of the operator's, beside the table that the chart's roles are made from."""
    namespace = plane.namespace()
    resource = plane.resource(namespace)
    service = {"apiVersion": "v1", "kind": "Service", "metadata": owned(resource, "surtr-a1"), "spec": {"clusterIP": "None"}}
    with operator(plane, tmp_path, [namespace]) as process:
        wait_for(lambda: _jobs(plane, namespace))
        for manifest in (config_map(resource), training(resource), service):
            performed(plane, resource, Create(manifest))
            performed(plane, resource, Create(manifest))
        plane.as_operator(lambda cluster: cluster.refusal_of(namespace, "surtr-a1", ""))
        plane.as_operator(lambda cluster: cluster.workload_of(namespace, "b5e1"))
        performed(plane, resource, EndJob("surtr-a1", Outcome.STALLED))
        performed(plane, resource, DeleteJob("surtr-a1"))
        performed(plane, resource, DeleteResource(resource.uid))
        process.popen.send_signal(signal.SIGTERM)
        process.popen.wait(15)
    calls = set()
    for line in plane.audit_log.read_text().splitlines():
        entry = json.loads(line)
        if entry["user"]["username"] == OPERATOR and "objectRef" in entry:
            target = entry["objectRef"]
            path = target["resource"] + (f"/{target['subresource']}" if "subresource" in target else "")
            calls.add((target.get("apiGroup", ""), path, entry["verb"]))
    assert {(one.group, one.resource, verb) for one in PERMISSIONS for verb in one.verbs} == calls


async def _attempt_three(resource: Resource, cluster: Cluster) -> None:
    await cluster.write_status(resource, Status(attempt=3))


def _jobs(plane: Plane, namespace: str) -> list[str]:
    return [job["metadata"]["name"] for job in plane.as_admin("GET", JOBS.path(namespace))["items"]]


def _state(plane: Plane, key: Key) -> str:
    conditions = plane.read(key).status.conditions
    return next((condition.reason for condition in conditions if condition.type == "Succeeded"), "Pending")
