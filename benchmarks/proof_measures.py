"""What the proof measures of a base model with or without trained files."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from diffusers import EulerAncestralDiscreteScheduler, StableDiffusionPipeline
from PIL import Image
from proof_training import Trained
from torch import Tensor

from charalora_spec.spec import CharacterLoraSpec, Loss
from charalora_trainer.data import captions
from charalora_trainer.loss import NoiseSchedule, NoisyBatch, diffusion_losses
from charalora_trainer.model.load import DiffusionModels, load_models
from charalora_trainer.model.lora import apply_adapter, set_strength
from charalora_trainer.model.text import encode_ids, spliced
from charalora_trainer.stages.preview import Recipe, generate
from charalora_trainer.weights import Adapter, Word
from charalora_trainer.words.prompt import PromptTokenizer
from toyworld.autoencoder import pixels
from toyworld.characters import Character

BATCH = 16
PICTURE_SEED = 1_000
HELD_OUT_SEED = 2_000
HELD_OUT_PICTURES = 24
HELD_OUT_DRAWS = 4


@dataclass(frozen=True)
class Subject:
    """What is looked at: a base model, perhaps with a LoRA in it, and the words that it knows beyond its own."""

    spec: CharacterLoraSpec
    models: DiffusionModels
    words: tuple[Word, ...]

    @classmethod
    def of(cls, spec: CharacterLoraSpec, base: Path, adapter: Adapter | None = None, word: Word | None = None) -> "Subject":
        """The base model with what was trained."""
        models = load_models(base, spec.base_model.prediction)
        if adapter is not None:
            apply_adapter(models, adapter, 1.0)
        return cls(spec, models.to(torch.device("cpu"), torch.float32), (word,) if word else ())


def recipe_of(spec: CharacterLoraSpec, prompts: Sequence[str], count: int) -> Recipe:
    """The demo's recipe with other prompts: `count` pictures in equal shares, their seeds the same for all that is compared."""
    batch = min(BATCH, count // len(prompts))
    recipe = Recipe.of(spec.preview, spec.character.name)
    return replace(recipe, prompts=tuple(prompts), batch=batch, num=count // len(prompts) // batch, seed=PICTURE_SEED)


def draw(subject: Subject, prompts: Sequence[str], count: int) -> list[Image.Image]:
    """Pictures by the code that makes a training's previews, the LoRA at their strength."""
    recipe = recipe_of(subject.spec, prompts, count)
    set_strength(subject.models, recipe.lora_scale)
    return [picture.image for picture in generate(subject.models, subject.words, recipe, subject.spec.training.clip_skip)]


def draw_in_diffusers(spec: CharacterLoraSpec, base: Path, trained: Trained, prompt: str, count: int) -> list[Image.Image]:
    """The same pictures by diffusers alone: its pipeline, its loaders, the files that webui takes."""
    recipe = recipe_of(spec, [prompt], count)
    pipeline: Any = StableDiffusionPipeline.from_pretrained(base, dtype=torch.float32, safety_checker=None, local_files_only=True)
    schedule = {key: pipeline.scheduler.config[key] for key in ("beta_start", "beta_end", "beta_schedule", "prediction_type")}
    pipeline.scheduler = EulerAncestralDiscreteScheduler(**schedule)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.load_lora_weights(str(trained.lora_file))
    pipeline.load_textual_inversion(str(trained.word_file), token=spec.character.name)
    layers = pipeline.text_encoder.encoder.layers
    del layers[len(layers) - spec.training.clip_skip :]  # its own `clip_skip` does not find the final norm of transformers 5
    images: list[Image.Image] = []
    for number in range(recipe.num):
        seeds = range(PICTURE_SEED + number * recipe.batch, PICTURE_SEED + (number + 1) * recipe.batch)
        images += pipeline(
            [prompt] * recipe.batch,
            negative_prompt=[recipe.negative_prompt] * recipe.batch,
            width=recipe.width,
            height=recipe.height,
            num_inference_steps=recipe.inference_steps,
            guidance_scale=recipe.guidance_scale,
            cross_attention_kwargs={"scale": recipe.lora_scale},
            generator=[torch.Generator().manual_seed(seed) for seed in seeds],
        ).images
    return images


@torch.inference_mode()
def held_out_loss(subject: Subject, character: Character) -> float:
    """Mean loss on pictures that no training saw, each at four fixed noises and timesteps; the timesteps cover the schedule evenly.

    The captions are the training's, the weighting is none, whatever the training weighs.
    """
    spec, models = subject.spec, subject.models
    set_strength(models, 1.0)
    schedule = NoiseSchedule.of(models.scheduler, spec.base_model.prediction, torch.device("cpu"))
    latents = _latents(models, [character.other_picture(number) for number in range(HELD_OUT_PICTURES)])
    conditioning = _conditioning(subject, [character.caption(number) for number in range(HELD_OUT_PICTURES)])
    dice = torch.Generator().manual_seed(HELD_OUT_SEED)
    count = HELD_OUT_PICTURES * HELD_OUT_DRAWS
    timesteps = (torch.randperm(count, generator=dice) * len(schedule) // count).view(HELD_OUT_DRAWS, HELD_OUT_PICTURES)
    batches = [NoisyBatch(latents, torch.randn(latents.shape, generator=dice), each) for each in timesteps]
    losses = [diffusion_losses(models.unet, batch, conditioning, schedule, Loss()) for batch in batches]
    return torch.cat(losses).mean().item()


def _latents(models: DiffusionModels, pictures: list[Image.Image]) -> Tensor:
    """`[n, 4, H / 8, W / 8]`: the mean of what the VAE says, so that nothing depends on chance."""
    encoded = models.vae.encode(torch.stack([pixels(picture) for picture in pictures])).latent_dist
    latents: Tensor = encoded.mean * models.vae.config.scaling_factor
    return latents


def _conditioning(subject: Subject, tags: list[str]) -> Tensor:
    """`[n, 77, C]` of captions as training composes them, with no tag moved or left out. A word that is not known is read as letters."""
    character = subject.spec.character
    rules = subject.spec.dataset.captions.model_copy(update={"shuffle_tags": False, "tag_dropout": 0.0, "caption_dropout": 0.0})
    tokenizer = PromptTokenizer(subject.models.tokenizer, {word.name: len(word.vectors) for word in subject.words})
    texts = [captions.compose(captions.parse(each), character.name, character.class_, rules, random.Random(0)) for each in tags]
    ids = torch.tensor([tokenizer.encode_caption(text, chunks=1).ids for text in texts])
    encoder, clip_skip = subject.models.text_encoder, subject.spec.training.clip_skip
    if not subject.words:
        return encode_ids(encoder, ids, clip_skip)
    with spliced(encoder, torch.cat([word.vectors for word in subject.words])):
        return encode_ids(encoder, ids, clip_skip)
