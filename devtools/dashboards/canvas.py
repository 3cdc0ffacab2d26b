"""Where panels are drawn: a figure that is measured in pixels, in Grafana's colours, and how a panel says that a series looks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from dashboards.asking import Series
from dashboards.values import shown

TEXT, MUTED, LINE = "#ccccdc", "#8e8e9b", "#24272e"
NAMED = {"green": "#73bf69", "yellow": "#fade2a", "orange": "#ff9830", "red": "#f2495c", "blue": "#5794f2", "purple": "#b877d9"}
PALETTE = ("#73bf69", "#f2cc0c", "#8ab8ff", "#ff780a", "#f2495c", "#5794f2", "#b877d9", "#37872d", "#fade2a", "#447ebc")
Box = tuple[float, float, float, float]
Answers = Sequence[Sequence[Series]]
Panel = Mapping[str, Any]


@dataclass(frozen=True)
class Place:
    """A figure that is measured in pixels from its upper left corner."""

    figure: Figure
    width: float
    height: float

    def share(self, box: Box) -> Box:
        """A box as matplotlib counts: shares of the figure, from its lower left corner."""
        x, y, width, height = box
        return x / self.width, 1 - (y + height) / self.height, width / self.width, height / self.height

    def text(self, x: float, y: float, words: str, **look: Any) -> float:
        """Write words; how wide they are."""
        anchor, colour = look.pop("anchor", "left"), look.pop("colour", TEXT)
        look = {"fontsize": look.pop("size", 9), **look}
        written = self.figure.text(
            x / self.width, 1 - y / self.height, words, ha=anchor, va="center", color=colour, parse_math=False, **look
        )
        return float(written.get_window_extent().width)

    def rectangle(self, box: Box, colour: str, opacity: float = 1.0) -> None:
        """Fill a box."""
        left, bottom, width, height = self.share(box)
        self.figure.add_artist(
            Rectangle(
                (left, bottom), width, height, facecolor=colour, alpha=opacity, linewidth=0, zorder=-1, transform=self.figure.transFigure
            )
        )


@dataclass(frozen=True)
class Look:
    """How a series or a column is shown: the panel's defaults and what is said of this one."""

    panel: Panel
    name: str

    def of(self, what: str, default: Any = None) -> Any:
        """One property."""
        found = self.panel["fieldConfig"]["defaults"].get(what, default)
        for override in self.panel["fieldConfig"].get("overrides", []):
            if override["matcher"]["options"] == self.name:
                found = next((one["value"] for one in override["properties"] if one["id"] == what), found)
        return found

    @property
    def colour(self) -> str | None:
        """A colour of its own."""
        fixed = (self.of("color") or {}).get("fixedColor", "")
        return NAMED.get(fixed)

    def at(self, value: float) -> str:
        """The colour that a value has by its thresholds."""
        steps = self.of("thresholds")["steps"]
        return NAMED[[step["color"] for step in steps if step.get("value") is None or value >= step["value"]][-1]]

    def shown(self, value: float) -> str:
        """A value with its unit."""
        return shown(value, self.of("unit", "short"), self.of("decimals"))
