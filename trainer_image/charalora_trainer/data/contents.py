"""What is in the files of a data set: every picture decoded once, every caption read."""

import hashlib
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from charalora_trainer.data import picture_file, pictures
from charalora_trainer.data.picture_file import EXTENSIONS, PictureRefused, Refusal
from charalora_trainer.finding import Finding, about_files

MAX_CAPTION_BYTES = 64 * 1024
_MOST_THREADS = 4
_LARGE = 16_000_000  # pixels; larger ones are decoded one at a time: 64 megapixels take most of a gigabyte on the way


@dataclass(frozen=True)
class Opened:
    """A picture that training can take.

    Attributes:
        name: Its file.
        format: What it is inside: PNG, JPEG or WEBP.
        size: Width and height in pixels, upright.
        sha256: Of the file.
    """

    name: str
    format: str
    size: tuple[int, int]
    sha256: str


def open_pictures(folder: Path, names: Iterable[str]) -> tuple[list[Opened], list[PictureRefused]]:
    """Decode every picture; several at a time, for Pillow decodes without Python's lock."""
    alone = Lock()
    with ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1)) as pool:
        results = list(pool.map(lambda name: _open(folder / name, alone), names))
    opened = [result for result in results if isinstance(result, Opened)]
    return opened, [result for result in results if isinstance(result, PictureRefused)]


def read_caption(file: Path) -> str | None:
    """The caption's text, or None where the file is none: not UTF-8, with NUL characters, or larger than 64 KiB."""
    with file.open("rb") as stream:
        data = stream.read(MAX_CAPTION_BYTES + 1)
    if len(data) > MAX_CAPTION_BYTES or b"\0" in data:  # UTF-16 of English text has a NUL in every letter
        return None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return None


def picture_findings(opened: Iterable[Opened], refused: Iterable[PictureRefused]) -> list[Finding]:
    """Pictures that cannot be used, and what is odd about the others."""
    found = []
    for refusal in Refusal:
        same = sorted((error for error in refused if error.refusal is refusal), key=lambda error: error.name)
        first = f" (the first: {same[0].detail})" if same and same[0].detail else ""
        found += about_files((error.name for error in same), refusal.what, refusal.remedy + first)
    by_content: dict[str, list[str]] = {}
    for picture in opened:
        by_content.setdefault(picture.sha256, []).append(picture.name)
    copies = [name for names in by_content.values() if len(names) > 1 for name in names]
    misnamed = [picture.name for picture in opened if EXTENSIONS[Path(picture.name).suffix.lower()] != picture.format]
    found += about_files(
        copies, "Pictures that are identical", "training shows them more often; remove the copies if that is not meant", stops=False
    )
    found += about_files(misnamed, "Pictures of another format than their names say", "they are read as what they are", stops=False)
    return found


def caption_findings(captions: Mapping[str, str | None]) -> list[Finding]:
    """Caption files that are no text."""
    wrong = [name for name, text in captions.items() if text is None]
    return about_files(wrong, f"Captions that are no UTF-8 text of up to {MAX_CAPTION_BYTES // 1024} KiB", "save them as UTF-8")


def _open(file: Path, alone: Lock) -> Opened | PictureRefused:
    try:
        data = picture_file.read(file)
        header = picture_file.read_header(data, file.name)
        with alone if header.width * header.height > _LARGE else nullcontext():
            size = pictures.decode(data, file.name).size
        return Opened(file.name, header.format, size, hashlib.sha256(data).hexdigest())
    except PictureRefused as refused:
        return refused
