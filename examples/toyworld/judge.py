"""The judge: a small classifier that says what a picture shows. `python -m toyworld.judge` trains it.

It learns from drawings only, apart from the base model and any trainer's loss, so that its word on generated pictures is independent.
"""

import argparse
import random
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from toyworld.autoencoder import pixels
from toyworld.characters import Character
from toyworld.drawing import draw
from toyworld.looks import JUDGED, Look, random_look

WEIGHTS = Path(__file__).with_name("judge.safetensors")
FIRST_SEED = 5_000_000
BATCH = 64
RATE = 2e-3


class Classifier(nn.Module):
    """Six convolutions, then one linear head for each attribute over a grid of 4x4."""

    def __init__(self) -> None:
        super().__init__()
        widths = ((3, 24, 5, 2), (24, 48, 3, 2), (48, 64, 3, 1), (64, 64, 3, 2), (64, 96, 3, 2), (96, 96, 3, 1))
        self.trunk = nn.Sequential(*(layer for width in widths for layer in convolution(*width)), nn.AdaptiveAvgPool2d(4), nn.Flatten())
        self.heads = nn.ModuleDict({name: nn.Linear(96 * 16, len(values)) for name, values in JUDGED.items()})

    def forward(self, pictures: Tensor) -> dict[str, Tensor]:
        """Scores [n, classes] for each attribute, of pictures [n, 3, 128, 128] in -1..1."""
        seen = self.trunk(pictures)
        return {name: head(seen) for name, head in self.heads.items()}


def convolution(inputs: int, outputs: int, kernel: int, stride: int) -> tuple[nn.Module, ...]:
    """A convolution with its norm and non-linearity."""
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(outputs), nn.SiLU()


class Judge:
    """A trained classifier."""

    def __init__(self, classifier: Classifier) -> None:
        self._classifier = classifier.eval()

    @classmethod
    def load(cls, path: Path = WEIGHTS) -> "Judge":
        """The judge of the repository, or another one."""
        classifier = Classifier()
        classifier.load_state_dict({name: tensor.float() for name, tensor in load_file(path).items()}, strict=False)
        return cls(classifier)

    def attributes_shown(self, images: list[Image.Image]) -> list[dict[str, str]]:
        """For each picture the value of every judged attribute."""
        shown: list[dict[str, str]] = []
        for first in range(0, len(images), 64):
            with torch.no_grad():
                scores = self._classifier(torch.stack([pixels(image.convert("RGB")) for image in images[first : first + 64]]))
            best = {name: score.argmax(dim=1).tolist() for name, score in scores.items()}
            shown += [
                {name: JUDGED[name][choice] for name, choice in zip(best, choices, strict=True)}
                for choices in zip(*best.values(), strict=True)
            ]
        return shown

    def agreement(self, images: list[Image.Image], looks: list[Look]) -> dict[str, float]:
        """For each attribute the share of pictures that show what their look says."""
        shown = self.attributes_shown(images)
        return {
            name: sum(seen[name] == look.attribute(name) for seen, look in zip(shown, looks, strict=True)) / len(looks) for name in JUDGED
        }

    def certainty(self, images: list[Image.Image], looks: list[Look]) -> dict[str, float]:
        """For each attribute how probable the judge finds it, on average, that a picture shows what its look says; finer than a share."""
        with torch.no_grad():
            scores = self._classifier(torch.stack([pixels(image.convert("RGB")) for image in images]))
        right = {name: torch.tensor([JUDGED[name].index(look.attribute(name)) for look in looks]) for name in JUDGED}
        return {name: score.softmax(dim=1).gather(1, right[name][:, None]).mean().item() for name, score in scores.items()}

    def recognition(self, images: list[Image.Image], character: Character) -> float:
        """Mean over the attributes of the share of pictures that show the character's; backgrounds belong to no character."""
        shares = self.agreement(images, [character.look] * len(images))
        return sum(share for name, share in shares.items() if name != "background") / (len(shares) - 1)


def judged_look(rng: random.Random) -> Look:
    """Any look at all, horns and sword as frequent as what else is worn and held."""
    return replace(random_look(rng), accessory=rng.choice(JUDGED["accessory"]), item=rng.choice(JUDGED["item"]))


def lesson(step: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Batch `step`: worn-out drawings [64, 3, 128, 128] and, for each attribute, the right classes."""
    seeds = range(FIRST_SEED + step * BATCH, FIRST_SEED + (step + 1) * BATCH)
    looks = [judged_look(random.Random(seed)) for seed in seeds]
    pictures = torch.stack([pixels(draw(look, seed)) for look, seed in zip(looks, seeds, strict=True)])
    answers = {name: torch.tensor([values.index(look.attribute(name)) for look in looks]) for name, values in JUDGED.items()}
    return worn(pictures, random.Random(step), torch.Generator().manual_seed(step)), answers


def worn(pictures: Tensor, rng: random.Random, dice: torch.Generator) -> Tensor:
    """Pictures shifted, blurred, coarsened, faded and noisy, some more and some less, as a weak model draws them."""
    size = pictures.shape[-1]
    pictures = torch.roll(pictures, (rng.randint(-4, 4), rng.randint(-3, 3)), dims=(2, 3))
    if rng.random() < 0.5:
        small = functional.interpolate(pictures, scale_factor=rng.choice((0.25, 0.33, 0.5)), mode="area")
        pictures = functional.interpolate(small, size=(size, size), mode="bilinear")
    if rng.random() < 0.5:
        kernel = rng.choice((3, 5))
        pictures = functional.avg_pool2d(functional.pad(pictures, [kernel // 2] * 4, mode="replicate"), kernel, 1)
    contrast = 1 + 0.15 * torch.randn(len(pictures), 3, 1, 1, generator=dice)
    brightness = 0.1 * torch.randn(len(pictures), 3, 1, 1, generator=dice)
    noise = rng.choice((0.0, 0.05, 0.15)) * torch.randn(pictures.shape, generator=dice)
    coarse = rng.choice((0.0, 0.2)) * torch.randn(len(pictures), 3, 16, 16, generator=dice)
    patches = functional.interpolate(coarse, size=(size, size), mode="bicubic")
    return (pictures * contrast + brightness + noise + patches).clamp(-1, 1)


def train(path: Path, steps: int) -> None:
    """Train a judge and write its weights."""
    torch.manual_seed(0)
    classifier = Classifier()
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=RATE, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps, pct_start=0.1)
    for step in range(1, steps + 1):
        pictures, answers = lesson(step)
        scores = classifier(pictures)
        loss = torch.stack([functional.cross_entropy(scores[name], answers[name]) for name in JUDGED]).mean()
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        optimizer.step()
        schedule.step()
        if step % 50 == 0:
            print(f"step {step} loss {loss.item():.4f}", flush=True)
    save_file({name: tensor.half() for name, tensor in classifier.state_dict().items() if tensor.is_floating_point()}, path)


def main() -> None:
    """Train the judge and print how it does on fresh drawings."""
    parser = argparse.ArgumentParser(description="Train the judge.")
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=WEIGHTS)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    train(asked.output, asked.steps)
    looks = [judged_look(random.Random(seed)) for seed in range(512)]
    print(Judge.load(asked.output).agreement([draw(look, seed) for seed, look in enumerate(looks)], looks))


if __name__ == "__main__":
    main()
