"""`kubectl apply` to files in the bucket, and everything that may befall a training on its way there."""

import hashlib
import json
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Any

import pytest

from charalora_spec.status import Condition, Status
from cluster_runs import SECONDS, Place, Run, ended, held, results, scheduled
from faults import Fault
from target import OPERATOR_NAMESPACE, Target, TargetError
from trainings import WORD, differences

pytestmark = pytest.mark.alone  # it kills operators, and asserts every state of a training for which there is room

STEPS, SAVE_EVERY = 720, 90
LONG: Mapping[str, Any] = {"training.steps": STEPS, "training.saveEvery": SAVE_EVERY, "training.loss.heldOut": 1, "resources.cpu": "1"}
"""Some twenty seconds of training, so that there is a middle."""

GUIDED = [
    "cfg.yaml",
    "train.log",
    "tblog/events.out.tfevents.*",
    *(
        f"{name.format(step)}"
        for step in range(SAVE_EVERY, STEPS + 1, SAVE_EVERY)
        for name in (
            f"ckpts/{WORD}-{{}}.pt",
            "ckpts/unet-{}.safetensors",
            "ckpts/text_encoder-{}.safetensors",
            "ckpts/lora-{}.safetensors",
            "previews/{}/0-0-*.png",
            "previews/{}/0-0-info.yaml",
        )
    ),
    f"state/step-{STEPS - SAVE_EVERY:06}/manifest.json",
    f"state/step-{STEPS:06}/manifest.json",
    f"civitai/{WORD}.safetensors",
    f"civitai/{WORD}.pt",
    "civitai/README.md",
    "report.html",
    "manifest.json",
]
"""What the design promises for the output prefix."""


@dataclass(frozen=True)
class Finished:
    """A training that nothing has disturbed.

    Attributes:
        run: The resource.
        status: At the end.
        files: The output prefix.
        waited: What `kubectl wait` printed, started before the training.
        watched: What `kubectl get clora --watch` printed, likewise.
    """

    run: Run
    status: Status
    files: Mapping[str, bytes]
    waited: str
    watched: str


@pytest.fixture(scope="module")
def finished(shared_place: Place) -> Finished:
    """From `kubectl apply` to the end, watched as a user does."""
    target, namespace = shared_place.target, shared_place.namespace
    run = shared_place.start("whole", **LONG)
    kubectl = [target.kubectl, f"--kubeconfig={target.kubeconfig}", "-n", namespace]
    wait = [*kubectl, "wait", "clora/whole", "--for=condition=Succeeded", f"--timeout={SECONDS:.0f}s"]
    watch = [*kubectl, "get", "clora", "whole", "--watch"]
    with (
        subprocess.Popen(wait, stdout=subprocess.PIPE, text=True) as waiting,
        subprocess.Popen(watch, stdout=subprocess.PIPE, text=True) as watching,
    ):
        try:
            status = run.finish()
            waited, _ = waiting.communicate(timeout=30)
        finally:
            waiting.terminate()
            watching.terminate()
        watched, _ = watching.communicate()
    assert run.state == "Succeeded", run.story()
    return Finished(run, status, shared_place.output("whole"), waited, watched)


@pytest.fixture
def middle(shared_place: Place, finished: Finished) -> Callable[..., Run]:
    """Starts the same training again under another name, and comes back when its first state is saved."""
    assert finished.files

    def begin(name: str, **fields: Any) -> Run:
        run = shared_place.start(name, **(dict(LONG) | fields))
        status = run.until("a saved state", lambda status: status.checkpoint is not None)
        assert status.completion_time is None, "It was over before anything could happen to it."
        return run

    return begin


def test_everything_that_the_design_promises_is_in_the_bucket(finished: Finished) -> None:
    missing = [pattern for pattern in GUIDED if not any(fnmatch(name, pattern) for name in finished.files)]

    assert [] == missing, sorted(finished.files)


def test_the_artifacts_are_those_of_the_bucket(finished: Finished) -> None:
    artifacts = finished.status.artifacts
    found = {}
    for one in artifacts:
        data = finished.files[one.uri.removeprefix(finished.run.place.uri("output/whole/"))]
        found[one.uri] = (len(data), hashlib.sha256(data).hexdigest())

    assert found == {one.uri: (one.bytes, one.sha256) for one in artifacts}
    assert {"embedding", "unet", "textEncoder", "webui", "report", "manifest"} == {one.kind for one in artifacts}


def test_the_manifest_is_that_of_the_bucket(finished: Finished) -> None:
    listed = {one["path"]: (one["bytes"], one["sha256"]) for one in json.loads(finished.files["manifest.json"])["files"]}
    there = {name: (len(data), hashlib.sha256(data).hexdigest()) for name, data in finished.files.items() if name in listed}

    assert listed == there
    assert {name for name in finished.files if not name.startswith("state/")} == {*listed, "manifest.json"}


def test_every_condition_has_its_last_word(finished: Finished) -> None:
    assert [
        ("DatasetReady", "True", "Checked"),
        ("Admitted", "True", "Admitted"),
        ("Training", "False", "Completed"),
        ("ArtifactsUploaded", "True", "Uploaded"),
        ("Succeeded", "True", "Succeeded"),
    ] == [(one.type, one.status, one.reason) for one in finished.status.conditions]
    assert {1} == {one.observed_generation for one in finished.status.conditions}
    assert "6 pictures of 64 × 64" in finished.run.message(Condition.DATASET_READY)


def test_the_figures_are_those_of_the_training(finished: Finished) -> None:
    status = finished.status
    assert status.progress
    assert status.dataset
    assert status.checkpoint
    assert status.best

    assert (STEPS, STEPS, "100%", None) == (
        status.progress.step,
        status.progress.steps,
        status.progress.percent,
        status.progress.eta_seconds or None,
    )
    assert 0 < float(str(status.progress.loss)) < 5
    assert (6, 64, 64, 1, 64) == (
        status.dataset.images,
        status.dataset.width,
        status.dataset.height,
        status.dataset.buckets,
        len(status.dataset.digest),
    )
    assert (STEPS, finished.run.place.uri(f"output/whole/state/step-{STEPS:06}/")) == (status.checkpoint.step, status.checkpoint.uri)
    assert 0 == status.best.step % SAVE_EVERY
    assert (1, 0, "whole-a1") == (status.attempt, status.preemptions, status.job_name)


def test_gpu_seconds_are_the_time_that_the_pod_held_its_gpu(finished: Finished) -> None:
    status = finished.status
    [pod] = finished.run.trainers()

    assert status.usage
    assert held(pod) == pytest.approx(status.usage.gpu_seconds, abs=1)
    assert 0 == status.usage.wasted_gpu_seconds
    assert [(1, "Succeeded", status.usage.gpu_seconds)] == [(one.attempt, one.reason, one.gpu_seconds) for one in status.attempts]
    assert status.start_time == scheduled(pod)
    assert status.completion_time
    assert 0 <= (status.completion_time - ended(pod)).total_seconds() < 15


def test_the_events_tell_the_story_in_order(finished: Finished) -> None:
    told = [
        line.split()
        for line in finished.run.place.target.run("describe", "clora", "whole", "-n", finished.run.place.namespace).splitlines()
    ]
    reasons = [words[1] for words in told if words[:1] in (["Normal"], ["Warning"])]

    first_seen = list(dict.fromkeys(reasons))

    assert ["Checking", "Checked", "Pending", "Admitted", "Running", "Completed", "Uploaded", "Succeeded"] == first_seen
    assert 1 == reasons.count("Succeeded")


def test_kubectl_wait_returns_at_success(finished: Finished) -> None:
    assert "characterlora.charalora.dev/whole condition met\n" == finished.waited


def test_kubectl_get_shows_it_moving(finished: Finished) -> None:
    header, *lines = finished.watched.splitlines()
    rows = [line.split() for line in lines]

    assert ["NAME", "STATE", "PROGRESS", "LOSS", "ETA", "GPUS", "ATTEMPT", "AGE"] == header.split()
    states = list(dict.fromkeys(cells[1] for cells in rows if len(cells) > 3))
    assert ["Checking", "Pending", "Running", "Succeeded"] == states
    percents = [int(cells[2].removesuffix("%")) for cells in rows if len(cells) > 2 and cells[2].endswith("%")]
    assert percents == sorted(percents)
    assert 3 < len(set(percents))
    assert 100 == percents[-1]
    assert "1" == rows[-1][-2]


def test_the_wide_columns_say_the_rest(finished: Finished) -> None:
    place = finished.run.place
    header, row = place.target.run("get", "clora", "whole", "-n", place.namespace, "-o", "wide").splitlines()

    assert ["IMAGES", "QUEUE", "ARTIFACTS", "MESSAGE"] == header.split()[-4:]
    assert place.uri("output/whole/") in row
    assert row.rstrip().endswith(finished.run.message())


def test_the_same_file_again_changes_nothing(finished: Finished) -> None:
    place = finished.run.place
    before = [stood(place, kind) for kind in ("clora", "jobs", "configmaps")]

    place.start("whole", **LONG)
    time.sleep(3)

    assert before == [stood(place, kind) for kind in ("clora", "jobs", "configmaps")]


def test_a_pause_gives_the_gpus_back_and_the_rest_is_trained_as_if_it_had_not_been(middle: Callable[..., Run], finished: Finished) -> None:
    run = middle("paused")
    run.patch({"spec": {"run": {"suspend": True}}})
    paused = run.until("the pods' end", lambda status: bool(status.attempts) and status.attempts[-1].end_time is not None)

    assert run.state == "Suspended"
    assert [] == [pod for pod in run.trainers() if pod["status"]["phase"] in {"Pending", "Running"}]
    assert paused.checkpoint
    assert 0 < paused.checkpoint.step < STEPS
    assert [(1, "Suspended", 0)] == [(one.attempt, one.reason, one.wasted_gpu_seconds) for one in paused.attempts]
    time.sleep(5)
    assert paused.usage == run.status.usage
    run.patch({"spec": {"run": {"suspend": False}}})
    succeeded(run, attempts=2)

    assert f"Going on after step {paused.checkpoint.step}" in run.log(2)
    assert [] == differences(results(finished.files, STEPS), results(run.place.output("paused"), STEPS))


@pytest.mark.fault(Fault.DELETED_BY_HAND)
def test_a_pod_and_a_job_deleted_by_hand_are_followed_by_attempts_that_go_on(middle: Callable[..., Run], finished: Finished) -> None:
    run = middle("deleted")
    [pod] = run.trainers()
    run.place.target.run("delete", "pod", pod["metadata"]["name"], "-n", run.place.namespace, "--wait=false")
    second = run.until("the second attempt's first step", moved(run, 2))
    assert second.checkpoint
    assert [(1, "Interrupted")] == [(one.attempt, one.reason) for one in second.attempts[:1]]

    run.place.target.run("delete", "job", "deleted-a2", "-n", run.place.namespace, "--wait=false")
    succeeded(run, attempts=3)

    assert 2 == run.status.preemptions
    assert "Going on after step" in run.log(3)
    assert [] == differences(results(finished.files, STEPS), results(run.place.output("deleted"), STEPS))


@pytest.mark.fault(Fault.OPERATOR_KILLED)
def test_operators_killed_in_mid_run_lose_nothing_and_do_nothing_twice(
    middle: Callable[..., Run], finished: Finished, target: Target
) -> None:
    run = middle("unwatched")
    job = [one["metadata"]["uid"] for one in run.owned("jobs") if one["metadata"]["name"] == "unwatched-a1"]
    target.run("delete", "pods", "-n", OPERATOR_NAMESPACE, "-l", "app.kubernetes.io/component=operator", "--grace-period=0", "--force")
    succeeded(run, attempts=1)

    assert job == [one["metadata"]["uid"] for one in run.owned("jobs") if one["metadata"]["name"] == "unwatched-a1"]
    assert 2 == len(run.owned("jobs"))
    assert 1 == len(run.trainers())
    assert run.status.artifacts
    assert run.status.usage
    assert held(run.trainers()[0]) == pytest.approx(run.status.usage.gpu_seconds, abs=1)
    assert [] == differences(results(finished.files, STEPS), results(run.place.output("unwatched"), STEPS))


def test_a_deadline_ends_it_with_everything_saved(middle: Callable[..., Run]) -> None:
    run = middle("late", **{"training.steps": 100_000, "run.deadlineSeconds": 60})
    status = run.finish()

    assert ("False", "DeadlineExceeded") == next((one.status, one.reason) for one in status.conditions if one.type == "Succeeded")
    assert "run.deadlineSeconds" in run.message()
    assert status.completion_time
    assert status.start_time
    assert 50 <= (status.completion_time - status.start_time).total_seconds() < 120
    assert status.checkpoint
    assert [f"state/step-{status.checkpoint.step:06}/manifest.json"] == sorted(
        name for name in run.place.output("late") if fnmatch(name, "state/step-*/manifest.json")
    )[-1:]
    assert 1 == len([job for job in run.owned("jobs") if job["metadata"]["name"].startswith("late-a")])


@pytest.mark.fault(Fault.RESOURCE_DELETED)
def test_a_deleted_resource_leaves_nothing_in_the_cluster_and_everything_in_the_bucket(
    fresh_place: Callable[[], AbstractContextManager[Place]],
) -> None:
    with fresh_place() as place:
        before = everything(place)
        run = place.start("gone", **(dict(LONG) | {"training.steps": 100_000}))
        run.until("a saved state", lambda status: status.checkpoint is not None)

        place.target.run("delete", "clora", "gone", "-n", place.namespace)

        until_true(lambda: everything(place) == before, f"what is left: {everything(place)}")
        assert any(fnmatch(name, "state/step-*/manifest.json") for name in place.output("gone"))


def test_a_finished_resource_goes_when_its_time_has_come_and_its_files_stay(shared_place: Place) -> None:
    run = shared_place.start("brief", **{"resources.cpu": "1", "run.ttlSecondsAfterFinished": 5})
    run.until_state("Succeeded")

    def is_gone() -> bool:
        try:
            return not run.status
        except TargetError as error:
            return "not found" in str(error)

    until_true(is_gone, "the resource is still there")
    until_true(lambda: not run.owned("jobs") and not run.owned("pods") and not run.owned("configmaps"), "its Jobs are still there")
    assert "manifest.json" in shared_place.output("brief")


def moved(run: Run, attempt: int) -> Callable[[Status], bool]:
    """Whether an attempt has made steps beyond what the one before it had saved."""

    def holds(status: Status) -> bool:
        return status.attempt == attempt and f"Attempt {attempt} runs, stage train" in run.message(Condition.TRAINING)

    return holds


def succeeded(run: Run, attempts: int) -> None:
    """Wait for success, in so many attempts."""
    status = run.finish()
    assert run.state == "Succeeded", run.story()
    assert attempts == status.attempt, run.story()


def stood(place: Place, kind: str) -> dict[str, str]:
    """Objects of a kind, and the version that each is in."""
    return {one["metadata"]["name"]: one["metadata"]["resourceVersion"] for one in place.target.get(kind, "-n", place.namespace)["items"]}


def everything(place: Place) -> set[str]:
    """Every object of the namespace, but for events."""
    kinds = place.target.run("api-resources", "--verbs=list", "--namespaced", "-o", "name").split()
    wanted = ",".join(kind for kind in kinds if not kind.startswith("events"))
    return set(place.target.run("get", wanted, "-n", place.namespace, "-o", "name", "--ignore-not-found").split())


def until_true(holds: Callable[[], bool], what: str, seconds: float = 90) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.5)
