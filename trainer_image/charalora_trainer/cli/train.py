"""`charalora train`, the guide's third step."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from charalora_trainer.cli.ending import Ending
from charalora_trainer.cli.resource import OVERRIDE, file_uri, model_uri, overridden, resource_name
from charalora_trainer.cli.training import PROCESSES, processes_here, told_metrics, train_here
from charalora_trainer.cli.work import WORK

if TYPE_CHECKING:
    from charalora_spec.spec import CharacterLora


@click.command(short_help="Train from a folder of captioned pictures.")
@click.option("--character-name", required=True, help="The trigger word; also the name of the embedding.")
@click.option(
    "--dataset-dir",
    required=True,
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder of pictures and .txt captions.",
)
@click.option("--base-model", required=True, help="Diffusers folder, uri, or name on the Hugging Face hub. You choose; check its licence.")
@click.option("--exp-dir", type=click.Path(path_type=Path, file_okay=False), help="Where the files go. By default exps/<time>.")
@click.option("--steps", type=int, default=1000, show_default=True, help="Training steps.")
@click.option("--save-every", type=int, default=100, show_default=True, help="Steps between two checkpoints.")
@PROCESSES
@WORK
@OVERRIDE
@click.pass_context
def train(
    context: click.Context,
    character_name: str,
    dataset_dir: Path,
    base_model: str,
    exp_dir: Path | None,
    steps: int,
    save_every: int,
    processes: int | None,
    work: Path | None,
    overrides: tuple[str, ...],
) -> Ending:
    """Train from a folder of captioned pictures, with the guide's recipe.

    The embedding is made here; a file of `charalora embed` is not needed. What runs is a CharacterLora with every default:
    it is written to cfg.yaml in the folder of the files, and `charalora run` runs it again.

    \b
    Examples:
      charalora train --character-name surtr_arknights --dataset-dir /data/surtr --base-model /models/animefull
      charalora train --character-name surtr_arknights --dataset-dir /data/surtr --base-model org/model \\
          --exp-dir exps/surtr --steps 2000 --save-every 200 --override spec.training.batchSize=8
    """
    exp_dir = exp_dir or Path("exps") / datetime.now().astimezone().strftime("%Y-%m-%d-%H-%M-%S")
    with told_metrics(context) as metrics:
        from charalora_trainer.processes import gpu_count
        from charalora_trainer.stages.run import Start

        together = processes_here(processes, gpus=0)
        gpus = together if together > 1 or gpu_count() else 0  # so that `charalora run` on cfg.yaml is the same training
        fields = {"training.steps": steps, "training.saveEvery": save_every, "resources.gpus": gpus}
        run = resource(character_name, dataset_dir, base_model, exp_dir, fields, overrides)
        return train_here(run, Start(work, together), metrics)


def resource(
    character: str, dataset: Path, base_model: str, exp_dir: Path, fields: dict[str, int], overrides: Sequence[str]
) -> "CharacterLora":
    """The resource for a folder of pictures.

    Raises:
        TrainingError: `SpecInvalid` with every problem of the values.
    """
    from charalora_spec.problems import read_resource
    from charalora_spec.spec import API_VERSION, KIND

    document = {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": resource_name(character)},
        "spec": {
            "character": {"name": character},
            "dataset": {"uri": file_uri(dataset)},
            "baseModel": {"uri": model_uri(base_model)},
            "output": {"uri": file_uri(exp_dir)},
        },
    }
    given = [f"spec.{path}={value}" for path, value in fields.items()]
    return read_resource(overridden(document, [*given, *overrides]), "The command line")
