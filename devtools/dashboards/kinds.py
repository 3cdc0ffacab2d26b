"""How each kind of panel is drawn."""

import math
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from dashboards.asking import Series, Window
from dashboards.canvas import LINE, MUTED, PALETTE, Answers, Box, Look, Panel, Place
from dashboards.tables import table

DAY = 24 * 3600
ROUND = (10, 30, 60, 120, 300, 600, 1800, 3600, 3 * 3600, 6 * 3600)
"""Seconds between two marks of a time axis, up to whole days."""
MARKS = 6
"""At most so many spaces between two marks."""


def number(place: Place, box: Box, panel: Panel, answers: Answers, _: Window) -> None:
    """One or two figures, large."""
    x, y, width, height = box
    found = [(series[0].name, series[0].points[-1][1]) for series in answers if series]
    look = Look(panel, panel["title"])
    filled = panel["options"]["colorMode"] == "background"
    if filled:
        place.rectangle((x + 1, y + 1, width - 2, height - 2), look.at(found[-1][1] if found else 0.0), 0.85)
    for at, (name, value) in enumerate(found or [("", float("nan"))]):
        middle = x + width * (at + 0.5) / max(1, len(found))
        colour = "#ffffff" if filled else look.at(value) if found else MUTED
        words = look.shown(value) if found else look.of("noValue", "–")
        size = min(27.0, (width / max(1, len(found)) - 16) / (1.05 * len(words)))
        place.text(middle, y + height * 0.6, words, anchor="center", size=size, weight="bold", colour=colour)
        if len(found) > 1:
            place.text(middle, y + height - 16, name, anchor="center", size=8.5, colour=MUTED)


def lines(place: Place, box: Box, panel: Panel, answers: Answers, window: Window) -> None:
    """Curves, or areas on each other."""
    x, y, width, height = box
    custom = panel["fieldConfig"]["defaults"]["custom"]
    stack = custom.get("stacking", {}).get("mode") == "normal"
    axes = place.figure.add_axes(place.share((x + 62, y + 36, width - 76, height - 88)), facecolor="none")
    series = [one for answer in answers for one in answer]
    drawn = [value for one in series for _, value in one.points]
    floor = min(drawn, default=0.0) if panel["fieldConfig"]["defaults"].get("min") is None else 0.0
    below: dict[float, float] = {}
    legend = x + 12.0
    for at, one in enumerate(series):
        look = Look(panel, one.name)
        colour = look.colour or PALETTE[at % len(PALETTE)]
        opacity = (look.of("custom.fillOpacity", custom.get("fillOpacity", 0)) or 0) / 100
        style = "--" if look.of("custom.lineStyle") else "-"
        for times, values in unbroken(one, panel, window):
            low = [below.get(time, 0.0) if stack else 0.0 for time in times]
            high = [value + base for value, base in zip(values, low, strict=True)]
            axes.plot(times, high, color=colour, linewidth=1.5, linestyle=style, marker="." if len(times) == 1 else None)
            if opacity and custom.get("scaleDistribution", {}).get("type") != "log":
                axes.fill_between(times, low if stack else floor, high, color=colour, alpha=opacity, linewidth=0)
            below |= dict(zip(times, high, strict=True)) if stack else {}
        legend = _legend(place, legend, box, one.name, colour)
    _axes(axes, panel, window, is_empty=not series)


def _legend(place: Place, x: float, box: Box, name: str, colour: str) -> float:
    y = box[1] + box[3] - 16
    if x + 30 + 7 * min(34, len(name)) > box[0] + box[2]:
        return box[0] + box[2]
    place.rectangle((x, y - 1.5, 14, 3), colour)
    return x + 20 + place.text(x + 20, y, name[:34], size=8.5) + 16


def _axes(axes: Any, panel: Panel, window: Window, *, is_empty: bool) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    look = Look(panel, "")
    axes.set_xlim(window.begin, window.end)
    if defaults["custom"].get("scaleDistribution", {}).get("type") == "log" and not is_empty:
        axes.set_yscale("log")
    else:
        low, high = axes.get_ylim()
        fixed = (defaults.get("min"), defaults.get("max"))
        top = high if fixed[1] is None else fixed[1] * 1.02
        axes.set_ylim(low if fixed[0] is None else fixed[0], top if top > (fixed[0] or 0) else 1)
        axes.locator_params(axis="y", nbins=5, integer=look.of("decimals") == 0)
    axes.set_xticks(*round_times(window))
    axes.yaxis.set_major_formatter(lambda value, _: look.shown(round(value, 12)))
    axes.minorticks_off()
    axes.tick_params(colors=MUTED, labelsize=8, length=0)
    axes.grid(color=LINE, linewidth=0.8)
    axes.set_axisbelow(True)
    for spine in axes.spines.values():
        spine.set_visible(False)
    if is_empty:
        axes.text(
            0.5,
            0.5,
            "No data: no GPU here" if "GPU" in panel["description"] + panel["title"] else "No data",
            color=MUTED,
            ha="center",
            transform=axes.transAxes,
        )


def round_times(window: Window) -> tuple[list[float], list[str]]:
    """Moments to mark, about five, and their words."""
    least = (window.end - window.begin) / MARKS
    apart = next((seconds for seconds in ROUND if seconds >= least), math.ceil(least / DAY) * DAY)
    first = -(-window.begin // apart) * apart
    times = [first + at * apart for at in range(int((window.end - first) // apart) + 1)]
    words = "%H:%M:%S" if apart < 60 else "%H:%M"
    return times, [f"{datetime.fromtimestamp(time, UTC):{words}}" for time in times]


def unbroken(one: Series, panel: Panel, window: Window) -> list[tuple[list[float], list[float]]]:
    """The parts of a curve between which nothing is known. What is bridged are scrapes: where they are closer, it is less time."""
    bridged = panel["fieldConfig"]["defaults"].get("custom", {}).get("spanNulls", 0) / 1000
    longest = max(1.5 * window.step, bridged * min(1.0, window.interval / Window.interval))
    parts: list[tuple[list[float], list[float]]] = []
    for time, value in one.points:
        if value != value:  # noqa: PLR0124  # not a number
            continue
        if not parts or time - parts[-1][0][-1] > longest:
            parts.append(([], []))
        parts[-1][0].append(time)
        parts[-1][1].append(value)
    return parts


def bars(place: Place, box: Box, panel: Panel, answers: Answers, _: Window) -> None:
    """A bar for each series, the longest first where the query sorts."""
    x, y, width, height = box
    series = [one for answer in answers for one in answer][:9]
    most = max([one.points[-1][1] for one in series] or [0]) or 1
    high = min(34.0, (height - 40) / max(1, len(series)))
    for at, one in enumerate(series):
        look, value, top = Look(panel, one.name), one.points[-1][1], y + 34 + at * high
        colour = look.colour or PALETTE[sum(map(ord, one.name)) % len(PALETTE)]
        name_width = min(150.0, width * 0.36)
        room = width - name_width - 84
        place.text(x + 12, top + high / 2, one.name[:24], size=9)
        place.rectangle((x + name_width, top + high * 0.18, room, high * 0.64), "#22252b")
        place.rectangle((x + name_width, top + high * 0.18, max(1.0, room * value / most), high * 0.64), colour)
        place.text(x + width - 10, top + high / 2, look.shown(value), anchor="right", size=9.5, weight="bold", colour=colour)
    if not series:
        place.text(x + width / 2, y + height / 2, panel["fieldConfig"]["defaults"].get("noValue", "No data"), anchor="center", colour=MUTED)


def spans(place: Place, box: Box, panel: Panel, answers: Answers, window: Window) -> None:
    """When each series was there."""
    x, y, width, height = box
    series = [one for answer in answers for one in answer]
    axes = place.figure.add_axes(place.share((x + 130, y + 34, width - 144, height - 62)), facecolor="none")
    for at, one in enumerate(series):
        for times, _ in unbroken(one, panel, window):
            colour = PALETTE[sum(map(ord, one.name.partition("· ")[2])) % len(PALETTE)]
            axes.barh(at, max(window.step, times[-1] - times[0]), left=times[0], height=0.72, color=colour, alpha=0.85)
    _axes(axes, {**panel, "fieldConfig": {"defaults": {"custom": {}}}}, window, is_empty=not series)
    axes.set_yticks(range(len(series)), [one.name[-18:] for one in series], fontsize=8)
    axes.set_ylim(len(series) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")


DRAWN: dict[str, Callable[[Place, Box, Panel, Answers, Window], None]] = {
    "stat": number,
    "timeseries": lines,
    "bargauge": bars,
    "table": table,
    "state-timeline": spans,
}
"""By the type of the panel."""
