"""Reasons for which an attempt ends, from real causes on the real cluster: what was saved, what is tried again, and how often.

The resources are made all at once: most of each one's time is waiting. What would train until somebody ends it is paused until its test
comes, because it would take the cores of the others. Two reasons cannot be had here; `NOT_HERE` says why.
"""

import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from charalora_operator import names
from charalora_spec.outcome import Outcome
from cluster_runs import Place, Run
from faults import Fault
from reasons import (
    PAUSED,
    Cause,
    ended,
    go_on,
    log,
    over,
    own_operator,
    pod,
    signal_workers,
    start_all,
    trainer,
    until_attempt,
    until_said,
    until_step,
)
from target import Target
from trainings import pictures

LONG = {"training.steps": 100_000, "training.saveEvery": 50_000, "resources.cpu": "500m"}
"""It runs until somebody ends it."""
PAIR = {"resources.gpus": 2, "training.batchSize": 1, "resources.cpu": "1"}
"""Two processes, so that one of them can be met alone."""
RATES = {"unet": "1", "textEncoder": "1", "embedding": "1", "warmupSteps": 0}

CAUSES = {
    "diverged": Cause(
        Outcome.LOSS_DIVERGED,
        ("The loss was not finite in ", "lower training.learningRate or use bf16 or fp32"),
        {
            "training.precision": "fp16",
            "training.steps": 60,
            "training.saveEvery": 60,
            "training.learningRate": RATES,
            "training.lora.alpha": 1024.0,
        },
    ),
    "memory": Cause(
        Outcome.HOST_OUT_OF_MEMORY,
        ("raise resources.memory, or lower training.batchSize",),
        {"resources.memory": "300Mi", "resources.sharedMemory": "16Mi"},
    ),
    "memory-of-two": Cause(Outcome.HOST_OUT_OF_MEMORY, ("memory",), PAIR | {"resources.memory": "500Mi", "resources.sharedMemory": "16Mi"}),
    "killed": Cause(
        Outcome.INTERNAL_ERROR,
        ("A training process was killed", "It failed 2 times; run.retries allows 1 more"),
        LONG | PAIR | PAUSED | {"run.retries": 1},
    ),
    "deleted": Cause(
        Outcome.INTERRUPTED,
        ("Stopped on request after step", "state saved", "It was taken away 2 times; run.preemptionRetries allows 1."),
        LONG | PAUSED | {"run.preemptionRetries": 1},
    ),
    "preempted": Cause(
        Outcome.PREEMPTED,
        (
            "The cluster took pod preempted-a2-0-",
            "away (EvictionByEvictionAPI): ",
            ". It was taken away 2 times; run.preemptionRetries allows 1.",
        ),
        LONG | PAUSED | {"run.preemptionRetries": 1, "resources.gpuResource": "test.charalora.dev/gpu"},
    ),
    "late": Cause(Outcome.DEADLINE_EXCEEDED, ("The training took longer than run.deadlineSeconds.",), LONG | PAUSED),
}


@pytest.fixture(scope="module")
def runs(shared_place: Place) -> Iterator[Mapping[str, Run]]:
    """Every resource of the table, under way or paused."""
    with offered(shared_place.target, "test.charalora.dev/gpu"):
        yield start_all(shared_place, CAUSES, pictures())


@contextmanager
def offered(target: Target, resource: str) -> Iterator[None]:
    """One of the nodes offers one piece of a resource that no other test asks for."""
    node = target.get("nodes")["items"][0]["metadata"]["name"]

    def patch(content: str) -> None:
        target.run("patch", "node", node, "--subresource=status", "--type=json", "-p", content)

    path = "/status/capacity/" + resource.replace("/", "~1")
    patch(f'[{{"op": "add", "path": "{path}", "value": "1"}}]')
    yield
    patch(f'[{{"op": "remove", "path": "{path}"}}]')


def test_a_loss_that_diverges_ends_it_for_good(runs: Mapping[str, Run]) -> None:
    run = runs["diverged"]

    ended(run, CAUSES["diverged"])

    assert "charalora: LossDiverged: " in log(run, names.TRAINING)
    assert not {"manifest.json", "report.html"} & set(run.place.output("diverged"))
    over(run, {72}, attempts=[Outcome.LOSS_DIVERGED])


@pytest.mark.fault(Fault.PROCESS_KILLED)
@pytest.mark.parametrize("name", ["memory", "memory-of-two"])
def test_too_little_memory_ends_it_for_good(runs: Mapping[str, Run], name: str) -> None:
    """The kernel kills the first process, or one that it started: both are told as what they are."""
    run = runs[name]

    ended(run, CAUSES[name])

    found = [
        pod["status"]["containerStatuses"][0]["state"]["terminated"]["reason"]
        for pod in run.owned("pods")
        if "-a1-" in pod["metadata"]["name"]
    ]
    assert ["OOMKilled"] == found
    over(run, set(), attempts=[Outcome.HOST_OUT_OF_MEMORY])


@pytest.mark.fault(Fault.PROCESS_KILLED)
def test_a_killed_process_is_tried_again_as_often_as_failures_are_allowed(runs: Mapping[str, Run]) -> None:
    """SIGKILL for one of two processes."""
    run = runs["killed"]
    go_on(run)
    until_step(run, 1)
    signal_workers(run, signal.SIGKILL)
    until_attempt(run, 1, Outcome.INTERNAL_ERROR)
    trainer(run)
    until_step(run, 1)
    run.until("the second attempt's first step", lambda _: "train " in log_of(run, "a2"))
    signal_workers(run, signal.SIGKILL)

    ended(run, CAUSES["killed"])

    assert "charalora: InternalError: " in log(run, names.TRAINING)
    over(run, {1}, attempts=[Outcome.INTERNAL_ERROR] * 2)


def log_of(run: Run, attempt: str) -> str:
    """What an attempt's pod has printed so far."""
    pod = next(pod["metadata"]["name"] for pod in run.owned("pods") if f"-{attempt}-" in pod["metadata"]["name"])
    return run.place.target.run("logs", "-n", run.place.namespace, pod)


@pytest.mark.fault(Fault.DELETED_BY_HAND)
def test_a_deleted_pod_saves_and_the_next_attempt_resumes(runs: Mapping[str, Run]) -> None:
    """As often as preemptions are allowed; no failure is counted."""
    run, target = runs["deleted"], runs["deleted"].place.target
    go_on(run)
    until_step(run, 5)
    target.run("delete", "pod", "-n", run.place.namespace, trainer(run)["metadata"]["name"], "--wait=false")
    until_attempt(run, 1, Outcome.INTERRUPTED)
    saved = run.status.checkpoint
    assert saved is not None
    assert saved.step >= 5
    until_step(run, saved.step + 1)
    target.run("delete", "pod", "-n", run.place.namespace, trainer(run)["metadata"]["name"], "--wait=false")

    status = ended(run, CAUSES["deleted"])

    assert status.checkpoint is not None
    assert status.checkpoint.step > saved.step
    assert 2 == status.preemptions
    over(run, set(), attempts=[Outcome.INTERRUPTED] * 2)


@pytest.mark.fault(Fault.PREEMPTED)
def test_preemption_and_eviction_are_told_from_failures(runs: Mapping[str, Run]) -> None:
    """A pod of higher priority takes the GPUs, then gives them back; then an administrator evicts the training."""
    run, place, target = runs["preempted"], runs["preempted"].place, runs["preempted"].place.target
    priority = {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": place.namespace}, "value": 1000}
    go_on(run)
    until_step(run, 5)
    wanted = {"limits": {"test.charalora.dev/gpu": "1"}}
    urgent = pod(place, "urgent", ["sleep", "3600"], priorityClassName=place.namespace, resources=wanted)
    target.apply(priority, urgent)
    try:
        first = until_attempt(run, 1, Outcome.PREEMPTED)
        until_said(run, Cause(Outcome.UNSCHEDULABLE, ("No node has room for pod preempted-a2-0", "Insufficient test.charalora.dev/gpu")))
        assert first.gpu_seconds > 0
    finally:
        target.run("delete", "pod", "urgent", "-n", place.namespace, "--wait=false")
        target.run("delete", "priorityclass", place.namespace)
    saved = run.status.checkpoint
    assert saved is not None
    until_step(run, saved.step + 1)
    target.evict(place.namespace, trainer(run)["metadata"]["name"])

    ended(run, CAUSES["preempted"])

    over(run, set(), attempts=[Outcome.PREEMPTED] * 2)


def test_a_deadline_ends_it_with_what_was_learned_saved(runs: Mapping[str, Run]) -> None:
    """Here one that is given when it is nearly over."""
    run = runs["late"]
    go_on(run)
    until_step(run, 5)

    run.patch({"spec": {"run": {"deadlineSeconds": 60}}})

    status = ended(run, CAUSES["late"])

    assert status.checkpoint is not None
    assert status.checkpoint.step > 0
    over(run, set(), attempts=[Outcome.DEADLINE_EXCEEDED])


@pytest.mark.fault(Fault.TRAINING_HANGS)
def test_a_training_that_stands_still_is_begun_again(fresh_place: Callable[[], AbstractContextManager[Place]]) -> None:
    """Its processes are stopped as a hanging GPU would stop them; the operator's patience is the shortest that it may have."""
    with fresh_place() as place, own_operator(place, "settings.stallSeconds=60", "settings.gracePeriodSeconds=10"):
        run = place.start("still", **(LONG | PAIR | {"run.retries": 1}))
        until_step(run, 1)
        signal_workers(run, signal.SIGSTOP)
        began = time.monotonic()

        first = until_attempt(run, 1, Outcome.STALLED)

        assert time.monotonic() - began > 50
        assert first.wasted_gpu_seconds == first.gpu_seconds > 0
        trainer(run)


NOT_HERE = {
    Outcome.CUDA_OUT_OF_MEMORY: "needs a GPU; tests/unit/test_worker.py and test_operator_plan.py have its error, exit code and condition",
    Outcome.EXPORT_INVALID: "needs files that change between writing and reading; tests/trainer has it with a storage that damages them",
}
"""Reasons without a real cause on this cluster, and where their way is tested."""


def test_no_reason_is_forgotten() -> None:
    """Each has a test with a real cause in a file of this folder, or its excuse above."""
    files = Path(__file__).parent.glob("test_reasons_*.py")
    texts = "".join(file.read_text().partition("NOT_HERE = ")[0] for file in files)

    assert [] == [outcome.name for outcome in Outcome if f"Outcome.{outcome.name}" not in texts and outcome not in NOT_HERE]
