"""Draws a dashboard from what a Prometheus answers: its panels in their places, in Grafana's colours, by matplotlib. It is a likeness."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from io import BytesIO
from typing import Any

from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from PIL import Image

from dashboards.asking import Series, Window, panels, queries
from dashboards.canvas import MUTED, TEXT, Place
from dashboards.kinds import DRAWN

WIDTH, COLUMN, UNIT, HEAD, FOOT, DPI = 1632, 68.0, 38.0, 92.0, 34.0, 100
GAP = 4.0
BACKGROUND, PANEL, EDGE = "#111217", "#181b1f", "#2a2e36"
COLOURS = 200


@dataclass(frozen=True)
class Board:
    """A dashboard with the answers to its panels.

    Attributes:
        content: As Grafana reads it.
        window: What was chosen at its top.
        answers: Series by panel and query, in the order of the panels.
    """

    content: Mapping[str, Any]
    window: Window
    answers: tuple[tuple[tuple[Series, ...], ...], ...]

    @classmethod
    def asked(cls, content: Mapping[str, Any], window: Window) -> "Board":
        """Ask Prometheus for every panel."""
        answers = (tuple(tuple(query.ask(window)) for query in queries(content, panel)) for panel in panels(content))
        return cls(content, window, tuple(answers))


def picture(board: Board) -> bytes:
    """A PNG of the whole dashboard, in as few colours as it needs: a third of the size."""
    written = BytesIO()
    drawn(board).quantize(COLOURS, dither=Image.Dither.NONE).save(written, "png", optimize=True)
    return written.getvalue()


def drawn(board: Board) -> Image.Image:
    """The whole dashboard."""
    rows = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in board.content["panels"])
    height = HEAD + rows * UNIT + FOOT
    figure = Figure(figsize=(WIDTH / DPI, height / DPI), dpi=DPI, facecolor=BACKGROUND)
    place = Place(figure, WIDTH, height)
    _head(place, board)
    answers = iter(board.answers)
    for panel in board.content["panels"]:
        grid = panel["gridPos"]
        box = (grid.get("x", 0) * COLUMN, HEAD + grid["y"] * UNIT, grid["w"] * COLUMN, grid["h"] * UNIT)
        if panel["type"] == "row":
            place.text(box[0] + 10, box[1] + UNIT / 2, f"⌄  {panel['title']}", size=12, weight="bold")
        else:
            _panel(place, box, panel, next(answers), board.window)
    place.text(
        10,
        height - FOOT / 2,
        "Drawn by matplotlib from the answers of a Prometheus; Grafana shows the same figures in its own hand.",
        colour=MUTED,
    )
    full = BytesIO()
    figure.savefig(full, format="png", facecolor=BACKGROUND)
    return Image.open(full).convert("RGB")


def _head(place: Place, board: Board) -> None:
    place.text(12, 26, board.content["title"].replace(" / ", "  /  "), size=16, weight="bold")
    begin, end = (datetime.fromtimestamp(at, UTC) for at in (board.window.begin, board.window.end))
    place.text(WIDTH - 12, 26, f"{begin:%Y-%m-%d %H:%M} to {end:%H:%M} UTC", anchor="right", colour=MUTED, size=10)
    x = 12.0
    for one in board.content["templating"]["list"]:
        chosen = {"datasource": "Prometheus", "files": one.get("query", "")}.get(one["name"]) or board.window.variables.get(one["name"], "")
        label, value = one["label"], "All" if chosen == ".+" else str(chosen)
        x += place.text(x, 64, f"{label}  ", colour="#6e9fff", size=10)
        x += place.text(x, 64, value, size=10) + 26


def _panel(place: Place, box: tuple[float, float, float, float], panel: Mapping[str, Any], answers: Any, window: Window) -> None:
    x, y, width, height = box
    inner = (x + GAP, y + GAP, width - 2 * GAP, height - 2 * GAP)
    left, bottom, wide, high = place.share(inner)
    frame = FancyBboxPatch(
        (left, bottom),
        wide,
        high,
        boxstyle="round,pad=0,rounding_size=0.001",
        facecolor=PANEL,
        edgecolor=EDGE,
        linewidth=0.8,
        zorder=-2,
        transform=place.figure.transFigure,
    )
    place.figure.add_artist(frame)
    draw: Callable[..., None] = DRAWN[panel["type"]]
    draw(place, inner, panel, answers, window)
    place.text(inner[0] + 10, inner[1] + 16, panel["title"], size=9.5, weight="bold", colour=TEXT)
