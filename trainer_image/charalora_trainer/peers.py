"""Whether the other processes of a training still live, and why one of them ended.

A process whose partners are on other machines would wait for hours in a message that nobody answers: a machine that loses its power closes
no connection. So each process counts its heartbeats in a store that the first one hosts, and ends when another one's stand still.
"""

import json
import logging
import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta

import torch.distributed as dist
from torch.distributed import TCPStore  # type: ignore[attr-defined]  # torch exports it without saying so
from torch.distributed.distributed_c10d import Store

from charalora_spec.outcome import Outcome, TrainingError
from charalora_trainer.failures import known_failure
from charalora_trainer.job import LOST_PARTNERS
from charalora_trainer.processes import Processes

SECONDS_BETWEEN_BEATS = 2.0
SECONDS_TO_LIVE = 40.0

_PAUSE = 0.05
_LEFT = "left"
_BROKEN_OFF = re.compile(r"closed by peer|reset by peer|Broken pipe|Connection refused")
_OUTCOME = "outcome"

logger = logging.getLogger(__name__)


class PartnersLostError(Exception):
    """Other processes of this training ended without leaving a reason."""


class Peers:
    """The other processes, as seen through the store.

    Args:
        store: Where every process counts its heartbeats.
        rank: This process's number.
        count: How many there are.
    """

    def __init__(self, store: Store, rank: int, count: int) -> None:
        self._store = store
        self._rank = rank
        self._others = [other for other in range(count) if other != rank]
        self._seen = dict.fromkeys(self._others, ("", time.monotonic()))

    def beat(self) -> None:
        """Say that this process lives."""
        self._store.add(f"beat/{self._rank}", 1)

    def leave(self) -> None:
        """Say that this process ends by its own will, so that nobody misses it; there is no heartbeat after that."""
        self._store.set(f"beat/{self._rank}", _LEFT)

    def see_off(self) -> None:
        """Return when the others have left; one that does not for so long that it would be missed is not waited for."""
        deadline = time.monotonic() + SECONDS_TO_LIVE
        while any(self._count(other) != _LEFT for other in self._others) and time.monotonic() < deadline:
            time.sleep(_PAUSE)

    def tell(self, error: TrainingError) -> None:
        """Leave the reason why this process ends; of several only the first counts."""
        self._store.compare_set(_OUTCOME, "", json.dumps([error.outcome.reason, error.message]))

    def told(self) -> TrainingError | None:
        """The reason that another process left, if one did."""
        if not self._store.check([_OUTCOME]):
            return None
        reason, message = json.loads(self._store.get(_OUTCOME))
        return TrainingError(next(outcome for outcome in Outcome if outcome.reason == reason), message)

    def silent(self) -> list[int]:
        """The processes whose heartbeats stand still for too long."""
        now = time.monotonic()
        for other in self._others:
            count = self._count(other)
            if count == _LEFT or count != self._seen[other][0]:
                self._seen[other] = (count, now)
        return [other for other, (_, since) in self._seen.items() if now - since > SECONDS_TO_LIVE]

    def _count(self, other: int) -> str:
        key = f"beat/{other}"
        return self._store.get(key).decode() if self._store.check([key]) else ""


def meet(processes: Processes) -> Peers:
    """Open the store: the first process hosts it, the others are told where."""
    patience = timedelta(seconds=SECONDS_TO_LIVE)
    host = os.environ["MASTER_ADDR"]
    store = TCPStore(host, 0, is_master=True, timeout=patience, wait_for_workers=False) if processes.is_first else None
    port = processes.share(store.port if store else 0)
    return Peers(store or TCPStore(host, port, is_master=False, timeout=patience), processes.rank, processes.count)


@contextmanager
def together(processes: Processes) -> Iterator[None]:
    """Live and end with the processes of other nodes while the block runs; with none there, nothing is watched.

    Raises:
        TrainingError: The reason of another process that failed first.
        PartnersLostError: Another process ended, and nobody knows why.
    """
    if processes.nodes == 1:
        yield
        return
    peers = meet(processes)
    try:
        with _watched(peers), _explained(peers):
            yield
    finally:
        with suppress(dist.DistError):
            peers.leave()
    if processes.is_first:
        peers.see_off()  # the store ends with this process, and a slower one would take that for the loss of its partner


@contextmanager
def _explained(peers: Peers) -> Iterator[None]:
    """Tell the others why this process fails, or find with them why it lost them."""
    try:
        yield
    except BaseException as error:
        with suppress(dist.DistError):
            if known := known_failure(error):
                peers.tell(known)
            elif told := peers.told():
                raise told from error
        if known is None and is_broken_off(error):
            raise PartnersLostError from error
        raise


def is_broken_off(error: BaseException) -> bool:
    """Whether an error is that of a message to a process that is gone."""
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and _BROKEN_OFF.search(str(error)) is not None)


@contextmanager
def _watched(peers: Peers) -> Iterator[None]:
    """End this process, whatever it waits for, when another one is silent for too long."""
    stopped = threading.Event()

    def watch() -> None:
        while not stopped.wait(SECONDS_BETWEEN_BEATS):
            try:
                peers.beat()
                silent = peers.silent()
            except dist.DistError as error:
                silent, why = [0], str(error).splitlines()[0]
            else:
                why = "no heartbeat"
            if silent and not stopped.is_set():
                logger.error("Other processes of this training are gone", extra={"ranks": silent, "why": why})
                os._exit(LOST_PARTNERS)

    watcher = threading.Thread(target=watch, name="peers", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        stopped.set()
        watcher.join()  # no heartbeat may follow the last word
