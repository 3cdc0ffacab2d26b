from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from charalora_operator.clock import ClusterClock

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)


class Steady:
    """A clock that goes on as it is told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """What it shows."""
        return self.now


@pytest.fixture
def steady() -> Steady:
    return Steady()


def answer(clock: ClusterClock, steady: Steady, at: datetime, took: float = 0.0) -> None:
    """The API server, whose clock shows `at` then, answers after a while."""
    asked = clock.asked()
    steady.now += took
    clock.hear(format_datetime(at.replace(microsecond=0), usegmt=True), asked)


def test_before_any_answer_it_is_this_machines_time(steady: Steady) -> None:
    assert abs(datetime.now(UTC) - ClusterClock(steady).now()) < timedelta(minutes=1)


def test_it_is_the_clusters_time_whatever_this_machines_is(steady: Steady) -> None:
    clock = ClusterClock(steady)
    answer(clock, steady, NOON)

    assert NOON == clock.now()


def test_between_answers_it_goes_on(steady: Steady) -> None:
    clock = ClusterClock(steady)
    answer(clock, steady, NOON)
    steady.now += 600

    assert NOON + timedelta(seconds=600) == clock.now()


def test_many_answers_tell_fractions_of_a_second_that_each_leaves_out(steady: Steady) -> None:
    """The API server's clock is at 0.7 when it says 0."""
    clock = ClusterClock(steady)
    for tenth in range(10):
        answer(clock, steady, NOON + timedelta(seconds=0.7 + tenth / 10))
        steady.now += 0.1

    assert abs(NOON + timedelta(seconds=1.7) - clock.now()) < timedelta(seconds=0.15)


def test_an_answer_that_was_long_on_its_way_moves_nothing(steady: Steady) -> None:
    """It may have been written at any moment since it was asked for."""
    clock = ClusterClock(steady)
    answer(clock, steady, NOON)
    answer(clock, steady, NOON + timedelta(seconds=5), took=20)

    assert NOON + timedelta(seconds=20) == clock.now()


def test_a_clock_that_was_set_is_followed(steady: Steady) -> None:
    clock = ClusterClock(steady)
    answer(clock, steady, NOON)
    answer(clock, steady, NOON + timedelta(minutes=10))

    assert NOON + timedelta(minutes=10) == clock.now()


@pytest.mark.parametrize("date", ["", "yesterday"])
def test_what_is_no_date_says_nothing(steady: Steady, date: str) -> None:
    clock = ClusterClock(steady)
    answer(clock, steady, NOON)
    clock.hear(date, clock.asked())

    assert NOON == clock.now()
