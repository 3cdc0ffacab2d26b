"""What `charalora run` and `charalora train` share: a whole training on this machine, and what is told at its end."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from charalora_spec.outcome import Outcome
from charalora_trainer.cli.ending import Ending

if TYPE_CHECKING:
    from charalora_spec.spec import CharacterLora
    from charalora_trainer.export.manifest import Manifest

PROCESSES = click.option(
    "--processes",
    type=click.IntRange(min=1),
    help="Processes that train together, one a GPU. By default one for each GPU of this machine; one without a GPU.",
)


def train_here(run: "CharacterLora", processes: int | None, work: Path | None, expected_dataset: str | None = None) -> Ending:
    """Run a whole training and say where its files are.

    Raises:
        TrainingError: Why it ended, if not well.
    """
    from charalora_trainer.console import open_console
    from charalora_trainer.export import manifest
    from charalora_trainer.stages.run import run_job
    from charalora_trainer.storage import open_store

    result = run_job(run, work, processes or _gpus() or 1, open_console(), expected_dataset)
    written = manifest.find(open_store(result.output_uri, run.spec.storage))
    click.echo(f"Files: {result.output_uri}")
    click.echo(f"Report: {result.output_uri}report.html")
    details = artifacts(written, result.output_uri) if written else {}
    return Ending(Outcome.SUCCEEDED, f"{result.files} files in {result.output_uri}.", details=details)


def artifacts(manifest: "Manifest", uri: str) -> dict[str, Any]:
    """What a finished training tells its operator: the manifest, and the files that people use, each with size and digest."""
    used = [
        {"kind": kind, "uri": uri + file.path, "bytes": file.bytes, "sha256": file.sha256}
        for file in manifest.files
        if (kind := _kind(file.path))
    ]
    return {"output": uri, "manifest": {"uri": f"{uri}manifest.json", "sha256": manifest.digest}, "artifacts": used}


def _kind(path: str) -> str | None:
    if path == "report.html":
        return "report"
    folder, _, name = path.partition("/")
    return {".safetensors": "lora", ".pt": "embedding"}.get(Path(name).suffix) if folder == "civitai" else None


def _gpus() -> int:
    import torch

    return torch.cuda.device_count()
