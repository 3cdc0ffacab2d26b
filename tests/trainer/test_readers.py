"""diffusers' own loader reads our files completely: every module, at the strength of the training, and every row of the word.

transformers 5 has dropped `text_model.` from its module paths and the files have it, so the text encoder's modules are counted too.
"""

import re
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import CLIPTextModel

from charalora_spec.outcome import Outcome, TrainingError
from charalora_trainer.export import convert, hcp, peft, webui
from charalora_trainer.export.diffusers_proof import prove_in_diffusers
from charalora_trainer.model.lora import TEXT_ENCODER_TARGETS, UNET_TARGETS
from charalora_trainer.weights import Adapter, LoraModule, Word
from charalora_trainer.words import embedding
from toyworld.architecture import untrained_base

WORD = Word("surtr_arknights", torch.randn(4, 128, generator=torch.Generator().manual_seed(3)))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Stable Diffusion of toy size with random weights."""
    folder = tmp_path_factory.mktemp("base")
    untrained_base(folder)
    return folder


@pytest.fixture(scope="module")
def adapter(base: Path) -> Adapter:
    """The guide's modules, rank 8 in the UNet and 4 in the text encoder, alpha 1."""
    generator = torch.Generator().manual_seed(0)
    unet, text = models(base)
    return Adapter(
        unet={path: lora(layer, 8, generator) for path, layer in unet.items() if UNET_TARGETS.fullmatch(path)},
        text_encoder={path: lora(layer, 4, generator) for path, layer in text.items() if TEXT_ENCODER_TARGETS.fullmatch(path)},
    )


def models(base: Path) -> tuple[dict[str, nn.Module], dict[str, nn.Module]]:
    """The modules of both models, under the paths that files use."""
    unet = UNet2DConditionModel.from_pretrained(base / "unet")
    text = CLIPTextModel.from_pretrained(base / "text_encoder")
    return dict(unet.named_modules()), {f"text_model.{path.removeprefix('text_model.')}": layer for path, layer in text.named_modules()}


def lora(layer: nn.Module, rank: int, generator: torch.Generator, alpha: float = 1.0) -> LoraModule:
    """A module as training leaves it, for a Linear or a convolution."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    down = torch.randn(rank, *weight.shape[1:], generator=generator) / weight[0].numel() ** 0.5
    return LoraModule(down, 0.1 * torch.randn(weight.shape[0], rank, *(1,) * (weight.ndim - 2), generator=generator), alpha)


@pytest.fixture
def word_file(tmp_path: Path) -> Path:
    """The word as the guide publishes it."""
    embedding.save_pt(WORD, tmp_path / "surtr_arknights.pt")
    return tmp_path / "surtr_arknights.pt"


def test_a_webui_file_is_read_completely_and_exactly(base: Path, adapter: Adapter, tmp_path: Path, word_file: Path) -> None:
    """All modules of both models, merged weights within 1e-6, all rows of the `.pt`."""
    file = webui.write(adapter, tmp_path / "lora.safetensors")
    unet, text = prove_in_diffusers(base, file, adapter, {word_file: WORD})

    assert (len(adapter.unet), len(adapter.text_encoder)) == (unet.modules, text.modules)
    assert 18 == text.modules
    assert max(unet.largest, text.largest) <= 1e-6


def test_a_half_precision_file_is_read_within_its_tolerance(base: Path, adapter: Adapter, tmp_path: Path) -> None:
    """And a safetensors embedding with it, whose tensor is called `emb_params`."""
    embedding.save_safetensors(WORD, tmp_path / "word.safetensors")
    file = webui.write(adapter, tmp_path / "lora.safetensors", dtype=torch.float16)
    proofs = prove_in_diffusers(base, file, adapter, {tmp_path / "word.safetensors": WORD}, torch.float16)

    assert 0 < max(proven.largest for proven in proofs) < 1e-3


def test_a_diffusers_folder_is_read_at_the_trained_strength(base: Path, adapter: Adapter, tmp_path: Path) -> None:
    """Alpha stands in the header: without it the LoRA would be eight times as strong."""
    peft.write(adapter, tmp_path / "diffusers")
    unet, text = prove_in_diffusers(base, tmp_path / "diffusers", adapter, {})

    assert (len(adapter.unet), len(adapter.text_encoder)) == (unet.modules, text.modules)
    assert max(unet.largest, text.largest) <= 1e-6


def test_convolutions_and_projections_are_found(base: Path, tmp_path: Path) -> None:
    """Every Linear and convolution of the UNet has a name that diffusers undoes, in both forms."""
    generator = torch.Generator().manual_seed(1)
    unet, _ = models(base)
    places = re.compile(r"(down_blocks|mid_block|up_blocks)\..*(conv1|conv2|conv|time_emb_proj|conv_shortcut|proj_in|proj_out)")
    wide = Adapter({path: lora(layer, 4, generator) for path, layer in unet.items() if places.fullmatch(path)}, {})
    webui.write(wide, tmp_path / "wide.safetensors")
    peft.write(wide, tmp_path / "wide")

    for file in (tmp_path / "wide.safetensors", tmp_path / "wide"):
        assert [len(wide.unet), 0] == [proven.modules for proven in prove_in_diffusers(base, file, wide, {})]


def test_alphas_and_ranks_of_their_own_are_kept_in_a_diffusers_folder(base: Path, tmp_path: Path) -> None:
    """As a LoRA from elsewhere may have them."""
    generator = torch.Generator().manual_seed(2)
    unet, text = models(base)
    mixed = Adapter(
        {path: lora(unet[path], rank, generator, alpha) for path, rank, alpha in places_of(unet, UNET_TARGETS)},
        {path: lora(text[path], rank, generator, alpha) for path, rank, alpha in places_of(text, TEXT_ENCODER_TARGETS)},
    )
    peft.write(mixed, tmp_path)

    assert max(proven.largest for proven in prove_in_diffusers(base, tmp_path, mixed, {})) <= 1e-6


def places_of(modules: dict[str, nn.Module], targets: re.Pattern[str]) -> list[tuple[str, int, float]]:
    """A rank and an alpha for each module, in turn."""
    paths = [path for path in modules if targets.fullmatch(path)]
    return [(path, 2 + number % 3, 0.5 + number % 2) for number, path in enumerate(paths)]


def test_what_the_converter_writes_is_read_completely(base: Path, adapter: Adapter, tmp_path: Path) -> None:
    """From HCP's two files to webui's one, as the guide's last command does."""
    unet, text_encoder = hcp.write(adapter, tmp_path, step=1000)
    convert.to_webui(unet, text_encoder, tmp_path / "lora-1000.safetensors", auto_scale_alpha=True)

    assert max(proven.largest for proven in prove_in_diffusers(base, tmp_path / "lora-1000.safetensors", adapter, {})) <= 1e-6


def test_a_text_encoder_that_does_not_arrive_is_noticed(base: Path, adapter: Adapter, tmp_path: Path) -> None:
    """Diffusers loads such a file without a word."""
    file = webui.write(Adapter(adapter.unet, {}), tmp_path / "lora.safetensors")

    with pytest.raises(TrainingError, match=r"diffusers finds 0 of 18 modules in lora.safetensors") as error:
        prove_in_diffusers(base, file, adapter, {})
    assert Outcome.EXPORT_INVALID is error.value.outcome


def test_another_strength_is_noticed_by_module(base: Path, adapter: Adapter, tmp_path: Path) -> None:
    """A file whose alphas are twice as large."""
    file = webui.write(adapter, tmp_path / "lora.safetensors")
    save_file({key: 2 * tensor if key.endswith(".alpha") else tensor for key, tensor in load_file(file).items()}, file)

    with pytest.raises(TrainingError, match=r"attn1.to_[kqv] of lora.safetensors, merged by diffusers, differs from the trained update"):
        prove_in_diffusers(base, file, adapter, {})


def test_a_file_that_diffusers_refuses_is_named(base: Path, adapter: Adapter, tmp_path: Path) -> None:
    """With its first line."""
    file = webui.write(adapter, tmp_path / "lora.safetensors")
    save_file({**load_file(file), "lora_unet_mid_block_stray.alpha": torch.tensor(1.0)}, file)

    with pytest.raises(TrainingError, match=r"diffusers cannot load lora.safetensors"):
        prove_in_diffusers(base, file, adapter, {})


def test_other_rows_are_noticed(base: Path, adapter: Adapter, tmp_path: Path, word_file: Path) -> None:
    """Bit for bit."""
    file = webui.write(adapter, tmp_path / "lora.safetensors")

    with pytest.raises(TrainingError, match=r"diffusers finds other rows in surtr_arknights.pt"):
        prove_in_diffusers(base, file, adapter, {word_file: Word(WORD.name, WORD.vectors + 1e-6)})


def test_the_trainings_random_numbers_stay_its_own(base: Path, adapter: Adapter, tmp_path: Path, word_file: Path) -> None:
    """Loading an embedding in diffusers draws random numbers; a resumed training must not see them."""
    file = webui.write(adapter, tmp_path / "lora.safetensors")
    before = torch.get_rng_state()
    prove_in_diffusers(base, file, adapter, {word_file: WORD})

    assert torch.equal(before, torch.get_rng_state())


def test_a_folder_that_is_no_base_model_is_named(adapter: Adapter, tmp_path: Path) -> None:
    """As the base model, not as the export."""
    file = webui.write(adapter, tmp_path / "lora.safetensors")

    with pytest.raises(TrainingError, match=r"diffusers cannot load the base model in ") as error:
        prove_in_diffusers(tmp_path / "nothing", file, adapter, {})
    assert Outcome.BASE_MODEL_INVALID is error.value.outcome
