"""The loss curve of the report."""

from xml.etree import ElementTree as ET

import pytest

from charalora_trainer.history import History
from charalora_trainer.stages.chart import Axis, loss_chart, round_ticks, thinned, trend

CURVE = History(tuple((step, 1.0 / step) for step in range(1, 201)), ((100, 0.3), (200, 0.2)))


@pytest.mark.parametrize(
    ("expected", "low", "high"),
    [
        ((0, 0.05, 0.1, 0.15, 0.2), 0.0, 0.2),
        ((0, 500, 1000), 0, 1000),
        ((0.082, 0.084, 0.086), 0.081, 0.087),
        ((0, 5, 10), 0, 12),
    ],
)
def test_axes_are_marked_at_round_numbers(expected: tuple[float, ...], low: float, high: float) -> None:
    """One, two or five times a power of ten."""
    assert list(expected) == pytest.approx(round_ticks(low, high, about=4))


def test_a_value_beyond_an_axis_stays_on_its_edge() -> None:
    """A single wild loss does not leave the chart."""
    axis = Axis(0.0, 1.0, 300.0, 20.0, ())

    assert (300.0, 160.0, 20.0) == (axis.at(-5), axis.at(0.5), axis.at(99))


def test_a_long_curve_is_thinned_to_means() -> None:
    """Ten thousand steps are no more to draw than a few hundred."""
    points = [(float(step), float(step % 2)) for step in range(10_000)]

    assert 100 == len(thinned(points, 100))
    assert {0.5} == {y for _, y in thinned(points, 100)}


def test_the_trend_uses_fewer_neighbours_at_the_ends() -> None:
    """It starts and ends where the curve does."""
    assert [(0, 0.5), (1, 1.0), (2, 2.0), (3, 2.5)] == trend([(0, 0), (1, 1), (2, 2), (3, 3)], 3)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e-9, 1e6])
def test_a_constant_loss_can_be_drawn(value: float) -> None:
    """No spread to divide by."""
    chart = loss_chart(History(((1, value), (2, value))), (2,), 2)

    assert chart is not None
    assert "nan" not in chart


def test_the_chart_is_well_formed_and_marks_every_save() -> None:
    """XML parsers are strict, browsers are not."""
    root = ET.fromstring(str(loss_chart(CURVE, (100, 200), 200)))  # noqa: S314 - made here

    assert ["saved at step 100", "saved at step 200"] == [title.text for save in root.iter("path") for title in save.iter("title")]


def test_one_loss_is_no_curve() -> None:
    """There is nothing to draw."""
    assert loss_chart(History(((1, 0.5),)), (), 100) is None
