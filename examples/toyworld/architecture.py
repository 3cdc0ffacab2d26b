"""The toy base model, untrained: the components of an ordinary Stable Diffusion 1.5 pipeline, some hundred times smaller."""

from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDPMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from toyworld.reading import WIDTH, text_encoder
from toyworld.tokenizer import write_tokenizer

PICTURE = 128
LATENT = PICTURE // 8


@dataclass
class Components:
    """The trained parts of a pipeline, and the two that only describe."""

    vae: AutoencoderKL
    text_encoder: CLIPTextModel
    unet: UNet2DConditionModel
    tokenizer: CLIPTokenizer
    scheduler: DDPMScheduler

    def save(self, folder: Path, dtype: torch.dtype = torch.float16) -> None:
        """Write a pipeline folder in diffusers' layout."""
        pipeline = StableDiffusionPipeline(
            vae=self.vae,
            text_encoder=self.text_encoder,
            tokenizer=self.tokenizer,
            unet=self.unet,
            scheduler=self.scheduler,
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
        pipeline.to(dtype=dtype)
        pipeline.save_pretrained(folder, safe_serialization=True)
        write_tokenizer(folder / "tokenizer")


def vae() -> AutoencoderKL:
    """Pictures of 128x128 to latents of 4x16x16 and back, as Stable Diffusion does: a factor of 8."""
    return AutoencoderKL(
        block_out_channels=(16, 48, 64, 64),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=PICTURE,
        scaling_factor=1.0,
    )


def unet() -> UNet2DConditionModel:
    """The denoiser. It attends to the caption at 16x16, at 8x8 and in the middle, so a LoRA has the same places as in a real model."""
    model = UNet2DConditionModel(
        sample_size=LATENT,
        block_out_channels=(48, 96, 112),
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=WIDTH,
        attention_head_dim=4,
        norm_num_groups=16,
    )
    listen(model)
    return model


def listen(model: UNet2DConditionModel) -> None:
    """Start the attention to captions four times as selective: evenly spread over 77 tokens, no single word is heard."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("attn2.to_k.weight"):
                weight.mul_(4)


def scheduler() -> DDPMScheduler:
    """Stable Diffusion 1.5's noise schedule."""
    return DDPMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        num_train_timesteps=1000,
        prediction_type="epsilon",
        clip_sample=False,
        steps_offset=1,
    )


def untrained(tokenizer_folder: Path, seed: int = 0) -> Components:
    """All components with random weights, the same for the same seed; the tokenizer is written to `tokenizer_folder`."""
    tokenizer = write_tokenizer(tokenizer_folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Components(vae(), text_encoder(tokenizer, seed), unet(), tokenizer, scheduler())


def untrained_base(folder: Path, seed: int = 0) -> None:
    """Write a whole pipeline folder with random weights: for tests that need a model of the right shape but nothing learned."""
    untrained(folder / "tokenizer", seed).save(folder)
