"""A data set folder, checked: what training will see, or everything that keeps it from training."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Self

from tokenizers import Tokenizer

from charalora_spec.outcome import Outcome
from charalora_spec.spec import Character, Dataset, OnMissing
from charalora_trainer.data import captions, contents, pairing, sizing
from charalora_trainer.data.contents import Opened
from charalora_trainer.data.sizing import Bucket
from charalora_trainer.finding import Finding, about_files, printable
from charalora_trainer.storage import staging
from charalora_trainer.storage.keys import problem_of

CHUNK = 75
"""Positions of a prompt that the text encoder reads at once."""

MAX_CHUNKS = 3

_EMPTY = {
    OnMissing.FAIL: "write tags into them, or remove them together with their pictures",
    OnMissing.SKIP: "their pictures are left out, as captions.onMissing says",
    OnMissing.WORD_ONLY: "their pictures are trained with the trigger word alone, as captions.onMissing says",
}


@dataclass(frozen=True)
class Pair:
    """A picture and its caption.

    Attributes:
        stem: The picture's name without its ending.
        picture: Its file, in the data set's folder.
        caption_file: The caption's file; None where there is none and that is allowed.
        caption: The caption as written.
        width: Of the picture in pixels, upright.
        height: Likewise.
        sha256: Of the picture's file.
    """

    stem: str
    picture: str
    caption_file: str | None
    caption: str
    width: int
    height: int
    sha256: str


@dataclass(frozen=True)
class DatasetPlan:
    """A data set that can be trained on.

    Attributes:
        pairs: Sorted by stem; a picture's number is its place here.
        buckets: Which pictures are trained in which size.
        digest: SHA-256 of all stems, pictures and captions; another one means that the data set changed.
        chunks: Chunks of 75 positions that the longest possible text needs, 1 to 3; all texts are padded to them.
        tokens: Positions of that text.
    """

    pairs: tuple[Pair, ...]
    buckets: tuple[Bucket, ...]
    digest: str
    chunks: int
    tokens: int

    def to_json(self) -> dict[str, Any]:
        """The plan as a JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Self:
        """What `to_json` gave."""
        return cls(
            pairs=tuple(Pair(**pair) for pair in content["pairs"]),
            buckets=tuple(Bucket(bucket["width"], bucket["height"], tuple(bucket["members"])) for bucket in content["buckets"]),
            digest=content["digest"],
            chunks=content["chunks"],
            tokens=content["tokens"],
        )


def read_dataset(folder: Path, dataset: Dataset, character: Character, tokenizer: Tokenizer) -> tuple[DatasetPlan | None, list[Finding]]:
    """Check a folder of pictures and captions; subfolders are not looked into.

    Args:
        folder: Where the files lie.
        dataset: How they are to be read.
        character: Whose word stands before the captions.
        tokenizer: The base model's, to count tokens with.

    Returns:
        The plan, or None where a finding stops the run; and all findings at once.
    """
    entries = (entry for entry in folder.iterdir() if entry.name != staging.INDEX)
    names = sorted(entry.name if entry.is_file() else f"{entry.name}/" for entry in entries)
    hostile = [name for name in names if problem_of(name.removesuffix("/"))]
    sorted_out = pairing.pair((name for name in names if name not in hostile), dataset.captions.extension)
    opened, refused = contents.open_pictures(folder, [picture for picture, _ in sorted_out.pairs.values()])
    texts = {file: contents.read_caption(folder / file) for _, file in sorted_out.pairs.values() if file}
    pairs = _pairs(sorted_out.pairs, opened, texts)
    kept = [pair for pair in pairs if dataset.captions.on_missing is not OnMissing.SKIP or captions.parse(pair.caption)]
    tokens = _tokens(kept, character, dataset, _counter(tokenizer, character))
    found = [
        *about_files(hostile, "File names with control characters or backslashes", "rename the files"),
        *pairing.findings(sorted_out, dataset.captions.extension, dataset.captions.on_missing),
        *contents.picture_findings(opened, refused),
        *contents.caption_findings(texts),
        *_empty_findings(texts, dataset.captions.on_missing),
        *sizing.findings({pair.picture: (pair.width, pair.height) for pair in kept}, dataset),
        *_length_findings(tokens),
        *_word_inside_findings(kept, character.name),
    ]
    if not kept and not any(finding.stops for finding in found):
        found.append(
            Finding(Outcome.DATASET_INVALID, "No picture with a caption is left; write captions, or set captions.onMissing: WordOnly.")
        )
    if any(finding.stops for finding in found):
        return None, found
    most = max(tokens.values())
    buckets = sizing.plan([(pair.width, pair.height) for pair in kept], dataset)
    return DatasetPlan(tuple(kept), buckets, digest(kept), _chunks(most, character.vectors), most), found


def _chunks(tokens: int, vectors: int) -> int:
    """Chunks that hold a text of so many positions, wherever the word stands: its vectors are never split, so a chunk may end early."""
    return 1 if tokens <= CHUNK else min(MAX_CHUNKS, -(-(tokens + vectors - 1) // CHUNK))


def digest(pairs: Sequence[Pair]) -> str:
    """SHA-256 over stems, picture contents and caption texts, in the order of the stems."""
    lines = sorted(json.dumps([pair.stem, pair.sha256, pair.caption]) for pair in pairs)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _pairs(files: dict[str, tuple[str, str | None]], opened: Sequence[Opened], texts: dict[str, str | None]) -> list[Pair]:
    """Every picture that could be opened, with its caption or an empty one."""
    by_name = {picture.name: picture for picture in opened}
    return [
        Pair(stem, picture, caption, (caption and texts[caption]) or "", *by_name[picture].size, by_name[picture].sha256)
        for stem, (picture, caption) in files.items()
        if picture in by_name
    ]


def _counter(tokenizer: Tokenizer, character: Character) -> Callable[[str], int]:
    """Counts positions of a text; tags repeat, so counts are kept."""

    @cache
    def count(text: str) -> int:
        parts = text.split(character.name)
        tokens = sum(len(tokenizer.encode(part, add_special_tokens=False).ids) for part in parts)
        return tokens + (len(parts) - 1) * character.vectors

    return count


def _tokens(pairs: Sequence[Pair], character: Character, dataset: Dataset, count: Callable[[str], int]) -> dict[str, int]:
    """By file, the positions of the longest text that a caption can become."""
    return {
        pair.caption_file or pair.picture: captions.most_tokens(captions.parse(pair.caption), character, dataset.captions, count)
        for pair in pairs
    }


def _empty_findings(texts: dict[str, str | None], on_missing: OnMissing) -> list[Finding]:
    empty = [file for file, text in texts.items() if text is not None and not captions.parse(text)]
    return about_files(empty, "Empty captions", _EMPTY[on_missing], stops=on_missing is OnMissing.FAIL)


def _length_findings(tokens: dict[str, int]) -> list[Finding]:
    most = MAX_CHUNKS * CHUNK
    long = [name for name, count in tokens.items() if count > most]
    return about_files(long, f"Captions of more than {most} tokens with the sentence around them", "remove their least telling tags")


def _word_inside_findings(pairs: Sequence[Pair], word: str) -> list[Finding]:
    """The word is found inside longer strings too: with the word `tar`, a guitar is read as `gui` and the character."""
    inside = {
        pair.caption_file or pair.picture: tag
        for pair in pairs
        for tag in captions.parse(pair.caption)
        if word in tag and not captions.is_word(tag, word)
    }
    what = f"Captions with the trigger word inside another tag, such as {printable(min(inside.values(), default=''))!r}"
    return about_files(inside, what, "it would be read as the character there; choose another word, or rewrite these tags", stops=False)
