"""A valid resource for tests, so that each test says only what matters to it."""

from collections.abc import Mapping
from enum import Enum
from typing import Any

from pydantic.alias_generators import to_camel

from charalora_spec.spec import API_VERSION, KIND, CharacterLora


def character_lora(**overrides: Any) -> CharacterLora:
    """Surtr with every default, but for the overrides.

    A key is a path below `spec`: `training__steps=20`, or dotted, `**{"training.learningRate.unet": 1e-3}`; `spec.…` and `metadata.…` may
    stand in front. A value is what stands in the file; floats and enum members become the text that stands there.
    """
    return CharacterLora.model_validate(character_lora_wire(**overrides))


def character_lora_wire(**overrides: Any) -> dict[str, Any]:
    """The same as it stands in a file, not validated: for tests of what is refused. A value of `...` takes the field out."""
    wire: dict[str, Any] = {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": "surtr", "namespace": "artists"},
        "spec": {
            "character": {"name": "surtr_arknights"},
            "dataset": {"uri": "s3://datasets/surtr_arknights/"},
            "baseModel": {"uri": "s3://models/toy/"},
            "output": {"uri": "s3://loras/surtr/"},
        },
    }
    for key, value in overrides.items():
        *parents, field = _path(key)
        part = wire
        for name in parents:
            part = part.setdefault(name, {})
        if value is ...:
            part.pop(field, None)
        else:
            part[field] = _as_written(value)
    return wire


def _path(key: str) -> list[str]:
    names = [to_camel(name).removesuffix("_") for name in key.replace("__", ".").split(".")]
    return names if names[0] in {"spec", "metadata", "apiVersion", "kind", "status"} else ["spec", *names]


def _as_written(value: Any) -> Any:
    match value:
        case Enum():
            return value.value
        case float():
            return repr(value)
        case Mapping():
            return {name: _as_written(part) for name, part in value.items()}
        case list() | tuple():
            return [_as_written(item) for item in value]
        case _:
            return value
