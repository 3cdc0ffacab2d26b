"""Learning rates as the optimizer uses them."""

import math
from typing import NamedTuple

from charalora_spec.spec import Schedule, Training


class Rates(NamedTuple):
    """Learning rate of each group, after scaling with the batch."""

    unet: float
    text_encoder: float
    embedding: float


def effective_rates(training: Training, processes: int) -> Rates:
    """The guide multiplies its rates with the pictures of an optimizer step, batch × processes × accumulation: 4e-4, 4e-5, 1.2e-2 at 4."""
    rates = training.learning_rate
    factor = training.batch_size * processes * training.gradient_accumulation if rates.scale_with_batch else 1
    return Rates(unet=rates.unet * factor, text_encoder=rates.text_encoder * factor, embedding=rates.embedding * factor)


def schedule_factor(training: Training, step: int) -> float:
    """What the rates are multiplied with at `step` (from 1): (step - 1) / warm-up, as in the guide, then the schedule."""
    done = step - 1
    warmup = training.learning_rate.warmup_steps
    if done < warmup:
        return done / warmup
    remaining = (done - warmup) / max(1, training.steps - warmup)
    match training.learning_rate.schedule:
        case Schedule.CONSTANT:
            return 1.0
        case Schedule.LINEAR:
            return 1.0 - remaining
        case Schedule.COSINE:
            return 0.5 * (1.0 + math.cos(math.pi * remaining))
