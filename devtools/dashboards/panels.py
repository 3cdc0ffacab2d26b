"""What our panels have in common: a title that is a question's answer, a description, a unit, queries of one data source."""

from collections.abc import Mapping, Sequence
from typing import Protocol, Self, TypeVar

from grafana_foundation_sdk.builders import bargauge, common, prometheus, stat, statetimeline, table, timeseries
from grafana_foundation_sdk.builders.dashboard import (
    Dashboard,
    DashboardLink,
    DatasourceVariable,
    FieldColor,
    QueryVariable,
    Row,
)
from grafana_foundation_sdk.models.common import (
    BarGaugeDisplayMode,
    BigValueColorMode,
    BigValueGraphMode,
    BigValueTextMode,
    GraphDrawStyle,
    LegendDisplayMode,
    LegendPlacement,
    StackingMode,
    TooltipDisplayMode,
    VisibilityMode,
    VizOrientation,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DashboardLinkType,
    DataSourceRef,
    DataTransformerConfig,
    FieldColorModeId,
    VariableOption,
    VariableRefresh,
    VariableSort,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from dashboards.looks import steps

SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
TAG = "charalora"
MISSED = 60_000
"""Milliseconds without a point over which a curve goes on: a scrape that was missed is no end."""


class Asking(Protocol):
    """A panel with queries."""

    def with_target(self, target: prometheus.Dataquery) -> Self:
        """Another query."""


Panel = TypeVar("Panel", bound=Asking)


def board(title: str, name: str, about: str) -> Dashboard:
    """An empty dashboard, linked to the others."""
    others = DashboardLink("Charalora").type(DashboardLinkType.DASHBOARDS).tags([TAG]).keep_time(True).icon("dashboard")
    return (
        Dashboard(title)
        .uid(f"charalora-{name}")
        .description(about)
        .tags([TAG])
        .refresh("30s")
        .time("now-6h", "now")
        .timezone("browser")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .readonly()
        .link(others)
        .with_variable(DatasourceVariable("datasource").label("Data source").type("prometheus"))
    )


def choice(name: str, label: str, values: str) -> QueryVariable:
    """A variable whose values Prometheus knows."""
    return (
        QueryVariable(name)
        .label(label)
        .datasource(SOURCE)
        .query(values)
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_ASC)
    )


def every(variable: QueryVariable) -> QueryVariable:
    """Let all values be chosen, and choose them."""
    return variable.multi(True).include_all(True).current(VariableOption(text="All", value="$__all", selected=True))


def row(title: str) -> Row:
    """A heading."""
    return Row(title)


def over_time(expr: str, legend: str = "") -> prometheus.Dataquery:
    """A query at every moment of the time range."""
    return prometheus.Dataquery().expr(expr).legend_format(legend or "__auto").range().datasource(SOURCE)


def at_the_end(expr: str, legend: str = "") -> prometheus.Dataquery:
    """A query at the end of the time range."""
    return prometheus.Dataquery().expr(expr).legend_format(legend or "__auto").instant().datasource(SOURCE)


def number(title: str, about: str, unit: str, *queries: prometheus.Dataquery) -> stat.Panel:
    """The newest figure, large; an ended training keeps its last."""
    panel = (
        stat.Panel()
        .title(title)
        .description(about)
        .datasource(SOURCE)
        .unit(unit)
        .no_value("–")
        .color_mode(BigValueColorMode.VALUE)
        .graph_mode(BigValueGraphMode.NONE)
        .text_mode(BigValueTextMode.VALUE if len(queries) == 1 else BigValueTextMode.VALUE_AND_NAME)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .height(4)
    )
    return lettered(panel, queries).thresholds(steps())


def lines(title: str, about: str, unit: str, *queries: prometheus.Dataquery) -> timeseries.Panel:
    """Curves over time, with their newest values in a legend."""
    legend = common.VizLegendOptions().display_mode(LegendDisplayMode.LIST).placement(LegendPlacement.BOTTOM).show_legend(True).calcs([])
    panel = (
        timeseries.Panel()
        .title(title)
        .description(about)
        .datasource(SOURCE)
        .unit(unit)
        .draw_style(GraphDrawStyle.LINE)
        .line_width(2)
        .fill_opacity(8)
        .span_nulls(MISSED)
        .legend(legend)
        .tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI))
        .thresholds(steps())
        .span(12)
        .height(8)
    )
    return lettered(panel, queries)


def stacked(panel: timeseries.Panel) -> timeseries.Panel:
    """One curve on the other: the upper edge is their sum."""
    return panel.stacking(common.StackingConfig().mode(StackingMode.NORMAL)).fill_opacity(40).line_width(1).min(0)


def bars(title: str, about: str, unit: str, *queries: prometheus.Dataquery) -> bargauge.Panel:
    """A bar for each series at the end of the time range."""
    panel = (
        bargauge.Panel()
        .title(title)
        .description(about)
        .datasource(SOURCE)
        .unit(unit)
        .min(0)
        .no_value("none")
        .orientation(VizOrientation.HORIZONTAL)
        .display_mode(BarGaugeDisplayMode.BASIC)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .color_scheme(FieldColor().mode(FieldColorModeId.PALETTE_CLASSIC_BY_NAME))
        .span(8)
        .height(8)
    )
    return lettered(panel, queries).thresholds(steps())


def spans(title: str, about: str, *queries: prometheus.Dataquery) -> statetimeline.Panel:
    """When each series was there."""
    panel = (
        statetimeline.Panel()
        .title(title)
        .description(about)
        .datasource(SOURCE)
        .show_value(VisibilityMode.NEVER)
        .color_scheme(FieldColor().mode(FieldColorModeId.PALETTE_CLASSIC_BY_NAME))
        .legend(
            common.VizLegendOptions().display_mode(LegendDisplayMode.HIDDEN).show_legend(False).placement(LegendPlacement.BOTTOM).calcs([])
        )
        .row_height(0.8)
        .span(12)
        .height(8)
    )
    return lettered(panel, queries).thresholds(steps())


def rows(title: str, about: str, columns: Mapping[str, str], labels: Mapping[str, str]) -> table.Panel:
    """A table with a row for each combination of labels: a column for each label, then one for each expression.

    Args:
        title: Its title.
        about: What it says.
        columns: Expression by heading.
        labels: Heading by label.
    """
    queries = [at_the_end(expr).format(PromQueryFormat.TABLE) for expr in columns.values()]
    single = len(queries) == 1
    renamed = {"Value" if single else f"Value #{letter(at)}": heading for at, heading in enumerate(columns)}
    order = {name: at for at, name in enumerate([*labels, *renamed])}
    organize = {"excludeByName": {"Time": True}, "indexByName": order, "renameByName": {**labels, **renamed}}
    panel = table.Panel().title(title).description(about).datasource(SOURCE).span(24).height(7).no_value("–")
    panel = panel.transformations(
        [DataTransformerConfig(id_val="merge", options={}), DataTransformerConfig(id_val="organize", options=organize)]
    )
    return lettered(panel, queries).thresholds(steps())


def lettered(panel: Panel, queries: Sequence[prometheus.Dataquery]) -> Panel:
    """The panel with its queries."""
    for at, query in enumerate(queries):
        panel = panel.with_target(query.ref_id(letter(at)))
    return panel


def letter(at: int) -> str:
    """How Grafana names the queries of a panel."""
    return "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[at]
