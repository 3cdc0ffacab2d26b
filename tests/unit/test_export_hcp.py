"""HCP-Diffusion's LoRA files: names, shapes and numbers of Stable Diffusion 1.5, and every generation of keys."""

import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from adapters import convolution, linear, same, same_modules, sd15_adapter, small_adapter, written
from charalora_spec.outcome import TrainingError
from charalora_trainer.export import hcp, tensorfile
from charalora_trainer.export.matrices import shortest
from charalora_trainer.weights import Adapter


def parameters(tensors: dict[str, Tensor]) -> int:
    return sum(tensor.numel() for key, tensor in tensors.items() if not key.endswith("alpha"))


def test_the_guides_recipe_has_the_golden_number_of_modules_tensors_and_parameters() -> None:
    """160 and 72 modules, 480 and 216 tensors, 2,992,128 and 663,552 parameters."""
    adapter = sd15_adapter()
    unet, text = hcp.tensors(adapter.unet), hcp.tensors(adapter.text_encoder)

    assert (160, 480, 2_992_128) == (len(adapter.unet), len(unet), parameters(unet))
    assert (72, 216, 663_552) == (len(adapter.text_encoder), len(text), parameters(text))


def test_hcp_files_have_the_golden_sizes_and_alphas(tmp_path: Path) -> None:
    """12.0 MB with alpha 1/8 and 2.7 MB with alpha 1/4, no metadata."""
    unet, text = hcp.write(sd15_adapter(), tmp_path, step=1000)

    assert ("unet-1000.safetensors", "text_encoder-1000.safetensors") == (unet.name, text.name)
    assert (12.0, 2.7) == (round(unet.stat().st_size / 1e6, 1), round(text.stat().st_size / 1e6, 1))
    assert {0.125} == {float(tensor) for key, tensor in load_file(unet).items() if key.endswith(".___.alpha")}
    assert {0.25} == {float(tensor) for key, tensor in load_file(text).items() if key.endswith(".___.alpha")}
    assert {} == tensorfile.read(unet).metadata


def test_hcp_keys_are_those_of_the_guides_time() -> None:
    """The suffixes that every version of HCP reads; alpha is a number without dimensions."""
    found = hcp.tensors({"text_model.encoder.layers.0.mlp.fc1": linear(16, 64, 4, torch.Generator())})

    prefix = "lora:text_model.encoder.layers.0.mlp.fc1.___."
    assert {f"{prefix}layer.lora_down.weight", f"{prefix}layer.lora_up.weight", f"{prefix}alpha"} == found.keys()
    assert torch.Size([]) == found[f"{prefix}alpha"].shape


@pytest.mark.parametrize("alpha", [1.0, 0.3, 8.0, 1e-3, 12.5])
def test_what_hcp_files_hold_is_what_was_written(tmp_path: Path, alpha: float) -> None:
    """Matrices bit for bit, and alpha as a person chose it although the file holds alpha / rank in fp32."""
    adapter = small_adapter(alpha)
    unet, text = hcp.write(adapter, tmp_path, step=100)

    assert same(adapter, Adapter(unet=hcp.read(unet), text_encoder=hcp.read(text)))


@pytest.mark.parametrize(("alpha", "rank"), [(1.0, 7), (1.0, 41), (0.1, 3), (2.5, 6), (16.0, 128)])
def test_an_alpha_survives_its_division_by_the_rank(alpha: float, rank: int) -> None:
    """HCP stores alpha / rank in fp32."""
    assert alpha == shortest(torch.tensor(alpha / rank).item(), rank)


def test_no_file_is_written_for_a_model_without_lora(tmp_path: Path) -> None:
    """An empty LoRA file cannot be loaded by anything."""
    written = hcp.write(Adapter(unet=small_adapter().unet, text_encoder={}), tmp_path, step=5)

    assert [tmp_path / "unet-5.safetensors"] == list(written) == list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("down", "up", "marker", "alpha"),
    [
        ("layer.lora_down.weight", "layer.lora_up.weight", "___", "alpha"),
        ("layer.W_down", "layer.W_up", "___", "alpha"),
        ("layer.lora_down.weight", "layer.lora_up.weight", "lora_block", "scale"),
    ],
)
def test_every_generation_of_hcp_files_is_read(tmp_path: Path, down: str, up: str, marker: str, alpha: str) -> None:
    """HCP renamed its keys in 2023-04 and in 2023-11."""
    module = small_adapter().unet["mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0"]
    prefix = f"lora:mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0.{marker}."
    save_file(
        {f"{prefix}{down}": module.down, f"{prefix}{up}": module.up, f"{prefix}{alpha}": torch.tensor(0.125)}, tmp_path / "old.safetensors"
    )

    assert same_modules({"mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0": module}, hcp.read(tmp_path / "old.safetensors"))


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("base:conv_in.weight", "base:conv_in.weight, which is no part of an HCP LoRA"),
        ("lora:conv_in.___.layer.lora_up.bias", "layer.lora_up.bias of conv_in; only plain LoRA"),
        ("lora_unet_conv_in.alpha", "which is no part of an HCP LoRA"),
    ],
)
def test_a_stray_key_in_an_hcp_file_is_refused_by_name(tmp_path: Path, key: str, message: str) -> None:
    """Whole models, biases and other formats are something else."""
    with pytest.raises(TrainingError, match=re.escape(message)):
        hcp.read(written(hcp.tensors({"conv_in": convolution()}) | {key: torch.ones(1)}, tmp_path))


def test_the_same_module_twice_is_refused(tmp_path: Path) -> None:
    """Under the names of two generations of HCP."""
    tensors = hcp.tensors({"conv_in": convolution()}) | {"lora:conv_in.___.layer.W_up": convolution().up}

    with pytest.raises(TrainingError, match="holds the up of conv_in twice"):
        hcp.read(written(tensors, tmp_path))


def test_a_step_is_read_whichever_models_were_trained(tmp_path: Path) -> None:
    """UNet and text encoder, or one of them; a step without either is an error that names both files."""
    both = small_adapter()
    hcp.write(both, tmp_path, step=1)
    hcp.write(Adapter(both.unet, {}), tmp_path, step=2)
    hcp.write(Adapter({}, both.text_encoder), tmp_path, step=3)

    assert same(both, hcp.read_step(tmp_path, 1))
    assert same(Adapter(both.unet, {}), hcp.read_step(tmp_path, 2))
    assert same(Adapter({}, both.text_encoder), hcp.read_step(tmp_path, 3))
    with pytest.raises(TrainingError, match=r"has neither unet-4.safetensors nor text_encoder-4.safetensors"):
        hcp.read_step(tmp_path, 4)
