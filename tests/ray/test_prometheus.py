"""On a Ray that was there before the run, its figures are to be had of its own process and of Ray's exporter."""

from __future__ import annotations

import json
import urllib.request
from contextlib import suppress
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.ray.conftest import Project

import headway
from headway.core.families import COUNTER, FAMILIES
from headway.driver.progress import Progress
from headway.tracking.prometheus.discovery import FOLDER

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]

Values = dict[str, dict[str, float]]


def scraped(target: str) -> Values:
    """Values by name, and by the labels that are ours."""
    found: Values = {}
    with suppress(OSError), urllib.request.urlopen(f"http://{target}/metrics", timeout=20) as answer:
        for family in text_string_to_metric_families(answer.read().decode()):
            for sample in family.samples:
                own = FAMILIES.get(sample.name.removeprefix("ray_"))
                if own is not None and sample.labels.get("run") == "told":
                    labels = ",".join(sample.labels[name] for name in own.labels)
                    found.setdefault(sample.name, {})[labels] = sample.value
    return found


def test_the_same_figures_come_out_of_the_run_and_of_ray(connected: None, project: Project, tmp_path: Path) -> None:
    import ray

    (node,) = (each for each in ray.nodes() if each["Alive"])
    rays, entry, brake = f"127.0.0.1:{node['MetricsExportPort']}", tmp_path / FOLDER / "told.json", tmp_path / "brake"
    brake.write_text("")
    seen: list[tuple[Values, Values]] = []

    def look(progress: Progress) -> None:
        """Until Ray has the rows, which is some ten seconds; then the run may be quick."""
        if brake.exists() and progress.step > 2 and entry.exists():
            through_ray = scraped(rays)
            if through_ray.get("ray_headway_samples_total"):
                seen.append((through_ray, scraped(json.loads(entry.read_text())[0]["targets"][0])))
                brake.unlink()

    arguments = {"pause": 0.1, "brake": str(brake)}
    tree = project.tree(arguments=arguments, workers={"min": 1, "max": 2, "price_per_hour": 1.0}, epochs=20)
    report = headway.train(tree, name="told", runs_folder=tmp_path, watch=look)
    assert report.state == "finished"
    ((found, own),) = seen
    # Ray's counters begin with their first increase.
    gauges = {name for name in own if FAMILIES[name].kind != COUNTER}
    assert {f"ray_{name}" for name in gauges} - set(found) == set()
    assert set(found["ray_headway_run_state"]) == set(own["headway_run_state"])
    assert found["ray_headway_run_info"].keys() == own["headway_run_info"].keys()
    assert 0 < found["ray_headway_samples_total"][""] <= own["headway_samples_total"][""]
    assert 0 < found["ray_headway_worker_seconds_total"]["compute"] <= own["headway_worker_seconds_total"]["compute"]
    assert list((tmp_path / FOLDER).glob("[!.]*")) == []
