"""Measure the base model and show it: `python -m toyworld.report` prints the table and writes the pictures of README.md."""

import argparse
import json
import random
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from matplotlib import pyplot as plt
from PIL import Image, ImageDraw

from toyworld.autoencoder import pixels, reconstruct, signal_to_noise
from toyworld.characters import CHARACTERS, Character, pretraining_look
from toyworld.drawing import SIZE, draw
from toyworld.judge import Judge, judged_look
from toyworld.looks import JUDGED, Look
from toyworld.pretrain import work_folder
from toyworld.sampling import BASE, generate, load_base

HERE = Path(__file__).parent
PROMPT_SEED = 7_000_000

Shares = dict[str, float]


def prompt_looks(count: int) -> list[Look]:
    """Looks to ask for: fresh ones, as pre-training might have met them."""
    return [pretraining_look(random.Random(PROMPT_SEED + number)) for number in range(count)]


def attribute_table(pipeline: StableDiffusionPipeline, judge: Judge, count: int, steps: int = 30) -> tuple[Shares, list[Image.Image]]:
    """For each attribute the share of generated pictures that show what the prompt asks for, and the pictures."""
    looks = prompt_looks(count)
    pictures = generate(pipeline, [look.caption() for look in looks], steps=steps)
    return judge.agreement(pictures, looks), pictures


def reconstructed(pipeline: StableDiffusionPipeline, pictures: list[Image.Image]) -> tuple[float, list[Image.Image]]:
    """PSNR in dB and pictures after a way through the VAE."""
    wanted = torch.stack([pixels(picture) for picture in pictures])
    made = torch.cat([reconstruct(pipeline.vae, part) for part in torch.split(wanted, 32)])
    shown = made.clamp(-1, 1).add(1).mul(127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    return signal_to_noise(wanted, made), [Image.fromarray(picture) for picture in shown]


def markdown(columns: dict[str, Shares]) -> str:
    """A table with one row for each attribute and their mean."""
    lines = ["| attribute | classes | chance | " + " | ".join(columns) + " |", "|---" * (3 + len(columns)) + "|"]
    for name, values in JUDGED.items():
        asked = [value for value in values if value not in ("horns", "sword")]
        figures = " | ".join(f"{shares[name]:.2f}" for shares in columns.values())
        lines.append(f"| {name} | {len(asked)} | {1 / len(asked):.2f} | {figures} |")
    means = " | ".join(f"{sum(shares.values()) / len(shares):.3f}" for shares in columns.values())
    return "\n".join([*lines, f"| mean | | | {means} |"])


def contact_sheet(rows: list[tuple[str, list[Image.Image]]], path: Path) -> None:
    """Rows of pictures under their titles."""
    width = max(len(pictures) for _, pictures in rows) * SIZE
    sheet = Image.new("RGB", (width, len(rows) * (SIZE + 16)), "white")
    pen = ImageDraw.Draw(sheet)
    for number, (title, pictures) in enumerate(rows):
        top = number * (SIZE + 16)
        pen.text((3, top + 2), title, fill="black")
        for column, picture in enumerate(pictures):
            sheet.paste(picture, (column * SIZE, top + 16))
    sheet.save(path, optimize=True)


def curves(work: Path, path: Path) -> None:
    """The curves of all trainings, side by side."""
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.2), layout="constrained")
    for name in ("vae", "decoder"):
        if (work / f"{name}.jsonl").exists():
            plot(axes[0], work / f"{name}.jsonl", "psnr", name)
    for key in ("loss", "validation"):
        plot(axes[1], work / "unet.jsonl", key, key)
    axes[0].set(title="VAE: PSNR of fresh drawings (dB)", xlabel="step")
    axes[1].set(title="UNet: loss", xlabel="step", yscale="log")
    for axis in axes:
        axis.legend()
        axis.grid(alpha=0.3)
    figure.savefig(path, dpi=90)


def plot(axis: plt.Axes, source: Path, key: str, label: str) -> None:
    """One curve."""
    lines = [json.loads(line) for line in source.read_text(encoding="utf-8").splitlines()]
    points = {line["step"]: line[key] for line in lines if key in line}  # steps that were done again after an interruption count once
    axis.plot(list(points), list(points.values()), label=label)


def newcomer_rows(pipeline: StableDiffusionPipeline, character: Character) -> list[tuple[str, list[Image.Image]]]:
    """The new character: as drawn, through the VAE, and what the base model makes of her name."""
    drawn = [character.dataset_picture(number) for number in range(8)]
    named = generate(pipeline, [f"{character.name}, {character.caption(number)}" for number in range(8)])
    title = character.look.caption().split(", smile")[0]
    return [
        (f"the new character, drawings ({title})", drawn),
        ("the new character, drawings through the VAE", reconstructed(pipeline, drawn)[1]),
        (f'the base model asked for "{character.name}", a name it does not know', named),
    ]


def main() -> None:
    """Measure, print, and write sheet.png and curves.png."""
    parser = argparse.ArgumentParser(description="Measure the toy base model and show it.")
    parser.add_argument("--base", type=Path, default=BASE)
    parser.add_argument("--output", type=Path, default=HERE)
    parser.add_argument("--prompts", type=int, default=128)
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    pipeline, judge, newcomer = load_base(asked.base), Judge.load(), CHARACTERS["surtr_arknights"]
    looks = [judged_look(random.Random(seed)) for seed in range(256)]
    drawn = [draw(look, seed) for seed, look in enumerate(looks)]
    quality, worn = reconstructed(pipeline, drawn)
    others = [newcomer.other_picture(number) for number in range(64)]
    print(f"VAE: {quality:.2f} dB on drawings, {reconstructed(pipeline, others)[0]:.2f} dB on the new character")
    print(f"the judge recognises the new character: drawings {judge.recognition(others, newcomer):.3f}")
    shares, made = attribute_table(pipeline, judge, asked.prompts)
    checks = {"judge on drawings": judge.agreement(drawn, looks), "judge after the VAE": judge.agreement(worn, looks)}
    print(markdown({**checks, "base model": shares}))
    prompted = [draw(look, PROMPT_SEED + number) for number, look in enumerate(prompt_looks(16))]
    rows = [("drawings", prompted[:8]), ("the base model, same prompts", made[:8])]
    rows += [("drawings", prompted[8:]), ("the base model, same prompts", made[8:16])]
    contact_sheet([*rows, *newcomer_rows(pipeline, newcomer)], asked.output / "sheet.png")
    curves(work_folder(), asked.output / "curves.png")


if __name__ == "__main__":
    main()
