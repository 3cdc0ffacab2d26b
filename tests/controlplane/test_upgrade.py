"""Operators and definitions of two versions, one after the other, while a training runs: a real API server, and a node of paper."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from apiserver import MERGE, ApiServer, Json, path_of, until
from charalora_operator import names
from charalora_spec.crd import custom_resource_definition
from charalora_spec.outcome import Outcome
from faults import Fault
from lives import CHECKED, FINISHED, conditions_of, finished, resource, state_of
from operators import Operator, settings_of
from paper_node import End, labels_of, paper_node

CRD = "characterloras.charalora.dev"
LATER = {"type": "boolean", "description": "A field of a later version."}


def newer() -> Json:
    """A later version's definition: one more field of the user's, one more of the operator's."""
    definition = copy.deepcopy(custom_resource_definition())
    schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    schema["spec"]["properties"]["run"]["properties"]["annealing"] = LATER
    schema["status"]["properties"]["annealed"] = LATER
    return definition


def define(server: ApiServer, definition: Json) -> None:
    """Bring the definition up or down, and wait until it is served."""
    server.change("customresourcedefinitions", "", CRD, {"spec": {"versions": definition["spec"]["versions"]}})
    later = "annealing" in str(definition)

    def is_served() -> bool:
        probe = resource("default", "probe", **{"resources.nodes": 1})
        probe["spec"].setdefault("run", {})["annealing"] = True
        return server.try_create(probe, dryRun="All").accepted is later

    until("the definition to be served", is_served)


@contextmanager
def operator(server: ApiServer, folder: Path, namespace: str, name: str) -> Iterator[Operator]:
    """The operator of this version, until the block ends."""
    lease = {"name": "operator", "namespace": namespace, "durationSeconds": 5, "renewSeconds": 1}
    running = Operator(folder, server.kubeconfig, settings_of(namespace, lease=lease), name)
    try:
        yield running
        assert running.runs, running.log.read_text()[-3000:]
        running.stop()
    finally:
        running.kill()


def asks_for_it(server: ApiServer, namespace: str, *, wanted: bool | None) -> None:
    """What a user writes who knows the later version."""
    server.change("characterloras", namespace, "surtr", {"spec": {"run": {"annealing": wanted}}})


def story_of(server: ApiServer, namespace: str) -> tuple[str, str]:
    """The STATE column, and what the condition Training says."""
    body = server.get("characterloras", namespace, "surtr")
    return state_of(body), str(conditions_of(body).get("Training", {}).get("message", ""))


@pytest.mark.fault(Fault.NEWER_FIELD)
def test_a_training_survives_an_operator_and_a_definition_that_go_forth_and_back(server: ApiServer, tmp_path: Path) -> None:
    """The field stays as long as the definition knows it, whatever an older operator writes; one attempt is all there ever was."""
    namespace = "rolled-back"
    server.namespace(namespace)
    may_end: list[bool] = []

    def script(pod: Json) -> End | None:
        if labels_of(pod)[names.COMPONENT] == names.PREFLIGHT:
            return End(Outcome.SUCCEEDED, CHECKED)
        return End(Outcome.SUCCEEDED, FINISHED) if may_end else None

    with paper_node(server, script):
        with operator(server, tmp_path, namespace, "first"):
            server.create(resource(namespace))
            until("the training to run", lambda: story_of(server, namespace)[0] == "Running")
            define(server, newer())
            asks_for_it(server, namespace, wanted=True)
            until("a warning", lambda: "spec.run.annealing: is not a field" in story_of(server, namespace)[1])
        with operator(server, tmp_path, namespace, "second"):
            found = server.get("characterloras", namespace, "surtr")
            assert ("Running", True) == (state_of(found), found["spec"]["run"]["annealing"])
            later = server.ask(
                "PATCH",
                path_of("characterloras", namespace, "surtr/status"),
                {"status": {"annealed": True}},
                content_type=MERGE,
                fieldManager="a-later-operator",
            )
            assert later.accepted, later.message
            server.change("characterloras", namespace, "surtr", {"spec": {"run": {"retries": 4}}})
            until("the operator's next word", lambda: _generation(server, namespace) >= 3)
            found = server.get("characterloras", namespace, "surtr")
            assert (True, True) == (found["spec"]["run"]["annealing"], found["status"]["annealed"])

            define(server, custom_resource_definition())
            server.change("characterloras", namespace, "surtr", {"spec": {"run": {"retries": 5}}})
            until("no warning", lambda: story_of(server, namespace)[1] == "Attempt 1 runs.")
            assert "annealing" not in server.get("characterloras", namespace, "surtr")["spec"]["run"]
            may_end.append(True)
            status = finished(server, namespace)["status"]

    assert ("Succeeded", 1) == (next(one["reason"] for one in status["conditions"] if one["type"] == "Succeeded"), status["attempt"])
    assert 2 == len(server.all_of("jobs", namespace))


@pytest.mark.fault(Fault.NEWER_FIELD)
def test_a_field_that_is_not_known_is_told_and_nothing_is_begun_until_it_is(server: ApiServer, tmp_path: Path) -> None:
    namespace = "from-the-future"
    server.namespace(namespace)
    define(server, newer())
    wire = resource(namespace)
    wire["spec"].setdefault("run", {})["annealing"] = True
    with paper_node(server, lambda _: None), operator(server, tmp_path, namespace, "older"):
        server.create(wire)
        until("the refusal", lambda: story_of(server, namespace)[0] == "SpecInvalid")
        found = server.get("characterloras", namespace, "surtr")
        assert "spec.run.annealing: is not a field" in conditions_of(found)["Succeeded"]["message"]
        assert found["spec"]["run"]["annealing"] is True
        assert [] == server.all_of("jobs", namespace)

        asks_for_it(server, namespace, wanted=None)
        until("the check", lambda: story_of(server, namespace)[0] == "Checking")
        assert "completionTime" not in server.get("characterloras", namespace, "surtr")["status"]


def _generation(server: ApiServer, namespace: str) -> int:
    return int(server.get("characterloras", namespace, "surtr").get("status", {}).get("observedGeneration", 0))
