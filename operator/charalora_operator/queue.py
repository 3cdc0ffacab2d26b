"""Which resources are due: a queue that forgets duplicates and never hands out one key twice at the same time.

Namespaces take turns: thousands of resources in one of them do not make another one's only resource wait.
"""

import asyncio
import heapq
import random
import time
from collections.abc import Callable

from charalora_operator.model import Key

_FIRST_DELAY = 1.0
_LONGEST_DELAY = 300.0


class KeyQueue:
    """Keys that are due now or later. A key that is added while it is worked on is due again when that work is done."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._ready: dict[str, dict[Key, float]] = {}  # since when, oldest first, by namespace; that whose turn it is first
        self._working: dict[Key, float] = {}
        self._again: set[Key] = set()
        self._later: list[tuple[float, Key]] = []
        self._due: dict[Key, float] = {}  # the entry of _later that counts
        self._failures: dict[Key, int] = {}
        self._changed = asyncio.Event()
        self._closed = False

    def add(self, key: Key) -> None:
        """The key is due now."""
        if key in self._working:
            self._again.add(key)
        else:
            self._ready.setdefault(key.namespace, {}).setdefault(key, self._clock())
            self._changed.set()

    def add_after(self, key: Key, seconds: float) -> None:
        """The key is due in some seconds, unless it is due earlier anyway."""
        at = self._clock() + seconds
        if at < self._due.get(key, float("inf")):
            self._due[key] = at
            heapq.heappush(self._later, (at, key))
            self._changed.set()

    async def get(self) -> Key | None:
        """The next key, when there is one; nobody else gets it until it is `done` or has `failed`. None once the queue is closed.

        Between two keys everything else of the process has its turn, also where there is no wait for a key and none for the cluster:
        ten thousand visits that ask nobody took five seconds, and the Lease is lost after eight.
        """
        await asyncio.sleep(0)
        while not self._closed:
            self._wake()
            if self._ready:
                key, since = self._next()
                self._working[key] = since
                self._due.pop(key, None)  # this visit says anew when the next one is due
                return key
            self._changed.clear()
            try:
                await asyncio.wait_for(self._changed.wait(), self._seconds_to_next())
            except TimeoutError:
                continue
        return None

    def done(self, key: Key) -> None:
        """The work on a key has ended well."""
        self._failures.pop(key, None)
        self._end(key)

    def failed(self, key: Key) -> float:
        """The work on a key has failed: it is due again after a delay that doubles, up to five minutes; the delay in seconds."""
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        delay = min(_LONGEST_DELAY, _FIRST_DELAY * 2.0 ** min(failures - 1, 16)) * random.uniform(0.5, 1)
        self._end(key)
        self.add_after(key, delay)
        return delay

    def close(self) -> None:
        """Hand out nothing any more."""
        self._closed = True
        self._changed.set()

    @property
    def depth(self) -> int:
        """How many keys are due and not yet worked on."""
        return sum(len(keys) for keys in self._ready.values())

    @property
    def oldest(self) -> float:
        """Seconds for which the oldest key has been due, worked on or not; 0 when none is."""
        since = [*(next(iter(keys.values())) for keys in self._ready.values()), *self._working.values()]
        return max((self._clock() - moment for moment in since), default=0.0)

    def _next(self) -> tuple[Key, float]:
        """The oldest key of the namespace whose turn it is; that one is the last in turn then."""
        namespace, keys = next(iter(self._ready.items()))
        key = next(iter(keys))
        since = keys.pop(key)
        del self._ready[namespace]
        if keys:
            self._ready[namespace] = keys
        return key, since

    def _end(self, key: Key) -> None:
        del self._working[key]
        if key in self._again:
            self._again.remove(key)
            self.add(key)

    def _wake(self) -> None:
        """Move what has become due."""
        while self._later and self._later[0][0] <= self._clock():
            at, key = heapq.heappop(self._later)
            if self._due.get(key) == at:
                del self._due[key]
                self.add(key)

    def _seconds_to_next(self) -> float | None:
        return max(0.0, self._later[0][0] - self._clock()) if self._later else None
