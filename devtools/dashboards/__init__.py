"""The Grafana dashboards of the chart: built here, written by `make generate`, one function each."""

import json
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from dashboards.fleet import fleet
from dashboards.operators import operators
from dashboards.training import training

FOLDER = Path(__file__).resolve().parent.parent.parent / "charts" / "charalora" / "dashboards"


def dashboard_files() -> dict[Path, str]:
    """Every dashboard, as Grafana reads it."""
    boards = {"fleet": fleet(), "training": training(), "operator": operators()}
    return {FOLDER / f"{name}.json": json.dumps(board.build(), cls=JSONEncoder, indent=1) + "\n" for name, board in boards.items()}
