"""Teach the VAE to keep drawings: colours, dark outlines and eyes, in latents of 4x16x16."""

import math
import random
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn import functional

from toyworld.architecture import vae
from toyworld.brush import INK
from toyworld.checkpoint import Training, append_figures, start
from toyworld.drawing import SIZE, draw
from toyworld.looks import random_look

RATE = 1.5e-3
WARM_UP = 100
BATCH = 8
VALIDATION_SEED = 900_000


def pixels(picture: Image.Image) -> Tensor:
    """A picture as [3, height, width] in -1..1, as the VAE wants it."""
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).float().div(127.5).sub(1)


def stray_shapes(picture: Image.Image, rng: random.Random) -> Image.Image:
    """The picture with its colours exchanged and foreign shapes over it: what the VAE meets when a new character comes."""
    channels = list(picture.split())
    rng.shuffle(channels)
    strange = Image.merge("RGB", channels) if rng.random() < 0.3 else picture
    brush = ImageDraw.Draw(strange)
    for _ in range(rng.randrange(1, 5)):
        x, y, width, height = rng.uniform(0, SIZE), rng.uniform(0, SIZE), rng.uniform(4, 20), rng.uniform(4, 20)
        corners = [(x + rng.gauss(0, width), y + rng.gauss(0, height)) for _ in range(rng.randrange(3, 6))]
        fill = (rng.randrange(256), rng.randrange(256), rng.randrange(256))
        brush.polygon(corners, fill=fill, outline=INK if rng.random() < 0.7 else None, width=rng.randrange(1, 3))
    return strange


def training_picture(seed: int) -> Tensor:
    """Drawing number `seed`; one in four is made strange."""
    rng = random.Random(seed)
    picture = draw(random_look(rng), seed)
    return pixels(stray_shapes(picture, rng) if rng.random() < 0.25 else picture)


def batch(first: int, size: int) -> Tensor:
    """Drawings `first` to `first + size`, [size, 3, 128, 128]."""
    return torch.stack([training_picture(seed) for seed in range(first, first + size)])


def reconstruction_loss(wanted: Tensor, made: Tensor) -> Tensor:
    """Absolute and squared error, and the error of the differences between neighbours, which keeps outlines sharp."""
    error = made - wanted
    rows, columns = error.diff(dim=2), error.diff(dim=3)
    return error.abs().mean() + 2 * error.square().mean() + 0.5 * (rows.abs().mean() + columns.abs().mean())


def signal_to_noise(wanted: Tensor, made: Tensor) -> float:
    """PSNR in dB, of values in -1..1."""
    return -10 * math.log10(functional.mse_loss(made.float().clamp(-1, 1), wanted).item() / 4)


def rate_at(step: int, steps: int) -> float:
    """The part of the learning rate to use: a short climb, then a cosine down to nothing."""
    return min(1.0, step / WARM_UP) * 0.5 * (1 + math.cos(math.pi * min(1.0, step / steps)))


def trained_vae(work: Path) -> AutoencoderKL:
    """The averaged VAE in `work`: with its decoder polished, if that was done."""
    autoencoder = vae()
    polished = work / "decoder.pt"
    state = torch.load(polished if polished.exists() else work / "vae.pt", weights_only=True)
    autoencoder.load_state_dict(state["average"])
    return autoencoder.requires_grad_(requires_grad=False)


def train_vae(work: Path, steps: int) -> None:
    """Train encoder and decoder."""
    train(work, "vae", vae(), steps)


def polish_decoder(work: Path, steps: int) -> None:
    """Train the decoder further while the encoder rests: latents stay what they are, so the UNet can learn at the same time."""
    autoencoder = vae()
    autoencoder.load_state_dict(torch.load(work / "vae.pt", weights_only=True)["average"])
    autoencoder.encoder.requires_grad_(requires_grad=False)
    autoencoder.quant_conv.requires_grad_(requires_grad=False)
    train(work, "decoder", autoencoder, steps)


def train(work: Path, name: str, autoencoder: AutoencoderKL, steps: int) -> None:
    """Train for `steps` steps, going on from the checkpoint in `work` if there is one. Batch n is a function of n."""
    training = start(autoencoder, RATE, (0.9, 0.99), 0.01)
    training.resume(work / f"{name}.pt")
    validation = batch(VALIDATION_SEED, 32)
    began, first = time.monotonic(), training.step
    while training.step < steps:
        training.step += 1
        torch.manual_seed(training.step)
        loss = step_loss(training, batch(training.step * BATCH, BATCH), rate_at(training.step, steps))
        if training.step % 50 == 0:
            pace = (training.step - first) * BATCH / (time.monotonic() - began)
            append_figures(work / f"{name}.jsonl", step=training.step, loss=round(loss.item(), 4), images_per_second=round(pace, 1))
        if training.step % 250 == 0 or training.step == steps:
            training.save(work / f"{name}.pt")
            quality = signal_to_noise(validation, reconstruct(training.average, validation))
            append_figures(work / f"{name}.jsonl", step=training.step, psnr=round(quality, 2))


def step_loss(training: Training[AutoencoderKL], wanted: Tensor, rate: float) -> Tensor:
    """One step of the optimizer; returns its loss."""
    for group in training.optimizer.param_groups:
        group["lr"] = RATE * rate
    with torch.autocast("cpu", torch.bfloat16):
        posterior = training.model.encode(wanted).latent_dist
        made = training.model.decode(posterior.sample()).sample
    spread = 0.5 * (posterior.mean.square() + posterior.var - 1 - posterior.logvar).float().mean()
    loss: Tensor = reconstruction_loss(wanted, made.float()) + 1e-3 * spread
    training.optimizer.zero_grad(set_to_none=True)
    torch.autograd.backward(loss)
    torch.nn.utils.clip_grad_norm_(training.model.parameters(), 1.0)
    training.optimizer.step()
    training.update_average(0.998)
    return loss.detach()


def reconstruct(model: AutoencoderKL, wanted: Tensor) -> Tensor:
    """Pictures through the VAE, without noise in the latents."""
    with torch.no_grad():
        made: Tensor = model.decode(model.encode(wanted).latent_dist.mode()).sample
    return made
