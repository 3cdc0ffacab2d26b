"""The proof by another reader: diffusers' own loader takes base model, LoRA and embedding, and its merged weights are compared.

Apart from `proof` because diffusers takes seconds to import.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from charalora_spec.outcome import Outcome, TrainingError
from charalora_spec.spec import Prediction
from charalora_trainer.export.matrices import Deviation, apart, invalid
from charalora_trainer.export.proof import Proof, agreed
from charalora_trainer.model import single_file
from charalora_trainer.weights import Adapter, LoraModule, Word
from charalora_trainer.words.tokenizer import BOS, EOS, load_tokenizer

_NO_PARTS = {"vae": None, "safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
_UNREADABLE = (ValueError, KeyError, RuntimeError, TypeError, OSError)


def prove_in_diffusers(
    base: Path, lora: Path, adapter: Adapter, words: Mapping[Path, Word], dtype: torch.dtype = torch.float32
) -> tuple[Proof, ...]:
    """Load base model, LoRA and embeddings as a user of diffusers does, and compare what the pipeline then holds.

    Args:
        base: The base model's diffusers folder, or its single file, whose parts are put into a pipeline.
        lora: A webui file, or a folder with `pytorch_lora_weights.safetensors`.
        adapter: What training computed.
        words: The trained words by their files.
        dtype: Precision of the LoRA file: fp32 must agree within 1e-6, fp16 within one percent of each module's update.

    Raises:
        TrainingError: `ExportInvalid`, naming the file and the module; `BaseModelInvalid` when diffusers cannot load the base model.
    """
    with torch.random.fork_rng(devices=[]):  # new embedding rows are drawn before ours are put there; the training's numbers stay its own
        pipeline = _pipeline(base)
        _load(pipeline.load_lora_weights, lora)
        for path, word in words.items():
            _prove_rows(pipeline, path, word)
        sides = ((pipeline.unet, adapter.unet, ""), (pipeline.text_encoder, adapter.text_encoder, "text_model."))
        return tuple(_prove_merged(model, trained, prefix, lora, dtype) for model, trained, prefix in sides)


def _prove_merged(model: nn.Module, trained: Mapping[str, LoraModule], prefix: str, file: Path, dtype: torch.dtype) -> Proof:
    """Merge module by module, so that only one weight is copied at a time."""
    layers = {f"{prefix}{path.removeprefix(prefix)}": layer for path, layer in model.named_modules() if isinstance(layer, BaseTunerLayer)}
    if layers.keys() != trained.keys():
        odd = min(layers.keys() ^ trained.keys())
        raise invalid(f"diffusers finds {len(layers)} of {len(trained)} modules in {file.name}; {odd} makes the difference.")
    found = {f"{path} of {file.name}, merged by diffusers,": _merged(layers[path], module) for path, module in trained.items()}
    differences = [agreed(found[where], dtype, where) for where in found]
    return Proof(file.name, len(trained), max(differences, default=0.0))


@torch.no_grad()
def _merged(layer: Any, expected: LoraModule) -> Deviation:
    weight: Tensor = layer.get_base_layer().weight
    before = weight.clone()
    layer.merge()
    update = expected.delta()
    difference = weight - (before + update)
    layer.unmerge()
    return apart(update, difference)


def _prove_rows(pipeline: Any, path: Path, word: Word) -> None:
    _load(pipeline.load_textual_inversion, path, token=word.name)
    names = [word.name, *(f"{word.name}_{row}" for row in range(1, len(word.vectors)))]
    rows = pipeline.text_encoder.get_input_embeddings().weight[pipeline.tokenizer.convert_tokens_to_ids(names)]
    if not torch.equal(rows.detach(), word.vectors.detach().float().cpu()):
        raise invalid(f"diffusers finds other rows in {path.name} than those of the trained word {word.name}.")


def _pipeline(base: Path) -> Any:
    if base.is_file():
        return _pipeline_of_file(base)
    files = [file.name for file in (base / "unet").glob("*.safetensors")] + [file.name for file in (base / "unet").glob("*.bin")]
    variant = "fp16" if files and all(".fp16." in name for name in files) else None
    try:
        return StableDiffusionPipeline.from_pretrained(str(base), dtype=torch.float32, variant=variant, local_files_only=True, **_NO_PARTS)
    except _UNREADABLE as error:
        raise TrainingError(Outcome.BASE_MODEL_INVALID, f"diffusers cannot load the base model in {base}: {_first_line(error)}") from error


def _pipeline_of_file(file: Path) -> Any:
    """Diffusers' own way asks the hub for configs, so its parts are loaded as for training."""
    unet, text_encoder, _ = single_file.load_parts(file)
    special = {"bos_token": BOS, "eos_token": EOS, "unk_token": EOS, "pad_token": EOS}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=load_tokenizer(None), **special)
    scheduler = single_file.scheduler(Prediction.EPSILON)
    return StableDiffusionPipeline(text_encoder=text_encoder, tokenizer=tokenizer, unet=unet, scheduler=scheduler, **_NO_PARTS)


def _load(loader: Callable[..., None], file: Path, **arguments: str) -> None:
    try:
        loader(str(file), **arguments)
    except _UNREADABLE as error:
        raise invalid(f"diffusers cannot load {file.name}: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
