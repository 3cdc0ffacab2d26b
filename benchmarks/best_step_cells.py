"""One character of the measurement: taught too fast and too long, and every save judged. Kept, so that it is done once."""

import hashlib
import json
import multiprocessing
import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any, Self

import measured_on
from proof_cells import digest_of
from proof_measures import Subject, draw
from proof_training import Course, Inputs, resource_of

from charalora_spec.spec import CharacterLora
from charalora_trainer import history
from charalora_trainer.console import SilentConsole
from charalora_trainer.history import History
from charalora_trainer.metrics import Metrics
from charalora_trainer.stages.closing import read_step
from charalora_trainer.stages.run import Start, run_job
from toyworld.characters import CHARACTERS, Character
from toyworld.judge import WEIGHTS, Judge
from toyworld.looks import BACKGROUND

ROOT = Path(__file__).resolve().parent.parent
RESULT, WORK = "result.json", "work"
LEARNING = ("loss.py", "feed.py", "learner.py", "optimizer.py", "rates.py", "model", "data", "words", "stages/train.py", "stages/encode.py")
"""What of the trainer decides the figures."""


@dataclass(frozen=True)
class Setting:
    """How each character is taught: too few pictures, too high rates, too many steps, so that the last one is not the best.

    Attributes:
        pictures: In her data set.
        held_out: Those of them that training never sees.
        steps: In all.
        save_every: Steps between two saves.
        rates: How many times the demo's learning rates.
        judged: Pictures that the judge is shown of each save, an equal number with each background.
        denoising: Steps of such a picture.
        seed: Of the training.
    """

    pictures: int = 7
    held_out: int = 3
    steps: int = 480
    save_every: int = 60
    rates: float = 12.0
    judged: int = 16
    denoising: int = 10
    seed: int = 2

    @property
    def saves(self) -> range:
        """The steps that are compared."""
        return range(self.save_every, self.steps + 1, self.save_every)


@dataclass(frozen=True)
class Taught:
    """What is known of one character's training.

    Attributes:
        name: Of the character.
        history: Losses and held-out losses.
        scores: (step, the judge's score): how sure the judge is, from 0 to 1, of seeing what is hers and the background that was asked for.
        seconds: How long it took.
        commit: Of the program that did it.
    """

    name: str
    history: History
    scores: tuple[tuple[int, float], ...]
    seconds: float
    commit: str

    @classmethod
    def read(cls, folder: Path) -> Self:
        """What an earlier run left."""
        content = json.loads((folder / RESULT).read_text(encoding="utf-8"))
        scores = tuple((step, score) for step, score in content["scores"])
        return cls(content["name"], history.parse(content["history"]), scores, content["seconds"], content["commit"])


def digest(name: str, setting: Setting, base: Path) -> str:
    """Of everything that decides a character's figures."""
    trainer = ROOT / "trainer_image/charalora_trainer"
    sources = [file for part in LEARNING for file in ((trainer / part).rglob("*.py") if (trainer / part).is_dir() else [trainer / part])]
    world = [ROOT / "examples/toyworld" / file for file in ("characters.py", "drawing.py", "wardrobe.py", "brush.py", "looks.py")]
    decides = [name, asdict(setting), digest_of([*sources, *world, WEIGHTS]), digest_of(base.rglob("*"))]
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:24]


def teach(name: str, setting: Setting, base: Path, folder: Path, commit: str) -> Taught:
    """Train, and show every save to the judge; or read what an earlier call left in `folder`.

    Raises:
        TrainingError: Why the training ended, if not well.
    """
    if (folder / RESULT).exists():
        return Taught.read(folder)
    began, character, work = time.monotonic(), CHARACTERS[name], folder / WORK
    character.write_dataset(folder / "dataset", setting.pictures)
    run = resource(character, setting, Inputs(ROOT / "examples/surtr.yaml", base, folder / "dataset"), work / "output")
    run_job(run, Start(work, processes=1), SilentConsole(), Metrics())
    judge = Judge.load()
    scores = []
    for step in setting.saves:
        subject = Subject.of(run.spec, base, *read_step(work / "output", name, step))
        scores.append((step, _score(judge, character, subject, setting.judged)))
    noted = (work / "output" / history.FILE).read_text(encoding="utf-8")
    content = {"name": name, "history": noted, "scores": scores, "seconds": round(time.monotonic() - began, 1), "commit": commit}
    (folder / f".{RESULT}").write_text(json.dumps(content), encoding="utf-8")
    (folder / f".{RESULT}").rename(folder / RESULT)
    shutil.rmtree(work, ignore_errors=True)
    return Taught.read(folder)


def teach_all(
    names: Sequence[str], setting: Setting, base: Path, cache: Path, workers: int, on_done: Callable[[Taught], None]
) -> list[Taught]:
    """Every character, several at once in processes of one thread each; an interruption loses those that are being taught.

    Raises:
        TrainingError: The first failure.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context) as pool:
        running = [pool.submit(teach, name, setting, base, cache / digest(name, setting, base), measured_on.commit()) for name in names]
        for future in as_completed(running):
            on_done(future.result())
    return [future.result() for future in running]


def resource(character: Character, setting: Setting, inputs: Inputs, output: Path) -> CharacterLora:
    """The demo's resource with her data set and this setting."""
    run = resource_of(inputs, Course("overfitted", {}), setting.seed, output)
    wire: dict[str, Any] = run.model_dump(mode="json", by_alias=True)
    spec, rates = wire["spec"], run.spec.training.learning_rate
    spec["character"]["name"] = character.name
    spec["preview"] |= {"prompts": [f"1girl, solo, {{{character.name}:1.2}}"], "inferenceSteps": setting.denoising}
    spec["training"] |= {"steps": setting.steps, "saveEvery": setting.save_every}
    spec["training"]["loss"]["heldOut"] = setting.held_out
    spec["training"]["learningRate"] |= {
        name: f"{rate * setting.rates:.6f}"
        for name, rate in (("unet", rates.unet), ("textEncoder", rates.text_encoder), ("embedding", rates.embedding))
    }
    return CharacterLora.model_validate(wire)


def _score(judge: Judge, character: Character, subject: Subject, count: int) -> float:
    """How sure the judge is that pictures show her on the backgrounds that were asked for."""
    prompt = subject.spec.preview.prompts[0]
    pictures = draw(subject, [f"{prompt}, {background}" for background in BACKGROUND], count)
    looks = [replace(character.look, background=background) for background in BACKGROUND for _ in range(count // len(BACKGROUND))]
    return fmean(judge.certainty(pictures, looks).values())
