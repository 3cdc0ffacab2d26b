"""Safetensors files: the same content always becomes the same bytes, and what is wrong with a file is said by name.

The library's own writer shuffles the metadata on every call, so a file's hash would change from run to run.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from charalora_spec.outcome import Outcome, TrainingError

# The library stores tensors by falling alignment, then by name; we keep to it, so that hashes of the data are those other tools compute.
_STORAGE_ORDER = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
_NAMES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}


@dataclass(frozen=True)
class TensorFile:
    """An opened safetensors file."""

    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str]


def data_section(tensors: Mapping[str, Tensor]) -> bytes:
    """The bytes of all tensors as they stand behind the header."""
    return b"".join(_raw(tensors[name]) for name in _ordered(tensors))


def header(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """Length and JSON that precede the data section, padded to 8 bytes."""
    document: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}
    start = 0
    for name in _ordered(tensors):
        tensor = tensors[name]
        end = start + tensor.numel() * tensor.element_size()
        document[name] = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
        start = end
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def encode(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """A whole file. Tensors are fp32, bf16 or fp16; all metadata is text."""
    return header(tensors, metadata) + data_section(tensors)


def read(path: Path) -> TensorFile:
    """Open a file, all tensors on the CPU.

    Raises:
        TrainingError: `ExportInvalid` when it does not exist or is no whole safetensors file.
    """
    if not path.is_file():
        raise TrainingError(Outcome.EXPORT_INVALID, f"{path} is not there; it should be a .safetensors file.")
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return TensorFile({name: file.get_tensor(name) for name in sorted(file.keys())}, file.metadata() or {})
    except SafetensorError as error:
        raise TrainingError(
            Outcome.EXPORT_INVALID, f"{path.name} is no whole safetensors file ({error}); write or download it again."
        ) from error


def _ordered(tensors: Mapping[str, Tensor]) -> list[str]:
    return sorted(tensors, key=lambda name: (_STORAGE_ORDER[tensors[name].dtype], name))


def _raw(tensor: Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
