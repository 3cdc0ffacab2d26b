"""Pictures from the files of a training: what the guide's visualizer does."""

import re
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from charalora_spec.outcome import Outcome, TrainingError
from charalora_spec.spec import Prediction, Storage
from charalora_trainer import cfg, runfile
from charalora_trainer.console import Console
from charalora_trainer.export import hcp
from charalora_trainer.job import Workspace, default_workspace
from charalora_trainer.model.load import load_models
from charalora_trainer.model.lora import apply_adapter
from charalora_trainer.stages.fetch import fetch_base_model
from charalora_trainer.stages.picture_files import Source, Sources
from charalora_trainer.stages.preview import Recipe, generate, save_picture
from charalora_trainer.weights import Adapter, Word
from charalora_trainer.words import embedding

_EMBEDDING = re.compile(r"(?P<name>.+)-(?P<step>[0-9]+)\.pt")
GUIDE_CLIP_SKIP = 1


@dataclass(frozen=True)
class Training:
    """What a training's folder says about itself; HCP's folders say nothing that is read here.

    Attributes:
        base_model: Its uri; None where the folder does not tell.
        prediction: What that model predicts.
        clip_skip: HCP counting.
        storage: How the uri is reached.
    """

    base_model: str | None = None
    prediction: Prediction = Prediction.EPSILON
    clip_skip: int = GUIDE_CLIP_SKIP
    storage: Storage = field(default_factory=Storage)

    @classmethod
    def in_folder(cls, folder: Path) -> "Training":
        """As cfg.yaml tells, where it is one of ours."""
        path = folder / cfg.FILE
        if not path.is_file() or "charalora.dev/" not in path.read_text(encoding="utf-8", errors="replace"):
            return cls()
        spec = runfile.load(path).spec
        return cls(spec.preview.base_model or spec.base_model.uri, spec.base_model.prediction, spec.training.clip_skip, spec.storage)


def generate_from_files(folder: Path, step: int, recipe: Recipe, base_model: str | None, output: Path, console: Console) -> list[Path]:
    """Make a recipe's pictures with the LoRA and the words of one checkpoint, and write them to `output`.

    Args:
        folder: Of a training of ours or of HCP: its files are in `ckpts` below it.
        step: Which checkpoint.
        recipe: What is asked for. A prompt names a word with its step, as in the guide, or without, which means this checkpoint's.
        base_model: Uri of the base model for the pictures; None for the one that the training tells.
        output: Folder for pictures.
        console: Where progress is shown.

    Returns:
        The pictures' paths, without the YAML files beside them.

    Raises:
        TrainingError: `SpecInvalid` when there is no such checkpoint, no base model is known, or a prompt cannot be read;
            `BaseModelInvalid` and `ExportInvalid` for files that do not fit.
    """
    training = Training.in_folder(folder)
    uri = base_model or training.base_model
    if uri is None:
        raise TrainingError(Outcome.SPEC_INVALID, f"{folder} does not tell its base model; give one with --pretrained-model.")
    adapter, words = _checkpoint(folder / "ckpts", step)
    model_path = fetch_base_model(uri, training.storage, Workspace(default_workspace("generate")), console)
    with console.stage("load base model"):
        models = load_models(model_path, training.prediction)
        apply_adapter(models, adapter, recipe.lora_scale)
        on_gpu = torch.cuda.is_available()
        models.to(torch.device("cuda" if on_gpu else "cpu"), torch.float16 if on_gpu else torch.float32)
    sources = Sources(
        base_model=Source(uri.rstrip("/").rpartition("/")[2]),
        lora=Source(f"lora-{step}"),
        embeddings=tuple(Source(word.name) for word in words if word.name.endswith(f"-{step}")),
    )
    made: list[Path] = []
    with console.stage("generate", total=recipe.denoising_steps) as progress:
        for picture in generate(models, words, recipe, training.clip_skip, progress.advance):
            image, _ = save_picture(picture, output, sources)
            made.append(image)
    return made


def _checkpoint(folder: Path, step: int) -> tuple[Adapter, list[Word]]:
    """The LoRA of a step, and every word: with the step in its name, and those of this step by their plain names too."""
    paths = {part: folder / name for part, name in (("unet", hcp.unet_file(step)), ("text_encoder", hcp.text_encoder_file(step)))}
    if not any(path.is_file() for path in paths.values()):
        raise TrainingError(Outcome.SPEC_INVALID, f"{folder} has no LoRA of step {step}; {_known_steps(folder)}.")
    found = {part: hcp.read(path) if path.is_file() else {} for part, path in paths.items()}
    named = {path: match for path in sorted(folder.glob("*.pt")) if (match := _EMBEDDING.fullmatch(path.name))}
    words = [embedding.load(path) for path in named]
    plain = [replace(word, name=match["name"]) for word, match in zip(words, named.values(), strict=True) if int(match["step"]) == step]
    return Adapter(unet=found["unet"], text_encoder=found["text_encoder"]), [*words, *plain]


def _known_steps(folder: Path) -> str:
    steps = sorted(
        {int(match[1]) for path in folder.glob("*.safetensors") if (match := re.fullmatch(r"unet-([0-9]+)\.safetensors", path.name))}
    )
    return f"it has the steps {', '.join(map(str, steps))}" if steps else "give the folder of a training"
