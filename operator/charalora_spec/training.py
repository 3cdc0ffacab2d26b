"""How the training runs: `spec.training` and its parts. The defaults are the guide's recipe."""

from enum import Enum
from typing import Annotated, ClassVar

from pydantic import Field

from charalora_spec.parts import Part, Rule
from charalora_spec.values import Number, Switch, Whole, between


class Precision(Enum):
    """The number format that the frozen base model computes in; what is trained stays fp32."""

    BF16 = "bf16"
    FP16 = "fp16"
    FP32 = "fp32"


class Schedule(Enum):
    """How the learning rates go on after the warm-up."""

    CONSTANT = "constant"
    LINEAR = "linear"
    COSINE = "cosine"


class Layers(Enum):
    """Which layers of the base model get a LoRA."""

    GUIDE = "guide"


class LearningRate(Part):
    """Three rates, one for each thing that is trained, and their course."""

    unet: Annotated[Number, between(0, 1)] = Field(
        Number("1e-4"), description="Rate of the UNet's LoRA, per step, 0 to 1; with 0 it learns nothing."
    )
    text_encoder: Annotated[Number, between(0, 1)] = Field(
        Number("1e-5"), description="Rate of the text encoder's LoRA, per step, 0 to 1; with 0 it learns nothing."
    )
    embedding: Annotated[Number, between(0, 1)] = Field(
        Number("3e-3"), description="Rate of the trigger word's vectors, per step, 0 to 1; with 0 they stay as they start."
    )
    scale_with_batch: Switch = Field(
        default=True,
        description="Multiply the rates by the pictures of a step (batchSize × gradientAccumulation × GPUs), as the guide does.",
    )
    warmup_steps: Whole = Field(50, ge=0, le=100_000, description="Steps in which the rates grow from 0 to their full value.")
    schedule: Schedule = Field(
        Schedule.CONSTANT,
        description="After the warm-up: constant, or down to 0 at the last step in a straight line (linear) or half a cosine (cosine).",
    )


class Lora(Part):
    """The low-rank adapters."""

    unet_rank: Whole = Field(8, ge=1, le=256, description="Width of the UNet's adapter; larger learns more and weighs more.")
    text_encoder_rank: Whole = Field(4, ge=1, le=256, description="Width of the text encoder's adapter.")
    alpha: Annotated[Number, between(0.001, 1024)] = Field(
        Number("1.0"), description="Strength before division by the rank: a layer changes by alpha / rank · up · down. 0.001 to 1024."
    )
    dropout: Annotated[Number, between(0, 0.9)] = Field(
        Number("0"), description="Share of an adapter's output that is left out at random, 0 to 0.9."
    )
    layers: Layers = Field(
        Layers.GUIDE, description="guide: attention and feed-forward layers of the UNet, self-attention and MLP layers of the text encoder."
    )


class Optimizer(Part):
    """AdamW."""

    weight_decay: Annotated[Number, between(0, 1)] = Field(Number("1e-3"), description="Weight decay of both LoRAs, 0 to 1.")
    embedding_weight_decay: Annotated[Number, between(0, 1)] = Field(
        Number("5e-4"), description="Weight decay of the trigger word's vectors, 0 to 1."
    )
    max_grad_norm: Annotated[Number, between(0.001, 1000)] = Field(
        Number("1.0"), description="All gradients together are scaled down to this norm when they are longer, 0.001 to 1000."
    )


class Loss(Part):
    """What is minimised, and what is only measured."""

    min_snr_gamma: Annotated[Number, between(0.1, 100)] | None = Field(
        None, description="Weigh timesteps by min(SNR, gamma) / SNR (min-SNR weighting, 5 is usual), 0.1 to 100; null: all count the same."
    )
    noise_offset: Annotated[Number, between(0, 1)] = Field(
        Number("0"),
        description="Standard deviation of an offset added to a whole noise channel, for darker and brighter pictures, 0 to 1; 0: none.",
    )
    held_out: Annotated[Whole, Field(ge=0, le=1000)] | None = Field(
        None,
        description="Pictures that are never trained on and give the held-out loss at fixed noise, by which the best step is chosen; "
        "null: one of eight, 16 at most, where there are 16 pictures or more, else none; 0: train on all and measure none.",
    )


class Training(Part):
    """The training itself. It cannot change once the resource exists."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "save_every",
            ("steps", "save_every"),
            "self.saveEvery <= self.steps",
            "must not be greater than steps (left out, it is 100); write a lower saveEvery or more steps",
            lambda steps, save_every: save_every <= steps,
        ),
    )

    steps: Whole = Field(1000, ge=1, le=1_000_000, description="Optimizer steps in all.")
    save_every: Whole = Field(100, ge=1, le=1_000_000, description="Steps between two checkpoints with their previews; at most steps.")
    batch_size: Whole = Field(4, ge=1, le=1024, description="Pictures per GPU (or process) in one forward pass.")
    gradient_accumulation: Whole = Field(1, ge=1, le=1024, description="Forward passes whose gradients make one step.")
    seed: Whole = Field(
        114514, ge=0, le=4_294_967_295, description="Everything random follows from it: vectors, order of pictures, tags, noise."
    )
    precision: Precision = Field(
        Precision.BF16, description="Number format of the frozen base model: bf16, fp16 or fp32. What is trained stays fp32."
    )
    clip_skip: Whole = Field(
        1, ge=0, le=11, description='Last layers of the text encoder that are skipped; 1 is what webui calls "Clip skip 2".'
    )
    learning_rate: LearningRate = Field(LearningRate(), description="Learning rates and their course.")
    lora: Lora = Field(Lora(), description="Size and strength of the adapters.")
    optimizer: Optimizer = Field(Optimizer(), description="AdamW's settings.")
    loss: Loss = Field(Loss(), description="What is minimised, and what is only measured.")
