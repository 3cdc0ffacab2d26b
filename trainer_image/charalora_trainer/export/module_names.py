"""Module paths as webui and kohya write them: dots become underscores, which only a table can undo.

The table holds every Linear and convolution of a UNet2DConditionModel's ordinary blocks and of CLIP's text model; `#` is a number, so it
holds for any depth. A test compares it with the models' own modules.
"""

import re

UNET_PREFIX = "lora_unet_"
TEXT_ENCODER_PREFIX = "lora_te_"
# Some programs number the text encoders of SD1.5 too; webui and ComfyUI read both, kohya only the other.
TEXT_ENCODER_ALIAS = "lora_te1_"

_TRANSFORMER = "attentions.#.transformer_blocks.#"
_PROJECTIONS = ("to_q", "to_k", "to_v", "to_out.0")
_OF_A_BLOCK = (
    *(f"{_TRANSFORMER}.{attention}.{projection}" for attention in ("attn1", "attn2") for projection in _PROJECTIONS),
    f"{_TRANSFORMER}.ff.net.0.proj",
    f"{_TRANSFORMER}.ff.net.2",
    "attentions.#.proj_in",
    "attentions.#.proj_out",
    "resnets.#.conv1",
    "resnets.#.conv2",
    "resnets.#.time_emb_proj",
    "resnets.#.conv_shortcut",
    "downsamplers.#.conv",
    "upsamplers.#.conv",
)
UNET_PATHS = (
    "conv_in",
    "conv_out",
    "time_embedding.linear_1",
    "time_embedding.linear_2",
    *(f"{block}.{module}" for block in ("down_blocks.#", "mid_block", "up_blocks.#") for module in _OF_A_BLOCK),
)
TEXT_ENCODER_PATHS = tuple(
    f"text_model.encoder.layers.#.{module}"
    for module in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj", "mlp.fc1", "mlp.fc2")
)


def underscored(path: str) -> str:
    """A path with its dots gone, as it stands in a key."""
    return path.replace(".", "_")


def unet_path(name: str) -> str | None:
    """The UNet module whose underscored path is `name`; none if there is no such module."""
    return _recovered(name, UNET_PATHS)


def text_encoder_path(name: str) -> str | None:
    """The text encoder's module whose underscored path is `name`; none if there is no such module."""
    return _recovered(name, TEXT_ENCODER_PATHS)


def _recovered(name: str, paths: tuple[str, ...]) -> str | None:
    for path in paths:
        match = re.fullmatch(underscored(path).replace("#", r"(\d+)"), name, re.ASCII)
        if match:
            numbers = iter(match.groups())
            return "".join(next(numbers) if character == "#" else character for character in path)
    return None
