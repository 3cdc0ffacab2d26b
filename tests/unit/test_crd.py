import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from charalora_spec.crd import custom_resource_definition, render_crd

ROOT = Path(__file__).resolve().parents[2]
VERSION = custom_resource_definition()["spec"]["versions"][0]
SCHEMA = VERSION["schema"]["openAPIV3Schema"]
SPEC = SCHEMA["properties"]["spec"]["properties"]


def nodes(node: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every node of the schema with its path."""
    yield path, node
    for name, child in node.get("properties", {}).items():
        yield from nodes(child, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if key in node:
            yield from nodes(node[key], f"{path}[]")


NODES = dict(nodes(SCHEMA))
RULES = [(path, rule["rule"], node) for path, node in NODES.items() for rule in node.get("x-kubernetes-validations", [])]


def test_the_generated_files_are_what_the_spec_says() -> None:
    """`make generate` was run after the last change to the spec."""
    checked = subprocess.run([sys.executable, "devtools/generate.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False)

    assert (0, "") == (checked.returncode, checked.stdout + checked.stderr)


def test_the_committed_crd_is_the_rendered_one() -> None:
    """What is installed is what the models say."""
    assert render_crd() == (ROOT / "crds/characterloras.charalora.dev.yaml").read_text()


def test_the_rendered_text_is_yaml_of_the_definition() -> None:
    """Our few lines of YAML writer are read back by a real YAML reader."""
    assert custom_resource_definition() == yaml.safe_load(render_crd())


def test_every_node_has_a_type() -> None:
    """A structural schema, without which there is neither pruning nor defaulting."""
    assert {"object", "array", "string", "integer", "boolean"} == {node.get("type") for node in NODES.values()}


def test_no_node_has_what_kubernetes_refuses() -> None:
    """JSON Schema that structural schemas do not know, and numbers that are not whole."""
    forbidden = {"$ref", "$defs", "definitions", "anyOf", "allOf", "oneOf", "not", "const", "title", "patternProperties", "uniqueItems"}
    forbidden |= {"exclusiveMinimum", "exclusiveMaximum"}

    assert [] == [path for path, node in NODES.items() if forbidden & node.keys()]


def test_no_node_is_closed_or_open_by_a_switch() -> None:
    """`additionalProperties: false` beside properties is refused; pruning does that work."""
    assert [] == [path for path, node in NODES.items() if isinstance(node.get("additionalProperties"), bool)]


def test_nothing_is_nullable() -> None:
    """A stored null would differ from a field left out, and the next apply would count as a change."""
    assert [] == [path for path, node in NODES.items() if "nullable" in node or "None" in str(node.get("default", ""))]


def _bounded(node: dict[str, Any]) -> bool:
    limit = {"string": "maxLength", "array": "maxItems"}.get(node["type"], "maxProperties" if "additionalProperties" in node else None)
    return limit is None or limit in node or "enum" in node


def test_every_text_and_list_is_bounded() -> None:
    """CEL's cost is estimated from the largest value; one without a limit would refuse the whole CRD."""
    assert [] == [path for path, node in NODES.items() if path.startswith(".spec") and not _bounded(node)]


@pytest.mark.parametrize("rule", sorted({rule for _, rule, _ in RULES if "matches" in rule}))
def test_patterns_mean_the_same_to_python_and_to_re2(rule: str) -> None:
    """No look-around, no back reference, no shorthand class: where the two engines differ."""
    pattern = re.search(r"r'(.*)'", rule)

    assert pattern
    assert not re.search(r"\(\?[=!<P]|\\[1-9dDwWsSbBAZ]", pattern[1])


@pytest.mark.parametrize("part", ["character", "dataset", "baseModel", "training", "preview", "output", "resources"])
def test_what_a_started_training_stands_on_cannot_change(part: str) -> None:
    """The API server refuses the change and says to make a new resource."""
    rule = {"rule": "self == oldSelf", "message": "A started training cannot change; create a new CharacterLora."}

    assert rule in SPEC[part]["x-kubernetes-validations"]


@pytest.mark.parametrize("part", ["storage", "cache", "scheduling", "run"])
def test_the_rest_may_change(part: str) -> None:
    """Pausing, a rotated Secret's name, another queue."""
    assert not [rule for rule in SPEC[part].get("x-kubernetes-validations", []) if "oldSelf" in rule["rule"]]


@pytest.mark.parametrize(
    ("path", "rule", "at"),
    [
        (".spec.training", "self.saveEvery <= self.steps", ".saveEvery"),
        (".spec.dataset", "self.sizing == 'Same' || has(self.width)", ".width"),
        (".spec.dataset", "self.sizing == 'Same' || has(self.height)", ".height"),
        (".spec.resources", "self.nodes == 1 || self.gpus >= 1", ".nodes"),
        (".spec", "self.output.keep != 'Best' || !has(self.training.loss.heldOut) || self.training.loss.heldOut >= 1", ".output"),
    ],
)
def test_rules_between_fields_are_printed_with_the_field_they_blame(path: str, rule: str, at: str) -> None:
    """The API server refuses what the trainer would."""
    assert {rule: at}.items() <= {printed["rule"]: printed.get("fieldPath") for printed in NODES[path]["x-kubernetes-validations"]}.items()


@pytest.mark.parametrize("path", [".spec.dataset.width", ".spec.dataset.height", ".spec.preview.width", ".spec.preview.height"])
def test_sizes_are_multiples_of_8(path: str) -> None:
    """One latent pixel stands for 8 by 8 pixels."""
    assert "self % 8 == 0" in [rule["rule"] for rule in NODES[path]["x-kubernetes-validations"]]


@pytest.mark.parametrize(
    "path", [".spec.dataset.uri", ".spec.baseModel.uri", ".spec.preview.baseModel", ".spec.output.uri", ".spec.storage.endpoint"]
)
def test_no_address_may_carry_a_credential(path: str) -> None:
    """A resource is readable to many; a Secret is not."""
    assert [rule for rule in NODES[path]["x-kubernetes-validations"] if "credential" in rule["message"]]


def test_a_part_that_is_left_out_is_filled_with_its_defaults() -> None:
    """The default of an object must satisfy the object's own rules, so it is written out."""
    assert {"steps": 1000, "saveEvery": 100}.items() <= SPEC["training"]["default"].items()


def test_numbers_that_are_not_whole_are_text_with_a_pattern() -> None:
    """Kubernetes' convention: no floats in an API."""
    unet = NODES[".spec.training.learningRate.unet"]

    assert ("string", "1e-4") == (unet["type"], unet["default"])
    assert re.fullmatch(unet["pattern"], "1e-4")


def test_the_status_has_no_defaults() -> None:
    """What nobody observed is not there."""
    assert [] == [path for path, node in NODES.items() if path.startswith(".status") and "default" in node]


def test_the_status_is_a_subresource() -> None:
    """A user's write cannot touch the status, nor the operator's the spec."""
    assert {"status": {}} == VERSION["subresources"]


def test_conditions_are_keyed_by_their_type() -> None:
    """Server-side apply then owns each condition by itself."""
    conditions = NODES[".status.conditions"]

    assert ("map", ["type"]) == (conditions["x-kubernetes-list-type"], conditions["x-kubernetes-list-map-keys"])


def test_kubectl_get_tells_the_story_in_these_columns() -> None:
    """The narrow table, then what -o wide adds."""
    columns = [(column["name"], column["priority"]) for column in VERSION["additionalPrinterColumns"]]

    assert [
        *((name, 0) for name in ("State", "Progress", "Loss", "ETA", "GPUs", "Attempt", "Age")),
        *((name, 1) for name in ("Images", "Queue", "Artifacts", "Message")),
    ] == columns


@pytest.mark.parametrize(
    "column", [column for column in VERSION["additionalPrinterColumns"] if "[" not in column["jsonPath"]], ids=lambda c: c["name"]
)
def test_every_column_shows_a_field_that_exists(column: dict[str, str]) -> None:
    """A misspelt path would print nothing for ever."""
    assert column["jsonPath"] in NODES or column["jsonPath"] == ".metadata.creationTimestamp"


def test_short_name_and_category() -> None:
    """`kubectl get clora`, `kubectl get ml`."""
    names = custom_resource_definition()["spec"]["names"]

    assert (["clora"], ["ml"]) == (names["shortNames"], names["categories"])
