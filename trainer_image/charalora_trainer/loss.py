"""The training objective as functions of tensors: noise and timesteps are arguments, so that any run can be repeated."""

from dataclasses import dataclass
from typing import Protocol

import torch
from diffusers import DDPMScheduler
from torch import Tensor

from charalora_spec.spec import Loss, Prediction


class Denoiser(Protocol):
    """What the loss needs of a UNet."""

    def __call__(self, sample: Tensor, timestep: Tensor, encoder_hidden_states: Tensor, *, return_dict: bool) -> tuple[Tensor]:
        """Predict noise or velocity `[B, C, H, W]` from noisy latents, timesteps `[B]` and conditioning `[B, L, D]`."""
        ...


@dataclass(frozen=True)
class NoiseSchedule:
    """The forward process x_t = signal_t · x_0 + sigma_t · noise (Ho et al. 2020, eq. 4), in tables of T entries on the device.

    Attributes:
        signal: `[T]` square root of the cumulative alpha.
        sigma: `[T]` square root of one minus it.
        prediction: What the model predicts: the noise, or the velocity of Salimans and Ho 2022.
    """

    signal: Tensor
    sigma: Tensor
    prediction: Prediction

    @classmethod
    def of(cls, scheduler: DDPMScheduler, prediction: Prediction, device: torch.device) -> "NoiseSchedule":
        """The tables of a base model's scheduler."""
        cumulative = scheduler.alphas_cumprod.double()
        return cls(cumulative.sqrt().float().to(device), (1 - cumulative).sqrt().float().to(device), prediction)

    def __len__(self) -> int:
        """Number of timesteps."""
        return len(self.signal)

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Noisy latents `[B, C, H, W]` at the given timesteps `[B]`."""
        return _each(self.signal, timesteps) * latents + _each(self.sigma, timesteps) * noise

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """What the model should predict, `[B, C, H, W]`."""
        if self.prediction is Prediction.EPSILON:
            return noise
        return _each(self.signal, timesteps) * noise - _each(self.sigma, timesteps) * latents

    def weights(self, timesteps: Tensor, min_snr_gamma: float | None) -> Tensor:
        """Weight of each sample `[B]`: ones, or min(SNR, γ) / SNR (Hang et al. 2023; for velocity divided by SNR + 1)."""
        if min_snr_gamma is None:
            return torch.ones_like(timesteps, dtype=torch.float32)
        snr = (self.signal[timesteps] / self.sigma[timesteps]) ** 2
        divisor = snr if self.prediction is Prediction.EPSILON else snr + 1
        return snr.clamp(max=min_snr_gamma) / divisor


@dataclass(frozen=True)
class NoisyBatch:
    """All that one forward pass of the UNet is given.

    Attributes:
        latents: `[B, C, H, W]` fp32, scaled as the UNet expects them.
        noise: Same shape, fp32.
        timesteps: `[B]` int64.
    """

    latents: Tensor
    noise: Tensor
    timesteps: Tensor


def diffusion_losses(unet: Denoiser, batch: NoisyBatch, conditioning: Tensor, schedule: NoiseSchedule, settings: Loss) -> Tensor:
    """Weighted mean squared error in fp32 between what the model predicts and what the schedule defines, of each sample; `[B]`.

    Args:
        unet: The model; it computes in the dtype of `conditioning`.
        batch: Latents, noise and timesteps.
        conditioning: `[B, L, D]` hidden states of the text encoder.
        schedule: The noise schedule.
        settings: min-SNR; the noise offset is part of the noise already.
    """
    noisy = schedule.add_noise(batch.latents, batch.noise, batch.timesteps)
    if noisy.device.type == "cuda":
        noisy = noisy.contiguous(memory_format=torch.channels_last)
    (predicted,) = unet(noisy.to(conditioning.dtype), batch.timesteps, conditioning, return_dict=False)
    error = (predicted.float() - schedule.target(batch.latents, batch.noise, batch.timesteps)) ** 2
    return error.flatten(1).mean(1) * schedule.weights(batch.timesteps, settings.min_snr_gamma)


def _each(table: Tensor, timesteps: Tensor) -> Tensor:
    return table[timesteps].view(-1, 1, 1, 1)
