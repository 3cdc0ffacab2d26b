"""Names and shapes of single-file models, compared with diffusers' own converters."""

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint

from charalora_trainer.basemodel import original
from charalora_trainer.basemodel.header import TensorInfo
from charalora_trainer.basemodel.single_file import problem

USUAL = original.counterparts(original.configs({}))
SMALL = {
    "model.diffusion_model.input_blocks.1.0.out_layers.3.weight": (32, 32, 3, 3),
    "first_stage_model.encoder.down.0.block.0.conv2.weight": (32, 32, 3, 3),
    "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight": (49408, 64),
}


def infos(shapes: dict[str, tuple[int, ...]]) -> dict[str, TensorInfo]:
    return {name: TensorInfo("F16", shape) for name, shape in shapes.items()}


@pytest.mark.parametrize(("part", "count"), [("unet", 686), ("vae", 248)])
def test_every_name_is_the_one_that_diffusers_converts(part: str, count: int) -> None:
    """Tensors under the original names come out of the library's converter under ours; a marker tells them apart."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(cross_attention_dim=768)
        blocks = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
        vae = AutoencoderKL(block_out_channels=(128, 256, 512, 512), layers_per_block=2, **blocks)
    model, convert = {"unet": (unet, convert_ldm_unet_checkpoint), "vae": (vae, convert_ldm_vae_checkpoint)}[part]
    names = [name for name, today in USUAL.items() if today.part == part]

    converted = convert({name: torch.full((1, 1, 1, 1), number) for number, name in enumerate(names)}, dict(model.config))

    assert count == len(names)
    assert {USUAL[name].name: number for number, name in enumerate(names)} == {name: int(mark) for name, mark in converted.items()}
    assert {name: tuple(value.shape) for name, value in model.state_dict().items()} == {
        today.name: today.shape for today in USUAL.values() if today.part == part
    }


def test_widths_are_read_from_the_shapes() -> None:
    """A smaller model of the same form is one too."""
    small = original.configs(SMALL)

    assert (32, 640, 1280, 1280) == small.unet.block_out_channels
    assert (32, 256, 512, 512) == small.vae.block_out_channels
    assert (64, 64) == (small.unet.cross_attention_dim, small.text_encoder.hidden_size)


@pytest.mark.parametrize("shape", [None, (), (0,), (33, 1), (2**40, 1)])
def test_a_shape_that_cannot_be_changes_nothing(shape: tuple[int, ...] | None) -> None:
    """The widths stay those of Stable Diffusion 1.5, and the comparison that follows names the tensor."""
    assert original.configs({}) == original.configs({next(iter(SMALL)): shape})


def test_a_whole_model_has_no_problem() -> None:
    """With what training does not read beside it."""
    beside = {"cond_stage_model.transformer.text_model.embeddings.position_ids": (1, 77), "model_ema.decay": (), "alphas_cumprod": (1000,)}

    assert problem("x.safetensors", infos({name: today.shape for name, today in USUAL.items()} | beside)) is None


@pytest.mark.parametrize(
    "name",
    [
        "model.diffusion_model.output_blocks.5.2.conv.bias",
        "first_stage_model.decoder.up.0.block.2.norm2.weight",
        "cond_stage_model.transformer.text_model.encoder.layers.11.mlp.fc2.bias",
    ],
)
def test_every_missing_tensor_is_found(name: str) -> None:
    """By the name that it has in the file."""
    found = problem("x.safetensors", infos({other: today.shape for other, today in USUAL.items() if other != name}))

    assert found is not None
    assert f"x.safetensors is incomplete: 1 of 1130 tensors are missing, such as {name}; fetch it again." == found.message


def test_eight_bit_weights_are_refused() -> None:
    """They are for generating."""
    tensors = {name: TensorInfo("F8_E4M3", today.shape) for name, today in USUAL.items()}

    found = problem("x.safetensors", tensors)

    assert found is not None
    assert "in F8_E4M3; only F32, F16 and BF16 can be trained on" in found.message
