"""Trainings that run on simulated nodes and report: how late the status tells what they say, and what that costs."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp import web
from load_client import Arrivals, Client, Json, following
from load_phases import LostError, Watchman, spread, stream
from load_world import RefusedError, World
from prometheus_client import CollectorRegistry, generate_latest

from charalora_operator.cluster import PODS, RESOURCES
from charalora_operator.desired import METRICS_PORT
from charalora_operator.model import Key
from charalora_operator.names import COMPONENT, RESOURCE, TRAINING
from charalora_spec.metrics import TRAINING as FIGURES
from charalora_spec.metrics import Kind
from charalora_trainer.metrics import Metrics

STEPS = 1000
STEPS_PER_SECOND = 2.0
"""A per cent every five seconds: each reading of a training's figures has something new to tell, which is the worst case."""
_NAMESPACE = "artists"


@dataclass
class Reports:
    """What trainings say of themselves, and when their status says so.

    Attributes:
        began: When each training began to count its steps.
        states: The newest STATE of each resource.
        lags: Seconds from a step's end until the status told that step or a later one.
    """

    began: dict[Key, float] = field(default_factory=dict)
    states: dict[Key, str] = field(default_factory=dict)
    lags: list[float] = field(default_factory=list)

    def step(self, key: Key) -> int:
        """What a training has done by now."""
        return min(STEPS, int((time.monotonic() - self.began[key]) * STEPS_PER_SECOND))

    async def follow(self, client: Client) -> None:
        """Read each status as it changes, for ever."""
        told: dict[Key, int] = {}
        async for body in client.watch(RESOURCES.path(_NAMESPACE)):
            key, status = Key(_NAMESPACE, body["metadata"]["name"]), body.get("status", {})
            self.states[key] = next((one["reason"] for one in status.get("conditions", []) if one["type"] == "Succeeded"), "")
            step = status.get("progress", {}).get("step", 0)
            if key in self.began and step > told.get(key, 0):
                told[key] = step
                self.lags.append(time.monotonic() - self.began[key] - step / STEPS_PER_SECOND)


async def trainings(world: World, client: Client, asked: Any, say: Callable[[str], None]) -> Json:
    """Make resources steadily, wait until all of them train, and watch them report for a while."""
    await asyncio.to_thread(world.server.namespace, _NAMESPACE)
    arrivals, reports = Arrivals(), Reports()
    result: Json = {"trainings": asked.running, "steps_per_second": STEPS_PER_SECOND}
    async with (
        aiohttp.ClientSession() as session,
        following(lambda: arrivals.follow(client)),
        following(lambda: reports.follow(client)),
    ):
        with world.operator() as operator:
            watchman = Watchman(operator, session)
            async with following(watchman.watch):
                await watchman.until("caught up", lambda _: True, 300)
                began = time.monotonic()
                result["stream"] = await stream(client, arrivals, _NAMESPACE, asked.rate, asked.running / asked.rate)
                await _all_run(reports, asked.running)
                result["running_after_seconds"] = round(time.monotonic() - began, 1)
                say(f"{asked.running} trainings run after {result['running_after_seconds']} s.")
                async with _served(client, reports):
                    result["reporting"] = await _observe(watchman, reports, asked.watched)
                result["working"] = watchman.seen()
    return result


async def _all_run(reports: Reports, count: int) -> None:
    limit = time.monotonic() + 600
    while (running := sum(state == "Running" for state in reports.states.values())) < count:
        if time.monotonic() > limit:
            raise LostError(f"Only {running} of {count} trainings run after 600 s: {sorted(set(reports.states.values()))}")
        await asyncio.sleep(0.2)


async def _observe(watchman: Watchman, reports: Reports, seconds: float) -> Json:
    """From when each has reported once."""
    limit = time.monotonic() + 300
    while len(reports.lags) < len(reports.began):
        if time.monotonic() > limit:
            raise LostError(f"{len(reports.lags)} reports of {len(reports.began)} trainings after 300 s.")
        await asyncio.sleep(0.2)
    reports.lags.clear()
    watchman.answers.clear()
    before, spent = await watchman.figures(), watchman.operator.processor_seconds
    await asyncio.sleep(seconds)
    after = await watchman.figures()
    return {
        "seconds": seconds,
        "status_lag": spread(reports.lags),
        "writes_per_second": round((after["writes"] - before["writes"]) / seconds, 1),
        "reads_per_second": round((after["reads"] - before["reads"]) / seconds, 1),
        "visits_per_second": round((after["visits"] - before["visits"]) / seconds, 1),
        "probe": spread(watchman.answers),
        "processor_share": round((watchman.operator.processor_seconds - spent) / seconds, 3),
        "errors": after["errors"],
    }


@asynccontextmanager
async def _served(client: Client, reports: Reports) -> AsyncIterator[None]:
    """The trainings' metrics, each on the address of its pod."""
    by_address: dict[str, Key] = {}
    for pod in await client.all_of(f"{PODS.path(_NAMESPACE)}?labelSelector={COMPONENT}%3D{TRAINING}"):
        by_address[pod["status"]["podIP"]] = Key(_NAMESPACE, pod["metadata"]["labels"][RESOURCE])
    if len(by_address) != len(reports.states):
        raise RefusedError(f"{len(reports.states)} trainings have {len(by_address)} addresses.")
    page = _page()

    async def metrics(request: web.Request) -> web.Response:
        socket = request.transport.get_extra_info("sockname") if request.transport else ("", 0)
        return web.Response(text=page.replace("charalora_step 0.0", f"charalora_step {reports.step(by_address[socket[0]])}.0"))

    application = web.Application()
    application.add_routes([web.get("/metrics", metrics)])
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        for address, key in by_address.items():
            reports.began[key] = time.monotonic()
            await web.TCPSite(runner, address, METRICS_PORT).start()
        yield
    finally:
        await runner.cleanup()


def _page() -> str:
    """A training's metrics, by the trainer's own code, with every figure that it has."""
    metrics = Metrics()
    for figure in FIGURES:
        if figure.kind is Kind.GAUGE and not figure.labels:
            metrics.set(figure.short, {"step": 0.0, "steps": STEPS, "last_checkpoint_step": 0.0}.get(figure.short, 0.5))
    for stage in ("fetch", "check", "encode"):
        with metrics.stage(stage):
            pass
    metrics.step_took(0.5)
    registry = CollectorRegistry()
    registry.register(metrics)
    with metrics.stage("train"):
        return generate_latest(registry).decode()
