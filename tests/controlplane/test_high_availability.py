"""Two operators and one Lease: never do two of them write, and when one goes the other works within 15 seconds.

Each has its own way to a real API server, whose audit log says who wrote what and when. The Lease's times are those of the chart.
"""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from apiserver import ApiServer, Json, until
from charalora_operator import names
from charalora_spec.outcome import Outcome
from faults import Fault
from lives import CHECKED, FINISHED, finished, resource, state_of
from operators import Operator, operator, settings_of
from packages import need
from paper_node import End, labels_of, paper_node
from proxies import Proxies, Proxy

WITHIN = 15.0
LEASE = "charalora-operator"
MANY = 8
"""As many as an operator works on at the same time."""


@dataclass(frozen=True)
class Write:
    """A write as the API server noted it.

    Attributes:
        who: The way it came.
        what: Verb and object.
        at: When it arrived.
        code: The answer.
    """

    who: str
    what: str
    at: datetime
    code: int

    @property
    def is_work(self) -> bool:
        """Whether it belongs to a training, and not to the Lease."""
        return " leases/" not in self.what


@dataclass(frozen=True)
class Pair:
    """Two operators, of which the first leads.

    Attributes:
        server: What both talk to.
        namespace: What both watch; their Lease lies there too.
    """

    server: ApiServer
    namespace: str
    first: Operator
    second: Operator
    ways: tuple[Proxy, Proxy]

    def create(self, many: int = 1) -> None:
        """Give them work."""
        for number in range(many):
            self.server.create(resource(self.namespace, f"surtr-{number}"))

    def checks(self) -> int:
        """For how many resources the check's Job was made."""
        return len(self.server.all_of("jobs", self.namespace, labelSelector=f"{names.COMPONENT}={names.PREFLIGHT}"))

    def writes(self) -> list[Write]:
        """What both wrote, in the order of its arrival."""
        found = []
        for line in self.server.audit_log.read_text().splitlines():
            entry = json.loads(line)
            asked = entry.get("objectRef", {})
            is_ours = entry["userAgent"] in {way.name for way in self.ways} and entry["verb"] not in {"get", "list", "watch"}
            if is_ours:
                what = f"{entry['verb']} {asked['resource']}/{asked.get('name', '')}"
                at = datetime.fromisoformat(entry["requestReceivedTimestamp"])
                found.append(Write(entry["userAgent"], what, at, entry.get("responseStatus", {}).get("code", 0)))
        return sorted(found, key=lambda write: write.at)

    def lateness(self) -> float:
        """Seconds by which the second one's look at the Lease, due every second, came too late at the worst: the machine was busy."""
        looks = []
        for line in self.server.audit_log.read_text().splitlines():
            entry = json.loads(line)
            if entry["userAgent"] == self.ways[1].name and entry["verb"] == "get" and "/leases/" in entry["requestURI"]:
                looks.append(datetime.fromisoformat(entry["requestReceivedTimestamp"]))
        return max((after - before).total_seconds() - 1 for before, after in pairwise(sorted(looks)))

    def taken_over(self) -> datetime | None:
        """When the second one took the Lease."""
        return next((one.at for one in self.writes() if one.who == self.ways[1].name and not one.is_work and one.code < 300), None)

    def assert_one_writes(self) -> None:
        """Each of them worked only while the Lease was its own, even where what it asked for was refused."""
        taken = self.taken_over()
        assert taken is not None
        work = [write for write in self.writes() if write.is_work]
        assert [] == [write for write in work if (write.at >= taken) != (write.who == self.ways[1].name)]
        assert {self.ways[0].name, self.ways[1].name} == {write.who for write in work}


@contextmanager
def pair(
    server: ApiServer, proxies: Proxies, folder: Path, namespace: str, environments: Sequence[Mapping[str, str]] = ({}, {})
) -> Iterator[Pair]:
    """Two operators; the first leads and has made one resource's check."""
    server.namespace(namespace)
    settings = settings_of(namespace, lease={"name": LEASE, "namespace": namespace})
    with (
        proxies.proxy(f"{namespace}-first") as way,
        proxies.proxy(f"{namespace}-second") as other_way,
        operator(folder, way.kubeconfig(folder), settings, "first", environments[0]) as first,
    ):
        until("the first one to lead", lambda: first.says("Caught up with the cluster"))
        with operator(folder, other_way.kubeconfig(folder), settings, "second", environments[1]) as second:
            until("the second one to stand by", lambda: second.says("Serving metrics and probes"))
            until("it to have seen the Lease", lambda: any("/leases/" in request for request in other_way.requests))
            server.create(resource(namespace, "before"))
            pair = Pair(server, namespace, first, second, (way, other_way))
            until("the first one to work", lambda: pair.checks() == 1)
            until("it to have said so", lambda: server.get("characterloras", namespace, "before").get("status"))
            yield pair


def takes_over(pair: Pair, broken: datetime, checks: int) -> None:
    """The second one leads, and does the work that waits."""
    until("the second one to work", lambda: pair.checks() >= checks, seconds=60)
    taken = pair.taken_over()
    assert taken is not None
    works = next(write.at for write in pair.writes() if write.is_work and write.who == pair.ways[1].name)
    took, worked = (taken - broken).total_seconds(), (works - broken).total_seconds()
    late = pair.lateness()
    print(f"{pair.namespace}: the second one led {took:.1f} s later and worked {worked:.1f} s later; the machine is {late:.1f} s late.")
    assert worked < WITHIN + 3 * late  # it looks, takes the Lease, reads the cluster, and writes


def now() -> datetime:
    return datetime.now(UTC)


@pytest.mark.fault(Fault.LEADER_KILLED)
def test_a_killed_leader_is_replaced(server: ApiServer, proxies: Proxies, tmp_path: Path) -> None:
    with pair(server, proxies, tmp_path, "killed") as both:
        both.first.kill()
        broken = now()
        both.create()

        takes_over(both, broken, 2)
        both.assert_one_writes()


@pytest.mark.fault(Fault.LEADER_FROZEN)
def test_a_frozen_leader_writes_nothing_when_it_wakes(server: ApiServer, proxies: Proxies, tmp_path: Path) -> None:
    """It wakes with answers in its hands after which it would write: what it was about to do is not done."""
    with pair(server, proxies, tmp_path, "frozen") as both:
        hold = both.ways[0].hold(r"^GET /apis/charalora.dev/.*/characterloras/surtr-")
        both.create(MANY)
        until("the first one to wait for answers", lambda: hold.held == MANY)
        both.first.freeze()
        broken = now()
        hold.release()

        takes_over(both, broken, 1 + MANY)
        time.sleep(1)  # so that the answers lie there whatever else the machine does
        both.first.wake()
        assert 1 == both.first.ended(30)
        both.assert_one_writes()


@pytest.mark.fault(Fault.LEADER_CUT_OFF)
def test_a_leader_that_is_cut_off_ends_before_the_other_begins(server: ApiServer, proxies: Proxies, tmp_path: Path) -> None:
    """Nothing that it says arrives, and nobody tells it so."""
    with pair(server, proxies, tmp_path, "cut-off") as both:
        both.ways[0].fall_silent()
        broken = now()
        both.create()

        until("the first one to end by itself", lambda: not both.first.runs, seconds=30)
        assert both.taken_over() is None
        assert 1 == both.first.ended(1)
        takes_over(both, broken, 2)
        both.ways[0].come_back()
        both.assert_one_writes()


class SetClock:
    """The clock of one process, which can be set at any time; what measures how much time passes goes on as it is."""

    def __init__(self, file: Path, seconds: int) -> None:
        need("faketime")
        (library,) = Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")
        self._file = file
        self.set(seconds)
        self.environment = {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def set(self, seconds: int) -> None:
        """Seconds before or after the true time."""
        draft = self._file.with_suffix(".draft")
        draft.write_text(f"{seconds:+d}s")
        draft.rename(self._file)


class FailsOnce:
    """Script of a life: a check passes, the first attempt meets a storage that does not answer, the second finishes."""

    def __call__(self, pod: Json) -> End:
        """How this pod ends."""
        labels = labels_of(pod)
        if labels[names.COMPONENT] == names.PREFLIGHT:
            return End(Outcome.SUCCEEDED, CHECKED)
        return End(Outcome.STORAGE_UNREACHABLE, {}) if labels[names.ATTEMPT] == "1" else End(Outcome.SUCCEEDED, FINISHED)


@pytest.mark.fault(Fault.CLOCK_SET)
def test_a_clock_that_is_set_moves_nothing(server: ApiServer, proxies: Proxies, tmp_path: Path) -> None:
    """Ten minutes back, then ten minutes ahead: no turn is lost, no pause takes ten minutes more, and no time to live ten minutes less."""
    clocks = SetClock(tmp_path / "first.clock", 0), SetClock(tmp_path / "second.clock", 600)
    with (
        paper_node(server, FailsOnce()),
        pair(server, proxies, tmp_path, "clocks", [clock.environment for clock in clocks]) as both,
    ):
        clocks[0].set(-600)
        began = now()
        server.create(resource("clocks", "slow", **{"run.ttlSecondsAfterFinished": 300}))
        ended = finished(server, "clocks", "slow")
        assert "Succeeded" == state_of(ended)
        assert timedelta(0) < datetime.fromisoformat(ended["status"]["conditions"][0]["lastTransitionTime"]) - began + timedelta(seconds=2)
        renewed = datetime.fromisoformat(server.get("leases", "clocks", LEASE)["spec"]["renewTime"])
        assert timedelta(seconds=550) < now() - renewed, "The clock was not set."

        clocks[0].set(600)
        server.change("characterloras", "clocks", "slow", {"metadata": {"annotations": {"look": "again"}}})
        server.create(resource("clocks", "fast"))
        assert "Succeeded" == state_of(finished(server, "clocks", "fast"))  # so the first was looked at again long ago
        assert server.find("characterloras", "clocks", "slow")
        assert both.taken_over() is None

        both.first.kill()
        broken = now()
        both.create()
        takes_over(both, broken, 4)
        both.assert_one_writes()
