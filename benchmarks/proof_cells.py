"""One cell of the proof, a training with a seed or the base model as it is: computed once, kept under a digest of what decides it."""

import hashlib
import json
import multiprocessing
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Self

from PIL import Image
from proof_examiner import Examiner, Figures, Row
from proof_training import BOTH, Course, Inputs, resource_of, train

from toyworld.judge import WEIGHTS

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ("trainer_image/charalora_trainer", "operator/charalora_spec", "examples/toyworld", "benchmarks")
RESULT = "result.json"
WORK = "work"
STRIP = 8


@dataclass(frozen=True)
class Cell:
    """What is computed in one go.

    Attributes:
        inputs: Base model, pictures and the demo's resource.
        course: How to train; None to measure the base model as it is.
        seed: Of the training.
        pictures: How many are generated for each row, a multiple of 16.
    """

    inputs: Inputs
    course: Course | None
    seed: int
    pictures: int

    @property
    def title(self) -> str:
        """What it is called while it runs."""
        return f"{self.course.name}, seed {self.seed}" if self.course else "the base model"

    def digest(self, source: str) -> str:
        """Of everything that decides the figures; `source` is taken once for all cells of a proof, so that they are of one make."""
        spec = resource_of(self.inputs, self.course or BOTH, self.seed, Path("/")).model_dump(mode="json", by_alias=True)["spec"]
        asked: list[Any] = [spec[name] for name in ("character", "training", "preview")] + [spec["dataset"]["captions"]]
        folders = [digest_of(folder.rglob("*")) for folder in (self.inputs.base, self.inputs.dataset)]
        decides = [asked, self.course is None, self.pictures, folders, digest_of([WEIGHTS]), source]
        return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:24]


@dataclass(frozen=True)
class Measured:
    """A finished cell.

    Attributes:
        rows: Its figures.
        folder: Where a strip of eight pictures lies for each row.
        training_seconds: How long the training took, from the resource to the last file.
        seconds: How long all of it took.
    """

    rows: tuple[Figures, ...]
    folder: Path
    training_seconds: float
    seconds: float

    @classmethod
    def read(cls, folder: Path) -> Self:
        """What an earlier proof left."""
        content = json.loads((folder / RESULT).read_text(encoding="utf-8"))
        return cls(tuple(Figures(**row) for row in content["rows"]), folder, content["training_seconds"], content["seconds"])

    def write(self) -> None:
        """Leave it for the next proof, whole or not at all."""
        content = {"rows": [asdict(row) for row in self.rows], "training_seconds": self.training_seconds, "seconds": self.seconds}
        draft = self.folder / f".{RESULT}.draft"
        draft.write_text(json.dumps(content, indent=1), encoding="utf-8")
        draft.rename(self.folder / RESULT)

    def strip(self, row: str) -> Image.Image:
        """Eight pictures of a row, side by side."""
        return Image.open(self.folder / f"{_file_name(row)}.png")


def compute(cell: Cell, folder: Path) -> Measured:
    """Train and measure, or read what an earlier call left in `folder`; an interrupted training goes on where it was.

    Raises:
        TrainingError: Why the training ended, if not well.
    """
    if (folder / RESULT).exists():
        return Measured.read(folder)
    folder.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    run = resource_of(cell.inputs, cell.course or BOTH, cell.seed, folder / WORK / "output")
    trained = train(run, folder / WORK) if cell.course else None
    training_seconds = time.monotonic() - began
    examiner = Examiner(run.spec, cell.inputs.base, cell.pictures)
    if cell.course is None or trained is None:
        found = list(examiner.base())
    elif cell.course == BOTH:
        found = list(examiner.both(trained))
    else:
        found = [examiner.trained(cell.course.name, trained)]
    for row in found:
        _strip(row).save(folder / f"{_file_name(row.figures.name)}.png")
    measured = Measured(tuple(row.figures for row in found), folder, training_seconds, time.monotonic() - began)
    measured.write()
    shutil.rmtree(folder / WORK, ignore_errors=True)
    return measured


def compute_all(cells: Sequence[Cell], cache: Path, workers: int, on_done: Callable[[Cell, Measured], None]) -> list[Measured]:
    """Every cell in the given order, several at once in processes of one thread each.

    Args:
        cells: What to compute.
        cache: A folder with a folder for each cell, named by its digest.
        workers: How many processes.
        on_done: Called for each cell as it is done.

    Raises:
        TrainingError: The first failure; what runs is finished, what waits is not begun.
    """
    source = source_digest()
    folders = [cache / cell.digest(source) for cell in cells]
    waiting = iter(zip(cells, folders, strict=True))
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        # No more is submitted than runs, because a pool cannot take back what it has handed to its processes.
        running = {pool.submit(compute, cell, folder): cell for cell, folder in islice(waiting, workers)}
        while running:
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                on_done(running.pop(future), future.result())
                running |= {pool.submit(compute, cell, folder): cell for cell, folder in islice(waiting, 1)}
    return [Measured.read(folder) for folder in folders]


def source_digest() -> str:
    """Of every line of Python that takes part."""
    return digest_of(file for folder in SOURCES for file in (ROOT / folder).rglob("*.py"))


def digest_of(files: Iterable[Path]) -> str:
    """Of names and contents, whatever the order."""
    digest = hashlib.sha256()
    for file in sorted(file for file in files if file.is_file()):
        digest.update(f"{file.name} {hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def side_by_side(pictures: list[Image.Image]) -> Image.Image:
    """Pictures of one size in a row."""
    width, height = pictures[0].size
    strip = Image.new("RGB", (width * len(pictures), height))
    for number, picture in enumerate(pictures):
        strip.paste(picture, (number * width, 0))
    return strip


def _strip(row: Row) -> Image.Image:
    """The first eight pictures; of a row with several prompts an equal number of each."""
    each = STRIP // row.prompts
    per_prompt = len(row.pictures) // row.prompts
    return side_by_side([row.pictures[prompt * per_prompt + number] for prompt in range(row.prompts) for number in range(each)])


def _file_name(row: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in row)
