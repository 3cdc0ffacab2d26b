"""`charalora embed`: the guide's second command on base models of both layouts."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from charalora_spec.outcome import Outcome
from charalora_trainer.words import embedding
from commands import charalora
from single_model import WIDTH, random_parts, tensors_of
from toyworld.architecture import untrained_base
from trainings import WORD


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the same kind of model as a diffusers folder, a .safetensors and a .ckpt file."""
    folder = tmp_path_factory.mktemp("models")
    untrained_base(folder / "base")
    tensors = tensors_of(random_parts())
    save_file(tensors, folder / "single.safetensors")
    torch.save({"state_dict": tensors}, folder / "single.ckpt")
    return folder


@pytest.mark.parametrize("model", ["base", "single.safetensors", "single.ckpt"])
def test_the_rows_are_as_wide_as_the_model_s_texts(models: Path, tmp_path: Path, model: str) -> None:
    """N rows of small random numbers, the same for the same seed."""
    width = json.loads((models / "base/text_encoder/config.json").read_text())["hidden_size"] if model == "base" else WIDTH
    root = ("--root", str(tmp_path / "embs"))
    ended = charalora(tmp_path, "embed", str(models / model), WORD, "4", *root)
    vectors = embedding.load(tmp_path / "embs" / f"{WORD}.pt").vectors
    charalora(tmp_path, "embed", str(models / model), WORD, "4", *root, "--replace")
    again = embedding.load(tmp_path / "embs" / f"{WORD}.pt").vectors
    charalora(tmp_path, "embed", str(models / model), WORD, "4", *root, "--replace", "--seed", "1")

    assert 0 == ended.code, ended.err
    assert f"{tmp_path}/embs/{WORD}.pt: 4 vectors of {width}." in ended.out
    assert (4, width) == tuple(vectors.shape)
    assert torch.equal(vectors, again)
    assert not torch.equal(vectors, embedding.load(tmp_path / "embs" / f"{WORD}.pt").vectors)


def test_it_may_start_from_words_of_the_model(models: Path, tmp_path: Path) -> None:
    """Their rows of the token table come first; of a single file the vocabulary is CLIP's own."""
    ended = charalora(tmp_path, "embed", str(models / "single.safetensors"), WORD, "3", "--init-text", "red hair", "--root", str(tmp_path))

    assert 0 == ended.code, ended.err
    vectors = embedding.load(tmp_path / f"{WORD}.pt").vectors
    table = tensors_of(random_parts())["cond_stage_model.transformer.text_model.embeddings.token_embedding.weight"]
    assert torch.equal(table[[736, 2225]].float(), vectors[:2])  # red</w>, hair</w>


@pytest.mark.parametrize(
    ("model", "name", "outcome", "says"),
    [
        ("single.ckpt", "girl", Outcome.WORD_TAKEN, "'girl' is already a word of the base model"),
        ("nothing.safetensors", WORD, Outcome.BASE_MODEL_INVALID, "nothing.safetensors; give the uri of one."),
        ("nothing", WORD, Outcome.BASE_MODEL_INVALID, "There is no base model at"),
    ],
)
def test_what_cannot_be_is_one_line(models: Path, tmp_path: Path, model: str, name: str, outcome: Outcome, says: str) -> None:
    """And no file."""
    ended = charalora(tmp_path, "embed", str(models / model), name, "4", "--root", str(tmp_path / "embs"))

    assert outcome is ended.outcome
    assert says in ended.line
    assert "Traceback" not in ended.err
    assert not (tmp_path / "embs").exists()
