"""Loading a base model, from its folder or its file."""

from dataclasses import dataclass
from pathlib import Path

import diffusers.utils.logging
import torch
import transformers
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from tokenizers import Tokenizer
from transformers import CLIPTextModel

from charalora_spec.outcome import Outcome, TrainingError
from charalora_spec.spec import Prediction
from charalora_trainer.model import single_file
from charalora_trainer.words.tokenizer import load_tokenizer


@dataclass(frozen=True)
class DiffusionModels:
    """A Stable Diffusion of the 1.x family, in parts.

    Attributes:
        unet: Predicts noise (or velocity) from noisy latents, a timestep and the conditioning.
        text_encoder: CLIP's text model; its hidden states are the conditioning.
        vae: Between pictures and latents; always fp32, because half precision makes black pictures.
        scheduler: The base model's noise schedule, with the prediction type that the resource asks for.
        tokenizer: CLIP's BPE with the base model's vocabulary.
    """

    unet: UNet2DConditionModel
    text_encoder: CLIPTextModel
    vae: AutoencoderKL
    scheduler: DDPMScheduler
    tokenizer: Tokenizer

    def to(self, device: torch.device, dtype: torch.dtype) -> "DiffusionModels":
        """Move all parts, in place; UNet and text encoder take `dtype`, the VAE stays in fp32."""
        self.unet.to(device=device, dtype=dtype, memory_format=torch.channels_last)
        self.text_encoder.to(device=device, dtype=dtype)
        self.vae.to(device=device)
        return self


def load_models(path: Path, prediction: Prediction) -> DiffusionModels:
    """Load a diffusers folder, or one .safetensors or .ckpt file, in fp32 on the CPU, frozen and in evaluation mode.

    Raises:
        TrainingError: `BaseModelInvalid` when a part is missing, damaged or needs code to load.
    """
    _quiet_libraries()
    models = _of_folder(path, prediction) if path.is_dir() else _of_file(path, prediction)
    for module in (models.unet, models.text_encoder, models.vae):
        module.requires_grad_(requires_grad=False).eval()
    return models


def _of_file(path: Path, prediction: Prediction) -> DiffusionModels:
    unet, text_encoder, vae = single_file.load_parts(path)
    return DiffusionModels(unet, text_encoder, vae, single_file.scheduler(prediction), load_tokenizer(None))


def _of_folder(path: Path, prediction: Prediction) -> DiffusionModels:
    try:
        unet = UNet2DConditionModel.from_pretrained(path, **_weights(path, "unet"))
        text_encoder = CLIPTextModel.from_pretrained(path, **_weights(path, "text_encoder"))
        vae = AutoencoderKL.from_pretrained(path, **_weights(path, "vae"))
        scheduler = DDPMScheduler.from_pretrained(path, subfolder="scheduler", prediction_type=prediction.value)
    except (OSError, ValueError, RuntimeError) as error:
        raise TrainingError(
            Outcome.BASE_MODEL_INVALID,
            f"The base model in {path} cannot be loaded ({_first_line(error)}); give a complete diffusers folder of Stable Diffusion 1.x.",
        ) from error
    return DiffusionModels(unet, text_encoder, vae, scheduler, load_tokenizer(path / "tokenizer"))


def _weights(folder: Path, part: str) -> dict[str, object]:
    """Arguments for `from_pretrained`: the plain weights, or the fp16 variant where only that stands."""
    files = [file.name for file in (folder / part).glob("*") if file.suffix in {".safetensors", ".bin"}]
    variant = "fp16" if files and all(".fp16." in name for name in files) else None
    return {"subfolder": part, "variant": variant, "dtype": torch.float32, "local_files_only": True}


def _quiet_libraries() -> None:
    """Their progress bars and notes about optional packages tell a user of this program nothing; their errors are raised anyway."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    diffusers.utils.logging.set_verbosity_error()
    diffusers.utils.logging.disable_progress_bar()


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
