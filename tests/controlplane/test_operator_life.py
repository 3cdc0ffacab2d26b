"""The operator killed at every write of a training's life: the training ends the same."""

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from apiserver import ApiServer, Json, until
from charalora_spec.outcome import Outcome
from faults import Fault
from lives import PreemptedOnce, finished, remains, resource
from operators import Operator, settings_of
from paper_node import paper_node
from proxies import Proxies

LEASE = "operator"
AT_ONCE = 12
"""Lives at the same time; most of a life is waiting."""

UNTIL_SEEN = 120.0
"""Seconds for which an ended pod stays where it was: what it cost is read from it, and an operator that is started anew takes its time."""

ATTEMPTS = 2
"""Of each life: one that is taken away, and one that finishes."""


@dataclass(frozen=True)
class Cut:
    """Where the operator is killed.

    Attributes:
        at: Number of the write, from 1; 0: nowhere.
        after: Whether the write still happens.
    """

    at: int = 0
    after: bool = False

    @property
    def namespace(self) -> str:
        """Of this life."""
        return f"cut-{'after' if self.after else 'before'}-{self.at}"


@dataclass(frozen=True)
class Life:
    """What became of a training.

    Attributes:
        remains: What it left.
        writes: What the operators wrote, in order.
        notes: Reason and words of its Events.
        cut: Whether an operator was killed.
    """

    remains: Json
    writes: list[str]
    notes: list[tuple[str, str]]
    cut: bool


def live(server: ApiServer, proxies: Proxies, folder: Path, cut: Cut) -> Life:
    """A whole life, with the operator killed once and started again."""
    server.namespace(cut.namespace)
    home = folder / cut.namespace
    home.mkdir()
    settings = settings_of(
        cut.namespace, workers=1, lease={"name": LEASE, "namespace": cut.namespace, "durationSeconds": 60, "renewSeconds": 2}
    )
    with proxies.proxy() as proxy, ExitStack() as ending:
        proxy.cut_at, proxy.cut_after = cut.at, cut.after
        kubeconfig = proxy.kubeconfig(home)

        def start() -> Operator:
            operator = Operator(home, kubeconfig, settings)
            proxy.kill = operator.kill
            ending.callback(operator.kill)
            return operator

        operator = start()
        server.create(resource(cut.namespace))
        if cut.at:
            until(f"write {cut.at} of {cut.namespace}", lambda: proxy.cut or _is_told(server, cut.namespace), seconds=120, pause=0.3)
        time.sleep(0.5)  # a write may be seen before the operator is killed after it
        if proxy.cut:
            server.delete("leases", cut.namespace, LEASE)  # nobody waits here until it runs out
            operator = start()
        finished(server, cut.namespace)
        until("the last Event, or what the second operator makes of it", lambda: _is_told(server, cut.namespace) or proxy.cut)
        until(f"the operator of {cut.namespace} to know the cluster", partial(_knows, operator.log, 2 if proxy.cut else 1))
        time.sleep(1)  # for what it should not do
        operator.stop()
        body = server.get("characterloras", cut.namespace, "surtr")
        notes = [(event["reason"], event["note"]) for event in _events(server, cut.namespace)]
        return Life(remains(server, body), proxy.writes, notes, proxy.cut)


def _knows(log: Path, times: int) -> bool:
    return log.read_text().count("Caught up with the cluster") == times


def _events(server: ApiServer, namespace: str) -> list[Json]:
    answer = server.ask("GET", f"/apis/events.k8s.io/v1/namespaces/{namespace}/events", fieldSelector="regarding.kind=CharacterLora")
    return list(answer.body["items"])


def _is_told(server: ApiServer, namespace: str) -> bool:
    return any(event["note"].startswith("Succeeded:") and event["reason"] == "Succeeded" for event in _events(server, namespace))


@pytest.mark.fault(Fault.OPERATOR_KILLED)
def test_killed_at_any_write_the_training_ends_the_same(server: ApiServer, proxies: Proxies, tmp_path: Path) -> None:
    """Before the write happens, and after it happened but before the operator heard so: each write of the life, each its own life."""
    with paper_node(server, PreemptedOnce(server), keeps=UNTIL_SEEN):
        whole = live(server, proxies, tmp_path, Cut())
        cuts = [Cut(at, after) for at in range(1, len(whole.writes) + 1) for after in (False, True)]
        with ThreadPoolExecutor(AT_ONCE) as threads:
            lives = dict(zip(cuts, threads.map(lambda cut: live(server, proxies, tmp_path, cut), cuts), strict=True))

    assert ("True", "Succeeded") == whole.remains["conditions"]["Succeeded"][:2]
    assert [(1, "Preempted"), (2, "Succeeded")] == [attempt[:2] for attempt in whole.remains["attempts"]]
    assert {} == {cut: other for cut, one in lives.items() if (other := _different(one.remains, whole.remains))}
    uncut = [cut for cut, one in lives.items() if not one.cut]  # a busy operator sees two changes at once, and writes less
    assert len(uncut) <= len(cuts) // 4, uncut
    assert [] == _told_too_often(whole.notes)
    assert {} == {cut: twice for cut, one in lives.items() if (twice := _told_too_often(one.notes))}


def _different(remains: Json, expected: Json) -> Json:
    """What is not as it is in the undisturbed life, and how it is there."""
    return {part: (remains[part], whole) for part, whole in expected.items() if remains[part] != whole}


def _told_too_often(notes: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """That it runs is the resource's state once an attempt; beyond that nothing is told twice."""
    often = {("Running", f"Succeeded: {Outcome.RUNNING.meaning}"): ATTEMPTS}
    return [note for note, count in Counter(notes).items() if count > often.get(note, 1)]
