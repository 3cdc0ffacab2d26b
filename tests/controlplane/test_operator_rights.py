"""What the operator may do is what it does: its calls in the API server's audit log, against permissions.py and the chart's roles."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from apiserver import ApiServer, Json, api_server, until
from charalora_operator import names
from charalora_operator.permissions import PERMISSIONS
from charalora_spec.outcome import Outcome
from charalora_spec.spec import GROUP
from helm import Helm
from lives import CHECKED, PreemptedOnce, conditions_of, finished, resource, state_of
from operators import Operator, settings_of
from paper_node import End, labels_of, paper_node
from workloads import WORKLOADS

HOME, ACCOUNT = "ml", "surtr-charalora"
"""Where tests/helm.py installs the chart, and as what."""
WHO = f"system:serviceaccount:{HOME}:{ACCOUNT}"
_GRANTS = {"ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"}

Call = tuple[str, str, str]
"""API group, resource with its subresource, verb."""


@dataclass(frozen=True)
class Recorded:
    """What the audit log has of the operator.

    Attributes:
        calls: Every resource that it asked for, and how.
        forbidden: Those that it was refused for want of a right.
    """

    calls: set[Call]
    forbidden: set[Call]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """One for this file, with Kueue's Workloads and three namespaces: for trainings, without quota for pods, and the operator's."""
    with api_server(tmp_path_factory.mktemp("control-plane")) as server:
        server.define(WORKLOADS)
        for name in ("artists", "poor", HOME):
            server.namespace(name)
        quota = {"metadata": {"name": "none", "namespace": "poor"}, "spec": {"hard": {"pods": "0"}}}
        server.create({"apiVersion": "v1", "kind": "ResourceQuota", **quota})
        until("the quota to count", lambda: server.get("resourcequotas", "poor", "none").get("status", {}).get("hard"))
        yield server


@pytest.fixture(scope="module")
def kubeconfig(server: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The chart's service account, with the chart's roles and no other right."""
    folder = tmp_path_factory.mktemp("operator")
    rendered = Helm(folder).template({})
    assert rendered.returncode == 0, rendered.stderr
    grants = [one for one in yaml.safe_load_all(rendered.stdout) if one and one["kind"] in _GRANTS]
    applied = server.kubectl("apply", "-f", "-", content={"apiVersion": "v1", "kind": "List", "items": grants})
    assert applied.returncode == 0, applied.stderr
    asked = server.ask("POST", f"/api/v1/namespaces/{HOME}/serviceaccounts/{ACCOUNT}/token", {"spec": {}})
    assert asked.accepted, asked.message
    content = json.loads(server.kubeconfig.read_text())
    content["users"][0]["user"] = {"token": asked.body["status"]["token"]}
    content["contexts"][0]["context"]["namespace"] = HOME
    file = folder / "kubeconfig"
    file.write_text(json.dumps(content))
    return file


class Lives(PreemptedOnce):
    """Each resource has the life that its name says."""

    def __call__(self, pod: Json) -> End | None:
        """How this pod ends."""
        labels = labels_of(pod)
        match labels[names.RESOURCE], labels[names.COMPONENT]:
            case "wrong", _:
                return End(Outcome.DATASET_INVALID, {})
            case "paused", names.TRAINING:
                return None
            case _, names.PREFLIGHT:
                return End(Outcome.SUCCEEDED, CHECKED)
        return super().__call__(pod)


def foreign(kind: str, name: str) -> Json:
    """Somebody else's object under a name that the operator needs."""
    metadata = {"name": name, "namespace": "artists"}
    if kind == "Service":
        return {"apiVersion": "v1", "kind": kind, "metadata": metadata, "spec": {"clusterIP": "None"}}
    pod = {"restartPolicy": "Never", "containers": [{"name": "a", "image": "a"}]}
    return {"apiVersion": "batch/v1", "kind": kind, "metadata": metadata, "spec": {"suspend": True, "template": {"spec": pod}}}


def live(server: ApiServer, operator: Operator) -> None:
    """Everything that can happen to trainings."""

    def state(name: str, wanted: str, namespace: str = "artists") -> Any:
        return until(f"{name} to be {wanted}", lambda: state_of(server.get("characterloras", namespace, name)) == wanted, pause=0.3)

    for kind in ("Service", "Job"):
        server.create(foreign(kind, f"taken-{kind.lower()}-a1"))
    for name, overrides in _RESOURCES.items():
        server.create(resource("artists", name, **overrides))
    server.create(resource("poor", "quota"))

    state("queued", "Queued")
    server.change("characterloras", "artists", "queued", {"spec": {"run": {"suspend": True}}})
    state("queued", "Suspended")
    state("paused", "Running")
    server.change("characterloras", "artists", "paused", {"spec": {"run": {"suspend": True}}})
    state("paused", "Suspended")
    state("forbidden", "SpecInvalid")
    state("wrong", "DatasetInvalid")
    state("quota", "QuotaExceeded", "poor")
    for kind in ("Service", "Job"):
        name = f"taken-{kind.lower()}"
        obstacle = f"{kind} artists/{name}-a1 exists and belongs to something else"
        until(f"the operator to meet {name}", partial(_is_in, operator.log, obstacle))
        server.delete(f"{kind.lower()}s", "artists", f"{name}-a1")
        finished(server, "artists", name)
    until("the finished resource to be deleted", lambda: server.find("characterloras", "artists", "brief") is None)
    assert "Succeeded" == state_of(finished(server, "artists", "taken-job"))
    assert conditions_of(server.get("characterloras", "artists", "queued"))["Admitted"]["status"] != "True"


def _is_in(log: Path, words: str) -> bool:
    return words in log.read_text()


_RESOURCES: dict[str, dict[str, Any]] = {
    "brief": {"run.ttlSecondsAfterFinished": 0},
    "paused": {},
    "queued": {"scheduling.queueName": "team"},
    "forbidden": {"scheduling.serviceAccountName": "admin"},
    "wrong": {},
    "taken-service": {},
    "taken-job": {},
}


def recorded(audit_log: Path) -> Recorded:
    """What the operator asked the API server for."""
    calls, forbidden = set(), set()
    for line in audit_log.read_text().splitlines():
        entry = json.loads(line)
        asked = entry.get("objectRef")
        if entry["user"]["username"] != WHO or asked is None:  # without an object: the versions that the server has
            continue
        subresource = f"/{asked['subresource']}" if "subresource" in asked else ""
        call = (asked.get("apiGroup", ""), asked["resource"] + subresource, entry["verb"])
        calls.add(call)
        if entry.get("responseStatus", {}).get("code") == 403:
            forbidden.add(call)
    return Recorded(calls, forbidden)


@pytest.fixture(scope="module")
def record(server: ApiServer, kubeconfig: Path, tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    """What it did in all those lives."""
    with paper_node(server, Lives(server)):
        operator = Operator(tmp_path_factory.mktemp("log"), kubeconfig, settings_of())
        try:
            live(server, operator)
            operator.stop()
        finally:
            operator.kill()
    return recorded(server.audit_log)


def test_every_right_is_used_and_none_is_missing(record: Recorded) -> None:
    """The table of permissions, which the chart's roles are made from, is the list of what the operator does."""
    granted = {(one.group, one.resource, verb) for one in PERMISSIONS for verb in one.verbs}

    assert set() == record.forbidden
    assert sorted(granted) == sorted(record.calls)


def test_no_secret_is_ever_touched_and_no_pod_made(record: Recorded) -> None:
    """Nor anything written of a user's but the status, and a deletion that the user asked for."""
    assert [] == [call for call in record.calls if call[1].startswith("secrets")]
    assert {"list", "watch"} == {verb for _, what, verb in record.calls if what == "pods"}
    assert {"get", "list", "watch", "delete"} == {verb for group, what, verb in record.calls if (group, what) == (GROUP, "characterloras")}
