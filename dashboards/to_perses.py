"""A dashboard as Perses reads it: `kind: Dashboard` of its API, with the panels and queries of its own plugins."""

from __future__ import annotations

from typing import Any

from dashboards.colors import AMISS, SO_SO, WELL
from dashboards.description import Dashboard, Panel, Query, Section, Variable

PROJECT = "headway"
UNITS: dict[str, dict[str, Any]] = {
    "number": {"unit": "decimal", "shortValues": True},
    "ratio": {"unit": "percent-decimal", "decimalPlaces": 1},
    "seconds": {"unit": "seconds", "decimalPlaces": 1},
    "bytes": {"unit": "bytes", "shortValues": True},
    "bytes_per_second": {"unit": "bytes/sec", "shortValues": True},
    "per_second": {"unit": "counts/sec", "shortValues": True},
    "rows_per_second": {"unit": "rows/sec", "shortValues": True},
    "dollars": {"unit": "usd", "decimalPlaces": 2},
}
DRAWN: dict[str, dict[str, Any]] = {
    "lines": {"display": "line", "lineWidth": 1.5, "connectNulls": False},
    "stack": {"display": "line", "lineWidth": 1, "areaOpacity": 0.6, "stack": "all"},
    "bars": {"display": "bar", "stack": "all"},
}


def perses(dashboard: Dashboard) -> dict[str, Any]:
    """See the module."""
    panels: dict[str, Any] = {}
    layouts = []
    for section in dashboard.sections:
        items = []
        for panel, x, y in section.placed():
            key = f"p{len(panels)}"
            panels[key] = _panel(panel)
            place = {"x": x, "y": y, "width": panel.width, "height": panel.height}
            items.append({**place, "content": {"$ref": f"#/spec/panels/{key}"}})
        layouts.append(_grid(section, items))
    spec = {
        "display": {"name": dashboard.title, "description": dashboard.meaning},
        "duration": "1h",
        "refreshInterval": "15s",
        "variables": [_variable(variable) for variable in dashboard.variables],
        "layouts": layouts,
        "panels": panels,
    }
    return {"kind": "Dashboard", "metadata": {"name": f"headway-{dashboard.name}", "project": PROJECT}, "spec": spec}


def _grid(section: Section, items: list[dict[str, Any]]) -> dict[str, Any]:
    return {"kind": "Grid", "spec": {"display": {"title": section.title, "collapse": {"open": True}}, "items": items}}


def _variable(variable: Variable) -> dict[str, Any]:
    plugin = {
        "kind": "PrometheusLabelValuesVariable",
        "spec": {"labelName": variable.label, "matchers": [variable.series]},
    }
    spec = {
        "name": variable.name,
        "display": {"name": variable.title},
        "allowMultiple": True,
        "allowAllValue": True,
        "defaultValue": ["$__all"],
        "sort": "alphabetical-asc",
        "plugin": plugin,
    }
    return {"kind": "ListVariable", "spec": spec}


def _panel(panel: Panel) -> dict[str, Any]:
    shape = _stat(panel) if panel.kind in ("stat", "label") else _chart(panel)
    display = {"name": panel.title, "description": panel.meaning}
    return {"kind": "Panel", "spec": {"display": display, "plugin": shape, "queries": [*map(_query, panel.queries)]}}


def _stat(panel: Panel) -> dict[str, Any]:
    spec: dict[str, Any] = {"calculation": "last-number", "format": UNITS[panel.unit]}
    if panel.label:
        spec["metricLabel"] = panel.label
    if panel.bounds is not None:
        first, last = (AMISS, WELL) if panel.good == "high" else (WELL, AMISS)
        steps = [{"value": panel.bounds[0], "color": SO_SO}, {"value": panel.bounds[1], "color": last}]
        spec["thresholds"] = {"mode": "absolute", "defaultColor": first, "steps": steps}
    return {"kind": "StatChart", "spec": spec}


def _chart(panel: Panel) -> dict[str, Any]:
    axis: dict[str, Any] = {"show": True, "format": UNITS[panel.unit]}
    if panel.begins_at_zero:
        axis["min"] = 0
    legend = {"position": "bottom", "mode": "list", "size": "small"}
    return {"kind": "TimeSeriesChart", "spec": {"legend": legend, "yAxis": axis, "visual": DRAWN[panel.kind]}}


def _query(query: Query) -> dict[str, Any]:
    spec = {"query": query.query, "seriesNameFormat": query.name}
    return {
        "kind": "TimeSeriesQuery",
        "spec": {"plugin": {"kind": "PrometheusTimeSeriesQuery", "spec": spec}},
    }
