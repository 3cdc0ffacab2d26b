"""Figures as Grafana writes them: with their unit, and as many digits as say something."""

import math
from collections.abc import Sequence

_SECONDS = ((86400.0, "days"), (3600.0, "hours"), (60.0, "mins"), (1.0, "s"), (1e-3, "ms"), (1e-6, "µs"))
_BYTES = ((1024.0**4, "TiB"), (1024.0**3, "GiB"), (1024.0**2, "MiB"), (1024.0, "KiB"), (1.0, "B"))
_RATES = ((1e9, "GB/s"), (1e6, "MB/s"), (1e3, "kB/s"), (1.0, "B/s"))
_SHORT = ((1e9, "Bil"), (1e6, "Mil"), (1e4, "K"), (1.0, ""))
_SCALES = {"s": _SECONDS, "bytes": _BYTES, "Bps": _RATES}


def shown(value: float, unit: str, decimals: int | None = None) -> str:
    """A figure for people."""
    if math.isnan(value):
        return "–"
    if unit == "percentunit":
        return f"{_digits(value * 100, decimals)}%"
    if unit == "sci":
        return f"{value:.2g}"
    bound, suffix = _scale(abs(value), _SCALES.get(unit, _SHORT))
    shown_bound = 1e3 if suffix == "K" else bound
    return f"{_digits(value / shown_bound, decimals)} {suffix}".strip()


def _scale(size: float, scales: Sequence[tuple[float, str]]) -> tuple[float, str]:
    if size == 0:
        return next(scale for scale in scales if scale[0] == 1.0)
    return next((scale for scale in scales if size >= scale[0]), scales[-1] if scales[-1][0] < 1 else (1.0, scales[-1][1]))


def _digits(value: float, decimals: int | None) -> str:
    if decimals is not None:
        return f"{value:.{decimals}f}"
    if value == int(value):
        return f"{value:.0f}"
    places = max(0, 2 - math.floor(math.log10(abs(value)))) if value else 0
    return f"{value:.{min(places, 5)}f}".rstrip("0").rstrip(".")
