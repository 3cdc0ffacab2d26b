"""A whole resource on this machine: fetch → check → train → files in the output prefix."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from charalora_spec.outcome import Outcome, TrainingError
from charalora_spec.spec import CharacterLora
from charalora_trainer.checkpoint import Checkpoints
from charalora_trainer.console import Console
from charalora_trainer.export import manifest
from charalora_trainer.job import Job, Workspace
from charalora_trainer.ownership import claim, refuse_change
from charalora_trainer.stages.check import raise_for_findings
from charalora_trainer.stages.fetch import fetch_base_model
from charalora_trainer.stages.launch import launch
from charalora_trainer.stages.preflight import preflight
from charalora_trainer.storage import Store

THREADS = 8


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


def run_job(run: CharacterLora, workspace: Path | None, processes: int, console: Console, expected_dataset: str | None = None) -> JobResult:
    """Train one character; start it again after any interruption and it goes on where it was.

    Args:
        run: The resource.
        workspace: Folder for staged files and states; by default one in the cache folder, the same for the same training.
        processes: How many processes train together on this machine, one a GPU.
        console: Where progress is shown.
        expected_dataset: Digest of the data set as an earlier check saw it; another one is not trained on.

    Raises:
        TrainingError: Why it ended, if not well.
    """
    checked = preflight(run, processes, console, workspace)
    output, place, report = checked.output, checked.place, checked.report
    done = manifest.find(output)
    if done is not None:
        console.say(f"{output.uri} holds this training's finished files already; nothing is left to do.")
        return JobResult(output.uri, len(done.files), place.output / "report.html", already_done=True)
    for line in report.summary:
        console.say(line)
    plan = raise_for_findings(report)
    if expected_dataset is not None:
        refuse_change(expected_dataset, plan.digest, "the check saw another one")
    spec = run.spec
    base_model = fetch_base_model(spec.base_model.uri, spec.storage, place, console)
    preview = spec.preview.base_model
    preview_model = fetch_base_model(preview, spec.storage, place, console) if preview else None

    ours = claim(output, run.metadata.name, checked.identity, plan.digest)
    if ours.attempt > 1:
        _mirror(output, place, checked.identity, console)
    warnings = tuple(finding.text for finding in report.findings)
    Job(run, plan, checked.dataset, base_model, preview_model, warnings, ours, processes).write(place.job)
    launch(Job.read(place.job), place, console)
    finished = manifest.find(output)
    if finished is None:
        raise TrainingError(Outcome.INTERNAL_ERROR, f"The training ended, but {output.uri} has no {manifest.FILE}.")
    return JobResult(output.uri, len(finished.files), place.output / "report.html", already_done=False)


def _mirror(output: Store, place: Workspace, identity: str, console: Console) -> None:
    """Bring what earlier attempts left in the output prefix here, so that the last attempt's files are complete."""
    with console.stage("fetch earlier attempt"):
        Checkpoints(place.states, identity).fetch_newest(output)
        missing = [entry for entry in output.list() if not entry.key.startswith("state/") and not (place.output / entry.key).exists()]
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(lambda entry: output.download(entry.key, place.output / entry.key), missing))
