"""A store's objects in a folder that many runs share, of several machines too."""

import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from charalora_spec.outcome import Outcome, TrainingError
from charalora_trainer.storage.staging import OnProgress, stage
from charalora_trainer.storage.store import Entry, Store
from charalora_trainer.storage.wholefile import to_disk

_READABLE = 64
"""Letters of the uri that a folder's name begins with."""
_OF_NO_USE = {Outcome.DISK_FULL, Outcome.DATASET_CHANGED}
"""Ends of a staging after which what it has is of no use to the next one."""


class SharedFolderUnusableError(Exception):
    """What runs share is read-only, full or broken here; the message is what the operating system says."""


@dataclass(frozen=True)
class SharedFolder:
    """The place of some objects below `root`, named by what they are: another content has another place.

    It is there whole or not at all. One run stages it beside, under a lock, while others wait; where a killed run was, the next one goes
    on. Afterwards it is only read: nothing here changes or removes what is whole.

    Attributes:
        root: Of all that runs share.
        uri: What people call the objects.
        store: Where they come from.
        entries: The objects as listed.
    """

    root: Path
    uri: str
    store: Store
    entries: tuple[Entry, ...]

    @property
    def path(self) -> Path:
        """`<last part of the uri>-<digest of uri, keys, sizes and ETags>`."""
        content = [self.uri, sorted((entry.key, entry.size, entry.etag) for entry in self.entries)]
        readable = re.sub(r"[^A-Za-z0-9_-]+", "-", PurePosixPath(self.uri).stem)[:_READABLE]
        return self.root / f"{readable.strip('-') or 'model'}-{hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]}"

    @property
    def is_whole(self) -> bool:
        """Whether every object is here. Needs no right to write."""
        return all(_size(self.path / entry.key) == entry.size for entry in self.entries)

    @contextmanager
    def alone(self, waiting: Callable[[], AbstractContextManager[object]] = nullcontext) -> Iterator[None]:
        """Keep other runs from staging it while the block runs; `waiting` surrounds the time in which another one does.

        The kernel, or the server of a network share, lets go of the lock when this process or its machine is gone.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / f".{self.path.name}.lock").open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                with waiting():
                    fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def stage(self, on_progress: OnProgress | None = None) -> None:
        """Bring the objects here. Only inside `alone`.

        Raises:
            TrainingError: `DatasetChanged` when an object is replaced or deleted meanwhile, and whatever else staging raises.
        """
        draft = self.path if self.path.exists() else self.root / f".{self.path.name}.draft"  # a damaged one is mended where it stands
        try:
            self._refuse_other_versions(stage(self.store, self.entries, draft, on_progress))
        except TrainingError as error:
            if error.outcome in _OF_NO_USE:
                shutil.rmtree(draft, ignore_errors=True)
            raise
        for path in filter(Path.is_file, draft.rglob("*")):
            to_disk(path)  # a machine that fails now must leave no name without its content
        if draft != self.path:
            draft.rename(self.path)

    def _refuse_other_versions(self, came: Iterable[Entry]) -> None:
        """The folder's name promises what was listed."""
        if replaced := sorted(entry.key for entry in set(came) - set(self.entries)):
            raise TrainingError(Outcome.DATASET_CHANGED, f"{self.store.uri}{replaced[0]} was replaced while it was fetched; start again.")


@contextmanager
def naming_unusable() -> Iterator[None]:
    """What the operating system refuses in a shared folder becomes `SharedFolderUnusableError`; what a store refuses stays what it is.

    Raises:
        SharedFolderUnusableError: In place of the operating system's error.
    """
    try:
        yield
    except (OSError, TrainingError) as error:
        cause = error.__cause__ if isinstance(error, TrainingError) else error
        if isinstance(cause, OSError) and cause.errno is not None:
            raise SharedFolderUnusableError(os.strerror(cause.errno)) from error
        raise


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None
