"""A whole resource on this machine: fetch → check → train → files in the output prefix."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from charalora_spec.outcome import Outcome, TrainingError
from charalora_spec.spec import CharacterLora, Storage
from charalora_trainer import basemodel
from charalora_trainer.checkpoint import Checkpoints
from charalora_trainer.console import Console
from charalora_trainer.export import manifest
from charalora_trainer.job import Job, Workspace, default_workspace
from charalora_trainer.metrics import Metrics
from charalora_trainer.nodes import ALONE, Node
from charalora_trainer.ownership import claim, identity_of, refuse_change, refuse_foreign, unclaimed
from charalora_trainer.stages import inventory
from charalora_trainer.stages.check import raise_for_findings
from charalora_trainer.stages.fetch import fetch_base_model
from charalora_trainer.stages.launch import launch
from charalora_trainer.stages.preflight import preflight
from charalora_trainer.storage import Store, open_store
from charalora_trainer.storage.keys import problem_of

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


@dataclass(frozen=True)
class Start:
    """How a training is started here, beside what is trained.

    Attributes:
        workspace: Folder for staged files and states; None: one in the cache folder, the same for the same training.
        processes: How many processes train together on this node, one a GPU.
        node: This machine among those that train together.
        expected_dataset: Digest of the data set as an earlier check saw it; another one is not trained on.
    """

    workspace: Path | None
    processes: int
    node: Node = ALONE
    expected_dataset: str | None = None

    @property
    def world(self) -> int:
        """How many processes train together, on all nodes."""
        return self.processes * self.node.count


def run_job(run: CharacterLora, start: Start, console: Console, metrics: Metrics) -> JobResult:
    """Train one character; start it again after any interruption and it goes on where it was.

    Args:
        run: The resource.
        start: Where, and by how many.
        console: Where a person reads how far it is.
        metrics: Where Prometheus does.

    Raises:
        TrainingError: Why it ended, if not well.
    """
    identity = identity_of(run, run.spec.training.batch_size * start.world)
    place = Workspace(start.workspace or default_workspace(identity))
    output = open_store(run.spec.output.uri, run.spec.storage)
    refuse_foreign(output, identity)
    done = manifest.find(output)
    if done is not None:
        manifest.verify(done, output)
        console.say(f"{output.uri} holds this training's finished files already; nothing is left to do.")
        return JobResult(output.uri, len(done.files), place.output / "report.html", already_done=True)
    with place.kept():
        job = _prepared(run, place, start, console, metrics.began)
        if job.claim.attempt > 1:
            _mirror(output, place, identity, console)
        job.write(place.job)
        launch(Job.read(place.job), place, start.node, console, metrics)
    finished = manifest.find(output)
    if finished is None:
        raise TrainingError(Outcome.INTERNAL_ERROR, f"The training ended, but {output.uri} has no {manifest.FILE}.")
    return JobResult(output.uri, len(finished.files), place.output / "report.html", already_done=False)


def _prepared(run: CharacterLora, place: Workspace, start: Start, console: Console, began: float) -> Job:
    """Check, fetch, and take the output prefix: the first node does that for all.

    Raises:
        TrainingError: Why the training must not start.
    """
    checked = preflight(run, start.world, console, place.root)
    for line in checked.report.summary:
        console.say(line)
    plan = raise_for_findings(checked.report)
    if start.expected_dataset is not None:
        refuse_change(start.expected_dataset, plan.digest, "the check saw another one")
    spec, preview = run.spec, run.spec.preview.base_model
    base_model = fetch_base_model(spec.base_model.uri, spec.storage, place, console)
    if spec.base_model.uri.startswith("hf://"):
        _refuse_unfit(base_model)
    preview_model = fetch_base_model(preview, spec.storage, place, console) if preview else None
    taken = partial(claim, checked.output) if start.node.is_first else unclaimed
    ours = taken(run.metadata.name, checked.identity, plan.digest)
    warnings = tuple(finding.text for finding in checked.report.findings)
    return Job(run, plan, checked.dataset, base_model, preview_model, warnings, ours, start.world, began)


def _refuse_unfit(base_model: Path) -> None:
    """Look at a base model of the hub, which could not be looked at before it was fetched.

    Raises:
        TrainingError: `BaseModelInvalid`.
    """
    _, findings = basemodel.inspect(basemodel.locate(str(base_model), Storage()))
    problems = [finding.text for finding in findings if finding.stops]
    if problems:
        raise TrainingError(Outcome.BASE_MODEL_INVALID, " ".join(problems))


def _mirror(output: Store, place: Workspace, identity: str, console: Console) -> None:
    """Bring what earlier attempts left in the output prefix here, so that the last attempt's files are complete.

    Where the store has the newest state, its files count; else those of this disk do.
    """
    states = Checkpoints(place.states, identity)
    here = states.newest()
    with console.stage("fetch earlier attempt"):
        newest = states.fetch_newest(output)
        if newest is not None:
            inventory.bring(output, newest.folder, place.output, console)
        saved = {file.path for file in inventory.read(newest.folder)} if newest is not None else set()
        others = (entry for entry in output.list() if not entry.key.startswith("state/") and entry.key not in saved)
        entries = [entry for entry in others if not problem_of(entry.key)]  # no file of ours has such a name: it could lead anywhere
        if newest == here:
            wanted = [entry for entry in entries if not (place.output / entry.key).exists()]
        else:
            wanted = [entry for entry in entries if not output.holds(place.output / entry.key, entry)]
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(lambda entry: output.download(entry.key, place.output / entry.key, entry), wanted))
