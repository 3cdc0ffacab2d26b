"""What is read from a training's metrics, and when it is told."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from charalora_operator.model import Sample
from charalora_operator.progress import is_news, sample_of

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
PAGE = """\
# HELP charalora_step Optimizer steps done.
# TYPE charalora_step gauge
charalora_step 41.0
# TYPE charalora_steps gauge
charalora_steps 1000.0
# TYPE charalora_loss gauge
charalora_loss 0.0812
# TYPE charalora_images counter
charalora_images_total 656.0
# TYPE charalora_learning_rate gauge
charalora_learning_rate{group="unet"} 0.0001
# TYPE charalora_stage gauge
charalora_stage{stage="fetch"} 0.0
charalora_stage{stage="upload"} 1.0
charalora_stage{stage="train"} 1.0
"""


def sample(seconds: float = 0, **figures: float) -> Sample:
    """A reading so long after noon."""
    at = NOON + timedelta(seconds=seconds)
    return Sample("surtr-a1", at, at, {f"charalora_{name}": value for name, value in ({"step": 0.0, "steps": 1000.0} | figures).items()})


def test_figures_are_the_values_without_labels() -> None:
    read = sample_of("surtr-a1", PAGE, NOON, None)
    assert read.figures == {"charalora_step": 41, "charalora_steps": 1000, "charalora_loss": 0.0812, "charalora_images_total": 656}


def test_the_stage_is_the_one_that_people_wait_for() -> None:
    """Uploads go on beside the training."""
    assert sample_of("surtr-a1", PAGE, NOON, None).stage == "train"
    assert sample_of("surtr-a1", PAGE.replace('{stage="train"} 1', '{stage="train"} 0'), NOON, None).stage == "upload"


def test_a_step_that_stands_still_keeps_the_time_of_its_last_move() -> None:
    first = sample_of("surtr-a1", PAGE, NOON, None)
    second = sample_of("surtr-a1", PAGE, NOON + timedelta(seconds=10), first)
    assert (first.moved, second.moved, second.at) == (NOON, NOON, NOON + timedelta(seconds=10))
    third = sample_of("surtr-a1", PAGE.replace("step 41", "step 42"), NOON + timedelta(seconds=20), second)
    assert third.moved == NOON + timedelta(seconds=20)


def test_another_attempt_begins_anew() -> None:
    """The same step of another Job is a move."""
    first = sample_of("surtr-a1", PAGE, NOON, None)
    assert sample_of("surtr-a2", PAGE, NOON + timedelta(seconds=60), first).moved == NOON + timedelta(seconds=60)


def test_what_is_no_number_is_absent() -> None:
    read = sample_of("surtr-a1", "charalora_step NaN\ncharalora_loss +Inf\ncharalora_steps 10\n", NOON, None)
    assert read.figures == {"charalora_steps": 10}


@pytest.mark.parametrize("page", ["<html>busy</html>", "charalora_step forty-one\n", 'charalora_step{stage="train 1\n'])
def test_what_is_no_metrics_page_is_refused(page: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        sample_of("surtr-a1", page, NOON, None)


NEWS = {
    "the first reading": (None, sample(), True),
    "nothing moved": (sample(step=41), sample(10, step=41), False),
    "less than a per cent": (sample(step=41), sample(10, step=49), False),
    "a per cent": (sample(step=41), sample(10, step=50), True),
    "a checkpoint": (sample(step=41), sample(10, step=42, last_checkpoint_step=40), True),
    "half a minute passed": (sample(step=41), sample(30, step=42), True),
    "no steps are known yet": (sample(steps=0), sample(10, steps=0), False),
    "another attempt": (sample(step=41), replace(sample(1, step=41), job="surtr-a2"), True),
    "absurd numbers": (sample(step=1e308, steps=1e-308), sample(1, step=1e308, steps=1e-308), False),
}


@pytest.mark.parametrize(("told", "new", "expected"), NEWS.values(), ids=NEWS.keys())
def test_a_reading_is_told_when_it_says_more(told: Sample | None, new: Sample, expected: bool) -> None:  # noqa: FBT001
    assert is_news(told, new, 30) is expected
