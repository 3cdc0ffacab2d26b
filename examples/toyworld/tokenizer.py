"""A tokenizer in CLIP's byte-pair format with a small vocabulary: bytes, bytes at a word's end, merges, two special tokens."""

import json
from collections import Counter
from itertools import pairwise
from pathlib import Path

from transformers import CLIPTokenizer

from toyworld.looks import words

END_OF_WORD = "</w>"
SPECIAL = ("<|startoftext|>", "<|endoftext|>")
POSITIONS = 77


def byte_letters() -> list[str]:
    """GPT-2's printable stand-in for each of the 256 bytes, in CLIP's order: printable bytes first."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = 256 - len(printable)
    return [chr(code) for code in printable] + [chr(256 + offset) for offset in range(others)]


def learn_merges(vocabulary: list[str]) -> list[tuple[str, str]]:
    """Byte-pair merges, the most frequent pair first, until every word of `vocabulary` is one token."""
    spelled = [[*word[:-1], word[-1] + END_OF_WORD] for word in vocabulary]
    merges: list[tuple[str, str]] = []
    while pairs := Counter(pair for word in spelled for pair in pairwise(word)):
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        spelled = [merged(word, best) for word in spelled]
    return merges


def merged(word: list[str], pair: tuple[str, str]) -> list[str]:
    """`word` with every occurrence of `pair` written as one symbol."""
    result: list[str] = []
    for symbol in word:
        if result and (result[-1], symbol) == pair:
            result[-1] += symbol
        else:
            result.append(symbol)
    return result


def write_tokenizer(folder: Path) -> CLIPTokenizer:
    """Write vocab.json and merges.txt, which HCP and the webui read, then tokenizer.json beside them, and return the tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    merges = learn_merges(words())
    letters = byte_letters()
    tokens = [*letters, *(letter + END_OF_WORD for letter in letters), *("".join(pair) for pair in merges), *SPECIAL]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=POSITIONS)
    tokenizer.save_pretrained(folder)
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *(" ".join(pair) for pair in merges)]) + "\n", encoding="utf-8")
    return tokenizer
