"""Complete readings of the cluster, every few minutes: they repair whatever the watches lost."""

import asyncio
import logging
from functools import partial

from charalora_operator.api import ApiError
from charalora_operator.cluster import JOBS, PODS, RESOURCES, Cluster
from charalora_operator.mirror import Kind, Listing, Mirror
from charalora_operator.model import Key
from charalora_operator.queue import KeyQueue
from charalora_operator.settings import Settings

logger = logging.getLogger(__name__)

_COLLECTIONS = {Kind.PODS: PODS, Kind.JOBS: JOBS, Kind.RESOURCES: RESOURCES}


async def resync(cluster: Cluster, mirror: Mirror, queue: KeyQueue, settings: Settings) -> None:
    """Read everything once, and queue what is new and what is not finished: no resource before everything that it owns is known.

    Raises:
        ApiError: It cannot be read.
    """
    changed = await asyncio.gather(*(_read(cluster, mirror, settings, kind) for kind in _COLLECTIONS))
    for key in set(mirror.unfinished()).union(*changed):
        queue.add(key)


async def _read(cluster: Cluster, mirror: Mirror, settings: Settings, kind: Kind) -> set[Key]:
    """One kind; the keys that are new. While we read a page, the API server makes one of another kind."""
    found = await cluster.list_all(_COLLECTIONS[kind], partial(mirror.read, kind), settings.namespaces)
    return mirror.replace(kind, Listing(*found))


async def keep_resyncing(cluster: Cluster, mirror: Mirror, queue: KeyQueue, settings: Settings) -> None:
    """Read everything again and again; the first time was before."""
    while True:
        await asyncio.sleep(settings.resync_seconds)
        try:
            await resync(cluster, mirror, queue, settings)
        except ApiError as error:
            logger.warning("The cluster could not be read completely; the watches go on", extra={"error": str(error)})
