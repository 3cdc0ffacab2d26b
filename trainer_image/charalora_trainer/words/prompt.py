"""Prompts and captions to token ids, with trigger words expanded to their rows and a weight for every position.

The conditioning has 75 positions a chunk. A word of n vectors takes n of them, and its emphasis covers all n (HCP weights only the first).
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tokenizers import Tokenizer

from charalora_trainer.words.emphasis import Span, parse
from charalora_trainer.words.tokenizer import bos_id, eos_id, token_ids, vocabulary_size

CHUNK = 75


@dataclass(frozen=True)
class PromptTokens:
    """A text in N chunks of 77: its beginning, 75 positions, its end; what is left over is filled with the end.

    Attributes:
        ids: `[N][77]`; from the vocabulary's size upwards they are rows of trigger words.
        weights: `[N][77]` emphasis, 1 where there is none.
        tokens: Positions that the text asks for.
        truncated: How many of them the chunks had no room for.
    """

    ids: tuple[tuple[int, ...], ...]
    weights: tuple[tuple[float, ...], ...]
    tokens: int
    truncated: int

    @property
    def joined_weights(self) -> tuple[float, ...]:
        """Weights of the `75·N + 2` rows that the chunks have when their conditioning is joined."""
        inner = (weight for chunk in self.weights for weight in chunk[1:-1])
        return (self.weights[0][0], *inner, self.weights[-1][-1])


class PromptTokenizer:
    """Turns texts into chunks of token ids.

    Words match with their case, longest first, and inside longer strings too: with words `x` and `x-1000`, the text `x-1000y` is the word
    `x-1000` and the token `y`.

    Args:
        tokenizer: The base model's.
        words: Name and number of vectors of each word; rows are numbered through all words in this order.
        aliases: Other names for words: `{"surtr_arknights-1000": "surtr_arknights"}`.
    """

    def __init__(self, tokenizer: Tokenizer, words: Mapping[str, int], aliases: Mapping[str, str] | None = None) -> None:
        self._tokenizer = tokenizer
        self._bos, self._eos = bos_id(tokenizer), eos_id(tokenizer)
        self._rows: dict[str, tuple[int, ...]] = {}
        row = vocabulary_size(tokenizer)
        for name, vectors in words.items():
            if not 1 <= vectors <= CHUNK:
                raise ValueError(f"The word {name} has {vectors} vectors; a word takes 1 to {CHUNK}.")
            self._rows[name] = tuple(range(row, row + vectors))
            row += vectors
        self._rows |= {alias: self._rows[name] for alias, name in (aliases or {}).items()}
        longest_first = sorted(self._rows, key=len, reverse=True)
        self._words = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")

    def encode(self, text: str, chunks: int | None = None) -> PromptTokens:
        """Tokens of a prompt, emphasis in braces included, in exactly `chunks` chunks or as many as it needs.

        A word that does not fit into the rest of a chunk begins the next one, so that its rows are always read together.

        Raises:
            PromptError: The braces do not add up.
        """
        return self._encode(parse(text), chunks)

    def encode_caption(self, text: str, chunks: int | None = None) -> PromptTokens:
        """Tokens of a training caption: braces, colons and backslashes mean themselves (`:}` is a tag)."""
        return self._encode([Span(text, 1.0)], chunks)

    def _encode(self, spans: Sequence[Span], chunks: int | None) -> PromptTokens:
        units = [(ids, span.weight) for span in spans for ids in self._units(span.text)]
        packed: list[list[tuple[int, float]]] = [[]]
        kept = 0
        for ids, weight in units:
            if len(packed[-1]) + len(ids) > CHUNK:
                if len(packed) == chunks:
                    break
                packed.append([])
            packed[-1] += [(token, weight) for token in ids]
            kept += len(ids)
        packed += [[] for _ in range(len(packed), chunks or 0)]
        tokens = sum(len(ids) for ids, _ in units)
        filled = [[(self._bos, 1.0), *chunk, *[(self._eos, 1.0)] * (CHUNK + 1 - len(chunk))] for chunk in packed]
        return PromptTokens(
            ids=tuple(tuple(token for token, _ in chunk) for chunk in filled),
            weights=tuple(tuple(weight for _, weight in chunk) for chunk in filled),
            tokens=tokens,
            truncated=tokens - kept,
        )

    def _units(self, text: str) -> Iterator[tuple[int, ...]]:
        """What must stay together: the rows of a word, or one token of plain text."""
        end = 0
        for word in self._words.finditer(text):
            yield from ((token,) for token in token_ids(self._tokenizer, text[end : word.start()]))
            yield self._rows[word[0]]
            end = word.end()
        yield from ((token,) for token in token_ids(self._tokenizer, text[end:]))
