"""Someone who may only create CharacterLoras, on a real API server: what becomes of what they ask for beyond that."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from apiserver import ApiServer, Json, api_server, path_of, until
from charalora_operator import names
from charalora_spec.outcome import Outcome
from faults import Fault
from lives import CHECKED, conditions_of, resource, state_of
from operators import Operator, settings_of
from paper_node import End, labels_of, paper_node

HOME = "artists"
EVIL = '$(AWS_SECRET_ACCESS_KEY) "; touch /work/pwned; #\n${HOME} {{ .Values }} `id` <script> \u202e\x7f'
BEYOND: dict[str, Any] = {
    "image": "evil/trainer:1",
    "hostNetwork": True,
    "volumes": [{"name": "root", "hostPath": {"path": "/"}}],
    "securityContext": {"privileged": True},
    "runtimeClassName": "evil",
    "command": ["sh", "-c", "id"],
    "env": [{"name": "LD_PRELOAD", "value": "/work/evil.so"}],
    "template": {"spec": {"automountServiceAccountToken": True}},
}
"""What a pod has and a CharacterLora has not."""
FLOOD = 60


def checked(pod: Json) -> End | None:
    """Every check passes, and no training ends."""
    return End(Outcome.SUCCEEDED, CHECKED) if labels_of(pod)[names.COMPONENT] == names.PREFLIGHT else None


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """One for this file, with an operator at work and pods on a paper node; asked as the administrator."""
    folder = tmp_path_factory.mktemp("control-plane")
    with api_server(folder) as server:
        for name in (HOME, "crowd"):
            server.namespace(name)
        with paper_node(server, checked):
            lease = {"durationSeconds": 120, "renewSeconds": 5}  # nobody is waiting to take over, and the machine may be busy
            operator = Operator(folder, server.kubeconfig, settings_of(lease=lease))
            try:
                yield server
            finally:
                operator.kill()


@pytest.fixture(scope="module")
def artist(server: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """The same server, asked as a service account that may create CharacterLoras and see them, and nothing else."""
    rights = [{"apiGroups": ["charalora.dev"], "resources": ["characterloras"], "verbs": ["create", "get"]}]
    subject = {"kind": "ServiceAccount", "name": "artist", "namespace": HOME}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "artist"}
    rbac = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{HOME}"
    for path, body in (
        (path_of("serviceaccounts", HOME), {}),
        (f"{rbac}/roles", {"rules": rights}),
        (f"{rbac}/rolebindings", {"roleRef": role, "subjects": [subject]}),
    ):
        made = server.ask("POST", path, {"metadata": {"name": "artist"}, **body})
        assert made.accepted, made.message
    token = server.ask("POST", f"{path_of('serviceaccounts', HOME, 'artist')}/token", {"spec": {}}).body["status"]["token"]
    content = json.loads(server.kubeconfig.read_text())
    content["users"][0]["user"] = {"token": token}
    file = Path(tmp_path_factory.mktemp("artist"), "kubeconfig")
    file.write_text(json.dumps(content))
    asking = ApiServer(file, server.audit_log)
    yield asking
    asking.close()


def pods_of_training(server: ApiServer, name: str) -> Json:
    """The pod template of a resource's first attempt, once the operator has made it."""
    job = until(f"the training of {name}", lambda: server.find("jobs", HOME, f"{name}-a1"), pause=0.3, seconds=180)
    template: Json = job["spec"]["template"]["spec"]
    return template


def renamed(template: Json, name: str) -> str:
    """A pod template without what it is called after."""
    return json.dumps(template, sort_keys=True).replace(name, "NAME")


@pytest.mark.fault(Fault.MORE_THAN_ALLOWED)
def test_the_right_to_create_is_no_other_right(artist: ApiServer) -> None:
    """Pods, Jobs, Secrets and statuses stay out of reach; so does a status that is given at creation."""
    pod = {"metadata": {"name": "mine"}, "spec": {"containers": [{"name": "a", "image": "a"}]}}
    asked = resource(HOME, "plain") | {"status": {"attempt": 7, "conditions": []}}

    made = artist.ask("POST", path_of("characterloras", HOME), asked)

    assert made.accepted, made.message
    assert 403 == artist.ask("POST", path_of("pods", HOME), pod).code
    assert 403 == artist.ask("GET", path_of("secrets", HOME, "s3-credentials")).code
    assert 403 == artist.ask("GET", path_of("configmaps", HOME)).code
    patch = {"status": {"attempt": 7}}
    assert (
        403 == artist.ask("PATCH", path_of("characterloras", HOME, "plain/status"), patch, content_type="application/merge-patch+json").code
    )
    assert 7 != artist.get("characterloras", HOME, "plain").get("status", {}).get("attempt")


@pytest.mark.fault(Fault.MORE_THAN_ALLOWED)
def test_what_a_pod_has_and_a_resource_has_not_reaches_no_pod(server: ApiServer, artist: ApiServer) -> None:
    """Asked strictly it is refused by name; asked carelessly it is dropped, and the pods are those of a resource without it."""
    honest, evil = resource(HOME, "honest"), resource(HOME, "greedy")
    for part in ("character", "scheduling", "resources", "storage", "cache", "training"):
        evil["spec"].setdefault(part, {}).update(BEYOND)
    evil["spec"] |= BEYOND

    refused = artist.try_create(evil)
    careless = artist.ask("POST", path_of("characterloras", HOME), evil, fieldValidation="Ignore")
    artist.create(honest)

    assert 'unknown field "spec.hostNetwork"' in refused.message
    assert careless.accepted, careless.message
    expected, found = pods_of_training(server, "honest"), pods_of_training(server, "greedy")
    digests = {"run": expected["volumes"][0]["configMap"].pop("name"), "other": found["volumes"][0]["configMap"].pop("name")}
    assert digests["run"].startswith("honest-run-")
    assert digests["other"].startswith("greedy-run-")
    assert renamed(expected, "honest").replace(server.get("characterloras", HOME, "honest")["metadata"]["uid"], "UID") == renamed(
        found, "greedy"
    ).replace(server.get("characterloras", HOME, "greedy")["metadata"]["uid"], "UID")
    assert {"charalora/trainer:1"} == {container["image"] for container in found["containers"]}
    assert not [volume for volume in found["volumes"] if "hostPath" in volume]
    assert found["automountServiceAccountToken"] is False


@pytest.mark.fault(Fault.MORE_THAN_ALLOWED)
def test_of_a_secret_keys_of_fixed_names_reach_the_pod_and_nothing_else(server: ApiServer, artist: ApiServer) -> None:
    """A password of another program is under none of these names, and the token of an account is not mounted beside its ca.crt."""
    storage = {"storage.secretName": "database", "storage.caSecretName": "somebodys-token"}
    artist.create(resource(HOME, "curious", **storage))

    found = pods_of_training(server, "curious")
    (container,) = found["containers"]
    references = [(variable["name"], variable["valueFrom"]["secretKeyRef"]) for variable in container["env"] if "valueFrom" in variable]
    secrets = [volume["secret"] for volume in found["volumes"] if "secret" in volume]

    assert "envFrom" not in container
    assert {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL"} == {
        reference["key"] for _, reference in references if reference["name"] == "database"
    }
    assert {"ca.crt"} == {reference["key"] for _, reference in references if reference["name"] == "somebodys-token"}
    assert [["ca.crt"]] == [[item["key"] for item in secret["items"]] for secret in secrets]


@pytest.mark.fault(Fault.MORE_THAN_ALLOWED)
@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("strong", {"scheduling.serviceAccountName": "cluster-admin"}),
        ("urgent", {"scheduling.priorityClassName": "system-node-critical"}),
        ("rooted", {"cache.node": True}),
        ("local", {"dataset.uri": "file:///etc/"}),
        ("reader", {"baseModel.uri": "file:///var/run/secrets/a"}),
    ],
)
def test_what_the_administrator_did_not_allow_is_refused_before_anything_is_made(
    server: ApiServer, artist: ApiServer, name: str, fields: dict[str, Any]
) -> None:
    """The state says SpecInvalid and what is allowed; there is no Job."""
    artist.create(resource(HOME, name, **fields))

    found = until(f"{name} to be refused", lambda: judged(server, name), pause=0.3)

    assert "SpecInvalid" == state_of(found)
    assert next(iter(fields)).rpartition(".")[2] in conditions_of(found)["Succeeded"]["message"]
    assert [] == server.all_of("jobs", HOME, labelSelector=f"{names.RESOURCE}={name}")


def judged(server: ApiServer, name: str) -> Json | None:
    """A resource that has a state."""
    body = server.get("characterloras", HOME, name)
    return body if state_of(body) else None


@pytest.mark.fault(Fault.HOSTILE_TEXT)
def test_texts_reach_the_pods_as_data_and_nowhere_else(server: ApiServer, artist: ApiServer) -> None:
    """Kubernetes expands `$(…)` in arguments and variables: no text of a user's is in one, and the file holds it letter by letter."""
    texts = {"character.class": EVIL, "character.initText": EVIL, "preview.prompts": [EVIL], "preview.negativePrompt": EVIL}
    artist.create(resource(HOME, "loud", **texts))

    pods = pods_of_training(server, "loud")
    content = server.get("configmaps", HOME, pods["volumes"][0]["configMap"]["name"])["data"]["run.json"]
    spec = json.loads(content)["spec"]

    assert "pwned" not in json.dumps(server.all_of("jobs", HOME))
    assert "command" not in pods["containers"][0]
    assert EVIL == spec["preview"]["prompts"][0] == spec["preview"]["negativePrompt"] == spec["character"]["class"]
    for field, value in (
        ("storage.region", "$(AWS_SECRET_ACCESS_KEY)"),
        ("character.name", "../../a"),
        ("storage.endpoint", "http://a\nb"),
    ):
        assert field.rpartition(".")[2] in artist.try_create(resource(HOME, "refused", **{field: value})).message


@pytest.mark.fault(Fault.FLOOD)
def test_a_crowd_keeps_nobody_waiting_and_a_quota_holds_it_back(server: ApiServer) -> None:
    """Sixty resources at once, and one of somebody else's; then no more of them than the administrator wants in that namespace."""
    for number in range(FLOOD):
        server.create(resource("crowd", f"one-{number}"))
    server.create(resource(HOME, "late"))

    assert pods_of_training(server, "late")

    limit = {"count/characterloras.charalora.dev": str(FLOOD)}
    server.create({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "few", "namespace": "crowd"}, "spec": {"hard": limit}})
    until("the quota to count them all", lambda: server.get("resourcequotas", "crowd", "few").get("status", {}).get("used") == limit)
    refused = "exceeded quota: few"  # the API server may hear of the quota after us: until then nothing is really asked for
    until("the quota to hold", lambda: refused in server.try_create(resource("crowd", "one-more"), dryRun="All").message)

    assert refused in server.try_create(resource("crowd", "one-more")).message
