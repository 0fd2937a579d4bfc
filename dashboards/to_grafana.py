"""A dashboard as Grafana imports it: classic JSON, built by Grafana's own SDK (`grafana-foundation-sdk`, pinned)."""

from __future__ import annotations

import json
import warnings
from typing import Any

from dashboards.colors import AMISS, SO_SO, WELL
from dashboards.description import COLUMNS, Dashboard, Panel, Query, Variable

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # of the classic schema, which every Grafana in use imports
    from grafana_foundation_sdk.builders import common as shapes
    from grafana_foundation_sdk.builders import dashboard as builders
    from grafana_foundation_sdk.builders import prometheus, stat, timeseries
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.models import common
    from grafana_foundation_sdk.models import dashboard as models

DATASOURCE = common.DataSourceRef(type_val="prometheus", uid="${datasource}")
UNITS = {
    "number": "short",
    "ratio": "percentunit",
    "seconds": "s",
    "bytes": "decbytes",
    "bytes_per_second": "Bps",
    "per_second": "cps",
    "rows_per_second": "rowsps",
    "dollars": "currencyUSD",
}


def grafana(dashboard: Dashboard) -> dict[str, Any]:
    """See the module."""
    made = (
        builders.Dashboard(dashboard.title)
        .uid(f"headway-{dashboard.name}")
        .description(dashboard.meaning)
        .tags(["headway"])
        .time("now-1h", "now")
        .refresh("15s")
        .timezone("browser")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .with_variable(builders.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
    )
    for variable in dashboard.variables:
        made.with_variable(_variable(variable))
    top = number = 0
    for section in dashboard.sections:
        number += 1
        place = models.GridPos(h=1, w=COLUMNS, x=0, y=top)
        made.with_row(builders.Row(section.title).id(number).grid_pos(place))
        top, bottom = top + 1, top + 1
        for panel, x, y in section.placed():
            number += 1
            place = models.GridPos(h=panel.height, w=panel.width, x=x, y=top + y)
            made.with_panel(_panel(panel).id(number).grid_pos(place))
            bottom = max(bottom, top + y + panel.height)
        top = bottom
    told: dict[str, Any] = json.loads(JSONEncoder(sort_keys=True).encode(made.build()))
    return told


def _variable(variable: Variable) -> builders.QueryVariable:
    everything = models.VariableOption(selected=True, text=["All"], value=["$__all"])
    return (
        builders.QueryVariable(variable.name)
        .label(variable.title)
        .datasource(DATASOURCE)
        .query(f"label_values({variable.series}, {variable.label})")
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .current(everything)
    )


def _panel(panel: Panel) -> stat.Panel | timeseries.Panel:
    made = _stat(panel) if panel.kind in ("stat", "label") else _chart(panel)
    made.title(panel.title).description(panel.meaning).datasource(DATASOURCE).unit(UNITS[panel.unit])
    for letter, query in zip("ABCDEFGH", panel.queries, strict=False):
        made.with_target(_query(panel, query, letter))
    return made


def _stat(panel: Panel) -> stat.Panel:
    made = (
        stat.Panel()
        .graph_mode(common.BigValueGraphMode.NONE)
        .color_mode(common.BigValueColorMode.VALUE if panel.good else common.BigValueColorMode.NONE)
        .text_mode(common.BigValueTextMode.NAME if panel.label else common.BigValueTextMode.AUTO)
        .reduce_options(shapes.ReduceDataOptions().calcs(["lastNotNull"]))
    )
    if panel.bounds is not None:
        first, last = (AMISS, WELL) if panel.good == "high" else (WELL, AMISS)
        colors = zip((None, *panel.bounds), (first, SO_SO, last), strict=True)
        steps = [models.Threshold(value=value, color=color) for value, color in colors]
        made.thresholds(builders.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps))
    return made


def _chart(panel: Panel) -> timeseries.Panel:
    legend = shapes.VizLegendOptions().display_mode(common.LegendDisplayMode.LIST).show_legend(True)
    made = (
        timeseries.Panel()
        .legend(legend.placement(common.LegendPlacement.BOTTOM))
        .tooltip(shapes.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI).sort(common.SortOrder.DESCENDING))
        .line_width(0 if panel.kind == "bars" else 1)
        .fill_opacity({"lines": 0, "stack": 60, "bars": 80}[panel.kind])
    )
    if panel.kind == "bars":
        made.draw_style(common.GraphDrawStyle.BARS)
    if panel.kind in ("stack", "bars"):
        made.stacking(shapes.StackingConfig().mode(common.StackingMode.NORMAL).group("A"))
    if panel.begins_at_zero:
        made.min(0)
    return made


def _query(panel: Panel, query: Query, letter: str) -> prometheus.Dataquery:
    name = f"{query.name}: {{{{{panel.label}}}}}" if panel.label else query.name
    made = prometheus.Dataquery().datasource(DATASOURCE).expr(query.query).legend_format(name).ref_id(letter)
    return made.instant() if panel.kind in ("stat", "label") else made.range()
