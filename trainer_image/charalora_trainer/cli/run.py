"""`charalora run`."""

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click

from charalora_trainer.cli.ending import Ending
from charalora_trainer.cli.resource import OVERRIDE, load
from charalora_trainer.cli.training import PROCESSES, processes_here, told_metrics, train_here
from charalora_trainer.cli.work import WORK


class Rendezvous(click.ParamType[tuple[str, int]]):
    """A host and a port."""

    name = "HOST:PORT"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, int]:
        """As typed, to its parts; an IPv6 address stands in brackets."""
        parts = urlsplit(f"//{value}")
        try:
            host, port = parts.hostname, parts.port
        except ValueError:  # a port that is no number, or too large a one
            host, port = None, None
        if not host or not port or parts.path:
            self.fail(f"{value} is no HOST:PORT, such as first.example.com:29500.", param, ctx)
        return host, port


@click.command(short_help="Run a whole training that a file describes.")
@click.argument("file", type=click.Path(path_type=Path))
@PROCESSES
@click.option("--nodes", type=click.IntRange(min=1), default=1, help="Machines that train together, each with its own `charalora run`.")
@click.option("--node-rank", type=click.IntRange(min=0), default=0, help="Number of this machine among them; 0 writes the files.")
@click.option("--rendezvous", type=Rendezvous(), help="Where machine 0 listens for the others.")
@click.option("--run-id", default="", metavar="TEXT", help="Name of this start, the same on all machines and another for each start.")
@WORK
@click.option("--expect-dataset", metavar="DIGEST", help="Refuse another data set than the one that `charalora check` saw.")
@OVERRIDE
@click.pass_context
def run(
    context: click.Context,
    file: Path,
    processes: int | None,
    nodes: int,
    node_rank: int,
    rendezvous: tuple[str, int] | None,
    run_id: str,
    work: Path | None,
    expect_dataset: str | None,
    overrides: tuple[str, ...],
) -> Ending:
    """Run a whole training that FILE, a CharacterLora, describes: fetch, check, train, upload.

    A run that was stopped, by Ctrl-C, SIGTERM or a crash, goes on where it was when it is started again.
    S3 credentials come from the environment or ~/.aws, as for other S3 tools; AWS_ENDPOINT_URL names another service than AWS.

    \b
    Examples:
      charalora run examples/surtr.yaml
      charalora run examples/surtr.yaml --override spec.training.steps=200 --override spec.training.saveEvery=50
      charalora run examples/surtr.yaml --processes 2 --work /scratch/surtr
      charalora run examples/two-nodes.yaml --nodes 2 --node-rank 0 --rendezvous first.example.com:29500 --run-id monday
    """
    if nodes > 1 and (rendezvous is None or not run_id):
        raise click.UsageError("Several nodes need --rendezvous and --run-id, the same on each.")
    if node_rank >= nodes:
        raise click.BadParameter(f"{node_rank} is not below {nodes}, the number of nodes.", param_hint="--node-rank")
    with told_metrics(context) as metrics:
        from charalora_trainer.nodes import Node
        from charalora_trainer.stages.run import Start

        node = Node(nodes, node_rank, *(rendezvous or ("", 0)), run_id)
        resource = load(file, overrides)
        start = Start(work, processes_here(processes, resource.spec.resources.gpus), node, expect_dataset)
        return train_here(resource, start, metrics)
