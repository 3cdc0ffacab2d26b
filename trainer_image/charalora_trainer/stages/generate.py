"""Pictures from the files of a training: what the guide's visualizer does."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

import torch

from charalora_spec.outcome import Outcome, TrainingError
from charalora_spec.spec import Prediction, Storage
from charalora_trainer import cfg, runfile
from charalora_trainer.console import Console
from charalora_trainer.export import hcp
from charalora_trainer.export.metadata import file_hashes
from charalora_trainer.job import Workspace, default_workspace
from charalora_trainer.model.load import DiffusionModels, load_models
from charalora_trainer.model.lora import apply_adapter
from charalora_trainer.stages.facts import model_name
from charalora_trainer.stages.fetch import fetch_base_model, fetch_training
from charalora_trainer.stages.picture_files import Ingredient, Ingredients
from charalora_trainer.stages.preview import Recipe, generate, save_picture
from charalora_trainer.storage import open_store
from charalora_trainer.storage.wholefile import sha256_of
from charalora_trainer.weights import Word
from charalora_trainer.words import embedding

_STEPPED = re.compile(r"(?P<name>.+)-(?P<step>[0-9]+)")
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


def generate_from_files(training: str, step: int, recipe: Recipe, base_model: str | None, output: Path, console: Console) -> list[Path]:
    """Make a recipe's pictures with the LoRA and the words of one checkpoint, and write them to `output`.

    Args:
        training: Folder or uri of a training of ours or of HCP: its files are in `ckpts` below it.
        step: Which checkpoint.
        recipe: What is asked for. A prompt names a word with its step, as in the guide, or without, which means this checkpoint's.
        base_model: Uri of the base model for the pictures; None for the one that the training tells.
        output: Folder for pictures.
        console: Where progress is shown.

    Returns:
        The pictures' paths, without the YAML files beside them.

    Raises:
        TrainingError: `SpecInvalid` when there is no such checkpoint, no base model is known, or a prompt cannot be read;
            `BaseModelInvalid` and `ExportInvalid` for files that do not fit; a store that cannot be read.
    """
    place = Workspace(default_workspace("generate"))
    folder, words = _fetched(training, step, (*recipe.prompts, recipe.negative_prompt), place, console)
    told = Training.in_folder(folder)
    uri = base_model or told.base_model
    if uri is None:
        raise TrainingError(Outcome.SPEC_INVALID, f"{training} does not tell its base model; give one with --pretrained-model.")
    model_path = fetch_base_model(uri, told.storage, place, console)
    with console.stage("load base model"):
        models = _models(model_path, told.prediction)
        apply_adapter(models, hcp.read_step(folder / "ckpts", step), recipe.lora_scale)
        ingredients = _ingredients(model_path, uri, folder / "ckpts", step, words)
    made: list[Path] = []
    with console.stage("generate", total=recipe.denoising_steps) as progress:
        for picture in generate(models, _named(words, step), recipe, told.clip_skip, progress.advance):
            image, _ = save_picture(picture, output, ingredients)
            made.append(image)
    return made


def _fetched(training: str, step: int, texts: Sequence[str], place: Workspace, console: Console) -> tuple[Path, list[Path]]:
    """The training's folder, here, and the words' files that are needed: those of this step, and those that a text names."""
    store = open_store(training, Storage())
    listed = store.list()
    loras = {f"ckpts/{name}" for name in (hcp.unet_file(step), hcp.text_encoder_file(step))}
    if not loras.intersection(entry.key for entry in listed):
        raise TrainingError(Outcome.SPEC_INVALID, f"{store.uri}ckpts has no LoRA of step {step}; {_known_steps(e.key for e in listed)}.")
    words = {entry.key for entry in listed if re.fullmatch(r"ckpts/[^/]+\.pt", entry.key)}
    _refuse_unknown_words(words, texts)
    needed = {key for key in words if (name := _stem(key)).endswith(f"-{step}") or any(name in text for text in texts)}
    wanted = {cfg.FILE, f"ckpts/lora-{step}.safetensors"} | loras | needed
    folder = fetch_training(store, [entry for entry in listed if entry.key in wanted], place, console)
    return folder, [folder / key for key in sorted(needed)]


def _refuse_unknown_words(words: Iterable[str], texts: Iterable[str]) -> None:
    """A word at a step that has no file would be read as the word of another step with a number behind it."""
    names = {_stem(key) for key in words}
    for plain in {stepped["name"] for name in names if (stepped := _STEPPED.fullmatch(name))}:
        asked = {found[0] for text in texts for found in re.finditer(rf"{re.escape(plain)}-[0-9]+", text)}
        if unknown := sorted(asked - names):
            there = ", ".join(sorted(name for name in names if name.startswith(f"{plain}-")))
            raise TrainingError(Outcome.SPEC_INVALID, f"A prompt names {unknown[0]}, which has no file in ckpts; there are {there}.")


def _known_steps(keys: Iterable[str]) -> str:
    steps = sorted({int(found[1]) for key in keys if (found := re.fullmatch(r"ckpts/(?:unet|text_encoder)-([0-9]+)\.safetensors", key))})
    return f"it has the steps {', '.join(map(str, steps))}" if steps else "give the folder of a training"


def _named(words: Iterable[Path], step: int) -> list[Word]:
    """Words by their files' names, and those of this step by their plain names too."""
    loaded = [embedding.load(path) for path in words]
    plain = [replace(word, name=word.name.removesuffix(f"-{step}")) for word in loaded if word.name.endswith(f"-{step}")]
    return [*loaded, *plain]


def _models(path: Path, prediction: Prediction) -> DiffusionModels:
    on_gpu = torch.cuda.is_available()
    return load_models(path, prediction).to(torch.device("cuda" if on_gpu else "cpu"), torch.float16 if on_gpu else torch.float32)


def _ingredients(base_model: Path, uri: str, ckpts: Path, step: int, words: Iterable[Path]) -> Ingredients:
    """What webui knows these files by: the digest of a base model's file, of the LoRA's tensors, of an embedding's file."""
    lora = ckpts / f"lora-{step}.safetensors"
    return Ingredients(
        base_model=Ingredient(model_name(uri), sha256_of(base_model) if base_model.is_file() else None),
        lora=Ingredient(lora.stem, file_hashes(lora).model_hash if lora.is_file() else None),
        embeddings=tuple(Ingredient(path.stem, sha256_of(path)) for path in words),
    )


def _stem(key: str) -> str:
    return PurePosixPath(key).stem
