"""Clients of the API server without an operator: one that makes resources and sees what becomes of them, one that writes what it would."""

import asyncio
import json
import ssl
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import aiohttp
from load_world import RefusedError, World

from charalora_operator.api import APPLY
from charalora_operator.cluster import JOBS, RESOURCES, Collection
from charalora_operator.desired import manifests_of_check
from charalora_operator.events import news_of
from charalora_operator.model import Key, Observed
from charalora_operator.names import MANAGER, RESOURCE
from charalora_operator.parse import resource_of
from charalora_operator.plan import plan_of
from charalora_operator.settings import Settings
from charalora_spec.spec import API_VERSION, KIND

Json = dict[str, Any]

_PATHS = {"ConfigMap": Collection("", "v1", "configmaps"), "Job": JOBS, "Event": Collection("", "v1", "events")}
_METADATA_ALONE = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
_LINE = 2**22


def manifest(key: Key) -> Json:
    """A resource as a user writes it, with one GPU."""
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"namespace": key.namespace, "name": key.name},
        "spec": {
            "character": {"name": "surtr_arknights"},
            "dataset": {"uri": "s3://datasets/surtr_arknights/"},
            "baseModel": {"uri": "s3://models/animefull-latest/"},
            "output": {"uri": f"s3://loras/{key}/"},
            "resources": {"gpus": 1, "cpu": "1", "memory": "1Gi"},
        },
    }


class Client:
    """Plain requests, as many at a time as they are asked."""

    def __init__(self, world: World, session: aiohttp.ClientSession) -> None:
        self._server = world.server
        self._session = session

    async def create(self, path: str, body: Json) -> Json:
        """Make an object; it as it stands then."""
        return await self._send("POST", path, body, "application/json")

    async def apply(self, path: str, body: Json) -> Json:
        """Apply an object, as the operator does."""
        return await self._send("PATCH", f"{path}?fieldManager={MANAGER}&force=true", body, APPLY)

    async def all_of(self, path: str) -> list[Json]:
        """Every object below a path."""
        async with self._session.get(self._server.url + path) as answer:
            return list((await answer.json())["items"])

    async def watch(self, path: str, *, metadata_alone: bool = False) -> AsyncIterator[Json]:
        """Every object as it is and as it changes, for ever."""
        headers = {"Accept": _METADATA_ALONE if metadata_alone else "application/json"}
        async with self._session.get(f"{self._server.url}{path}?watch=true", headers=headers) as answer:
            while line := await answer.content.readline():
                yield json.loads(line)["object"]
        raise RefusedError(f"The watch of {path} ended.")

    async def _send(self, verb: str, path: str, body: Json, content_type: str) -> Json:
        headers = {"Content-Type": content_type}
        async with self._session.request(verb, self._server.url + path, data=json.dumps(body), headers=headers) as answer:
            content: Json = await answer.json()
            if not answer.ok:
                raise RefusedError(f"{verb} {path}: {content.get('message')}")
            return content


@asynccontextmanager
async def client_of(world: World) -> AsyncIterator[Client]:
    """A client, as the administrator."""
    trusted = ssl.create_default_context(cafile=str(world.server.authority))
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=trusted, limit=0),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=10),
        headers={"Authorization": f"Bearer {world.server.token}"},
        read_bufsize=_LINE,
    ) as session:
        yield Client(world, session)


@dataclass
class Arrivals:
    """When resources were asked for, and when the first Job of each was seen; by the clock of this process.

    Attributes:
        asked: When the request that makes a resource was sent.
        seen: When its first Job was told of.
    """

    asked: dict[Key, float] = field(default_factory=dict)
    seen: dict[Key, float] = field(default_factory=dict)

    async def follow(self, client: Client) -> None:
        """Note Jobs as they come, for ever."""
        async for job in client.watch(JOBS.path(), metadata_alone=True):
            key = Key(job["metadata"]["namespace"], job["metadata"].get("labels", {}).get(RESOURCE, ""))
            self.seen.setdefault(key, time.monotonic())

    async def make(self, client: Client, key: Key) -> None:
        """Ask for a resource."""
        self.asked[key] = time.monotonic()
        await client.create(RESOURCES.path(key.namespace), manifest(key))

    def waits(self, keys: list[Key]) -> list[float]:
        """Seconds from the request to the Job, of those that have one."""
        return [self.seen[key] - self.asked[key] for key in keys if key in self.seen]


@asynccontextmanager
async def following(work: Callable[[], Coroutine[Any, Any, None]]) -> AsyncIterator[None]:
    """Something that goes on beside the block; what it raises ends the block."""
    try:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(work())
            yield
            task.cancel()
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None


async def write_alike(client: Client, keys: list[Key], at_once: int) -> float:
    """Make resources, and for each what the operator's first visit writes: ConfigMap, Job, status, Event. Seconds for all."""
    settings = Settings.model_validate({"trainerImage": "charalora/trainer:1", "preflightImage": "charalora/preflight:1"})
    sample = resource_of(
        manifest(keys[0])
        | {"metadata": {"uid": "", "resourceVersion": "1", "creationTimestamp": "2026-01-01T00:00:00Z", **manifest(keys[0])["metadata"]}}
    )
    now = datetime.now(UTC)
    plan = plan_of(sample, Observed(), settings, now)
    status = {"apiVersion": API_VERSION, "kind": KIND, "status": plan.status.model_dump(mode="json", by_alias=True, exclude_none=True)}
    owned = [*manifests_of_check(sample, sample.run, settings)] if sample.run else []
    template = json.dumps([owned, status, news_of(sample, plan.status, now)])
    waiting = iter(keys)
    began = time.monotonic()
    await asyncio.gather(*(_write_each(client, waiting, template.replace(keys[0].name, "%NAME%")) for _ in range(at_once)))
    return time.monotonic() - began


async def _write_each(client: Client, keys: Iterator[Key], template: str) -> None:
    for key in keys:
        made = await client.create(RESOURCES.path(key.namespace), manifest(key))
        owned, status, events = json.loads(template.replace("%NAME%", key.name).replace('"uid": ""', f'"uid": "{made["metadata"]["uid"]}"'))
        for body in owned:
            await client.create(_PATHS[body["kind"]].path(key.namespace), body)
        status["metadata"] = {"namespace": key.namespace, "name": key.name}
        await client.apply(RESOURCES.path(key.namespace, key.name) + "/status", status)
        for body in events:
            await client.create(_PATHS["Event"].path(key.namespace), body)


def figures_of(page: str) -> Mapping[str, float]:
    """A page of metrics: each series' newest value."""
    lines = (line.rpartition(" ") for line in page.splitlines() if line and not line.startswith("#"))
    return {series: float(value) for series, _, value in lines}
