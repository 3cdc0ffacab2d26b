"""Output folders as finished trainings leave them, without a training: for tests of what is made of them."""

import json
from pathlib import Path

from PIL import Image, ImageDraw

from builders import character_lora
from charalora_trainer import cfg, history
from charalora_trainer.export import manifest
from charalora_trainer.stages.report import DatasetSummary, EffectiveRates, RunFacts, Thumbnail
from charalora_trainer.stages.report_sources import data_uri, write_facts, write_report

STEPS, BEST = (100, 200, 300, 400), 300
HELD_OUT = (0.31, 0.14, 0.09, 0.12)
PROMPTS = ("1girl, solo, {word:1.2}", "1girl, solo, {word:1.2}, night, open mouth, " + "a long prompt, " * 20, "角色, {word:1.2}, 微笑")
LONG_PATH = "previews/" + "a-very-long-name-without-a-space-" * 5 + ".txt"


def drawing(step: int, row: int) -> Image.Image:
    """A picture that differs by step and row."""
    image = Image.new("RGB", (512, 768), (60 * row, step // 2, 120))
    ImageDraw.Draw(image).ellipse((56, 100, 456, 100 + step), fill="white")
    return image


def finished_output(folder: Path, word: str) -> Path:
    """Four saves of three prompts, of which the third save is the best, with warnings and long texts; its report and manifest beside it."""
    folder.mkdir(parents=True)
    run = character_lora(character__name=word, training__steps=400, training__saveEvery=100, training__loss__heldOut=4)
    (folder / cfg.FILE).write_text(cfg.text(run), encoding="utf-8")
    losses = [history.line(step, loss=0.4 / step**0.4) for step in range(1, 401)]
    losses += [history.line(step, held_out_loss=loss) for step, loss in zip(STEPS, HELD_OUT, strict=True)]
    (folder / history.FILE).write_text("".join(losses))
    write_facts(folder, _facts())
    for step in STEPS:
        _save(folder, word, step)
    for name in (f"civitai/{word}.safetensors", f"civitai/{word}.pt", LONG_PATH):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(name.encode())
    write_report(folder)
    (folder / manifest.FILE).write_text(manifest.of_folder(folder, "ab" * 16).to_json())
    return folder


def _facts() -> RunFacts:
    thumbnails = tuple(
        Thumbnail(f"{number:02}.png", "1girl, solo, " + "tag, " * number, data_uri(drawing(10 * number, 1), 240)) for number in range(24)
    )
    warnings = ("07.png is 64x64 and was made larger; use a larger picture.", "x" * 200)
    return RunFacts(
        dataset=DatasetSummary(24, (("512x768", 24),), 75, "sha256:" + "5f" * 32, warnings, thumbnails),
        rates=EffectiveRates(4e-4, 4e-5, None),
        images_per_step=4,
        started="2026-11-22T23:20:04+00:00",
        seconds=312.0,
        provenance=(("torch", "2.13.0"), ("data set digest", "5f" * 32)),
    )


def _save(folder: Path, word: str, step: int) -> None:
    pictures = folder / "previews" / str(step)
    pictures.mkdir(parents=True)
    for number, prompt in enumerate(PROMPTS):
        drawing(step, number).save(pictures / f"{number}-7-prompt.png")
        (pictures / f"{number}-7-info.yaml").write_text(json.dumps({"seed": 7, "preview": {"prompts": [prompt]}}), encoding="utf-8")
    (folder / "ckpts").mkdir(exist_ok=True)
    for name in (f"unet-{step}.safetensors", f"lora-{step}.safetensors", f"{word}-{step}.pt"):
        (folder / "ckpts" / name).write_bytes(name.encode())
