"""The chart against a real API server with its controllers, and without nodes: what it takes, allows, keeps and removes."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import yaml

from apiserver import control_plane
from charalora_operator.permissions import PERMISSIONS
from helm import CHART, ROOT, Helm, Manifest, Render, Values

EVERYTHING: Values = {"networkPolicy": {"enabled": True, "trainers": {"namespaces": ["artists"]}}}
RESOURCE = {
    "apiVersion": "charalora.dev/v1alpha1",
    "kind": "CharacterLora",
    "metadata": {"name": "surtr", "namespace": "artists"},
    "spec": {
        "character": {"name": "surtr_arknights"},
        "dataset": {"uri": "s3://datasets/surtr/"},
        "baseModel": {"uri": "s3://models/base/"},
        "output": {"uri": "s3://loras/surtr/"},
    },
}
OPERATOR = "system:serviceaccount:ml:surtr-charalora"


class Server:
    """An API server, asked by kubectl."""

    def __init__(self, kubeconfig: Path) -> None:
        self.kubeconfig = kubeconfig
        found = subprocess.run([sys.executable, "devcluster/binaries.py", "kubectl"], cwd=ROOT, capture_output=True, text=True, check=True)
        self._kubectl = found.stdout.split()[-1]

    def kubectl(self, *arguments: str, content: Any = None) -> subprocess.CompletedProcess[str]:
        """Kubectl to its end, with objects as its input."""
        command = [self._kubectl, "--kubeconfig", str(self.kubeconfig), "--cache-dir", str(self.kubeconfig.parent / "kubectl"), *arguments]
        return subprocess.run(command, input=json.dumps(content), capture_output=True, text=True, check=False, timeout=60)

    def create(self, content: Manifest) -> Manifest:
        """The object as it stands then."""
        made = self.kubectl("create", "-o", "json", "-f", "-", content=content)
        assert made.returncode == 0, made.stderr
        return dict(json.loads(made.stdout))

    def identity(self, kind: str, name: str, namespace: str) -> str:
        """The uid of an object; empty when there is none."""
        return self.kubectl("get", kind, name, "--namespace", namespace, "-o", "jsonpath={.metadata.uid}", "--ignore-not-found").stdout

    def may(self, who: str, verb: str, what: str, namespace: str) -> bool:
        """What the API server's own authorizer says; `what` is group/resource[/subresource], and need not exist."""
        group, resource, subresource = (*what.split("/"), "")[:3]
        attributes = {"namespace": namespace, "verb": verb, "group": group, "resource": resource, "subresource": subresource}
        kind = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview"}
        return bool(self.create(kind | {"spec": {"user": who, "resourceAttributes": attributes}})["status"]["allowed"])

    def comes_to_allow(self, who: str, verb: str, what: str, namespace: str) -> bool:
        """The same a little later: the authorizer and the controllers follow what was written."""
        deadline = time.monotonic() + 20
        while not (allowed := self.may(who, verb, what, namespace)) and time.monotonic() < deadline:
            time.sleep(0.1)
        return allowed


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One for this file, with the namespaces `artists` and `studio`."""
    with control_plane(tmp_path_factory.mktemp("control-plane")) as facts:
        server = Server(Path(facts["kubeconfig"]))
        for name in ("artists", "studio"):
            server.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        yield server


@pytest.fixture
def installed(server: Server, helm: Helm) -> Iterator[Callable[..., str]]:
    """`helm upgrade --install` into namespace `ml`, and what it prints; uninstalled afterwards, with everything that is kept."""

    def install(**values: str) -> str:
        ended = helm.run(
            *("upgrade", "--install", "surtr", str(CHART), "--namespace", "ml", "--create-namespace"),
            *("--kubeconfig", str(server.kubeconfig)),
            *(word for name, value in values.items() for word in ("--set", f"{name.replace('__', '.')}={value}")),
        )
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    yield install
    for leftover in (("jobs", "--all", "--namespace", "artists"), ("crd", "characterloras.charalora.dev", "--ignore-not-found")):
        removed = server.kubectl("delete", *leftover)
        assert removed.returncode == 0, removed.stderr
    helm.run("uninstall", "surtr", "--namespace", "ml", "--ignore-not-found", "--kubeconfig", str(server.kubeconfig))


@pytest.mark.parametrize(
    "values", [{}, EVERYTHING, {"settings": {"namespaces": ["artists", "studio"]}}], ids=["default", "everything", "some"]
)
def test_the_api_server_takes_every_object(server: Server, render: Render, values: Values) -> None:
    """By a dry run that refuses unknown fields."""
    objects = [_at_hand(each) for each in render(values) if each["kind"] != "Pod"]  # pods: see below
    dry = server.kubectl(
        "create", "--dry-run=server", "--validate=strict", "-f", "-", content={"apiVersion": "v1", "kind": "List", "items": objects}
    )

    assert 0 == dry.returncode, dry.stderr
    assert len(objects) == len(dry.stdout.splitlines())


def test_the_api_server_refuses_a_wrong_field(server: Server, render: Render) -> None:
    """Else the test above would prove nothing."""
    budget = next(each for each in render({}) if each["kind"] == "PodDisruptionBudget")
    wrong = _at_hand(budget) | {"spec": budget["spec"] | {"maxUnavailible": 1}}

    assert "maxUnavailible" in server.kubectl("create", "--dry-run=server", "--validate=strict", "-f", "-", content=wrong).stderr


def test_pods_are_admitted_under_the_restricted_standard(server: Server, render: Render) -> None:
    """By the API server's own admission, which refuses the same pods without their security context."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    server.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "restricted", "labels": labels}})
    template = next(each for each in render({}) if each["kind"] == "Deployment")["spec"]["template"]
    test = next(each for each in render({}) if each["kind"] == "Pod")
    for pod in (template, test):
        spec = pod["spec"] | {"serviceAccountName": "default"}
        bare = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod", "namespace": "restricted"}}
        for _ in range(50):  # the controller manager makes the account soon after the namespace
            if server.identity("serviceaccount", "default", "restricted"):
                break
            time.sleep(0.2)

        admitted = server.kubectl("create", "--dry-run=server", "-f", "-", content=bare | {"spec": spec})
        assert (0, "") == (admitted.returncode, admitted.stderr)
        loose = spec | {"securityContext": {}}
        assert (
            'violates PodSecurity "restricted'
            in server.kubectl("create", "--dry-run=server", "-f", "-", content=bare | {"spec": loose}).stderr
        )


def test_an_upgrade_keeps_resources_and_running_trainings(server: Server, installed: Callable[..., str]) -> None:
    """Neither is made anew, nor is the Deployment, whose selector stays."""
    installed()
    resource = server.create(RESOURCE)
    job = server.create(_training(resource))
    before = [server.identity(*what) for what in (("deployment", "surtr-charalora", "ml"), ("characterlora", "surtr", "artists"))]
    installed(settings__workers="3", podLabels__team="ml", replicas="1")

    assert before == [server.identity(*what) for what in (("deployment", "surtr-charalora", "ml"), ("characterlora", "surtr", "artists"))]
    assert job["metadata"]["uid"] == server.identity("job", "surtr-a1", "artists")
    changed = json.loads(server.kubectl("get", "deployment", "surtr-charalora", "--namespace", "ml", "-o", "json").stdout)
    assert 1 == changed["spec"]["replicas"]


@pytest.mark.parametrize(("values", "where"), [({}, "default"), ({"settings__namespaces": "{artists}"}, "artists")], ids=["all", "some"])
def test_the_notes_say_what_comes_next(server: Server, installed: Callable[..., str], values: dict[str, str], where: str) -> None:
    """For this release: each command of kubectl is run, those that write by a dry run."""
    commands = [line.split() for line in installed(**values).splitlines() if line.startswith("  ")]
    test, secret, apply, get = commands

    assert ["helm", "test", "surtr", "--namespace", "ml"] == test
    assert ["kubectl", "apply", "--namespace", where, "-f", "surtr.yaml"] == apply
    for command in ([*secret[1:], "--dry-run=server"], [word for word in get[1:] if word != "--watch"]):
        ended = server.kubectl(*command)
        assert (0, where) == (ended.returncode, command[command.index("--namespace") + 1]), ended.stderr


def test_resources_outlive_the_chart(server: Server, helm: Helm, installed: Callable[..., str]) -> None:
    """Uninstalled, nothing of the operator is left; installed again, it finds the same resource."""
    installed()
    resource = server.create(RESOURCE)
    job = server.create(_training(resource))
    gone = helm.run("uninstall", "surtr", "--namespace", "ml", "--kubeconfig", str(server.kubeconfig))

    assert "characterloras.charalora.dev" in gone.stdout
    assert ["", ""] == [server.identity(kind, "surtr-charalora", "ml") for kind in ("deployment", "clusterrole")]
    installed()
    assert resource["metadata"]["uid"] == server.identity("characterlora", "surtr", "artists")
    assert job["metadata"]["uid"] == server.identity("job", "surtr-a1", "artists")


def test_the_operator_may_do_what_it_says_and_not_more(server: Server, installed: Callable[..., str]) -> None:
    """As the API server judges: everywhere, and leases at home."""
    installed()

    for permission in PERMISSIONS:
        where = "ml" if permission.own_namespace else "artists"
        assert [] == [
            verb
            for verb in permission.verbs
            if not server.comes_to_allow(OPERATOR, verb, f"{permission.group}/{permission.resource}", where)
        ], permission
    refused = {
        "/secrets": ("get", "list", "watch"),
        "/pods": ("create", "delete", "patch"),
        "/configmaps": ("list", "update", "delete"),
        "charalora.dev/characterloras": ("create", "update", "patch"),
        "coordination.k8s.io/leases": ("get", "create", "update"),
    }
    assert [] == [(verb, what) for what, verbs in refused.items() for verb in verbs if server.may(OPERATOR, verb, what, "artists")]


def test_the_operator_of_some_namespaces_may_nothing_elsewhere(server: Server, installed: Callable[..., str]) -> None:
    """Watching `artists`, it cannot even see `studio`."""
    installed(settings__namespaces="{artists}")

    assert server.comes_to_allow(OPERATOR, "watch", "charalora.dev/characterloras", "artists")
    assert [True, False] == [server.may(OPERATOR, "list", "charalora.dev/characterloras", where) for where in ("artists", "studio")]
    assert [True, False] == [server.may(OPERATOR, "create", "batch/jobs", where) for where in ("artists", "studio")]


def test_who_edits_a_namespace_may_train_there(server: Server, installed: Callable[..., str]) -> None:
    """Through the roles that Kubernetes aggregates; who views may look."""
    installed()
    for who in ("edit", "view"):
        granted = server.kubectl("create", "rolebinding", who, f"--clusterrole={who}", f"--user={who}er", "--namespace", "artists")
        assert granted.returncode == 0, granted.stderr
    assert server.comes_to_allow("viewer", "get", "charalora.dev/characterloras", "artists")
    assert server.comes_to_allow("editer", "get", "charalora.dev/characterloras", "artists")

    for verb, allowed in (("create", [True, False]), ("delete", [True, False]), ("watch", [True, True])):
        assert allowed == [server.may(who, verb, "charalora.dev/characterloras", "artists") for who in ("editer", "viewer")], verb
    assert not server.may("editer", "patch", "charalora.dev/characterloras/status", "artists")


@pytest.mark.parametrize(
    ("status", "crd", "said"),
    [
        (HTTPStatus.OK, True, "The API server knows CharacterLora; there are none yet."),
        (HTTPStatus.SERVICE_UNAVAILABLE, True, "503"),
        (HTTPStatus.OK, False, "404"),
    ],
    ids=["ready", "not ready", "no CRD"],
)
def test_the_release_test_tells_the_truth(server: Server, status: HTTPStatus, crd: bool, said: str) -> None:  # noqa: FBT001
    """What the pod of `helm test` runs, here against this API server and an operator that answers so."""
    definition = (ROOT / "crds" / "characterloras.charalora.dev.yaml").read_text()
    if crd:
        server.create(yaml.safe_load(definition))
        server.kubectl("wait", "--for=condition=Established", "crd/characterloras.charalora.dev", "--timeout=30s")
    with _operator(status) as url:
        ended = subprocess.run(
            [sys.executable, "-c", (CHART / "files" / "ready.py").read_text()],
            env={"READY_URL": url, "WATCHED": "*", "KUBECONFIG": str(server.kubeconfig)},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    server.kubectl("delete", "crd", "characterloras.charalora.dev", "--ignore-not-found")

    assert (crd and status == HTTPStatus.OK) == (ended.returncode == 0)
    assert said in ended.stdout + ended.stderr


@contextmanager
def _operator(status: HTTPStatus) -> Iterator[str]:
    """The address of something that answers every request so."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Nothing is printed."""

    with HTTPServer(("127.0.0.1", 0), Answer) as web:
        Thread(target=web.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{web.server_address[1]}/readyz"
        web.shutdown()


def _at_hand(manifest: Manifest) -> Manifest:
    """The object in a namespace that exists before the chart is installed."""
    if manifest["metadata"].get("namespace") != "ml":
        return manifest
    return manifest | {"metadata": manifest["metadata"] | {"namespace": "default"}}


def _training(owner: Manifest) -> Manifest:
    """A Job such as the operator makes for the resource; suspended, for want of nodes."""
    reference = {key: owner[key] for key in ("apiVersion", "kind")} | {key: owner["metadata"][key] for key in ("name", "uid")}
    pod = {"restartPolicy": "Never", "containers": [{"name": "trainer", "image": "trainer"}]}
    metadata = {"name": "surtr-a1", "namespace": "artists", "ownerReferences": [reference | {"controller": True}]}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": {"suspend": True, "template": {"spec": pod}}}
