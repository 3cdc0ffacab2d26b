"""The kinds of single values that fields of the resource take."""

import re
from typing import Annotated, Any, Self

from pydantic import Field, GetCoreSchemaHandler, GetJsonSchemaHandler, Strict
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from charalora_spec.parts import Check, matching, without

NUMBER_PATTERN = r"[0-9]{1,12}(\.[0-9]{1,12})?(e[-+]?[0-9]{1,2})?"
_NUMBER = re.compile(NUMBER_PATTERN)


class Number(float):
    """A number that need not be whole. The API has no such type, so it is text there; this one remembers its spelling."""

    text: str

    def __new__(cls, text: str) -> Self:
        """Parse once.

        Raises:
            ValueError: The text is no plain decimal number; the pattern keeps it finite and not negative.
        """
        if not isinstance(text, str) or not _NUMBER.fullmatch(text):
            raise ValueError('must be a number in quotes, such as "0.1" or "1e-4"')
        number = super().__new__(cls, text)
        number.text = text
        return number

    def __getnewargs__(self) -> tuple[str]:  # type: ignore[override]  # a float's own say float
        """Copied and pickled by its spelling."""
        return (self.text,)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: type[Any], handler: GetCoreSchemaHandler) -> CoreSchema:
        """Text in, text out."""
        return core_schema.no_info_plain_validator_function(
            lambda value: value if isinstance(value, Number) else cls(value),
            serialization=core_schema.plain_serializer_function_ser_schema(lambda number: number.text, when_used="json"),
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """The pattern that the API server checks."""
        return {"type": "string", "pattern": f"^{NUMBER_PATTERN}$", "maxLength": 32}


def between(low: float, high: float) -> Check:
    """A `Number` from low to high, both included."""
    cel = f"self.matches(r'^{NUMBER_PATTERN}$') && double(self) >= {float(low)} && double(self) <= {float(high)}"
    return Check(cel, f"must be a number from {low:g} to {high:g}, in quotes", lambda number: low <= number <= high)


MULTIPLE_OF_8 = Check("self % 8 == 0", "must be a multiple of 8, the pixels that one latent pixel stands for", lambda size: size % 8 == 0)

NO_CREDENTIAL = without(
    r"^[A-Za-z0-9+.-]*://[^/]*@|(?i:[?&](x-amz-|awsaccesskeyid=|signature=|sig=|token=))",
    "must not contain a credential; put it into the Secret that storage.secretName names",
)
NO_PARENT = without(r"(^|/)[.][.](/|$)", "must not contain '..'; write the path without it")

_BUCKET = r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[^\x00-\x1f\x7f]*)?"
_FOLDER = r"file:///[^\x00-\x1f\x7f]*"
_REPOSITORY = r"hf://[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+(@[A-Za-z0-9_./-]+)?"

StorageUri = Annotated[
    str,
    Field(min_length=1, max_length=1024),
    NO_CREDENTIAL,
    NO_PARENT,
    matching(f"{_BUCKET}|{_FOLDER}", "must be s3://bucket/prefix/ or file:///folder/; no other place can be read"),
]
ModelUri = Annotated[
    str,
    Field(min_length=1, max_length=1024),
    NO_CREDENTIAL,
    NO_PARENT,
    matching(f"{_BUCKET}|{_REPOSITORY}|{_FOLDER}", "must be s3://bucket/key, hf://organisation/repository[@revision] or file:///path"),
]
Endpoint = Annotated[
    str,
    Field(max_length=1024),
    NO_CREDENTIAL,
    matching(r"(https?://[^\x00-\x20\x7f/]+/?)?", "must be http://host[:port] or https://host[:port], or empty for AWS itself"),
]

WORD = matching(
    r"[A-Za-z][A-Za-z0-9_-]*",
    "must start with a letter and have only letters, digits, '_' and '-'; it becomes a file name and a word in prompts",
)
_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = rf"{_LABEL}(\.{_LABEL})*"
_WORD = r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_NAMED = "must be the name of a Kubernetes object: lower-case letters, digits, '-' and '.'"
LABEL = matching(_LABEL, "must have only lower-case letters, digits and '-', and start and end with a letter or digit")
ObjectName = Annotated[str, Field(max_length=253), matching(_SUBDOMAIN, _NAMED)]
ObjectNameOrEmpty = Annotated[str, Field(max_length=253), matching(f"({_SUBDOMAIN})?", f"{_NAMED}; or empty")]
Quantity = Annotated[
    str,
    Field(min_length=1, max_length=20),
    matching(r"[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?", 'must be a Kubernetes quantity in quotes, such as "8", "500m" or "32Gi"'),
]
ResourceName = Annotated[
    str,
    Field(max_length=246),  # a quota writes `requests.` in front of it, which shall fit as well
    without("^requests[.]", "must not start with 'requests.', which quotas use; write the name that the nodes show"),
    matching(rf"{_SUBDOMAIN}/{_WORD}", "must be the name of an extended resource, such as nvidia.com/gpu"),
]
QueueName = Annotated[str, Field(max_length=63), matching(_SUBDOMAIN, _NAMED)]
"""A Job carries it in a label, which is shorter than a name may be."""
_KEY = rf"({_SUBDOMAIN}/)?{_WORD}"
_KEYED = "must be letters, digits, '-', '_' and '.', at most 63, with a DNS name and '/' in front or not, such as nvidia.com/gpu"
LabelKeyOrEmpty = Annotated[str, Field(max_length=253), matching(f"({_KEY})?", f"{_KEYED}; or empty")]
LABEL_KEYS = Check(
    f"self.all(key, key.size() <= 253 && key.matches(r'^{_KEY}$'))",
    f"has a key that is no label's; a key {_KEYED}",
    lambda labels: all(len(key) <= 253 and re.fullmatch(_KEY, key) for key in labels),
)
LabelValue = Annotated[
    str,
    Field(max_length=63),
    matching(f"({_WORD})?", "must have only letters, digits, '-', '_' and '.', and start and end with a letter or digit; or be empty"),
]

Region = Annotated[
    str,
    Field(min_length=1, max_length=63),
    matching(r"[A-Za-z0-9]([A-Za-z0-9_-]*[A-Za-z0-9])?", "must be a region's name, such as us-east-1: letters, digits, '-' and '_'"),
]
"""It becomes part of a host name and of every request's signature."""

FileExtension = Annotated[
    str,
    Field(min_length=1, max_length=16),
    matching(r"[A-Za-z0-9]+", "must be the letters and digits after a file name's dot, such as txt"),
]

Whole = Annotated[int, Strict()]
Switch = Annotated[bool, Strict()]
Size = Annotated[int, Strict(), Field(ge=64, le=4096), MULTIPLE_OF_8]
