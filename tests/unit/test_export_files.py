"""What all LoRA files share: the same bytes every time, and damage that is found."""

import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save
from torch import Tensor

from adapters import same, small_adapter, written
from charalora_spec.outcome import TrainingError
from charalora_trainer.export import hcp, peft, tensorfile, webui
from charalora_trainer.weights import Adapter

Read = Callable[[Path], object]


def test_files_are_laid_out_as_the_safetensors_library_does() -> None:
    """So that hashes over the data are the ones that other tools compute."""
    tensors = webui.tensors(small_adapter(alpha=0.3), torch.float16)

    assert save(tensors) == tensorfile.encode(tensors, {})


def test_the_same_adapter_gives_the_same_bytes(tmp_path: Path) -> None:
    """Whatever order modules are in."""
    adapter = small_adapter()
    reversed_adapter = Adapter(unet=dict(reversed(list(adapter.unet.items()))), text_encoder=adapter.text_encoder)
    first, second = webui.write(adapter, tmp_path / "1"), webui.write(reversed_adapter, tmp_path / "2")

    assert first.read_bytes() == second.read_bytes()
    assert peft.write(adapter, tmp_path).read_bytes() == peft.write(reversed_adapter, tmp_path / "again").read_bytes()


def test_what_a_diffusers_folder_holds_is_what_was_written(tmp_path: Path) -> None:
    """Ranks and alphas that differ between modules come back too."""
    adapter = small_adapter(0.3)

    assert same(adapter, peft.read(peft.write(adapter, tmp_path)))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"up": None}, "The up matrix of conv_in in given.safetensors is missing"),
        ({"down": None}, "The down matrix of conv_in in given.safetensors is missing"),
        ({"down": torch.full((1, 4), float("nan"))}, "The down of conv_in in given.safetensors holds infinite values or NaN"),
        ({"up": torch.full((8, 1), float("inf"))}, "The up of conv_in in given.safetensors holds infinite values or NaN"),
        ({"up": torch.ones(8, 2)}, "do not belong together: down is [1, 4], up is [8, 2]"),
        ({"up": torch.ones(8, 1, 1, 1)}, "do not belong together"),
        ({"alpha": torch.tensor(0.0)}, "The alpha of conv_in in given.safetensors is 0; it must be a positive number"),
        ({"alpha": torch.ones(2)}, "is a tensor of shape [2]; it must be one number"),
    ],
)
@pytest.mark.parametrize(
    ("read", "keys"),
    [
        (hcp.read, ("lora:conv_in.___.layer.lora_down.weight", "lora:conv_in.___.layer.lora_up.weight", "lora:conv_in.___.alpha")),
        (webui.read, ("lora_unet_conv_in.lora_down.weight", "lora_unet_conv_in.lora_up.weight", "lora_unet_conv_in.alpha")),
    ],
)
def test_a_damaged_module_is_refused_by_name(
    tmp_path: Path, changed: dict[str, Tensor | None], message: str, read: Read, keys: tuple[str, str, str]
) -> None:
    """With what is wrong with it."""
    whole = {"down": torch.ones(1, 4), "up": torch.ones(8, 1), "alpha": torch.tensor(1.0)}
    damaged = {key: tensor for key, tensor in zip(keys, (whole | changed).values(), strict=True) if tensor is not None}

    with pytest.raises(TrainingError, match=re.escape(message)):
        read(written(damaged, tmp_path))


@pytest.mark.parametrize("read", [hcp.read, webui.read])
def test_a_file_without_lora_is_refused(tmp_path: Path, read: Read) -> None:
    """Instead of a LoRA that does nothing."""
    with pytest.raises(TrainingError, match=r"given.safetensors holds no LoRA modules"):
        read(written({}, tmp_path))


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    """As an upload that broke off."""
    file = webui.write(small_adapter(), tmp_path / "lora.safetensors")
    file.write_bytes(file.read_bytes()[:-10])

    with pytest.raises(TrainingError, match=r"lora.safetensors is no whole safetensors file"):
        webui.read(file)


def test_no_damage_to_a_file_gets_past_the_readers(tmp_path: Path) -> None:
    """Two hundred files with a few bytes changed in the header: each is read whole or refused, never anything else."""
    file = webui.write(small_adapter(), tmp_path / "lora.safetensors")
    whole = file.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    refused = 0
    for seed in range(200):
        damage = random.Random(seed)
        damaged = bytearray(whole)
        for _ in range(damage.randint(1, 3)):
            damaged[damage.randrange(header)] = damage.randrange(256)
        file.write_bytes(damaged)
        try:
            webui.read(file)
        except TrainingError:
            refused += 1

    assert refused > 100
