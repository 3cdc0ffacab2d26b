"""One run on this disk: where its files lie, and what its processes have to know."""

import fcntl
import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from charalora_spec.outcome import Outcome, TrainingError
from charalora_spec.spec import CharacterLora
from charalora_trainer.data.dataset import DatasetPlan
from charalora_trainer.ownership import Claim
from charalora_trainer.storage.wholefile import TEMPORARY

LOST_PARTNERS = 111
"""Exit code of a process that ended because others of its training had, on another node."""


@dataclass(frozen=True)
class Workspace:
    """The folders of one run; safe to delete when it has ended, and safe to keep for a resume."""

    root: Path

    @property
    def dataset(self) -> Path:
        """Pictures and captions as staged from the store."""
        return self.root / "dataset"

    @property
    def models(self) -> Path:
        """Base models as staged from the store, a folder each."""
        return self.root / "models"

    @property
    def trainings(self) -> Path:
        """Files of earlier trainings that pictures are made with, a folder each."""
        return self.root / "trainings"

    @property
    def latents(self) -> Path:
        """Encoded pictures."""
        return self.root / "latents"

    @property
    def output(self) -> Path:
        """What the output prefix holds, here."""
        return self.root / "output"

    @property
    def states(self) -> Path:
        """Training states; the same folder of the output prefix."""
        return self.output / "state"

    @property
    def job(self) -> Path:
        """What the processes read at their start."""
        return self.root / "job.json"

    @property
    def outcome(self) -> Path:
        """How a process that failed ended; the first one writes it."""
        return self.root / "outcome.json"

    @property
    def metrics(self) -> Path:
        """Figures of the processes of a running training, a file each."""
        return self.root / "metrics"

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Keep every other run out while the block runs, and sweep what a killed one left half written.

        The kernel lets go of the lock when this process ends, however it ends.

        Raises:
            TrainingError: `OutputOccupied` when another run works here.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / "lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise TrainingError(
                    Outcome.OUTPUT_OCCUPIED,
                    f"Another run works in {self.root}; wait for its end, stop it, or name another folder with --work.",
                ) from error
            for draft in (*self.root.rglob(f"{TEMPORARY}*"), *self.output.rglob(".*")):
                if draft.is_file():
                    draft.unlink()
            yield


def default_workspace(identity: str) -> Path:
    """`$CHARALORA_CACHE/runs/<identity>`, by default below ~/.cache/charalora."""
    cache = os.environ.get("CHARALORA_CACHE") or Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "charalora"
    return Path(cache) / "runs" / identity


@dataclass(frozen=True)
class Job:
    """What a training needs to know beyond the workspace: decided once, before any process starts.

    Attributes:
        run: The resource.
        plan: The data set as checked.
        dataset: The folder that its pictures lie in.
        base_model: The staged folder or file of the base model.
        preview_model: The same for pictures; None where previews use the training's own.
        warnings: What the check found worth knowing.
        claim: Our right to write to the output prefix; of another node than the first, a claim that stands nowhere.
        processes: How many processes train together, on all nodes.
        began: Unix time at which the command started.
    """

    run: CharacterLora
    plan: DatasetPlan
    dataset: Path
    base_model: Path
    preview_model: Path | None
    warnings: tuple[str, ...]
    claim: Claim
    processes: int
    began: float = 0.0

    def write(self, path: Path) -> None:
        """Leave it for the processes."""
        content = {
            "run": self.run.model_dump(mode="json", by_alias=True),
            "plan": self.plan.to_json(),
            "dataset": str(self.dataset),
            "baseModel": str(self.base_model),
            "previewModel": str(self.preview_model) if self.preview_model else None,
            "warnings": list(self.warnings),
            "claim": self.claim.to_json(),
            "processes": self.processes,
            "began": self.began,
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=1))

    @classmethod
    def read(cls, path: Path) -> "Job":
        """What `write` left."""
        content = json.loads(path.read_text())
        return cls(
            run=CharacterLora.model_validate(content["run"]),
            plan=DatasetPlan.from_json(content["plan"]),
            dataset=Path(content["dataset"]),
            base_model=Path(content["baseModel"]),
            preview_model=Path(content["previewModel"]) if content["previewModel"] else None,
            warnings=tuple(content["warnings"]),
            claim=Claim.from_json(content["claim"]),
            processes=content["processes"],
            began=content["began"],
        )


def note_outcome(workspace: Workspace, error: TrainingError) -> None:
    """Leave a failure for the process that started this one; of several only the first counts."""
    try:
        with workspace.outcome.open("x") as file:
            json.dump({"reason": error.outcome.reason, "message": error.message}, file)
    except FileExistsError:
        logging.getLogger(__name__).debug("Another process failed first")


def noted_outcome(workspace: Workspace) -> TrainingError | None:
    """The failure that a process left, if one did."""
    try:
        noted = json.loads(workspace.outcome.read_text())
    except FileNotFoundError:
        return None
    outcome = next(outcome for outcome in Outcome if outcome.reason == noted["reason"])
    return TrainingError(outcome, noted["message"])
