"""What of the chart follows from elsewhere: its CRD, its roles, the schema of its values and the table in its README.

values.yaml is the source of the values: `# --` above a value describes it, `# @schema` after that adds JSON Schema to what its default
says about its type. What the operator itself checks (`settings`) has the schema of the operator's own model.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import yaml

from charalora_operator.permissions import PERMISSIONS
from charalora_operator.settings import settings_schema
from charalora_spec.crd import render_crd
from charalora_spec.parts import CEL_RULES

Schema = dict[str, Any]

CHART = Path(__file__).resolve().parent.parent / "charts" / "charalora"
FILLED_BY_THE_CHART = ("trainerImage", "preflightImage", "imagePullPolicy", "imagePullSecrets", "http", "lease.name", "lease.namespace")
"""Settings that follow from other values, so that nobody can set them twice."""


@dataclass(frozen=True)
class Value:
    """A key of values.yaml.

    Attributes:
        path: Where it stands.
        default: What it is when nobody sets it.
        about: Its description.
        schema: What its `# @schema` adds.
        below: The keys in it; empty for a leaf.
    """

    path: tuple[str, ...]
    default: Any
    about: str
    schema: Schema
    below: tuple["Value", ...]

    def walk(self) -> Iterator["Value"]:
        """This and everything in it, in the order of the file."""
        yield self
        for value in self.below:
            yield from value.walk()


def chart_files() -> dict[Path, str]:
    """Every generated file of the chart and what must stand in it."""
    values = chart_values()
    return {
        CHART / "templates" / "crd.yaml": render_crd_template(),
        CHART / "templates" / "_permissions.tpl": render_permissions(),
        CHART / "values.schema.json": json.dumps(values_schema(values), indent=2, ensure_ascii=False) + "\n",
        CHART / "README.md": render_readme(values),
    }


def chart_values() -> tuple[Value, ...]:
    """What stands in values.yaml."""
    text = (CHART / "values.yaml").read_text(encoding="utf-8")
    return tuple(_values(yaml.compose(text), text.splitlines(), ()))


def _values(mapping: yaml.Node | None, lines: list[str], path: tuple[str, ...]) -> Iterator[Value]:
    for key, node in mapping.value if isinstance(mapping, yaml.MappingNode) else ():
        here = (*path, key.value)
        above = takewhile(lambda line: line.startswith("#"), (line.strip() for line in reversed(lines[: key.start_mark.line])))
        about, _, schema = "\n".join(line.removeprefix("#").strip() for line in reversed(list(above))).partition("@schema")
        if not about.startswith("-- "):
            raise ValueError(f"values.yaml: {'.'.join(here)} has no description; write `# -- …` above it.")
        yield Value(
            path=here,
            default=_plain(node),
            about=" ".join(about.removeprefix("-- ").split()),
            schema=yaml.safe_load(schema) or {},
            below=() if schema else tuple(_values(node, lines, here)),
        )


def _plain(node: yaml.Node) -> Any:
    """The node as plain values."""
    return yaml.safe_load(yaml.serialize(node))


def values_schema(values: tuple[Value, ...]) -> Schema:
    """JSON Schema of the values, closed: Helm refuses what is not in it."""
    top = _closed(values)
    top["properties"]["settings"] = _settings(values)
    top["properties"]["global"] = {
        "type": "object",
        "description": "Helm's own, for a chart that contains this one; nothing here reads it.",
    }
    return {"$schema": "http://json-schema.org/draft-07/schema#", "title": "Values of the chart charalora", **top}


def _closed(values: tuple[Value, ...]) -> Schema:
    properties = {value.path[-1]: _node(value) for value in values}
    return {"type": "object", "additionalProperties": False, "required": list(properties), "properties": properties}


def _node(value: Value) -> Schema:
    described = {"description": value.about, "default": value.default}
    if value.below:
        return {"description": value.about, **_closed(value.below)}
    kinds: dict[type, str] = {bool: "boolean", int: "integer", str: "string", list: "array", dict: "object"}
    return {**described, "type": kinds[type(value.default)], **value.schema}


def _settings(values: tuple[Value, ...]) -> Schema:
    """The operator's own schema without what the chart fills in, in the JSON Schema that Helm reads."""
    source = json.loads(settings_schema())
    schema = _resolved(source, source["$defs"])
    schema.pop("required")
    for filled in FILLED_BY_THE_CHART:
        *parents, name = filled.split(".")
        part = schema
        for parent in parents:
            part = part["properties"][parent]
        del part["properties"][name]
    return {**schema, "description": next(value.about for value in values if value.path == ("settings",))}


def _resolved(schema: Schema, definitions: Schema) -> Schema:
    """The schema without references and CEL; a rule that is a regular expression becomes a pattern."""
    merged = {**definitions.get(schema.get("$ref", "").removeprefix("#/$defs/"), {}), **schema}
    dropped = {"$defs", "$ref", "title", CEL_RULES}
    node = {key: value for key, value in merged.items() if key not in dropped}
    for rule in merged.get(CEL_RULES, []):
        if pattern := re.fullmatch(r"self\.matches\(r'(.*)'\)", rule["rule"]):
            node["pattern"] = pattern[1]
    if "properties" in node:
        node.pop("default", None)  # its fields have theirs
        node["properties"] = {name: _resolved(child, definitions) for name, child in node["properties"].items()}
    if "items" in node:
        node["items"] = _resolved(node["items"], definitions)
    return node


def render_crd_template() -> str:
    """The CRD with the switches of `crds`."""
    note, head, body = re.split(r"^(?=apiVersion:)|(?<=\.dev\n)(?=spec:)", render_crd(), flags=re.MULTILINE)
    lines = (
        "{{- /* " + note.removeprefix("# ").strip() + " */ -}}",
        "{{- if .Values.crds.install }}",
        head.rstrip(),
        '  labels: {{- include "charalora.labels" . | nindent 4 }}',
        "  {{- if .Values.crds.keep }}",
        "  annotations: {helm.sh/resource-policy: keep}",
        "  {{- end }}",
        body.replace("{{", '{{ "{{" }}').rstrip(),
        "{{- end }}",
    )
    return "\n".join(lines) + "\n"


def render_permissions() -> str:
    """The operator's rules, each with its reason."""
    lines = ["{{/* Made by `make generate` from operator/charalora_operator/permissions.py. */}}"]
    for name, own in (("rules", False), ("ownRules", True)):
        lines.append(f'{{{{- define "charalora.{name}" -}}}}')
        for permission in PERMISSIONS:
            if permission.own_namespace == own:
                lines.append(f"# {permission.why}")
                lines.append(f'- apiGroups: ["{permission.group}"]')
                lines.append(f"  resources: [{permission.resource}]")
                lines.append(f"  verbs: [{', '.join(permission.verbs)}]")
        lines.append("{{- end }}")
    return "\n".join(lines) + "\n"


def render_readme(values: tuple[Value, ...]) -> str:
    """How to install, and a table of every value."""
    lines = [
        "# Chart `charalora`",
        "<!-- Made by `make generate` from values.yaml. -->",
        "",
        "The operator of [Charalora](../../README.md): the resource `CharacterLora`, roles, probes, a disruption budget and, where they",
        "are wanted, network policies and monitors. Kubernetes 1.31 or newer, Helm 3.17 or newer.",
        "",
        "```sh",
        "helm install charalora charts/charalora --namespace charalora-system --create-namespace",
        "```",
        "",
        "[docs/install.md](../../docs/install.md) has the whole way: GPUs, keys, cache, queues, monitoring, upgrade and removal.",
        "",
        "| Value | Type | Default | What it is |",
        "| --- | --- | --- | --- |",
        *(_row(each) for value in values for each in value.walk()),
    ]
    return "\n".join(lines) + "\n"


def _row(value: Value) -> str:
    if value.below:
        return f"| **`{'.'.join(value.path)}`** | | | {value.about} |"
    kinds: dict[type, str] = {bool: "true or false", int: "whole number", str: "text", list: "list", dict: "object"}
    choices = ", ".join(f"`{choice}`" for choice in value.schema.get("enum", []))
    default = json.dumps(value.default, ensure_ascii=False)
    return f"| `{'.'.join(value.path)}` | {choices or kinds[type(value.default)]} | `{default}` | {value.about} |"
