"""How the resource's models are made: closed, frozen parts, and rules that are said once and enforced twice.

pydantic enforces a rule where a file is read; the CRD prints the same rule as CEL, so that the API server refuses with the same sentence.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationInfo, field_validator, model_validator
from pydantic.alias_generators import to_camel
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

CEL_RULES = "x-kubernetes-validations"


@dataclass(frozen=True)
class Check:
    """A rule about one value, used as `Annotated[str, Check(…)]`.

    Attributes:
        cel: The rule for the API server; `self` is the value.
        message: What is wrong and what to do, without the field's name.
        holds: The same rule for pydantic.
    """

    cel: str
    message: str
    holds: Callable[[Any], bool]

    def __get_pydantic_core_schema__(self, source: type[Any], handler: GetCoreSchemaHandler) -> CoreSchema:
        """Validate after the value's own type was checked."""
        return core_schema.no_info_after_validator_function(self._enforce, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Print the rule into the schema."""
        printed = handler(schema)
        printed.setdefault(CEL_RULES, []).append({"rule": self.cel, "message": self.message})
        return printed

    def _enforce(self, value: Any) -> Any:
        if not self.holds(value):
            raise ValueError(self.message)
        return value


def matching(pattern: str, message: str) -> Check:
    """The whole text matches a regular expression that means the same to Python and to RE2."""
    compiled = re.compile(pattern)
    return Check(f"self.matches(r'^(?:{pattern})$')", message, lambda text: compiled.fullmatch(text) is not None)


def without(pattern: str, message: str) -> Check:
    """The text contains no match of a regular expression that means the same to Python and to RE2."""
    compiled = re.compile(pattern)
    return Check(f"!self.matches(r'{pattern}')", message, lambda text: compiled.search(text) is None)


@dataclass(frozen=True)
class Rule:
    """A rule between fields of one part.

    Attributes:
        field: The field that is reported, as Python names it; declared after every other field that the rule reads.
        reads: All fields that `holds` takes, in its order, `field` among them.
        cel: The rule for the API server; `self` is the part.
        message: What is wrong and what to do, without the field's name.
        holds: The same rule for pydantic.
    """

    field: str
    reads: tuple[str, ...]
    cel: str
    message: str
    holds: Callable[..., bool]


def _print_rules(schema: dict[str, Any], part: type["Part"]) -> None:
    printed = [{"rule": rule.cel, "message": rule.message, "fieldPath": f".{to_camel(rule.field)}"} for rule in part.rules]
    if printed:
        schema[CEL_RULES] = printed


class Part(BaseModel):
    """A piece of the resource: frozen, closed, snake_case in Python and camelCase on the wire."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, validate_default=True, json_schema_extra=_print_rules)

    rules: ClassVar[tuple[Rule, ...]] = ()

    @model_validator(mode="before")
    @classmethod
    def _null_is_left_out(cls, data: Any) -> Any:
        """A field that is null has its default, as the API server has it."""
        if not isinstance(data, Mapping):
            return data
        known = {field.alias for field in cls.model_fields.values()}
        return {name: value for name, value in data.items() if value is not None or name not in known}

    @field_validator("*", mode="after")
    @classmethod
    def _keep_rules(cls, value: Any, info: ValidationInfo) -> Any:
        """A rule is skipped when another field that it reads is wrong itself: that one is reported already."""
        known = {**info.data, info.field_name or "": value}
        for rule in cls.rules:
            if rule.field == info.field_name and known.keys() >= set(rule.reads) and not rule.holds(*(known[name] for name in rule.reads)):
                raise ValueError(rule.message)
        return value
