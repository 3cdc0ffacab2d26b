"""`charalora embed`, the guide's second step."""

from pathlib import Path

import click


@click.command(short_help="Create an embedding, the trigger word's vectors.")
@click.argument("model")
@click.argument("name")
@click.argument("n", type=click.IntRange(1, 64))
@click.option(
    "--init-text", default="", help="Words whose vectors it starts from; empty for random ones, *0.02 for another deviation than 0.017."
)
@click.option("--root", type=click.Path(path_type=Path, file_okay=False), default="embs", show_default=True, help="Folder for the file.")
@click.option("--seed", type=int, default=114514, show_default=True, help="Makes the random vectors; training uses the same by default.")
@click.option("--replace", is_flag=True, help="Write over an embedding of that name.")
def embed(model: str, name: str, n: int, init_text: str, root: Path, seed: int, *, replace: bool) -> None:
    """Create the embedding NAME with N vectors for MODEL, and write it to embs/NAME.pt.

    MODEL is a diffusers folder, a .safetensors or .ckpt file, a uri or a name on the Hugging Face hub. `charalora train` and
    `charalora run` make the same embedding by themselves; this one is for looking at it, or for other programs.

    \b
    Examples:
      charalora embed /models/animefull surtr_arknights 4
      charalora embed org/model surtr_arknights 4 --init-text 'red hair, horns'
    """
    file = root / f"{name}.pt"
    if file.exists() and not replace:
        raise click.UsageError(f"{file} exists already; give --replace to write over it, or another name.")

    from charalora_spec.spec import Prediction, Storage
    from charalora_trainer.cli.resource import model_uri
    from charalora_trainer.console import open_console
    from charalora_trainer.job import Workspace, default_workspace
    from charalora_trainer.model.load import load_models
    from charalora_trainer.stages.fetch import fetch_base_model
    from charalora_trainer.words import embedding

    console = open_console()
    folder = fetch_base_model(model_uri(model), Storage(), Workspace(default_workspace("embed")), console)
    with console.stage("load base model"):
        models = load_models(folder, Prediction.EPSILON)
    table = models.text_encoder.get_input_embeddings().weight.detach()
    word = embedding.create(name, n, init_text, seed, table, models.tokenizer)
    root.mkdir(parents=True, exist_ok=True)
    embedding.save_pt(word, file)
    click.echo(f"{file}: {n} vectors of {word.vectors.shape[1]}.")
