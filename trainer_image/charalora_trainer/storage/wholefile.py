"""Files that stand whole or not at all, and how to tell."""

import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TEMPORARY = ".charalora-part-"
"""How the names of unfinished files begin; one that is left over was killed half-way and may go."""


def temporary_name(path: Path) -> Path:
    """A free name in the folder of `path`, short whatever the name of `path`."""
    return path.parent / f"{TEMPORARY}{secrets.token_hex(8)}"


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary name beside `path` to write to: it becomes `path` when the block ends well, and vanishes when it does not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = temporary_name(path)
    try:
        yield draft
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def to_disk(path: Path) -> None:
    """Return when a file's content, or a folder's names, would survive a failure of the machine."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_of(path: Path) -> str:
    """A file's SHA-256, 64 hexadecimal digits; read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
