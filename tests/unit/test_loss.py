"""The objective, against the formulas and against diffusers' own scheduler."""

import pytest
import torch
from diffusers import DDPMScheduler
from torch import Tensor

from charalora_spec.spec import Loss, Prediction
from charalora_trainer.loss import NoiseSchedule, NoisyBatch, diffusion_losses

SCHEDULER = DDPMScheduler(num_train_timesteps=1000, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
TIMESTEPS = torch.tensor([0, 17, 500, 999])


def schedule(prediction: Prediction = Prediction.EPSILON) -> NoiseSchedule:
    return NoiseSchedule.of(SCHEDULER, prediction, torch.device("cpu"))


def tensors(seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(4, 4, 8, 8, generator=generator), torch.randn(4, 4, 8, 8, generator=generator)


def test_noise_is_added_as_diffusers_adds_it() -> None:
    """The tables give the same noisy latents as DDPMScheduler.add_noise."""
    latents, noise = tensors()
    torch.testing.assert_close(SCHEDULER.add_noise(latents, noise, TIMESTEPS), schedule().add_noise(latents, noise, TIMESTEPS))


def test_velocity_is_what_diffusers_calls_velocity() -> None:
    """The target of v-prediction is DDPMScheduler.get_velocity."""
    latents, noise = tensors()
    expected = SCHEDULER.get_velocity(latents, noise, TIMESTEPS)
    torch.testing.assert_close(expected, schedule(Prediction.V_PREDICTION).target(latents, noise, TIMESTEPS))


def test_a_model_that_predicts_the_target_has_no_loss() -> None:
    """The loss of a perfect prediction is zero, of a prediction of zeros the mean square of the noise."""
    latents, noise = tensors()
    batch, text = NoisyBatch(latents, noise, TIMESTEPS), torch.zeros(4, 77, 8)

    perfect = diffusion_losses(lambda *_, **__: (noise,), batch, text, schedule(), Loss())
    nothing = diffusion_losses(lambda *_, **__: (torch.zeros_like(noise),), batch, text, schedule(), Loss())

    assert [0.0] * 4 == perfect.tolist()
    assert (noise**2).mean(dim=(1, 2, 3)).tolist() == pytest.approx(nothing.tolist())


def test_the_model_is_given_the_noisy_latents_and_the_timesteps() -> None:
    """What reaches the UNet are noisy latents in the conditioning's dtype, timesteps and conditioning."""
    latents, noise = tensors()
    seen: list[Tensor] = []

    def unet(sample: Tensor, timestep: Tensor, encoder_hidden_states: Tensor, *, return_dict: bool) -> tuple[Tensor]:
        assert not return_dict
        seen.extend((sample, timestep, encoder_hidden_states))
        return (sample,)

    diffusion_losses(unet, NoisyBatch(latents, noise, TIMESTEPS), torch.zeros(4, 77, 8, dtype=torch.bfloat16), schedule(), Loss())

    assert seen[0].dtype == torch.bfloat16
    torch.testing.assert_close(SCHEDULER.add_noise(latents, noise, TIMESTEPS).bfloat16(), seen[0])
    assert seen[1] is TIMESTEPS


@pytest.mark.parametrize("gamma", [1.0, 5.0])
def test_min_snr_weighs_each_timestep(gamma: float) -> None:
    """Weights are min(SNR, γ) / SNR for noise and min(SNR, γ) / (SNR + 1) for velocity (Hang et al. 2023)."""
    cumulative = SCHEDULER.alphas_cumprod[TIMESTEPS]
    snr = cumulative / (1 - cumulative)

    torch.testing.assert_close(snr.clamp(max=gamma) / snr, schedule().weights(TIMESTEPS, gamma), rtol=1e-4, atol=1e-6)
    velocity = schedule(Prediction.V_PREDICTION).weights(TIMESTEPS, gamma)
    torch.testing.assert_close(snr.clamp(max=gamma) / (snr + 1), velocity, rtol=1e-4, atol=1e-6)


def test_without_gamma_all_timesteps_weigh_the_same() -> None:
    """The guide's recipe has no SNR weighting."""
    assert schedule().weights(TIMESTEPS, None).tolist() == [1.0, 1.0, 1.0, 1.0]
