"""A LoRA folder as diffusers and PEFT name things: `pytorch_lora_weights.safetensors`, read by `StableDiffusionPipeline.load_lora_weights`.

The weights are the training's; alpha stands in the header, where diffusers 0.35 and newer look for it.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from charalora_trainer.export import tensorfile
from charalora_trainer.export.matrices import DOWN, UP, assemble, invalid, shortest
from charalora_trainer.export.whole import write_whole
from charalora_trainer.weights import Adapter, LoraModule

WEIGHTS = "pytorch_lora_weights.safetensors"
_METADATA = "lora_adapter_metadata"
_KEY = re.compile(r"(?P<side>unet|text_encoder)\.(?P<path>.+)\.lora_(?P<part>[AB])\.weight")
_ROLES = {"A": DOWN, "B": UP}
Number = TypeVar("Number", int, float)


def tensors(adapter: Adapter) -> dict[str, Tensor]:
    """What the file holds, fp32."""
    found: dict[str, Tensor] = {}
    for side, modules in (("unet", adapter.unet), ("text_encoder", adapter.text_encoder)):
        for path, module in modules.items():
            found[f"{side}.{path}.lora_A.weight"] = module.down.float()
            found[f"{side}.{path}.lora_B.weight"] = module.up.float()
    return found


def write(adapter: Adapter, folder: Path) -> Path:
    """Write the folder's one file, and return its path."""
    path = folder / WEIGHTS
    configuration = _configuration("unet", adapter.unet) | _configuration("text_encoder", adapter.text_encoder)
    metadata = {"format": "pt", _METADATA: json.dumps(configuration, sort_keys=True)}
    write_whole(path, tensorfile.encode(tensors(adapter), metadata))
    return path


def read(path: Path) -> Adapter:
    """Read a file that `write` wrote.

    Raises:
        TrainingError: `ExportInvalid`, naming the file and what is wrong with it.
    """
    file = tensorfile.read(path)
    found: dict[str, dict[str, dict[str, Tensor]]] = {"unet": {}, "text_encoder": {}}
    for key, tensor in file.tensors.items():
        match = _KEY.fullmatch(key)
        if match is None:
            raise invalid(f"{path.name} holds {key}, which is no part of a LoRA of Stable Diffusion 1.x.")
        found[match["side"]].setdefault(match["path"], {})[_ROLES[match["part"]]] = tensor
    configuration = json.loads(file.metadata.get(_METADATA, "{}"))
    return Adapter(**{side: _with_alpha(side, assemble(modules, shortest, path.name), configuration) for side, modules in found.items()})


def _configuration(side: str, modules: Mapping[str, LoraModule]) -> dict[str, object]:
    """The arguments of peft's LoraConfig, each under `side.`: the common rank and alpha, and the modules that have others."""
    if not modules:
        return {}
    rank = _most_common(module.rank for module in modules.values())
    alpha = _most_common(module.alpha for module in modules.values())
    return {
        f"{side}.r": rank,
        f"{side}.lora_alpha": alpha,
        f"{side}.rank_pattern": {_target(path): module.rank for path, module in modules.items() if module.rank != rank},
        f"{side}.alpha_pattern": {_target(path): module.alpha for path, module in modules.items() if module.alpha != alpha},
        f"{side}.target_modules": sorted(map(_target, modules)),
    }


def _with_alpha(side: str, modules: Mapping[str, LoraModule], configuration: Mapping[str, Any]) -> dict[str, LoraModule]:
    """The modules of one model with the alpha that the header gives them; without a header diffusers takes the rank."""
    common = configuration.get(f"{side}.lora_alpha")
    own = configuration.get(f"{side}.alpha_pattern", {})
    alphas = {path: own.get(_target(path), module.alpha if common is None else common) for path, module in modules.items()}
    return {path: replace(module, alpha=float(alphas[path])) for path, module in modules.items()}


def _most_common(numbers: Iterable[Number]) -> Number:
    counts = Counter(numbers)
    return max(counts, key=lambda number: (counts[number], number))


def _target(path: str) -> str:
    """A module as peft finds it by the end of its path, whether or not transformers has `text_model.` in front."""
    return path.removeprefix("text_model.")
