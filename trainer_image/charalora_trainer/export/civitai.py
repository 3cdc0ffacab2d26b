"""The folder that is ready to be published: LoRA and embedding under the trigger word's name, pictures, and how to use them."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch

from charalora_trainer.export import webui
from charalora_trainer.export.metadata import TrainingFacts
from charalora_trainer.export.model_card import Sample, card_file, model_card
from charalora_trainer.export.proof import prove_webui, prove_word
from charalora_trainer.export.whole import write_whole
from charalora_trainer.weights import Adapter, Word
from charalora_trainer.words import embedding
from charalora_trainer.words.emphasis import parse, render_webui

SAMPLES = "samples"


@dataclass(frozen=True)
class Bundle:
    """What is published.

    Attributes:
        adapter: The LoRA, of the step that the facts name.
        word: The trigger word and its rows.
        facts: About the training.
        samples: Pictures made with both, best first; the first becomes webui's preview.
        negative_prompt: What the pictures were kept from showing.
        why: The step that it is of, and why that one was chosen.
    """

    adapter: Adapter
    word: Word
    facts: TrainingFacts
    samples: tuple[Sample, ...] = ()
    negative_prompt: str = ""
    why: str = ""


def write(bundle: Bundle, folder: Path, dtype: torch.dtype = torch.float16) -> tuple[Path, ...]:
    """Write and prove all files of the folder, and return their paths.

    `<word>.safetensors` (fp16 where that keeps the strength, else fp32), `<word>.pt`, `<word>.json` and `<word>.preview.png` for webui's
    cards, `samples/` and `README.md`.

    Raises:
        TrainingError: `ExportInvalid` when a file is not what training computed.
    """
    name, step = bundle.word.name, bundle.facts.step
    lora, words, side, page = (folder / f"{name}.safetensors", folder / f"{name}.pt", folder / f"{name}.json", folder / "README.md")
    folder.mkdir(parents=True, exist_ok=True)
    stored = dtype if webui.survives(bundle.adapter, dtype) else torch.float32
    webui.write(bundle.adapter, lora, bundle.facts, stored)
    prove_webui(lora, bundle.adapter, stored)
    embedding.save_pt(bundle.word, words, step=step)
    prove_word(words, bundle.word)
    write_whole(side, (json.dumps(_side_card(bundle), indent=1, ensure_ascii=False) + "\n").encode())
    samples = _copied(bundle.samples, folder)
    previews = _preview(samples, folder, name)
    files = (card_file(lora), card_file(words))
    write_whole(page, model_card(bundle.facts, len(bundle.word.vectors), files, samples, bundle.why).encode())
    return (lora, words, side, page, *(folder / sample.picture for sample in samples), *previews)


def _side_card(bundle: Bundle) -> dict[str, object]:
    """What webui shows on the LoRA's card and puts into the prompt when it is clicked."""
    facts = bundle.facts
    return {
        "description": f"{facts.name}, trained on {facts.base_model.name}. Needs the embedding {facts.name}.pt.",
        "sd version": "SD1",
        "activation text": facts.name,
        "preferred weight": facts.strength,
        "negative text": bundle.negative_prompt,
        "notes": _sentence(bundle.why) or f"Step {facts.step} of {facts.steps}.",
    }


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}." if text else ""


def _copied(samples: tuple[Sample, ...], folder: Path) -> tuple[Sample, ...]:
    """The pictures in the folder under short names, with prompts as webui writes them."""
    copied = []
    for number, sample in enumerate(samples, start=1):
        path = Path(SAMPLES, f"{number}{sample.picture.suffix.lower()}")
        write_whole(folder / path, sample.picture.read_bytes())
        copied.append(Sample(path, render_webui(parse(sample.prompt)), sample.seed))
    return tuple(copied)


def _preview(samples: tuple[Sample, ...], folder: Path, name: str) -> tuple[Path, ...]:
    """The first picture where webui looks for a card's."""
    png = next((folder / sample.picture for sample in samples if sample.picture.suffix == ".png"), None)
    if png is None:
        return ()
    write_whole(folder / f"{name}.preview.png", png.read_bytes())
    return (folder / f"{name}.preview.png",)
