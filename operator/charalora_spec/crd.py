"""Prints the CustomResourceDefinition from the models, so that the API server refuses what the trainer would.

pydantic prints JSON Schema; Kubernetes takes the subset that its documentation calls structural: every node typed, no references, no
alternatives. Rules between fields are there as CEL already (charalora_spec.parts). No field is `nullable`: the API server then drops a null
before it compares, so that `width: null` and no width are one and the same to the rule that nothing may change.
"""

import json
import re
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from charalora_spec.parts import CEL_RULES
from charalora_spec.spec import GROUP, KIND, PLURAL, VERSION, CharacterLoraSpec, Metadata
from charalora_spec.status import Status

Schema = dict[str, Any]

_DROPPED = {"$defs", "$ref", "additionalProperties", "allOf", "anyOf", "const", "title"}
_STATE = '.status.conditions[?(@.type=="Succeeded")]'
_COLUMNS = (
    ("State", "string", f"{_STATE}.reason", 0),
    ("Progress", "string", ".status.progress.percent", 0),
    ("Loss", "string", ".status.progress.loss", 0),
    ("ETA", "integer", ".status.progress.etaSeconds", 0),
    ("GPUs", "integer", ".spec.resources.gpus", 0),
    ("Attempt", "integer", ".status.attempt", 0),
    ("Age", "date", ".metadata.creationTimestamp", 0),
    ("Images", "integer", ".status.dataset.images", 1),
    ("Queue", "string", ".spec.scheduling.queueName", 1),
    ("Artifacts", "string", ".spec.output.uri", 1),
    ("Message", "string", f"{_STATE}.message", 1),
)


def structural(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> Schema:
    """One node of JSON Schema, and everything below it, in the form that Kubernetes takes."""
    merged = _merged(schema, definitions)
    node = {key: value for key, value in merged.items() if key not in _DROPPED}
    if "const" in merged:
        node["enum"] = [merged["const"]]
    if "default" in node:
        node["default"] = _without_nulls(node["default"])
    if node.get("default", ...) is None:
        del node["default"]
    if "properties" in node:
        node["properties"] = {name: structural(child, definitions) for name, child in node["properties"].items()}
    if "items" in node:
        node["items"] = structural(node["items"], definitions)
    if isinstance(values := merged.get("additionalProperties"), dict):
        node["additionalProperties"] = structural(values, definitions)
    return node


def _merged(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> Schema:
    """The node with its reference, or the one alternative to null, put in its place. What stands at the field wins; CEL rules add up."""
    inner: Schema = {}
    if reference := schema.get("$ref"):
        inner = _merged(definitions[reference.removeprefix("#/$defs/")], definitions)
    elif alternatives := schema.get("anyOf"):
        inner = _merged(next(value for value in alternatives if value != {"type": "null"}), definitions)
    rules = [*inner.get(CEL_RULES, []), *schema.get(CEL_RULES, [])]
    return {**inner, **schema, **({CEL_RULES: rules} if rules else {})}


def _without_nulls(value: Any) -> Any:
    return {name: _without_nulls(inner) for name, inner in value.items() if inner is not None} if isinstance(value, dict) else value


def _observed(node: Schema) -> Schema:
    """The node without defaults: what nobody wrote into a status was not observed."""
    bare = {key: value for key, value in node.items() if key != "default"}
    if "properties" in bare:
        bare["properties"] = {name: _observed(child) for name, child in bare["properties"].items()}
    if "items" in bare:
        bare["items"] = _observed(bare["items"])
    return bare


def _resource_schema() -> Schema:
    spec = CharacterLoraSpec.model_json_schema()
    status = Status.model_json_schema()
    name = Metadata.model_json_schema()["properties"]["name"]
    label = {
        "rule": name[CEL_RULES][0]["rule"].replace("self.", "self.metadata.name."),
        "message": f"metadata.name {name[CEL_RULES][0]['message']}",
    }
    return {
        "type": "object",
        "description": "A character to learn: its pictures, the model to adapt, and where the files go.",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object", "properties": {"name": {"type": "string", "maxLength": name["maxLength"]}}},
            "spec": structural(spec, spec["$defs"]),
            "status": _observed(structural(status, status["$defs"])),
        },
        CEL_RULES: [label],
    }


def custom_resource_definition() -> Schema:
    """The whole object as plain values."""
    columns = [{"name": name, "type": kind, "jsonPath": path, "priority": wide} for name, kind, path, wide in _COLUMNS]
    schema = _resource_schema()
    conditions = schema["properties"]["status"]["properties"]["conditions"]
    conditions |= {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}
    names = {
        "kind": KIND,
        "listKind": f"{KIND}List",
        "plural": PLURAL,
        "singular": KIND.lower(),
        "shortNames": ["clora"],
        "categories": ["ml"],
    }
    version = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": schema},
        "subresources": {"status": {}},
        "additionalPrinterColumns": columns,
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{PLURAL}.{GROUP}"},
        "spec": {"group": GROUP, "scope": "Namespaced", "names": names, "versions": [version]},
    }


def render_crd() -> str:
    """The CRD as YAML text, the same for the same models."""
    return "\n".join(["# Made by `make generate` from operator/charalora_spec.", *_yaml(custom_resource_definition())]) + "\n"


_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_./-]*")
_WORDS = {"true", "false", "yes", "no", "on", "off", "null", "y", "n"}


def _yaml(value: Any, indent: str = "") -> Iterator[str]:
    """Lines of block-style YAML: this package needs pydantic alone, and JSON's scalars are YAML's."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _entry(f"{indent}{key}:", inner, indent + "  ")
    elif isinstance(value, list) and value:
        for item in value:
            first, *rest = _yaml(item, indent + "  ")
            yield f"{indent}- {first.lstrip(' ')}"
            yield from rest
    elif isinstance(value, str) and _PLAIN.fullmatch(value) and value.lower() not in _WORDS:
        yield indent + value
    else:
        yield indent + json.dumps(value, ensure_ascii=False)


def _entry(head: str, value: Any, indent: str) -> Iterator[str]:
    lines = list(_yaml(value, indent))
    if isinstance(value, dict | list) and value:
        yield head
        yield from lines
    else:
        yield f"{head} {lines[0].lstrip(' ')}"


if __name__ == "__main__":
    sys.stdout.write(render_crd())
