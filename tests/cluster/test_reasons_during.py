"""Every reason for which an attempt ends, from a real cause on the real cluster: what was saved, what is tried again, and how often.

The resources are made all at once: most of each one's time is waiting. Two reasons cannot be had here; `NOT_HERE` says why.
"""

import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from charalora_operator import names
from charalora_spec.outcome import Outcome
from charalora_spec.status import AttemptStatus, Status
from cluster_runs import Place, Run
from faults import Fault
from reasons import Cause, ended, exit_codes, log, own_operator, signal_workers, start_all, trainer, until_said, until_step
from target import Target
from trainings import pictures

LONG = {"training.steps": 100_000, "training.saveEvery": 50_000}
"""It runs until somebody ends it."""
PAIR = {"resources.gpus": 2, "training.batchSize": 1, "resources.cpu": "400m"}
"""Two processes, so that one of them can be met alone."""
UNREACHABLE_SECONDS = 700.0
"""Four files at a time are tried for a minute each, and at the end all of them once more."""
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
        LONG | PAIR | {"run.retries": 1},
    ),
    "deleted": Cause(
        Outcome.INTERRUPTED,
        ("Stopped on request after step", "state saved", "It was taken away 2 times; run.preemptionRetries allows 1."),
        LONG | {"run.preemptionRetries": 1},
    ),
    "preempted": Cause(
        Outcome.PREEMPTED,
        (
            "The cluster took pod preempted-a2-0-",
            "away (EvictionByEvictionAPI): ",
            ". It was taken away 2 times; run.preemptionRetries allows 1.",
        ),
        LONG | {"run.preemptionRetries": 1, "resources.gpuResource": "test.charalora.dev/gpu"},
    ),
    "late": Cause(Outcome.DEADLINE_EXCEEDED, ("The training took longer than run.deadlineSeconds.",), LONG),
    "cut-off": Cause(
        Outcome.STORAGE_UNREACHABLE,
        ("refuses the connection; check storage.endpoint", "It failed 1 times; run.retries allows 0 more"),
        {
            "storage.secretName": "door",
            "training.steps": 400,
            "training.saveEvery": 400,
            "preview.prompts": ["{surtr_arknights}"],  # few files, for each is tried for a minute
            "run.suspend": True,
            "run.retries": 0,
        },
    ),
    "locked-out": Cause(
        Outcome.STORAGE_ACCESS_DENIED,
        ("refuses writing s3://{place}/output/locked-out/", "the credentials may not do this"),
        {"storage.secretName": "changing", "run.suspend": True},
    ),
    "full": Cause(Outcome.DISK_FULL, ("No space left on device",), {"storage.secretName": "vanishing", "run.suspend": True}),
}


@pytest.fixture(scope="module")
def runs(shared_place: Place) -> Iterator[Mapping[str, Run]]:
    """Every resource of the table, under way."""
    place, target = shared_place, shared_place.target
    address = target.endpoint_in_pods.replace("https://", "").replace("http://", "")
    host, _, port = address.partition(":")
    keys = {"changing": target.endpoint_in_pods, "vanishing": target.endpoint_in_pods, "door": f"http://door.{place.namespace}.svc:{port}"}
    target.apply(*(credentials(place, name, endpoint) for name, endpoint in keys.items()), *door(place, host, port))
    with offered(target, "test.charalora.dev/gpu"):
        yield start_all(place, CAUSES, pictures())


def credentials(place: Place, name: str, endpoint: str = "", access_key: str = "", secret_key: str = "") -> dict[str, Any]:
    """A Secret for the storage; what is not named is the owner's."""
    target = place.target
    entries = {
        "AWS_ACCESS_KEY_ID": access_key or target.access_key,
        "AWS_SECRET_ACCESS_KEY": secret_key or target.secret_key,
        "AWS_ENDPOINT_URL": endpoint or target.endpoint_in_pods,
    }
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": place.namespace}, "stringData": entries}


def door(place: Place, host: str, port: str) -> list[dict[str, Any]]:
    """A Service that hands every byte on to the storage, as long as its pod is there."""
    script = f"""
import asyncio
async def copy(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()
async def serve(reader, writer):
    there, back = await asyncio.open_connection({host!r}, {port})
    await asyncio.gather(copy(reader, back), copy(there, writer))
async def main():
    server = await asyncio.start_server(serve, "", {port})
    await server.serve_forever()
asyncio.run(main())
"""
    service = {"selector": {"app": "door"}, "ports": [{"port": int(port)}]}
    metadata = {"name": "door", "namespace": place.namespace}
    return [
        {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": service},
        pod(place, "door", ["python", "-c", script]),
    ]


def pod(place: Place, name: str, command: list[str], **spec: Any) -> dict[str, Any]:
    """A pod of the test's own, as the restricted standard wants it."""
    container = {
        "name": "main",
        "image": place.target.images["preflight"],
        "command": command,
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "resources": spec.pop("resources", {}),
    }
    security = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    metadata = {"name": name, "namespace": place.namespace, "labels": {"app": name}}
    body = {"terminationGracePeriodSeconds": 0, "containers": [container], "securityContext": security, **spec}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": body}


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


def until_attempt(run: Run, number: int, reason: Outcome) -> AttemptStatus:
    """Wait until an attempt has ended for a reason, and the next one has begun."""

    def went_on(status: Status) -> bool:
        return status.attempt == number + 1 and any(one.attempt == number and one.reason == reason.reason for one in status.attempts)

    status = run.until(f"attempt {number + 1} after {reason.reason}", went_on)
    return next(one for one in status.attempts if one.attempt == number)


def over(run: Run, codes: set[int], *, attempts: list[Outcome]) -> Status:
    """Assert how a training that is over has got there, and take it away, so that nothing of it runs on."""
    status = run.status
    assert [outcome.reason for outcome in attempts] == [attempt.reason for attempt in status.attempts]
    assert codes <= set(exit_codes(run))
    assert status.usage is not None
    assert status.usage.gpu_seconds == sum(attempt.gpu_seconds for attempt in status.attempts) > 0
    run.place.target.run("delete", "clora", run.name, "-n", run.place.namespace, "--wait=false")
    return status


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
    until_step(run, 5)

    run.patch({"spec": {"run": {"deadlineSeconds": 60}}})

    status = ended(run, CAUSES["late"])

    assert status.checkpoint is not None
    assert status.checkpoint.step > 0
    over(run, set(), attempts=[Outcome.DEADLINE_EXCEEDED])


@pytest.mark.fault(Fault.STORAGE_GONE)
def test_a_storage_that_goes_away_in_mid_run(runs: Mapping[str, Run]) -> None:
    """The training goes on to its end and cannot bring its files away; when the way is open again, one more attempt does."""
    run, target, place = runs["cut-off"], runs["cut-off"].place.target, runs["cut-off"].place
    run.patch({"spec": {"run": {"suspend": False}}})
    until_step(run, 1)
    target.run("delete", "pod", "door", "-n", place.namespace, "--grace-period=0", "--force")

    ended(run, CAUSES["cut-off"], UNREACHABLE_SECONDS)

    assert "charalora: StorageUnreachable: " in log(run, names.TRAINING)
    assert {69} <= set(exit_codes(run))
    host, _, port = target.endpoint_in_pods.replace("http://", "").partition(":")
    target.apply(*door(place, host, port))
    run.patch({"spec": {"run": {"retries": 1}}})
    run.until_state(Outcome.SUCCEEDED.reason)
    over(run, {0, 69}, attempts=[Outcome.STORAGE_UNREACHABLE, Outcome.SUCCEEDED])


@pytest.mark.fault(Fault.SECRET_MISSING)
def test_keys_that_lose_their_rights_after_the_check(runs: Mapping[str, Run], cluster: Any) -> None:
    """Wrong keys stay wrong: one attempt."""
    run, place, s3 = runs["locked-out"], runs["locked-out"].place, cluster.facts["s3"]
    run.until_state(Outcome.SUSPENDED.reason)
    place.target.apply(credentials(place, "changing", access_key=s3["readerAccessKey"], secret_key=s3["readerSecretKey"]))
    run.patch({"spec": {"run": {"suspend": False}}})

    ended(run, CAUSES["locked-out"])

    assert "charalora: StorageAccessDenied: " in log(run, names.TRAINING)
    over(run, {70}, attempts=[Outcome.STORAGE_ACCESS_DENIED])


def test_a_full_disk_is_left_behind_by_the_next_attempt(runs: Mapping[str, Run], cluster: Any) -> None:
    """The working folder of the first one is a disk of its own with no room for a base model, put there while it waits for its Secret."""
    run, place = runs["full"], runs["full"].place
    run.until_state(Outcome.SUSPENDED.reason)
    place.target.run("delete", "secret", "vanishing", "-n", place.namespace)
    run.patch({"spec": {"run": {"suspend": False}}})
    until_said(
        run, Cause(Outcome.SECRET_MISSING, ("Pod full-a1-0", "lacks something and starts as soon as it is there", '"vanishing" not found'))
    )
    waiting = next(pod for pod in run.owned("pods") if "-a1-" in pod["metadata"]["name"])

    put_on_a_tiny_disk(cluster, waiting)
    place.target.apply(credentials(place, "vanishing"))

    until_attempt(run, 1, Outcome.DISK_FULL)
    run.until_state(Outcome.SUCCEEDED.reason)
    assert "charalora: DiskFull: " in log(run, names.TRAINING)
    over(run, {0, 79}, attempts=[Outcome.DISK_FULL, Outcome.SUCCEEDED])


def put_on_a_tiny_disk(cluster: Any, pod: Mapping[str, Any]) -> None:
    """A pod's working folder on a disk of 256 KiB, before its container starts; the kubelet takes it away with the pod."""
    root = Path(cluster.facts["logs"]) / pod["spec"]["nodeName"] / "kubelet"
    folder = root / "pods" / pod["metadata"]["uid"] / "volumes/kubernetes.io~empty-dir/work"
    kubelet = subprocess.run(["pgrep", "--full", "--", f"--root-dir={root} "], check=True, capture_output=True, text=True).stdout.split()[0]
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k,mode=0770,uid=65532,gid=65532", "tmpfs", folder]
    subprocess.run(["nsenter", "--target", kubelet, "--mount", *mount], check=True, capture_output=True)


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
    texts = Path(__file__).read_text().partition("NOT_HERE = ")[0] + Path(__file__).with_name("test_reasons_before.py").read_text()

    assert [] == [outcome.name for outcome in Outcome if f"Outcome.{outcome.name}" not in texts and outcome not in NOT_HERE]
