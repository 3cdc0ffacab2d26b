"""How single columns, curves and values look: units, colours, links."""

from collections.abc import Mapping

from grafana_foundation_sdk.builders.dashboard import ThresholdsConfig
from grafana_foundation_sdk.models.dashboard import DynamicConfigValue, Threshold, ThresholdsMode

TRAINING_UID = "charalora-training"
GREEN, YELLOW, ORANGE, RED, BLUE, PURPLE = "green", "yellow", "orange", "red", "blue", "purple"
TRAINING_LINK = (
    f"/d/{TRAINING_UID}?${{__url_time_range}}&var-datasource=${{datasource}}"
    "&var-namespace=${__data.fields.namespace}&var-resource=${__data.fields.resource}"
)


def to_training() -> list[DynamicConfigValue]:
    """A column's link to the dashboard of its row's training."""
    return [DynamicConfigValue(id_val="links", value=[{"title": "Show this training", "url": TRAINING_LINK}])]


def shown_as(unit: str, decimals: int | None = None) -> list[DynamicConfigValue]:
    """A column's unit."""
    more = [] if decimals is None else [DynamicConfigValue(id_val="decimals", value=decimals)]
    return [DynamicConfigValue(id_val="unit", value=unit), *more]


def as_gauge() -> list[DynamicConfigValue]:
    """A column of shares as bars."""
    return [
        *shown_as("percentunit", 0),
        DynamicConfigValue(id_val="min", value=0),
        DynamicConfigValue(id_val="max", value=1),
        DynamicConfigValue(id_val="color", value={"mode": "fixed", "fixedColor": BLUE}),
        DynamicConfigValue(id_val="custom.cellOptions", value={"type": "gauge", "mode": "basic", "valueDisplayMode": "text"}),
        DynamicConfigValue(id_val="custom.width", value=220),
    ]


def in_colour(colour: str) -> list[DynamicConfigValue]:
    """One series' colour."""
    return [DynamicConfigValue(id_val="color", value={"mode": "fixed", "fixedColor": colour})]


def dashed(colour: str) -> list[DynamicConfigValue]:
    """A line that bounds or marks others."""
    return [
        *in_colour(colour),
        DynamicConfigValue(id_val="custom.lineStyle", value={"fill": "dash", "dash": [8, 6]}),
        DynamicConfigValue(id_val="custom.fillOpacity", value=0),
    ]


def steps(first: str = BLUE, bounds: Mapping[float, str] | None = None) -> ThresholdsConfig:
    """Colours from certain values on."""
    later = [Threshold(value=value, color=colour) for value, colour in (bounds or {}).items()]
    return ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps([Threshold(value=None, color=first), *later])
