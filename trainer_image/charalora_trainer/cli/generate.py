"""`charalora generate`, the guide's fourth step."""

from pathlib import Path

import click

FOLDER = click.Path(path_type=Path, file_okay=False)


@click.command(short_help="Make pictures with what was trained.")
@click.option("--exp-dir", required=True, help="Where the files of a training are: a folder, or a uri such as s3://loras/surtr/.")
@click.option("--model-steps", type=int, default=1000, show_default=True, help="Which checkpoint.")
@click.option(
    "--prompt", "prompts", multiple=True, required=True, help="What to show; {WORD-STEPS:1.2} or {WORD:1.2} weighs the trigger word."
)
@click.option("--neg-prompt", help="What not to show. By default a neutral one.")
@click.option("--pretrained-model", help="Base model for the pictures: folder, file, uri or hub name. By default the training's.")
@click.option("--width", type=int, default=512, show_default=True, help="Pixels, a multiple of 8.")
@click.option("--height", type=int, default=768, show_default=True, help="Pixels, a multiple of 8.")
@click.option("--guidance-scale", type=float, default=7.5, show_default=True, help="How strictly the prompt is followed.")
@click.option("--num-inference-steps", type=click.IntRange(min=1), default=30, show_default=True, help="Denoising steps.")
@click.option("--alpha", type=float, default=0.85, show_default=True, help="Strength of the LoRA; 1 is as trained.")
@click.option("--num", type=click.IntRange(min=1), default=1, show_default=True, help="Batches of pictures for each prompt.")
@click.option("--bs", type=click.IntRange(min=1), default=1, show_default=True, help="Pictures in a batch.")
@click.option(
    "--seed", type=click.IntRange(min=0), help="Of the first picture, 0 included. By default a random one, noted beside the picture."
)
@click.option("--output-dir", type=FOLDER, default="output", show_default=True, help="Folder for the pictures.")
def generate(
    exp_dir: str,
    model_steps: int,
    prompts: tuple[str, ...],
    neg_prompt: str | None,
    pretrained_model: str | None,
    width: int,
    height: int,
    guidance_scale: float,
    num_inference_steps: int,
    alpha: float,
    num: int,
    bs: int,
    seed: int | None,
    output_dir: Path,
) -> None:
    """Make pictures with the LoRA and the trigger word of a training, of this program or of HCP.

    \b
    Examples:
      charalora generate --exp-dir exps/2026-11-22-23-20-04 --model-steps 1000 \\
          --prompt 'masterpiece, best quality, 1girl, solo, {surtr_arknights-1000:1.2}'
      charalora generate --exp-dir exps/surtr --prompt '{surtr_arknights}, smile' --num 4 --seed 0 --pretrained-model org/model
    """
    from charalora_trainer.cli.resource import model_uri
    from charalora_trainer.console import open_console
    from charalora_trainer.stages.generate import generate_from_files
    from charalora_trainer.stages.recipe import Recipe

    asked = {} if neg_prompt is None else {"negative_prompt": neg_prompt}
    recipe = Recipe(
        prompts=prompts,
        width=width,
        height=height,
        guidance_scale=guidance_scale,
        inference_steps=num_inference_steps,
        lora_scale=alpha,
        num=num,
        batch=bs,
        seed=seed,
        **asked,
    )
    base_model = model_uri(pretrained_model) if pretrained_model else None
    for picture in generate_from_files(exp_dir, model_steps, recipe, base_model, output_dir, open_console()):
        click.echo(picture)
