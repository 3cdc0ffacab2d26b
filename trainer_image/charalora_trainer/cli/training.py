"""What `charalora run` and `charalora train` share: a whole training on this machine, and what is told at its end."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from charalora_spec.outcome import Outcome, TrainingError
from charalora_trainer.cli.ending import Ending

if TYPE_CHECKING:
    from charalora_spec.spec import CharacterLora
    from charalora_trainer.metrics import Metrics
    from charalora_trainer.stages.run import Start

PROCESSES = click.option(
    "--processes",
    type=click.IntRange(min=1),
    help="Processes that train together on this machine, one a GPU. By default one for each GPU; without a GPU as many as resources.gpus "
    "asks for, but not more than there are cores.",
)
GPUS = "CHARALORA_GPUS"
"""Environment variable: how many GPUs this machine must show."""


@contextmanager
def told_metrics(context: click.Context) -> Iterator["Metrics"]:
    """Figures of a training, served as the environment says; however it ends, its last steps are told with its outcome."""
    from charalora_trainer.metrics import served

    with served(os.environ) as metrics:
        try:
            yield metrics
        finally:
            context.ensure_object(dict).update(last_steps(metrics))


def last_steps(metrics: "Metrics") -> dict[str, Any]:
    """How far a training got, as far as that is known: the last step, and that of the last state that is whole in the store since when."""
    step, saved, since = (metrics.value(name) for name in ("step", "last_checkpoint_step", "last_checkpoint_timestamp_seconds"))
    if step is None:
        return {}
    return {"step": int(step), "savedStep": int(saved or 0)} | ({"savedAt": int(since)} if since else {})


def train_here(run: "CharacterLora", start: "Start", metrics: "Metrics") -> Ending:
    """Run a whole training and say where its files are.

    Raises:
        TrainingError: Why it ended, if not well.
    """
    from charalora_trainer.console import MeteredConsole, open_console
    from charalora_trainer.export import manifest
    from charalora_trainer.stages.results import results
    from charalora_trainer.stages.run import run_job
    from charalora_trainer.storage import open_store

    if start.node.is_first:
        metrics.set("training_info", 1, **described(run))
    result = run_job(run, start, MeteredConsole(open_console(), metrics), metrics)
    output = open_store(result.output_uri, run.spec.storage)
    written = manifest.find(output)
    click.echo(f"Files: {result.output_uri}")
    click.echo(f"Report: {result.output_uri}report.html")
    details = results(run, written, output) if written else {}
    published = f" Published is {details['chosen']}." if details else ""
    return Ending(Outcome.SUCCEEDED, f"{result.files} files in {result.output_uri}.{published}", details=details)


def described(run: "CharacterLora") -> dict[str, str]:
    """What is trained, and where its files go, for the labels of a figure."""
    spec = run.spec
    return {
        "word": spec.character.name,
        "base_model": spec.base_model.uri,
        "dataset": spec.dataset.uri,
        "output": f"{spec.output.uri.rstrip('/')}/",
    }


def processes_here(asked: int | None, gpus: int) -> int:
    """How many processes train together on this machine, where the resource asks for `gpus`.

    Raises:
        TrainingError: `GpuMismatch` when this machine shows another number of GPUs than its cluster was asked for.
    """
    refuse_other_gpus(os.environ.get(GPUS))
    if asked is not None:
        return asked
    from charalora_trainer.cores import available_cores
    from charalora_trainer.processes import gpu_count

    return gpu_count() or max(1, min(gpus, available_cores()))


def refuse_other_gpus(expected: str | None) -> None:
    """Make sure that this machine shows as many GPUs as the environment says; nothing is asked where it says nothing.

    Raises:
        TrainingError: `GpuMismatch`.
    """
    if not expected:
        return
    from charalora_trainer.processes import gpu_count

    if (found := gpu_count()) != int(expected):
        raise TrainingError(
            Outcome.GPU_MISMATCH,
            f"This machine shows {found} GPUs where {expected} were asked for; look at its driver and device plugin, "
            "or change resources.gpus.",
        )
