"""The tensors of a single-file model: names and shapes of the original implementation, and what diffusers and transformers call them today.

Names are those of github.com/CompVis/latent-diffusion (ldm/modules/diffusionmodules, openaimodel.py and model.py), which counts the UNet's
blocks through and the VAE's upward blocks from the end. The form is Stable Diffusion 1.x's; only its widths are read from the file.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from charalora_trainer.basemodel import expected
from charalora_trainer.basemodel.configs import TextEncoderConfig, UnetConfig, VaeConfig
from charalora_trainer.basemodel.expected import Shape

UNET, VAE, TEXT_ENCODER = "model.diffusion_model.", "first_stage_model.", "cond_stage_model.transformer."

_LAYERS = 2  # of each block in UNet and VAE; a block of the UNet counts one more, for its change of resolution
_LAST_BLOCK = 3
_GROUPS, _HEAD = 32, 64  # what widths are multiples of: groups of a norm, width of one of CLIP's heads

_UNET_ENDS = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_UNET_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_VAE_INNER = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out", "conv_shortcut": "nin_shortcut"}
_UNET_BLOCK = re.compile(
    r"(?P<side>down|mid|up)_blocks?\.((?P<block>\d)\.)?(?P<what>resnets|attentions|\w+samplers)\.(?P<layer>\d)\.(?P<inner>.+)"
)
_VAE_BLOCK = re.compile(
    r"(?P<half>encoder|decoder)\.(?P<side>down|mid|up)_blocks?\.((?P<block>\d)\.)?(?P<what>resnets|attentions|\w+samplers)\."
    r"(?P<layer>\d)\.(?P<inner>.+)\.(?P<kind>weight|bias)"
)


@dataclass(frozen=True)
class Configs:
    """What a single-file model would say of itself if it had config files."""

    unet: UnetConfig
    vae: VaeConfig
    text_encoder: TextEncoderConfig


@dataclass(frozen=True)
class Counterpart:
    """What a tensor of a single file is today.

    Attributes:
        part: `unet`, `vae` or `text_encoder`.
        name: In diffusers' and transformers' files.
        shape: There; in the single file a matrix of the VAE's attention is a 1x1 convolution.
    """

    part: str
    name: str
    shape: Shape


def configs(shapes: Mapping[str, Shape | None]) -> Configs:
    """The widths of a model from its tensors' shapes; where those say nothing, or nothing possible, Stable Diffusion 1.5's."""

    def side(name: str, axis: int, usual: int, multiple: int) -> int:
        shape = shapes.get(name) or ()
        length = shape[axis] if axis < len(shape) else 0
        return length if 0 < length <= 8 * usual and length % multiple == 0 else usual

    unet = (side(f"{UNET}input_blocks.{3 * block + 1}.0.out_layers.3.weight", 0, wide, _GROUPS) for block, wide in _numbered(320))
    vae = (side(f"{VAE}encoder.down.{block}.block.0.conv2.weight", 0, wide, _GROUPS) for block, wide in _numbered(128))
    text = side(f"{TEXT_ENCODER}text_model.embeddings.token_embedding.weight", 1, 768, _HEAD)
    inner = side(f"{TEXT_ENCODER}text_model.encoder.layers.0.mlp.fc1.weight", 0, 3072, 1)
    return Configs(
        UnetConfig(block_out_channels=tuple(unet), cross_attention_dim=text, layers_per_block=_LAYERS),
        VaeConfig(block_out_channels=tuple(vae), layers_per_block=_LAYERS),
        TextEncoderConfig(hidden_size=text, intermediate_size=inner),
    )


def counterparts(configs: Configs) -> dict[str, Counterpart]:
    """All tensors that a model of these widths has, by their names in a single file."""
    unet, vae, text = expected.unet(configs.unet), expected.vae(configs.vae), expected.text_encoder(configs.text_encoder)
    return {
        **{UNET + _unet_name(name): Counterpart("unet", name, shape) for name, shape in unet.items()},
        **{VAE + _vae_name(name): Counterpart("vae", name, shape) for name, shape in vae.items()},
        **{TEXT_ENCODER + name: Counterpart("text_encoder", name, shape) for name, shape in text.items()},
    }


def today(name: str) -> str:
    """A name in a file as it is written now: the first generation left `text_model.` out of the text encoder's."""
    inner = name.removeprefix(TEXT_ENCODER)
    old = inner != name and inner.startswith(("embeddings.", "encoder.", "final_layer_norm."))
    return f"{TEXT_ENCODER}text_model.{inner}" if old else name


def _numbered(first: int) -> list[tuple[int, int]]:
    return list(enumerate((first, 2 * first, 4 * first, 4 * first)))


def _unet_name(name: str) -> str:
    found = _UNET_BLOCK.fullmatch(name)
    if found is None:
        module, _, kind = name.rpartition(".")
        return f"{_UNET_ENDS[module]}.{kind}"
    block, layer, what, inner = int(found["block"] or 0), int(found["layer"]), found["what"], found["inner"]
    if what == "resnets":
        module, _, kind = inner.rpartition(".")
        inner = f"{_UNET_RESNET[module]}.{kind}"
    below, beside = block * (_LAYERS + 1), 1 if what == "attentions" else 0
    match found["side"]:
        case "mid":
            return f"middle_block.{2 * layer + beside}.{inner}"
        case "down" if what == "downsamplers":
            return f"input_blocks.{below + _LAYERS + 1}.0.{inner.replace('conv', 'op')}"
        case "down":
            return f"input_blocks.{below + layer + 1}.{beside}.{inner}"
        case _ if what == "upsamplers":  # behind the attention, which the lowest block does not have
            return f"output_blocks.{below + _LAYERS}.{2 if block else 1}.{inner}"
        case _:
            return f"output_blocks.{below + layer}.{beside}.{inner}"


def _vae_name(name: str) -> str:
    found = _VAE_BLOCK.fullmatch(name)
    if found is None:
        return name.replace("conv_norm_out", "norm_out")
    half, side, what, layer = found["half"], found["side"], found["what"], int(found["layer"])
    inner = f"{_VAE_INNER.get(found['inner'], found['inner'])}.{found['kind']}"
    if side == "mid":
        return f"{half}.mid.{f'block_{layer + 1}' if what == 'resnets' else f'attn_{layer + 1}'}.{inner}"
    block = int(found["block"]) if side == "down" else _LAST_BLOCK - int(found["block"])
    return f"{half}.{side}.{block}.{f'block.{layer}' if what == 'resnets' else what.removesuffix('rs')}.{inner}"
