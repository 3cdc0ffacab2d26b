"""The header of a safetensors file, by ranged reads: names, types and shapes of its tensors, and whether the file is whole.

Format: 8 bytes of header length, little-endian; a JSON object; then the tensors' bytes without gaps
(github.com/huggingface/safetensors, README). The header is input from outside, so nothing in it is believed.
"""

import json
import math
from dataclasses import dataclass
from typing import Any

from charalora_spec.outcome import Outcome, TrainingError
from charalora_trainer.storage import Entry, Store
from charalora_trainer.storage.keys import shown

MAX_HEADER = 16 * 1024 * 1024  # a Stable Diffusion has some hundred KiB
MAX_DIMENSIONS = 8
FLOATS = frozenset({"F16", "BF16", "F32", "F64"})
"""Types of numbers that weights can be trained on in."""
_FIRST_READ = 256 * 1024  # most headers whole, in one request
_BITS = {"BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16,
         "I32": 32, "U32": 32, "F32": 32, "I64": 64, "U64": 64, "F64": 64}  # fmt: skip


@dataclass(frozen=True)
class TensorInfo:
    """What a header says of a tensor. From a pickle only its name is known, so both are None."""

    dtype: str | None = None
    shape: tuple[int, ...] | None = None


class _DamagedError(ValueError):
    """A header that contradicts itself or its file."""


def read_header(store: Store, entry: Entry) -> dict[str, TensorInfo]:
    """The tensors of a safetensors file by name.

    Raises:
        TrainingError: `BaseModelInvalid` for a file that is truncated, damaged or no safetensors at all.
    """
    try:
        first = store.read(entry.key, 0, min(entry.size, _FIRST_READ))
        length = _header_length(first, entry.size)
        rest = store.read(entry.key, len(first), 8 + length) if 8 + length > len(first) else b""
        return _parsed(first[8 : 8 + length] + rest, entry.size - 8 - length)
    except _DamagedError as damage:
        raise TrainingError(
            Outcome.BASE_MODEL_INVALID, f"{store.uri}{entry.key} is no whole safetensors file ({damage}); upload it again."
        ) from damage


def _header_length(first: bytes, size: int) -> int:
    if len(first) < 8:
        raise _DamagedError(f"it has {size} bytes")
    length = int.from_bytes(first[:8], "little")
    if first.startswith(b"version https://git-lfs"):
        raise _DamagedError("it is a Git LFS pointer, not the file that it points to")
    if length > min(MAX_HEADER, size - 8):
        raise _DamagedError(f"its header would have {length} bytes, the file has {size}")
    return length


def _parsed(header: bytes, data_bytes: int) -> dict[str, TensorInfo]:
    try:
        content = json.loads(header)
    except (ValueError, RecursionError) as error:
        raise _DamagedError("its header is no JSON") from error
    if not isinstance(content, dict):
        raise _DamagedError("its header is no JSON object")
    content.pop("__metadata__", None)
    places = sorted(_place(name, described) for name, described in content.items())
    end = 0
    for begin, next_end, name in places:
        if begin != end:
            raise _DamagedError(f"the bytes of {shown(name)} overlap others or leave a gap")
        end = next_end
    if end != data_bytes:
        raise _DamagedError(f"its header promises {end} bytes of tensors, {data_bytes} are there")
    return {name: TensorInfo(described["dtype"], tuple(described["shape"])) for name, described in content.items()}


def _place(name: str, described: Any) -> tuple[int, int, str]:
    """Where a tensor's bytes begin and end; that as many belong to its type and shape is checked."""
    try:
        dtype, shape, (begin, end) = described["dtype"], described["shape"], described["data_offsets"]
        whole = len(shape) <= MAX_DIMENSIONS and all(type(number) is int and 0 <= number < 2**48 for number in (*shape, begin, end))
    except (TypeError, KeyError, ValueError) as error:
        raise _DamagedError(f"what it says of {shown(name)} is incomplete") from error
    if not whole or not isinstance(dtype, str) or dtype not in _BITS or end - begin != math.prod(shape) * _BITS[dtype] // 8:
        raise _DamagedError(f"type, shape and place of {shown(name)} contradict each other")
    return begin, end, name
