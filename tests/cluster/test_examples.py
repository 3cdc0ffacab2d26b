"""Every file in examples/ is taken by the API server as it stands, and is run, made as small as this cluster.

What a file says stays, but for what is named here: the buckets, because each test has its own; the base models, which cannot be shipped
(a random one of the same form, or the toy world's, stands in); steps, sizes and GPUs; and what nobody has here (Kueue).
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.torch import save

from charalora_spec.status import Condition
from cluster_runs import Place, Run
from single_model import random_parts, tensors_of
from target import ROOT, Target
from trainings import TAGS, picture

EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))

SMALL: Mapping[str, Any] = {
    "training.steps": 8,
    "training.saveEvery": 4,
    "training.learningRate.warmupSteps": 2,
    "preview.width": 64,
    "preview.height": 64,
    "preview.inferenceSteps": 2,
    "resources.cpu": "1",
    "resources.memory": "3Gi",
    "resources.sharedMemory": "128Mi",
}
"""What every example is cut down to, where nothing else is said."""


def read(name: str) -> dict[str, Any]:
    """An example as it stands."""
    content: dict[str, Any] = yaml.safe_load((ROOT / "examples" / f"{name}.yaml").read_text(encoding="utf-8"))
    return content


def change(resource: dict[str, Any], path: str, value: Any) -> None:
    """Set a field below `spec`, or take it out with a value of `...`."""
    *parents, field = path.split(".")
    part = resource["spec"]
    for parent in parents:
        part = part.setdefault(parent, {})
    if value is ...:
        del part[field]
    else:
        part[field] = value


def run(place: Place, name: str, **changes: Any) -> Run:
    """`kubectl apply` of an example with its data in this place's bucket and these changes."""
    resource = read(name)
    places = {"dataset.uri": place.uri("dataset/"), "baseModel.uri": place.uri("base/"), "output.uri": place.uri("output/" + name + "/")}
    for path, value in {**SMALL, **places, **changes}.items():
        change(resource, path, value)
    resource["metadata"]["name"] = name  # the output prefix is asked for by the resource's name
    place.target.run("apply", "--namespace", place.namespace, "-f", "-", content=json.dumps(resource))
    return Run(place, name)


def succeeded(run: Run) -> dict[str, bytes]:
    """The files of a run that ended well."""
    run.finish()
    assert run.state == "Succeeded", run.story()
    return run.place.output(run.name)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_api_server_takes_it_as_it_stands(shared_place: Place, path: Path) -> None:
    said = shared_place.target.run("apply", "--namespace", shared_place.namespace, "--dry-run=server", "-f", str(path))

    assert said.rstrip().endswith("created (server dry run)")


def test_every_example_is_run_here() -> None:
    assert {"anything-v5-preview", "bucket-sizes", "surtr", "surtr-gpu", "suspended", "two-nodes"} == {path.stem for path in EXAMPLES}


def test_surtr(shared_place: Place) -> None:
    """On the toy base and her 24 pictures; fewer steps, and pictures in fewer denoising steps. Everything else is as written."""
    for prefix, folder in (("toy/", "base"), ("surtr/", "surtr_arknights")):
        root = ROOT / "examples/toyworld" / folder
        shared_place.upload(prefix, {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()})
    as_written = read("surtr")["spec"]

    files = succeeded(
        run(
            shared_place,
            "surtr",
            **{
                "dataset.uri": shared_place.uri("surtr/"),
                "baseModel.uri": shared_place.uri("toy/"),
                "preview.width": as_written["preview"]["width"],
                "preview.height": as_written["preview"]["height"],
                "resources.memory": as_written["resources"]["memory"],
                "resources.sharedMemory": as_written["resources"]["sharedMemory"],
            },
        )
    )

    surtr = Run(shared_place, "surtr")
    assert "has 2 GPUs on" in surtr.message(Condition.ADMITTED)
    assert "24 pictures of 128 × 128" in surtr.message(Condition.DATASET_READY)
    assert 6 == len([name for name in files if name.startswith("previews/") and name.endswith(".png")])
    assert surtr.status.best


def test_surtr_gpu(shared_place: Place) -> None:
    """Precision is the default bf16, also on these CPUs; another base model draws, from this bucket instead of the hub."""
    files = succeeded(run(shared_place, "surtr-gpu", **{"preview.baseModel": shared_place.uri("base/")}))

    assert "has 2 GPUs on" in Run(shared_place, "surtr-gpu").message(Condition.ADMITTED)
    assert "precision: bf16" in files["cfg.yaml"].decode()


def test_anything_v5_preview(shared_place: Place) -> None:
    """Two prompts, drawn by another model than the one that is trained on; with one GPU instead of two."""
    files = succeeded(run(shared_place, "anything-v5-preview", **{"preview.baseModel": shared_place.uri("base/"), "resources.gpus": 1}))

    for step in (4, 8):
        assert 2 == len([name for name in files if name.startswith(f"previews/{step}/") and name.endswith(".png")])


def test_bucket_sizes(shared_place: Place) -> None:
    """Sixteen pictures of two shapes, an eighth as wide and high as asked for; four are held out instead of eight, in smaller batches."""
    drawn = {f"{number:02}.png": picture(64, 88, number) if number % 2 else picture(88, 64, number) for number in range(16)}
    captions = {f"{number:02}.txt": ", ".join(TAGS[: 2 + number % 4]).encode() for number in range(16)}
    shared_place.upload_dataset(drawn | captions, "many-sizes/")

    files = succeeded(
        run(
            shared_place,
            "bucket-sizes",
            **{
                "dataset.uri": shared_place.uri("many-sizes/"),
                "dataset.width": 64,
                "dataset.height": 88,
                "training.saveEvery": 2,
                "training.batchSize": 2,
                "training.loss.heldOut": 4,
                "resources.gpus": 1,
            },
        )
    )

    status = Run(shared_place, "bucket-sizes").status
    assert status.dataset
    assert status.best
    assert 2 == status.dataset.buckets
    kept = {name.rpartition("-")[2] for name in files if name.startswith("ckpts/lora-")}
    assert {f"{status.best.step}.safetensors"} == kept


def test_suspended(shared_place: Place) -> None:
    """Checked, and no GPU claimed until it is started by the command in the file."""
    resource = run(shared_place, "suspended")
    resource.until_state("Suspended")

    assert "6 pictures" in resource.message(Condition.DATASET_READY)
    assert [] == resource.trainers()
    resource.patch({"spec": {"run": {"suspend": False}}})
    assert "manifest.json" in succeeded(resource)


@pytest.fixture
def gpu_pool(target: Target) -> Iterator[None]:
    """Nodes that the example's selector finds."""
    target.run("label", "nodes", "--all", "example.com/pool=gpu")
    yield
    target.run("label", "nodes", "--all", "example.com/pool-")


@pytest.mark.usefixtures("gpu_pool")
def test_two_nodes(shared_place: Place) -> None:
    """One GPU of each of two nodes instead of eight; neither Kueue nor a folder of the nodes is here. Selector and tolerations stay."""
    shared_place.upload("single/", {"model.safetensors": save(tensors_of(random_parts()))})

    succeeded(
        run(
            shared_place,
            "two-nodes",
            **{
                "baseModel.uri": shared_place.uri("single/model.safetensors"),
                "resources.gpus": 1,
                "resources.cpu": "800m",
                "cache.node": False,
                "scheduling.queueName": ...,
            },
        )
    )

    texas = Run(shared_place, "two-nodes")
    assert "Attempt 1 has 2 GPUs on node-a, node-b" in texas.message(Condition.ADMITTED), texas.story()
    assert texas.status.completion_time
