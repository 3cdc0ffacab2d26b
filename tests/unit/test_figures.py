"""A training's figures: what is told of its steps, and how much of a GPU they use."""

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from builders import character_lora
from charalora_spec.spec import Precision
from charalora_trainer.learner import Learner
from charalora_trainer.loss import NoisyBatch
from charalora_trainer.metrics import Metrics
from charalora_trainer.model.load import load_models
from charalora_trainer.rates import Rates
from charalora_trainer.stages.figures import Figures, flops_per_image, peak_flops
from charalora_trainer.stages.train import Health, Measured
from tiny_model import tiny_base

RATES = Rates(unet=4e-4, text_encoder=4e-5, embedding=1.2e-2)


def figures(metrics: Metrics, done: int = 0, peak: float | None = None, work: float | None = None) -> Figures:
    job: Any = SimpleNamespace(run=character_lora(training__steps=100), began=time.time() - 60)
    return Figures(metrics, job, done, peak, work)


def measured(step: int, loss: float = 0.5) -> Measured:
    return Measured(step, loss, gradient_norm=2.0, images=4, seconds=0.5)


def test_the_loss_is_the_mean_of_the_newest_steps_that_have_one() -> None:
    """Twenty of them; one that is not finite says nothing."""
    metrics = Metrics()
    told = figures(metrics)

    told.measured([measured(step, 9.0) for step in range(1, 6)], Health(0, 0, 0.4), RATES)
    told.measured([measured(step, 0.25) for step in range(6, 26)] + [measured(26, float("nan"))], Health(1, 1, 0.4), RATES)

    assert 0.25 == metrics.value("loss")
    assert (26.0, 104.0, 8.0, 1.0) == tuple(
        metrics.value(name) for name in ("step", "images_total", "images_per_second", "nonfinite_steps_total")
    )


def test_the_time_that_is_left_is_known_after_a_step_of_this_attempt() -> None:
    """What an earlier attempt did says nothing about the speed of this one."""
    metrics = Metrics()
    told = figures(metrics, done=50)
    assert (50.0, None, None) == tuple(metrics.value(name) for name in ("step", "eta_seconds", "loss"))

    told.measured([measured(51)], Health(0, 0, 0.4), RATES)

    left = metrics.value("eta_seconds")
    assert left is not None
    assert left >= 0
    first = metrics.value("time_to_first_step_seconds")
    assert first is not None
    assert 60 <= first < 120


def test_a_share_of_the_peak_is_told_only_where_the_peak_is_known() -> None:
    """100 operations a picture, 8 pictures a second, 1600 operations a second at most."""
    known, unknown = Metrics(), Metrics()

    figures(known, peak=1600.0, work=100.0).measured([measured(1)], Health(0, 0, 0.4), RATES)
    figures(unknown).measured([measured(1)], Health(0, 0, 0.4), RATES)

    assert (0.5, None) == (known.value("model_flops_utilization"), unknown.value("model_flops_utilization"))


@pytest.mark.parametrize(
    ("expected", "gpu"),
    [
        (989.4e12, "NVIDIA H100 80GB HBM3"),
        (756e12, "NVIDIA H100 PCIe"),
        (989.4e12, "NVIDIA H200"),
        (362e12, "NVIDIA L40S"),
        (121e12, "NVIDIA L4"),
        (70e12, "NVIDIA A10G"),
        (312e12, "NVIDIA A100-SXM4-80GB"),
        (None, "NVIDIA GeForce GTX 1080"),
    ],
)
def test_a_gpu_is_known_by_its_name(expected: float | None, gpu: str) -> None:
    """In half precision; fp32 takes other units of the GPU, whose use this figure would not say."""
    assert expected == peak_flops(gpu, Precision.BF16)
    assert peak_flops(gpu, Precision.FP32) is None


def test_the_arithmetic_of_a_step_is_counted_and_leaves_no_trace(tmp_path: Path) -> None:
    """Backwards it is more than forwards; no gradient stays behind."""
    tiny_base(tmp_path)
    spec = character_lora(training__precision="fp32", training__batchSize=2).spec
    learner = Learner.on(load_models(tmp_path, spec.base_model.prediction), spec, torch.device("cpu"), 1)
    ids = torch.tensor([learner.tokenizer.encode_caption("surtr_arknights, smile", 1).ids] * 2)
    feed: Any = SimpleNamespace(batch=lambda *_, **__: (noisy(2), SimpleNamespace(ids=ids)))

    counted = flops_per_image(learner, feed, step=1)

    assert counted > 1e6
    assert 0 == learner.flat.gradient.abs().max()


def noisy(size: int) -> NoisyBatch:
    return NoisyBatch(torch.ones(size, 4, 8, 8), torch.ones(size, 4, 8, 8), torch.full((size,), 10))
