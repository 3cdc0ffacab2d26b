"""What a store is, whatever stands behind it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


class KeyMissing(LookupError):  # noqa: N818  # not always an error: the caller decides what an absent key means
    """There is nothing under this key."""

    def __init__(self, uri: str) -> None:
        super().__init__(uri)
        self.uri = uri

    def __str__(self) -> str:
        return f"{self.uri} does not exist."


@dataclass(frozen=True)
class Entry:
    """One object of a store.

    Attributes:
        key: Its name below the store's prefix, with `/` between folders.
        size: Bytes.
        etag: Changes with the content. Of S3: the server's, without quotes; of a folder: size and time of change.
    """

    key: str
    size: int
    etag: str


Entries = list[Entry]
"""`list[Entry]`, sayable inside a class that has a method `list`."""

BytesSeen = Callable[[int], None]
"""Called with the number of bytes that have arrived since the last call, from whichever thread received them."""


class Store(Protocol):
    """Objects below one prefix. Whatever is written stands whole or not at all. Safe to use from several threads.

    Every method raises `KeyMissing` for a key that is not there, and `TrainingError` with `BucketNotFound`, `StorageAccessDenied`,
    `StorageUnreachable` or `DiskFull` for what else can go wrong; transient faults were tried again by then.
    """

    @property
    def uri(self) -> str:
        """Where this is, ending in `/`, so that `store.uri + key` names an object."""
        ...

    def list(self) -> Entries:
        """Every object below the prefix, sorted by key; folder markers are left out. A prefix with nothing below it gives []."""
        ...

    def stat(self, key: str) -> Entry:
        """Size and ETag of one object."""
        ...

    def holds(self, path: Path, entry: Entry) -> bool:
        """Whether the object is what stands in a file here; False as well where its ETag does not tell."""
        ...

    def read(self, key: str, start: int | None = None, end: int | None = None) -> bytes:
        """The bytes from `start` to before `end`; fewer where the object ends earlier."""
        ...

    def download(self, key: str, path: Path, known: Entry | None = None, on_bytes: BytesSeen | None = None) -> Entry:
        """Bring an object to `path`, under a temporary name until it is whole, and say which version came.

        `known`, as listed, saves the request for its size; where it is outdated, the present version comes.
        """
        ...

    def upload(self, path: Path, key: str) -> None:
        """Send a file as it is now: of one that grows meanwhile, the part that stood at the start."""
        ...

    def write(self, key: str, data: bytes) -> None:
        """Put small data under `key`, replacing what was there."""
        ...

    def create(self, key: str, data: bytes) -> bool:
        """Put small data under `key` unless something is there; of several writers at once only one hears True."""
        ...

    def delete(self, keys: Iterable[str]) -> None:
        """Remove objects; one that is not there is no error."""
        ...
