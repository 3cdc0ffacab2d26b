"""Asks a Prometheus what a dashboard's panels ask it, from the JSON that Grafana reads: the same queries, variables and time range."""

import json
import math
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MOMENTS = 240
"""Points of a curve."""


GPU_ONLY = ("charalora_model_flops_utilization", "charalora_gpu_memory_bytes")
"""Figures that nothing tells without a GPU: there is no peak to compare with, and no memory of its own."""


class AskingError(Exception):
    """Prometheus cannot be asked, or does not understand."""


@dataclass(frozen=True)
class Window:
    """What is chosen at the top of a dashboard.

    Attributes:
        url: The Prometheus.
        begin: Unix time.
        end: Unix time.
        interval: Seconds between two scrapes.
        variables: Value of each variable; several are joined by `|`.
    """

    url: str
    begin: float
    end: float
    interval: float = 15.0
    variables: Mapping[str, str] = field(default_factory=dict)

    @property
    def step(self) -> float:
        """Seconds between two points of a curve."""
        return max(self.interval, (self.end - self.begin) / MOMENTS)

    def filled(self, expr: str) -> str:
        """An expression without variables, as Grafana fills them in."""
        known = {
            "__rate_interval": f"{max(4 * self.interval, self.step + self.interval):.0f}s",
            "__range": f"{self.end - self.begin:.0f}s",
            **self.variables,
        }
        for name in sorted(known, key=len, reverse=True):
            expr = expr.replace(f"${name}", known[name])
        return expr


@dataclass(frozen=True)
class Series:
    """One series of an answer.

    Attributes:
        name: As the legend shows it.
        labels: Its labels.
        points: Time and value.
    """

    name: str
    labels: Mapping[str, str]
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Query:
    """One query of a panel.

    Attributes:
        board: The dashboard's title.
        panel: The panel's title.
        letter: Which of the panel's queries.
        expr: The expression, with variables.
        legend: How its series are called.
        is_instant: Whether it is about the end of the time range alone.
    """

    board: str
    panel: str
    letter: str
    expr: str
    legend: str
    is_instant: bool

    def ask(self, window: Window) -> list[Series]:
        """What Prometheus answers.

        Raises:
            AskingError: It does not, or finds the expression wrong.
        """
        query = {"query": window.filled(self.expr)}
        if self.is_instant:
            result = _get(window.url, "query", {**query, "time": f"{window.end:.3f}"})
        else:
            times = {"start": f"{window.begin:.3f}", "end": f"{window.end:.3f}", "step": f"{window.step:.3f}"}
            result = _get(window.url, "query_range", {**query, **times})
        return [
            Series(
                self._name(one["metric"]),
                one["metric"],
                tuple((float(at), float(value)) for at, value in one.get("values", [one.get("value")])),
            )
            for one in result
        ]

    def _name(self, labels: Mapping[str, str]) -> str:
        if self.legend == "__auto":
            return ", ".join(labels.values()) or self.panel
        name = self.legend
        for label, value in labels.items():
            name = name.replace("{{" + label + "}}", value)
        return name


def has_data(series: Sequence[Series]) -> bool:
    """Whether a panel has something to show."""
    return any(not math.isnan(value) for one in series for _, value in one.points)


def needs_gpu(query: Query) -> bool:
    """Whether nothing is right where there is no GPU."""
    return any(figure in query.expr for figure in GPU_ONLY)


def boards(folder: Path) -> list[dict[str, Any]]:
    """The dashboards of a folder, as Grafana reads them."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]


def panels(board: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The panels of a dashboard, without its headings."""
    return (panel for panel in board["panels"] if panel["type"] != "row")


def queries(board: Mapping[str, Any], panel: Mapping[str, Any]) -> list[Query]:
    """The queries of a panel."""
    return [
        Query(board["title"], panel["title"], one["refId"], one["expr"], one.get("legendFormat", ""), bool(one.get("instant")))
        for one in panel["targets"]
    ]


def _get(url: str, what: str, arguments: Mapping[str, str]) -> list[dict[str, Any]]:
    address = f"{url.rstrip('/')}/api/v1/{what}?{urllib.parse.urlencode(arguments)}"
    try:
        with urllib.request.urlopen(address, timeout=60) as answer:  # noqa: S310  # the address is the caller's
            found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
    except urllib.error.HTTPError as error:
        raise AskingError(f"{arguments['query']}: {error.read().decode()}") from error
    except OSError as error:
        raise AskingError(f"Prometheus does not answer at {url}: {error}") from error
    return found
