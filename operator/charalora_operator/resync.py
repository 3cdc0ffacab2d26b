"""Complete readings of the cluster, every few minutes: they repair whatever the watches lost."""

import asyncio
import logging
from functools import partial

from charalora_operator.api import ApiError
from charalora_operator.cluster import JOBS, PODS, RESOURCES, Cluster
from charalora_operator.mirror import Kind, Listing, Mirror
from charalora_operator.queue import KeyQueue
from charalora_operator.settings import Settings

logger = logging.getLogger(__name__)

_COLLECTIONS = {Kind.PODS: PODS, Kind.JOBS: JOBS, Kind.RESOURCES: RESOURCES}
"""Children before their parents: a resource is visited when everything that it owns is known."""


async def resync(cluster: Cluster, mirror: Mirror, queue: KeyQueue, settings: Settings) -> None:
    """Read everything once, and queue what is new and what is not finished.

    Raises:
        ApiError: It cannot be read.
    """
    changed = set()
    for kind, collection in _COLLECTIONS.items():
        changed |= mirror.replace(kind, Listing(*await cluster.list_all(collection, partial(mirror.read, kind), settings.namespaces)))
    for key in changed.union(mirror.unfinished()):
        queue.add(key)


async def keep_resyncing(cluster: Cluster, mirror: Mirror, queue: KeyQueue, settings: Settings) -> None:
    """Read everything again and again; the first time was before."""
    while True:
        await asyncio.sleep(settings.resync_seconds)
        try:
            await resync(cluster, mirror, queue, settings)
        except ApiError as error:
            logger.warning("The cluster could not be read completely; the watches go on", extra={"error": str(error)})
