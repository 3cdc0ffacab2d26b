"""The running operator: stand by until the Lease is ours, work, and end as soon as anything is not as it should be.

It holds nothing that is not in the cluster, so ending is always safe: Kubernetes starts it again, and a listing tells it everything.
"""

import asyncio
import logging
import os
import signal
from pathlib import Path
from typing import NoReturn

from charalora_operator.api import Api, ApiError, connect
from charalora_operator.cluster import Cluster
from charalora_operator.handlers import watch
from charalora_operator.lease import Election, LeaseLostError
from charalora_operator.metrics import Metrics, Views
from charalora_operator.mirror import Mirror
from charalora_operator.probes import Pulse, Vitals, serve
from charalora_operator.progress import Progress
from charalora_operator.queue import KeyQueue
from charalora_operator.reconcile import Reconciler
from charalora_operator.resync import keep_resyncing, resync
from charalora_operator.settings import Settings

logger = logging.getLogger(__name__)

_MARGIN_SECONDS = 120


class UnexpectedEndError(Exception):
    """A part of the operator ended that never should; the message says which, the cause says why."""


async def operate(settings: Settings, kubeconfig: Path | None) -> None:
    """Run until SIGTERM or SIGINT.

    Raises:
        NoClusterError: There is no cluster to talk to.
        ApiError: The cluster refuses what is needed from the start.
        UnexpectedEndError: Something ended that never should.
    """
    metrics = Metrics()
    api = connect(kubeconfig, metrics.requested)
    try:
        await _Operator(settings, api, metrics).run()
    finally:
        await api.close()


class _Operator:
    """The parts, and how they begin and end."""

    def __init__(self, settings: Settings, api: Api, metrics: Metrics) -> None:
        self._settings = settings
        self._api = api
        self._metrics = metrics
        self._cluster = Cluster(api.fenced(self._prove))
        self._mirror = Mirror()
        self._queue = KeyQueue()
        self._progress = Progress(self._mirror, self._queue, settings, clock=api.clock.now)
        self._election = Election(Cluster(api), settings.lease, os.environ.get("POD_NAMESPACE") or api.namespace)
        self._stop = asyncio.Event()

    async def run(self) -> None:
        self._obey_signals()
        pulse = Pulse()
        self._metrics.show(self._views())
        runner = await serve(self._settings.http.port, self._vitals(), pulse, self._metrics.registry)
        logger.info("Serving metrics and probes", extra={"addresses": [str(address) for address in runner.addresses]})
        beating = asyncio.create_task(pulse.beat(), name="pulse")
        try:
            if await self._elected():
                await self._lead()
        finally:
            beating.cancel()
            await runner.cleanup()

    async def _elected(self) -> bool:
        """Stand by until this process leads; False when it was asked to stop before."""
        waiting = asyncio.create_task(self._election.acquire(), name="election")
        stopping = asyncio.create_task(self._stop.wait(), name="stop")
        await asyncio.wait({waiting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not waiting.done():
            waiting.cancel()
            return False
        waiting.result()
        return True

    async def _lead(self) -> None:
        """Work until asked to stop, and give the Lease back when the work is done."""
        holding = asyncio.create_task(self._hold(), name="lease")
        working = asyncio.create_task(self._work(), name="work")
        try:
            await self._until_stopped({holding, working})
            await working
        finally:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)
            holding.cancel()
            await self._release()

    async def _hold(self) -> None:
        """Stay the leader, or end this process before another one works."""
        try:
            await self._election.hold()
        except LeaseLostError as error:
            _end(str(error))

    def _prove(self) -> None:
        """Before a write leaves: a process that was stopped for a while goes on with what it was about to do."""
        if not self._election.may_write:
            _end("A write was about to leave after the Lease had run out.")

    async def _work(self) -> None:
        """Read the cluster, then watch it and visit what is due."""
        await resync(self._cluster, self._mirror, self._queue, self._settings)
        logger.info("Caught up with the cluster", extra={"due": self._queue.depth})
        reconciler = Reconciler(
            self._cluster, self._mirror, self._progress, self._queue, self._metrics, self._settings, clock=self._api.clock.now
        )
        workers = [asyncio.create_task(reconciler.work(), name=f"worker {number}") for number in range(self._settings.workers)]
        started = asyncio.Event()
        others = [
            asyncio.create_task(self._progress.run(), name="progress"),
            asyncio.create_task(keep_resyncing(self._cluster, self._mirror, self._queue, self._settings), name="resync"),
            asyncio.create_task(watch(self._mirror, self._queue, self._settings, self._api.credentials, started), name="watch"),
            asyncio.create_task(self._keep_signals(started), name="signals"),
        ]
        try:
            await self._until_stopped({*workers, *others})
        finally:
            self._queue.close()
            await asyncio.gather(*workers, return_exceptions=True)  # each finishes the resource that it is at
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

    async def _until_stopped(self, tasks: set[asyncio.Task[None]]) -> None:
        """Wait for the end that was asked for; any other is an error."""
        stopping = asyncio.create_task(self._stop.wait(), name="stop")
        done, _ = await asyncio.wait({*tasks, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        for task in done - {stopping}:
            error = task.exception()
            if error is not None or not self._stop.is_set():
                raise UnexpectedEndError(f"The part '{task.get_name()}' ended.") from error

    async def _keep_signals(self, started: asyncio.Event) -> None:
        """Take the signals back that kopf takes when it starts."""
        await started.wait()
        self._obey_signals()
        await asyncio.Event().wait()

    def _obey_signals(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._stop.set)

    async def _release(self) -> None:
        try:
            await self._election.release()
        except ApiError as error:
            logger.warning("The Lease could not be given back; it runs out by itself", extra={"error": str(error)})

    def _views(self) -> Views:
        return Views(
            states=lambda: self._mirror.states() if self._mirror.caught_up else {},
            depth=lambda: self._queue.depth,
            oldest=lambda: self._queue.oldest,
            ages=lambda: self._mirror.ages() if self._mirror.caught_up else {},
            leads=lambda: self._election.leads,
        )

    def _vitals(self) -> Vitals:
        return Vitals(
            leads=lambda: self._election.leads,
            caught_up=lambda: self._mirror.caught_up,
            watch_age=lambda: max(self._mirror.ages().values()),
            watch_limit=2 * self._settings.resync_seconds + _MARGIN_SECONDS,
            oldest=lambda: self._queue.oldest,
            silence=lambda: self._election.silence,
        )


def _end(why: str) -> NoReturn:
    """Without another step: what this process holds may be another one's to do by now."""
    logger.critical("The Lease is lost; this process ends at once", extra={"error": why})
    os._exit(1)
