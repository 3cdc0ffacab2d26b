"""A file that is not what training computed is never called done."""

import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from adapters import sd15_adapter, small_adapter
from charalora_spec.outcome import Outcome, TrainingError
from charalora_trainer.export import hcp, peft, proof, webui
from charalora_trainer.export.proof import Proof
from charalora_trainer.weights import Adapter, Word
from charalora_trainer.words import embedding

FC1 = "lora:text_model.encoder.layers.3.mlp.fc1.___."
WORD = Word("surtr", torch.randn(4, 768, generator=torch.Generator().manual_seed(0)))


def saved(folder: Path, adapter: Adapter) -> None:
    """What a save step puts into `ckpts`."""
    hcp.write(adapter, folder, step=100)
    webui.write(adapter, folder / "lora-100.safetensors")
    embedding.save_pt(WORD, folder / "surtr-100.pt", step=100)


def prove(folder: Path, adapter: Adapter) -> tuple[Proof, ...]:
    """Prove all of them."""
    proof.prove_word(folder / "surtr-100.pt", WORD)
    return (*proof.prove_hcp(folder, 100, adapter), proof.prove_webui(folder / "lora-100.safetensors", adapter))


def change(file: Path, tensors: dict[str, Tensor | None]) -> None:
    """Damage a file: replace tensors, or take them out."""
    changed: dict[str, Tensor | None] = {**load_file(file), **tensors}
    save_file({key: tensor for key, tensor in changed.items() if tensor is not None}, file)


def test_a_save_step_of_stable_diffusion_is_proven_in_all_232_modules(tmp_path: Path) -> None:
    """160 and 72 in HCP's files, 232 in webui's, without the smallest difference."""
    saved(tmp_path, sd15_adapter())
    proofs = prove(tmp_path, sd15_adapter())

    assert [160, 72, 232] == [proven.modules for proven in proofs]
    assert {0.0} == {proven.largest for proven in proofs}


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({f"{FC1}alpha": None}, f"text_encoder-100.safetensors lacks 1 tensors, the first is {FC1}alpha; it should hold 3"),
        (
            {"lora:conv_in.___.alpha": torch.ones(())},
            "text_encoder-100.safetensors holds in excess 1 tensors, the first is lora:conv_in.___.alpha",
        ),
        (
            {f"{FC1}alpha": torch.tensor(1.0)},
            "text_model.encoder.layers.3.mlp.fc1 in text_encoder-100.safetensors differs from the trained update",
        ),
        ({f"{FC1}layer.lora_up.weight": torch.zeros(64, 6)}, "differs from the trained update by up to"),
        (
            {f"{FC1}layer.lora_up.weight": torch.zeros(64, 3), f"{FC1}layer.lora_down.weight": torch.zeros(3, 16)},
            "text_model.encoder.layers.3.mlp.fc1 in text_encoder-100.safetensors has down [3, 16], but [6, 16] was trained",
        ),
    ],
)
def test_a_damaged_hcp_file_fails_by_name(tmp_path: Path, tensors: dict[str, Tensor | None], message: str) -> None:
    """File, module and what is wrong."""
    saved(tmp_path, small_adapter())
    change(tmp_path / "text_encoder-100.safetensors", tensors)

    with pytest.raises(TrainingError, match=re.escape(message)) as error:
        prove(tmp_path, small_adapter())
    assert Outcome.EXPORT_INVALID is error.value.outcome


def test_one_entry_that_differs_fails(tmp_path: Path) -> None:
    """A thousandth in one of thousands of weights."""
    saved(tmp_path, small_adapter())
    name = "lora_unet_up_blocks_1_resnets_2_conv1.lora_up.weight"
    weights = load_file(tmp_path / "lora-100.safetensors")[name]
    weights[0, 0] += 1e-3
    change(tmp_path / "lora-100.safetensors", {name: weights})

    with pytest.raises(TrainingError, match=r"up_blocks.1.resnets.2.conv1 in lora-100.safetensors differs from the trained update"):
        prove(tmp_path, small_adapter())


def test_a_renamed_module_fails(tmp_path: Path) -> None:
    """Every reader would drop it without a word."""
    saved(tmp_path, small_adapter())
    tensors = {key.replace("layers_3", "layers_4"): tensor for key, tensor in load_file(tmp_path / "lora-100.safetensors").items()}
    save_file(tensors, tmp_path / "lora-100.safetensors")

    with pytest.raises(
        TrainingError, match=r"lora-100.safetensors lacks 3 tensors, the first is lora_te_text_model_encoder_layers_3_mlp_fc1.alpha"
    ):
        prove(tmp_path, small_adapter())


def test_an_embedding_with_other_rows_fails(tmp_path: Path) -> None:
    """Bit for bit."""
    saved(tmp_path, small_adapter())
    embedding.save_pt(Word("surtr", WORD.vectors + 1e-6), tmp_path / "surtr-100.pt", step=100)

    with pytest.raises(TrainingError, match=r"surtr-100.pt holds rows of shape \[4, 768\] that are not those of the trained word surtr"):
        prove(tmp_path, small_adapter())


def test_a_missing_file_fails(tmp_path: Path) -> None:
    """By its name."""
    saved(tmp_path, small_adapter())
    (tmp_path / "lora-100.safetensors").unlink()

    with pytest.raises(TrainingError, match=r"lora-100.safetensors is not there"):
        prove(tmp_path, small_adapter())


def test_half_precision_is_proven_within_its_tolerance(tmp_path: Path) -> None:
    """The same file fails where fp32 is expected."""
    webui.write(small_adapter(), tmp_path / "half.safetensors", dtype=torch.float16)

    assert 0 < proof.prove_webui(tmp_path / "half.safetensors", small_adapter(), torch.float16).largest < 0.01
    with pytest.raises(TrainingError, match="differs from the trained update"):
        proof.prove_webui(tmp_path / "half.safetensors", small_adapter())


def test_a_diffusers_folder_is_proven_with_its_alphas(tmp_path: Path) -> None:
    """They stand in the header; without it diffusers would take the rank."""
    file = peft.write(small_adapter(), tmp_path)

    assert 3 == proof.prove_peft(file, small_adapter()).modules
    change(file, {})
    with pytest.raises(TrainingError, match="differs from the trained update"):
        proof.prove_peft(file, small_adapter())
