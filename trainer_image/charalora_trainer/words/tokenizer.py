"""CLIP's byte-pair tokenizer, from a base model's files or from the vocabulary that is packaged here. Needs neither torch nor transformers.

Byte-pair merging, the split expression and the order of the vocabulary are those of OpenAI's CLIP (github.com/openai/CLIP,
simple_tokenizer.py); ids are equal to those of transformers' CLIPTokenizer.
"""

import gzip
import json
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import BPE

from charalora_spec.outcome import Outcome, TrainingError

END_OF_WORD = "</w>"
BOS = "<|startoftext|>"
EOS = "<|endoftext|>"  # also the padding
PIECES = rf"{re.escape(BOS)}|{re.escape(EOS)}|'s|'t|'re|'ve|'m|'ll|'d|[\p{{L}}]+|[\p{{N}}]|[^\s\p{{L}}\p{{N}}]+"

Merges = Sequence[tuple[str, str]]


def load_tokenizer(folder: Path | None = None) -> Tokenizer:
    """The tokenizer of a base model's `tokenizer` folder, or with None that of Stable Diffusion 1.x (49,408 tokens).

    Read are vocab.json and merges.txt, else tokenizer.json. Words that someone added to the files are left out: the token table has no
    row for them.

    Raises:
        TrainingError: `BaseModelInvalid` when files are missing, damaged or not CLIP's.
    """
    vocabulary, merges = _packaged() if folder is None else _of_folder(folder)
    if problem := _problem(vocabulary, merges):
        raise TrainingError(
            Outcome.BASE_MODEL_INVALID,
            f"The tokenizer in {folder} is not CLIP's ({problem}); give a base model of the Stable Diffusion 1.x family.",
        )
    return _tokenizer(vocabulary, merges)


def vocabulary_size(tokenizer: Tokenizer) -> int:
    """How many rows the base model's token table has; its last two are the beginning and the end of a text."""
    return int(tokenizer.get_vocab_size(with_added_tokens=False))


def bos_id(tokenizer: Tokenizer) -> int:
    """The token that begins a text (49406)."""
    return vocabulary_size(tokenizer) - 2


def eos_id(tokenizer: Tokenizer) -> int:
    """The token that ends a text and fills it up (49407)."""
    return vocabulary_size(tokenizer) - 1


def token_ids(tokenizer: Tokenizer, text: str) -> list[int]:
    """A text's tokens, without beginning and end."""
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    return ids


def word_problem(tokenizer: Tokenizer, word: str) -> str | None:
    """Why `word` cannot be a trigger word and what to do, as a sentence; None if it can.

    A word of the base vocabulary would never reach the embedding, and one with separators would be torn apart in prompts.
    """
    if unfit := sorted(set(re.findall(r"[^\w.-]", word))):
        shown = " ".join(repr(character) for character in unfit)
        return f"The trigger word {word!r} contains {shown}; use letters, digits, '_', '-' and '.' only."
    if not re.search(r"[^\W_]", word):
        return f"The trigger word {word!r} has no letter or digit; write a name such as surtr_arknights."
    ids = token_ids(tokenizer, word)
    token = ids[0] if len(ids) == 1 else tokenizer.token_to_id(word)
    if token is not None:
        return (
            f"The trigger word {word!r} is already a word of the base model (token {token}); choose a rarer one, such as {word}_character."
        )
    return None


def _packaged() -> tuple[Mapping[str, int], Merges]:
    text = gzip.decompress(files(__package__).joinpath("clip_merges.txt.gz").read_bytes()).decode()
    merges = _merges(text.splitlines())
    letters = _byte_letters()
    tokens = [*letters, *(letter + END_OF_WORD for letter in letters), *("".join(pair) for pair in merges), BOS, EOS]
    return {token: number for number, token in enumerate(tokens)}, merges


def _of_folder(folder: Path) -> tuple[Mapping[str, int], Merges]:
    try:
        if (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
            lines = (folder / "merges.txt").read_text(encoding="utf-8").split("\n")
            vocabulary = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
            return vocabulary, _merges([line for line in lines if line and not line.startswith("#version")])
        model: dict[str, Any] = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]
        return model["vocab"], _merges(model["merges"])
    except FileNotFoundError as error:
        raise TrainingError(
            Outcome.BASE_MODEL_INVALID,
            f"The base model's tokenizer is missing in {folder}; the folder must hold vocab.json and merges.txt, or tokenizer.json.",
        ) from error
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise TrainingError(
            Outcome.BASE_MODEL_INVALID,
            f"The base model's tokenizer in {folder} is damaged ({error!r}); fetch the files again.",
        ) from error


def _merges(lines: Sequence[str | Sequence[str]]) -> Merges:
    """Pairs from lines of "left right", or from the lists that newer tokenizer.json files have."""
    pairs = (line.split() if isinstance(line, str) else line for line in lines)
    return [(str(left), str(right)) for left, right in pairs]


def _byte_letters() -> list[str]:
    """A visible character for each of the 256 bytes, in CLIP's order: those that print stand for themselves and come first."""
    visible = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    return [chr(byte) for byte in visible] + [chr(256 + number) for number in range(256 - len(visible))]


def _problem(vocabulary: Mapping[str, int], merges: Merges) -> str | None:
    """What tells these files from CLIP's, checked here because the library behind fails without a name."""
    numbered = isinstance(vocabulary, dict) and all(isinstance(number, int) for number in vocabulary.values())
    if not numbered or sorted(vocabulary.values()) != list(range(len(vocabulary))):
        return "its ids are not 0, 1, 2 and so on"
    last = sorted(vocabulary, key=vocabulary.__getitem__)[-2:]
    if last != [BOS, EOS]:
        return f"its last two tokens are not {BOS} and {EOS}"
    letters = _byte_letters()
    if missing := [token for token in (*letters, *(letter + END_OF_WORD for letter in letters)) if token not in vocabulary]:
        return f"the byte token {missing[0]!r} is missing"
    if strays := [pair for pair in merges if not {*pair, "".join(pair)} <= vocabulary.keys()]:
        return f"the merge {' '.join(strays[0])!r} is not in the vocabulary"
    return None


def _tokenizer(vocabulary: Mapping[str, int], merges: Merges) -> Tokenizer:
    tokenizer = Tokenizer(BPE(vocab=dict(vocabulary), merges=list(merges), end_of_word_suffix=END_OF_WORD, unk_token=EOS))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.add_special_tokens([BOS, EOS])
    return tokenizer
