"""A folder as a store."""

import filecmp
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from charalora_trainer.storage.faults import naming_disk_faults
from charalora_trainer.storage.keys import refuse_hostile
from charalora_trainer.storage.store import BytesSeen, Entries, Entry, KeyMissing
from charalora_trainer.storage.wholefile import TEMPORARY, temporary_name, to_disk, whole_file

_CHUNK = 1 << 20


class LocalStore:
    """A folder on this machine, or on a network share that it mounts. Links to files are followed, links to folders are not.

    Args:
        folder: Where keys begin; made when something is written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder.absolute()

    @property
    def uri(self) -> str:
        """`file:///…/`."""
        return f"file://{self._folder.as_posix().rstrip('/')}/"

    def list(self) -> Entries:
        """All files below the folder; what a killed writer left unfinished does not count."""
        with naming_disk_faults(f"Listing {self.uri}"):
            return sorted(self._entries(), key=lambda entry: entry.key)

    def stat(self, key: str) -> Entry:
        """Size and ETag of one file."""
        with self._opened(key) as file:
            return _entry(key, os.fstat(file.fileno()))

    def holds(self, path: Path, entry: Entry) -> bool:
        """Whether the file has the same content as one elsewhere; the bytes are compared."""
        return path.is_file() and path.stat().st_size == entry.size and filecmp.cmp(self._path(entry.key), path, shallow=False)

    def read(self, key: str, start: int | None = None, end: int | None = None) -> bytes:
        """The bytes from `start` to before `end`."""
        first = start or 0
        with self._opened(key) as file:
            file.seek(first)
            return file.read() if end is None else file.read(max(0, end - first))

    def download(self, key: str, path: Path, known: Entry | None = None, on_bytes: BytesSeen | None = None) -> Entry:  # noqa: ARG002  # a copy needs no hint
        """Copy a file to `path`."""
        with self._opened(key) as original, naming_disk_faults(f"Writing {path}"):
            with whole_file(path) as draft, draft.open("wb") as copy:
                shutil.copyfileobj(original, copy, _CHUNK)
            entry = _entry(key, os.fstat(original.fileno()))
        if on_bytes:
            on_bytes(entry.size)
        return entry

    def upload(self, path: Path, key: str) -> None:
        """Copy a file into the folder."""
        target = self._path(key)
        with (
            path.open("rb") as original,
            naming_disk_faults(f"Writing {self.uri}{key}"),
            whole_file(target) as draft,
        ):
            with draft.open("wb") as copy:
                shutil.copyfileobj(original, copy, _CHUNK)
            to_disk(draft)

    def write(self, key: str, data: bytes) -> None:
        """Write a small file."""
        with naming_disk_faults(f"Writing {self.uri}{key}"), whole_file(self._path(key)) as draft:
            draft.write_bytes(data)
            to_disk(draft)

    def create(self, key: str, data: bytes) -> bool:
        """Write a small file unless there is one. Linking is the way to a name that is both whole and new."""
        path = self._path(key)
        with naming_disk_faults(f"Writing {self.uri}{key}"):
            path.parent.mkdir(parents=True, exist_ok=True)
            draft = temporary_name(path)
            try:
                draft.write_bytes(data)
                to_disk(draft)
                path.hardlink_to(draft)
            except FileExistsError:
                return False
            finally:
                draft.unlink(missing_ok=True)
        return True

    def delete(self, keys: Iterable[str]) -> None:
        """Remove files, and the folders that this leaves empty: S3 has none either."""
        for key in keys:
            path = self._path(key)
            with naming_disk_faults(f"Deleting {self.uri}{key}"):
                path.unlink(missing_ok=True)
                for folder in path.relative_to(self._folder).parents[:-1]:
                    remove_if_empty(self._folder / folder)

    def _path(self, key: str) -> Path:
        refuse_hostile(key)
        return self._folder / key

    @contextmanager
    def _opened(self, key: str) -> Iterator[BinaryIO]:
        path = self._path(key)
        with naming_disk_faults(f"Reading {self.uri}{key}"):
            try:
                file = path.open("rb")
            except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
                raise KeyMissing(self.uri + key) from None
            with file:
                yield file

    def _entries(self) -> Iterator[Entry]:
        for folder, _, names in os.walk(self._folder, onerror=_unless_absent):
            for name in names:
                path = Path(folder, name)
                if not name.startswith(TEMPORARY) and path.is_file():
                    yield _entry(path.relative_to(self._folder).as_posix(), path.stat())


def remove_if_empty(folder: Path) -> None:
    """Remove a folder that holds nothing."""
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def _entry(key: str, stat: os.stat_result) -> Entry:
    return Entry(key, stat.st_size, f"{stat.st_size:x}-{stat.st_mtime_ns:x}")


def _unless_absent(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error
