"""history.jsonl: the losses that the report's curve is drawn from."""

from pathlib import Path

import pytest

from charalora_trainer import history
from charalora_trainer.history import History


def test_a_history_reads_back_what_was_written() -> None:
    """Losses and held-out losses, by step."""
    text = history.line(1, loss=0.5) + history.line(2, loss=0.25) + history.line(2, held_out_loss=0.3)

    assert History(losses=((1, 0.5), (2, 0.25)), held_out=((2, 0.3),)) == history.parse(text)


def test_a_line_that_a_crash_cut_short_is_passed_over() -> None:
    """The training goes on from its saved state; the report must open."""
    assert ((1, 0.5),) == history.parse(history.line(1, loss=0.5) + '{"step": 2, "lo').losses


def test_of_a_step_written_twice_the_later_entry_counts() -> None:
    """A resumed training runs some steps again."""
    assert ((1, 0.25),) == history.parse(history.line(1, loss=0.5) + history.line(1, loss=0.25)).losses


def test_a_loss_that_is_not_finite_is_written_as_json_and_not_drawn() -> None:
    """JSON has no NaN."""
    assert '{"step": 3, "loss": null}\n' == history.line(3, loss=float("nan"))
    assert () == history.parse(history.line(3, loss=float("nan"))).losses


def test_a_resumed_training_keeps_the_history_up_to_its_step() -> None:
    """Later entries belong to steps that run again."""
    text = history.line(1, loss=0.5) + history.line(2, loss=0.4) + history.line(3, loss=0.3)

    assert history.line(1, loss=0.5) + history.line(2, loss=0.4) == history.until(text, 2)


def test_the_best_step_is_the_one_with_the_lowest_held_out_loss() -> None:
    """The training loss does not say it."""
    assert (200, 0.2) == History(held_out=((100, 0.3), (200, 0.2), (300, 0.25))).best


def test_the_measurements_of_a_held_out_loss_are_read_back() -> None:
    """They have six digits, and the loss is made of them again: what an earlier version made of them cannot be compared."""
    text = history.held_out_line(100, [0.123456789, 0.25]) + history.held_out_line(200, [0.1, float("nan")])
    earlier = text.replace('"held_out_loss": 0.17', '"held_out_loss": 0.99')

    for written in (text, earlier):
        assert ((100, (0.123457, 0.25)),) == history.parse(written).measurements
        assert ((100, history.held_out_loss([0.123457, 0.25])),) == history.parse(written).held_out


def test_a_tenth_less_counts_the_same_at_every_noise_level() -> None:
    """The losses of little noise are forty times those of much; a plain mean would not see the others."""
    losses = [0.2, 0.04, 0.005]
    less = [history.held_out_loss([0.9 * loss if place == level else loss for place, loss in enumerate(losses)]) for level in range(3)]

    assert [0.9 ** (1 / 3) * history.held_out_loss(losses)] * 3 == pytest.approx(less)
    assert 0.0 == history.held_out_loss([0.2, 0.0])


def test_no_history_is_an_empty_one(tmp_path: Path) -> None:
    """A folder from before the first step."""
    assert History() == history.read(tmp_path)
