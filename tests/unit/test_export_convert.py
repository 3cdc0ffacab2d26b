"""`charalora convert`: the guide's lora_convert, with the same names and flags, that comes back to where it started."""

import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from adapters import small_adapter
from charalora_spec.outcome import Outcome, TrainingError
from charalora_trainer.export import hcp, webui
from charalora_trainer.export.convert import Direction, convert_embedding, direction, from_webui, to_webui
from charalora_trainer.weights import Adapter, LoraModule, Word
from charalora_trainer.words import embedding

PATH = "mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0"


def trained(folder: Path, alpha: float = 1.0) -> tuple[Path, Path]:
    """HCP's two files of step 1000."""
    unet, text_encoder = hcp.write(small_adapter(alpha), folder, step=1000)
    return unet, text_encoder


def hcp_delta(file: Path, path: str) -> torch.Tensor:
    """What HCP adds to the weight of a Linear: up · down times the number in the file."""
    tensors = load_file(file)
    prefix = f"lora:{path}.___."
    return tensors[f"{prefix}alpha"] * tensors[f"{prefix}layer.lora_up.weight"] @ tensors[f"{prefix}layer.lora_down.weight"]


def webui_delta(file: Path, name: str) -> torch.Tensor:
    """What webui adds: up · down times alpha / rank."""
    tensors = load_file(file)
    up, down = tensors[f"{name}.lora_up.weight"], tensors[f"{name}.lora_down.weight"]
    return tensors[f"{name}.alpha"] / down.shape[0] * up @ down


NAME = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_out_0"


@pytest.mark.parametrize("alpha", [1.0, 2.0, 0.3])
def test_with_auto_scale_webui_applies_what_hcp_applies(tmp_path: Path, alpha: float) -> None:
    """|(alpha / dim) · up · down - HCP's update| < 1e-6."""
    unet, text_encoder = trained(tmp_path, alpha)
    to_webui(unet, text_encoder, tmp_path / "lora-1000.safetensors", auto_scale_alpha=True)

    assert (webui_delta(tmp_path / "lora-1000.safetensors", NAME) - hcp_delta(unet, PATH)).abs().max() < 1e-6


def test_without_auto_scale_webui_applies_exactly_one_over_rank(tmp_path: Path) -> None:
    """As HCP's converter does; the warning says so."""
    unet, text_encoder = trained(tmp_path)
    done = to_webui(unet, text_encoder, tmp_path / "lora.safetensors", auto_scale_alpha=False)

    assert torch.equal(webui_delta(tmp_path / "lora.safetensors", NAME), hcp_delta(unet, PATH) / 8)
    assert ["Without --auto_scale_alpha webui applies 1/rank (1/4, 1/6, 1/8) of the trained strength, as with HCP's converter."] == list(
        done.warnings
    )


@pytest.mark.parametrize("auto_scale_alpha", [True, False])
@pytest.mark.parametrize("alpha", [1.0, 0.3, 8.0])
def test_there_and_back_with_the_same_flag_changes_no_byte(tmp_path: Path, alpha: float, *, auto_scale_alpha: bool) -> None:
    """HCP's converter comes back 64 times as strong."""
    unet, text_encoder = trained(tmp_path, alpha)
    to_webui(unet, text_encoder, tmp_path / "lora.safetensors", auto_scale_alpha=auto_scale_alpha)
    back = from_webui(tmp_path / "lora.safetensors", tmp_path / "back", auto_scale_alpha=auto_scale_alpha)

    assert (tmp_path / "back" / "unet-lora.safetensors", tmp_path / "back" / "TE-lora.safetensors") == back.files
    assert [unet.read_bytes(), text_encoder.read_bytes()] == [file.read_bytes() for file in back.files]


def test_a_file_of_newer_hcp_is_converted(tmp_path: Path) -> None:
    """With the keys `W_down` and `W_up`."""
    unet, _ = trained(tmp_path)
    new = {key.replace("lora_down.weight", "W_down").replace("lora_up.weight", "W_up"): tensor for key, tensor in load_file(unet).items()}
    save_file(new, tmp_path / "new.safetensors")
    for source in (unet, tmp_path / "new.safetensors"):
        to_webui(source, None, tmp_path / f"of-{source.name}", auto_scale_alpha=True)

    assert (tmp_path / "of-unet-1000.safetensors").read_bytes() == (tmp_path / "of-new.safetensors").read_bytes()


def test_a_stored_alpha_is_honoured(tmp_path: Path) -> None:
    """A kohya LoRA of rank 8 with alpha 4 has half the strength of its matrices; HCP itself drops the number, and the warning says so."""
    module = LoraModule(torch.ones(8, 3), torch.ones(5, 8), 4.0)
    webui.write(Adapter(unet={"conv_in": module}, text_encoder={}), tmp_path / "kohya.safetensors")
    done = from_webui(tmp_path / "kohya.safetensors", tmp_path, auto_scale_alpha=True)

    assert [tmp_path / "unet-kohya.safetensors"] == list(done.files)
    assert torch.equal(torch.full((5, 3), 4.0), hcp_delta(done.files[0], "conv_in"))
    assert "hold alpha 4, which HCP-Diffusion ignores" in done.warnings[0]


def test_the_text_encoders_file_is_optional(tmp_path: Path) -> None:
    """A LoRA of the UNet alone is a LoRA."""
    unet, _ = trained(tmp_path)
    to_webui(unet, None, tmp_path / "lora.safetensors", auto_scale_alpha=True)

    assert {} == webui.read(tmp_path / "lora.safetensors").text_encoder


def test_half_precision_is_half_the_size(tmp_path: Path) -> None:
    """With all matrices and alphas in fp16."""
    unet, text_encoder = trained(tmp_path)
    to_webui(unet, text_encoder, tmp_path / "half.safetensors", auto_scale_alpha=True, fp16=True)

    assert {torch.float16} == {tensor.dtype for tensor in load_file(tmp_path / "half.safetensors").values()}


def test_files_of_different_steps_are_refused(tmp_path: Path) -> None:
    """They were not trained together."""
    unet, _ = trained(tmp_path)
    _, text_encoder = hcp.write(small_adapter(), tmp_path, step=900)

    with pytest.raises(TrainingError, match=r"unet-1000.safetensors and text_encoder-900.safetensors are of different steps") as error:
        to_webui(unet, text_encoder, tmp_path / "lora.safetensors", auto_scale_alpha=True)
    assert Outcome.SPEC_INVALID is error.value.outcome
    assert not (tmp_path / "lora.safetensors").exists()


def test_files_of_different_steps_are_joined_on_request(tmp_path: Path) -> None:
    """Some people mix them on purpose."""
    unet, _ = trained(tmp_path)
    _, text_encoder = hcp.write(small_adapter(), tmp_path, step=900)

    assert to_webui(unet, text_encoder, tmp_path / "lora.safetensors", auto_scale_alpha=True, any_steps=True).files


@pytest.mark.parametrize(
    ("forward", "backward", "message"),
    [(False, False, "No direction was given: choose --to-webui"), (True, True, "Both directions were given: choose --to-webui")],
)
def test_the_direction_must_be_chosen(*, forward: bool, backward: bool, message: str) -> None:
    """HCP's converter does nothing then, and exits with success."""
    with pytest.raises(TrainingError, match=message) as error:
        direction(to_webui=forward, from_webui=backward)
    assert Outcome.SPEC_INVALID is error.value.outcome


def test_the_chosen_direction_is_taken() -> None:
    """Either of the two flags."""
    assert [Direction.TO_WEBUI, Direction.FROM_WEBUI] == [direction(to_webui=to, from_webui=not to) for to in (True, False)]


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    """The whole path, because it may be relative to another folder than expected."""
    with pytest.raises(TrainingError, match=re.escape(f"{tmp_path / 'unet-5.safetensors'} is not there")):
        to_webui(tmp_path / "unet-5.safetensors", None, tmp_path / "lora.safetensors", auto_scale_alpha=True)


def test_swapped_files_are_told_apart(tmp_path: Path) -> None:
    """Either one in the other's place."""
    unet, text_encoder = trained(tmp_path)

    with pytest.raises(TrainingError, match=r"text_encoder-1000.safetensors holds the text encoder's LoRA; give it as --lora_path_TE"):
        to_webui(text_encoder, unet, tmp_path / "lora.safetensors", auto_scale_alpha=True)
    with pytest.raises(TrainingError, match=r"unet-1000.safetensors holds the UNet's LoRA; give it as --lora_path,"):
        to_webui(unet, unet, tmp_path / "lora.safetensors", auto_scale_alpha=True)


def test_a_webui_file_is_no_source_for_webui(tmp_path: Path) -> None:
    """The message names the files that are wanted."""
    webui.write(small_adapter(), tmp_path / "lora.safetensors")

    with pytest.raises(TrainingError, match="no part of an HCP LoRA; give a unet-N or text_encoder-N file"):
        to_webui(tmp_path / "lora.safetensors", None, tmp_path / "again.safetensors", auto_scale_alpha=True)


def test_a_folder_is_no_file_and_a_file_no_folder(tmp_path: Path) -> None:
    """One direction writes one file, the other two into a folder."""
    unet, _ = trained(tmp_path)
    lora = webui.write(small_adapter(), tmp_path / "lora.safetensors")

    with pytest.raises(TrainingError, match="is a folder; give the name of the file to write"):
        to_webui(unet, None, tmp_path, auto_scale_alpha=True)
    with pytest.raises(TrainingError, match="is a file; give the folder to write two files into"):
        from_webui(lora, unet, auto_scale_alpha=True)


def test_an_embedding_changes_its_form_and_keeps_its_rows(tmp_path: Path) -> None:
    """To safetensors and back; the name is the file's."""
    word = Word("surtr_arknights", torch.randn(4, 768, generator=torch.Generator().manual_seed(0)))
    embedding.save_pt(word, tmp_path / "surtr_arknights.pt")
    convert_embedding(tmp_path / "surtr_arknights.pt", tmp_path / "surtr.safetensors")
    convert_embedding(tmp_path / "surtr.safetensors", tmp_path / "again.pt")

    again = embedding.load(tmp_path / "again.pt")
    assert "again" == again.name
    assert torch.equal(word.vectors, again.vectors)


def test_an_embedding_of_another_ending_is_refused(tmp_path: Path) -> None:
    """The ending decides the form."""
    embedding.save_pt(Word("surtr", torch.ones(1, 8)), tmp_path / "surtr.pt")

    with pytest.raises(TrainingError, match=r"surtr.bin ends in .bin: name the embedding .pt or .safetensors"):
        convert_embedding(tmp_path / "surtr.pt", tmp_path / "surtr.bin")
