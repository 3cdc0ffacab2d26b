"""The config files of a base model's parts, as far as training depends on them.

What a file leaves out has the value that diffusers and transformers assume.
"""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Channels = Annotated[int, Field(ge=1, le=8192)]
Layers = Annotated[int, Field(ge=1, le=64)]
Blocks = Annotated[tuple[str, ...], Field(min_length=1, max_length=8)]
BlockChannels = Annotated[tuple[Channels, ...], Field(min_length=1, max_length=8)]

# Settings of a UNet that add, take away or reshape tensors, and the value that leaves it as Stable Diffusion 1.x has it.
_PLAIN_UNET: Mapping[str, Any] = {
    "addition_embed_type": None, "attention_type": "default", "class_embed_type": None, "conv_in_kernel": 3, "conv_out_kernel": 3,
    "cross_attention_norm": None, "dual_cross_attention": False, "encoder_hid_dim": None, "encoder_hid_dim_type": None,
    "mid_block_only_cross_attention": None, "mid_block_type": "UNetMidBlock2DCrossAttn", "num_class_embeds": None,
    "only_cross_attention": False,
    "projection_class_embeddings_input_dim": None, "resnet_time_scale_shift": "default", "reverse_transformer_layers_per_block": None,
    "time_cond_proj_dim": None, "time_embedding_dim": None, "time_embedding_type": "positional", "transformer_layers_per_block": 1,
}  # fmt: skip
_UNET_BLOCKS = {"CrossAttnDownBlock2D", "DownBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"}


class _Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class UnetConfig(_Config):
    """UNet2DConditionModel."""

    in_channels: Channels = 4
    out_channels: Channels = 4
    block_out_channels: BlockChannels = (320, 640, 1280, 1280)
    down_block_types: Blocks = ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D")
    up_block_types: Blocks = ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D")
    layers_per_block: Layers = 2
    cross_attention_dim: Channels = 1280
    use_linear_projection: bool = False


class VaeConfig(_Config):
    """AutoencoderKL."""

    in_channels: Channels = 3
    out_channels: Channels = 3
    block_out_channels: BlockChannels = (64,)
    layers_per_block: Layers = 1
    latent_channels: Channels = 4
    use_quant_conv: bool = True
    use_post_quant_conv: bool = True


class TextEncoderConfig(_Config):
    """CLIPTextModel."""

    vocab_size: Annotated[int, Field(ge=2, le=1_000_000)] = 49408
    hidden_size: Channels = 512
    intermediate_size: Annotated[int, Field(ge=1, le=65536)] = 2048
    num_hidden_layers: Layers = 12
    max_position_embeddings: Channels = 77


def unusual(unet: Mapping[str, Any]) -> list[str]:
    """Settings of a UNet's config file that no Stable Diffusion 1.x has."""
    found = [f"{name}: {unet[name]}" for name, plain in _PLAIN_UNET.items() if unet.get(name, plain) != plain]
    blocks = [block for key in ("down_block_types", "up_block_types") for block in unet.get(key, ())]
    return found + [f"block {block}" for block in dict.fromkeys(blocks) if block not in _UNET_BLOCKS]
