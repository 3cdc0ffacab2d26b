"""What is wrong with a resource, in sentences: all of it at once, each with the field's path and what to do."""

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from charalora_spec.outcome import Outcome, TrainingError
from charalora_spec.parts import Part
from charalora_spec.spec import CharacterLora

_MOST_SHOWN = 50
_LONGEST_CHOICE = 64


def read_resource(document: Any, source: str) -> CharacterLora:
    """The resource that a parsed YAML or JSON document holds.

    Raises:
        TrainingError: SPEC_INVALID with every problem of the document; `source` names the document in the message.
    """
    try:
        return CharacterLora.model_validate(document)
    except ValidationError as error:
        raise TrainingError(Outcome.SPEC_INVALID, _told(source, [_sentence(detail) for detail in error.errors()])) from None


def known_part(document: Any) -> CharacterLora | None:
    """The resource without the fields that this version does not have, which a newer one may; None where more than that is wrong."""
    try:
        return CharacterLora.model_validate(document)
    except ValidationError as error:
        unknown = [detail["loc"] for detail in error.errors() if detail["type"] == "extra_forbidden"]
        if len(unknown) < error.error_count():
            return None
    rest = deepcopy(document)
    for *path, name in unknown:
        place = rest
        for step in path:
            place = place[step]
        del place[name]
    return known_part(rest)


def _told(source: str, sentences: Sequence[str]) -> str:
    if len(sentences) == 1:
        return f"{source}: {sentences[0]}"
    shown = list(sentences[:_MOST_SHOWN])
    if len(sentences) > _MOST_SHOWN:
        shown.append(f"… and {len(sentences) - _MOST_SHOWN} more")
    return "\n  ".join([f"{source} has {len(sentences)} problems:", *shown])


def _sentence(detail: ErrorDetails) -> str:
    tell = _SENTENCES.get(detail["type"])
    what = tell(detail) if tell else detail["msg"]
    steps, _ = _place(detail["loc"])
    if detail["type"] == "extra_forbidden":
        steps[-1] = str(detail["loc"][-1])  # as it was written
    path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps).removeprefix(".")
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in f"{path or 'the document'}: {what}")


def _place(location: Sequence[int | str]) -> tuple[list[int | str], type[Part]]:
    """An error's location in the names of the wire, and the part that the last of them stands in."""
    steps: list[int | str] = []
    holder: type[Part] = CharacterLora
    part: type[Part] | None = CharacterLora
    for step in location:
        field = next((field for key, field in part.model_fields.items() if step in {key, field.alias}), None) if part else None
        if isinstance(step, str):
            holder = part or holder
            part = _part_of(field.annotation) if field else None
        steps.append(field.alias or step if field else step)
    return steps, holder


def _part_of(annotation: Any) -> type[Part] | None:
    """The part that a field holds, itself or in a list or beside null."""
    if isinstance(annotation, type) and issubclass(annotation, Part):
        return annotation
    return next((part for inner in get_args(annotation) if (part := _part_of(inner))), None)


def _names(part: type[Part]) -> list[str]:
    return [field.alias or key for key, field in part.model_fields.items()]


def _fields(part: type[Part], path: str = "") -> Iterator[tuple[str, str]]:
    """Every field below a part: its name and its path."""
    for key, field in part.model_fields.items():
        name = field.alias or key
        yield name, f"{path}{name}"
        if inner := _part_of(field.annotation):
            yield from _fields(inner, f"{path}{name}.")


def _unknown(detail: ErrorDetails) -> str:
    """A field that does not exist: a misspelt neighbour, else one of that name elsewhere, else the nearest neighbour, else all of them."""
    name = str(detail["loc"][-1])
    _, holder = _place(detail["loc"])
    neighbours = _names(holder)
    near = (
        get_close_matches(name, neighbours, n=1, cutoff=0.8)
        or [path for other, path in _fields(CharacterLora) if other == name]
        or get_close_matches(name, neighbours, n=1, cutoff=0.5)
    )
    if near:
        return f"is not a field; did you mean {' or '.join(near)}?"
    return f"is not a field; the fields here are {', '.join(neighbours)}"


def _missing(detail: ErrorDetails) -> str:
    _, holder = _place(detail["loc"])
    name = str(detail["loc"][-1])
    description = next(field.description for key, field in holder.model_fields.items() if name in {key, field.alias})
    return f"is missing; add it: {description}"


def _choice(detail: ErrorDetails) -> str:
    values = [value.strip("'") for value in detail["ctx"]["expected"].replace(" or ", ", ").split(", ")]
    named = [value or "empty" for value in values]
    if len(named) == 1:
        return f"must be {named[0]}; write that"
    written = detail["input"] if isinstance(detail["input"], str) else ""  # anything else may be endless when it is written out
    near = [value for value in values if value.lower() == written.lower()] or get_close_matches(written[:_LONGEST_CHOICE], values, n=1)
    return f"must be {', '.join(named[:-1])} or {named[-1]}" + (f"; did you mean {near[0]}?" if near else "; choose one of them")


def _always(sentence: str) -> Callable[[ErrorDetails], str]:
    return lambda _: sentence


_SENTENCES: dict[str, Callable[[ErrorDetails], str]] = {
    "missing": _missing,
    "extra_forbidden": _unknown,
    "enum": _choice,
    "literal_error": _choice,
    "value_error": lambda detail: str(detail["ctx"]["error"]),
    "int_type": _always("must be a whole number; write it without quotes and without a point"),
    "bool_type": _always("must be true or false; write it without quotes"),
    "string_type": _always("must be text; write it in quotes"),
    "tuple_type": _always("must be a list; write [a, b] or one '- ' line for each entry"),
    "model_type": _always("must have fields of its own; write {name: value, …} or indented lines"),
    "dict_type": _always("must be a mapping; write {name: value, …}"),
    "greater_than_equal": lambda detail: f"is {detail['input']} but must be at least {detail['ctx']['ge']}",
    "less_than_equal": lambda detail: f"is {detail['input']} but must be at most {detail['ctx']['le']}",
    "string_too_short": _always("must not be empty; write something"),
    "string_too_long": lambda detail: f"is {len(detail['input'])} characters long; shorten it to at most {detail['ctx']['max_length']}",
    "too_long": lambda detail: f"has too many entries; keep at most {detail['ctx']['max_length']}",
}
