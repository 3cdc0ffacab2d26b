"""Files on their way to a store while training goes on."""

import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

from charalora_trainer.storage.store import Store

logger = logging.getLogger(__name__)

_THREADS = 4

File = tuple[Path, str]
"""A local file and the key that it goes to."""


@dataclass(frozen=True)
class _Job:
    """Files that are sent one after another.

    Attributes:
        files: In this order.
        and_then: Called when all of them stand in the store.
        after: Earlier uploads to the same keys.
        droppable: Whether the job may be dropped when its files have gone.
    """

    files: tuple[File, ...]
    and_then: Callable[[], None] | None = None
    after: tuple["Future[None]", ...] = ()
    droppable: bool = False


class Uploads:
    """Uploads in background threads. `submit` never waits; `wait` does, and raises what failed for good.

    Files sent to the same key arrive in the order of their submission. A failed upload disturbs neither the others nor the training: it is
    tried once more in `wait`, when the storage may have come back. Leaving it as a context manager gives up what has not begun.

    Args:
        store: Where the files go.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="upload")
        self._lock = threading.Lock()
        self._jobs: list[tuple[_Job, Future[None]]] = []
        self._latest: dict[str, Future[None]] = {}
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
        """Send `files`, and `last` only when all of them stand in the store: a reader that finds `last` finds everything.

        `and_then` is called in the background when that is done, to remove what the group replaces. A group whose folder is gone before it
        was sent has been replaced itself: it is dropped with a warning.
        """
        self._start(_Job((*files, last), and_then, droppable=True))

    def wait(self) -> None:
        """Return when everything submitted stands in the store; what failed is tried once more, here.

        Raises:
            TrainingError: An upload failed again. The others were sent, or `wait` sends them when it is called again.
        """
        wait([future for _, future in self._jobs])
        for job, future in self._jobs:
            if future.exception() and (files := self._not_replaced(job, future)):
                self._send(replace(job, files=files))
        self._jobs.clear()

    def close(self) -> None:
        """Begin no more uploads, and return when the running ones are through."""
        self._pool.shutdown(cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _start(self, job: _Job) -> None:
        keys = [key for _, key in job.files]
        earlier = tuple({self._latest[key] for key in keys if key in self._latest})
        future = self._pool.submit(self._send, replace(job, after=earlier))
        future.add_done_callback(self._note_failure)
        self._jobs.append((job, future))
        self._latest.update(dict.fromkeys(keys, future))

    def _send(self, job: _Job) -> None:
        wait(job.after)  # they began earlier, so they need no thread that this one holds
        for path, key in job.files:
            try:
                size = path.stat().st_size
                self._store.upload(path, key)
            except FileNotFoundError:
                if not job.droppable or path.parent.exists():
                    raise
                logger.warning("Upload dropped, its files were replaced", extra={"key": key})
                return
            with self._lock:
                self._bytes_sent += size
        if job.and_then:
            job.and_then()

    def _not_replaced(self, job: _Job, future: "Future[None]") -> tuple[File, ...]:
        return tuple(file for file in job.files if self._latest[file[1]] is future)

    def _note_failure(self, future: "Future[None]") -> None:
        if not future.cancelled() and (error := future.exception()):
            with self._lock:
                self._failures += 1
            logger.warning("Upload failed, it is tried again at the end", extra={"why": str(error)})
