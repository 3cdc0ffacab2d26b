"""A real API server with its controllers and without nodes, for tests: started once, asked over HTTP, ended with the block."""

import json
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from charalora_spec.crd import custom_resource_definition

ROOT = Path(__file__).resolve().parents[1]
Json = dict[str, Any]

MERGE = "application/merge-patch+json"
_CORE = {"configmaps", "events", "namespaces", "nodes", "pods", "resourcequotas", "secrets", "serviceaccounts", "services"}
_GROUPS = {
    "characterloras": "charalora.dev/v1alpha1",
    "clusterroles": "rbac.authorization.k8s.io/v1",
    "customresourcedefinitions": "apiextensions.k8s.io/v1",
    "jobs": "batch/v1",
    "leases": "coordination.k8s.io/v1",
    "workloads": "kueue.x-k8s.io/v1beta1",
}
_PLURALS = {
    "ClusterRole": "clusterroles",
    "CustomResourceDefinition": "customresourcedefinitions",
    "CharacterLora": "characterloras",
    "Job": "jobs",
    "ConfigMap": "configmaps",
    "Lease": "leases",
    "Namespace": "namespaces",
    "Node": "nodes",
    "ResourceQuota": "resourcequotas",
    "Service": "services",
    "Workload": "workloads",
}


@dataclass(frozen=True)
class Answer:
    """What the API server said.

    Attributes:
        code: Of HTTP.
        body: The object, or the Status that says why there is none.
    """

    code: int
    body: Json

    @property
    def accepted(self) -> bool:
        """Whether it did what it was asked."""
        return self.code < 300

    @property
    def message(self) -> str:
        """Why it did not."""
        return str(self.body.get("message", ""))


class ApiServer:
    """The API server, asked as its administrator."""

    def __init__(self, kubeconfig: Path, audit_log: Path) -> None:
        self.kubeconfig = kubeconfig
        self.audit_log = audit_log
        content = json.loads(kubeconfig.read_text())
        cluster = content["clusters"][0]["cluster"]
        self.url: str = cluster["server"]
        self.authority = Path(cluster["certificate-authority"])
        self.token: str = content["users"][0]["user"]["token"]
        self._client = httpx2.Client(
            base_url=self.url,
            headers={"Authorization": f"Bearer {self.token}"},
            verify=ssl.create_default_context(cafile=str(self.authority)),
            timeout=60,
            trust_env=False,
        )

    def ask(self, verb: str, path: str, body: Any = None, *, content_type: str = "application/json", **query: str) -> Answer:
        """One request."""
        content = None if body is None else json.dumps(body, ensure_ascii=True).encode()
        answer = self._client.request(verb, path, content=content, headers={"Content-Type": content_type}, params=query)
        return Answer(answer.status_code, answer.json())

    def try_create(self, manifest: Json, **query: str) -> Answer:
        """Make an object, and see what is said of it; `dryRun="All"` makes none."""
        namespace = manifest["metadata"].get("namespace", "")
        return self.ask("POST", path_of(_PLURALS[manifest["kind"]], namespace), manifest, fieldValidation="Strict", **query)

    def create(self, manifest: Json) -> Json:
        """The object as it stands then."""
        answer = self.try_create(manifest)
        assert answer.accepted, answer.message
        return answer.body

    def find(self, plural: str, namespace: str, name: str) -> Json | None:
        """An object; None when there is none."""
        answer = self.ask("GET", path_of(plural, namespace, name))
        assert answer.accepted or answer.code == 404, answer.message
        return answer.body if answer.accepted else None

    def get(self, plural: str, namespace: str, name: str) -> Json:
        """An object that must be there."""
        found = self.find(plural, namespace, name)
        assert found is not None, f"There is no {name} among the {plural} of {namespace}."
        return found

    def all_of(self, plural: str, namespace: str = "", **query: str) -> list[Json]:
        """Every object of a kind, in a namespace or everywhere."""
        answer = self.ask("GET", path_of(plural, namespace), **query)
        assert answer.accepted, answer.message
        return list(answer.body["items"])

    def change(self, plural: str, namespace: str, name: str, patch: Json) -> Json:
        """Merge something into an object; `name` may end with a subresource."""
        answer = self.ask("PATCH", path_of(plural, namespace, name), patch, content_type=MERGE)
        assert answer.accepted, answer.message
        return answer.body

    def delete(self, plural: str, namespace: str, name: str) -> None:
        """Delete an object that must be there."""
        answer = self.ask("DELETE", path_of(plural, namespace, name), propagationPolicy="Background")
        assert answer.accepted, answer.message

    def namespace(self, name: str) -> None:
        """A namespace in which pods can be made: its default account is there."""
        self.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        until(f"the default service account of namespace {name}", lambda: self.find("serviceaccounts", name, "default"))

    def define(self, definition: Json) -> None:
        """A CustomResourceDefinition, ready for use."""
        name = self.create(definition)["metadata"]["name"]
        until(f"definition {name} to be established", lambda: "Established" in self._holding(name))
        version, plural = definition["spec"]["versions"][0]["name"], definition["spec"]["names"]["plural"]
        until(f"{plural} to be served", lambda: self.ask("GET", f"/apis/{definition['spec']['group']}/{version}/{plural}").accepted)

    def kubectl(self, *arguments: str, content: Any = None) -> subprocess.CompletedProcess[str]:
        """Kubectl to its end, with objects as its input."""
        command = [_kubectl(), "--kubeconfig", str(self.kubeconfig), "--cache-dir", str(self.kubeconfig.parent / "kubectl"), *arguments]
        return subprocess.run(command, input=json.dumps(content), capture_output=True, text=True, check=False, timeout=120)

    def close(self) -> None:
        """Let the connections go."""
        self._client.close()

    def _holding(self, definition: str) -> set[str]:
        conditions = self.get("customresourcedefinitions", "", definition).get("status", {}).get("conditions") or []
        return {condition["type"] for condition in conditions if condition["status"] == "True"}


def path_of(plural: str, namespace: str = "", name: str = "") -> str:
    """Where objects of a kind are."""
    root = "/api/v1" if plural in _CORE else f"/apis/{_GROUPS[plural]}"
    return "/".join([root, *(["namespaces", namespace] if namespace else []), plural, *([name] if name else [])])


def until(what: str, happens: Callable[[], Any], seconds: float = 60, pause: float = 0.1) -> Any:
    """What `happens` returns, once that is anything."""
    limit = time.monotonic() + seconds
    while not (found := happens()):
        assert time.monotonic() < limit, f"Waited {seconds:.0f} s for {what}."
        time.sleep(pause)
    return found


def owner_of(body: Mapping[str, Any]) -> str:
    """The uid of the object that controls this one."""
    return next((str(owner["uid"]) for owner in body["metadata"].get("ownerReferences", []) if owner.get("controller")), "")


@contextmanager
def control_plane(folder: Path) -> Iterator[Json]:
    """An API server with the controller manager and nothing else in it; where its `kubeconfig` and its `auditLog` lie."""
    command = [sys.executable, "devcluster/cluster.py", "control-plane", str(folder), "--controllers"]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout
        assert process.stderr
        line = process.stdout.readline()
        assert line, f"There is no API server to test with: {process.stderr.read()}"
        try:
            yield json.loads(line)
        finally:
            process.stdin.close()  # ends it


@contextmanager
def api_server(folder: Path, *, definition: bool = True) -> Iterator[ApiServer]:
    """The same, asked over HTTP, and with our CRD unless that is not wanted."""
    with control_plane(folder) as facts:
        server = ApiServer(Path(facts["kubeconfig"]), Path(facts["auditLog"]))
        try:
            if definition:
                server.define(custom_resource_definition())
            yield server
        finally:
            server.close()


def _kubectl() -> str:
    found = subprocess.run([sys.executable, "devcluster/binaries.py", "kubectl"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert found.returncode == 0, f"There is no kubectl to test with: {found.stdout}{found.stderr}"
    return found.stdout.split()[-1]
