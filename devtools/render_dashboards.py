"""What the dashboards of the chart show, without a Grafana.

    .venv/bin/python devtools/render_dashboards.py [--namespace REGEX] [--training NAMESPACE/NAME] [--pictures FOLDER]

Asks a Prometheus every query of every panel and prints what it answers as a table; with --pictures it draws each dashboard from that.
Without --prometheus it asks that of the development cluster. The exit code is 1 when a query that needs no GPU had no answer.
"""

import argparse
import math
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from dashboards import FOLDER
from dashboards.asking import AskingError, Query, Series, Window, boards, has_data, needs_gpu, panels, queries
from dashboards.drawing import Board, picture
from target import ROOT, TargetError, open_target


def main() -> int:
    """Ask, print and draw; 0 when every query was answered."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prometheus", default="", help="its address; by default that of the development cluster")
    parser.add_argument("--namespace", default=".+", help="of Fleet: a regular expression; by default every namespace")
    parser.add_argument("--training", default="artists/surtr", help="of One training: namespace/name; by default that of `make demo`")
    parser.add_argument("--minutes", type=float, default=30.0, help="length of the time range")
    parser.add_argument("--until", type=datetime.fromisoformat, help="its end, such as 2026-11-28T07:30+00:00; by default now")
    parser.add_argument("--interval", type=float, default=2.0, help="seconds between two scrapes")
    parser.add_argument("--pictures", type=Path, help="folder for dashboard-….png")
    chosen = parser.parse_args()
    try:
        end = chosen.until.timestamp() if chosen.until else time.time()
        window = Window(chosen.prometheus or open_target().prometheus, end - 60 * chosen.minutes, end, chosen.interval)
        asked = ask(window, chosen.namespace, chosen.training)
    except (AskingError, TargetError) as error:
        print(error, file=sys.stderr)
        return 1
    empty = 0
    for query, series in (pair for board in asked for pair in answers(board)):
        empty += not has_data(series) and not needs_gpu(query)
        print(line(query, series))
    print(f"{empty} queries without data, beside those that need a GPU.")
    if chosen.pictures:
        draw(asked, chosen.pictures)
    return int(empty > 0)


def ask(window: Window, namespaces: str, training: str) -> list[Board]:
    """Every dashboard with its answers.

    Args:
        window: The time range; its variables are filled in here.
        namespaces: What Fleet shows: a regular expression.
        training: What One training shows: namespace/name.
    """
    namespace, _, name = training.partition("/")
    asked = []
    for content in boards(FOLDER):
        is_one = any(variable["name"] == "resource" for variable in content["templating"]["list"])
        variables = {"namespace": namespace, "resource": name} if is_one else {"namespace": namespaces}
        asked.append(Board.asked(content, replace(window, variables=variables)))
    return asked


def draw(asked: Iterable[Board], folder: Path) -> None:
    """Each dashboard as a picture: dashboard-….png."""
    for board in asked:
        path = folder / f"{str(board.content['uid']).replace('charalora-', 'dashboard-')}.png"
        path.write_bytes(picture(board))
        print(f"{path.relative_to(ROOT) if path.is_relative_to(ROOT) else path}: {path.stat().st_size / 1000:.0f} kB")


def answers(board: Board) -> Iterator[tuple[Query, tuple[Series, ...]]]:
    """Each query of a dashboard with what came back."""
    for panel, answered in zip(panels(board.content), board.answers, strict=True):
        yield from zip(queries(board.content, panel), answered, strict=True)


def line(query: Query, series: tuple[Series, ...]) -> str:
    """A row of the table: dashboard, panel, how many series, the newest value of the first."""
    known = [value for one in series for _, value in one.points if not math.isnan(value)]
    newest = f"{known[-1]:.6g}" if known else "needs a GPU" if needs_gpu(query) else "NO DATA"
    return f"{query.board.partition(' / ')[2]:<13} {query.panel[:34]:<34} {query.letter}  {len(series):>3} series  {newest}"


if __name__ == "__main__":
    sys.exit(main())
