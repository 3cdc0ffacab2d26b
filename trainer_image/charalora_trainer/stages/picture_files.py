"""Pictures as files: PNG with webui's notes in it, and a YAML beside it that says how it was made."""

import io
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml
from PIL.PngImagePlugin import PngInfo

from charalora_trainer.export.whole import write_whole
from charalora_trainer.stages.recipe import Picture
from charalora_trainer.words.emphasis import parse, render_webui

SAMPLER = "Euler a"
PROMPT_LETTERS = 50

_UNFIT = re.compile(r'[/\\:*?"<>|\x00-\x1f\x7f-\x9f]')
_NUMBERED = re.compile(r"([0-9]+)-")


@dataclass(frozen=True)
class Ingredient:
    """A file that a picture was made with.

    Attributes:
        name: Without ending, as webui lists it.
        digest: SHA-256, 64 hexadecimal digits; of a LoRA, that of its tensors (`sshs_model_hash`), by which webui knows it.
    """

    name: str
    digest: str | None = None


@dataclass(frozen=True)
class Ingredients:
    """All files that a picture was made with."""

    base_model: Ingredient | None = None
    lora: Ingredient | None = None
    embeddings: tuple[Ingredient, ...] = ()


def save_picture(picture: Picture, folder: Path, ingredients: Ingredients | None = None) -> tuple[Path, Path]:
    """Write `{n}-{seed}-{prompt}.png` and `{n}-{seed}-info.yaml` under the next free number, each whole or not at all.

    Other files in the folder do no harm, and several processes may write at the same time.

    Returns:
        The picture's path and the YAML's.

    Raises:
        TrainingError: `DiskFull`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    ingredients = ingredients or Ingredients()
    notes = PngInfo()
    notes.add_text("parameters", infotext(picture, ingredients))
    content = io.BytesIO()
    picture.image.save(content, "PNG", pnginfo=notes)
    with _claimed_number(folder) as number:
        image = folder / f"{number}-{picture.seed}-{_UNFIT.sub('_', picture.prompt[:PROMPT_LETTERS])}.png"
        info = folder / f"{number}-{picture.seed}-info.yaml"
        write_whole(info, yaml.safe_dump(details(picture, ingredients), sort_keys=False, allow_unicode=True, width=120).encode())
        write_whole(image, content.getvalue())
    return image, info


def details(picture: Picture, ingredients: Ingredients) -> dict[str, Any]:
    """How the picture was made, every setting resolved; `preview` can be copied into a resource and gives this picture again."""
    recipe = picture.recipe
    used = {"baseModel": ingredients.base_model, "lora": ingredients.lora}
    return {
        "seed": picture.seed,
        "preview": {
            "prompts": [picture.prompt],
            "negativePrompt": recipe.negative_prompt,
            "width": recipe.width,
            "height": recipe.height,
            "guidanceScale": f"{recipe.guidance_scale:.10g}",
            "inferenceSteps": recipe.inference_steps,
            "loraScale": f"{recipe.lora_scale:.10g}",
            "num": 1,
            "seed": picture.seed,
        },
        "clipSkip": picture.clip_skip,
        "sampler": SAMPLER,
        **{name: {"name": ingredient.name, "sha256": ingredient.digest} for name, ingredient in used.items() if ingredient},
        "embeddings": [{"name": ingredient.name, "sha256": ingredient.digest} for ingredient in ingredients.embeddings],
        "versions": {name: version(name) for name in ("charalora", "torch", "diffusers", "transformers")},
    }


def infotext(picture: Picture, ingredients: Ingredients) -> str:
    """The same as webui writes it into its pictures: pasted there, it sets prompts, sampler, seed, size and clip skip.

    Format: webui 1.10.1, modules/processing.py `create_infotext`. Emphasis is written in webui's round brackets.
    """
    recipe, base, lora = picture.recipe, ingredients.base_model, ingredients.lora
    prompt = render_webui(parse(picture.prompt))
    fields = {
        "Steps": recipe.inference_steps,
        "Sampler": SAMPLER,
        "CFG scale": f"{recipe.guidance_scale:.10g}",
        "Seed": picture.seed,
        "Size": f"{recipe.width}x{recipe.height}",
        "Model hash": base.digest[:10] if base and base.digest else None,
        "Model": base.name if base else None,
        "Clip skip": picture.clip_skip + 1 if picture.clip_skip else None,
        "Lora hashes": _hashes((lora,) if lora else ()),
        "TI hashes": _hashes(ingredients.embeddings),
        "Version": f"Charalora {version('charalora')}",
    }
    lines = [f"{prompt} <lora:{lora.name}:{recipe.lora_scale:.10g}>" if lora else prompt]
    if recipe.negative_prompt:
        lines.append(f"Negative prompt: {render_webui(parse(recipe.negative_prompt))}")
    lines.append(", ".join(f"{name}: {_quoted(value)}" for name, value in fields.items() if value is not None))
    return "\n".join(lines)


def _hashes(files: tuple[Ingredient, ...]) -> str | None:
    return ", ".join(f"{file.name}: {file.digest[:12]}" for file in files if file.digest) or None


def _quoted(value: object) -> str:
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if re.search(r"[,:\n]", text) else text


@contextmanager
def _claimed_number(folder: Path) -> Iterator[int]:
    """The number after the largest in the folder, kept from other processes until both files stand.

    The claim is a file that only one process can create. It is looked at again afterwards, because the number may have been used between
    looking and claiming. A process that dies leaves its claim, and that number is never used.
    """
    while True:
        number = max(_numbers(folder, claims=True), default=-1) + 1
        claim = folder / f".{number}-claim"
        try:
            claim.open("x").close()
        except FileExistsError:
            continue
        if number not in _numbers(folder, claims=False):
            break
        claim.unlink()
    try:
        yield number
    finally:
        claim.unlink()


def _numbers(folder: Path, *, claims: bool) -> set[int]:
    names = (file.name.removeprefix(".") if claims else file.name for file in folder.iterdir())
    return {int(found[1]) for name in names if (found := _NUMBERED.match(name))}
