"""Random resources against a real API server: it takes what the trainer takes, and takes every object that is made of one.

The same examples are tried each time; CHARALORA_EXAMPLES_TIMES=20 tries twenty times as many, and others each time.
"""

import json
import os
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings

from apiserver import ApiServer, path_of
from builders import character_lora_wire
from charalora_operator import desired
from charalora_operator.model import Key, Resource
from charalora_operator.settings import Settings
from charalora_spec.outcome import TrainingError
from charalora_spec.problems import read_resource
from charalora_spec.spec import CharacterLora
from charalora_spec.status import Status
from operator_world import DIGEST, NOON
from specs import Document, documents, right_documents

TIMES = int(os.environ.get("CHARALORA_EXAMPLES_TIMES") or 1)
SETTINGS = Settings.model_validate(
    {"trainerImage": "charalora/trainer:1", "preflightImage": "charalora/preflight:1", "nodeCachePath": "/var/cache/charalora"}
)
MERGE = "application/merge-patch+json"


def problem_of(document: Document) -> str:
    """What charalora_spec says of a document; empty when it takes it."""
    try:
        read_resource(document, "surtr.yaml")
    except TrainingError as error:
        return error.message
    return ""


def manifests_of(run: CharacterLora) -> list[dict[str, Any]]:
    """Everything that the operator would make for a resource."""
    resource = Resource(Key("artists", run.metadata.name), "0" * 8, 1, NOON, False, run, "", Status())  # noqa: FBT003
    attempt = desired.manifests_of_attempt(resource, run, SETTINGS, 1, DIGEST, run.spec.run.deadline_seconds)
    return [*desired.manifests_of_check(resource, run, SETTINGS), *attempt]


def refusals_of(server: ApiServer, document: Document) -> list[str]:
    """What the API server says against the objects that a resource becomes."""
    answers = [server.try_create(manifest, dryRun="All") for manifest in manifests_of(read_resource(document, "surtr.yaml"))]
    return [answer.message for answer in answers if not answer.accepted]


@settings(max_examples=150 * TIMES)
@given(document=right_documents())
def test_what_is_within_every_bound_is_taken_and_so_is_everything_made_of_it(server: ApiServer, document: Document) -> None:
    """By the API server, by the trainer, and as Job, ConfigMap and Service."""
    answer = server.try_create(document, dryRun="All")

    assert ("", "") == (answer.message, problem_of(document))
    assert [] == refusals_of(server, document)


@settings(max_examples=100 * TIMES)
@given(document=right_documents())
def test_the_api_server_fills_in_what_the_trainer_fills_in(server: ApiServer, document: Document) -> None:
    """`charalora run` on the file and the operator on the stored resource train the same."""
    stored = server.try_create(document, dryRun="All").body

    assert read_resource(document, "surtr.yaml").spec == read_resource(stored, "stored").spec


def test_the_api_server_refuses_what_the_trainer_refuses(server: ApiServer) -> None:
    """And takes what it takes; each refusal names a field."""
    seen: Counter[bool] = Counter()

    @settings(max_examples=500 * TIMES)
    @given(document=documents())
    def judged_alike(document: Document) -> None:
        answer, problem = server.try_create(document, dryRun="All"), problem_of(document)
        seen[answer.accepted] += 1

        assert answer.accepted == (not problem), f"API server: {answer.message}; charalora_spec: {problem}"
        if answer.accepted:
            assert [] == refusals_of(server, document)
        else:
            assert "spec" in answer.message
            assert "spec" in problem

    judged_alike()
    assert min(seen[True], seen[False]) >= 50 * TIMES, seen


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a rule between two fields": (
        {"training.saveEvery": 2000},
        "spec.training.saveEvery: Invalid value: must not be greater than steps (left out, it is 100); write a lower saveEvery",
    ),
    "a field that another one asks for": (
        {"dataset.sizing": "Fit", "dataset.height": 64},
        "spec.dataset.width: Invalid value: is needed with sizing: Bucket or Fit; write the size that the pictures shall get, in pixels",
    ),
    "a credential": (
        {"storage.endpoint": "http://me@localhost"},
        "must not contain a credential; put it into the Secret that storage.secretName names",
    ),
    "a misspelt field": ({"training.stpes": 5}, 'unknown field "spec.training.stpes"'),
    "a word that is no file name": (
        {"character.name": "2b"},
        "must start with a letter and have only letters, digits, '_' and '-'; it becomes a file name and a word in prompts",
    ),
    "nodes without a GPU": (
        {"resources.gpus": 0, "resources.nodes": 2},
        "spec.resources.nodes: Invalid value: several nodes need gpus of 1 or more; train without a GPU on one node",
    ),
    "the best of nothing": ({"output.keep": "Best", "training.loss.heldOut": 0}, "leave heldOut out or keep All"),
    "another spelling": (
        {"training.precision": "FP16"},
        'spec.training.precision: Unsupported value: "FP16": supported values: "bf16", "fp16", "fp32"',
    ),
    "another type": ({"training.steps": "100"}, "spec.training.steps in body must be of type integer"),
    "a number out of range": (
        {"training.learningRate.unet": "2"},
        'spec.training.learningRate.unet: Invalid value: "2": must be a number from 0 to 1, in quotes',
    ),
    "nothing where something is needed": ({"output.uri": ...}, "spec.output.uri: Required value"),
    "an odd width": ({"preview.width": 100}, "must be a multiple of 8, the pixels that one latent pixel stands for"),
    "a taint without a key": (
        {"scheduling.tolerations": [{"value": "a"}]},
        "spec.scheduling.tolerations[0].operator: Invalid value: must be Exists where there is no key; write the taint's key",
    ),
    "a resource's name": ({"metadata.name": "a.b"}, "metadata.name must have only lower-case letters, digits and '-'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_refusal_says_where_and_what_to_do(server: ApiServer, case: str) -> None:
    """As `kubectl apply` prints it."""
    overrides, told = REFUSED[case]

    assert told in server.try_create(character_lora_wire(**overrides), dryRun="All").message


FIXED: dict[str, dict[str, Any]] = {
    "character": {"name": "other"},
    "dataset": {"width": 512},
    "baseModel": {"uri": "hf://org/repo"},
    "training": {"steps": 5000},
    "preview": {"num": 2},
    "output": {"uri": "s3://loras/other/"},
    "resources": {"gpus": 4},
}
FREE: dict[str, dict[str, Any]] = {
    "storage": {"secretName": "rotated"},
    "cache": {"claimName": "models"},
    "scheduling": {"queueName": "team"},
    "run": {"suspend": True, "retries": 0, "ttlSecondsAfterFinished": 60},
}


@pytest.fixture(scope="module")
def standing(server: ApiServer) -> str:
    """Where a resource stands."""
    server.create(character_lora_wire(metadata__name="standing"))
    return path_of("characterloras", "artists", "standing")


@pytest.mark.parametrize("part", FIXED)
def test_what_a_training_stands_on_cannot_change(server: ApiServer, standing: str, part: str) -> None:
    """And the message says what to do instead."""
    answer = server.ask("PATCH", standing, {"spec": {part: FIXED[part]}}, content_type=MERGE, dryRun="All")

    assert 422 == answer.code
    assert f"spec.{part}: Invalid value: A started training cannot change; create a new CharacterLora." in answer.message


@pytest.mark.parametrize("part", FREE)
def test_the_rest_may_change(server: ApiServer, standing: str, part: str) -> None:
    """Pausing, another queue, a rotated Secret's name."""
    answer = server.ask("PATCH", standing, {"spec": {part: FREE[part]}}, content_type=MERGE, dryRun="All")

    assert (200, FREE[part]) == (answer.code, {name: answer.body["spec"][part][name] for name in FREE[part]})


WITH_NULLS = {"dataset.width": None, "training.loss.minSnrGamma": None, "run.deadlineSeconds": None}


def test_a_null_is_a_field_left_out(server: ApiServer) -> None:
    """Applied again it is no change of what cannot change, and the trainer reads the same."""
    document = character_lora_wire(**{"metadata.name": "nulls", **WITH_NULLS})
    applied = [server.kubectl("apply", "-o", "json", "-f", "-", content=document) for _ in range(2)]

    assert [0, 0] == [ended.returncode for ended in applied], applied
    first, second = (json.loads(ended.stdout) for ended in applied)
    assert (1, 1) == (first["metadata"]["generation"], second["metadata"]["generation"])
    assert read_resource(document, "surtr.yaml").spec == read_resource(first, "stored").spec


def test_only_server_side_apply_takes_a_null_for_a_value(server: ApiServer) -> None:
    """The one exception among the ways to write: there the API server compares before it drops nulls. It names the field."""
    document = character_lora_wire(**{"metadata.name": "applied", **WITH_NULLS})

    assert (
        "spec.dataset.width in body must be of type integer" in server.kubectl("apply", "--server-side", "-f", "-", content=document).stderr
    )


def test_a_label_without_a_value_is_dropped_by_the_api_server_and_refused_by_the_trainer(server: ApiServer) -> None:
    """The one exception among the values: the API server drops nulls from every map, and no schema can change that."""
    document = character_lora_wire(**{"scheduling.nodeSelector": {"disk": None}})

    assert {} == server.try_create(document, dryRun="All").body["spec"]["scheduling"]["nodeSelector"]
    assert "spec.scheduling.nodeSelector.disk: must be text" in problem_of(document)


def test_a_whole_number_with_a_point_is_taken_by_the_api_server_and_refused_by_the_trainer(server: ApiServer) -> None:
    """JSON has one kind of number. It is stored as a whole one, so that the operator reads what the API server took."""
    document = character_lora_wire()
    document["spec"]["training"] = {"batchSize": 8.0}
    stored = server.try_create(document, dryRun="All").body

    assert "spec.training.batchSize: must be a whole number; write it without quotes and without a point" in problem_of(document)
    assert (8, "") == (stored["spec"]["training"]["batchSize"], problem_of(stored))
