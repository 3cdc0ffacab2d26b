"""Makes docs/pictures/dashboard-….png anew: some minutes of trainings in two namespaces of the development cluster, one of each fate.

    .venv/bin/python devtools/capture_dashboards.py

Two succeed, one of them after an eviction; one is refused for its data set, one diverges, one is paused and goes on. What Prometheus then
says of them is drawn as `render_dashboards.py` does it.
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

import render_dashboards
from charalora_operator import names
from dashboards.asking import AskingError, Query, Window
from demo import LONGEST, OUTPUT, RESOURCE, say, state, upload
from target import ROOT, Target, TargetError, open_target

PICTURES = ROOT / "docs/pictures"
FORGOTTEN = "07.txt"
SCRAPE_SECONDS = 2.0
DIVERGING = {"unet": "1", "textEncoder": "1", "embedding": "1", "warmupSteps": 0}
NAMESPACES = ("artists", "studio")
Change = Callable[[dict[str, Any]], None]


def main() -> int:
    """Live the story and draw it; 0 when the pictures are written."""
    try:
        target = open_target()
        upload(target)
        upload_characters(target, "amiya", "texas", "skadi", "nian")
        target.install()
        clear(target)
        began = time.time()
        story(target)
        draw(target, began)
        clear(target)
    except (AskingError, TargetError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def clear(target: Target) -> None:
    """Two namespaces without trainings."""
    for namespace in NAMESPACES:
        target.namespace(namespace)
        target.run("delete", "clora", "--all", "--namespace", namespace, "--cascade=foreground")


def upload_characters(target: Target, *characters: str) -> None:
    """Their pictures; one caption of Texas is forgotten."""
    sys.path.insert(0, str(ROOT / "examples"))
    from toyworld.characters import CHARACTERS

    s3 = target.s3()
    for name in characters:
        with tempfile.TemporaryDirectory() as folder:
            CHARACTERS[f"{name}_arknights"].write_dataset(Path(folder))
            for path in sorted(Path(folder).iterdir()):
                if (name, path.name) != ("texas", FORGOTTEN):
                    s3.upload_file(str(path), "datasets", f"{name}/{path.name}")


def story(target: Target) -> None:
    """Apply, evict, pause; until Surtr is learned, and Skadi still is not."""
    start(target, "artists", "surtr", lambda spec: spec["training"].update(steps=1000))
    start(target, "studio", "texas", lambda _: None)
    until(target, "artists", "surtr", "its second save", lambda status: saved(status) >= 200)
    evict(target, "artists", "surtr")
    start(target, "studio", "amiya", lambda spec: spec["training"].update(steps=200, saveEvery=50))
    start(target, "artists", "skadi", lambda spec: spec["training"].update(steps=4000, saveEvery=50))
    until(target, "studio", "amiya", "its end", has_ended)
    until(target, "artists", "skadi", "its first save", lambda status: saved(status) >= 50)
    start(target, "studio", "nian", lambda spec: spec["training"].update(precision="fp16", learningRate=DIVERGING))
    until(target, "studio", "nian", "its end", has_ended)
    suspend(target, "artists", "skadi", wanted=True)
    until(target, "artists", "surtr", "its end", has_ended)
    kept = saved(until(target, "artists", "skadi", "its pause", lambda status: state(dict(status))["reason"] == "Suspended"))
    suspend(target, "artists", "skadi", wanted=False)
    until(target, "artists", "skadi", "a save of its second attempt", lambda status: saved(status) > kept)
    time.sleep(15 * SCRAPE_SECONDS)  # so long until Prometheus has found its pod, and there is something of it to see


def start(target: Target, namespace: str, name: str, change: Change) -> None:
    """`kubectl apply` of examples/surtr.yaml, changed for another character."""
    wire: dict[str, Any] = yaml.safe_load((ROOT / RESOURCE).read_text(encoding="utf-8"))
    wire["metadata"]["name"] = name
    spec = wire["spec"]
    if name != "surtr":
        spec["character"]["name"] = f"{name}_arknights"
        spec["dataset"]["uri"] = f"s3://datasets/{name}/"
        spec["preview"]["prompts"] = [f"1girl, solo, {{{name}_arknights:1.2}}"]
        spec["resources"].update(gpus=1, memory="3Gi")  # so that three of them have room
    spec["output"]["uri"] = f"s3://{OUTPUT[0]}/{namespace}/{name}-{time.time():.0f}/"  # nothing of an earlier story is resumed
    change(spec)
    target.run("apply", "--namespace", namespace, "-f", "-", content=json.dumps(wire))
    say(f"{namespace}/{name} is applied.")


def evict(target: Target, namespace: str, name: str) -> None:
    """Take the pod of its attempt away."""
    labels = f"{names.RESOURCE}={name},{names.ATTEMPT}"
    pod = target.get("pods", "--namespace", namespace, "-l", labels)["items"][0]["metadata"]["name"]
    target.evict(namespace, pod)
    say(f"{namespace}/{name} is evicted.")


def suspend(target: Target, namespace: str, name: str, *, wanted: bool) -> None:
    """Pause a training, or let it go on."""
    change = json.dumps({"spec": {"run": {"suspend": wanted}}})
    target.run("patch", "clora", name, "--namespace", namespace, "--type=merge", "-p", change)
    say(f"{namespace}/{name} {'is paused' if wanted else 'goes on'}.")


def until(target: Target, namespace: str, name: str, what: str, holds: Callable[[Mapping[str, Any]], bool]) -> Mapping[str, Any]:
    """The first status that says something.

    Raises:
        TargetError: It does not.
    """
    limit = time.monotonic() + LONGEST
    while time.monotonic() < limit:
        status: dict[str, Any] = target.get("clora", name, "--namespace", namespace).get("status", {})
        if holds(status):
            return status
        if has_ended(status):
            raise TargetError(f"{namespace}/{name} ended before {what}: {state(status)['message']}")
        time.sleep(1)
    raise TargetError(f"{namespace}/{name}: waited {LONGEST} seconds in vain for {what}.")


def when_heard(target: Target) -> float:
    """A moment at which all scrapes were answered: the machine is busy, and after a missed one tables are empty.

    Raises:
        TargetError: There is none.
    """
    answered, limit = Query("", "", "", "min(up) == 1", "", is_instant=True), time.monotonic() + LONGEST
    while time.monotonic() < limit:
        settled = time.time() - 2 * SCRAPE_SECONDS  # a scrape that is under way is entered at its start
        if answered.ask(Window(target.prometheus, settled, settled)):
            return settled
        time.sleep(SCRAPE_SECONDS / 2)
    raise TargetError(f"Prometheus: waited {LONGEST} seconds in vain for an answer from all that it asks.")


def has_ended(status: Mapping[str, Any]) -> bool:
    """Whether nothing more will come."""
    return bool(status.get("conditions")) and state(dict(status))["status"] != "Unknown"


def saved(status: Mapping[str, Any]) -> int:
    """The newest step that a stopped training would go on from."""
    return int(status.get("checkpoint", {}).get("step", 0))


def draw(target: Target, began: float) -> None:
    """The story's time range, as the dashboards show it."""
    window = Window(target.prometheus, began, when_heard(target), SCRAPE_SECONDS)
    render_dashboards.draw(render_dashboards.ask(window, "|".join(NAMESPACES), "artists/surtr"), PICTURES)


if __name__ == "__main__":
    sys.exit(main())
