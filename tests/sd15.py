"""Stable Diffusion 1.5 in its real shapes, with random weights: what no licence keeps from a test."""

import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

from charalora_trainer.model.load import DiffusionModels
from charalora_trainer.words.tokenizer import load_tokenizer

UNET = {
    "sample_size": 64,
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
    "block_out_channels": (320, 640, 1280, 1280),
    "layers_per_block": 2,
}
TEXT_ENCODER = CLIPTextConfig(
    vocab_size=49408,
    hidden_size=768,
    intermediate_size=3072,
    num_hidden_layers=12,
    num_attention_heads=12,
    max_position_embeddings=77,
    hidden_act="quick_gelu",
    projection_dim=768,
    bos_token_id=49406,
    eos_token_id=49407,
)
VAE = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "latent_channels": 4,
    "layers_per_block": 2,
    "scaling_factor": 0.18215,
}
SCHEDULER = DDPMScheduler(num_train_timesteps=1000, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False)


def shapes() -> DiffusionModels:
    """All modules on the meta device: names and shapes, no memory."""
    with torch.device("meta"):
        return DiffusionModels(
            UNet2DConditionModel(**UNET), CLIPTextModel(TEXT_ENCODER), AutoencoderKL(**VAE), SCHEDULER, load_tokenizer(None)
        )


def random_models(dtype: torch.dtype, seed: int = 0) -> DiffusionModels:
    """UNet and text encoder with small random weights on the CPU, frozen; the VAE's memory is there, its weights are not."""
    models = shapes()
    models.vae.to_empty(device="cpu")
    torch.manual_seed(seed)
    for module in (models.unet, models.text_encoder):
        module.to(dtype).to_empty(device="cpu")
        for name, parameter in module.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif parameter.dim() == 1:
                nn.init.ones_(parameter)
            else:
                nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
        for name, buffer in module.named_buffers():
            if name.endswith("position_ids"):
                buffer.copy_(torch.arange(buffer.shape[-1]).expand_as(buffer))
        module.requires_grad_(requires_grad=False).eval()
    return models
