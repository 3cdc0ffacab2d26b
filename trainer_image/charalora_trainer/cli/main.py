"""`charalora`: the group of commands and what they share."""

import os
from collections.abc import Iterable
from importlib.metadata import version

import click

from charalora_trainer import logs
from charalora_trainer.cli.check import check
from charalora_trainer.cli.convert import convert
from charalora_trainer.cli.embed import embed
from charalora_trainer.cli.generate import generate
from charalora_trainer.cli.report import report
from charalora_trainer.cli.run import run
from charalora_trainer.cli.train import train

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


class Workflow(click.Group):
    """Commands in the order in which they are used."""

    def list_commands(self, ctx: click.Context) -> Iterable[str]:  # type: ignore[override]  # noqa: ARG002 - click's signature
        """Not by the alphabet."""
        return self.commands


@click.group(cls=Workflow, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option(
    "--log-level",
    type=click.Choice(LEVELS, case_sensitive=False),
    default="WARNING",
    envvar=logs.ENV_LEVEL,
    help="Least level that is logged to stderr; DEBUG shows tracebacks.",
    show_default=True,
)
@click.option("--log-json", is_flag=True, envvar=logs.ENV_JSON, help="Log JSON objects, one a line.")
@click.version_option(version("charalora"), "-V", "--version", message="%(prog)s %(version)s")
def charalora(log_level: str, *, log_json: bool) -> None:
    """Train a LoRA and a trigger word for one anime character, and use them.

    \b
    Check, then train what examples/surtr.yaml describes:
      charalora check examples/surtr.yaml
      charalora run examples/surtr.yaml

    \b
    The same from a folder of captioned pictures, as in the guide:
      charalora train --character-name surtr_arknights --dataset-dir /data/surtr --base-model /models/animefull
      charalora generate --exp-dir exps/2026-11-22-23-20-04 --model-steps 1000 \\
          --prompt 'masterpiece, best quality, 1girl, solo, {surtr_arknights-1000:1.2}'

    \b
    Environment, beside that of AWS and of the Hugging Face hub:
      CHARALORA_CACHE            folder for working files [~/.cache/charalora]
      CHARALORA_MODEL_CACHE      folder of base models that runs share; without it each run fetches its own
      CHARALORA_DEVICE           cpu: leave GPUs alone
      CHARALORA_GPUS             end with GpuMismatch unless this machine shows so many
      CHARALORA_CA_FILE          certificates that sign the storage's
      CHARALORA_STORAGE_TIMEOUT  seconds after which a storage that does not answer is given up
      CHARALORA_METRICS_PORT     port that a run serves its figures on, for Prometheus
      CHARALORA_TERMINATION_LOG  file for how the command ended, as JSON
      CHARALORA_LOG_LEVEL, CHARALORA_LOG_JSON  as the options
      CHARALORA_LOG_FIELDS       fields of every line that is logged, such as "name=surtr attempt=1"
    """
    logs.configure(log_level.upper(), as_json=log_json)
    os.environ.update({logs.ENV_LEVEL: log_level.upper(), logs.ENV_JSON: "1" if log_json else "0"})  # for a training's processes


for command in (run, check, embed, train, generate, convert, report):
    charalora.add_command(command)
