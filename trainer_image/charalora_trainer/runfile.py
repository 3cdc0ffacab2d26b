"""Reads the file that describes a run: the user's YAML, or the JSON that the operator mounts."""

import json
import re
from pathlib import Path
from typing import Any

import yaml

from charalora_spec.outcome import Outcome, TrainingError
from charalora_spec.problems import read_resource
from charalora_spec.spec import CharacterLora

LARGEST_FILE = 1_048_576
"""Bytes; more than Kubernetes would store."""

_MOST_VALUES = 100_000
_MOST_FIELDS = 1000
"""Of one mapping; a merge of merges would double them at each level."""


def load(path: Path | str) -> CharacterLora:
    """The resource in a YAML file, or in a JSON file when its name ends in `.json`.

    Raises:
        TrainingError: SPEC_INVALID. The file cannot be read, holds something else, or the resource is wrong: then with all its problems.
    """
    path = Path(path)
    text = _text(path)
    try:
        document = json.loads(text, object_pairs_hook=_without_duplicates) if path.suffix == ".json" else _yaml_document(text)
    except json.JSONDecodeError as error:
        raise _refused(path, f"is no valid JSON: line {error.lineno}: {error.msg}; correct that line") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise _refused(path, f"is no valid YAML: line {line}: {error.problem}; correct that line") from None
    except yaml.YAMLError:
        raise _refused(path, "is no valid YAML; it has characters that YAML does not allow: write plain text") from None
    except RecursionError:
        raise _refused(path, "is nested too deeply for a resource; write it flat") from None
    except _DocumentError as error:
        raise _refused(path, str(error)) from None
    except ValueError as error:
        raise _refused(path, f"has a value that cannot be read ({error}); write it in quotes") from None
    if not isinstance(document, dict):
        raise _refused(path, "holds no resource; start it with 'apiVersion: charalora.dev/v1alpha1' and 'kind: CharacterLora'")
    return read_resource(document, str(path))


class _DocumentError(ValueError):
    """What is wrong with a document as a whole, said without its name."""


def _refused(path: Path, what: str) -> TrainingError:
    return TrainingError(Outcome.SPEC_INVALID, f"{path} {what}")


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise _refused(path, f"cannot be read: {error.strerror}; give the path of a CharacterLora file") from None
    if len(data) > LARGEST_FILE:
        raise _refused(path, f"is larger than {LARGEST_FILE} bytes; give the path of a CharacterLora file")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _refused(path, f"is no UTF-8 text at byte {error.start}; save it as UTF-8") from None


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise _DocumentError(f"has the field {twice} twice in one place; keep one of them")
    return dict(pairs)


class _Loader(yaml.SafeLoader):
    """YAML as Kubernetes' own tools read it, without what they would refuse: a field given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002 - the signature of PyYAML
        seen: set[str] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"the field {key.value} stands there twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        super().flatten_mapping(node)
        if len(node.value) > _MOST_FIELDS:
            raise yaml.constructor.ConstructorError(None, None, f"it has more than {_MOST_FIELDS} fields in one place", node.start_mark)


# PyYAML takes 1e-4, without a point, for text; Kubernetes' tools take it for a number. It must be refused here as it is there.
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+[eE][-+]?[0-9]+$"), list("-+0123456789"))


def _yaml_document(text: str) -> Any:
    documents = [document for document in yaml.load_all(text, _Loader) if document is not None]
    if len(documents) > 1:
        raise _DocumentError(f"holds {len(documents)} documents; keep one CharacterLora in each file")
    document = documents[0] if documents else None
    if _values(document, {}) > _MOST_VALUES:
        raise _DocumentError("has aliases that stand for more than a resource can hold; write out what is meant")
    return document


def _values(part: Any, counted: dict[int, float]) -> float:
    """How many values a document has when every alias is written out; endless for one that holds itself."""
    if not isinstance(part, (dict, list)):
        return 1
    if id(part) not in counted:
        counted[id(part)] = float("inf")  # until it is known, which it never is inside itself
        inner = part.values() if isinstance(part, dict) else part
        counted[id(part)] = 1 + sum(_values(one, counted) for one in inner)
    return counted[id(part)]
