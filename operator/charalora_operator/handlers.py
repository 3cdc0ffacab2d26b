"""The only file that imports kopf, and only for its watches: each event goes into the mirror, and the resource that it is about is due.

No annotation, finalizer, index, daemon or timer of kopf's is used; its peering neither, as a Lease says who works.
"""

import asyncio
import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import kopf
from kopf._core.reactor.inventory import ResourceMemories, ResourceMemory

from charalora_operator.api import Credentials
from charalora_operator.mirror import Kind, Mirror
from charalora_operator.names import OURS
from charalora_operator.queue import KeyQueue
from charalora_operator.settings import Settings
from charalora_spec.spec import GROUP, PLURAL, VERSION

_WATCHED = {Kind.RESOURCES: (GROUP, VERSION, PLURAL), Kind.JOBS: ("batch", "v1", "jobs"), Kind.PODS: ("", "v1", "pods")}
_WATCH_TASK = "watcher for "
"""How the names of kopf's tasks begin that watch a kind of object."""
_CHUNK = 100  # pages of more would be most of our memory


class _Patience:
    """Delays in seconds, for ever: doubling up to 30, and never the same for two operators."""

    def __iter__(self) -> Iterator[float]:
        delay = 0.5
        while True:
            yield delay * random.uniform(0.5, 1)
            delay = min(30.0, delay * 2)


class _Forgetful(ResourceMemories):
    """kopf keeps a record of every object, for handlers of kinds that we do not use: with ten thousand trainings, half of our memory."""

    async def recall(self, *args: Any, **more: Any) -> ResourceMemory:
        """A record that nobody keeps."""
        return await super().recall(*args, **more | {"ephemeral": True})


class _NoDifference(kopf.DiffBaseStorage):
    """kopf compares every object with the one before, for handlers of kinds that we do not use: a tenth of our CPU time."""

    def build(self, **_: Any) -> kopf.BodyEssence:
        """Nothing of an object matters to a comparison."""
        return kopf.BodyEssence()

    def fetch(self, **_: Any) -> kopf.BodyEssence | None:
        """Nothing was kept."""
        return None

    def store(self, **_: Any) -> None:
        """Nothing is kept."""


async def watch(
    mirror: Mirror, queue: KeyQueue, settings: Settings, credentials: Callable[[], Credentials], started: asyncio.Event
) -> None:
    """Watch until something ends it; a watch that cannot go on raises, and then the process is better started again."""
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry)
    async def login(**_: Any) -> kopf.ConnectionInfo:
        return _connection(credentials())

    @kopf.on.cleanup(registry=registry)
    async def end_watches(**_: Any) -> None:
        await _end_watches()

    for kind, place in _WATCHED.items():
        kopf.on.event(*place, id=kind.plural, registry=registry)(_handler(kind, mirror, queue))
    await kopf.operator(
        registry=registry,
        settings=_settings(),
        memories=_Forgetful(),
        standalone=True,
        clusterwide=not settings.namespaces,
        namespaces=settings.namespaces,
        ready_flag=started,
    )


async def _end_watches() -> None:
    """An error of one watch ends kopf, which forgets the others: one that is just beginning anew waits for a login, and kopf for it."""
    watches = [task for task in asyncio.all_tasks() if task.get_name().startswith(_WATCH_TASK)]
    for task in watches:
        task.cancel()
    await asyncio.gather(*watches, return_exceptions=True)


def _handler(kind: Kind, mirror: Mirror, queue: KeyQueue) -> Any:
    async def seen(event: Mapping[str, Any], **_: Any) -> None:
        key = mirror.event(kind, event["object"], deleted=event["type"] == "DELETED")
        if key is not None:
            queue.add(key)

    return seen


def _settings() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.scanning.disabled = True  # it would list and watch namespaces and CRDs
    settings.posting.enabled = False
    settings.persistence.diffbase_storage = _NoDifference()
    settings.queueing.worker_limit = None  # a limit divides by idle_timeout: that many objects a second and no more
    settings.queueing.idle_timeout = 0.1  # seconds for which a worker holds its object after the last event
    settings.networking.error_backoffs = _Patience()
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 5
    settings.networking.enforce_retry_after = True
    settings.watching.server_timeout = 300
    settings.watching.inactivity_timeout = 70  # bookmarks come once a minute: a silent stream is a dead one
    settings.watching.chunk_size = _CHUNK
    for place in (_WATCHED[Kind.JOBS], _WATCHED[Kind.PODS]):
        settings.watching.label_selectors[place] = OURS
    return settings


def _connection(credentials: Credentials) -> kopf.ConnectionInfo:
    return kopf.ConnectionInfo(
        server=credentials.server,
        ca_path=credentials.ca_file or None,
        ca_data=credentials.ca_data or None,
        insecure=credentials.insecure,
        token=credentials.token or None,
        certificate_path=credentials.certificate_file or None,
        certificate_data=credentials.certificate_data or None,
        private_key_path=credentials.key_file or None,
        private_key_data=credentials.key_data or None,
    )
