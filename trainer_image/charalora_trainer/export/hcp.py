"""LoRA files of HCP-Diffusion: `unet-N.safetensors` and `text_encoder-N.safetensors`.

The number `alpha` in these files is the strength itself, alpha / rank. Names are those of the guide's time (2023-09); HCP renamed the
matrices twice, and every generation is read.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from charalora_trainer.export import tensorfile
from charalora_trainer.export.matrices import ALPHA, DOWN, UP, assemble, invalid, shortest
from charalora_trainer.export.whole import write_whole
from charalora_trainer.weights import Adapter, LoraModule

# HCP's own names: until 2023-04 `.lora_block.` and `scale`, until 2023-11 `lora_down.weight`, afterwards `W_down`.
_KEY = re.compile(r"lora:(?P<path>[^:]+?)\.(?:___|lora_block)\.(?P<part>[^:]+)")
_ROLES = {
    "layer.lora_down.weight": DOWN,
    "layer.lora_up.weight": UP,
    "layer.W_down": DOWN,
    "layer.W_up": UP,
    "alpha": ALPHA,
    "scale": ALPHA,
}


def unet_file(step: int) -> str:
    """Name of the UNet's file, as the guide's visualizer looks for it."""
    return f"unet-{step}.safetensors"


def text_encoder_file(step: int) -> str:
    """Name of the text encoder's file."""
    return f"text_encoder-{step}.safetensors"


def tensors(modules: Mapping[str, LoraModule]) -> dict[str, Tensor]:
    """What one file holds, fp32."""
    found: dict[str, Tensor] = {}
    for path, module in modules.items():
        found[f"lora:{path}.___.layer.lora_down.weight"] = module.down.float()
        found[f"lora:{path}.___.layer.lora_up.weight"] = module.up.float()
        found[f"lora:{path}.___.alpha"] = torch.tensor(module.scale, dtype=torch.float32)
    return found


def write(adapter: Adapter, folder: Path, step: int) -> tuple[Path, ...]:
    """Write one file for each model that was trained; no file without a module, as an empty one cannot be loaded."""
    parts = ((unet_file(step), adapter.unet), (text_encoder_file(step), adapter.text_encoder))
    return tuple(write_modules(modules, folder / name) for name, modules in parts if modules)


def write_modules(modules: Mapping[str, LoraModule], path: Path) -> Path:
    """Write the modules of one model, UNet or text encoder."""
    write_whole(path, tensorfile.encode(tensors(modules), {}))
    return path


def read_step(folder: Path, step: int) -> Adapter:
    """The LoRA of one step. A model that was not trained has no file; that both are missing is an error.

    Raises:
        TrainingError: As `read`.
    """
    unet, text_encoder = folder / unet_file(step), folder / text_encoder_file(step)
    if not (unet.is_file() or text_encoder.is_file()):
        raise invalid(f"{folder} has neither {unet.name} nor {text_encoder.name}; give the folder and a step of a training.")
    return Adapter(read(unet) if unet.is_file() else {}, read(text_encoder) if text_encoder.is_file() else {})


def read(path: Path) -> dict[str, LoraModule]:
    """The modules of one file, whichever version of HCP wrote it.

    Raises:
        TrainingError: `ExportInvalid`, naming the file and what is wrong with it.
    """
    found: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensorfile.read(path).tensors.items():
        module, role = _parsed(key, path.name)
        if role in found.setdefault(module, {}):
            raise invalid(f"{path.name} holds the {role} of {module} twice; it is no HCP LoRA.")
        found[module][role] = tensor
    if not found:
        raise invalid(f"{path.name} holds no LoRA modules.")
    return assemble(found, shortest, path.name)


def _parsed(key: str, file: str) -> tuple[str, str]:
    """Module path and role of a key."""
    match = _KEY.fullmatch(key)
    if match is None:
        raise invalid(f"{file} holds {key}, which is no part of an HCP LoRA; give a unet-N or text_encoder-N file that holds only LoRA.")
    if match["part"] not in _ROLES:
        raise invalid(f"{file} holds {match['part']} of {match['path']}; only plain LoRA (down, up and alpha) can be read.")
    return match["path"], _ROLES[match["part"]]
