"""The trainings that the proof compares: the demo's, and the same with a part of it switched off."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from charalora_spec.spec import CharacterLora
from charalora_trainer.console import SilentConsole
from charalora_trainer.metrics import Metrics
from charalora_trainer.stages.closing import read_step
from charalora_trainer.stages.run import Start, run_job
from charalora_trainer.weights import Adapter, Word

Changes = Mapping[str, Any]


@dataclass(frozen=True)
class Course:
    """One way to train.

    Attributes:
        name: Its row in the table.
        changes: What differs from the demo, as it would stand below `spec.training`.
    """

    name: str
    changes: Changes


WORD = Course("the word alone", {"learningRate": {"unet": "0", "textEncoder": "0"}})
LORA = Course("the LoRA alone", {"learningRate": {"embedding": "0"}})
BOTH = Course("both", {})
GUIDE = Course(
    "both, at the guide's rates",
    {"learningRate": {"unet": "1e-4", "textEncoder": "1e-5", "embedding": "3e-3", "scaleWithBatch": True, "warmupSteps": 50}},
)


@dataclass(frozen=True)
class Inputs:
    """What every training starts from, on this disk.

    Attributes:
        resource: The demo's, a YAML file.
        base: The base model's folder.
        dataset: The folder of captioned pictures.
    """

    resource: Path
    base: Path
    dataset: Path


@dataclass(frozen=True)
class Trained:
    """What a training left.

    Attributes:
        adapter: The LoRA, read from its files.
        word: The trigger word, read from its file.
        lora_file: The LoRA as webui and diffusers load it.
        word_file: The word likewise.
    """

    adapter: Adapter
    word: Word
    lora_file: Path
    word_file: Path


def resource_of(inputs: Inputs, course: Course, seed: int, output: Path) -> CharacterLora:
    """The demo's resource for one training of the proof: one process takes all pictures of a step; it leaves none out and draws none."""
    wire = yaml.safe_load(inputs.resource.read_text(encoding="utf-8"))
    wire["spec"].pop("storage", None)
    processes = max(1, wire["spec"]["resources"]["gpus"] * wire["spec"]["resources"].get("nodes", 1))
    differences: dict[str, Any] = {
        "dataset": {"uri": _uri(inputs.dataset)},
        "baseModel": {"uri": _uri(inputs.base)},
        "output": {"uri": _uri(output)},
        "preview": {"num": 0},
        "training": {
            "seed": seed,
            "batchSize": wire["spec"]["training"]["batchSize"] * processes,
            "saveEvery": wire["spec"]["training"]["steps"],
            "loss": {"heldOut": 0},
        },
        "resources": {"gpus": 0, "nodes": 1},
    }
    wire["spec"] = _merged(_merged(wire["spec"], differences), {"training": course.changes})
    return CharacterLora.model_validate(wire)


def train(run: CharacterLora, folder: Path) -> Trained:
    """Train as `charalora run` does, in one process; an interrupted training goes on where it was.

    Raises:
        TrainingError: Why it ended, if not well.
    """
    run_job(run, Start(folder, processes=1), SilentConsole(), Metrics())
    output, step, name = folder / "output", run.spec.training.steps, run.spec.character.name
    adapter, word = read_step(output, name, step)
    return Trained(adapter, word, output / "ckpts" / f"lora-{step}.safetensors", output / "ckpts" / f"{name}-{step}.pt")


def _uri(folder: Path) -> str:
    return folder.resolve().as_uri() + "/"


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`above` laid over `below`, part by part."""
    merged = {**below, **above}
    for key in below.keys() & above.keys():
        if isinstance(below[key], Mapping) and isinstance(above[key], Mapping):
            merged[key] = _merged(below[key], above[key])
    return merged
