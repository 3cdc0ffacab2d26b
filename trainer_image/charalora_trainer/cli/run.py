"""`charalora run`."""

from pathlib import Path

import click

from charalora_trainer.cli.ending import Ending
from charalora_trainer.cli.resource import OVERRIDE, load
from charalora_trainer.cli.training import PROCESSES, train_here
from charalora_trainer.cli.work import WORK


@click.command(short_help="Run a whole training that a file describes.")
@click.argument("file", type=click.Path(path_type=Path))
@PROCESSES
@WORK
@click.option("--expect-dataset", metavar="DIGEST", help="Refuse another data set than the one that `charalora check` saw.")
@OVERRIDE
def run(file: Path, processes: int | None, work: Path | None, expect_dataset: str | None, overrides: tuple[str, ...]) -> Ending:
    """Run a whole training that FILE, a CharacterLora, describes: fetch, check, train, upload.

    A run that was stopped, by Ctrl-C, SIGTERM or a crash, goes on where it was when it is started again.
    S3 credentials come from the environment or ~/.aws, as for other S3 tools; AWS_ENDPOINT_URL names another service than AWS.

    \b
    Examples:
      charalora run examples/surtr.yaml
      charalora run examples/surtr.yaml --override spec.training.steps=200 --override spec.training.saveEvery=50
      charalora run examples/surtr.yaml --processes 2 --work /scratch/surtr
    """
    return train_here(load(file, overrides), processes, work, expect_dataset)
