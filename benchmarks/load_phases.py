"""What is measured: many resources at once, a steady stream of them, the operator's start among them, and trainings that report."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median, quantiles
from typing import Any

import aiohttp
from load_client import Arrivals, Client, Json, figures_of, following, write_alike
from load_world import Operator, RefusedError, World

from charalora_operator.model import Key

AT_ONCE = 8
"""Requests at a time: of the makers of resources, and of the plain client; the operator's workers are as many."""
SERVERS = ("kube-apiserver", "etcd")
"""Names of their processes."""
_SAMPLE_SECONDS = 0.5
_VISITS = "charalora_reconcile_seconds_count"


class LostError(Exception):
    """A resource was not served; the message says which."""


def spread(values: Sequence[float]) -> Json:
    """Median, 99th percentile and maximum, in seconds."""
    if len(values) < 2:
        return {"count": len(values), "p50": sum(values), "p99": sum(values), "max": sum(values)}
    cut = quantiles(values, n=100, method="inclusive")
    return {"count": len(values), "p50": round(median(values), 3), "p99": round(cut[98], 3), "max": round(max(values), 3)}


@dataclass
class Watchman:
    """Looks at the operator from outside, twice a second.

    Attributes:
        memory: Resident MiB, with seconds since the start.
        answers: Seconds that its health probe took to answer: what blocks the operator, delays it.
    """

    operator: Operator
    session: aiohttp.ClientSession
    memory: list[tuple[float, float]] = field(default_factory=list)
    answers: list[float] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)

    async def watch(self) -> None:
        """For ever."""
        while True:
            asked = time.monotonic()
            try:
                async with self.session.get(f"{self.operator.url}/healthz") as answer:
                    await answer.read()
                self.answers.append(time.monotonic() - asked)
            except aiohttp.ClientConnectionError:
                pass  # it does not serve yet
            self.memory.append((round(time.monotonic() - self.began, 1), round(self.operator.memory(), 1)))
            await asyncio.sleep(_SAMPLE_SECONDS)

    async def figures(self) -> Json:
        """The operator's own metrics, summed where labels tell them apart; empty while it does not serve."""
        try:
            async with self.session.get(f"{self.operator.url}/metrics") as answer:
                series = figures_of(await answer.text())
        except aiohttp.ClientConnectionError:
            return {}
        requests = {name: value for name, value in series.items() if name.startswith("charalora_api_requests_total")}
        writes = sum(value for name, value in requests.items() if 'verb="GET"' not in name and 'verb="PUT"' not in name)
        return {
            "visits": sum(value for name, value in series.items() if name.startswith(_VISITS)),
            "errors": sum(value for name, value in series.items() if name.startswith("charalora_reconcile_errors_total")),
            "writes": writes,  # but for those of the Lease
            "reads": sum(value for name, value in requests.items() if 'verb="GET"' in name),
            "too_many": sum(value for name, value in requests.items() if 'code="429"' in name),
            "depth": series.get("charalora_queue_depth", 0.0),
        }

    async def until(self, what: str, holds: Callable[[Json], bool], seconds: float) -> float:
        """Wait for so many seconds until the figures say something; seconds from the operator's start.

        Raises:
            LostError: They do not.
        """
        limit = time.monotonic() + seconds
        while time.monotonic() < limit:
            figures = await self.figures()
            if figures and holds(figures):
                return time.monotonic() - self.began
            await asyncio.sleep(0.2)
        raise LostError(f"After {seconds:.0f} s the operator was not {what}: {await self.figures()}")

    def seen(self) -> Json:
        """What it saw."""
        step = max(1, len(self.memory) // 60)
        return {
            "memory_peak_mib": round(self.operator.memory("VmHWM"), 1),
            "memory_mib": self.memory[::step],
            "probe": spread(self.answers),
        }


async def burst(world: World, client: Client, watchman: Watchman, arrivals: Arrivals, keys: list[Key]) -> Json:
    """All at once in one namespace; when half of them are there, one resource in another namespace."""
    lonely = Key("lonely", "surtr")
    waiting = iter([*keys[: len(keys) // 2], lonely, *keys[len(keys) // 2 :]])
    before, spent, began = await watchman.figures(), world.processor_seconds(), time.monotonic()
    own = watchman.operator.processor_seconds

    async def make_each() -> None:
        for key in waiting:
            await arrivals.make(client, key)

    await asyncio.gather(*(make_each() for _ in range(AT_ONCE)))
    made = time.monotonic() - began
    await _served(arrivals, [*keys, lonely], 300 + len(keys) / 5)
    last = max(arrivals.seen[key] for key in keys) - began
    await watchman.until("idle", lambda figures: figures["depth"] == 0, 600)
    after, computed = await watchman.figures(), world.processor_seconds()
    return {
        "resources": len(keys),
        "made_per_second": round(len(keys) / made, 1),
        "per_second": round(len(keys) / last, 1),
        "to_job": spread(arrivals.waits(keys)),
        "lonely_to_job": round(arrivals.waits([lonely])[0], 3),
        "writes_each": round((after["writes"] - before["writes"]) / len(keys), 2),
        "reads_each": round((after["reads"] - before["reads"]) / len(keys), 2),
        "too_many_requests": after["too_many"],
        "errors": after["errors"],
        "processor_ms_each": {
            "operator": round(1000 * (watchman.operator.processor_seconds - own) / len(keys), 1),
            **{name: round(1000 * (computed[name] - spent.get(name, 0)) / len(keys), 1) for name in SERVERS},
        },
    }


async def stream(client: Client, arrivals: Arrivals, namespace: str, rate: float, seconds: float) -> Json:
    """So many resources a second, for some time."""
    keys = [Key(namespace, f"character-{number}") for number in range(round(rate * seconds))]
    async with asyncio.TaskGroup() as group:
        began = time.monotonic()
        for number, key in enumerate(keys):
            await asyncio.sleep(max(0.0, began + number / rate - time.monotonic()))
            group.create_task(arrivals.make(client, key))
    await _served(arrivals, keys, 300)
    return {"resources": len(keys), "rate": rate, "to_job": spread(arrivals.waits(keys))}


async def cold_start(watchman: Watchman, count: int, settling: float) -> Json:
    """From the start of the process until every resource was visited."""
    caught_up = 0.0
    while not caught_up:
        try:
            async with watchman.session.get(f"{watchman.operator.url}/readyz") as answer:
                caught_up = time.monotonic() - watchman.began if answer.ok else 0.0
        except aiohttp.ClientConnectionError:
            pass
        if time.monotonic() - watchman.began > 600:
            raise LostError("The operator did not catch up in 600 s.")
        await asyncio.sleep(0.1)
    visited = await watchman.until("done", lambda figures: figures["visits"] >= count and figures["depth"] == 0, 600)
    await asyncio.sleep(settling)  # what is held only for the start is given back, or not
    figures = await watchman.figures()
    return {
        "resources": count,
        "caught_up_seconds": round(caught_up, 1),
        "visited_seconds": round(visited, 1),
        "writes": figures["writes"],
        "reads": figures["reads"],
        "visits": figures["visits"],
        "memory_after_mib": round(watchman.operator.memory(), 1),
    }


async def plain(world: World, client: Client, count: int) -> Json:
    """The same objects, written by a client that decides nothing."""
    spent = world.processor_seconds()
    seconds = await write_alike(client, [Key("plain", f"character-{number}") for number in range(count)], AT_ONCE)
    computed = world.processor_seconds()
    each = {name: round(1000 * (computed[name] - spent.get(name, 0)) / count, 1) for name in SERVERS}
    return {"resources": count, "per_second": round(count / seconds, 1), "processor_ms_each": each}


async def _served(arrivals: Arrivals, keys: list[Key], seconds: float) -> None:
    """Wait until each has its Job."""
    limit = time.monotonic() + seconds
    while missing := [key for key in keys if key not in arrivals.seen]:
        if time.monotonic() > limit:
            raise LostError(f"{len(missing)} of {len(keys)} resources have no Job after {seconds:.0f} s; the first is {missing[0]}.")
        await asyncio.sleep(0.1)


async def objects(world: World, client: Client, asked: Any, count: int, say: Callable[[str], None]) -> Json:
    """Everything that needs no pods, with so many resources."""
    result: Json = {}
    for name in ("crowd", "lonely", "stream", "plain"):
        await client.create("/api/v1/namespaces", {"metadata": {"name": name}})
    arrivals = Arrivals()
    async with aiohttp.ClientSession() as session, following(lambda: arrivals.follow(client)):
        with world.operator() as operator:
            watchman = Watchman(operator, session)
            async with following(watchman.watch):
                await watchman.until("caught up", lambda _: True, 300)
                keys = [Key("crowd", f"character-{number}") for number in range(count)]
                result["burst"] = await burst(world, client, watchman, arrivals, keys)
                say(f"burst: {result['burst']}")
                result["stream"] = await stream(client, arrivals, "stream", asked.rate, asked.seconds)
                say(f"stream: {result['stream']}")
                result["working"] = watchman.seen()
        total = len(arrivals.asked)
        with world.operator() as operator:
            watchman = Watchman(operator, session)
            async with following(watchman.watch):
                result["cold_start"] = await cold_start(watchman, total, min(15.0, asked.watched))
                result["started"] = watchman.seen()
                say(f"cold start: {result['cold_start']}")
    result["plain"] = await plain(world, client, min(count, asked.plain))
    say(f"plain client: {result['plain']}")
    jobs = await client.all_of("/apis/batch/v1/namespaces/crowd/jobs")
    result["lost"] = count - len(jobs)
    if result["lost"]:
        raise RefusedError(f"{count} resources have {len(jobs)} Jobs.")
    return result
