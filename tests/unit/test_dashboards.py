"""The dashboards as Grafana reads them: every query is understood, asks for figures that exist, and every panel says what it shows."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from charalora_spec.metrics import OPERATOR, PREFIX, TRAINING
from dashboards import FOLDER
from dashboards.asking import Window, boards, panels, queries
from promtool import promtool

BOARDS = boards(FOLDER)
PANELS = [(board, panel) for board in BOARDS for panel in panels(board)]
ADDED = {"namespace", "resource", "attempt", "pod", "instance", "le"}
"""Labels that Prometheus adds, and a histogram's own."""
WINDOW = Window("", 0, 3600, variables={"namespace": "artists", "resource": "surtr"})
EXPRESSIONS = [query.expr for board, panel in PANELS for query in queries(board, panel)]


def test_prometheus_understands_every_query(tmp_path: Path) -> None:
    """Each as the expression of a rule, which its own checker reads."""
    rules = [{"record": f"query:{number}", "expr": WINDOW.filled(expr)} for number, expr in enumerate(EXPRESSIONS)]
    file = tmp_path / "queries.json"
    file.write_text(json.dumps({"groups": [{"name": "queries", "rules": rules}]}))

    assert f"{len(EXPRESSIONS)} rules found" in promtool("check", "rules", "--lint=none", file)


def test_every_variable_is_declared() -> None:
    """What stays after filling in would be asked as it stands."""
    assert [] == [expr for expr in EXPRESSIONS if re.search(r"\$\D", WINDOW.filled(expr))]


def test_queries_ask_for_figures_that_are_served() -> None:
    """By the names that the code declares."""
    served = {name for figure in (*OPERATOR, *TRAINING) for name in figure.series}
    asked = {name for expr in EXPRESSIONS for name in re.findall(rf"\b{PREFIX}\w+", expr)}

    assert set() == asked - served


def test_every_figure_is_on_a_dashboard() -> None:
    """But for one that is another's part."""
    asked = " ".join(EXPRESSIONS)

    assert {"charalora_images_total"} == {figure.name for figure in (*OPERATOR, *TRAINING) if not re.search(rf"\b{figure.name}", asked)}


def test_series_are_grouped_by_labels_that_they_have() -> None:
    known = ADDED | {label for figure in (*OPERATOR, *TRAINING) for label in figure.labels}
    grouped = {
        label.strip() for expr in EXPRESSIONS for labels in re.findall(r"\b(?:by|on) \(([^)]*)\)", expr) for label in labels.split(",")
    }

    assert set() == grouped - known - {""}


@pytest.mark.parametrize(("board", "panel"), PANELS, ids=lambda part: part["title"])
def test_a_panel_says_what_it_shows(board: dict[str, Any], panel: dict[str, Any]) -> None:
    """Title, a sentence, a unit, thresholds and the chosen data source."""
    assert panel["title"]
    assert panel["description"].endswith((".", ")"))
    assert panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
    assert panel["fieldConfig"]["defaults"].get("unit") or panel["type"] in {"table", "state-timeline"}, board["title"]
    assert {"${datasource}"} == {part["datasource"]["uid"] for part in (panel, *panel["targets"])}


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board["title"])
def test_panels_fill_the_grid_without_overlap(board: dict[str, Any]) -> None:
    """Every row of the grid is 24 wide."""
    taken = [(x, y) for panel in board["panels"] for x in _span(panel, "x", "w") for y in _span(panel, "y", "h")]

    assert len(set(taken)) == len(taken)
    assert 24 * (max(y for _, y in taken) + 1) == len(taken)


def test_dashboards_lead_to_each_other() -> None:
    """By their common tag; a training's name leads to its own dashboard."""
    uids = {board["uid"] for board in BOARDS}
    fleet = next(board for board in BOARDS if board["uid"] == "charalora-fleet")

    assert {"charalora-fleet", "charalora-training", "charalora-operator"} == uids
    assert {("charalora",)} == {tuple(board["tags"]) for board in BOARDS}
    assert {("charalora",)} == {tuple(link["tags"]) for board in BOARDS for link in board["links"]}
    assert set(re.findall(r"/d/([\w-]+)", json.dumps(fleet))) <= uids
    assert "/d/charalora-training?" in json.dumps(fleet)


def _span(panel: dict[str, Any], start: str, length: str) -> range:
    place = panel["gridPos"]
    return range(place.get(start, 0), place.get(start, 0) + place[length])
