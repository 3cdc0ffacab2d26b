"""Which step is published, and where learning by heart began."""

import random
from collections.abc import Sequence

import pytest

from charalora_spec.spec import Keep
from charalora_trainer.best import choose, is_worse, overfitting_since
from charalora_trainer.history import History, held_out_loss

SINGLE = [0.02 + 0.4 * number / 64 for number in range(64)]
"""Losses at 64 noise levels: they differ far more from each other than one save's mean from the next."""


def history(*levels: float, noise: float = 0.0) -> History:
    """Saves every hundred steps, each with that share more at every noise level, and some chance."""
    dice = random.Random(5)
    measured = [tuple(loss * (1 + level + noise * dice.gauss(0, 1)) for loss in SINGLE) for level in levels]
    steps = range(100, 100 * len(levels) + 1, 100)
    means = tuple((step, held_out_loss(losses)) for step, losses in zip(steps, measured, strict=True))
    return History(held_out=means, measurements=tuple(zip(steps, measured, strict=True)))


@pytest.mark.parametrize("keep", [Keep.ALL, Keep.BEST])
def test_the_step_with_the_lowest_held_out_loss_is_published(keep: Keep) -> None:
    """And the reason says what the last one has."""
    choice = choose(History(held_out=((700, 0.051), (800, 0.0533), (1000, 0.058))), keep, 1000)

    assert "step 700 of 1000: it has the lowest held-out loss, 0.0510; the last step has 0.0580" == choice.sentence(1000)
    assert (700, 0.051) == (choice.step, choice.held_out_loss)


def test_the_last_step_may_be_the_best() -> None:
    """Then there is nothing to compare it with."""
    choice = choose(History(held_out=((700, 0.06), (1000, 0.051))), Keep.ALL, 1000)

    assert "step 1000 of 1000: it has the lowest held-out loss, 0.0510, and is the last" == choice.sentence(1000)


def test_without_held_out_pictures_the_last_step_is_published() -> None:
    """A training loss compares nothing."""
    choice = choose(History(losses=((1, 0.5), (1000, 0.2))), Keep.ALL, 1000)

    assert "step 1000 of 1000: it is the last; no pictures were held out to compare steps by" == choice.sentence(1000)
    assert choice.held_out_loss is None


def test_who_keeps_the_last_gets_the_last() -> None:
    """No other checkpoint stays; the better one is named."""
    choice = choose(History(held_out=((700, 0.051), (1000, 0.058))), Keep.LAST, 1000)

    assert "step 1000 of 1000: it is the last, as output.keep asks; step 700 has the lowest held-out loss, 0.0510" == choice.sentence(1000)
    assert 0.058 == choice.held_out_loss


RISES: dict[str, tuple[Sequence[float], int | None]] = {
    "it still falls": ((0.3, 0.2, 0.1), None),
    "one save above the best may be chance": ((0.3, 0.1, 0.12), None),
    "two in a row are none": ((0.3, 0.1, 0.12, 0.13), 200),
    "it need not rise from one to the next": ((0.3, 0.1, 0.14, 0.13), 200),
    "it goes on": ((0.3, 0.1, 0.12, 0.13, 0.12, 0.2), 200),
    "a new lowest loss takes it back": ((0.3, 0.1, 0.12, 0.13, 0.05), None),
    "from the first save on": ((0.1, 0.2, 0.3), 100),
    "level is no rise": ((0.3, 0.1, 0.1, 0.1), None),
    "nothing measured": ((), None),
}


@pytest.mark.parametrize(("levels", "since"), RISES.values(), ids=RISES)
def test_learning_by_heart_begins_where_the_held_out_loss_has_risen_twice(levels: Sequence[float], since: int | None) -> None:
    """Above the best step's by more than its noise."""
    assert since == overfitting_since(history(*levels, noise=0.001))


def test_a_rise_within_the_noise_is_none() -> None:
    """The same rise is seen through little noise and not through much."""
    assert 200 == overfitting_since(history(0.3, 0.1, 0.12, 0.13, noise=0.02))
    assert overfitting_since(history(0.3, 0.1, 0.101, 0.101, noise=0.02)) is None


def test_losses_are_compared_measurement_by_measurement() -> None:
    """Timesteps differ far more than saves do; what all of them have in common counts."""
    assert is_worse([1.01 * loss for loss in SINGLE[:-1]] + [SINGLE[-1]], SINGLE)
    assert not is_worse(SINGLE, SINGLE)
    assert not is_worse(list(reversed(SINGLE)), SINGLE)


def test_a_rise_at_the_noisiest_levels_is_seen() -> None:
    """Their losses are the lowest, but a share more is a share more."""
    assert is_worse([*(1.2 * loss for loss in SINGLE[:32]), *SINGLE[32:]], SINGLE)


def test_measurements_that_cannot_be_compared_say_nothing() -> None:
    """Those of other pictures, and a loss of zero, of which nothing is a share."""
    assert not is_worse([0.9, 0.9], SINGLE)
    assert not is_worse(SINGLE, [0.0, *SINGLE[1:]])
