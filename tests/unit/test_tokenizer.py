"""CLIP's tokenizer: the same ids as the programs that will read our words."""

import gzip
import html
import importlib.util
import json
import random
import subprocess
import sys
from importlib.metadata import files
from pathlib import Path
from types import ModuleType

import ftfy
import pytest
from tokenizers import Tokenizer
from transformers import CLIPTokenizer

from charalora_spec.outcome import Outcome, TrainingError
from charalora_trainer.words import tokenizer as module
from charalora_trainer.words.tokenizer import bos_id, eos_id, load_tokenizer, token_ids, vocabulary_size, word_problem
from toyworld.tokenizer import write_tokenizer

LETTERS = (
    "abcdefghijklmnopqrstuvwxyz ABC",
    "0123456789 .,",
    "_-:;!?()[]{}'\"<>|/\\@#$%^&*+=~` ",
    "éüñßøÅčžİ ",
    "史尔特尔アークナイツ뿌 ",
    "👩🏽‍🚀🎀✨❤️🇫🇷 ",
    "\t\n\r  x",
)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return load_tokenizer()


def varied_texts(count: int = 200) -> list[str]:
    """Texts of letters, digits, punctuation, accents, CJK and emoji that ftfy, which open_clip runs first, leaves as they are."""
    choose = random.Random(7)
    texts = [
        "masterpiece, best quality, 1girl, solo, surtr_arknights",
        "it's we're I'd don't 'tis",
        "<|startoftext|> a <|endoftext|>",
        "",
        "  ",
    ]
    while len(texts) < count:
        alphabets = choose.sample(LETTERS, choose.randint(1, 3))
        text = "".join(choose.choice(choose.choice(alphabets)) for _ in range(choose.randint(1, 60)))
        if html.unescape(ftfy.fix_text(text)) == text:
            texts.append(text)
    return texts


def open_clip_file(name: str) -> Path:
    return Path(str(next(file for file in files("open-clip-torch") or () if file.name == name and file.parts[0] == "open_clip").locate()))


def open_clip_tokenizer() -> ModuleType:
    """The one file of open_clip that tokenizes; its package would import vision models."""
    spec = importlib.util.spec_from_file_location("open_clip_tokenizer", open_clip_file("tokenizer.py"))
    assert spec
    assert spec.loader
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def test_the_packaged_merges_are_openais() -> None:
    """The packaged file holds lines 2 to 48,895 of OpenAI's, unchanged."""
    original = gzip.decompress(open_clip_file("bpe_simple_vocab_16e6.txt.gz").read_bytes()).decode().split("\n")

    packaged = gzip.decompress((Path(module.__file__).parent / "clip_merges.txt.gz").read_bytes()).decode()

    assert original[1:48895] == packaged.splitlines()


def test_ids_equal_those_of_transformers(tokenizer: Tokenizer) -> None:
    """Transformers' CLIPTokenizer, made from the same vocabulary and merges, gives the same ids for every text."""
    vocabulary, merges = module._packaged()
    theirs = CLIPTokenizer(vocab=dict(vocabulary), merges=list(merges))

    for text in varied_texts():
        assert theirs(text, add_special_tokens=False)["input_ids"] == token_ids(tokenizer, text), text


def test_ids_equal_those_of_open_clip(tokenizer: Tokenizer) -> None:
    """open_clip's SimpleTokenizer, OpenAI's own code with its own vocabulary file, gives the same ids."""
    theirs = open_clip_tokenizer().SimpleTokenizer()

    for text in varied_texts():
        if "<|" not in text:  # open_clip spells the special tokens differently
            assert theirs.encode(text) == token_ids(tokenizer, text), text


def test_begin_and_end_are_the_last_two_entries(tokenizer: Tokenizer) -> None:
    """Stable Diffusion 1.x: 49,408 tokens, BOS 49406, EOS 49407."""
    assert (49408, 49406, 49407) == (vocabulary_size(tokenizer), bos_id(tokenizer), eos_id(tokenizer))


def test_a_folder_with_vocab_and_merges_is_read(tmp_path: Path) -> None:
    """vocab.json and merges.txt give the ids that transformers gives for the same folder."""
    theirs = write_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").unlink()

    ours = load_tokenizer(tmp_path)

    assert theirs("1girl, red eyes", add_special_tokens=False)["input_ids"] == token_ids(ours, "1girl, red eyes")


def test_a_folder_with_tokenizer_json_alone_is_read(tmp_path: Path) -> None:
    """Newer base models have only tokenizer.json."""
    theirs = write_tokenizer(tmp_path)
    (tmp_path / "vocab.json").unlink()
    (tmp_path / "merges.txt").unlink()

    ours = load_tokenizer(tmp_path)

    assert theirs("1girl, red eyes", add_special_tokens=False)["input_ids"] == token_ids(ours, "1girl, red eyes")
    assert len(theirs) == vocabulary_size(ours)


def test_added_words_of_the_file_have_no_id(tmp_path: Path) -> None:
    """A word that someone added to tokenizer.json has no row in the token table; its id would be taken for a row of a trigger word."""
    theirs = write_tokenizer(tmp_path)
    theirs.add_tokens(["someword"])
    theirs.save_pretrained(tmp_path)
    (tmp_path / "vocab.json").unlink()

    ours = load_tokenizer(tmp_path)

    assert all(token < vocabulary_size(ours) for token in token_ids(ours, "someword"))


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("vocab.json", "{", "damaged"),
        ("vocab.json", '{"a": 5}', "0, 1, 2"),
        ("vocab.json", '{"a": [5]}', "0, 1, 2"),
        ("vocab.json", "[1, 2]", "0, 1, 2"),
        ("vocab.json", '{"a": 0, "b": 1}', "last two"),
        ("vocab.json", '{"<|startoftext|>": 0, "<|endoftext|>": 1}', "byte token"),
        ("merges.txt", "a b c\n", "damaged"),
        ("merges.txt", "q zz</w>\n", "merge 'q zz</w>'"),
        ("merges.txt", "\udcff", "damaged"),
    ],
)
def test_damaged_files_are_refused_by_name(tmp_path: Path, name: str, content: str, says: str) -> None:
    """A tokenizer that is not CLIP's ends as BaseModelInvalid with what is wrong, never inside a library."""
    write_tokenizer(tmp_path)
    (tmp_path / name).write_text(content, encoding="utf-8", errors="surrogateescape")

    with pytest.raises(TrainingError, match=says) as refused:
        load_tokenizer(tmp_path)

    assert Outcome.BASE_MODEL_INVALID == refused.value.outcome


def test_a_folder_without_files_says_which_are_missing(tmp_path: Path) -> None:
    """An empty folder is named, with the files that belong there."""
    with pytest.raises(TrainingError, match=r"vocab\.json and merges\.txt"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("word", ["surtr_arknights", "surtr-v2.1", "史尔特尔", "Amiya_1"])
def test_a_rare_name_is_a_good_word(tokenizer: Tokenizer, word: str) -> None:
    """Names that CLIP spells with several tokens can be learned."""
    assert word_problem(tokenizer, word) is None


@pytest.mark.parametrize("word", ["noah", "Noah", "cat", "ing"])
def test_a_word_of_the_vocabulary_is_taken(tokenizer: Tokenizer, word: str) -> None:
    """A word that is one token never reaches the embedding, whatever its case; the sentence proposes another."""
    assert f"{word}_character" in (word_problem(tokenizer, word) or "")


@pytest.mark.parametrize(
    ("word", "shown"),
    [("two words", "' '"), ("a,b", "','"), ("{a}", "'{'"), ("a:b", "':'"), ("a/b", "'/'"), ("<|endoftext|>", "'<'"), ("a\nb", r"'\n'")],
)
def test_separators_are_refused_by_name(tokenizer: Tokenizer, word: str, shown: str) -> None:
    """Prompts, captions and file names use these characters for themselves."""
    assert shown in (word_problem(tokenizer, word) or "")


@pytest.mark.parametrize("word", ["", "_", "-.-"])
def test_a_word_needs_a_letter(tokenizer: Tokenizer, word: str) -> None:
    """Punctuation alone is no name."""
    assert "no letter or digit" in (word_problem(tokenizer, word) or "")


def test_no_heavy_library_is_imported() -> None:
    """The check runs from an image without torch: prompts and tokenizer import none of the training libraries."""
    program = (
        "import sys, json; from charalora_trainer.words.prompt import PromptTokenizer; "
        "from charalora_trainer.words.tokenizer import load_tokenizer; "
        "PromptTokenizer(load_tokenizer(), {'a_word': 4}).encode('{a_word:1.2}'); "
        "print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    )

    loaded = json.loads(subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout)

    assert not {"torch", "transformers", "diffusers", "peft", "accelerate", "numpy"} & set(loaded)
