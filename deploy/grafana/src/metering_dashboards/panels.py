"""What every panel has: data source, unit, legend, description and a link to the runbook."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import Final

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.models.common import (
    BigValueColorMode,
    GraphDrawStyle,
    LegendDisplayMode,
    LegendPlacement,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardLinkType,
    DataSourceRef,
    Threshold,
    ThresholdsMode,
    VariableOption,
)

SOURCE: Final = DataSourceRef(type_val="prometheus", uid="${datasource}")
RUNBOOK: Final = "${runbook}"


@dataclass(frozen=True, slots=True)
class Query:
    """A query and the legend of its series."""

    expr: str
    legend: str


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel.

    Attributes:
        title: What it shows, in a few words.
        description: What it means, and which values need attention.
        unit: Grafana's name of the unit.
        queries: What is shown.
        runbook: The anchor of its section in the runbook.
        threshold: From this value on a single number is red; without one, a graph is drawn.
        width: Columns out of 24.
    """

    title: str
    description: str
    unit: str
    queries: tuple[Query, ...]
    runbook: str
    threshold: float | None = None
    width: int = 12

    def build(self) -> stat.Panel | timeseries.Panel:
        """Return the panel as Grafana's."""
        panel = self._graph() if self.threshold is None else self._number(self.threshold)
        panel = (
            panel.title(self.title)
            .description(self.description)
            .unit(self.unit)
            .datasource(SOURCE)
            .span(self.width)
            .links([_link("Runbook", f"{RUNBOOK}#{self.runbook}")])
        )
        for number, query in enumerate(self.queries):
            panel = panel.with_target(
                prometheus.Dataquery()
                .expr(query.expr)
                .legend_format(query.legend)
                .datasource(SOURCE)
                .ref_id(chr(ord("A") + number))
            )
        return panel

    def _number(self, threshold: float) -> stat.Panel:
        steps = [Threshold(value=None, color="green"), Threshold(value=threshold, color="red")]
        thresholds = dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps)
        return (
            stat.Panel()
            .height(4)
            .thresholds(thresholds)
            .color_mode(BigValueColorMode.BACKGROUND)
            .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        )

    def _graph(self) -> timeseries.Panel:
        legend = (
            common.VizLegendOptions()
            .display_mode(LegendDisplayMode.LIST)
            .placement(LegendPlacement.BOTTOM)
            .show_legend(True)
        )
        return (
            timeseries.Panel()
            .height(8)
            .draw_style(GraphDrawStyle.LINE)
            .fill_opacity(10)
            .min(0)
            .legend(legend)
        )


@dataclass(frozen=True, slots=True)
class Section:
    """Panels under one heading."""

    title: str
    panels: Sequence[Panel]


def build(
    name: str, title: str, description: str, sections: Sequence[Section]
) -> dashboard.Dashboard:
    """Return the dashboard ``name``, which is its permanent address, with its panels in rows."""
    built = (
        dashboard.Dashboard(title)
        .uid(f"metering-{name}")
        .description(description)
        .tags(["metering"])
        .refresh("30s")
        .time("now-6h", "now")
        .timezone("utc")
        .readonly()
        .with_variable(
            dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus")
        )
        .with_variable(
            dashboard.TextBoxVariable("runbook")
            .label("Runbook")
            .description("Where docs/runbook.md can be read")
            .default_value("docs/runbook.md")
            .current(VariableOption(text="docs/runbook.md", value="docs/runbook.md"))
        )
        .link(_link("Runbook", RUNBOOK))
        .link(
            dashboard.DashboardLink("Dashboards")
            .type(DashboardLinkType.DASHBOARDS)
            .tags(["metering"])
            .as_dropdown(True)
            .keep_time(True)
        )
    )
    numbers = count(1)
    for section in sections:
        built = built.with_row(dashboard.Row(section.title).id(next(numbers)))
        for panel in section.panels:
            built = built.with_panel(panel.build().id(next(numbers)))
    return built


def quantiles(
    histogram: str, by: str = "", *, of: Sequence[float] = (0.5, 0.99)
) -> tuple[Query, ...]:
    """Return queries for quantiles of ``histogram``, by the label ``by`` if there is one."""
    labels = f"le, {by}" if by else "le"
    name = f"{{{{{by}}}}} " if by else ""
    return tuple(
        Query(
            f"histogram_quantile({q}, sum by ({labels})"
            f" (rate({histogram}_bucket[$__rate_interval])))",
            f"{name}p{q * 100:g}",
        )
        for q in of
    )


def rates(counter: str, by: str) -> Query:
    """Return the rate of ``counter`` by labels, which also name its series."""
    legend = " ".join(f"{{{{{label.strip()}}}}}" for label in by.split(","))
    return Query(f"sum by ({by}) (rate({counter}[$__rate_interval]))", legend)


def _link(title: str, url: str) -> dashboard.DashboardLink:
    return dashboard.DashboardLink(title).type(DashboardLinkType.LINK).url(url).target_blank(True)
