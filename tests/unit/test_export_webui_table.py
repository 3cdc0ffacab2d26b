"""webui finds a LoRA's modules in the original Stable Diffusion's layout: its renaming rule, and that every name of ours arrives somewhere.

The rule is that of webui 1.10 (extensions-builtin/Lora), for Stable Diffusion 1.x.
"""

import re
from collections.abc import Callable

import pytest
from torch import nn

from adapters import sd15_adapter, unet_modules
from charalora_trainer.export import webui
from charalora_trainer.export.module_names import underscored

TRANSFORMERS_AT = {"input_blocks": (1, 2, 4, 5, 7, 8), "output_blocks": (3, 4, 5, 6, 7, 8, 9, 10, 11)}
RESNET_PARTS = {"conv1": "in_layers_2", "conv2": "out_layers_3", "time_emb_proj": "emb_layers_1", "conv_shortcut": "skip_connection"}
TOP = {
    "conv_in": "input_blocks_0_0",
    "conv_out": "out_2",
    "time_embedding_linear_1": "time_embed_0",
    "time_embedding_linear_2": "time_embed_2",
}
RULES: tuple[tuple[str, Callable[[re.Match[str]], str]], ...] = (
    (r"lora_te_(text_model_encoder_layers_\d+_.+)", lambda found: f"transformer_{found[1]}"),
    (r"lora_unet_((?:conv|time_embedding).+)", lambda found: TOP[found[1]]),
    (r"lora_unet_down_blocks_(\d+)_(attentions|resnets)_(\d+)_(.+)", lambda found: in_block("input_blocks", 1, found)),
    (r"lora_unet_up_blocks_(\d+)_(attentions|resnets)_(\d+)_(.+)", lambda found: in_block("output_blocks", 0, found)),
    (r"lora_unet_mid_block_attentions_0_(.+)", lambda found: f"middle_block_1_{found[1]}"),
    (r"lora_unet_mid_block_resnets_(\d+)_(.+)", lambda found: f"middle_block_{2 * int(found[1])}_{RESNET_PARTS[found[2]]}"),
    (r"lora_unet_down_blocks_(\d+)_downsamplers_0_conv", lambda found: f"input_blocks_{3 + 3 * int(found[1])}_0_op"),
    (r"lora_unet_up_blocks_0_upsamplers_0_conv", lambda _: "output_blocks_2_1_conv"),
    (r"lora_unet_up_blocks_(\d+)_upsamplers_0_conv", lambda found: f"output_blocks_{2 + 3 * int(found[1])}_2_conv"),
)


def in_block(group: str, first: int, found: re.Match[str]) -> str:
    """Three places a block; of a resnet the first part of a place, of a transformer the second."""
    place = first + 3 * int(found[1]) + int(found[3])
    return f"{group}_{place}_1_{found[4]}" if found[2] == "attentions" else f"{group}_{place}_0_{RESNET_PARTS[found[4]]}"


def webui_name(key: str) -> str | None:
    """The module of the original layout that webui looks for when it reads `key`."""
    return next((renamed(match) for rule, renamed in RULES if (match := re.fullmatch(rule, key))), None)


def original_transformer_modules() -> set[str]:
    """The attention and feed-forward layers of Stable Diffusion 1.x as its own configuration lays them out."""
    places = ["middle_block_1", *(f"{group}_{number}_1" for group, numbers in TRANSFORMERS_AT.items() for number in numbers)]
    projections = ("to_q", "to_k", "to_v", "to_out_0")
    parts = [f"{attention}_{projection}" for attention in ("attn1", "attn2") for projection in projections] + ["ff_net_0_proj", "ff_net_2"]
    return {f"{place}_transformer_blocks_0_{part}" for place in places for part in parts}


def original_text_modules() -> set[str]:
    """The layers of its text encoder."""
    parts = [*(f"self_attn_{side}_proj" for side in ("q", "k", "v", "out")), "mlp_fc1", "mlp_fc2"]
    return {f"transformer_text_model_encoder_layers_{layer}_{part}" for layer in range(12) for part in parts}


def test_every_module_of_the_guides_recipe_is_found_once() -> None:
    """232 of 232; what webui does not find it drops."""
    found = [webui_name(name) for name, _, _ in webui.modules(sd15_adapter())]

    assert 232 == len(found)
    assert original_transformer_modules() | original_text_modules() == set(found)


def test_every_weight_of_the_unet_has_a_place_of_its_own() -> None:
    """Convolutions, time projections and shortcuts as well."""
    paths = [path for path, module in unet_modules().items() if isinstance(module, nn.Linear | nn.Conv2d)]
    names = {webui_name(f"lora_unet_{underscored(path)}") for path in paths}

    assert len(paths) == len(names)
    assert None not in names


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("down_blocks.3.resnets.1.conv1", "input_blocks_11_0_in_layers_2"),
        ("up_blocks.0.upsamplers.0.conv", "output_blocks_2_1_conv"),
        ("up_blocks.2.upsamplers.0.conv", "output_blocks_8_2_conv"),
        ("mid_block.resnets.1.time_emb_proj", "middle_block_2_emb_layers_1"),
    ],
)
def test_known_places_of_the_original_layout(path: str, expected: str) -> None:
    """Looked up in its configuration by hand."""
    assert expected == webui_name(f"lora_unet_{underscored(path)}")
