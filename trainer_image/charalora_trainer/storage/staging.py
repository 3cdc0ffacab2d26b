"""A store's objects as a local folder, so that training never waits for a store."""

import json
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path

from charalora_spec.outcome import Outcome, TrainingError
from charalora_trainer.storage.faults import naming_disk_faults
from charalora_trainer.storage.keys import refuse_hostile_keys
from charalora_trainer.storage.local import remove_if_empty
from charalora_trainer.storage.store import Entry, KeyMissing, Store
from charalora_trainer.storage.wholefile import whole_file

INDEX = ".charalora-staged.json"
"""What was staged into a folder, in that folder: by key the size, the ETag and the local file's time of change."""

PARALLEL = 8
"""Downloads at the same time."""
_SAVE_SECONDS = 1.0

OnProgress = Callable[[int, int], None]
"""Called with the bytes that are there and the bytes that there will be."""


def stage(store: Store, entries: Sequence[Entry], folder: Path, on_progress: OnProgress | None = None) -> list[Entry]:
    """Make `folder` hold exactly the objects `entries` of `store`, under their keys.

    Files that stand as they were staged, with the same ETag and size, are not fetched again; files that are not among `entries` go. The
    folder therefore belongs to staging alone. An interrupted staging goes on where it was. An index among `entries`, of a store that was
    itself staged, is left out.

    Returns:
        What was fetched, in the version that came: newer than listed where an object was replaced meanwhile.

    Raises:
        TrainingError: `DatasetInvalid` for keys that cannot become files; `SpecInvalid` when the folder holds files that were not staged;
            `DatasetChanged` when an object has gone since it was listed; `DiskFull`; and what the store raises.
    """
    wanted = [entry for entry in entries if entry.key != INDEX]
    refuse_hostile_keys(entry.key for entry in wanted)
    with naming_disk_faults(f"Staging into {folder}"):
        staged = _Staged(folder)
        staged.drop_all_but({entry.key for entry in wanted})
        missing = [entry for entry in wanted if not staged.stands(entry)]
        progress = _Progress(on_progress, wanted, missing)

        def fetch(entry: Entry) -> Entry:
            try:
                came = store.download(entry.key, folder / entry.key, entry, progress.add)
            except KeyMissing as error:
                raise TrainingError(
                    Outcome.DATASET_CHANGED, f"{error.uri} was listed and then deleted; start again with what is there."
                ) from error
            staged.add(came)
            return came

        with staged.saved_at_end(), _threads(progress) as pool:
            fetched = [done.result() for done in as_completed([pool.submit(fetch, entry) for entry in missing])]
        progress.finish()
    return fetched


class _StoppedError(Exception):
    """The staging is over, and this download is not needed any more."""


@contextmanager
def _threads(progress: "_Progress") -> Iterator[ThreadPoolExecutor]:
    """Several downloads at once; after a failure, or when the run is stopped, those under way end at their next bytes."""
    pool = ThreadPoolExecutor(PARALLEL, thread_name_prefix="stage")
    try:
        yield pool
    except BaseException:
        progress.stop()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


class _Staged:
    """The index of a folder, and the files it speaks of; kept about once a second."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._index = folder / INDEX
        folder.mkdir(parents=True, exist_ok=True)
        if not self._index.exists() and any(folder.iterdir()):
            raise TrainingError(
                Outcome.SPEC_INVALID,
                f"{folder} holds files that were not staged there, and staging would remove them; name an empty folder.",
            )
        self._lock = threading.Lock()
        self._files = self._read()
        self._save()

    def stands(self, entry: Entry) -> bool:
        """Whether the file is there as it was staged, and the object has not changed since."""
        return self._files.get(entry.key) == [entry.size, entry.etag, self._changed(entry)]

    def add(self, entry: Entry) -> None:
        """Note, from any thread, that a file is whole."""
        with self._lock:
            self._files[entry.key] = [entry.size, entry.etag, self._changed(entry)]
            if time.monotonic() - self._saved > _SAVE_SECONDS:
                self._save()

    def drop_all_but(self, keys: set[str]) -> None:
        """Remove every file of the folder, staged or half staged, that is not wanted any more."""
        for parent, folders, names in os.walk(self._folder, topdown=False):
            for name in names:
                path = Path(parent, name)
                if path != self._index and path.relative_to(self._folder).as_posix() not in keys:
                    path.unlink()
            for name in folders:
                remove_if_empty(Path(parent, name))
        self._files = {key: file for key, file in self._files.items() if key in keys}

    @contextmanager
    def saved_at_end(self) -> Iterator[None]:
        """Keep what was achieved, also when the block fails."""
        try:
            yield
        finally:
            self._save()

    def _read(self) -> dict[str, object]:
        try:
            return dict(json.loads(self._index.read_text()))
        except (FileNotFoundError, ValueError):  # none yet, or damaged: everything is fetched again
            return {}

    def _save(self) -> None:
        with whole_file(self._index) as draft:
            draft.write_text(json.dumps(self._files))
        self._saved = time.monotonic()

    def _changed(self, entry: Entry) -> int | None:
        path = self._folder / entry.key
        if path.is_symlink() or not path.is_file() or (stat := path.stat()).st_size != entry.size:
            return None
        return stat.st_mtime_ns


class _Progress:
    """Bytes that have arrived, from many threads; never more than all, even when some had to come twice."""

    def __init__(self, on_progress: OnProgress | None, entries: Iterable[Entry], missing: Iterable[Entry]) -> None:
        self._on_progress = on_progress
        self._total = sum(entry.size for entry in entries)
        self._done = self._total - sum(entry.size for entry in missing)
        self._lock = threading.Lock()
        self._stopped = False
        self.add(0)

    def stop(self) -> None:
        """Let nothing more arrive."""
        self._stopped = True

    def add(self, arrived: int) -> None:
        if self._stopped:
            raise _StoppedError
        with self._lock:
            self._done = min(self._total, self._done + arrived)
            if self._on_progress:
                self._on_progress(self._done, self._total)

    def finish(self) -> None:
        self.add(self._total - self._done)
