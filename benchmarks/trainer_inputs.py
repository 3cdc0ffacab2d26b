"""What both sides of the trainer's benchmark are given: the setting, a base model with random weights, and pictures with captions."""

import json
import random
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
from PIL import Image
from torch import nn
from transformers import CLIPTokenizer

from builders import character_lora
from charalora_spec.spec import CharacterLora, Prediction
from charalora_trainer.learner import DTYPES
from charalora_trainer.model.load import DiffusionModels, load_models
from sd15 import random_models
from toyworld.architecture import untrained_base

WORD = "surtr_arknights"
VECTORS = 4
PICTURES = 8
TAGS = ("1girl", "solo", "smile", "night", "outdoors", "open mouth", "simple background", "looking at viewer", "standing")


@dataclass(frozen=True)
class Setting:
    """What is measured.

    Attributes:
        model: toy, or sd15: the real shapes of Stable Diffusion 1.5.
        precision: fp32, bf16 or fp16.
        width: Of the pictures, in pixels.
        height: Likewise.
        batch: Pictures a step.
        steps: Steps a round.
        rounds: How many rounds are measured; one before them is not.
        device: cpu or cuda.
    """

    model: str
    precision: str
    width: int
    height: int
    batch: int
    steps: int
    rounds: int
    device: str

    @property
    def all_steps(self) -> int:
        """Steps that each side trains, the first round included."""
        return self.steps * (self.rounds + 1)

    def to_json(self) -> str:
        """As text, for another process."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """What `to_json` wrote."""
        return cls(**json.loads(text))


def resource(setting: Setting) -> CharacterLora:
    """The training as a user writes it, with the guide's ranks and rates.

    The text encoder's last layer is used, because the examples of diffusers do so. Captions keep their tags, and no step is warmed up.
    """
    return character_lora(
        character__name=WORD,
        character__vectors=VECTORS,
        dataset__captions__templates="word",
        training__steps=setting.all_steps,
        training__saveEvery=setting.steps,
        training__batchSize=setting.batch,
        training__precision=setting.precision,
        training__clipSkip=0,
        training__learningRate__warmupSteps=0,
        training__learningRate__scaleWithBatch=False,
    )


def base_model(setting: Setting, folder: Path) -> DiffusionModels:
    """The same random weights for both sides, on the CPU."""
    if setting.model == "toy":
        base = folder / "toy"
        if not base.exists():
            untrained_base(base)
        return load_models(base, Prediction.EPSILON)
    models = random_models(DTYPES[resource(setting).spec.training.precision])
    _fill(models.vae)
    return models


def plain_tokenizer(models: DiffusionModels) -> CLIPTokenizer:
    """The base model's tokenizer as transformers has it."""
    model = json.loads(models.tokenizer.to_str())["model"]
    return CLIPTokenizer(vocab=model["vocab"], merges=[tuple(pair) for pair in model["merges"]], model_max_length=77)


def write_dataset(setting: Setting, folder: Path) -> Path:
    """Pictures of soft coloured noise and a few tags for each."""
    dataset = folder / "pictures"
    dataset.mkdir(parents=True, exist_ok=True)
    for number in range(max(PICTURES, setting.batch)):
        drawn = random.Random(number)
        coarse = np.array([[[drawn.randrange(256) for _ in range(3)] for _ in range(8)] for _ in range(8)], dtype=np.uint8)
        Image.fromarray(coarse).resize((setting.width, setting.height), Image.Resampling.BICUBIC).save(dataset / f"{number:02}.png")
        (dataset / f"{number:02}.txt").write_text(", ".join(drawn.sample(TAGS, 5)), encoding="utf-8")
    return dataset


def _fill(module: nn.Module) -> None:
    torch.manual_seed(1)
    for name, parameter in module.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(parameter)
        elif parameter.dim() == 1:
            nn.init.ones_(parameter)
        else:
            nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
