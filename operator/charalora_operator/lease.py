"""Which of several operators works: the holder of one Lease.

Nobody's clock is trusted but one's own: a Lease has run out when it has not changed for its duration, as this process saw it. The holder
ends itself well before the others may think so. Its clock goes on while the process is stopped and while the machine sleeps.
"""

import asyncio
import logging
import os
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol

from charalora_operator.api import ApiError, Json
from charalora_operator.settings import LeaseSettings

logger = logging.getLogger(__name__)

_CONFLICT = 409
_STANDBY_SECONDS = 1.0


def _seconds_passed() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class LeaseLostError(Exception):
    """Another operator may work by now."""


class Leases(Protocol):
    """The calls that an election needs, as cluster.Cluster has them."""

    async def get_lease(self, namespace: str, name: str) -> Json | None:
        """A Lease; None when it does not exist."""

    async def create_lease(self, lease: Json) -> Json:
        """Make a Lease."""

    async def replace_lease(self, lease: Json) -> Json:
        """Write a Lease that has not changed since."""


class Election:
    """This process's part in choosing the one that works."""

    def __init__(self, leases: Leases, settings: LeaseSettings, namespace: str, clock: Callable[[], float] = _seconds_passed) -> None:
        self._leases = leases
        self._settings = settings
        self._namespace = settings.namespace or namespace
        self._clock = clock
        self._identity = f"{os.environ.get('POD_NAME') or os.uname().nodename}_{uuid.uuid4().hex[:12]}"
        self._seen: tuple[str, float] = ("", clock())  # the Lease's version and since when it stands
        self._runs_out = clock()  # when another one's Lease can be taken
        self._renewed = clock()
        self._asked = clock()
        self._written: Json | None = None  # the Lease as this process wrote it last, where nothing is known to have come between
        self.leads = False

    @property
    def silence(self) -> float:
        """Seconds since the API server last said whose the Lease is."""
        return self._clock() - self._asked

    @property
    def may_write(self) -> bool:
        """Whether nobody else can be the one that works yet."""
        return self.leads and self._seconds_left() > 0

    async def acquire(self) -> None:
        """Wait until this process is the one that works."""
        while True:
            if await self._turn():
                break
            await asyncio.sleep(self._seconds_to_wait())
        self.leads = True
        logger.info("This operator leads", extra={"lease": self._settings.name, "identity": self._identity})

    async def hold(self) -> None:
        """Stay the one that works.

        Raises:
            LeaseLostError: It cannot be proven any more; the process must end at once.
        """
        while True:
            renewed = await self._renew()
            await asyncio.sleep(self._settings.renew_seconds if renewed else min(_STANDBY_SECONDS, self._seconds_left()))

    async def release(self) -> None:
        """Let another operator begin at once."""
        self.leads = False
        lease = await self._leases.get_lease(self._namespace, self._settings.name)
        if lease is not None and lease["spec"].get("holderIdentity") == self._identity:
            await self._leases.replace_lease(lease | {"spec": lease["spec"] | {"holderIdentity": "", "renewTime": _now()}})
            logger.info("This operator gave its Lease back", extra={"lease": self._settings.name})

    async def _renew(self) -> bool:
        try:
            # A connection that hangs is given up while there is time for another one; a slow API server is given the time that there is.
            left = self._seconds_left()
            async with asyncio.timeout(min(left, max(left / 2, self._settings.renew_seconds))):
                ours = await self._turn()
        except TimeoutError:
            ours = False
        if self._seconds_left() == 0:
            raise LeaseLostError(
                f"The Lease {self._namespace}/{self._settings.name} could not be renewed in time; another operator takes over."
            )
        return ours

    def _seconds_to_wait(self) -> float:
        """Until the Lease is looked at again: a second, or as soon as it runs out."""
        left = self._runs_out - self._clock()
        return min(_STANDBY_SECONDS, left) if left > 0 else _STANDBY_SECONDS

    def _seconds_left(self) -> float:
        """Until this process must end: two thirds of the time after which the others may begin."""
        return max(0.0, self._renewed + self._settings.duration_seconds * 2 / 3 - self._clock())

    async def _turn(self) -> bool:
        """Take or renew the Lease where it is ours to take; whether it is ours now. One that we wrote last is not read before."""
        began = self._clock()
        written, self._written = self._written, None
        try:
            lease = written or await self._leases.get_lease(self._namespace, self._settings.name)
            if lease is None:
                self._written = await self._leases.create_lease(self._ours({}))
            elif self._is_ours_to_take(lease):
                self._written = await self._leases.replace_lease(lease | {"spec": self._ours(lease["spec"])["spec"]})
        except ApiError as error:
            if error.code != _CONFLICT:
                logger.warning("The Lease cannot be reached", extra={"lease": self._settings.name, "error": str(error)})
            elif written is not None:  # somebody wrote since: who?
                return await self._turn()
            return False
        self._asked = self._clock()
        if self._written is None:
            return False
        self._renewed = began
        return True

    def _is_ours_to_take(self, lease: Json) -> bool:
        version, spec = lease["metadata"]["resourceVersion"], lease["spec"]
        if version != self._seen[0]:
            self._seen = (version, self._clock())
        if spec.get("holderIdentity", "") in {"", self._identity}:
            return True
        if self.leads:
            raise LeaseLostError(f"The Lease {self._namespace}/{self._settings.name} is held by {spec['holderIdentity']}.")
        self._runs_out = self._seen[1] + float(spec.get("leaseDurationSeconds", self._settings.duration_seconds))
        return self._clock() >= self._runs_out

    def _ours(self, spec: Json) -> Json:
        taken = spec.get("holderIdentity") != self._identity
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": self._settings.name, "namespace": self._namespace},
            "spec": {
                "holderIdentity": self._identity,
                "leaseDurationSeconds": self._settings.duration_seconds,
                "acquireTime": _now() if taken else spec["acquireTime"],
                "renewTime": _now(),
                "leaseTransitions": spec.get("leaseTransitions", -1) + 1 if taken else spec.get("leaseTransitions", 0),
            },
        }


def _now() -> str:
    """For people who read the Lease; nobody compares it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
