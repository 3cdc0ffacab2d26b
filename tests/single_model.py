"""A small Stable Diffusion 1.x in one file, as webui and civitai share them: its form is the real one, its widths are a tenth."""

from dataclasses import dataclass

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel

from charalora_trainer.basemodel import original

WIDTH = 64  # of the text
WIDTHS = (32, 64, 96, 96)  # of the blocks in UNet and VAE
# What such a file also holds, and nobody reads.
BESIDE = {
    "cond_stage_model.transformer.text_model.embeddings.position_ids": torch.arange(77)[None],
    "alphas_cumprod": torch.ones(1000),
    "model_ema.diffusion_modelinput_blocks00weight": torch.ones(32, 4, 3, 3),
}


@dataclass(frozen=True)
class Parts:
    """The modules that a file is written from and compared with."""

    unet: UNet2DConditionModel
    vae: AutoencoderKL
    text_encoder: CLIPTextModel

    def part(self, name: str) -> nn.Module:
        """`unet`, `vae` or `text_encoder`."""
        modules: dict[str, nn.Module] = {"unet": self.unet, "vae": self.vae, "text_encoder": self.text_encoder}
        return modules[name]


def random_parts(dtype: torch.dtype = torch.float16, seed: int = 0) -> Parts:
    """Random weights that `dtype` holds exactly, as fp32."""
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
    text = CLIPTextConfig(
        vocab_size=49408,
        hidden_size=WIDTH,
        intermediate_size=96,
        num_hidden_layers=12,
        num_attention_heads=1,
        projection_dim=WIDTH,
        bos_token_id=49406,
        eos_token_id=49407,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        parts = Parts(
            UNet2DConditionModel(sample_size=64, block_out_channels=WIDTHS, cross_attention_dim=WIDTH, attention_head_dim=8),
            AutoencoderKL(block_out_channels=WIDTHS, layers_per_block=2, scaling_factor=0.18215, **blocks),
            CLIPTextModel(text),
        )
    for module in (parts.unet, parts.vae, parts.text_encoder):
        module.to(dtype).to(torch.float32).eval()
    return parts


def tensors_of(parts: Parts, dtype: torch.dtype = torch.float16) -> dict[str, Tensor]:
    """What the file holds: every tensor under its original name, matrices of the VAE's attention as 1x1 convolutions."""
    widths = {
        "model.diffusion_model.input_blocks.{}.0.out_layers.3.weight": (1, 4, 7, 10),
        "first_stage_model.encoder.down.{}.block.0.conv2.weight": (0, 1, 2, 3),
    }
    text = "cond_stage_model.transformer.text_model."
    shapes: dict[str, tuple[int, ...] | None] = {
        f"{text}embeddings.token_embedding.weight": (49408, WIDTH),
        f"{text}encoder.layers.0.mlp.fc1.weight": (96, WIDTH),
        **{name.format(place): (wide,) for name, places in widths.items() for place, wide in zip(places, WIDTHS, strict=True)},
    }
    found = {}
    for name, today in original.counterparts(original.configs(shapes)).items():
        state = parts.part(today.part).state_dict()
        tensor = state[today.name] if today.name in state else state[today.name.removeprefix("text_model.")]
        convolution = ".attn_1." in name and tensor.dim() == 2
        found[name] = (tensor[:, :, None, None] if convolution else tensor).to(dtype).contiguous()
    return found
