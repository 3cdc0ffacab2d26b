"""Pictures of a training in progress: the same prompts and seeds at every save, so that what changes is the training."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from charalora_trainer.console import Console
from charalora_trainer.job import Job
from charalora_trainer.learner import DTYPES, Learner
from charalora_trainer.model.load import DiffusionModels, load_models
from charalora_trainer.model.lora import apply_adapter, set_strength
from charalora_trainer.stages.facts import model_name
from charalora_trainer.stages.picture_files import Ingredient, Ingredients, save_picture
from charalora_trainer.stages.preview import generate
from charalora_trainer.stages.recipe import Recipe
from charalora_trainer.stages.train import StopAsked


class _StoppedError(Exception):
    """The run was asked to stop while pictures were made."""


class Gallery:
    """Makes the pictures of `spec.preview`.

    With a base model of its own the LoRA is put into that one; it is loaded at the first save and kept, because each save needs it.
    """

    def __init__(self, job: Job, learner: Learner, folder: Path, console: Console) -> None:
        self._job = job
        self._learner = learner
        self._folder = folder
        self._console = console
        self._recipe = Recipe.of(job.run.spec.preview, job.run.spec.character.name)
        self._other: DiffusionModels | None = None

    def make(self, step: int, stop_asked: StopAsked) -> list[Path]:
        """The pictures of one step and the files beside them; none where they were made before, or a stop is asked for meanwhile."""
        folder = self._folder / str(step)
        if all(len(list(folder.glob(kind))) >= self._recipe.pictures for kind in ("*.png", "*-info.yaml")):
            return []
        shutil.rmtree(folder, ignore_errors=True)  # what an interrupted attempt left of these pictures
        made: list[Path] = []
        with (
            suppress(_StoppedError),
            self._console.stage("preview", total=self._recipe.denoising_steps) as progress,
            self._models() as models,
        ):

            def on_step() -> None:
                progress.advance()
                if stop_asked():
                    raise _StoppedError

            for picture in generate(models, [self._learner.word()], self._recipe, self._job.run.spec.training.clip_skip, on_step):
                made.extend(save_picture(picture, folder, self._ingredients(step)))
            return made
        return []

    def _ingredients(self, step: int) -> Ingredients:
        """Names of what the pictures are made with. Its files are being written meanwhile; their digests stand in the manifest."""
        spec = self._job.run.spec
        base = model_name(spec.preview.base_model or spec.base_model.uri)
        return Ingredients(Ingredient(base), Ingredient(f"lora-{step}"), (Ingredient(f"{spec.character.name}-{step}"),))

    @contextmanager
    def _models(self) -> Iterator[DiffusionModels]:
        """The models that the pictures are made with, at the strength that the recipe asks for."""
        if self._job.preview_model is not None:
            yield self._separate(self._job.preview_model)
            return
        models = self._learner.models
        self._learner.training(active=False)
        set_strength(models, self._recipe.lora_scale)
        try:
            yield models
        finally:
            set_strength(models, 1.0)
            self._learner.training(active=True)

    def _separate(self, path: Path) -> DiffusionModels:
        """The preview's own base model with what was learned up to now."""
        if self._other is None:
            self._other = load_models(path, self._job.run.spec.base_model.prediction)
        apply_adapter(self._other, self._learner.adapter(), self._recipe.lora_scale)
        return self._other.to(self._learner.flat.master.device, DTYPES[self._learner.spec.training.precision])
