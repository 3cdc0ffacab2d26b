"""LoRA files as webui, kohya sd-scripts and ComfyUI read them: one file for UNet and text encoder.

Weights are those of the training and alpha is the training's alpha, so (alpha / rank) · up · down is the trained update. HCP's converter
scales both matrices instead; the product is the same, ours loses nothing.
"""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from charalora_trainer.export import tensorfile
from charalora_trainer.export.matrices import ALPHA, DOWN, RELATIVE_TOLERANCE, UP, Deviation, assemble, deviation, invalid, shortest
from charalora_trainer.export.metadata import TrainingFacts, webui_metadata
from charalora_trainer.export.module_names import (
    TEXT_ENCODER_ALIAS,
    TEXT_ENCODER_PREFIX,
    UNET_PREFIX,
    text_encoder_path,
    underscored,
    unet_path,
)
from charalora_trainer.export.whole import write_whole
from charalora_trainer.weights import Adapter, LoraModule

logger = logging.getLogger(__name__)

_ROLES = {"lora_down.weight": DOWN, "lora_up.weight": UP, "alpha": ALPHA}
_PREFIXES: dict[str, Callable[[str], str | None]] = {
    UNET_PREFIX: unet_path,
    TEXT_ENCODER_PREFIX: text_encoder_path,
    TEXT_ENCODER_ALIAS: text_encoder_path,
}


@dataclass(frozen=True)
class Rounding:
    """What a file of lower precision loses.

    Attributes:
        overflowed: Entries of the matrices too large for the precision.
        vanished: Entries of the matrices that became zero.
        entries: Entries of the matrices in all.
        worst: The module whose update changed most, and how much.
    """

    overflowed: int
    vanished: int
    entries: int
    worst: tuple[str, Deviation]

    def __str__(self) -> str:
        """One sentence for people."""
        path, apart = self.worst
        return f"{self.vanished} of {self.entries} entries became zero; {path} changed most, by {apart.relative:.2g} of its size"


def modules(adapter: Adapter) -> Iterator[tuple[str, str, LoraModule]]:
    """Name in the file, module path and module of everything in an adapter.

    Raises:
        TrainingError: `ExportInvalid` for a module that readers of these files could not find.
    """
    for prefix, known, trained in (
        (UNET_PREFIX, unet_path, adapter.unet),
        (TEXT_ENCODER_PREFIX, text_encoder_path, adapter.text_encoder),
    ):
        for path, module in trained.items():
            if known(underscored(path)) != path:
                raise invalid(f"{path} has no name in webui's LoRA files; train modules of Stable Diffusion's UNet and text encoder only.")
            yield f"{prefix}{underscored(path)}", path, module


def tensors(adapter: Adapter, dtype: torch.dtype) -> dict[str, Tensor]:
    """What the file holds, fp32 or fp16."""
    found: dict[str, Tensor] = {}
    for name, _, module in modules(adapter):
        found[f"{name}.lora_down.weight"] = module.down.to(dtype)
        found[f"{name}.lora_up.weight"] = module.up.to(dtype)
        found[f"{name}.alpha"] = _alpha(module.alpha, dtype)
    return found


def rounding(adapter: Adapter, dtype: torch.dtype) -> Rounding:
    """What is lost when the adapter is stored in `dtype`."""
    overflowed = vanished = entries = 0
    worst = ("", Deviation(0.0, 0.0, 0.0))
    for _, path, module in modules(adapter):
        stored = LoraModule(module.down.to(dtype).float(), module.up.to(dtype).float(), module.alpha)
        for before, after in ((module.down, stored.down), (module.up, stored.up)):
            overflowed += int(after.isinf().sum())
            vanished += int(((after == 0) & (before != 0)).sum())
            entries += before.numel()
        apart = deviation(module, stored)
        if not worst[0] or not apart.relative <= worst[1].relative:
            worst = (path, apart)
    return Rounding(overflowed, vanished, entries, worst)


def write(adapter: Adapter, path: Path, facts: TrainingFacts | None = None, dtype: torch.dtype = torch.float32) -> Path:
    """Write the file, with what `facts` say in its metadata.

    Raises:
        TrainingError: `ExportInvalid` when fp16 cannot hold the adapter (the message says what would be lost) or a module has no name.
    """
    stored = tensors(adapter, dtype)
    if dtype != torch.float32:
        _refuse_loss(rounding(adapter, dtype), dtype, path.name)
    data = tensorfile.data_section(stored)
    metadata = webui_metadata(adapter, facts, data, lambda known: tensorfile.header(stored, known))
    write_whole(path, tensorfile.header(stored, metadata) + data)
    return path


def read(path: Path) -> Adapter:
    """Read a file of webui, kohya or ComfyUI in fp16, bf16 or fp32. A module without alpha has strength 1.

    Raises:
        TrainingError: `ExportInvalid`, naming the file and what in it is no plain LoRA of Stable Diffusion 1.x.
    """
    found: dict[str, dict[str, dict[str, Tensor]]] = {UNET_PREFIX: {}, TEXT_ENCODER_PREFIX: {}}
    for key, tensor in tensorfile.read(path).tensors.items():
        side, module, role = _parsed(key, path.name)
        if role in found[side].setdefault(module, {}):
            raise invalid(f"{path.name} holds the {role} of {module} twice, under {TEXT_ENCODER_PREFIX} and {TEXT_ENCODER_ALIAS}.")
        found[side][module][role] = tensor
    if not any(found.values()):
        raise invalid(f"{path.name} holds no LoRA modules.")
    return Adapter(
        unet=assemble(found[UNET_PREFIX], _stored_alpha, path.name),
        text_encoder=assemble(found[TEXT_ENCODER_PREFIX], _stored_alpha, path.name),
    )


def precision(path: Path) -> torch.dtype:
    """What the matrices of a file that `write` wrote are stored in."""
    return next(tensor.dtype for key, tensor in tensorfile.read(path).tensors.items() if _ROLES[key.partition(".")[2]] is DOWN)


def survives(adapter: Adapter, dtype: torch.dtype) -> bool:
    """Whether a file of this precision keeps every module's strength."""
    return _harm(rounding(adapter, dtype), dtype) is None


def _refuse_loss(lost: Rounding, dtype: torch.dtype, file: str) -> None:
    """Stop where lower precision would change the adapter, and say where it drops entries that do not matter."""
    if harm := _harm(lost, dtype):
        raise invalid(f"{harm}, so {file} was not written; write fp32.")
    if lost.vanished:
        logger.info("Entries became zero in half precision", extra={"file": file, "vanished": lost.vanished, "entries": lost.entries})


def _harm(lost: Rounding, dtype: torch.dtype) -> str | None:
    if lost.overflowed:
        return f"{lost.overflowed} entries are too large for fp16"
    if not lost.worst[1].within(dtype):
        return f"fp16 would change the LoRA by more than {RELATIVE_TOLERANCE[dtype]:.0%} ({lost})"
    return None


def _parsed(key: str, file: str) -> tuple[str, str, str]:
    """Side (the UNet's or the text encoder's prefix), module path and role of a key."""
    name, _, part = key.partition(".")
    prefix = next((prefix for prefix in _PREFIXES if name.startswith(prefix)), None)
    if prefix is None:
        raise invalid(f"{file} holds {key}, which belongs to no module of Stable Diffusion 1.x; give a LoRA of that model family.")
    path = _PREFIXES[prefix](name.removeprefix(prefix))
    if path is None:
        raise invalid(f"{file} holds {name}, which is no module of Stable Diffusion 1.x; give a LoRA of that model family.")
    if part not in _ROLES:
        raise invalid(f"{file} holds {part} of {path}; only plain LoRA (down, up and alpha) can be converted.")
    return UNET_PREFIX if prefix == UNET_PREFIX else TEXT_ENCODER_PREFIX, path, _ROLES[part]


def _alpha(alpha: float, dtype: torch.dtype) -> Tensor:
    """Alpha in the precision of the file where that holds it exactly, otherwise in fp32: every reader takes it as a number."""
    stored = torch.tensor(alpha, dtype=dtype)
    return stored if float(stored) == alpha else torch.tensor(alpha, dtype=torch.float32)


def _stored_alpha(stored: float, rank: int) -> float:  # noqa: ARG001  the rank matters only where a file holds alpha / rank
    return shortest(stored, 1)
