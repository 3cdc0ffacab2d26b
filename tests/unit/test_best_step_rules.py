"""The rules that were tried to choose a step by."""

import pytest
from best_step_rules import RULES

from charalora_trainer.history import History

PICTURES = 2
SAVES = (
    (100, (0.10, 0.20, 0.90, 0.10, 0.20, 0.90)),
    (200, (0.10, 0.10, 0.80, 0.10, 0.12, 0.80)),
    (300, (0.09, 0.12, 0.81, 0.12, 0.12, 0.79)),
    (400, (0.05, 0.20, 0.95, 0.05, 0.20, 0.95)),
)
"""Three noise levels for each of two pictures: the least noisy falls to the end."""
HISTORY = History(held_out=tuple((step, sum(losses) / 6) for step, losses in SAVES), measurements=SAVES)


@pytest.mark.parametrize(
    ("rule", "step"),
    [
        ("lowest held-out loss (what the trainer does)", 200),
        ("the last step", 400),
        ("lowest at the least noisy third", 400),
        ("lowest at the middle third", 200),
        ("lowest at the noisiest third", 200),
        ("lowest when each noise level counts the same", 200),
        ("lowest of three saves' mean", 300),
        ("first within one standard error of the lowest", 200),
        ("last within one standard error of the lowest", 300),
    ],
)
def test_a_rule_chooses_what_its_name_says(rule: str, step: int) -> None:
    """From one history each of them takes its own step."""
    assert step == RULES[rule](HISTORY, PICTURES)


def test_every_rule_of_the_table_is_tested_here() -> None:
    """The trainer's own among them."""
    assert 9 == len(RULES)
