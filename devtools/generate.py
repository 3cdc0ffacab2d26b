"""Write what follows from the resource's models: `make generate`. With --check nothing is written and a difference is an error.

The CRD is what the API server checks, docs/reference.md what people read; both come from operator/charalora_spec, as does the table of
reasons in docs/troubleshooting.md. Beside them stand docs/faults.md, from the tests, docs/metrics.md, and what of the Helm chart is
generated.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from charalora_spec.crd import custom_resource_definition, render_crd
from charalora_spec.outcome import Outcome
from charalora_spec.parts import CEL_RULES
from dashboards import dashboard_files
from faultmatrix import PAGE, render_faults
from helmchart import chart_files
from monitoring import monitoring_files

ROOT = Path(__file__).resolve().parent.parent
TROUBLESHOOTING = ROOT / "docs" / "troubleshooting.md"
NOTE = "<!-- Made by `make generate` from operator/charalora_spec. -->"
END = "<!-- The end of what is generated. -->"
FIXED = "self == oldSelf"


def generated() -> dict[Path, str]:
    """Every generated file and what must stand in it."""
    files = {ROOT / "crds" / "characterloras.charalora.dev.yaml": render_crd(), ROOT / "docs" / "reference.md": render_reference()}
    return (
        files
        | {TROUBLESHOOTING: render_troubleshooting(TROUBLESHOOTING.read_text()), PAGE: render_faults(PAGE.read_text())}
        | chart_files()
        | dashboard_files()
        | monitoring_files()
    )


def render_reference() -> str:
    """The resource field by field, and how a run can end."""
    schema = custom_resource_definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    lines = [
        "# Reference: the resource `CharacterLora`",
        NOTE,
        "",
        "`apiVersion: charalora.dev/v1alpha1`, `kind: CharacterLora`, short name `clora`. A field that is null or left out has its",
        "default. Numbers that need not be whole are written in quotes, as everywhere in Kubernetes. A part whose heading says *fixed*",
        "cannot change once the resource exists: make a new one.",
        "",
        *_tables("spec", schema["properties"]["spec"]),
        "# What the operator writes: `status`",
        "",
        *_tables("status", schema["properties"]["status"]),
        "# How a run can end",
        "",
        "The reason is what `kubectl get clora` shows; the exit code is that of `charalora run` and of the training's container.",
        "*Retry* starts again, *Resume* goes on from the last saved state, *Never* waits for you.",
        "",
        *_outcomes(),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _tables(path: str, part: dict[str, Any]) -> Iterator[str]:
    """A part's table, then those of the parts below it. Every part above a part with sub-parts has fields or a heading of its own."""
    fixed = any(rule["rule"] == FIXED for rule in part.get(CEL_RULES, []))
    yield f"## `{path}`{' (fixed)' if fixed else ''}"
    yield ""
    yield part.get("description", "").removesuffix(" Cannot change.")
    yield ""
    leaves = {name: node for name, node in part["properties"].items() if not _part_below(node)}
    if leaves:
        asked = path.startswith("spec")
        yield _line("Field", "Type", *(("Default", "Limits") if asked else ()), "What it is")
        yield _line(*["---"] * (5 if asked else 3))
        for name, node in leaves.items():
            limits = (_default(name, node, part), "; ".join(_limits(name, node, part))) if asked else ()
            yield _line(f"`{name}`", _type(node), *limits, node["description"])
        yield ""
    for name, node in part["properties"].items():
        if below := _part_below(node):
            yield from _tables(f"{path}.{name}" + ("[]" if "items" in node else ""), {"description": node["description"], **below})


def _part_below(node: dict[str, Any]) -> dict[str, Any] | None:
    inner = node.get("items", node)
    if "properties" not in inner:
        return None
    return {**inner, "description": node.get("description", "")}


def _line(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _type(node: dict[str, Any]) -> str:
    if "enum" in node:
        return ", ".join(f"`{value}`" if value else "empty" for value in node["enum"])
    if node["type"] == "array":
        return f"list of {_type(node['items'])}"
    if node.get("format") == "date-time":
        return "time"
    if "pattern" in node:
        return "number in quotes"
    return {"integer": "whole number", "boolean": "true or false", "string": "text", "object": "mapping of text"}[str(node["type"])]


def _default(name: str, node: dict[str, Any], part: dict[str, Any]) -> str:
    if "default" in node:
        return f"`{json.dumps(node['default'], ensure_ascii=False)}`"
    return "required" if name in part.get("required", []) else "null"


def _limits(name: str, node: dict[str, Any], part: dict[str, Any]) -> Iterator[str]:
    if "minimum" in node and "maximum" in node:
        yield f"{node['minimum']} to {node['maximum']}"
    if "pattern" not in node and "maxLength" in node:
        yield f"at most {node['maxLength']} characters"
    if "maxItems" in node or "maxProperties" in node:
        yield f"at most {node.get('maxItems', node.get('maxProperties'))} entries"
    for rule in node.get(CEL_RULES, []):
        yield rule["message"]
    for rule in part.get(CEL_RULES, []):
        if rule.get("fieldPath") == f".{name}":
            yield rule["message"]


def render_troubleshooting(text: str) -> str:
    """The page as it was written by hand, with its table of reasons made anew."""
    before, _, rest = text.partition(NOTE)
    _, _, after = rest.partition(END)
    return "\n".join([before + NOTE, "", *_outcomes("reasons/"), "", END]) + after


def _outcomes(pages: str = "") -> Iterator[str]:
    """The table of outcomes; each links its page where the folder of the pages is given."""
    yield _line("Reason", "Exit code", "Again?", "Meaning")
    yield _line(*["---"] * 4)
    for outcome in Outcome:
        name = f"[`{outcome.reason}`]({pages}{outcome.reason}.md)" if pages else f"`{outcome.reason}`"
        code = "" if outcome.exit_code is None else str(outcome.exit_code)
        yield _line(name, code, outcome.retry.value, outcome.meaning)


def main() -> int:
    """Write the files, or with --check compare them."""
    stale = [path for path, text in generated().items() if not path.exists() or path.read_text() != text]
    names = ", ".join(str(path.relative_to(ROOT)) for path in stale)
    if "--check" in sys.argv[1:]:
        if stale:
            print(f"{names}: not what models, tests and values.yaml say; run `make generate`")
        return 1 if stale else 0
    for path in stale:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(generated()[path])
    print(f"Wrote {names}." if stale else "Everything generated is up to date.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
