"""Teach the UNet, from nothing, to draw what a caption says."""

import math
import random
import time
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTokenizer

from toyworld.architecture import scheduler, unet
from toyworld.autoencoder import pixels
from toyworld.characters import pretraining_look
from toyworld.checkpoint import Training, append_figures, start
from toyworld.drawing import draw
from toyworld.looks import Look, training_caption
from toyworld.reading import text_encoder
from toyworld.tokenizer import write_tokenizer

RATE = 1e-3
WARM_UP = 100
BATCH = 16
PICTURES = 20_000
VALIDATION = 256
FIRST_SEED = 1_000_000
SNR_LIMIT = 5.0


def look_of(number: int) -> Look:
    """What picture `number` of the pre-training data shows."""
    return pretraining_look(random.Random(FIRST_SEED + number))


def encode_pictures(work: Path, autoencoder: AutoencoderKL) -> None:
    """Draw all pictures and keep the mean and spread of their latents, so that no step pays for the VAE."""
    means, spreads = [], []
    for first in range(0, PICTURES + VALIDATION, 32):
        numbers = range(first, min(first + 32, PICTURES + VALIDATION))
        pictures = torch.stack([pixels(draw(look_of(number), FIRST_SEED + number)) for number in numbers])
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            posterior = autoencoder.encode(pictures).latent_dist
        means.append(posterior.mean.half())
        spreads.append(posterior.std.half())
        if first % 3200 == 0:
            print(f"{first} pictures encoded", flush=True)
    mean, spread = torch.cat(means), torch.cat(spreads)
    draft = work / "latents.draft"
    torch.save({"mean": mean, "spread": spread, "scale": 1 / mean.float().std().item()}, draft)
    draft.rename(work / "latents.pt")


def weighted_loss(predicted: Tensor, noise: Tensor, t: Tensor, schedule: DDPMScheduler) -> Tensor:
    """Squared error, weighted by min-SNR (arXiv:2303.09556): steps with little noise, which teach the least, count less."""
    kept = schedule.alphas_cumprod[t]
    snr = kept / (1 - kept)
    error = (predicted - noise).square().mean(dim=(1, 2, 3))
    weight: Tensor = snr.clamp(max=SNR_LIMIT) / snr
    return (error * weight).mean()


def rate_at(step: int, steps: int) -> float:
    """The part of the learning rate to use: full for the first half, then a cosine down to a fiftieth."""
    past = max(0.0, 2 * step / steps - 1)
    return min(1.0, step / WARM_UP) * (0.51 + 0.49 * math.cos(math.pi * min(1.0, past)))


class Lessons:
    """The pictures' latents and captions; batch n is a function of n alone, so going on needs no state."""

    def __init__(self, work: Path, tokenizer: CLIPTokenizer) -> None:
        stored = torch.load(work / "latents.pt", weights_only=True)
        self.scale: float = stored["scale"]
        self._mean, self._spread, self._tokenizer = stored["mean"], stored["spread"], tokenizer
        self._reader = text_encoder(tokenizer).requires_grad_(requires_grad=False)
        self._looks = [look_of(number) for number in range(len(self._mean))]
        self._schedule = scheduler()

    def batch(self, step: int, numbers: list[int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Noisy latents, timesteps (spread evenly over the schedule), what the captions say and the noise."""
        rng, dice = random.Random(step), torch.Generator().manual_seed(step)
        mean, spread = self._mean[numbers].float(), self._spread[numbers].float()
        latents = (mean + spread * torch.randn(mean.shape, generator=dice)) * self.scale
        noise = torch.randn(mean.shape, generator=dice)
        t = ((torch.arange(len(numbers)) + torch.rand(len(numbers), generator=dice)) * 1000 / len(numbers)).long()
        captions = [training_caption(self._looks[number], rng) for number in numbers]
        ids = self._tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt").input_ids
        return self._schedule.add_noise(latents, noise, t), t, self._reader(ids).last_hidden_state, noise

    def training_batch(self, step: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Batch `step` of the training pictures."""
        return self.batch(step, random.Random(step).sample(range(PICTURES), BATCH))

    def validation_loss(self, model: UNet2DConditionModel) -> float:
        """The loss on pictures that are never trained on, at fixed noise."""
        losses = []
        for first in range(0, VALIDATION, 64):
            noisy, t, text, noise = self.batch(-1 - first, list(range(PICTURES + first, PICTURES + first + 64)))
            with torch.no_grad():
                losses.append(weighted_loss(model(noisy, t, text).sample, noise, t, self._schedule).item())
        return sum(losses) / len(losses)

    def step_loss(self, model: UNet2DConditionModel, step: int) -> Tensor:
        """The loss of training batch `step`."""
        noisy, t, text, noise = self.training_batch(step)
        return weighted_loss(model(noisy, t, text).sample, noise, t, self._schedule)


def train_unet(work: Path, steps: int, seed: int = 0) -> None:
    """Train for `steps` steps, going on from the checkpoint in `work` if there is one."""
    torch.manual_seed(seed)
    tokenizer = write_tokenizer(work / "tokenizer")
    lessons = Lessons(work, tokenizer)
    training = start(unet(), RATE, (0.9, 0.98), 0.01)
    training.resume(work / "unet.pt")
    began, first, total = time.monotonic(), training.step, 0.0
    while training.step < steps:
        training.step += 1
        total += unet_step(training, lessons, rate_at(training.step, steps))
        if training.step % 100 == 0:
            pace = (training.step - first) * BATCH / (time.monotonic() - began)
            append_figures(work / "unet.jsonl", step=training.step, loss=round(total / 100, 4), images_per_second=round(pace, 1))
            total = 0.0
        if training.step % 500 == 0 or training.step == steps:
            training.save(work / "unet.pt")
            append_figures(work / "unet.jsonl", step=training.step, validation=round(lessons.validation_loss(training.average), 4))


def unet_step(training: Training[UNet2DConditionModel], lessons: Lessons, rate: float) -> float:
    """One step of the optimizer; returns the loss."""
    for group in training.optimizer.param_groups:
        group["lr"] = RATE * rate
    loss = lessons.step_loss(training.model, training.step)
    training.optimizer.zero_grad(set_to_none=True)
    torch.autograd.backward(loss)
    torch.nn.utils.clip_grad_norm_(training.model.parameters(), 1.0)
    training.optimizer.step()
    training.update_average(0.999)
    return loss.item()
