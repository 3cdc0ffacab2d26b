"""How an attempt ends whose storage goes away or takes back rights in mid-run, or whose disk is full, on the real cluster.

The resources are made and checked at once, and each waits paused until its test comes.
"""

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from charalora_operator import names
from charalora_spec.outcome import Outcome
from cluster_runs import Place, Run
from faults import Fault
from reasons import PAUSED, Cause, ended, exit_codes, go_on, log, over, pod, start_all, until_attempt, until_said, until_step
from trainings import pictures

UNREACHABLE_SECONDS = 700.0
"""Four files at a time are tried for a minute each, and at the end all of them once more."""

CAUSES = {
    "cut-off": Cause(
        Outcome.STORAGE_UNREACHABLE,
        ("refuses the connection; check storage.endpoint", "It failed 1 times; run.retries allows 0 more"),
        {
            "storage.secretName": "door",
            "resources.cpu": "500m",
            "training.steps": 400,
            "training.saveEvery": 400,
            "preview.prompts": ["{surtr_arknights}"],  # few files, for each is tried for a minute
            "run.retries": 0,
        }
        | PAUSED,
    ),
    "locked-out": Cause(
        Outcome.STORAGE_ACCESS_DENIED,
        ("refuses writing s3://{place}/output/locked-out/", "the credentials may not do this"),
        {"storage.secretName": "changing"} | PAUSED,
    ),
    "full": Cause(Outcome.DISK_FULL, ("No space left on device",), {"storage.secretName": "vanishing"} | PAUSED),
}


@pytest.fixture(scope="module")
def runs(shared_place: Place) -> Mapping[str, Run]:
    """Every resource of the table, paused."""
    place, target = shared_place, shared_place.target
    address = target.endpoint_in_pods.replace("https://", "").replace("http://", "")
    host, _, port = address.partition(":")
    keys = {"changing": target.endpoint_in_pods, "vanishing": target.endpoint_in_pods, "door": f"http://door.{place.namespace}.svc:{port}"}
    target.apply(*(credentials(place, name, endpoint) for name, endpoint in keys.items()), *door(place, host, port))
    return start_all(place, CAUSES, pictures())


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


@pytest.mark.fault(Fault.STORAGE_GONE)
def test_a_storage_that_goes_away_in_mid_run(runs: Mapping[str, Run]) -> None:
    """The training goes on to its end and cannot bring its files away; when the way is open again, one more attempt does."""
    run, target, place = runs["cut-off"], runs["cut-off"].place.target, runs["cut-off"].place
    go_on(run)
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
    go_on(run)

    ended(run, CAUSES["locked-out"])

    assert "charalora: StorageAccessDenied: " in log(run, names.TRAINING)
    over(run, {70}, attempts=[Outcome.STORAGE_ACCESS_DENIED])


def test_a_full_disk_is_left_behind_by_the_next_attempt(runs: Mapping[str, Run], cluster: Any) -> None:
    """The working folder of the first one is a disk of its own with no room for a base model, put there while it waits for its Secret."""
    run, place = runs["full"], runs["full"].place
    run.until_state(Outcome.SUSPENDED.reason)
    place.target.run("delete", "secret", "vanishing", "-n", place.namespace)
    go_on(run)
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
