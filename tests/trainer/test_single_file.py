"""Base models of one file: every weight in its place, in both formats, and nothing loaded that is not whole."""

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor

from charalora_spec.outcome import Outcome, TrainingError
from charalora_spec.spec import Lora, Prediction
from charalora_trainer.export import webui
from charalora_trainer.export.diffusers_proof import prove_in_diffusers
from charalora_trainer.model.load import load_models
from charalora_trainer.model.lora import adapter_of, add_lora
from charalora_trainer.weights import Word
from charalora_trainer.words import embedding
from single_model import BESIDE, WIDTH, Parts, random_parts, tensors_of

UNET = "model.diffusion_model."
TEXT = "cond_stage_model.transformer."


@pytest.fixture(scope="module")
def parts() -> Parts:
    return random_parts()


@pytest.fixture(scope="module")
def tensors(parts: Parts) -> dict[str, Tensor]:
    return tensors_of(parts)


@pytest.fixture(scope="module")
def file(tensors: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pruned to half precision, as most files are."""
    path = tmp_path_factory.mktemp("single") / "model.safetensors"
    save_file(tensors, path)
    return path


def pickled(content: object, path: Path) -> Path:
    torch.save(content, path)
    return path


def safe(tensors: dict[str, Tensor], path: Path) -> Path:
    save_file(tensors, path)
    return path


def assert_equal(parts: Parts, path: Path) -> None:
    """Bit by bit, in fp32, frozen, in evaluation mode."""
    models = load_models(path, Prediction.EPSILON)
    for name, loaded in (("unet", models.unet), ("vae", models.vae), ("text_encoder", models.text_encoder)):
        expected, found = parts.part(name).state_dict(), loaded.state_dict()
        assert expected.keys() == found.keys()
        assert all(torch.equal(tensor, found[key]) for key, tensor in expected.items())
        assert {torch.float32} == {parameter.dtype for parameter in loaded.parameters()}
        assert not any(module.training for module in loaded.modules())
        assert not any(parameter.requires_grad for parameter in loaded.parameters())


def refused(path: Path) -> str:
    with pytest.raises(TrainingError) as error:
        load_models(path, Prediction.EPSILON)
    assert Outcome.BASE_MODEL_INVALID is error.value.outcome
    return error.value.message


def test_every_weight_of_a_safetensors_file_is_in_its_place(parts: Parts, file: Path) -> None:
    """Half precision becomes fp32 without loss."""
    assert_equal(parts, file)


@pytest.mark.parametrize(
    "content",
    [
        lambda tensors: {"state_dict": tensors | BESIDE, "global_step": 840000, "epoch": 3},
        lambda tensors: tensors,
        lambda tensors: {"state_dict": {name.replace(f"{TEXT}text_model.", TEXT): tensor for name, tensor in tensors.items()}},
        lambda tensors: {"state_dict": {name: tensor.float() for name, tensor in tensors.items()}},
    ],
    ids=["whole", "bare", "first generation's names", "fp32"],
)
def test_every_weight_of_a_ckpt_file_is_in_its_place(
    parts: Parts, tensors: dict[str, Tensor], content: Callable[[dict[str, Tensor]], object], tmp_path: Path
) -> None:
    """Wrapped with the training's step or bare, with averaged weights and position ids beside the others."""
    assert_equal(parts, pickled(content(tensors), tmp_path / "model.ckpt"))


def test_diffusers_reads_the_same_from_the_file(parts: Parts, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its own converters, with the configs at hand and no network."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for kind, module in ((UNet2DConditionModel, parts.unet), (AutoencoderKL, parts.vae)):
        module.save_config(tmp_path / kind.__name__)
        read = kind.from_single_file(str(file), config=str(tmp_path / kind.__name__), local_files_only=True, torch_dtype=torch.float32)
        expected, found = module.state_dict(), read.state_dict()
        assert expected.keys() == found.keys()
        assert all(torch.equal(tensor, found[key]) for key, tensor in expected.items())


def test_what_the_loaded_model_computes_is_what_the_original_computes(parts: Parts, file: Path) -> None:
    """Heads, norms and activations stand in no tensor's shape: a forward of each part tells that they are the same."""
    models = load_models(file, Prediction.EPSILON)
    noise = torch.Generator().manual_seed(1)
    ids = torch.randint(0, 49408, (1, 77), generator=noise)
    latents, image = torch.randn(1, 4, 8, 8, generator=noise), torch.randn(1, 3, 32, 32, generator=noise)

    with torch.no_grad():
        texts = [module(ids).last_hidden_state for module in (parts.text_encoder, models.text_encoder)]
        predicted = [module(latents, 500, texts[0]).sample for module in (parts.unet, models.unet)]
        encoded = [module.encode(image).latent_dist.mean for module in (parts.vae, models.vae)]
        decoded = [module.decode(latents).sample for module in (parts.vae, models.vae)]

    for expected, found in (texts, predicted, encoded, decoded):
        assert torch.equal(expected, found)
    assert 0.18215 == models.vae.config.scaling_factor


@pytest.mark.parametrize("prediction", list(Prediction))
def test_the_noise_schedule_is_stable_diffusion_s(file: Path, prediction: Prediction) -> None:
    """Such a file tells none; what is predicted, the resource says."""
    schedule = load_models(file, prediction).scheduler

    assert (0.00085, 0.012, "scaled_linear") == (schedule.config.beta_start, schedule.config.beta_end, schedule.config.beta_schedule)
    assert prediction.value == schedule.config.prediction_type


def test_the_vocabulary_is_clip_s(file: Path) -> None:
    """49,408 tokens, a row each."""
    models = load_models(file, Prediction.EPSILON)

    assert 49408 == models.tokenizer.get_vocab_size() == len(models.text_encoder.get_input_embeddings().weight)


@pytest.mark.parametrize(
    "name",
    [
        f"{UNET}output_blocks.11.1.transformer_blocks.0.attn2.to_v.weight",
        "first_stage_model.decoder.mid.attn_1.q.bias",
        f"{TEXT}text_model.encoder.layers.11.layer_norm2.weight",
    ],
)
def test_a_missing_weight_is_never_made_up(tensors: dict[str, Tensor], name: str, tmp_path: Path) -> None:
    """It is named as it stands in the file."""
    path = safe({other: tensor for other, tensor in tensors.items() if other != name}, tmp_path / "model.safetensors")

    assert f"1 of 1130 tensors are missing, such as {name}" in refused(path)


@pytest.mark.parametrize(
    ("more", "what"),
    [
        ({"conditioner.embedders.1.model.ln_final.weight": torch.ones(1)}, "is Stable Diffusion XL"),
        ({"cond_stage_model.model.ln_final.weight": torch.ones(1)}, "is Stable Diffusion 2"),
        ({}, "has no text encoder"),
    ],
)
def test_another_family_is_named(tensors: dict[str, Tensor], more: dict[str, Tensor], what: str, tmp_path: Path) -> None:
    """By its text encoder, which Stable Diffusion 1.x does not have."""
    others = {name: tensor for name, tensor in tensors.items() if not name.startswith(TEXT)}

    assert what in refused(safe(others | more, tmp_path / "model.safetensors"))


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        (f"{UNET}input_blocks.0.0.weight", (32, 9, 3, 3)),
        (f"{UNET}input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight", (32, 2048)),
        (f"{UNET}input_blocks.1.1.proj_in.weight", (32, 32)),
    ],
)
def test_another_shape_is_named(tensors: dict[str, Tensor], name: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    """A model that fills in pictures, and one whose texts are wider; a projection may be a matrix or a 1x1 convolution."""
    path = safe({**tensors, name: torch.zeros(shape, dtype=torch.float16)}, tmp_path / "model.safetensors")

    if "proj_in" in name:
        assert load_models(path, Prediction.EPSILON)
    else:
        assert f"{name} is {'x'.join(map(str, shape))}, not" in refused(path)


class Harmful:
    """A pickle of it makes a folder when it is opened."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.mkdir, (self._folder,)


def test_a_pickle_that_runs_code_is_refused_unopened(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    """The message says what to do."""
    path = pickled({"state_dict": tensors, "callbacks": Harmful(tmp_path / "harm")}, tmp_path / "model.ckpt")

    assert "runs code when it is opened; convert it to .safetensors where you trust it." in refused(path)
    assert not (tmp_path / "harm").exists()


def test_damaged_and_missing_files_are_told_apart(file: Path, tmp_path: Path) -> None:
    """Each with what to do."""
    (tmp_path / "short.safetensors").write_bytes(file.read_bytes()[:-100])
    (tmp_path / "short.ckpt").write_bytes(file.read_bytes()[:1000])
    (tmp_path / "list.ckpt").write_bytes(pickled([1, 2], tmp_path / "list").read_bytes())
    (tmp_path / "old.ckpt").write_bytes(pickle.dumps({"state_dict": {}}))

    assert "is no whole safetensors file" in refused(tmp_path / "short.safetensors")
    assert "fetch it again" in refused(tmp_path / "short.ckpt")
    assert "has no UNet" in refused(tmp_path / "list.ckpt")
    assert "convert it to .safetensors" in refused(tmp_path / "old.ckpt")
    assert "is not there; correct" in refused(tmp_path / "nothing.ckpt")


def test_diffusers_proves_what_was_trained_on_a_file(file: Path, tmp_path: Path) -> None:
    """LoRA and word of the right shapes are read back in a pipeline of the file's parts; a damaged strength is noticed."""
    models = load_models(file, Prediction.EPSILON)
    add_lora(models, Lora())
    noise = torch.Generator().manual_seed(2)
    adapter = adapter_of(models, lambda parameter: torch.randn(parameter.shape, generator=noise) / parameter[0].numel() ** 0.5)
    word = Word("surtr_arknights", torch.randn(4, WIDTH, generator=noise))
    lora = webui.write(adapter, tmp_path / "lora.safetensors")
    embedding.save_pt(word, tmp_path / "surtr_arknights.pt")

    unet, text = prove_in_diffusers(file, lora, adapter, {tmp_path / "surtr_arknights.pt": word})

    assert (160, 72) == (unet.modules, text.modules)
    assert max(unet.largest, text.largest) <= 1e-5
    with pytest.raises(TrainingError, match="other rows"):
        prove_in_diffusers(file, lora, adapter, {tmp_path / "surtr_arknights.pt": Word(word.name, -word.vectors)})
