"""Dashboards: what is committed is what the description makes, by rules of Grafana's linter; and the verbs' answers."""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import yaml
from dashboards.description import Panel, all_of_them
from dashboards.generate import HERE, text
from dashboards.to_perses import perses
from tests.pages import commands, links, strange

from headway.cli import dashboards as verbs
from headway.core.families import COUNTER, FAMILIES
from headway.dashboards import files, scraping
from headway.errors import BadInput

DASHBOARDS = {dashboard.name: dashboard for dashboard in all_of_them()}
PANELS = [(name, panel) for name, dashboard in DASHBOARDS.items() for panel in dashboard.panels]
QUERIES = [(f"{name}: {panel.title}", query.query) for name, panel in PANELS for query in panel.queries]
RULES = {path.stem: yaml.safe_load(path.read_text()) for path in sorted((HERE / "prometheus").glob("[ra]*.yml"))}
RULE_QUERIES = [
    (rule.get("record") or rule["alert"], rule["expr"])
    for file in RULES.values()
    for group in file["groups"]
    for rule in group["rules"]
]
ALERTS = [rule for group in RULES["alerts"]["groups"] for rule in group["rules"]]
METRIC = re.compile(r"(?<![\w:])headway_\w+")


def metrics(query: str) -> set[str]:
    return set(METRIC.findall(query))


@pytest.mark.parametrize("name", DASHBOARDS)
def test_what_is_committed_for_perses_is_what_the_description_makes(name: str) -> None:
    assert (HERE / "perses" / f"{name}.json").read_text(encoding="utf-8") == text(perses(DASHBOARDS[name]))


@pytest.mark.parametrize("name", DASHBOARDS)
def test_what_is_committed_for_grafana_is_what_the_description_makes(name: str) -> None:
    pytest.importorskip(
        "grafana_foundation_sdk", reason="grafana-foundation-sdk is not installed: .[dashboards] has it"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        from dashboards.to_grafana import grafana
    assert (HERE / "grafana" / f"{name}.json").read_text(encoding="utf-8") == text(grafana(DASHBOARDS[name]))


# Both ways: what is drawn is there, and what is there is drawn


def test_what_is_drawn_or_alerted_about_is_exported() -> None:
    assert len(QUERIES) > 60
    strange = {where: metrics(query) - set(FAMILIES) for where, query in QUERIES + RULE_QUERIES}
    assert {where: names for where, names in strange.items() if names} == {}


def test_what_is_exported_is_drawn() -> None:
    drawn = set().union(*(metrics(query) for _, query in QUERIES))
    assert set(FAMILIES) - drawn == set()


def test_labels_that_queries_name_are_those_of_their_metrics() -> None:
    for where, query in QUERIES + RULE_QUERIES:
        names = metrics(query)
        known = {"run", "sweep", *(label for name in names for label in FAMILIES[name].labels)}
        asked = {word for group in re.findall(r"by \(([^)]*)\)", query) for word in group.replace(" ", "").split(",")}
        asked |= set(re.findall(r"[{,]\s*(\w+)\s*[=!]", query))
        assert names == set() or asked <= known, (where, asked - known)


def test_every_panel_names_its_series_by_labels_that_they_have() -> None:
    for where, panel in PANELS:
        for query in panel.queries:
            kept = (
                set(re.findall(r"\w+", re.findall(r"by \(([^)]*)\)", query.query)[0]))
                if "by (" in query.query
                else set()
            )
            assert set(re.findall(r"\{\{(\w+)\}\}", query.name)) <= kept, (where, panel.title)


# Rules of Grafana's linter (github.com/grafana/dashboard-linter) that make sense here


def drawn(name: str) -> list[dict[str, Any]]:
    return [panel for panel in grafana_file(name)["panels"] if panel["type"] != "row"]


def grafana_file(name: str) -> dict[str, Any]:
    tree: dict[str, Any] = json.loads((HERE / "grafana" / f"{name}.json").read_text(encoding="utf-8"))
    return tree


@pytest.mark.parametrize("name", DASHBOARDS)
def test_the_datasource_is_a_variable_and_everything_asks_it(name: str) -> None:
    tree = grafana_file(name)
    first, *others = tree["templating"]["list"]
    assert (first["name"], first["type"], first["query"]) == ("datasource", "datasource", "prometheus")
    places = [*others, *drawn(name), *(target for panel in drawn(name) for target in panel["targets"])]
    assert {place["datasource"]["uid"] for place in places} == {"${datasource}"}
    for variable in others:
        assert (variable["multi"], variable["includeAll"]) == (True, True)
        assert variable["label"]
    assert (tree["uid"], tree["schemaVersion"]) == (f"headway-{name}", 42)
    assert tree["description"]


@pytest.mark.parametrize("name", DASHBOARDS)
def test_every_panel_has_a_title_a_meaning_a_unit_and_a_legend(name: str) -> None:
    panels = drawn(name)
    assert len({panel["title"] for panel in panels}) > 3
    for panel in panels:
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"] not in ("", "none")
        assert all(target["legendFormat"] and target["expr"] for target in panel["targets"])


@pytest.mark.parametrize("name", DASHBOARDS)
def test_panels_fill_the_grid_and_none_lies_upon_another(name: str) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in grafana_file(name)["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells


def test_counters_stand_only_under_rate_or_increase_and_gauges_never() -> None:
    pattern = re.compile(r"(\w+)?\(?(?<![\w:])(headway_\w+)(?:\{[^}]*\})?(\[[^\]]*\])?")
    seen = set()
    for where, query in QUERIES + RULE_QUERIES:
        for function, name, window in pattern.findall(query):
            seen.add(name)
            if FAMILIES[name].kind == COUNTER:
                assert function in ("rate", "increase"), f"{where}: {name} is a counter"
                assert window, where
            else:
                assert function not in ("rate", "increase"), f"{where}: {name} is no counter"
    assert {name for name in seen if FAMILIES[name].kind == COUNTER}


def test_windows_of_panels_follow_the_scraping_and_the_time_shown() -> None:
    for where, query in QUERIES:
        assert set(re.findall(r"\[([$\w]+)\]", query)) <= {"$__rate_interval", "$__range"}, where


def test_what_may_come_twice_is_counted_once() -> None:
    """A run on a cluster comes from itself and through Ray."""
    for where, query in QUERIES:
        for found in METRIC.finditer(query):
            before = query[: found.start()]
            assert re.search(r"max by \([^)]*\)\s*\((?:\w+\()?$", before), where


def test_every_query_can_be_read() -> None:
    parser = pytest.importorskip("promql_parser", reason="promql-parser is not installed: .[dashboards] has it")
    for where, query in QUERIES + RULE_QUERIES:
        plain = query.replace("$__rate_interval", "1m").replace("$__range", "1h")
        assert parser.parse(re.sub(r"\$\w+", ".*", plain)) is not None, where
    with pytest.raises(ValueError, match=r"unclosed|unexpected|invalid"):
        parser.parse("sum by (run (headway_step)")


# Alerts


def test_every_alert_says_what_happened_and_what_to_do() -> None:
    assert len(ALERTS) >= 7
    page = (HERE.parent / "docs" / "dashboards.md").read_text(encoding="utf-8")
    for alert in ALERTS:
        assert set(alert["annotations"]) == {"summary", "description", "todo"}
        assert "{{ $labels." in alert["annotations"]["summary"]
        assert alert["labels"]["severity"] in ("warning", "critical")
        assert f"`{alert['alert']}`" in page, f"docs/dashboards.md says nothing of {alert['alert']}"


def test_every_alert_has_a_test_of_promtool() -> None:
    told = yaml.safe_load((HERE / "alerts_test.yml").read_text())
    fires, silent = set(), set()
    for case in told["tests"]:
        for check in case.get("alert_rule_test", ()):
            (fires if check["exp_alerts"] else silent).add(check["alertname"])
    assert fires == silent == {alert["alert"] for alert in ALERTS}


# The page, and the verbs

PAGE = HERE.parent / "docs" / "dashboards.md"


def test_every_command_of_the_page_is_there() -> None:
    assert ["dashboards", "up"] in [words[:2] for words in commands(PAGE)]
    assert strange(PAGE) == []
    assert links(PAGE) == []


def test_what_the_page_says_of_recorded_rules_is_so() -> None:
    recorded = {rule["record"] for group in RULES["rules"]["groups"] for rule in group["rules"]}
    told = set(re.findall(r"`(\w+:headway_\w+:\w+)`", PAGE.read_text(encoding="utf-8")))
    assert len(told) >= 4
    assert told <= recorded


def test_the_configuration_has_the_places_filled_in(tmp_path: Path) -> None:
    tree = scraping.configuration(tmp_path / "runs", [tmp_path / "ray.json"])
    jobs = {job["job_name"]: job for job in tree["scrape_configs"]}
    assert jobs["headway"]["file_sd_configs"][0]["files"] == [str(tmp_path / "runs" / ".prometheus" / "*.json")]
    assert jobs["ray"]["file_sd_configs"][0]["files"] == [str(tmp_path / "ray.json")]
    (relabelled,) = jobs["ray"]["metric_relabel_configs"]
    assert (
        re.sub(f"^{relabelled['regex']}$", relabelled["replacement"].replace("$", "\\"), "ray_headway_step")
        == "headway_step"
    )
    assert all(Path(path).is_file() for path in tree["rule_files"])


def test_export_writes_all_files_and_says_which(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.json").write_text("mine")
    verbs.export(tmp_path)
    said = [Path(line) for line in capsys.readouterr().out.split()]
    assert {path.relative_to(tmp_path).as_posix() for path in said} == {
        *(f"{tool}/{name}.json" for tool in ("grafana", "perses") for name in DASHBOARDS),
        *(f"prometheus/{name}.yml" for name in ("alerts", "prometheus", "rules")),
    }
    assert all(path.read_bytes() == (files.folder() / path.relative_to(tmp_path)).read_bytes() for path in said)
    assert (tmp_path / "mine.json").read_text() == "mine"


def test_export_to_what_is_no_folder_is_bad_input(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BadInput, match="cannot be written"):
        verbs.export(tmp_path / "file")


def test_without_prometheus_it_is_said_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BadInput, match=r"apt install prometheus.*headway dashboards export"):
        verbs.up(str(tmp_path), 0)


def test_a_panel_is_told_when_it_is_wrong() -> None:
    sound = {
        "title": "t",
        "meaning": "m.",
        "kind": "stat",
        "unit": "ratio",
        "width": 4,
        "queries": [{"query": "q", "name": "n"}],
    }
    Panel.model_validate(sound)
    for wrong in (
        {"unit": "apples"},
        {"label": "state"},
        {"good": "low"},
        {"width": 25},
        {"queries": []},
        {"colour": "red"},
    ):
        with pytest.raises(ValueError, match="validation error"):
            Panel.model_validate({**sound, **wrong})
