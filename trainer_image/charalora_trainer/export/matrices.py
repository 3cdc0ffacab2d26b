"""From loose tensors to LoRA modules, and how far two of them are apart. Every file format ends here."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from charalora_spec.outcome import Outcome, TrainingError
from charalora_trainer.weights import LoraModule

DOWN, UP, ALPHA = "down", "up", "alpha"
# Two updates whose largest difference is below this (times the update, where that is larger than 1) are the same: half precision base
# weights of size 0.05 are themselves rounded 30 times as coarsely.
ABSOLUTE_TOLERANCE = 1e-6
# Largest ‖difference‖ / ‖update‖ of one module, by the precision of the file. fp16 keeps 11 bits, so honest rounding stays below 1e-3.
RELATIVE_TOLERANCE = {torch.float32: 1e-6, torch.float16: 1e-2, torch.bfloat16: 3e-2}


@dataclass(frozen=True)
class Deviation:
    """How far an update is from the one it should be.

    Attributes:
        largest: The largest difference of one entry of the merged weight.
        relative: Frobenius norm of the difference over that of the expected update.
        peak: The largest entry of the expected update.
    """

    largest: float
    relative: float
    peak: float

    def within(self, dtype: torch.dtype) -> bool:
        """Whether a file of this precision may differ so much."""
        return self.largest <= ABSOLUTE_TOLERANCE * max(1.0, self.peak) or self.relative <= RELATIVE_TOLERANCE[dtype]


def assemble(found: Mapping[str, Mapping[str, Tensor]], alpha: Callable[[float, int], float], file: str) -> dict[str, LoraModule]:
    """LoRA modules, fp32, from tensors by module and role (`down`, `up`, `alpha`).

    Args:
        found: What a file holds.
        alpha: Makes the training alpha from the stored number and the rank. A module without a stored number has strength 1.
        file: The file's name, for messages.

    Raises:
        TrainingError: `ExportInvalid`, naming the module, when a matrix is missing, has another shape or holds a value that is no number.
    """
    return {path: _assembled(found[path], alpha, f"{path} in {file}") for path in sorted(found)}


def deviation(expected: LoraModule, actual: LoraModule) -> Deviation:
    """Compare what two modules add to the base model's weight."""
    if expected.scale == actual.scale and torch.equal(expected.down, actual.down) and torch.equal(expected.up, actual.up):
        return Deviation(0.0, 0.0, 0.0)
    update = expected.delta()
    return apart(update, actual.delta() - update)


def apart(update: Tensor, difference: Tensor) -> Deviation:
    """The deviation of an update from the expected one, given their difference."""
    norm, distance = float(update.norm()), float(difference.norm())
    relative = distance / norm if norm else float(distance and math.inf)
    return Deviation(float(difference.abs().max()), relative, float(update.abs().max()))


def shortest(stored: float, rank: int) -> float:
    """The number with the fewest digits that becomes the fp32 number `stored` when it is divided by `rank`.

    A file holds alpha (rank 1 here) or alpha / rank in fp32; the alpha that a person chose is short, so it comes back exactly.
    """
    exact = stored * rank
    candidates = (float(f"{exact:.{digits}g}") for digits in range(1, 12))
    return next((number for number in candidates if torch.tensor(number / rank, dtype=torch.float32).item() == stored), exact)


def invalid(message: str) -> TrainingError:
    """The error of a file that is not what training computed, or that cannot be read as a LoRA."""
    return TrainingError(Outcome.EXPORT_INVALID, message)


def _assembled(parts: Mapping[str, Tensor], alpha: Callable[[float, int], float], where: str) -> LoraModule:
    missing = [role for role in (DOWN, UP) if role not in parts]
    if missing:
        raise invalid(f"The {missing[0]} matrix of {where} is missing; the file is damaged, write or download it again.")
    for role, tensor in parts.items():
        if not bool(torch.isfinite(tensor).all()):
            raise invalid(f"The {role} of {where} holds infinite values or NaN; the training diverged or the file is damaged.")
    down, up = parts[DOWN].float(), parts[UP].float()
    if not _fit(down, up):
        raise invalid(f"The matrices of {where} do not belong together: down is {list(down.shape)}, up is {list(up.shape)}.")
    rank = down.shape[0]
    strength = alpha(_number(parts[ALPHA], where), rank) if ALPHA in parts else float(rank)
    if not 0 < strength < math.inf:
        raise invalid(f"The alpha of {where} is {strength:g}; it must be a positive number.")
    return LoraModule(down, up, strength)


def _fit(down: Tensor, up: Tensor) -> bool:
    """Whether `up · down` is a Linear's update `[out, in]` or a convolution's `[out, in, kh, kw]`."""
    return down.ndim == up.ndim and down.ndim in {2, 4} and up.shape[1:] == (down.shape[0], *(1,) * (down.ndim - 2)) and 0 not in down.shape


def _number(alpha: Tensor, where: str) -> float:
    if alpha.numel() != 1:
        raise invalid(f"The alpha of {where} is a tensor of shape {list(alpha.shape)}; it must be one number.")
    return float(alpha)
