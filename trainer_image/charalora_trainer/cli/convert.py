"""`charalora convert`, the guide's last step."""

from pathlib import Path

import click

FILE = click.Path(path_type=Path)


@click.command(short_help="Convert LoRA and embedding files between HCP and webui.")
@click.option("--to-webui", "--to_webui", is_flag=True, help="Join unet-N and text_encoder-N into one file for webui.")
@click.option("--from-webui", "--from_webui", is_flag=True, help="Split a webui LoRA into unet-NAME and TE-NAME.")
@click.option("--lora-path", "--lora_path", type=FILE, required=True, help="The LoRA (of the UNet, with --to-webui), or an embedding.")
@click.option("--lora-path-TE", "--lora_path_TE", "text_encoder", type=FILE, help="The text encoder's LoRA, with --to-webui.")
@click.option("--dump-path", "--dump_path", type=FILE, required=True, help="File to write; with --from-webui the folder.")
@click.option(
    "--auto-scale-alpha", "--auto_scale_alpha", is_flag=True, help="Keep the trained strength. Leave it out only to get HCP's old files."
)
@click.option("--fp16", is_flag=True, help="Write half precision, with --to-webui.")
@click.option("--any-steps", is_flag=True, help="Join files of different steps.")
def convert(
    lora_path: Path,
    text_encoder: Path | None,
    dump_path: Path,
    *,
    to_webui: bool,
    from_webui: bool,
    auto_scale_alpha: bool,
    fp16: bool,
    any_steps: bool,
) -> None:
    """Convert a LoRA between HCP's two files and webui's one, or an embedding between .pt and .safetensors.

    Every file is read back and compared before this says that it is done. `charalora run` and `charalora train` write all of
    these forms themselves; this is for files from elsewhere.

    \b
    Examples:
      charalora convert --to-webui --auto-scale-alpha --lora-path ckpts/unet-1000.safetensors \\
          --lora-path-TE ckpts/text_encoder-1000.safetensors --dump-path lora-1000.safetensors
      charalora convert --from-webui --auto-scale-alpha --lora-path lora.safetensors --dump-path hcp/
      charalora convert --lora-path surtr_arknights-1000.pt --dump-path surtr_arknights.safetensors
    """
    from charalora_trainer.export import convert as conversion

    if not to_webui and not from_webui and lora_path.suffix != dump_path.suffix and ".pt" in {lora_path.suffix, dump_path.suffix}:
        done = conversion.convert_embedding(lora_path, dump_path)
    elif conversion.direction(to_webui=to_webui, from_webui=from_webui) is conversion.Direction.TO_WEBUI:
        done = conversion.to_webui(lora_path, text_encoder, dump_path, auto_scale_alpha=auto_scale_alpha, fp16=fp16, any_steps=any_steps)
    else:
        done = conversion.from_webui(lora_path, dump_path, auto_scale_alpha=auto_scale_alpha)
    for warning in done.warnings:
        click.echo(warning, err=True)
    for file in done.files:
        click.echo(file)
