"""A dashboard drawn without Grafana: what its queries answered, in its panels' places, with units."""

from dataclasses import replace
from io import BytesIO
from typing import Any

import pytest
from PIL import Image, ImageChops

from dashboards import FOLDER
from dashboards.asking import Query, Series, Window, boards, panels, queries
from dashboards.drawing import HEAD, UNIT, WIDTH, Board, drawn, picture
from dashboards.kinds import round_times, unbroken
from dashboards.values import shown

TRAINING = next(board for board in boards(FOLDER) if board["uid"] == "charalora-training")
WINDOW = Window("", 1_000_000, 1_000_600, 2.0, {"namespace": "artists", "resource": "surtr"})


@pytest.mark.parametrize(
    ("expected", "value", "unit", "decimals"),
    [
        ("0", 0, "short", None),
        ("0.0812", 0.0812, "short", None),
        ("1250", 1250, "short", None),
        ("12.5 K", 12_500, "short", None),
        ("42%", 0.42, "percentunit", 0),
        ("1.5 hours", 5400, "s", None),
        ("250 ms", 0.25, "s", None),
        ("3 MiB", 3 * 2**20, "bytes", None),
        ("5e-05", 5e-5, "sci", None),
        ("–", float("nan"), "s", None),
    ],
)
def test_figures_have_their_unit(expected: str, value: float, unit: str, decimals: int | None) -> None:
    assert expected == shown(value, unit, decimals)


@pytest.mark.parametrize(
    ("expected", "begin", "end"),
    [
        (["13:47:00", "13:47:30", "13:48:00", "13:48:30", "13:49:00"], 1_000_013, 1_000_150),
        (["13:48", "13:50", "13:52", "13:54", "13:56"], 1_000_000, 1_000_600),
        (["18:00", "00:00", "06:00", "12:00"], 1_000_000, 1_000_000 + 86_400),
        (["00:00", "00:00"], 1_000_000, 1_000_000 + 2 * 86_400),
        (["00:00"] * 6, 1_000_000, 1_000_000 + 30 * 86_400),
    ],
)
def test_times_are_marked_where_they_are_round(expected: list[str], begin: float, end: float) -> None:
    times, words = round_times(Window("", begin, end))

    assert expected == words
    assert all(begin <= time <= end for time in times)


@pytest.mark.parametrize(
    ("parts", "interval", "silent"), [(1, 2.0, 8.0), (2, 2.0, 10.0), (1, 15.0, 60.0), (2, 15.0, 75.0), (1, 30.0, 60.0), (2, 30.0, 90.0)]
)
def test_a_curve_goes_on_over_missed_scrapes_and_over_no_longer_pause(parts: int, interval: float, silent: float) -> None:
    panel = next(panel for panel in panels(TRAINING) if panel["type"] == "timeseries")
    times = [WINDOW.begin, WINDOW.begin + interval, WINDOW.begin + interval + silent]

    found = unbroken(Series("", {}, tuple((time, 0.5) for time in times)), panel, replace(WINDOW, interval=interval))

    assert parts == len(found)
    assert times == [time for part, _ in found for time in part]


def answer(query: Query) -> tuple[Series, ...]:
    """One series that rises."""
    times = [WINDOW.end] if query.is_instant else [WINDOW.begin + 2.0 * at for at in range(300)]
    labels = {"attempt": "1", "stage": "train", "output": "s3://loras/surtr/"}
    return (Series(query.legend, labels, tuple((time, 0.1 + 0.8 * at / len(times)) for at, time in enumerate(times))),)


def answered(*, empty: str = "") -> Board:
    """The dashboard; one panel may have no answer."""
    every: list[tuple[tuple[Series, ...], ...]] = [
        tuple(() if panel["title"] == empty else answer(query) for query in queries(TRAINING, panel)) for panel in panels(TRAINING)
    ]
    return Board(TRAINING, WINDOW, tuple(every))


def test_a_picture_is_small_enough_for_a_page() -> None:
    data = picture(answered())

    assert len(data) < 300_000
    assert Image.open(BytesIO(data)).width == WIDTH


def test_every_kind_of_panel_shows_its_answer_in_its_place() -> None:
    """What changes when one panel has no answer lies within that panel."""
    whole = drawn(answered())
    kinds: dict[str, dict[str, Any]] = {panel["type"]: panel for panel in panels(TRAINING)}
    assert {"stat", "table", "timeseries", "bargauge", "state-timeline"} == kinds.keys()

    for panel in kinds.values():
        changed = ImageChops.difference(whole, drawn(answered(empty=panel["title"]))).getbbox()
        assert changed is not None, panel["title"]
        left, top, right, bottom = changed
        place = panel["gridPos"]
        column = WIDTH / 24
        assert place.get("x", 0) * column <= left
        assert right <= (place.get("x", 0) + place["w"]) * column
        assert HEAD + place["y"] * UNIT <= top
        assert bottom <= HEAD + (place["y"] + place["h"]) * UNIT
