"""Every reason that is found before a GPU is given, from a real cause on the real cluster; what is repaired goes on by itself.

The resources are made all at once: most of each one's time is waiting.
"""

import json
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save

from charalora_operator import names
from charalora_spec.outcome import Outcome
from charalora_spec.status import Condition
from cluster_runs import Place, Run
from faults import Fault
from reasons import (
    Cause,
    Files,
    ended,
    exit_codes,
    log,
    no_gpu_was_asked_for,
    no_gpu_was_given,
    own_operator,
    refused_by_check,
    start_all,
    until_said,
    watching,
)
from trainings import picture, pictures

UNET = "unet/diffusion_pytorch_model.safetensors"
UNREACHABLE_SECONDS = 700.0
"""A check asks a silent storage for a minute, four times, with pauses of 10, 20 and 40 seconds; machines are shared."""


def without(name: str) -> Callable[[Files], Files]:
    return lambda files: {key: data for key, data in files.items() if key != name}


def with_file(name: str, data: bytes) -> Callable[[Files], Files]:
    return lambda files: files | {name: data}


REFUSED_AT_ONCE = {
    "account": Cause(
        Outcome.SPEC_INVALID,
        ("scheduling.serviceAccountName: somebody is not allowed here; leave it out, or use one of: default.",),
        {"scheduling.serviceAccountName": "somebody"},
    ),
    "node-cache": Cause(
        Outcome.SPEC_INVALID, ("cache.node: this cluster's nodes have no such folder", "use cache.claimName"), {"cache.node": True}
    ),
    "folder": Cause(
        Outcome.SPEC_INVALID,
        ("dataset.uri: a cluster's pods cannot reach a file:// folder; use s3://bucket/prefix/.",),
        {"dataset.uri": "file:///data/surtr/"},
    ),
}
"""The operator knows it: not even a check is made."""

REFUSED = {
    "held-out": Cause(
        Outcome.SPEC_INVALID, ("pictures would leave none to train on; lower it, or add pictures",), {"training.loss.heldOut": 6}
    ),
    "empty": Cause(Outcome.DATASET_INVALID, ("The data set has no pictures; put .png, .jpg or .webp files",), files=lambda _: {}),
    "caption": Cause(Outcome.DATASET_INVALID, ("Pictures without a .txt caption (1)", "[00.png]"), files=without("00.txt")),
    "sizes": Cause(
        Outcome.DATASET_INVALID,
        ("Pictures that are not 64x64", "give all one size, or set sizing: Bucket", "[01.png]"),
        files=with_file("01.png", picture(64, 72)),
    ),
    "truncated": Cause(
        Outcome.DATASET_INVALID,
        ("Damaged or truncated pictures (1)", "[05.png]"),
        files=lambda files: files | {"05.png": files["05.png"][:-40]},
    ),
    "key": Cause(Outcome.DATASET_INVALID, (r"'a\x07.png' has a control character",), files=with_file("a\x07.png", picture())),
    "word": Cause(
        Outcome.WORD_TAKEN,
        ("'sword' is already a word of the base model", "choose a rarer one, such as sword_character"),
        {"character.name": "sword"},
    ),
    "bucket-of-pictures": Cause(
        Outcome.BUCKET_NOT_FOUND,
        ("The bucket {place}-no does not exist at http", "create it, or correct the uri"),
        {"dataset.uri": "s3://{place}-no/x/"},
    ),
    "bucket-of-model": Cause(
        Outcome.BUCKET_NOT_FOUND, ("The bucket {place}-no does not exist at http",), {"baseModel.uri": "s3://{place}-no/x/"}
    ),
    "bucket-of-output": Cause(
        Outcome.BUCKET_NOT_FOUND, ("The bucket {place}-no does not exist at http",), {"output.uri": "s3://{place}-no/x/"}
    ),
    "wrong-secret": Cause(
        Outcome.STORAGE_ACCESS_DENIED, ("refuses", "the secret key does not fit the access key"), {"storage.secretName": "wrong"}
    ),
    "unknown-key": Cause(Outcome.STORAGE_ACCESS_DENIED, ("refuses", "the access key is unknown there"), {"storage.secretName": "unknown"}),
    "reader": Cause(
        Outcome.STORAGE_ACCESS_DENIED,
        ("refuses writing s3://{place}/output/reader/", "the credentials may not do this"),
        {"storage.secretName": "reader"},
    ),
    "no-model": Cause(
        Outcome.BASE_MODEL_INVALID,
        ("There is no base model at s3://{place}/nothing/; correct baseModel.uri",),
        {"baseModel.uri": "s3://{place}/nothing/"},
    ),
    "half-a-model": Cause(
        Outcome.BASE_MODEL_INVALID, ("is no whole safetensors file", "upload it again"), {"baseModel.uri": "s3://{place}/truncated/"}
    ),
    "inpainting": Cause(Outcome.BASE_MODEL_INVALID, ("so it is an inpainting model",), {"baseModel.uri": "s3://{place}/inpainting/"}),
    "files-from-elsewhere": Cause(
        Outcome.OUTPUT_OCCUPIED, ("holds files of a training that left no",), {"output.uri": "s3://{place}/elsewhere/"}
    ),
}
"""The check finds it, once."""

UNREACHABLE = {
    "silent": Cause(
        Outcome.STORAGE_UNREACHABLE,
        ("http://127.0.0.1:9 refuses the connection; check storage.endpoint and that the service runs",),
        {"storage.endpoint": "http://127.0.0.1:9"},
    ),
    "nowhere": Cause(
        Outcome.STORAGE_UNREACHABLE,
        ("the name in http://nowhere.invalid:8333 cannot be resolved; check storage.endpoint",),
        {"storage.endpoint": "http://nowhere.invalid:8333"},
    ),
}

SECRETS = {
    "absent": Cause(
        Outcome.SECRET_MISSING, ("lacks something and starts as soon as it is there", '"late" not found'), {"storage.secretName": "late"}
    ),
    "half": Cause(
        Outcome.SECRET_MISSING,
        ("lacks something", "couldn't find key AWS_SECRET_ACCESS_KEY in Secret {place}/half"),
        {"storage.secretName": "half", "run.suspend": True},
    ),
    "no-ca": Cause(
        Outcome.SECRET_MISSING, ("lacks something", '"authority" not found'), {"storage.caSecretName": "authority", "run.suspend": True}
    ),
}
"""They wait until somebody makes what they lack."""

UNSCHEDULABLE = {
    "too-many": Cause(
        Outcome.UNSCHEDULABLE, ("No node has room for pod too-many-a1-0", "Insufficient nvidia.com/gpu"), {"resources.gpus": 64}
    ),
    "nowhere-to-go": Cause(
        Outcome.UNSCHEDULABLE,
        ("No node has room for pod nowhere-to-go-check-", "didn't match Pod's node affinity/selector"),
        {"scheduling.nodeSelector": {"charalora.dev/test-of": "{place}"}, "run.suspend": True},
    ),
    "no-volume": Cause(
        Outcome.UNSCHEDULABLE,
        ("No node has room for pod no-volume-check-", 'persistentvolumeclaim "nobody" not found'),
        {"cache.claimName": "nobody"},
    ),
    "no-priority": Cause(
        Outcome.PODS_REFUSED,
        ("The cluster refuses to make the pods, and tries again by itself", "no PriorityClass with name {place} was found"),
        {"scheduling.priorityClassName": "{place}", "run.suspend": True},
    ),
    "no-queue": Cause(Outcome.QUEUED, ("Queue nobody: Kueue is not installed in this cluster.",), {"scheduling.queueName": "nobody"}),
    "paused": Cause(Outcome.SUSPENDED, ("run.suspend is true; set it to false to go on.",), {"run.suspend": True}, files=dict),
}
"""They wait for something that is not there."""

DEADLINE = {
    "impatient": Cause(
        Outcome.DEADLINE_EXCEEDED,
        ("The training took longer than run.deadlineSeconds.",),
        {"resources.gpus": 64, "run.deadlineSeconds": 60},
    )
}
ALL = {**UNREACHABLE, **DEADLINE, **UNSCHEDULABLE, **SECRETS, **REFUSED_AT_ONCE, **REFUSED}


@contextmanager
def tagged(cluster: Any, image: str, name: str) -> Iterator[None]:
    """An image that the nodes have, by another name."""
    sockets = [Path(cluster.facts["logs"]) / node["name"] / "containerd.sock" for node in cluster.facts["nodes"]]
    for socket in sockets:
        subprocess.run(["ctr", "--address", socket, "--namespace", "k8s.io", "images", "tag", image, name], check=True, capture_output=True)
    yield
    for socket in sockets:
        subprocess.run(["ctr", "--address", socket, "--namespace", "k8s.io", "images", "rm", name], check=True, capture_output=True)


@pytest.fixture(scope="module")
def seen(shared_place: Place) -> Iterator[Callable[[str], list[str]]]:
    """The STATEs that a resource has shown so far."""
    with watching(shared_place) as states:
        yield states


@pytest.fixture(scope="module")
def runs(
    shared_place: Place, cluster: Any, _tiny_base: Mapping[str, bytes], seen: Callable[[str], list[str]]
) -> Iterator[Mapping[str, Run]]:
    """Every resource of these tables, under way, and looked at from the first moment."""
    del seen
    place, target, s3, base = shared_place, shared_place.target, cluster.facts["s3"], dict(_tiny_base)
    config = json.loads(base["unet/config.json"]) | {"in_channels": 9}
    place.upload("truncated/", base | {UNET: base[UNET][:-1000]})
    place.upload("inpainting/", base | {"unet/config.json": json.dumps(config).encode()})
    place.upload("elsewhere/", {"ckpts/lora-100.safetensors": save({})})
    keys = {
        "wrong": (target.access_key, "wrong"),
        "unknown": ("NOBODYSKEY", target.secret_key),
        "reader": (s3["readerAccessKey"], s3["readerSecretKey"]),
        "half": (target.access_key, ""),
    }
    target.apply(*(secret(place, name, *values) for name, values in keys.items()))
    yield start_all(place, ALL, pictures())
    target.run("label", "node", "--all", "charalora.dev/test-of-")
    target.run("delete", "priorityclass", place.namespace, "--ignore-not-found")


def secret(place: Place, name: str, access_key: str, secret_key: str) -> dict[str, Any]:
    """Credentials; an empty one has no entry."""
    entries = {
        "AWS_ACCESS_KEY_ID": access_key,
        "AWS_SECRET_ACCESS_KEY": secret_key,
        "AWS_ENDPOINT_URL": place.target.endpoint_in_pods,
    }
    metadata = {"name": name, "namespace": place.namespace}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": metadata,
        "stringData": {key: value for key, value in entries.items() if value},
    }


@pytest.mark.parametrize("name", REFUSED_AT_ONCE)
def test_what_the_operator_knows_makes_not_even_a_check(runs: Mapping[str, Run], name: str) -> None:
    run = runs[name]

    ended(run, REFUSED_AT_ONCE[name])

    assert [] == run.owned("jobs")
    no_gpu_was_asked_for(run)


@pytest.mark.parametrize("name", REFUSED)
def test_what_the_check_finds_costs_no_gpu(runs: Mapping[str, Run], name: str) -> None:
    """Told in the condition, in the log and in the Events, and not tried again."""
    refused_by_check(runs[name], REFUSED[name])


@pytest.mark.fault(Fault.UNSCHEDULABLE, Fault.PODS_REFUSED, Fault.SECRET_MISSING)
@pytest.mark.parametrize("name", UNSCHEDULABLE | SECRETS)
def test_what_waits_says_for_what_and_holds_no_gpu(runs: Mapping[str, Run], name: str) -> None:
    """In the cluster's own words."""
    run = runs[name]

    until_said(run, ALL[name])

    no_gpu_was_given(run)
    assert run.status.completion_time is None


def test_a_check_and_a_pause_are_told_as_they_come(runs: Mapping[str, Run], seen: Callable[[str], list[str]]) -> None:
    """And a checked resource that is paused has asked for nothing."""
    run = runs["paused"]

    until_said(run, UNSCHEDULABLE["paused"])

    assert [Outcome.CHECKING.reason, Outcome.SUSPENDED.reason] == [state for state in seen("paused") if state != "1"][-2:]
    assert run.message(Condition.DATASET_READY).startswith("6 pictures of 64 × 64, captions of at most ")
    no_gpu_was_asked_for(run)


def test_other_files_than_the_checked_ones_are_not_trained(runs: Mapping[str, Run], seen: Callable[[str], list[str]]) -> None:
    """They changed while it was paused; its attempts are not spent on that."""
    run = runs["paused"]
    cause = Cause(
        Outcome.DATASET_CHANGED, ("The data set changed: the check saw another one", "bring the old files back, or train to another")
    )
    run.place.upload("paused/", pictures() | {"00.txt": b"1girl, changed"})

    run.patch({"spec": {"run": {"suspend": False}}})

    status = ended(run, cause)
    assert {Outcome.PENDING.reason, Outcome.RUNNING.reason} <= set(seen("paused"))
    assert [(1, cause.outcome.reason)] == [(attempt.attempt, attempt.reason) for attempt in status.attempts]
    assert cause.outcome.exit_code in exit_codes(run)
    assert "charalora: DatasetChanged: " in log(run, names.TRAINING)
    assert "load base model" not in log(run, names.TRAINING)


@pytest.mark.fault(Fault.SECRET_MISSING)
def test_a_missing_secret_that_is_made_lets_the_training_run_to_its_end(runs: Mapping[str, Run]) -> None:
    """Nobody has to touch the resource; afterwards its output belongs to it, and another training there is refused."""
    run, place = runs["absent"], runs["absent"].place
    until_said(run, SECRETS["absent"])

    place.target.apply(secret(place, "late", place.target.access_key, place.target.secret_key))

    run.until_state(Outcome.SUCCEEDED.reason)
    assert "manifest.json" in place.output("absent")
    second = place.start("second", **{"output.uri": place.uri("output/absent/"), "training.steps": 4})
    refused_by_check(
        second, Cause(Outcome.OUTPUT_OCCUPIED, ("belongs to", "which trains something else; choose another output.uri or empty"))
    )


@pytest.mark.fault(Fault.SECRET_MISSING)
@pytest.mark.parametrize(("name", "missing"), [("half", "half"), ("no-ca", "authority")])
def test_what_a_secret_lacks_may_come_later(runs: Mapping[str, Run], name: str, missing: str) -> None:
    """The check's pod starts by itself."""
    run, place = runs[name], runs[name].place
    until_said(run, SECRETS[name])
    whole = secret(place, missing, place.target.access_key, place.target.secret_key)

    place.target.apply(whole | {"stringData": whole["stringData"] | {"ca.crt": "read for https alone"}})

    run.until_state(Outcome.SUSPENDED.reason)
    no_gpu_was_asked_for(run)


@pytest.mark.fault(Fault.UNSCHEDULABLE)
def test_a_node_that_comes_ends_the_wait(runs: Mapping[str, Run]) -> None:
    run, place = runs["nowhere-to-go"], runs["nowhere-to-go"].place
    until_said(run, UNSCHEDULABLE["nowhere-to-go"])

    place.target.run("label", "node", "--all", "--overwrite", f"charalora.dev/test-of={place.namespace}")

    run.until_state(Outcome.SUSPENDED.reason)


@pytest.mark.fault(Fault.PODS_REFUSED)
def test_a_rule_that_is_satisfied_ends_the_refusal(runs: Mapping[str, Run]) -> None:
    run, place = runs["no-priority"], runs["no-priority"].place
    until_said(run, UNSCHEDULABLE["no-priority"])
    metadata = {"name": place.namespace}

    place.target.apply({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": metadata, "value": 0})

    run.until_state(Outcome.SUSPENDED.reason)


def test_waiting_for_gpus_ends_at_the_deadline(runs: Mapping[str, Run]) -> None:
    """And costs none."""
    run = runs["impatient"]

    status = ended(run, DEADLINE["impatient"])

    assert [(1, Outcome.DEADLINE_EXCEEDED.reason)] == [(attempt.attempt, attempt.reason) for attempt in status.attempts]
    no_gpu_was_given(run)


@pytest.mark.fault(Fault.PODS_REFUSED)
def test_a_quota_and_a_limit_hold_the_pods_back_until_they_are_raised(fresh_place: Callable[[], AbstractContextManager[Place]]) -> None:
    """The check passes; what the training asks for is too much for its namespace, for a while."""
    quota = Cause(
        Outcome.QUOTA_EXCEEDED, ("The namespace's quota leaves no room for the pods", "exceeded quota: gpus", "requests.nvidia.com/gpu")
    )
    limit = Cause(
        Outcome.PODS_REFUSED, ("The cluster refuses to make the pods", "maximum memory usage per Container is 4Gi, but limit is 5Gi")
    )
    with fresh_place() as place:
        run, kinds = place.target.run, ("resourcequota/gpus", "limitrange/memory")
        place.target.apply(
            _rule(place, "ResourceQuota", "gpus", {"hard": {"requests.nvidia.com/gpu": "0"}}),
            _rule(place, "LimitRange", "memory", {"limits": [{"type": "Container", "max": {"memory": "4Gi"}}]}),
        )
        small, large = place.start("small"), place.start("large", **{"resources.memory": "5Gi"})

        until_said(small, quota)
        until_said(large, limit)
        for waiting in (small, large):
            no_gpu_was_given(waiting)
            assert [] == [pod for pod in waiting.owned("pods") if "a1" in pod["metadata"]["name"]]
        assert "False" == next(one.status for one in small.status.conditions if one.type == Condition.ADMITTED.value)
        run("delete", "-n", place.namespace, *kinds)

        for waiting in (small, large):
            status = waiting.until_state(Outcome.SUCCEEDED.reason)
            assert 1 == status.attempt


def _rule(place: Place, kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": place.namespace}, "spec": spec}


def test_images_policies_and_gpus_that_are_not_what_the_administrator_thought(
    fresh_place: Callable[[], AbstractContextManager[Place]], cluster: Any
) -> None:
    """An operator whose trainer image nobody has, whose cache no namespace allows, and whose GPUs are not there."""
    refused = Cause(Outcome.PODS_REFUSED, ("The cluster refuses to make the pods", 'violates PodSecurity "restricted', "hostPath"))
    missing = Cause(Outcome.IMAGE_PULL_FAILED, ("cannot fetch the image of pod surtr-a1-0", "keeps trying"))
    mismatch = Cause(Outcome.GPU_MISMATCH, ("This machine shows 0 GPUs where 1 were asked for", "look at its driver and device plugin"))
    with fresh_place() as place:
        image, _, tag = place.target.images["trainer"].rpartition(":")
        values = (f"images.trainer.tag={place.namespace}", "settings.trainOnCpu=false", "settings.nodeCachePath=/var/cache/charalora")
        with own_operator(place, *values):
            cached, run = place.start("cached", **{"cache.node": True}), place.start()
            until_said(cached, refused)
            no_gpu_was_asked_for(cached)
            until_said(run, missing)
            assert ["Pending"] == [pod["status"]["phase"] for pod in run.owned("pods") if "a1" in pod["metadata"]["name"]]

            with tagged(cluster, f"{image}:{tag}", f"{image}:{place.namespace}"):
                status = ended(run, mismatch)

            assert [(1, Outcome.GPU_MISMATCH.reason)] == [(attempt.attempt, attempt.reason) for attempt in status.attempts]
            assert mismatch.outcome.exit_code in exit_codes(run)
            assert "charalora: GpuMismatch: " in log(run, names.TRAINING)


@pytest.mark.parametrize("name", UNREACHABLE)
def test_a_storage_that_does_not_answer_is_asked_again_before_the_check_gives_up(runs: Mapping[str, Run], name: str) -> None:
    """Four times in all; and it has cost no GPU."""
    refused_by_check(runs[name], UNREACHABLE[name], UNREACHABLE_SECONDS)

    assert 4 == len(exit_codes(runs[name]))
