"""A training's figures, from what the loop measures to what Prometheus is told."""

import math
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch.utils.flop_counter import FlopCounterMode

from charalora_spec.spec import CharacterLoraSpec, Precision
from charalora_trainer.feed import Feed
from charalora_trainer.job import Job
from charalora_trainer.learner import Learner
from charalora_trainer.metrics import Metrics
from charalora_trainer.optimizer import GROUPS
from charalora_trainer.processes import Processes
from charalora_trainer.progress import Progress
from charalora_trainer.rates import Rates
from charalora_trainer.stages.train import Health, Measured

SMOOTHED_STEPS = 20

# Dense half-precision operations a second by the makers' data sheets; the first name that is a part of what torch calls the GPU counts.
PEAK_FLOPS = {
    "H200": 989.4e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989.4e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "A10G": 70e12,
    "A10": 125e12,
    "RTX 4090": 165.2e12,
    "RTX 3090": 71e12,
}


def peak_flops(gpu: str, precision: Precision) -> float | None:
    """What a GPU can compute in a second at most; None where we do not know it."""
    if precision is Precision.FP32:
        return None
    return next((flops for name, flops in PEAK_FLOPS.items() if name in gpu), None)


@dataclass
class Figures:
    """What the first process of a training tells.

    Attributes:
        metrics: Where it is told.
        job: What is trained.
        done: The last step of the state that this attempt goes on from.
        peak: What all GPUs together can compute in a second, where that is known.
    """

    metrics: Metrics
    job: Job
    done: int
    peak: float | None = None
    flops_per_image: float | None = None
    _began: float = field(default_factory=time.monotonic)
    _images: int = 0
    _losses: deque[float] = field(default_factory=lambda: deque(maxlen=SMOOTHED_STEPS))

    def __post_init__(self) -> None:
        self.metrics.set("steps", self.job.run.spec.training.steps)
        self.metrics.set("step", self.done)
        self.metrics.set("images", 0)
        self.metrics.set("nonfinite_steps", 0)

    def measured(self, steps: Sequence[Measured], health: Health, rates: Rates) -> None:
        """Tell of the newest steps."""
        for step in steps:
            self.metrics.step_took(step.seconds)
            self._images += step.images
            if math.isfinite(step.loss):
                self._losses.append(step.loss)
        self._first(steps[0])
        last, spec = steps[-1], self.job.run.spec
        self.metrics.set("step", last.step)
        self.metrics.set("images", self._images)
        self.metrics.set("images_per_second", last.images_per_second)
        self.metrics.set("gradient_norm", last.gradient_norm)
        self.metrics.set("nonfinite_steps", health.nonfinite_steps)
        self.metrics.set("embedding_norm", health.embedding_norm, word=spec.character.name)
        for group, rate in zip(GROUPS, rates, strict=True):
            self.metrics.set("learning_rate", rate, group=group)
        if self._losses:
            self.metrics.set("loss", sum(self._losses) / len(self._losses))
        if self.peak and self.flops_per_image:
            self.metrics.set("model_flops_utilization", self.flops_per_image * last.images_per_second / self.peak)
        seconds = time.monotonic() - self._began
        eta = Progress("train", last.step, spec.training.steps, self.done, seconds).eta
        if eta is not None:
            self.metrics.set("eta_seconds", eta)

    def _first(self, step: Measured) -> None:
        if step.step == self.done + 1:
            self.metrics.set("time_to_first_step_seconds", time.time() - self.job.began)


def flops_per_image(learner: Learner, feed: Feed, step: int) -> float:
    """Arithmetic of a training step for each of its pictures, counted in one pass over the batch of `step` that changes nothing."""
    noisy, text = feed.batch(step, micro=0)
    with FlopCounterMode(display=False) as counter:
        learner.optimizer.backward(learner.loss(noisy, text.ids))
    learner.flat.gradient.zero_()
    return float(counter.get_total_flops()) / len(noisy.latents)


def watch_gpu(metrics: Metrics, processes: Processes) -> None:
    """Tell how much of this process's GPU is taken; asking the allocator waits for nothing."""
    if processes.device.type == "cuda":
        device = processes.device
        metrics.set("gpu_memory_bytes", lambda: float(torch.cuda.memory_reserved(device)), gpu=str(processes.local_rank))


def peak_of(spec: CharacterLoraSpec, processes: Processes) -> float | None:
    """What all GPUs of a training can compute in a second together; None where that is not known."""
    if processes.device.type != "cuda":
        return None
    peak = peak_flops(torch.cuda.get_device_name(processes.device), spec.training.precision)
    return peak and peak * processes.count
