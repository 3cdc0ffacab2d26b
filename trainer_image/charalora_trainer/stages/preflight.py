"""Everything that can be known before a training starts, with no weights fetched and no torch imported."""

from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from charalora_spec.outcome import Outcome, TrainingError
from charalora_spec.spec import CharacterLora, Storage
from charalora_trainer import basemodel
from charalora_trainer.console import Console
from charalora_trainer.job import Workspace, default_workspace
from charalora_trainer.ownership import identity_of, refuse_foreign
from charalora_trainer.stages.check import CheckReport, check
from charalora_trainer.stages.fetch import fetch_dataset
from charalora_trainer.storage import Store, open_store


@dataclass(frozen=True)
class Preflight:
    """What was looked at, and what was found.

    Attributes:
        identity: Digest of what would be trained.
        place: Where this run keeps its files on this machine.
        output: The output prefix; no other training owns it.
        dataset: The folder that the data set was staged to.
        report: The findings.
    """

    identity: str
    place: Workspace
    output: Store
    dataset: Path
    report: CheckReport


def preflight(
    run: CharacterLora, processes: int, console: Console, workspace: Path | None = None, dataset: Path | None = None
) -> Preflight:
    """Look at output prefix, data set and base model.

    Args:
        run: The resource.
        processes: How many would train together.
        console: Where progress is shown.
        workspace: Where to stage files; by default a folder in the cache, the same for the same training.
        dataset: Look at this folder instead of `dataset.uri`.

    Raises:
        TrainingError: A store that does not answer, or an output prefix of another training; findings are in the report.
    """
    spec = run.spec
    identity = identity_of(run, spec.training.batch_size * processes)
    place = Workspace(workspace or default_workspace(identity))
    output = open_store(spec.output.uri, spec.storage)
    refuse_foreign(output, identity)
    folder = dataset or fetch_dataset(spec, place, console)
    with console.stage("check"):
        preview = spec.preview.base_model
        preview_base = _located(preview, spec.storage) if preview else None
        report = check(run, folder, _located(spec.base_model.uri, spec.storage), preview_base, processes)
    return Preflight(identity, place, output, folder, report)


def prove_writable(output: Store) -> None:
    """Write, list and delete a small object in the output prefix: what a training needs to do there, found out before it costs a GPU.

    Raises:
        TrainingError: The store refuses one of the three, or does not answer.
    """
    key = f"state/.write-test-{uuid4().hex[:8]}"
    output.write(key, b"charalora check\n")
    try:
        listed = any(entry.key == key for entry in output.list())
    finally:
        output.delete([key])
    if not listed:
        raise TrainingError(
            Outcome.STORAGE_ACCESS_DENIED,
            f"{output.uri} takes files but does not list them; give the credentials the right to list its bucket.",
        )


def _located(uri: str, storage: Storage) -> basemodel.Source | None:
    """A base model where it lies; one on the Hugging Face hub is left to the training."""
    return None if uri.startswith("hf://") else basemodel.locate(uri, storage)
