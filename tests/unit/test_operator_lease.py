"""Which operator works: two of them, one Lease, and clocks that nobody compares."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from charalora_operator.api import ApiError, Json
from charalora_operator.lease import Election, LeaseLostError
from charalora_operator.settings import LeaseSettings

SETTINGS = LeaseSettings.model_validate({"durationSeconds": 15, "renewSeconds": 5})


class Clock:
    """Time that passes when a test says so."""

    now = 100.0

    def __call__(self) -> float:
        """What it shows."""
        return self.now


class Leases:
    """One Lease, with versions as the API server keeps them."""

    def __init__(self) -> None:
        self.lease: Json | None = None
        self.reachable = True
        self.version = 0
        self.reads = 0

    async def get_lease(self, namespace: str, name: str) -> Json | None:
        """As it stands."""
        self.reads += 1
        self._answer()
        assert (namespace, name) == ("charalora", "charalora-operator")
        return self.lease

    async def create_lease(self, lease: Json) -> Json:
        """Refused where it stands."""
        self._answer()
        if self.lease is not None:
            raise ApiError(409, "AlreadyExists", "")
        return self._store(lease)

    async def replace_lease(self, lease: Json) -> Json:
        """Refused where it is not what was read."""
        self._answer()
        if self.lease is None or lease["metadata"]["resourceVersion"] != self.lease["metadata"]["resourceVersion"]:
            raise ApiError(409, "Conflict", "")
        return self._store(lease)

    def _answer(self) -> None:
        if not self.reachable:
            raise ApiError(0, "ConnectError", "no answer")

    def _store(self, lease: Json) -> Json:
        self.version += 1
        self.lease = lease | {"metadata": lease["metadata"] | {"resourceVersion": str(self.version)}}
        return self.lease


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def leases() -> Leases:
    return Leases()


def election(leases: Leases, clock: Clock) -> Election:
    """One operator's part."""
    return Election(leases, SETTINGS, "charalora", clock)


def leader(leases: Leases, clock: Clock) -> Election:
    """One that works."""
    elected = election(leases, clock)
    run(elected.acquire())
    return elected


def run(work: Coroutine[Any, Any, Any]) -> Any:
    """Run it to its end, which must come at once."""
    return asyncio.run(asyncio.wait_for(work, 1))


def takes(candidate: Election) -> bool:
    """Whether it works when it is asked now."""
    try:
        run(asyncio.wait_for(candidate.acquire(), 0.05))
    except TimeoutError:
        return False
    return True


def test_the_first_one_works(leases: Leases, clock: Clock) -> None:
    elected = leader(leases, clock)
    assert elected.leads
    assert leases.lease is not None
    assert (leases.lease["spec"]["leaseDurationSeconds"], leases.lease["spec"]["leaseTransitions"]) == (15, 0)


def test_the_second_one_waits(leases: Leases, clock: Clock) -> None:
    leader(leases, clock)
    second = election(leases, clock)
    assert not takes(second)
    assert not second.leads


def test_a_lease_that_does_not_change_runs_out(leases: Leases, clock: Clock) -> None:
    """Its duration counts from when the second one saw it first, whatever the Lease says of times."""
    leader(leases, clock)
    second = election(leases, clock)
    clock.now += 3600
    assert not takes(second)
    clock.now += 14.9
    assert not takes(second)
    clock.now += 0.2
    assert takes(second)
    assert leases.lease is not None
    assert leases.lease["spec"]["leaseTransitions"] == 1


def test_a_lease_that_is_renewed_does_not_run_out(leases: Leases, clock: Clock) -> None:
    first, second = leader(leases, clock), election(leases, clock)
    for _ in range(6):
        assert not takes(second)
        clock.now += 5
        assert run(first._renew())
    assert not takes(second)


def test_a_clock_of_another_time_changes_nothing(leases: Leases, clock: Clock) -> None:
    """The times in the Lease may be years away."""
    leader(leases, clock)
    assert leases.lease is not None
    leases.lease["spec"] |= {"renewTime": "1999-01-01T00:00:00.000000Z", "acquireTime": "2099-01-01T00:00:00.000000Z"}
    assert not takes(election(leases, clock))


def test_of_two_that_see_it_run_out_one_wins(leases: Leases, clock: Clock) -> None:
    leader(leases, clock)
    second, third = election(leases, clock), election(leases, clock)
    assert not takes(second)
    assert not takes(third)
    clock.now += 16
    assert takes(second)
    assert not takes(third)


def test_a_released_lease_is_free_at_once(leases: Leases, clock: Clock) -> None:
    first, second = leader(leases, clock), election(leases, clock)
    assert not takes(second)
    run(first.release())
    assert not first.leads
    assert takes(second)


def test_nobody_releases_another_ones_lease(leases: Leases, clock: Clock) -> None:
    first, second = leader(leases, clock), election(leases, clock)
    assert not takes(second)
    clock.now += 16
    assert takes(second)
    run(first.release())
    assert not takes(election(leases, clock))


def test_a_leader_that_cannot_renew_gives_up_before_the_others_begin(leases: Leases, clock: Clock) -> None:
    """After two thirds of the duration."""
    first = leader(leases, clock)
    leases.reachable = False
    clock.now += 9.9
    assert not run(first._renew())
    clock.now += 0.1
    with pytest.raises(LeaseLostError, match="could not be renewed in time"):
        run(first._renew())


def test_a_short_silence_of_the_api_server_changes_nothing(leases: Leases, clock: Clock) -> None:
    first = leader(leases, clock)
    leases.reachable = False
    clock.now += 8
    assert not run(first._renew())
    leases.reachable = True
    assert run(first._renew())
    clock.now += 8
    assert run(first._renew())


def test_a_leader_that_was_replaced_ends(leases: Leases, clock: Clock) -> None:
    """A machine that slept wakes up to another leader."""
    first, second = leader(leases, clock), election(leases, clock)
    assert not takes(second)
    clock.now += 16
    assert takes(second)
    with pytest.raises(LeaseLostError):
        run(first.hold())


def test_silence_is_measured(leases: Leases, clock: Clock) -> None:
    """The standby's probe reads it."""
    second = election(leases, clock)
    leases.reachable = False
    clock.now += 130
    assert not takes(second)
    assert second.silence == 130
    leases.reachable = True
    takes(second)
    assert second.silence == 0


def test_who_wrote_it_last_renews_it_without_reading(leases: Leases, clock: Clock) -> None:
    elected = leader(leases, clock)
    before = leases.reads
    for _ in range(3):
        clock.now += 5
        assert run(elected._renew())
    assert before == leases.reads


def test_what_somebody_changed_in_it_is_read_at_once(leases: Leases, clock: Clock) -> None:
    """Its labels, say: it is still ours."""
    elected = leader(leases, clock)
    assert leases.lease is not None
    leases._store(leases.lease)
    assert run(elected._renew())


def test_a_slow_api_server_has_the_time_that_there_is(leases: Leases, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that takes longer than the pause between renewals is waited for while the Lease is ours."""
    elected = Election(leases, LeaseSettings.model_validate({"durationSeconds": 300, "renewSeconds": 1}), "charalora", clock)
    run(elected.acquire())
    replace = leases.replace_lease

    async def slowly(lease: Json) -> Json:
        await asyncio.sleep(1.2)
        return await replace(lease)

    monkeypatch.setattr(leases, "replace_lease", slowly)
    assert asyncio.run(elected._renew())


def test_it_may_write_until_it_must_end(leases: Leases, clock: Clock) -> None:
    elected = leader(leases, clock)
    clock.now += 9.9
    assert elected.may_write
    clock.now += 0.2
    assert not elected.may_write
    assert not election(leases, clock).may_write
