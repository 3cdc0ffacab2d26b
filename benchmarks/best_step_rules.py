"""Ways to choose a step by its held-out loss. The trainer uses the first; the others were tried beside it."""

from collections.abc import Callable, Sequence
from math import log, sqrt
from statistics import fmean, stdev

from charalora_spec.spec import Keep
from charalora_trainer.best import choose
from charalora_trainer.history import History, held_out_loss

Rule = Callable[[History, int], int]
"""From a history and its number of held-out pictures to a step."""


def lowest(history: History, _: int) -> int:
    """What is published."""
    return choose(history, Keep.ALL, _last(history)).step


def at_noise(low: float, high: float) -> Rule:
    """The lowest of the held-out loss over a part of the noise schedule alone, 0 to 1."""

    def rule(history: History, pictures: int) -> int:
        return min(history.measurements, key=lambda save: held_out_loss(_between(save[1], pictures, low, high)))[0]

    return rule


def plain(history: History, _: int) -> int:
    """The lowest arithmetic mean, which the least noisy levels decide."""
    return min(history.measurements, key=lambda save: fmean(save[1]))[0]


def smoothed(history: History, _: int) -> int:
    """The lowest of the mean with the save before and the save after."""
    means = [loss for _, loss in history.held_out]
    around = [fmean(means[max(0, place - 1) : place + 2]) for place in range(len(means))]
    return history.held_out[around.index(min(around))][0]


def earliest(history: History, _: int) -> int:
    """The first save within one standard error of the lowest: the usual rule where less is safer."""
    return _alike(history)[0]


def latest(history: History, _: int) -> int:
    """The last such save."""
    return _alike(history)[-1]


def last(history: History, _: int) -> int:
    """Whatever the training ended with."""
    return _last(history)


RULES: dict[str, Rule] = {
    "lowest held-out loss (what the trainer does)": lowest,
    "the last step": last,
    "lowest at the least noisy third": at_noise(0, 1 / 3),
    "lowest at the middle third": at_noise(1 / 3, 2 / 3),
    "lowest at the noisiest third": at_noise(2 / 3, 1),
    "lowest plain mean": plain,
    "lowest of three saves' mean": smoothed,
    "first within one standard error of the lowest": earliest,
    "last within one standard error of the lowest": latest,
}


def _last(history: History) -> int:
    return history.held_out[-1][0]


def _between(losses: Sequence[float], pictures: int, low: float, high: float) -> list[float]:
    """Those measurements whose noise level lies in a part of the schedule; a picture's come together, from little noise to much."""
    draws = len(losses) // pictures
    return [loss for place, loss in enumerate(losses) if low <= (place % draws + 0.5) / draws < high]


def _alike(history: History) -> list[int]:
    """The saves whose measurements differ from the lowest's by no more than one standard error of the difference."""
    best = dict(history.measurements)[min(history.held_out, key=lambda save: save[1])[0]]
    return [step for step, losses in history.measurements if _excess(losses, best) <= 1]


def _excess(losses: Sequence[float], best: Sequence[float]) -> float:
    """How many standard errors losses lie above others of the same measurements."""
    differences = [log(one / other) for one, other in zip(losses, best, strict=True)]
    spread = stdev(differences) / sqrt(len(differences))
    return fmean(differences) / spread if spread else 0.0
