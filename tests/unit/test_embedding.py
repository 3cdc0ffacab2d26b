"""The trigger word's embedding and its files."""

import io
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from charalora_spec.outcome import Outcome, TrainingError
from charalora_trainer.weights import Word
from charalora_trainer.words.embedding import create, load, save_pt, save_safetensors
from charalora_trainer.words.tokenizer import load_tokenizer, token_ids

DIM = 768


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return load_tokenizer()


@pytest.fixture(scope="module")
def table() -> torch.Tensor:
    return torch.randn(49408, DIM, generator=torch.Generator().manual_seed(1)).half()


@pytest.fixture
def word() -> Word:
    return Word("surtr_arknights", torch.randn(4, DIM))


def saved(content: Any, path: Path) -> Path:
    torch.save(content, path)
    return path


def test_rows_are_random_with_the_guides_spread(table: torch.Tensor, tokenizer: Tokenizer) -> None:
    """`[n, dim]` fp32 with standard deviation 0.017."""
    vectors = create("surtr_arknights", 4, "", 0, table, tokenizer).vectors

    assert (4, DIM) == vectors.shape
    assert torch.float32 == vectors.dtype
    assert pytest.approx(0.017, rel=0.03) == vectors.std().item()


def test_the_seed_decides(table: torch.Tensor, tokenizer: Tokenizer) -> None:
    """The same seed gives the same rows, another one others."""
    first, again, other = (create("surtr_arknights", 4, "", seed, table, tokenizer).vectors for seed in (0, 0, 1))

    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_another_spread_can_be_asked_for(table: torch.Tensor, tokenizer: Tokenizer) -> None:
    """`*0.1`, as the guide's tool reads it."""
    assert pytest.approx(0.1, rel=0.03) == create("surtr_arknights", 4, "*0.1", 0, table, tokenizer).vectors.std().item()


def test_initial_text_gives_its_tokens_rows(table: torch.Tensor, tokenizer: Tokenizer) -> None:
    """One row a token, in order, as it stands in the base model's table."""
    vectors = create("surtr_arknights", 3, "red eyes horns", 0, table, tokenizer).vectors

    assert torch.equal(table[token_ids(tokenizer, "red eyes horns")].float(), vectors)


def test_a_short_initial_text_leaves_random_rows(table: torch.Tensor, tokenizer: Tokenizer) -> None:
    """The rest is what the same seed gives without text, never the end-of-text vector."""
    random_rows = create("surtr_arknights", 4, "", 0, table, tokenizer).vectors

    vectors = create("surtr_arknights", 4, "red eyes", 0, table, tokenizer).vectors

    assert torch.equal(table[token_ids(tokenizer, "red eyes")].float(), vectors[:2])
    assert torch.equal(random_rows[2:], vectors[2:])


def test_a_long_initial_text_is_cut_and_said(table: torch.Tensor, tokenizer: Tokenizer, caplog: pytest.LogCaptureFixture) -> None:
    """The first n tokens count; the log has both numbers."""
    vectors = create("surtr_arknights", 1, "red eyes", 0, table, tokenizer).vectors

    assert torch.equal(table[token_ids(tokenizer, "red")].float(), vectors)
    assert [(2, 1)] == [(record.__dict__["tokens"], record.__dict__["vectors"]) for record in caplog.records]


def test_a_word_of_the_vocabulary_is_refused(table: torch.Tensor, tokenizer: Tokenizer) -> None:
    """It would train rows that no prompt ever reaches."""
    with pytest.raises(TrainingError, match="noah") as refused:
        create("noah", 4, "", 0, table, tokenizer)

    assert Outcome.WORD_TAKEN == refused.value.outcome


def test_a_pt_file_is_what_webui_writes(word: Word, tmp_path: Path) -> None:
    """A1111's keys; a plain fp32 tensor; nothing that needs code to load."""
    save_pt(word, tmp_path / "surtr_arknights-100.pt", step=100, base_digest="89d59c3dde", base_name="animefull-latest")

    content = torch.load(tmp_path / "surtr_arknights-100.pt", weights_only=True)

    assert torch.equal(word.vectors, content.pop("string_to_param")["*"])
    assert {
        "string_to_token": {"*": 265},
        "name": "surtr_arknights-100",
        "step": 100,
        "sd_checkpoint": "89d59c3dde",
        "sd_checkpoint_name": "animefull-latest",
    } == content


def test_a_file_holds_the_rows_and_nothing_else(tmp_path: Path) -> None:
    """Rows that are a view of a whole token table are saved alone, without the gradient's mark."""
    view = torch.nn.Parameter(torch.zeros(49408, DIM))[:4]

    save_pt(Word("surtr_arknights", view), tmp_path / "surtr_arknights.pt")

    assert (tmp_path / "surtr_arknights.pt").stat().st_size < 4 * DIM * 4 + 4096
    assert not torch.load(tmp_path / "surtr_arknights.pt", weights_only=True)["string_to_param"]["*"].requires_grad


def test_the_same_word_gives_the_same_bytes(word: Word, tmp_path: Path) -> None:
    """A digest tells whether two files are the same word, so the file's name is no part of its content."""
    save_pt(word, tmp_path / "a.pt")
    save_pt(word, tmp_path / "b.pt")

    assert (tmp_path / "a.pt").read_bytes() == (tmp_path / "b.pt").read_bytes()


def test_a_safetensors_file_holds_emb_params(word: Word, tmp_path: Path) -> None:
    """One tensor under the name that kohya gives it."""
    save_safetensors(word, tmp_path / "surtr_arknights.safetensors")

    content = safetensors.torch.load_file(tmp_path / "surtr_arknights.safetensors")

    assert ["emb_params"] == list(content)
    assert torch.equal(word.vectors, content["emb_params"])


@pytest.mark.parametrize("name", ["surtr_arknights-100.pt", "surtr_arknights-100.safetensors"])
def test_what_was_saved_is_read(word: Word, tmp_path: Path, name: str) -> None:
    """Both files give back the rows; the word is the file's name."""
    (save_pt if name.endswith(".pt") else save_safetensors)(word, tmp_path / name)

    read = load(tmp_path / name)

    assert "surtr_arknights-100" == read.name
    assert torch.equal(word.vectors, read.vectors)


def test_writing_leaves_no_draft(word: Word, tmp_path: Path) -> None:
    """The file appears whole under its name, over an older one too."""
    for _ in range(2):
        save_pt(word, tmp_path / "surtr_arknights.pt")
        save_safetensors(word, tmp_path / "surtr_arknights.safetensors")

    assert ["surtr_arknights.pt", "surtr_arknights.safetensors"] == sorted(file.name for file in tmp_path.iterdir())


@pytest.mark.parametrize("key", ["emb_params", "emp_params", "<surtr>"])
def test_older_pt_files_are_read(tmp_path: Path, key: str) -> None:
    """Files with one tensor under an older key, or under the token's own name."""
    assert torch.equal(torch.ones(2, DIM), load(saved({key: torch.ones(2, DIM)}, tmp_path / "surtr.pt")).vectors)


def test_one_row_without_a_dimension_is_read(tmp_path: Path) -> None:
    """`[dim]` is one vector."""
    assert (1, DIM) == load(saved({"<surtr>": torch.ones(DIM)}, tmp_path / "surtr.pt")).vectors.shape


def test_any_single_tensor_of_a_safetensors_file_is_read(tmp_path: Path) -> None:
    """Diffusers names the tensor after the word."""
    safetensors.torch.save_file({"surtr": torch.ones(2, DIM)}, tmp_path / "surtr.safetensors")

    assert torch.equal(torch.ones(2, DIM), load(tmp_path / "surtr.safetensors").vectors)


def test_two_terms_are_refused_by_name(tmp_path: Path) -> None:
    """Other programs silently take one of them."""
    with pytest.raises(TrainingError, match=r"2 terms \(clip_g, clip_l\)"):
        load(saved({"string_to_param": {"clip_l": torch.ones(2, DIM), "clip_g": torch.ones(2, 1280)}}, tmp_path / "surtr.pt"))


class Hostile:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("code from a file ran",))


def test_a_file_that_runs_code_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The code does not run, and the message says which format has none."""
    with pytest.raises(TrainingError, match="safetensors"):
        load(saved({"string_to_param": {"*": Hostile()}}, tmp_path / "surtr.pt"))

    assert "ran" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({}, "0 terms"),
        ({"string_to_param": {"*": torch.full((4, DIM), torch.nan)}}, "finite"),
        ({"string_to_param": {"*": torch.zeros(4, DIM, dtype=torch.long)}}, "int64"),
        ({"string_to_param": {"*": torch.zeros(0, DIM)}}, "finite"),
        ({"string_to_param": {"*": torch.zeros(1, 4, DIM)}}, r"\[1, 4, 768\]"),
        ([torch.zeros(4, DIM)], "list"),
        (OrderedDict(state=OrderedDict(weight=torch.zeros(4, DIM))), "0 terms"),
    ],
)
def test_other_contents_are_refused(tmp_path: Path, content: Any, says: str) -> None:
    """What is no embedding is named."""
    with pytest.raises(TrainingError, match=says) as refused:
        load(saved(content, tmp_path / "surtr.pt"))

    assert Outcome.SPEC_INVALID == refused.value.outcome


@pytest.mark.parametrize("name", ["missing.pt", "missing.safetensors"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    """One line with the path."""
    with pytest.raises(TrainingError, match=name):
        load(tmp_path / name)


def file_of(kind: str) -> bytes:
    tensor = torch.ones(2, 8)
    if kind == "safetensors":
        return safetensors.torch.save({"emb_params": tensor})
    buffer = io.BytesIO()
    torch.save({"string_to_param": {"*": tensor}}, buffer, _use_new_zipfile_serialization=kind == "zip")
    return buffer.getvalue()


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(kind=st.sampled_from(["zip", "legacy", "safetensors"]), data=st.data())
def test_damaged_files_are_refused_not_crashed_on(tmp_path: Path, kind: str, data: st.DataObject) -> None:
    """Cut or changed bytes give a word or a TrainingError, nothing else."""
    content = bytearray(file_of(kind))
    content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / ("surtr.safetensors" if kind == "safetensors" else "surtr.pt")
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])

    try:
        assert load(path).vectors.isfinite().all()
    except TrainingError as error:
        assert Outcome.SPEC_INVALID == error.outcome  # noqa: PT017


def test_a_plain_pickle_is_refused(tmp_path: Path) -> None:
    """A file that torch did not write."""
    (tmp_path / "surtr.pt").write_bytes(pickle.dumps({"emb_params": [1.0]}, protocol=2))

    with pytest.raises(TrainingError, match=r"surtr\.pt"):
        load(tmp_path / "surtr.pt")
