"""`charalora check`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from charalora_spec.outcome import Outcome
from charalora_trainer.cli.ending import WARNING_BYTES, Ending, fitting
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
    from charalora_trainer.stages.preflight import preflight, prove_writable
    from charalora_trainer.storage import open_store

    run = load(file, overrides)
    together = processes or max(1, run.spec.resources.gpus * run.spec.resources.nodes)
    prove_writable(open_store(run.spec.output.uri, run.spec.storage))
    report = preflight(run, together, open_console(), work, dataset).report
    if as_json:
        click.echo(json.dumps(report.to_json(), ensure_ascii=False, indent=1))
    else:
        for line in (*report.summary, *(f"Warning: {finding.text}" for finding in report.findings if not finding.stops)):
            click.echo(line)
    return ending(report, run.metadata.name)


def ending(report: "CheckReport", name: str) -> Ending:
    """What the findings amount to: ready, or every problem and the most telling reason."""
    problems = tuple((finding.outcome, finding.text) for finding in report.findings if finding.stops)
    if not problems:
        return Ending(Outcome.SUCCEEDED, f"{name} can be trained.", details=details(report))
    summary = f"{name} cannot be trained yet: {len(problems)} {'problem' if len(problems) == 1 else 'problems'}."
    return Ending(report.outcome, summary, problems, details(report))


def details(report: "CheckReport") -> dict[str, Any]:
    """What the resource's status shows of a check: the data set by the names of `status.dataset`, and warnings as far as there is room."""
    warnings = [finding.text for finding in report.findings if not finding.stops]
    told = {"warnings": shown} if (shown := fitting(warnings, WARNING_BYTES)) else {}
    plan = report.plan
    if plan is None:
        return told
    [width, height] = [plan.buckets[0].width, plan.buckets[0].height] if len(plan.buckets) == 1 else [None, None]
    sizes = {"width": width, "height": height, "buckets": len(plan.buckets)}
    return {"dataset": {"images": len(plan.pairs), **sizes, "tokens": plan.tokens, "digest": plan.digest}} | told
