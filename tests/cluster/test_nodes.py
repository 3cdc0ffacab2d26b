"""The same training on one GPU, on two of one node and on one each of two nodes; and what becomes of a gang that loses a member."""

import signal
import time
from collections.abc import Callable, Mapping
from statistics import fmean
from typing import Any

import pytest

from charalora_operator.names import ATTEMPT, COMPONENT, TRAINING
from charalora_spec.status import Condition, Status
from charalora_trainer import history
from cluster_runs import SECONDS, Place, Run, held, results
from faults import Fault
from reasons import signal_workers
from trainings import WORD, differences, tensors_of

STEPS, SAVE_EVERY = 160, 20
TOLERANCE = 1e-4
"""Relative to the length of a tensor, and to a loss: sums of two halves are rounded in another order than sums of four quarters.

Measured on two nodes: 2.6e-6 in the LoRA, 3.7e-7 in the word.
"""

SHAPES = {"alone": (1, 1), "one-node": (2, 1), "two-nodes": (1, 2)}
"""GPUs of each node, and nodes. Whatever it is, a step sees four pictures."""

SLOW = {"resources.cpu": "250m"}
"""What a gang may use that must still train when its saved state is seen here: status follows a training by up to ten seconds."""


@pytest.fixture(scope="module")
def two_nodes(shared_place: Place) -> Run:
    """One GPU of each of two nodes, to the end."""
    return finished(start(shared_place, "two-nodes"))


@pytest.fixture(scope="module")
def trained(shared_place: Place, two_nodes: Run) -> Mapping[str, Run]:
    """Each shape to its end, one after the other."""
    return {name: two_nodes if name == two_nodes.name else finished(start(shared_place, name)) for name in SHAPES}


def finished(run: Run) -> Run:
    """Wait for success."""
    run.finish()
    assert run.state == "Succeeded", run.story()
    return run


def start(place: Place, shape: str, name: str = "", **more: Any) -> Run:
    """Four pictures a step."""
    gpus, nodes = SHAPES[shape]
    fields: dict[str, Any] = {
        "training.steps": STEPS,
        "training.saveEvery": SAVE_EVERY,
        "training.batchSize": 4 // (gpus * nodes),
        "training.loss.heldOut": 1,
        "resources.gpus": gpus,
        "resources.nodes": nodes,
        "resources.cpu": "1" if nodes == 1 else "800m",
        **more,
    }
    return place.start(name or shape, **fields)


@pytest.mark.parametrize("shape", ["one-node", "two-nodes"])
def test_the_same_seed_gives_the_same_files_however_many_processes_share_a_step(trained: Mapping[str, Run], shape: str) -> None:
    expected, found = (trained[name].place.output(name) for name in ("alone", shape))

    for step in range(SAVE_EVERY, STEPS + 1, SAVE_EVERY):
        for name in (f"ckpts/lora-{step}.safetensors", f"ckpts/{WORD}-{step}.pt"):
            first, second = (tensors_of(name, files[name]) for files in (expected, found))
            assert first.keys() == second.keys()
            distances = {
                key: float((first[key].double() - second[key].double()).norm() / first[key].double().norm().clamp_min(1e-12))
                for key in first
            }
            assert max(distances.values()) <= TOLERANCE, (name, max(distances.values()))
    curves = [history.parse(files["history.jsonl"].decode()) for files in (expected, found)]
    for curve in ("losses", "held_out"):
        wanted, seen = (getattr(one, curve) for one in curves)
        assert wanted
        assert [step for step, _ in wanted] == [step for step, _ in seen]
        assert [loss for _, loss in wanted] == pytest.approx([loss for _, loss in seen], rel=TOLERANCE)
    assert expected.keys() - seldom(expected) == found.keys() - seldom(found)


def seldom(files: Mapping[str, bytes]) -> set[str]:
    """Files whose names have a time in them."""
    return {name for name in files if name.startswith("tblog/")}


def test_the_pods_are_where_they_were_asked_for(trained: Mapping[str, Run]) -> None:
    """Two nodes are two machines; each process of one node has its own GPU of that pod."""
    places = {"alone": "1 GPU on node-", "one-node": "2 GPUs on node-", "two-nodes": "2 GPUs on node-a, node-b"}

    for name, (gpus, nodes) in SHAPES.items():
        run = trained[name]
        assert f"Attempt 1 has {places[name]}" in run.message(Condition.ADMITTED), run.story()
        [job] = [job for job in run.owned("jobs") if job["metadata"]["labels"][COMPONENT] == TRAINING]
        assert nodes == job["spec"]["completions"] == job["spec"]["parallelism"]
        pods = run.trainers()
        # The Job is done with its first pod; the cluster takes away one that ends after that.
        assert 1 <= len(pods) <= nodes, run.story()
        assert {str(gpus)} == {pod["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] for pod in pods}


def test_all_gpus_of_all_nodes_are_accounted_for(trained: Mapping[str, Run]) -> None:
    for name, (gpus, nodes) in SHAPES.items():
        usage, pods = trained[name].status.usage, trained[name].trainers()
        assert usage
        each = fmean(held(pod) for pod in pods)  # one may be taken away; it began and ended with the others
        assert gpus * nodes * each == pytest.approx(usage.gpu_seconds, abs=2 * gpus)


@pytest.mark.fault(Fault.GANG_MEMBER_LOST)
def test_a_gang_that_loses_a_member_starts_again_as_a_whole_and_goes_on(shared_place: Place, two_nodes: Run) -> None:
    """A pod is forced away, then a process is killed in its container: each time all pods are new, and none of before runs beside them."""
    run = start(shared_place, "two-nodes", "gang", **SLOW)
    run.until("a saved state", saved_in(1), SECONDS)
    [lost] = [
        pod["metadata"]["name"] for pod in run.trainers() if pod["metadata"]["labels"]["batch.kubernetes.io/job-completion-index"] == "1"
    ]
    shared_place.target.run("delete", "pod", lost, "-n", shared_place.namespace, "--grace-period=0", "--force")
    second = the_next(run, 2)
    run.until("another saved state", saved_in(2), SECONDS)
    signal_workers(run, signal.SIGKILL)
    third = the_next(run, 3)
    run.finish(SECONDS)

    assert run.state == "Succeeded", run.story()
    assert not second & third
    assert 3 == run.status.attempt
    assert run.status.usage
    assert "Going on after step" in run.log(3)
    expected, found = (results(one.place.output(one.name), STEPS) for one in (two_nodes, run))
    assert [] == differences(expected, found)


def saved_in(attempt: int) -> Callable[[Status], bool]:
    """Whether an attempt runs and has saved something itself."""
    return lambda status: (
        status.attempt == attempt
        and status.checkpoint is not None
        and bool(status.attempts)
        and status.attempts[-1].start_time is not None
        and status.attempts[-1].attempt == attempt
        and status.checkpoint.time > status.attempts[-1].start_time
    )


def the_next(run: Run, attempt: int, within: float = 300) -> set[str]:
    """The uids of an attempt's two pods, once both run; until then, none of them is there while one of another attempt runs."""
    deadline = time.monotonic() + within
    while True:
        pods = run.trainers()
        new = [pod for pod in pods if pod["metadata"]["labels"][ATTEMPT] == str(attempt)]
        old = [pod["metadata"]["name"] for pod in pods if pod not in new and pod["status"]["phase"] in {"Pending", "Running"}]
        assert not (new and old), f"{old} beside attempt {attempt}"
        if 2 == len(new) and all(pod["status"]["phase"] == "Running" for pod in new):
            return {pod["metadata"]["uid"] for pod in new}
        assert time.monotonic() < deadline, run.story()
        time.sleep(0.5)
