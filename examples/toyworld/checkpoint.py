"""Training state on disk: whole or absent, and enough to go on as if nothing had happened."""

import copy
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import torch
from torch import nn

Model = TypeVar("Model", bound=nn.Module)


@dataclass
class Training(Generic[Model]):
    """A model that learns, the running average of its weights (what is kept in the end) and its optimizer."""

    model: Model
    average: Model
    optimizer: torch.optim.Optimizer
    step: int = 0

    def update_average(self, decay: float) -> None:
        """Move the average towards the model; at first faster, so that it forgets the random start."""
        weight = 1 - min(decay, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.average.parameters()), list(self.model.parameters()), weight)

    def save(self, path: Path) -> None:
        """Write beside, then rename: a reader sees a complete checkpoint or none."""
        draft = path.with_suffix(".draft")
        state = {
            "step": self.step,
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        torch.save(state, draft)
        draft.rename(path)

    def resume(self, path: Path) -> None:
        """Take up a saved state; without one stay at the beginning."""
        if path.exists():
            state = torch.load(path, weights_only=True)
            self.step = state["step"]
            self.model.load_state_dict(state["model"])
            self.average.load_state_dict(state["average"])
            self.optimizer.load_state_dict(state["optimizer"])


def start(model: Model, rate: float, betas: tuple[float, float], decay: float) -> Training[Model]:
    """A fresh training of `model` with AdamW."""
    average = copy.deepcopy(model).requires_grad_(requires_grad=False)
    return Training(model, average, torch.optim.AdamW(model.parameters(), lr=rate, betas=betas, weight_decay=decay, fused=True))


def append_figures(path: Path, **figures: float) -> None:
    """Add one line to a run's curve and show it."""
    line = json.dumps(figures)
    print(line, flush=True)
    with path.open("a", encoding="utf-8") as curve:
        curve.write(line + "\n")
