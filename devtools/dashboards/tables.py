"""How a table is drawn."""

from dashboards.asking import Window
from dashboards.canvas import LINE, MUTED, NAMED, TEXT, Answers, Box, Look, Panel, Place


def table(place: Place, box: Box, panel: Panel, answers: Answers, _: Window) -> None:
    """A row for each combination of labels."""
    x, y, width, height = box
    organize = next(one["options"] for one in panel["transformations"] if one["id"] == "organize")
    order = sorted(organize["indexByName"], key=organize["indexByName"].__getitem__)
    labels = [name for name in order if not name.startswith("Value")]
    values = [name for name in order if name.startswith("Value")]
    filled: dict[tuple[str, ...], dict[str, float]] = {}
    for column, answer in zip(values, answers, strict=True):
        for one in answer:
            filled.setdefault(tuple(one.labels.get(label, "") for label in labels), {})[column] = one.points[-1][1]
    heads = {name: organize["renameByName"].get(name, name) for name in order}
    heads = {name: head for name, head in heads.items() if not Look(panel, head).of("custom.hidden")}
    weights = {name: 2.4 if _is_gauge(panel, head) else 1.6 if name in labels else 1.0 for name, head in heads.items()}
    scale = (width - 24) / sum(weights.values())
    edges, left = {}, x + 12
    for name in heads:
        edges[name] = left
        place.text(left, y + 44, heads[name], size=9, colour="#6e9fff", weight="bold")
        left += weights[name] * scale
    fitting = int((height - 60) // 27)
    for at, (key, row) in enumerate(sorted(filled.items())[:fitting]):
        middle = y + 74 + at * 27
        place.rectangle((x + 8, middle - 14, width - 16, 0.8), LINE)
        known: dict[str, str | float] = {**dict(zip(labels, key, strict=True)), **row}
        for name, head in heads.items():
            _cell(place, (edges[name], middle, weights[name] * scale - 12, 16), Look(panel, head), known.get(name))
    if not filled:
        place.text(x + width / 2, y + height / 2, "–", anchor="center", colour=MUTED)


def _is_gauge(panel: Panel, head: str) -> bool:
    return bool((Look(panel, head).of("custom.cellOptions") or {}).get("type") == "gauge")


def _cell(place: Place, box: Box, look: Look, value: str | float | None) -> None:
    x, middle, width, height = box
    if isinstance(value, str):
        colour = NAMED["blue"] if look.of("links") else TEXT
        place.text(x, middle, value if len(value) * 7 < width else f"{value[: int(width / 7)]}…", colour=colour)
    elif value is None:
        place.text(x, middle, "–", colour=MUTED)
    elif _is_gauge(look.panel, look.name):
        room = width - 52
        place.rectangle((x, middle - height / 2, room, height), "#22252b")
        place.rectangle((x, middle - height / 2, max(1.0, room * min(1.0, value)), height), look.colour or NAMED["blue"])
        place.text(x + width, middle, look.shown(value), anchor="right")
    else:
        place.text(x, middle, look.shown(value))
