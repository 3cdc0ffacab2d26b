"""`charalora convert`: LoRA files between HCP and webui, embeddings between `.pt` and `.safetensors`.

HCP's converter multiplies both matrices by √rank in both directions, so that there and back changes the strength 64 times (rank 8). Here
only the stored number changes meaning: HCP's is alpha / rank, webui's is alpha.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path

import torch

from charalora_spec.outcome import Outcome, TrainingError
from charalora_trainer.export import hcp, webui
from charalora_trainer.export.module_names import text_encoder_path, underscored, unet_path
from charalora_trainer.export.proof import prove_hcp_file, prove_webui, prove_word
from charalora_trainer.weights import Adapter, LoraModule
from charalora_trainer.words import embedding

_STEP = re.compile(r"-(\d+)$")


class Direction(Enum):
    """Which way to convert."""

    TO_WEBUI = "to-webui"
    FROM_WEBUI = "from-webui"


@dataclass(frozen=True)
class Conversion:
    """What was written, and what the user should know about it."""

    files: tuple[Path, ...]
    warnings: tuple[str, ...]


def direction(*, to_webui: bool, from_webui: bool) -> Direction:
    """The direction that the user chose.

    Raises:
        TrainingError: `SpecInvalid` when it is none or both.
    """
    if to_webui == from_webui:
        given = "Both directions were" if to_webui else "No direction was"
        raise _refused(f"{given} given: choose --to-webui (unet-N and text_encoder-N into one file) or --from-webui (one file into two).")
    return Direction.TO_WEBUI if to_webui else Direction.FROM_WEBUI


def to_webui(
    unet: Path, text_encoder: Path | None, target: Path, *, auto_scale_alpha: bool, fp16: bool = False, any_steps: bool = False
) -> Conversion:
    """Join HCP's two files into one for webui, proven before this returns.

    Args:
        unet: `unet-N.safetensors`, of any version of HCP.
        text_encoder: `text_encoder-N.safetensors`; none leaves the text encoder as it is.
        target: The file to write.
        auto_scale_alpha: Keep the trained strength. Without it HCP's number is copied as it is, which webui divides by the rank once more.
        fp16: Write half precision.
        any_steps: Take files of different steps.

    Raises:
        TrainingError: `SpecInvalid` for files that do not belong together, `ExportInvalid` for a file that is no plain LoRA.
    """
    if text_encoder is not None and not any_steps:
        _refuse_steps(unet, text_encoder)
    if target.is_dir():
        raise _refused(f"{target} is a folder; give the name of the file to write.")
    adapter = Adapter(unet=_read_unet(unet), text_encoder=_read_text_encoder(text_encoder) if text_encoder else {})
    warnings: tuple[str, ...] = ()
    if not auto_scale_alpha:
        adapter = Adapter(unet=_divided(adapter.unet), text_encoder=_divided(adapter.text_encoder))
        warnings = (
            f"Without --auto_scale_alpha webui applies 1/rank ({_ranks(adapter)}) of the trained strength, as with HCP's converter.",
        )
    dtype = torch.float16 if fp16 else torch.float32
    webui.write(adapter, target, dtype=dtype)
    prove_webui(target, adapter, dtype)
    return Conversion((target,), (*warnings, *(_lost(adapter, dtype) if fp16 else ())))


def from_webui(lora: Path, folder: Path, *, auto_scale_alpha: bool) -> Conversion:
    """Split a webui LoRA into HCP's two files, `unet-<name>` and `TE-<name>` in `folder`, proven before this returns.

    Args:
        lora: A LoRA of webui, kohya or ComfyUI in any precision.
        folder: Where the files go.
        auto_scale_alpha: Keep the strength: HCP's number becomes alpha / rank. Without it alpha is copied as it is.

    Raises:
        TrainingError: `ExportInvalid` for a file that is no plain LoRA of Stable Diffusion 1.x.
    """
    if folder.is_file():
        raise _refused(f"{folder} is a file; give the folder to write two files into.")
    adapter = webui.read(_existing(lora))
    warnings = _ignored_alphas(adapter)
    if not auto_scale_alpha:
        warnings = ("Without --auto_scale_alpha alpha is not divided by the rank, so the LoRA becomes rank times as strong.",)
        adapter = Adapter(unet=_multiplied(adapter.unet), text_encoder=_multiplied(adapter.text_encoder))
    sides = ((folder / f"unet-{lora.name}", adapter.unet), (folder / f"TE-{lora.name}", adapter.text_encoder))
    written = [(hcp.write_modules(modules, path), modules) for path, modules in sides if modules]
    for path, modules in written:
        prove_hcp_file(path, modules)
    return Conversion(tuple(path for path, _ in written), warnings)


def convert_embedding(source: Path, target: Path) -> Conversion:
    """Write an embedding as the other kind of file, `.pt` or `.safetensors` by the target's ending; its name is the new trigger word.

    Raises:
        TrainingError: `SpecInvalid` for another ending, or a source that is no embedding.
    """
    word = replace(embedding.load(source), name=target.stem)
    match target.suffix:
        case ".pt":
            embedding.save_pt(word, target)
        case ".safetensors":
            embedding.save_safetensors(word, target)
        case other:
            raise _refused(f"{target.name} ends in {other or 'nothing'}: name the embedding .pt or .safetensors.")
    prove_word(target, word)
    return Conversion((target,), ())


def _read_unet(path: Path) -> dict[str, LoraModule]:
    modules = hcp.read(_existing(path))
    if any(text_encoder_path(underscored(module)) for module in modules):
        raise _refused(f"{path.name} holds the text encoder's LoRA; give it as --lora_path_TE, and the UNet's as --lora_path.")
    return modules


def _read_text_encoder(path: Path) -> dict[str, LoraModule]:
    modules = hcp.read(_existing(path))
    if any(unet_path(underscored(module)) for module in modules):
        raise _refused(f"{path.name} holds the UNet's LoRA; give it as --lora_path, and the text encoder's as --lora_path_TE.")
    return modules


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise _refused(f"{path} is not there; give the path of a LoRA file.")
    return path


def _refuse_steps(unet: Path, text_encoder: Path) -> None:
    steps = [_STEP.search(path.stem) for path in (unet, text_encoder)]
    if all(steps) and len({step[1] for step in steps if step}) > 1:
        raise _refused(f"{unet.name} and {text_encoder.name} are of different steps; give files of one step, or say --any-steps.")


def _divided(modules: Mapping[str, LoraModule]) -> dict[str, LoraModule]:
    """Alpha / rank in alpha's place."""
    return {path: replace(module, alpha=module.scale) for path, module in modules.items()}


def _multiplied(modules: Mapping[str, LoraModule]) -> dict[str, LoraModule]:
    """Alpha in the place of alpha / rank."""
    return {path: replace(module, alpha=module.alpha * module.rank) for path, module in modules.items()}


def _ranks(adapter: Adapter) -> str:
    ranks = {module.rank for modules in (adapter.unet, adapter.text_encoder) for module in modules.values()}
    return ", ".join(f"1/{rank}" for rank in sorted(ranks))


def _ignored_alphas(adapter: Adapter) -> tuple[str, ...]:
    alphas = {module.alpha for modules in (adapter.unet, adapter.text_encoder) for module in modules.values()} - {1.0}
    if not alphas:
        return ()
    numbers = ", ".join(f"{alpha:g}" for alpha in sorted(alphas))
    return (f"The files hold alpha {numbers}, which HCP-Diffusion ignores when it loads them; multiply merge.alpha by it there.",)


def _lost(adapter: Adapter, dtype: torch.dtype) -> tuple[str, ...]:
    lost = webui.rounding(adapter, dtype)
    return (f"In half precision {lost}.",) if lost.vanished else ()


def _refused(what: str) -> TrainingError:
    return TrainingError(Outcome.SPEC_INVALID, what)
