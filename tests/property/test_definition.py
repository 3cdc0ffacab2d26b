"""The CustomResourceDefinition as people meet it: kubectl get, explain and wait against a real API server."""

from typing import Any

import pytest

from apiserver import ApiServer, path_of
from builders import character_lora_wire
from charalora_spec.crd import custom_resource_definition

NAME = "characterloras.charalora.dev"
CONDITION = {"reason": "Running", "message": "The training runs.", "lastTransitionTime": "2026-06-01T12:00:00Z"}
STATUS = {
    "conditions": [{"type": "Succeeded", "status": "Unknown", **CONDITION}],
    "progress": {"step": 420, "steps": 1000, "percent": "42%", "loss": "0.0811", "etaSeconds": 611},
    "dataset": {"images": 24, "buckets": 1, "tokens": 31, "digest": "d" * 64},
    "attempt": 2,
}


@pytest.fixture(scope="module")
def running(server: ApiServer) -> str:
    """Name of a resource that trains, with a queue and four GPUs."""
    server.create(character_lora_wire(metadata__name="running", resources__gpus=4, scheduling__queueName="team"))
    server.change("characterloras", "artists", "running/status", {"status": STATUS})
    return "running"


def described(node: dict[str, Any], path: str = "") -> list[str]:
    """The fields below a node that have no description."""
    silent = []
    for name, child in node.get("properties", {}).items():
        if not child.get("description"):
            silent.append(f"{path}.{name}")
        silent += described(child.get("items", child), f"{path}.{name}")
    return silent


def test_the_schema_is_structural(server: ApiServer) -> None:
    """The API server says so of each schema that is not."""
    conditions = server.get("customresourcedefinitions", "", NAME)["status"]["conditions"]

    assert {"NamesAccepted": "True", "Established": "True"} == {one["type"]: one["status"] for one in conditions}


def test_every_field_is_explained(server: ApiServer) -> None:
    """In what the API server publishes, which kubectl explain prints."""
    published = server.ask("GET", "/openapi/v3/apis/charalora.dev/v1alpha1").body["components"]["schemas"]
    schema = published["dev.charalora.v1alpha1.CharacterLora"]

    assert [] == [field for part in ("spec", "status") for field in described(schema["properties"][part], part)]
    assert schema["description"] == custom_resource_definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["description"]


@pytest.mark.parametrize(
    ("field", "told"),
    [
        ("clora", "A character to learn"),
        ("clora.spec", "Who is learned. Cannot change."),
        ("clora.spec.training", "Forward passes whose gradients make one step."),
        ("clora.spec.training.learningRate.unet", "Rate of the UNet's LoRA, per step, 0 to 1; with 0 it learns nothing."),
        ("clora.spec.dataset.sizing", "ENUM: Same Bucket Fit"),
        ("clora.spec.run.suspend", "Pause: the training saves its state and gives its GPUs back."),
        ("clora.status.usage.wastedGpuSeconds", "GPU seconds whose work was lost."),
    ],
)
def test_kubectl_explains(server: ApiServer, field: str, told: str) -> None:
    """Sentences of the models, line breaks of kubectl's aside."""
    explained = server.kubectl("explain", field)

    assert (0, "") == (explained.returncode, explained.stderr)
    assert told in " ".join(explained.stdout.split())


def test_get_tells_the_story(server: ApiServer, running: str) -> None:
    """One line for each training."""
    head, line = server.kubectl("get", "clora", running, "--namespace", "artists").stdout.splitlines()

    assert ["NAME", "STATE", "PROGRESS", "LOSS", "ETA", "GPUS", "ATTEMPT", "AGE"] == head.split()
    assert ["running", "Running", "42%", "0.0811", "611", "4", "2"] == line.split()[:-1]


def test_get_wide_tells_more(server: ApiServer, running: str) -> None:
    """What the data set, the queue and the output are, and what to know."""
    head, line = server.kubectl("get", "characterlora", running, "--namespace", "artists", "-o", "wide").stdout.splitlines()

    assert ["AGE", "IMAGES", "QUEUE", "ARTIFACTS", "MESSAGE"] == head.split()[-5:]
    assert ["24", "team", "s3://loras/surtr/", "The", "training", "runs."] == line.split()[-6:]


def test_a_resource_that_nobody_has_seen_yet_has_a_line_as_well(server: ApiServer) -> None:
    """Without a status its columns are empty."""
    server.create(character_lora_wire(metadata__name="new"))
    line = server.kubectl("get", "clora", "new", "--namespace", "artists", "--no-headers").stdout

    assert ["new", "2"] == line.split()[:2]


def test_the_category_finds_it(server: ApiServer, running: str) -> None:
    """`kubectl get ml`, beside other trainings of a cluster."""
    assert f"characterlora.charalora.dev/{running}" in server.kubectl("get", "ml", "--namespace", "artists", "-o", "name").stdout.split()


def test_wait_returns_when_the_training_has_succeeded(server: ApiServer) -> None:
    """And not before."""
    server.create(character_lora_wire(metadata__name="waited"))
    wait = ["wait", "--for=condition=Succeeded", "clora/waited", "--namespace", "artists"]

    server.change("characterloras", "artists", "waited/status", {"status": STATUS})
    assert "timed out" in server.kubectl(*wait, "--timeout=1s").stderr
    succeeded = [{"type": "Succeeded", "status": "True", **CONDITION}]
    server.change("characterloras", "artists", "waited/status", {"status": {"conditions": succeeded}})
    assert (0, "characterlora.charalora.dev/waited condition met\n") == (
        (done := server.kubectl(*wait, "--timeout=20s")).returncode,
        done.stdout,
    )


def test_a_user_s_write_never_touches_the_status(server: ApiServer, running: str) -> None:
    """Nor does the operator's status touch the spec."""
    server.change("characterloras", "artists", running, {"status": {"attempt": 7}})
    server.change("characterloras", "artists", f"{running}/status", {"spec": {"run": {"suspend": True}}})
    body = server.ask("GET", path_of("characterloras", "artists", running)).body

    assert (2, False) == (body["status"]["attempt"], body["spec"]["run"]["suspend"])
