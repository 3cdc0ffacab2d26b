"""The rules that were tried to choose a step by."""

import pytest
from best_step_rules import RULES

from charalora_trainer.history import History, held_out_loss

PICTURES = 2
LEVELS = {
    100: (0.85, 0.13, 0.013),
    200: (0.75, 0.125, 0.0112),
    300: (0.82, 0.11, 0.0105),
    400: (0.70, 0.30, 0.02),
    500: (0.95, 0.25, 0.02),
}
"""Losses from the least noisy to the noisiest level, the same for each picture."""
SAVES = tuple((step, PICTURES * losses) for step, losses in LEVELS.items())
HISTORY = History(held_out=tuple((step, held_out_loss(losses)) for step, losses in SAVES), measurements=SAVES)


@pytest.mark.parametrize(
    ("rule", "step"),
    [
        ("lowest held-out loss (what the trainer does)", 300),
        ("the last step", 500),
        ("lowest at the least noisy third", 400),
        ("lowest at the middle third", 300),
        ("lowest at the noisiest third", 300),
        ("lowest plain mean", 200),
        ("lowest of three saves' mean", 200),
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
