"""The main job on a real Kubernetes: `make demo`.

On the development cluster of this machine (or CLUSTER, see target.py): S3 gets the toy base model and 24 captioned pictures of a new
character, Helm installs the operator, `kubectl apply -f examples/surtr.yaml` does the rest; its files are fetched to build/demo.
"""

import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

from target import OPERATOR_NAMESPACE, ROOT, Target, TargetError, open_target

PLACE = ROOT / "build" / "demo"
RESOURCE = Path("examples/surtr.yaml")
NAMESPACE, NAME = "artists", "surtr"
INPUTS = {"models": ("toy", ROOT / "examples/toyworld/base"), "datasets": ("surtr_arknights", ROOT / "examples/toyworld/surtr_arknights")}
OUTPUT = ("loras", NAME)
LONGEST = 3600
"""Seconds; the demo takes minutes."""


def main() -> int:
    """Run the demo; 0 when the training succeeded."""
    began = time.monotonic()
    shutil.rmtree(PLACE, ignore_errors=True)
    PLACE.mkdir(parents=True)
    try:
        with step("A Kubernetes of two nodes, and the images; the first time on a machine this takes about a quarter of an hour"):
            target = open_target()
        with step("The toy base model and 24 pictures of a new character go to S3"):
            upload(target)
        with step(f"Helm installs the operator into namespace {OPERATOR_NAMESPACE}"):
            target.install()
        with step(f"kubectl apply --namespace {NAMESPACE} -f {RESOURCE}"):
            apply(target)
        with step("The training"):
            status = follow(target)
        if state(status)["status"] != "True":
            say(f"{state(status)['reason']}: {state(status)['message']}")
            say(f"The whole story: {kubectl(target)} --namespace {NAMESPACE} describe clora {NAME}")
            return 1
        with step("The files come from the bucket"):
            files = download(target)
    except TargetError as error:
        say(str(error))
        return 1
    say(f"{len(files)} files in {shown(PLACE / OUTPUT[1])}; those to use stand in the resource's status with their digests.")
    for saved, share in recognised(PLACE / OUTPUT[1]):
        say(f"Step {saved}: the judge of the toy world recognises her in {share:.2f} of what the pictures show.")
    say(f"Done in {(time.monotonic() - began) / 60:.1f} minutes. Open this one in a browser:")
    print(f"\n    {shown(PLACE / OUTPUT[1] / 'report.html')}\n", flush=True)
    tell_where_to_look(target)
    return 0


def tell_where_to_look(target: Target) -> None:
    """At the cluster that stays, its figures and the dashboards of them."""
    say(f"The cluster stays: `{kubectl(target)} --namespace {NAMESPACE} get clora`; `make cluster-down` ends it.")
    if target.prometheus:
        say(f"Prometheus answers at {target.prometheus}; what the dashboards show of it:")
        print(f"\n    .venv/bin/python devtools/render_dashboards.py --training {NAMESPACE}/{NAME} --pictures build/demo\n", flush=True)
    say("Into a Grafana: import charts/charalora/dashboards/*.json by hand, or set monitoring.dashboards.enabled (docs/observability.md).")


def say(sentence: str) -> None:
    """What happens now."""
    print(f"demo: {sentence}", flush=True)


@contextmanager
def step(what: str) -> Iterator[None]:
    """Say what happens, and how long it took."""
    say(f"{what} …")
    began = time.monotonic()
    yield
    say(f"… {time.monotonic() - began:.0f} s.")


def shown(path: Path) -> str:
    """A path as short as it can be typed here."""
    return os.path.relpath(path)


def kubectl(target: Target) -> str:
    """How kubectl is typed for this cluster."""
    return f"{target.kubectl} --kubeconfig={target.kubeconfig}"


def upload(target: Target) -> None:
    """The inputs into buckets, and an empty place for the output."""
    s3 = target.s3()
    there = {bucket["Name"] for bucket in s3.list_buckets()["Buckets"]}
    for bucket in {*INPUTS, OUTPUT[0]} - there:
        s3.create_bucket(Bucket=bucket)
    for bucket, (prefix, folder) in INPUTS.items():
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            s3.upload_file(str(path), bucket, f"{prefix}/{path.relative_to(folder).as_posix()}")


def apply(target: Target) -> None:
    """What a user types; an earlier demo's resource and files go first."""
    target.namespace(NAMESPACE)
    target.run("delete", "clora", NAME, "--namespace", NAMESPACE, "--ignore-not-found", "--cascade=foreground")
    s3 = target.s3()
    for key in keys(target):
        s3.delete_object(Bucket=OUTPUT[0], Key=key)
    target.run("apply", "--namespace", NAMESPACE, "-f", str(ROOT / RESOURCE))


def follow(target: Target) -> dict[str, Any]:
    """Print each change of what `kubectl get clora` shows, until the end; the last status.

    Raises:
        TargetError: It takes longer than an hour.
    """
    until, last = time.monotonic() + LONGEST, ""
    while time.monotonic() < until:
        status: dict[str, Any] = target.get("clora", NAME, "--namespace", NAMESPACE).get("status", {})
        if line := story(status):
            if line != last:
                say(f"  {line}")
                last = line
            if state(status)["status"] != "Unknown":
                return status
        time.sleep(1)
    raise TargetError(f"The training did not end within {LONGEST} seconds.")


def state(status: dict[str, Any]) -> dict[str, Any]:
    """The condition that says how the training stands."""
    found: dict[str, Any] = next(condition for condition in status["conditions"] if condition["type"] == "Succeeded")
    return found


def story(status: dict[str, Any]) -> str:
    """One line: the columns of `kubectl get clora`."""
    if not status.get("conditions"):
        return ""
    progress, reason = status.get("progress", {}), state(status)["reason"]
    parts = [f"{reason:<12}", progress.get("percent", "")]
    parts += [f"loss {progress['loss']}"] if "loss" in progress else []
    parts += [f"eta {progress['etaSeconds']} s"] if progress.get("etaSeconds") else []
    return " ".join(part for part in parts if part)


def keys(target: Target) -> list[str]:
    """What lies in the output prefix."""
    pages = target.s3().get_paginator("list_objects_v2").paginate(Bucket=OUTPUT[0], Prefix=f"{OUTPUT[1]}/")
    return [item["Key"] for page in pages for item in page.get("Contents", [])]


def download(target: Target) -> list[Path]:
    """The output prefix, but for the training states, into the demo's folder."""
    s3, written = target.s3(), []
    for key in keys(target):
        if not key.startswith(f"{OUTPUT[1]}/state/"):
            path = PLACE / key
            path.parent.mkdir(parents=True, exist_ok=True)
            s3.download_file(OUTPUT[0], key, str(path))
            written.append(path)
    return written


def recognised(folder: Path) -> Iterator[tuple[int, float]]:
    """For each saved step, the mean share of her attributes that its pictures show, by a judge that knows drawings and no training."""
    sys.path.insert(0, str(ROOT / "examples"))
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # it advises programmers of optional packages
    from toyworld.characters import CHARACTERS
    from toyworld.judge import Judge

    judge = Judge.load()
    for previews in sorted((folder / "previews").iterdir(), key=lambda path: int(path.name)):
        pictures = [Image.open(path).convert("RGB") for path in sorted(previews.glob("*.png"))]
        yield int(previews.name), judge.recognition(pictures, CHARACTERS["surtr_arknights"])


if __name__ == "__main__":
    sys.exit(main())
