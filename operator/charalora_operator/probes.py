"""What Kubernetes and Prometheus ask this process: is it alive, is it ready, and how is it doing."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

_QUEUE_SECONDS = 600.0
_LAG_SECONDS = 5.0
_SILENCE_SECONDS = 120.0
_BEAT = 1.0


@dataclass(frozen=True)
class Vitals:
    """What tells whether the operator works.

    Attributes:
        leads: Whether it is the one that works.
        caught_up: Whether it knows the whole cluster.
        watch_age: Seconds since its stalest watch was last known to be complete.
        watch_limit: When that is too long.
        oldest: Seconds that the oldest due resource has waited.
        silence: Seconds since the API server last answered about the Lease.
    """

    leads: Callable[[], bool]
    caught_up: Callable[[], bool]
    watch_age: Callable[[], float]
    watch_limit: float
    oldest: Callable[[], float]
    silence: Callable[[], float]


class Pulse:
    """How late this process's own work begins: what blocks it, blocks everything."""

    def __init__(self) -> None:
        self._lags: list[float] = []

    async def beat(self) -> None:
        """Measure, once a second, for ever."""
        while True:
            began = time.monotonic()
            await asyncio.sleep(_BEAT)
            self._lags = [*self._lags[-59:], time.monotonic() - began - _BEAT]

    @property
    def lag(self) -> float:
        """The longest delay of the last minute in seconds."""
        return max(self._lags, default=0.0)


def illness(vitals: Vitals, lag: float) -> str:
    """Why this process should be started again, in a sentence; empty when it works."""
    if lag > _LAG_SECONDS:
        return f"The process was blocked for {lag:.1f} s."
    if not vitals.leads():
        return f"The API server has not answered for {vitals.silence():.0f} s." if vitals.silence() > _SILENCE_SECONDS else ""
    if vitals.caught_up() and vitals.watch_age() > vitals.watch_limit:
        return f"A watch has been behind the cluster for {vitals.watch_age():.0f} s."
    if vitals.oldest() > _QUEUE_SECONDS:
        return f"A resource has been due for {vitals.oldest():.0f} s and is not done."
    return ""


def unreadiness(vitals: Vitals, lag: float) -> str:
    """Why this process cannot do its part now, in a sentence; empty when it can: as a leader, or as one that stands by."""
    if vitals.leads() and not vitals.caught_up():
        return "The cluster is still being read."
    return illness(vitals, lag)


async def serve(port: int, vitals: Vitals, pulse: Pulse, registry: CollectorRegistry) -> web.AppRunner:
    """Answer from now on; `cleanup` of what is returned ends it."""

    async def healthz(_: web.Request) -> web.Response:
        return _answer(illness(vitals, pulse.lag))

    async def readyz(_: web.Request) -> web.Response:
        return _answer(unreadiness(vitals, pulse.lag))

    async def metrics(request: web.Request) -> web.Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))  # OpenMetrics, with exemplars, for who asks for it
        return web.Response(body=encode(registry), headers={"Content-Type": content_type})

    application = web.Application()
    application.add_routes([web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", metrics)])
    runner = web.AppRunner(application, access_log=None, handle_signals=False)
    await runner.setup()
    await web.TCPSite(runner, None, port).start()
    return runner


def _answer(problem: str) -> web.Response:
    return web.Response(text=problem or "ok", status=503 if problem else 200)
