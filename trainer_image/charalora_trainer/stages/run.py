"""A whole resource on this machine: fetch → check → train → files in the output prefix."""

from dataclasses import dataclass
from pathlib import Path

from charalora_trainer.stages.check import check, raise_for_findings

from charalora_spec.spec import CharacterLora
from charalora_trainer.checkpoint import Checkpoints
from charalora_trainer.console import Console
from charalora_trainer.export import manifest
from charalora_trainer.job import Job, Workspace, default_workspace
from charalora_trainer.ownership import OWNER, claim, identity_of, refuse_foreign
from charalora_trainer.stages.fetch import fetch_base_model, fetch_dataset
from charalora_trainer.stages.launch import launch
from charalora_trainer.storage import LocalStore, Store, open_store, stage


@dataclass(frozen=True)
class JobResult:
    """What a finished training left.

    Attributes:
        output_uri: Where its files lie.
        files: How many the manifest lists.
        report: The report on this machine.
        already_done: Whether an earlier start had finished it, so that nothing was left to do.
    """

    output_uri: str
    files: int
    report: Path
    already_done: bool


def run_job(run: CharacterLora, workspace: Path | None, processes: int, console: Console) -> JobResult:
    """Train one character; start it again after any interruption and it goes on where it was.

    Args:
        run: The resource.
        workspace: Folder for staged files and states; by default one in the cache folder, the same for the same training.
        processes: How many processes train together on this machine, one a GPU.
        console: Where progress is shown.

    Raises:
        TrainingError: Why it ended, if not well.
    """
    identity = identity_of(run, run.spec.training.batch_size * processes)
    place = Workspace(workspace or default_workspace(identity))
    output = open_store(run.spec.output.uri, run.spec.storage)
    refuse_foreign(output, identity)
    done = manifest.find(output)
    if done is not None:
        console.say(f"{output.uri} holds this training's finished files already; nothing is left to do.")
        return JobResult(output.uri, len(done.files), place.output / "report.html", already_done=True)

    dataset = fetch_dataset(run.spec, place, console)
    base_model = fetch_base_model(run.spec.base_model, run.spec.storage, place, console)
    preview_source = run.spec.preview.base_model
    preview_model = fetch_base_model(preview_source, run.spec.storage, place, console) if preview_source else None
    with console.stage("check"):
        report = check(run, dataset, base_model)
    for line in report.summary:
        console.say(line)
    plan = raise_for_findings(report)

    ours = claim(output, run.metadata.name, identity)
    if ours.attempt > 1:
        _mirror(output, place, identity, console)
    warnings = tuple(finding.text for finding in report.findings)
    Job(run, plan, dataset, base_model, preview_model, warnings, ours, processes).write(place.job)
    launch(Job.read(place.job), place, console)
    finished = manifest.find(output)
    return JobResult(output.uri, len(finished.files) if finished else 0, place.output / "report.html", already_done=False)


def _mirror(output: Store, place: Workspace, identity: str, console: Console) -> None:
    """Bring what earlier attempts left in the output prefix here, so that the last attempt's files are complete."""
    states = Checkpoints(place.states, identity)
    with console.stage("fetch earlier attempt"):
        states.fetch_newest(output)
        entries = [entry for entry in output.list() if not entry.key.startswith("state/") and entry.key != OWNER]
        if not isinstance(output, LocalStore):
            stage(output, entries, place.output)
