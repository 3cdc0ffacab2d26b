"""`charalora check`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from charalora_spec.outcome import Outcome
from charalora_trainer.cli.ending import Ending
from charalora_trainer.cli.resource import OVERRIDE, load
from charalora_trainer.cli.work import WORK

if TYPE_CHECKING:
    from charalora_trainer.stages.check import CheckReport


@click.command(short_help="Check a file, its data set and its base model.")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--dataset", type=click.Path(path_type=Path, exists=True, file_okay=False), help="Check this folder instead of dataset.uri.")
@click.option("--json", "as_json", is_flag=True, help="Print what was found as JSON.")
@click.option("--processes", type=click.IntRange(min=1), help="How many will train together. By default resources.gpus, at least one.")
@WORK
@OVERRIDE
def check(
    file: Path, dataset: Path | None, processes: int | None, work: Path | None, overrides: tuple[str, ...], *, as_json: bool
) -> Ending:
    """Check that FILE, a CharacterLora, can be trained: its fields, every picture and caption, the trigger word, the base model.

    Everything that is wrong is told at once. No GPU is needed, and of a base model in a bucket only the headers are read.

    \b
    Examples:
      charalora check examples/surtr.yaml
      charalora check examples/surtr.yaml --dataset /data/surtr --json
    """
    from charalora_trainer.console import open_console
    from charalora_trainer.stages.preflight import preflight

    run = load(file, overrides)
    together = processes or max(1, run.spec.resources.gpus * run.spec.resources.nodes)
    report = preflight(run, together, open_console(), work, dataset).report
    if as_json:
        click.echo(json.dumps(report.to_json(), ensure_ascii=False, indent=1))
    else:
        for line in (*report.summary, *(f"Warning: {finding.text}" for finding in report.findings if not finding.stops)):
            click.echo(line)
    return ending(report, file)


def ending(report: "CheckReport", file: Path) -> Ending:
    """What the findings amount to: ready, or every problem and the most telling reason."""
    problems = tuple((finding.outcome, finding.text) for finding in report.findings if finding.stops)
    if not problems:
        return Ending(Outcome.SUCCEEDED, f"{file} can be trained.", details=report.to_json())
    summary = f"{file} cannot be trained yet: {len(problems)} {'problem' if len(problems) == 1 else 'problems'}."
    return Ending(report.outcome, summary, problems, report.to_json())
