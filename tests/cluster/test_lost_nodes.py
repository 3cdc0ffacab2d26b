"""A node that is lost in mid-training, one that comes back with a pod of long ago, one that is drained: the training goes on elsewhere."""

import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from charalora_operator.names import COMPONENT, RESOURCE, TRAINING
from charalora_spec.outcome import Outcome
from charalora_spec.status import AttemptStatus, Condition, Status
from cluster_runs import Place, Run, held, results
from faults import Fault
from machine import alive, kubelet_of, power, processes_of, send
from reasons import own_operator, succeeded
from trainings import differences

pytestmark = [
    pytest.mark.alone,  # it kills a node
    pytest.mark.timeout(1800),  # a busy machine takes ten times as long
]

STEPS, SAVE_EVERY = 240, 20
LONG: dict[str, Any] = {"training.steps": STEPS, "training.saveEvery": SAVE_EVERY, "resources.cpu": "600m"}
"""Some ten seconds of training, so that there is a middle."""
GANG: dict[str, Any] = {"resources.nodes": 2, "training.batchSize": 1, "resources.cpu": "400m"}
HOME, AWAY = "node-a", "node-b"
"""The node that stays, which holds the storage, and the one that is lost."""
LOST_SECONDS = 600.0
"""20 until the node counts as lost, 20 until its pods are told to go, 10 of grace, 30 until they are given up; machines are shared."""
GRACE = "settings.gracePeriodSeconds=10"
ACCOUNT = ("attempt", "preemptions", "usage.gpuSeconds", "usage.wastedGpuSeconds", "checkpoint.step")


@pytest.fixture(scope="module")
def here(fresh_place: Callable[[], AbstractContextManager[Place]]) -> Iterator[Place]:
    """A place whose operator gives pods little time, so that lost ones are given up soon."""
    with fresh_place() as place, own_operator(place, GRACE):
        yield place


@pytest.fixture(scope="module")
def accounts(here: Place, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], dict[str, list[list[int]]]]]:
    """What each resource's status has said so far of attempts, costs and saved states, in order."""
    said = tmp_path_factory.mktemp("accounts") / "said"
    columns = ";".join(f"{{.status.{path}}}" for path in ACCOUNT)
    target = here.target
    command = [target.kubectl, f"--kubeconfig={target.kubeconfig}", "get", "clora", "-n", here.namespace, "--watch"]

    def told() -> dict[str, list[list[int]]]:
        found: dict[str, list[list[int]]] = {}
        for line in said.read_text().splitlines():
            name, *values = line.split(";")
            found.setdefault(name, []).append([int(value or 0) for value in values])
        return found

    with (
        said.open("w") as output,
        subprocess.Popen([*command, "-o", f'jsonpath={{.metadata.name}};{columns}{{"\\n"}}'], stdout=output) as watch,
    ):
        yield told
        watch.terminate()


@pytest.fixture(scope="module")
def undisturbed(here: Place, accounts: Callable[[], Any]) -> Run:
    """The same training, to its end."""
    assert accounts() is not None
    run = here.start("undisturbed", **LONG)
    return finished(run, attempts=1)


def finished(run: Run, attempts: int) -> Run:
    """Wait for success, in so many attempts."""
    status = run.finish(LOST_SECONDS)
    assert run.state == "Succeeded", run.story()
    assert attempts == status.attempt, run.story()
    return run


@contextmanager
def cordoned(place: Place, node: str) -> Iterator[None]:
    """No pod is given to the node meanwhile."""
    place.target.run("cordon", node)
    try:
        yield
    finally:
        place.target.run("uncordon", node)


def started_away(place: Place, name: str, **fields: Any) -> Run:
    """A training on the node that will be lost, with a state saved."""
    with cordoned(place, HOME):
        run = place.start(name, **(LONG | fields))
        run.until("a pod", lambda _: bool(nodes_of(run, 1)))
    assert [AWAY] == nodes_of(run, 1)
    return saved(run)


def saved(run: Run) -> Run:
    """The training, with a first state saved and not yet done."""
    status = run.until("a saved state", lambda status: status.checkpoint is not None, LOST_SECONDS)
    assert status.completion_time is None, "It was over before anything could happen to it."
    return run


def nodes_of(run: Run, attempt: int) -> list[str]:
    """Where the pods of an attempt are."""
    pods = [pod for pod in run.trainers() if pod["metadata"]["labels"]["charalora.dev/attempt"] == str(attempt)]
    return sorted(pod["spec"]["nodeName"] for pod in pods if "nodeName" in pod["spec"])


def closed(run: Run, attempt: int = 1) -> tuple[Status, AttemptStatus]:
    """The status in which an attempt's account is closed, and that account."""

    def over(status: Status) -> bool:
        return any(one.attempt == attempt and one.end_time is not None for one in status.attempts)

    status = run.until(f"the end of attempt {attempt}", over, LOST_SECONDS)
    return status, next(one for one in status.attempts if one.attempt == attempt)


def taken_by_the_node(run: Run) -> Status:
    """Assert what is said and counted of an attempt that was lost with its node."""
    status, first = closed(run)
    assert (Outcome.PREEMPTED.reason, 1) == (first.reason, status.preemptions)
    assert status.checkpoint
    assert first.start_time
    assert first.end_time
    gpus = len(nodes_of(run, 1)) if run.name == "gang" else 1
    assert 0 < first.gpu_seconds <= gpus * ((first.end_time - first.start_time).total_seconds() + 1)
    assert 0 < first.wasted_gpu_seconds < first.gpu_seconds
    return status


@pytest.mark.fault(Fault.NODE_LOST)
def test_a_lost_node_costs_the_steps_since_the_last_state(here: Place, undisturbed: Run) -> None:
    """Kubelet, containerd and containers are killed. One training goes on at once on the other node, a gang of both when there are two."""
    gang = here.start("gang", **(LONG | GANG))
    gang.until("two pods", lambda _: len(nodes_of(gang, 1)) == 2)
    lone = started_away(here, "lone")
    saved(gang)
    assert [AWAY] == nodes_of(lone, 1)
    power("kill", AWAY)
    try:
        status = taken_by_the_node(lone)
        lost = next(one for one in status.attempts if one.attempt == 1)
        assert status.checkpoint
        assert lost.end_time
        since_saved = (lost.end_time - status.checkpoint.time).total_seconds()
        assert since_saved == pytest.approx(lost.wasted_gpu_seconds, abs=2)
        finished(lone, attempts=2)
        assert [HOME] == nodes_of(lone, 2)
        taken_by_the_node(gang)
        gang.until_state("Unschedulable", "Pending")
    finally:
        power("start", AWAY)
    gang.until("steps of attempt 2", lambda _: "Attempt 2 runs, stage train" in gang.message(Condition.TRAINING), LOST_SECONDS)
    assert "Going on after step" in gang.log(2)
    assert [HOME, AWAY] == nodes_of(gang, 2)
    here.target.run("delete", "clora", "gang", "-n", here.namespace, "--wait=false")

    assert "Going on after step" in lone.log(2)
    assert [] == differences(results(undisturbed.place.output("undisturbed"), STEPS), results(lone.place.output("lone"), STEPS))
    [pod] = [pod for pod in lone.trainers() if pod["metadata"]["labels"]["charalora.dev/attempt"] == "2"]
    assert held(pod) == pytest.approx(lone.status.attempts[1].gpu_seconds, abs=1)


@pytest.mark.fault(Fault.NODE_RESTARTED)
def test_a_restarted_node_costs_no_retry(here: Place, undisturbed: Run) -> None:
    """It is back before it is missed: nobody deletes the pod, and containerd can only say that its process is not there any more."""
    run = started_away(here, "restarted", **{"run.retries": 0})
    power("kill", AWAY)
    power("start", AWAY)
    taken_by_the_node(run)
    assert f"Node {AWAY} was restarted under its pod {run.name}-a1-" in run.story()
    finished(run, attempts=2)

    assert "Going on after step" in run.log(2)
    assert [] == differences(results(undisturbed.place.output("undisturbed"), STEPS), results(run.place.output("restarted"), STEPS))


@pytest.mark.fault(Fault.NODE_COMES_BACK)
def test_a_pod_that_comes_back_with_its_node_cannot_write(here: Place, undisturbed: Run, cluster: Any) -> None:
    """The whole node stands still and goes on when the next attempt has the output prefix: the late pod finds that, and stops."""
    run = started_away(here, "late")
    [pod] = run.trainers()
    kubelet, late = kubelet_of(cluster.facts, AWAY), processes_of(pod)
    assert late
    send(signal.SIGSTOP, kubelet, *late)
    try:
        taken_by_the_node(run)
        run.until("steps of attempt 2", lambda _: "Attempt 2 runs, stage train" in run.message(Condition.TRAINING), LOST_SECONDS)
        assert [HOME] == nodes_of(run, 2)
        send(signal.SIGCONT, *late)
        log = next(Path(cluster.facts["logs"], AWAY, "pod-logs").glob(f"*{pod['metadata']['uid']}/*/0.log"))
        until(lambda: "OutputOccupied" in log.read_text(), "the late pod to find that the prefix is not its own any more")
    finally:
        send(signal.SIGCONT, kubelet, *late)
    finished(run, attempts=2)

    until(lambda: not any(alive(process) for process in late), "the late pod's end")
    assert [] == differences(results(undisturbed.place.output("undisturbed"), STEPS), results(run.place.output("late"), STEPS))
    here.target.run("wait", "--for=condition=Ready", f"node/{AWAY}", "--timeout=120s")


@pytest.mark.fault(Fault.PREEMPTED)
def test_a_drained_node_is_left_as_often_as_preemptions_are_allowed(here: Place) -> None:
    run = saved(here.start("drained", **(LONG | {"training.steps": 100_000, "run.preemptionRetries": 1})))
    [first] = nodes_of(run, 1)
    drain(run, first)
    status, account = closed(run)
    assert ("Preempted", 1) == (account.reason, status.preemptions)
    run.until("a pod", lambda _: bool(nodes_of(run, 2)))
    [second] = nodes_of(run, 2)
    assert first != second
    here.target.run("uncordon", first)
    assert status.checkpoint
    before = status.checkpoint.step
    run.until("a newer state", lambda status: status.checkpoint is not None and status.checkpoint.step > before, LOST_SECONDS)
    drain(run, second)
    here.target.run("uncordon", second)
    status = run.finish(LOST_SECONDS)

    end = succeeded(status)
    assert ("False", "Preempted") == (end.status, end.reason)
    assert "It was taken away 2 times; run.preemptionRetries allows 1." in end.message
    assert 2 == status.preemptions
    assert all(one.wasted_gpu_seconds <= 2 for one in status.attempts), "a drained pod saves, so nothing but its end is lost"


def test_accounts_only_grow(accounts: Callable[[], dict[str, list[list[int]]]]) -> None:
    """Whatever befell the trainings of this file: no figure ever went back, and no more was lost than was spent."""
    said = accounts()

    assert {"lone", "gang", "restarted", "late", "drained"} <= said.keys()
    for name, rows in said.items():
        for number, column in enumerate(ACCOUNT):
            values = [row[number] for row in rows]
            assert values == sorted(values), (name, column)
        assert all(0 <= wasted <= spent for _, _, spent, wasted, _ in rows), name


def drain(run: Run, node: str) -> None:
    """`kubectl drain`, of this training's pods alone."""
    options = ["--ignore-daemonsets", "--delete-emptydir-data", "--force", "--timeout=300s"]
    run.place.target.run("drain", node, f"--pod-selector={RESOURCE}={run.name},{COMPONENT}={TRAINING}", *options)


def until(holds: Callable[[], bool], what: str, seconds: float = 300.0) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s in vain for {what}"
        time.sleep(0.5)
