"""Resources, definitions and namespaces that are not as they should be, on a real API server: one operator works through all of it."""

import copy
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from apiserver import ApiServer, Json, until
from charalora_operator import names
from charalora_spec.crd import custom_resource_definition
from charalora_spec.outcome import Outcome
from faults import Fault
from lives import CHECKED, FINISHED, SAVED, PreemptedOnce, conditions_of, finished, resource, state_of
from operators import Kept, kept_operator, settings_of
from paper_node import End, PaperNode, labels_of, paper_node
from proxies import Proxies, Proxy

DEFINITION = "characterloras.charalora.dev"
TIMES = 23


class Lives(PreemptedOnce):
    """Each resource has the life that its name says."""

    def __call__(self, pod: Json) -> End | None:
        """How this pod ends."""
        labels = labels_of(pod)
        match labels[names.RESOURCE], labels[names.COMPONENT]:
            case _, names.PREFLIGHT:
                return End(Outcome.SUCCEEDED, CHECKED)
            case "often", _:
                is_last = int(labels[names.ATTEMPT]) > TIMES
                return End(Outcome.SUCCEEDED, FINISHED) if is_last else End(Outcome.INTERRUPTED, SAVED, "PreemptionByScheduler")
            case "endless", _:
                return None
        return super().__call__(pod)


@pytest.fixture(scope="module")
def node(server: ApiServer) -> Iterator[PaperNode]:
    """Where all of it runs."""
    with paper_node(server, Lives(server)) as node:
        yield node


@pytest.fixture(scope="module")
def way(proxies: Proxies) -> Iterator[Proxy]:
    """The operator's, which counts what it asks for."""
    with proxies.proxy() as proxy:
        yield proxy


@pytest.fixture(scope="module")
def kept(server: ApiServer, node: PaperNode, way: Proxy, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kept]:
    """The operator of all namespaces."""
    assert node.failure is None
    folder = tmp_path_factory.mktemp("operator")
    server.namespace("charalora")
    settings = settings_of(lease={"name": "operator", "namespace": "charalora", "durationSeconds": 60, "renewSeconds": 2})
    with kept_operator(folder, way.kubeconfig(folder), settings) as kept:
        yield kept


def about(way: Proxy, name: str) -> int:
    """How often a resource was read or written."""
    return sum(f"/characterloras/{name}" in request for request in way.requests)


def is_well(server: ApiServer, namespace: str) -> None:
    """A training lives its whole life now."""
    server.namespace(namespace)
    server.create(resource(namespace))
    assert "Succeeded" == state_of(finished(server, namespace, seconds=300))


def define(server: ApiServer, definition: Json) -> None:
    """Another definition in the place of ours."""
    patch = {"spec": {"versions": definition["spec"]["versions"]}}
    server.change("customresourcedefinitions", "", DEFINITION, patch)


def without_rules(node: Any) -> Any:
    """A schema that takes anything of the right type."""
    if isinstance(node, dict):
        refused = {"x-kubernetes-validations", "minimum", "maximum", "pattern", "enum", "minLength", "maxLength", "minItems"}
        return {
            name: without_rules(value) for name, value in node.items() if name not in refused or not isinstance(value, int | str | list)
        }
    return [without_rules(one) for one in node] if isinstance(node, list) else node


@pytest.mark.fault(Fault.SPEC_UNREADABLE)
def test_a_resource_that_the_definition_should_have_refused_ends_for_good(server: ApiServer, kept: Kept, way: Proxy) -> None:
    """It was stored when the definition had no rules yet; the status says what is wrong, and nothing is tried again and again."""
    server.namespace("unreadable")
    define(server, without_rules(custom_resource_definition()))
    wrong = resource("unreadable", "wrong", **{"training.steps": -3})
    until("the definition without rules", lambda: server.try_create(wrong).accepted)
    define(server, custom_resource_definition())

    body = until("it to be told", lambda: _state(server, "unreadable", "wrong", "SpecInvalid"))
    time.sleep(2)  # for the last visit
    before = about(way, "wrong")
    time.sleep(12)  # longer than the pause between two complete listings
    assert about(way, "wrong") - before <= 2
    assert "training.steps" in conditions_of(body)["Succeeded"]["message"]
    assert "False" == conditions_of(body)["Succeeded"]["status"]
    assert [] == server.all_of("jobs", "unreadable")
    is_well(server, "beside-it")
    assert 0 == kept.ends


def _state(server: ApiServer, namespace: str, name: str, state: str) -> Json | None:
    body = server.get("characterloras", namespace, name)
    return body if state_of(body) == state else None


@pytest.mark.fault(Fault.DEFINITION_CHANGED)
def test_a_newer_definition_may_come_while_the_operator_runs(server: ApiServer, kept: Kept) -> None:
    """With a field that this operator has never heard of, set in a training that goes on: it stays, and so does the training."""
    server.namespace("newer")
    server.create(resource("newer", "endless"))
    until("it to run", lambda: _state(server, "newer", "endless", "Running"), seconds=120)
    newer = copy.deepcopy(custom_resource_definition())
    properties = newer["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    properties["spec"]["properties"]["future"] = {"type": "string"}
    properties["status"]["properties"]["future"] = {"type": "string"}
    define(server, newer)

    def keeps_the_field() -> bool:
        changed = server.change("characterloras", "newer", "endless", {"spec": {"future": "tense"}})
        return bool(changed["spec"].get("future") == "tense")

    until("the newer definition", keeps_the_field)
    server.change("characterloras", "newer", "endless/status", {"status": {"future": "perfect"}})
    server.change("characterloras", "newer", "endless", {"spec": {"run": {"suspend": True}}})
    body = until("it to be paused", lambda: _state(server, "newer", "endless", "Suspended"), seconds=120)
    assert ("tense", "perfect", 1) == (body["spec"]["future"], body["status"]["future"], body["status"]["attempt"])
    is_well(server, "under-newer")
    assert 0 == kept.ends


@pytest.mark.fault(Fault.NAMESPACE_DELETED)
def test_a_namespace_that_is_deleted_goes_and_the_others_notice_nothing(server: ApiServer, kept: Kept, way: Proxy) -> None:
    """In the middle of a run, with a resource that wants another attempt while everything is refused there."""
    server.namespace("leaving")
    for name in ("endless", "surtr"):
        server.create(resource("leaving", name))
    until("it to run", lambda: _state(server, "leaving", "endless", "Running"), seconds=120)
    server.delete("namespaces", "", "leaving")
    until("it to be gone", lambda: server.find("namespaces", "", "leaving") is None, seconds=120)

    time.sleep(2)  # for the last visit
    before = len(way.requests)
    is_well(server, "staying")
    assert [] == [request for request in way.requests[before:] if "/namespaces/leaving/" in request and not request.startswith("GET ")]
    assert 0 == kept.ends


@pytest.mark.fault(Fault.STATUS_LARGE)
def test_many_attempts_fit_into_a_status(server: ApiServer, kept: Kept) -> None:
    """Twenty are listed, and none of the others' costs is forgotten."""
    server.namespace("many-attempts")
    server.create(resource("many-attempts", "often", **{"run.preemptionRetries": 100}))
    body = finished(server, "many-attempts", "often", seconds=600)

    assert ("Succeeded", TIMES + 1, TIMES) == (state_of(body), body["status"]["attempt"], body["status"]["preemptions"])
    assert list(range(TIMES - 18, TIMES + 2)) == [attempt["attempt"] for attempt in body["status"]["attempts"]]
    costs = [attempt["gpuSeconds"] for attempt in body["status"]["attempts"]]
    assert sum(costs) < body["status"]["usage"]["gpuSeconds"] <= (TIMES + 1) * max(costs)
    assert len(json.dumps(body)) < 20_000
    assert 0 == kept.ends
