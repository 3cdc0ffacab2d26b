"""An operator and a trainer of two versions, and resources of a third: what is understood, and what is said of the rest."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import Field

from builders import character_lora, character_lora_wire
from charalora_operator.document import run_digest, run_document
from charalora_operator.endings import end_of
from charalora_operator.model import Ending, JobState
from charalora_operator.parse import resource_of
from charalora_spec.outcome import Outcome
from charalora_spec.software import OPERATOR_VERSION, VERSION
from charalora_spec.spec import CharacterLora, CharacterLoraSpec, Storage, Training
from charalora_spec.status import Condition
from charalora_trainer.__main__ import TERMINATION_LOG, main
from charalora_trainer.ownership import OWNER, claim, identity_of
from charalora_trainer.runfile import load
from charalora_trainer.storage import open_store
from faults import Fault
from operator_world import World, after, told


class NewerTraining(Training):
    """What a later version trains by."""

    annealing: bool = Field(default=False, description="A field that this version does not have.")


class NewerSpec(CharacterLoraSpec):
    """What may be asked of a later version."""

    training: NewerTraining = Field(NewerTraining(), description="How it is trained.")


class Newer(CharacterLora):
    """A later version's resource."""

    spec: NewerSpec = Field(description="What is asked for.")


def newer(**overrides: Any) -> Newer:
    """A resource as a later version reads it."""
    return Newer.model_validate(character_lora_wire(**overrides))


def stored(**training: Any) -> dict[str, Any]:
    """A resource as the API server has it."""
    wire = character_lora_wire()
    wire["metadata"] |= {"namespace": "artists", "uid": "uid-1", "creationTimestamp": "2026-06-01T12:00:00Z", "resourceVersion": "9"}
    wire["spec"].setdefault("training", {}).update(training)
    return wire


def test_a_field_that_nobody_uses_makes_no_other_training_of_it() -> None:
    """Else every resource would be checked again after an upgrade, what had failed for good would start, and no state could be resumed."""
    assert run_digest(character_lora()) == run_digest(newer())
    assert identity_of(character_lora(), 4) == identity_of(newer(), 4)


def test_a_field_that_is_used_makes_another_training_of_it() -> None:
    used = newer(**{"training.annealing": True})

    assert run_digest(newer()) != run_digest(used)
    assert identity_of(newer(), 4) != identity_of(used, 4)


def test_the_rest_of_a_newer_resource_is_read() -> None:
    read = resource_of(stored(annealing=True, steps=500))

    assert read.run is not None
    assert 500 == read.run.spec.training.steps
    assert "spec.training.annealing: is not a field" in read.problem
    assert f"this operator has version {VERSION}" in read.problem


def test_a_newer_resource_with_a_mistake_is_not_read() -> None:
    assert resource_of(stored(annealing=True, steps=-1)).run is None


@pytest.mark.fault(Fault.NEWER_FIELD)
def test_nothing_is_begun_of_which_a_part_would_be_left_out() -> None:
    world = World(problem="spec.training.annealing: is not a field")
    world.look()

    assert ("SpecInvalid", {}) == (world.state, world.made)
    assert "spec.training.annealing" in world.condition(Condition.SUCCEEDED).message

    world.problem = ""  # the operator is a newer one again
    world.look()
    assert "Checking" == world.state


@pytest.mark.fault(Fault.NEWER_FIELD)
def test_what_runs_already_runs_on_and_says_that_nothing_will_follow() -> None:
    """The operator was rolled back in mid-run: the attempt was started by one that knew the field."""
    world = World()
    job = world.train()
    world.problem = "spec.training.annealing: is not a field"
    world.look()

    assert ("Running", ()) == (world.state, world.plan().actions)
    assert "spec.training.annealing: is not a field" in world.condition(Condition.TRAINING).message

    world.fail(job, Outcome.INTERRUPTED)
    assert "SpecInvalid" == world.state
    assert "surtr-a2" not in world.jobs


def test_what_runs_already_may_succeed() -> None:
    world = World()
    job = world.train()
    world.problem = "spec.training.annealing: is not a field"
    world.succeed(job)

    assert "Succeeded" == world.state


@pytest.fixture
def from_another(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The termination log of a pod that an operator of another version made."""
    monkeypatch.setenv(OPERATOR_VERSION, "9.9.9")
    monkeypatch.setenv(TERMINATION_LOG, str(tmp_path / "termination"))
    return tmp_path / "termination"


@pytest.mark.fault(Fault.VERSIONS_DIFFER)
@pytest.mark.parametrize("command", ["check", "run"])
def test_an_older_trainer_refuses_what_a_newer_operator_asks(from_another: Path, tmp_path: Path, command: str) -> None:
    """Training without a part of what was asked would be a lie; the message names the field and both versions."""
    file = tmp_path / "run.json"
    file.write_text(run_document(newer(**{"training.annealing": True})))

    assert Outcome.SPEC_INVALID.exit_code == main([command, str(file)])
    said = json.loads(from_another.read_text())
    assert "SpecInvalid" == said["reason"]
    assert "spec.training.annealing: is not a field" in said["message"]
    assert f"This image has version {VERSION} and the operator that started it 9.9.9" in said["message"]


@pytest.mark.fault(Fault.VERSIONS_DIFFER)
def test_an_older_trainer_refuses_a_command_line_that_it_does_not_know(from_another: Path) -> None:
    """A retry could not help, so it is no internal error."""
    assert Outcome.SPEC_INVALID.exit_code == main(["run", "--telepathy"])
    assert "9.9.9" in json.loads(from_another.read_text())["message"]


def test_a_mistake_of_ones_own_is_no_matter_of_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(OPERATOR_VERSION, VERSION)

    assert 2 == main(["run", "--telepathy"])


@pytest.mark.fault(Fault.VERSIONS_DIFFER)
def test_a_newer_trainer_takes_an_older_operators_document(tmp_path: Path) -> None:
    """What it lacks has its default."""
    document = json.loads(run_document(character_lora()))
    del document["spec"]["training"]["optimizer"]
    file = tmp_path / "run.json"
    file.write_text(json.dumps(document))

    assert character_lora().spec.training.optimizer == load(file).spec.training.optimizer


@pytest.mark.fault(Fault.VERSIONS_DIFFER)
def test_a_newer_trainers_last_words_are_passed_on() -> None:
    """A reason that is not known counts as a failure, in its own words."""
    world = World()
    job = world.train()
    said = json.dumps({"reason": "CosmicRays", "message": "A bit flipped.", "savedStep": 40, "moons": 2})
    pod = replace(world.pods[f"{job}-0"], phase="Failed", ending=Ending(90, "Error", said, after(60)))
    end = end_of(replace(world.jobs[job], state=JobState.FAILED, ended=after(60)), [pod], after(60))

    assert end is not None
    assert Outcome.INTERNAL_ERROR is end.outcome
    assert "CosmicRays" in end.message
    assert "A bit flipped." in end.message


@pytest.mark.fault(Fault.VERSIONS_DIFFER)
def test_a_newer_trainers_results_are_read_as_far_as_they_are_known() -> None:
    world = World()
    job = world.train()
    artifact = {"kind": "onnx", "uri": "s3://loras/surtr/x.onnx", "bytes": 7, "sha256": "a" * 64, "licence": "MIT"}
    world.end_pod(job, told(Outcome.SUCCEEDED, artifacts=[artifact, {"kind": "hologram"}], best={"step": 1, "score": 3}))
    world.end_job(job, JobState.SUCCEEDED)
    world.look()

    assert ["onnx"] == [one.kind for one in world.status.artifacts]
    assert world.status.best is None


def test_an_owner_that_a_newer_version_wrote_is_understood(tmp_path: Path) -> None:
    output = open_store(f"file://{tmp_path}/output", Storage())
    first = claim(output, "surtr", "a", "d1g3st")
    output.write(OWNER, json.dumps(first.to_json() | {"colour": "red"}).encode())

    first.verify(output)
    assert 2 == claim(output, "surtr", "a", "d1g3st").attempt
