"""docs/see-prometheus.md tells of every figure, in the words that Prometheus has of it, and of every key."""

from __future__ import annotations

import re
from pathlib import Path

import yaml
from tests.pages import links, strange

from headway.core.families import FAMILIES
from headway.job import Budget, Prometheus
from headway.tracking.prometheus.discovery import FOLDER

PAGE = Path(__file__).parents[2] / "docs" / "see-prometheus.md"
TEXT = PAGE.read_text(encoding="utf-8")


def test_every_command_and_link_is_there() -> None:
    assert strange(PAGE) == []
    assert links(PAGE) == []


def test_every_figure_is_told_of_with_its_labels_and_no_other() -> None:
    rows = re.findall(r"^\| `(headway_\w+)` \| (.*?) \| (.*) \|$", TEXT, re.MULTILINE)
    told = {name: (tuple(re.findall(r"`(\w+)`", labels)), words) for name, labels, words in rows}
    assert told == {name: (family.labels, family.help) for name, family in FAMILIES.items()}


def test_every_key_is_told_of() -> None:
    keys = [f"prometheus.{name}" for name in Prometheus.model_fields]
    keys += [f"budget.{name}" for name in Budget.model_fields]
    assert [key for key in (*keys, "workers.price_per_hour") if f"`{key}`" not in TEXT] == []


def test_what_is_to_be_written_into_prometheus_is_sound() -> None:
    scrape, relabel = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
    (config,) = yaml.safe_load(scrape)["scrape_configs"]
    assert f"/{FOLDER}/*.json" in config["file_sd_configs"][0]["files"][0]
    (rule,) = yaml.safe_load(relabel)["metric_relabel_configs"]
    for name in FAMILIES:
        found = re.fullmatch(rule["regex"], f"ray_{name}")
        assert found is not None
        assert rule["replacement"].replace("$1", found[1]) == name
