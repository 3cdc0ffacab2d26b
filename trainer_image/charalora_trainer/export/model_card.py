"""The page that is published with a LoRA: what it is, how to use it, how it was trained."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from charalora_trainer.export.metadata import TrainingFacts, file_hashes


@dataclass(frozen=True)
class Sample:
    """A picture, the prompt that it was made from and its seed."""

    picture: Path
    prompt: str
    seed: int


@dataclass(frozen=True)
class CardFile:
    """A published file: its name, its size and the hashes that sites show; AutoV3 is for safetensors only."""

    name: str
    bytes: int
    sha256: str
    auto_v2: str
    auto_v3: str | None


def card_file(path: Path) -> CardFile:
    """Measure a file."""
    if path.suffix == ".safetensors":
        hashes = file_hashes(path)
        return CardFile(path.name, path.stat().st_size, hashes.sha256, hashes.auto_v2, hashes.auto_v3)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return CardFile(path.name, path.stat().st_size, sha256, sha256[:10].upper(), None)


def model_card(facts: TrainingFacts, vectors: int, files: Iterable[CardFile], samples: Iterable[Sample], why: str = "") -> str:
    """The page as Markdown; `why` says why this step of the training was chosen."""
    parts = (_opening(facts), _usage(facts), _pictures(samples), _training(facts, vectors, why), _files(files))
    return "\n\n".join(part for part in parts if part) + "\n"


def _opening(facts: TrainingFacts) -> str:
    return f"""# {_plain(facts.name)}

A character for Stable Diffusion 1.5: a LoRA and the embedding of its trigger word, trained together. Use both; either alone is weaker.

| | |
|---|---|
| Trigger word | `{facts.name}` |
| LoRA strength | {facts.strength:g} |
| Base model | {_plain(facts.base_model.name)} |
| Clip skip | {facts.base_model.clip_skip + 1} (webui's counting) |"""


def _usage(facts: TrainingFacts) -> str:
    name, strength, skip = facts.name, f"{facts.strength:g}", facts.base_model.clip_skip
    return f"""## How to use

**webui, Forge**: put `{name}.safetensors` (with `{name}.json` and the preview) into `models/Lora` and `{name}.pt` into `embeddings`.
Keep the names: the embedding's file name is the trigger word.

    masterpiece, best quality, 1girl, solo, {name}, <lora:{name}:{strength}>

**ComfyUI**: `{name}.safetensors` into `models/loras`, loaded with both strengths at {strength}; `{name}.pt` into
`models/embeddings`; "CLIP Set Last Layer" at {-1 - skip}.

    masterpiece, best quality, 1girl, solo, embedding:{name}

**diffusers**:

    pipeline.load_lora_weights("{name}.safetensors", adapter_name="character")
    pipeline.set_adapters("character", {strength})
    pipeline.load_textual_inversion("{name}.pt", token="{name}")
    pipeline("masterpiece, best quality, 1girl, solo, {name}", clip_skip={skip})"""


def _pictures(samples: Iterable[Sample]) -> str:
    shown = [
        f"![{sample.picture.stem}]({sample.picture.as_posix()})\n\n    {_one_line(sample.prompt)}\n    Seed: {sample.seed}"
        for sample in samples
    ]
    return "\n\n".join(("## Pictures", *shown)) if shown else ""


def _training(facts: TrainingFacts, vectors: int, why: str) -> str:
    rates = ", ".join(f"{name.replace('_', ' ')} {rate:g}" for name, rate in facts.rates.items())
    sizes = ", ".join(f"{bucket.width}x{bucket.height} ({bucket.count})" for bucket in facts.dataset.buckets)
    return f"""## Training

| | |
|---|---|
| Step | {why.removeprefix("step ") or f"{facts.step} of {facts.steps}"} |
| Pictures | {facts.dataset.pictures} |
| Sizes | {sizes} |
| Pictures a step | {facts.total_batch} |
| Learning rates | {rates} |
| Vectors of the word | {vectors} |
| Seed | {facts.seed} |
| Prediction | {facts.base_model.prediction} |

The base model's licence also holds for what is made with these files."""


def _files(files: Iterable[CardFile]) -> str:
    rows = [f"| `{file.name}` | {file.bytes} | {file.auto_v2} | {file.auto_v3 or '-'} | `{file.sha256}` |" for file in files]
    return "\n".join(("## Files", "", "| File | Bytes | AutoV2 | AutoV3 | SHA-256 |", "|---|---|---|---|---|", *rows))


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _plain(text: str) -> str:
    """Text that Markdown shows as it is."""
    return "".join(f"\\{character}" if character in "\\`*_[]<>|#" else character for character in _one_line(text))
