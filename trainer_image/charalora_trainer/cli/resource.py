"""From what is typed on a command line to a resource."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import yaml

if TYPE_CHECKING:
    from charalora_spec.spec import CharacterLora

OVERRIDE = click.option(
    "--override",
    "overrides",
    multiple=True,
    metavar="spec.PATH=VALUE",
    help="Change a field of the resource, such as spec.training.steps=20. May be given several times.",
)


def load(file: Path, overrides: Sequence[str]) -> "CharacterLora":
    """The resource in a file, with fields changed.

    Raises:
        TrainingError: `SpecInvalid` with every problem.
    """
    from charalora_spec.problems import read_resource
    from charalora_trainer import runfile

    run = runfile.load(file)
    if not overrides:
        return run
    return read_resource(overridden(run.model_dump(mode="json", by_alias=True), overrides), f"{file} with {', '.join(overrides)}")


def overridden(document: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """A document with fields changed; `document` stays as it is.

    Raises:
        click.BadParameter: An override is no `spec.path=value`.
    """
    changed = dict(document)
    for override in overrides:
        path, separator, value = override.partition("=")
        steps = path.split(".")
        if not separator or len(steps) < 2 or steps[0] not in {"spec", "metadata"} or not all(steps):
            raise click.BadParameter(
                f"{override} is no spec.path=value; write for example spec.training.steps=20.", param_hint="--override"
            )
        changed = _set(changed, steps, parsed(value))
    return changed


def parsed(value: str) -> Any:
    """A value as YAML reads it, but numbers that are not whole stay the text that the resource wants."""
    try:
        read = yaml.safe_load(value)
    except yaml.YAMLError:
        return value
    return value if isinstance(read, float) else read


def _set(document: Mapping[str, Any], steps: Sequence[str], value: Any) -> dict[str, Any]:
    first, *rest = steps
    inner = document.get(first)
    return {**document, first: _set(inner if isinstance(inner, Mapping) else {}, rest, value) if rest else value}


def file_uri(path: Path) -> str:
    """A path of this machine as the resource writes it."""
    return path.resolve().as_uri()


def model_uri(model: str) -> str:
    """A base model as typed: a uri, a path of this machine, or a name on the Hugging Face hub."""
    from charalora_trainer.basemodel import FILE_ENDINGS

    if "://" in model:
        return model
    if Path(model).exists() or model.endswith(FILE_ENDINGS) or not re.fullmatch(r"[\w.-]+/[\w.-]+(@[\w./-]+)?", model):
        return file_uri(Path(model))
    return f"hf://{model}"


def resource_name(character: str) -> str:
    """A resource's name for a character: a DNS label that looks like it."""
    return re.sub(r"[^a-z0-9]+", "-", character.lower()).strip("-")[:63] or "character"
