"""Pictures from prompts: the guide's sampler on the models that training uses, or on others.

Euler ancestral with classifier-free guidance (Ho and Salimans 2022). All noise comes from one CPU generator a picture, so a picture is a
function of its seed: the same on every device, alone or in a batch.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from diffusers import DDPMScheduler, EulerAncestralDiscreteScheduler
from PIL import Image
from torch import Tensor

from charalora_spec.outcome import Outcome, TrainingError
from charalora_trainer.model.load import DiffusionModels
from charalora_trainer.model.text import encode_ids, spliced, weigh
from charalora_trainer.stages.picture_files import save_picture
from charalora_trainer.stages.recipe import Picture, Recipe, drawn_seed, neutral_prompt
from charalora_trainer.weights import Word
from charalora_trainer.words.emphasis import PromptError
from charalora_trainer.words.prompt import PromptTokenizer, PromptTokens

__all__ = ["Picture", "Recipe", "generate", "neutral_prompt", "save_picture"]


def generate(
    models: DiffusionModels, words: Sequence[Word], recipe: Recipe, clip_skip: int, on_step: Callable[[], object] = lambda: None
) -> Iterator[Picture]:
    """Make the recipe's pictures, prompt by prompt, seed by seed.

    Between two pictures the models are as they were: their mode, their words, the VAE's place. No generator of the training's is
    touched.

    Args:
        models: With the LoRA in them, if there is one, at the strength that is wanted.
        words: Trigger words. One named `surtr_arknights-1000`, as the guide's files are, answers to `surtr_arknights` as well.
        recipe: What is asked for.
        clip_skip: HCP counting, 1 where webui says 2.
        on_step: Called after each of `recipe.denoising_steps` steps.

    Raises:
        TrainingError: `SpecInvalid` when a prompt's braces do not add up or a size is no multiple of the VAE's factor.
    """
    seed = drawn_seed() if recipe.seed is None else recipe.seed
    recipe = replace(recipe, seed=seed)
    tokenizer = PromptTokenizer(models.tokenizer, {word.name: len(word.vectors) for word in words}, _aliases(words))
    prompts = [_tokens(tokenizer, recipe, prompt) for prompt in recipe.prompts]
    shape = _latent_shape(models, recipe)
    number = 0
    for prompt, tokens in zip(recipe.prompts, prompts, strict=True):
        with _borrowed(models):
            conditioning = _conditioning(models, words, tokens, clip_skip)
        for batch in range(recipe.num):
            seeds = range(seed + batch * recipe.batch, seed + (batch + 1) * recipe.batch)
            with _borrowed(models):
                images = _images(models, conditioning, recipe, [_noise_source(each) for each in seeds], shape, on_step)
            for each, image in zip(seeds, images, strict=True):
                yield Picture(image, prompt, each, number, recipe, clip_skip)
                number += 1


def _aliases(words: Sequence[Word]) -> dict[str, str]:
    """Names without the step, where that is clear: one word has it, and none is called so itself."""
    plain = {word.name: re.sub(r"-[0-9]+$", "", word.name) for word in words}
    uses = Counter(plain.values())
    return {short: name for name, short in plain.items() if uses[short] == 1 and short != name}


def _tokens(tokenizer: PromptTokenizer, recipe: Recipe, prompt: str) -> list[PromptTokens]:
    """What is conditioned on: the negative prompt when there is guidance, and the prompt; as many chunks as the longer one needs."""
    texts = [recipe.negative_prompt, prompt] if recipe.guidance_scale > 1 else [prompt]
    try:
        chunks = max(len(tokenizer.encode(text).ids) for text in texts)
        return [tokenizer.encode(text, chunks) for text in texts]
    except PromptError as error:
        raise TrainingError(Outcome.SPEC_INVALID, f"The prompt {prompt!r} or its negative prompt cannot be read: {error}.") from error


def _latent_shape(models: DiffusionModels, recipe: Recipe) -> tuple[int, int, int]:
    factor = 2 ** (len(models.vae.config.block_out_channels) - 1)
    for name, size in (("width", recipe.width), ("height", recipe.height)):
        if size < factor or size % factor:
            raise TrainingError(Outcome.SPEC_INVALID, f"The pictures' {name} is {size}; give a multiple of {factor}.")
    return models.unet.config.in_channels, recipe.height // factor, recipe.width // factor


def _noise_source(seed: int) -> torch.Generator:
    return torch.Generator(device="cpu").manual_seed(seed)


@contextmanager
def _borrowed(models: DiffusionModels) -> Iterator[None]:
    """Evaluation mode, and the VAE beside the UNet; afterwards everything is as it was."""
    modes = [(module, module.training) for part in (models.unet, models.text_encoder, models.vae) for module in part.modules()]
    place = next(models.vae.parameters()).device
    try:
        for module, _ in modes:
            module.training = False
        models.vae.to(device=_place(models)[0])
        yield
    finally:
        models.vae.to(device=place)
        for module, training in modes:
            module.training = training


def _place(models: DiffusionModels) -> tuple[torch.device, torch.dtype]:
    """Where the UNet computes, and in what: its first layer says it, whatever the type of the LoRA."""
    weight = models.unet.conv_in.weight
    return weight.device, weight.dtype


@torch.inference_mode()
def _conditioning(models: DiffusionModels, words: Sequence[Word], tokens: Sequence[PromptTokens], clip_skip: int) -> Tensor:
    """`[1 or 2, 75·N + 2, C]`: each text with its emphasis."""
    device = models.text_encoder.get_input_embeddings().weight.device
    ids = torch.tensor([text.ids for text in tokens], device=device)
    weights = torch.tensor([text.joined_weights for text in tokens], device=device)
    if not words:
        return weigh(encode_ids(models.text_encoder, ids, clip_skip), weights)
    with spliced(models.text_encoder, torch.cat([word.vectors for word in words])):
        return weigh(encode_ids(models.text_encoder, ids, clip_skip), weights)


@torch.inference_mode()
def _images(
    models: DiffusionModels,
    conditioning: Tensor,
    recipe: Recipe,
    noise: list[torch.Generator],
    shape: tuple[int, int, int],
    on_step: Callable[[], object],
) -> list[Image.Image]:
    """One batch: from noise to latents to pictures. Latents are fp32 whatever the UNet computes in."""
    device, dtype = _place(models)
    scheduler = _sampler(models.scheduler)
    scheduler.set_timesteps(recipe.inference_steps, device=device)
    latents = torch.cat([torch.randn(1, *shape, generator=source) for source in noise]).to(device) * scheduler.init_noise_sigma
    context = conditioning.to(device=device, dtype=dtype).repeat_interleave(len(noise), dim=0)
    for timestep in scheduler.timesteps:
        scaled = scheduler.scale_model_input(latents, timestep).to(dtype)
        predicted = models.unet(scaled.repeat(len(conditioning), 1, 1, 1), timestep, context, return_dict=False)[0].float()
        if len(conditioning) > 1:
            negative, positive = predicted.chunk(2)
            predicted = negative + recipe.guidance_scale * (positive - negative)
        latents = scheduler.step(predicted, timestep, latents, generator=noise, return_dict=False)[0]
        on_step()
    return [_decoded(models, latent) for latent in latents.split(1)]


def _sampler(base: DDPMScheduler) -> EulerAncestralDiscreteScheduler:
    """Over the base model's noise schedule, which says what the UNet predicts; steps spaced evenly, as the guide's and webui's are."""
    config = base.config
    return EulerAncestralDiscreteScheduler(
        num_train_timesteps=config.num_train_timesteps,
        beta_start=config.beta_start,
        beta_end=config.beta_end,
        beta_schedule=config.beta_schedule,
        trained_betas=config.trained_betas,
        prediction_type=config.prediction_type,
        rescale_betas_zero_snr=config.rescale_betas_zero_snr,
    )


def _decoded(models: DiffusionModels, latent: Tensor) -> Image.Image:
    """One picture at a time, so that it depends on no other and memory stays small; in fp32, as the VAE always is."""
    pixels = models.vae.decode(latent / models.vae.config.scaling_factor, return_dict=False)[0][0]
    levels = ((pixels / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)
    return Image.fromarray(levels.permute(1, 2, 0).cpu().numpy())
