"""Which step to take, and why."""

import pytest

from charalora_spec.spec import Keep
from charalora_trainer.history import History
from charalora_trainer.stages.verdict import verdict

FALLING = tuple((step, 1.0 / step) for step in range(1, 301))
SAVES = (100, 200, 300)


def why(history: History) -> str:
    """The reason for the chosen step."""
    found = verdict(history, SAVES, Keep.ALL)
    assert found
    return found.why


def test_nothing_is_said_before_the_first_save() -> None:
    """There is no step to take."""
    assert verdict(History(FALLING), (), Keep.ALL) is None


def test_without_held_out_pictures_the_last_step_stands_and_nothing_measures_it() -> None:
    """The page says so instead of making something up."""
    found = verdict(History(FALLING), SAVES, Keep.ALL)

    assert found
    assert (300, False) == (found.step, found.measured)
    assert "compare the pictures" in found.why


def test_the_step_with_the_lowest_held_out_loss_is_taken() -> None:
    """Here the second of three."""
    found = verdict(History(FALLING, ((100, 0.3), (200, 0.1), (300, 0.2))), SAVES, Keep.BEST)

    assert found
    assert (200, True, 200) == (found.step, found.measured, found.published)
    assert "lowest of all saves (0.1000)" in found.why


@pytest.mark.parametrize(
    ("history", "sentence"),
    [
        (
            History(FALLING, ((100, 0.1), (200, 0.15), (300, 0.2)), ((100, (0.1, 0.1)), (200, (0.14, 0.16)), (300, (0.21, 0.19)))),
            "Until step 300 it rose to 0.2000, by more than chance explains: the pictures were being learned by heart.",
        ),
        (History(FALLING, ((100, 0.3), (200, 0.1), (300, 0.2))), "At step 300 it is 0.2000."),
        (History(FALLING, ((100, 0.3), (200, 0.2), (300, 0.1))), "still falling at the end"),
        (History(FALLING, ((300, 0.1),)), "no other to compare"),
    ],
    ids=["learned by heart", "noise", "still falling", "one save"],
)
def test_the_reason_tells_what_came_after(history: History, sentence: str) -> None:
    """Learning by heart is named where the losses rise twice by more than their noise."""
    assert sentence in why(history)
