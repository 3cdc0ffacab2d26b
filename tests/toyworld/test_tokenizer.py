"""The tokenizer reads tags word by word, and its files are those of CLIP."""

import json
from pathlib import Path

import pytest
from transformers import CLIPTokenizer

from toyworld.looks import words
from toyworld.tokenizer import POSITIONS, SPECIAL, write_tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(folder)
    return folder


def test_every_word_of_a_tag_is_one_token(folder: Path) -> None:
    tokenizer = CLIPTokenizer.from_pretrained(folder)

    assert [] == [word for word in words() if len(tokenizer.tokenize(word)) != 1]


def test_the_special_tokens_are_the_last_two(folder: Path) -> None:
    vocabulary = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))

    assert list(SPECIAL) == sorted(vocabulary, key=vocabulary.__getitem__)[-2:]


def test_slow_and_fast_files_agree(folder: Path, tmp_path: Path) -> None:
    """A reader that knows only vocab.json and merges.txt gets the tokens of tokenizer.json."""
    for name in ("vocab.json", "merges.txt"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    text = "masterpiece, best quality, 1girl, solo, white hair, surtr_arknights"

    assert CLIPTokenizer.from_pretrained(folder)(text).input_ids == CLIPTokenizer.from_pretrained(tmp_path)(text).input_ids


def test_captions_are_padded_to_77(folder: Path) -> None:
    tokenizer = CLIPTokenizer.from_pretrained(folder)

    assert POSITIONS == len(tokenizer("1girl", padding="max_length").input_ids)
