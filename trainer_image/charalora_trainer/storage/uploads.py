"""Files on their way to a store while training goes on."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

from charalora_spec.outcome import Outcome, TrainingError
from charalora_trainer.storage.store import KeyMissing, Store

logger = logging.getLogger(__name__)

_THREADS = 4
SECONDS_OF_SILENCE = 30.0
"""For so long after an upload found the storage silent, and tried long enough, no other one is begun: they would all wait as long."""

WORTH_ANOTHER_TRY = (TrainingError, KeyMissing, OSError)
"""What the world can do to an upload. Anything else is a mistake of this program: it is raised as it is, and not tried again."""

File = tuple[Path, str]
"""A local file and the key that it goes to."""


@dataclass(frozen=True)
class _Job:
    """Files that are sent one after another.

    Attributes:
        files: In this order.
        last: Of a group, the file that says that all others stand.
        and_then: Called when all of them stand in the store.
        after: Earlier uploads to the same keys.
        follows: Of a group: what was submitted since the group before, that one included. It has to stand first.
    """

    files: tuple[File, ...]
    last: File | None = None
    and_then: Callable[[], None] | None = None
    after: tuple["Future[None]", ...] = ()
    follows: tuple["_Begun", ...] = ()


_Begun = tuple[_Job, "Future[None]"]


class Uploads:
    """Uploads in background threads. `submit` never waits; `wait` does, and raises what failed for good.

    Files sent to the same key arrive in the order of their submission. A failed upload disturbs neither the others nor the training: it is
    tried once more by the next group and in `wait`, when the storage may have come back. Leaving it as a context manager gives up what has
    not begun.

    Args:
        store: Where the files go.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="upload")
        self._lock = threading.Lock()
        self._jobs: list[_Begun] = []
        self._since_group: list[_Begun] = []
        self._mended: set[Future[None]] = set()
        self._latest: dict[str, Future[None]] = {}
        self._silence: tuple[float, TrainingError] | None = None
        self._failures = 0
        self._bytes_sent = 0

    @property
    def failures(self) -> int:
        """Uploads that failed so far, also those that succeed later."""
        return self._failures

    @property
    def bytes_sent(self) -> int:
        """Bytes of the files that were sent."""
        return self._bytes_sent

    @property
    def pending(self) -> int:
        """Uploads that are waiting or running."""
        return sum(not future.done() for _, future in self._jobs)

    def submit(self, path: Path, key: str) -> None:
        """Send `path` to `key` as soon as a thread is free. The file must stay until then; of one that grows, a whole beginning is sent."""
        self._start(_Job(((path, key),)))

    def submit_group(self, files: Sequence[File], last: File, and_then: Callable[[], None] | None = None) -> None:
        """Send `files`, and `last` only when they and everything submitted earlier stand in the store: who finds `last` finds all of it.

        `and_then` is called in the background when that is done, to remove what the group replaces. A group whose folder is gone before it
        was sent has been replaced itself: it is dropped with a warning.
        """
        with self._lock:
            follows, self._since_group = tuple(self._since_group), []
        self._start(_Job(tuple(files), last, and_then, follows=follows))

    def wait(self) -> None:
        """Return when everything submitted stands in the store; what failed is tried once more, here.

        Raises:
            TrainingError: An upload failed again. The others were sent, or `wait` sends them when it is called again.
        """
        self._mend(tuple(self._jobs))
        with self._lock:
            self._jobs.clear()
            self._since_group.clear()

    def close(self) -> None:
        """Begin no more uploads, and return when the running ones are through."""
        self._pool.shutdown(cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _start(self, job: _Job) -> None:
        keys = [key for _, key in (*job.files, *([job.last] if job.last else []))]
        earlier = tuple({self._latest[key] for key in keys if key in self._latest})
        job = replace(job, after=earlier)
        future = self._pool.submit(self._begin, job)
        future.add_done_callback(self._note_failure)
        with self._lock:
            self._jobs.append((job, future))
            self._since_group.append((job, future))
        self._latest.update(dict.fromkeys(keys, future))

    def _begin(self, job: _Job) -> None:
        """Send a job, unless another one has just found that nobody answers: then it fails as that one did, and is tried later like it."""
        if self._silence is not None and time.monotonic() - self._silence[0] < SECONDS_OF_SILENCE:
            raise self._silence[1]
        self._send(job)

    def _send(self, job: _Job) -> None:
        """Send the files of a job. What it waits for began earlier, so that needs no thread that this one holds."""
        wait(job.after)
        self._mend(job.follows)
        try:
            for file in (*job.files, *([job.last] if job.last else [])):
                self._send_file(*file)
        except FileNotFoundError:
            if not job.last or job.last[0].parent.exists():
                raise
            logger.warning("Upload dropped, its files were replaced", extra={"key": job.last[1]})
            return
        if job.and_then:
            job.and_then()

    def _send_file(self, path: Path, key: str) -> None:
        size = path.stat().st_size
        self._store.upload(path, key)
        with self._lock:
            self._bytes_sent += size

    def _mend(self, begun: Sequence[_Begun]) -> None:
        """Wait for uploads, and send again what failed and nothing newer has replaced."""
        wait([future for _, future in begun])
        for job, future in begun:
            error = future.exception()
            if error is not None and not isinstance(error, WORTH_ANOTHER_TRY):
                raise error
            if error is not None and future not in self._mended:
                self._send(replace(job, files=tuple(file for file in job.files if self._latest[file[1]] is future)))
                self._mended.add(future)

    def _note_failure(self, future: "Future[None]") -> None:
        if not future.cancelled() and (error := future.exception()):
            with self._lock:
                self._failures += 1
            if isinstance(error, TrainingError) and error.outcome is Outcome.STORAGE_UNREACHABLE:
                self._silence = (time.monotonic(), error)
            if isinstance(error, WORTH_ANOTHER_TRY):
                logger.warning("Upload failed, it is tried again later", extra={"why": str(error)})
