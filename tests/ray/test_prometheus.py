"""On a cluster that is there already, a run's figures are to be had of its own process and of Ray's exporter."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.ray.conftest import Project, wait_until
from tests.ray.head import Head, head

from headway.core.families import COUNTER, FAMILIES
from headway.runs import RunFolder
from headway.tracking.prometheus.discovery import FOLDER

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Head]:
    with head() as found:
        yield found


def scraped(entry: Path) -> dict[str, dict[str, float]]:
    """Of all targets of an entry: values by name, and by the labels that are ours."""
    found: dict[str, dict[str, float]] = {}
    for target in json.loads(entry.read_text())[0]["targets"]:
        with suppress(OSError), urllib.request.urlopen(f"http://{target}/metrics", timeout=20) as answer:
            for family in text_string_to_metric_families(answer.read().decode()):
                for sample in family.samples:
                    own = FAMILIES.get(sample.name.removeprefix("ray_"))
                    if own is not None:
                        labels = ",".join(sample.labels[name] for name in ("run", *own.labels))
                        found.setdefault(sample.name, {})[labels] = sample.value
    return found


def test_the_same_figures_come_out_of_the_run_and_of_ray(cluster: Head, project: Project, tmp_path: Path) -> None:
    brake = tmp_path / "brake"
    brake.write_text("")
    given = {"arguments.pause": 0.2, "arguments.brake": brake, "epochs": 10, "workers.min": 2}
    given["workers.price_per_hour"] = 1
    settings = [word for name, value in given.items() for word in ("--set", f"{name}={value}")]
    command = [sys.executable, "-m", "headway.cli.app", "train", str(project.job), "--name", "r", *settings]
    command += ["--address", cluster.address, "--runs", str(tmp_path / "runs")]
    environment = cluster.environment(**cluster.known, PYTHONPATH=os.environ.get("PYTHONPATH", ""))
    log = tmp_path / "said"
    with log.open("w") as said:
        process = subprocess.Popen(command, env=environment, stdout=said, stderr=said, start_new_session=True)
    try:
        ours, rays = tmp_path / "runs" / FOLDER / "r.json", cluster.folder / "r/prom_metrics_service_discovery.json"

        def through_ray() -> dict[str, dict[str, float]]:
            assert process.poll() is None, log.read_text()
            return scraped(rays) if rays.exists() else {}

        def late() -> set[str]:
            """What Ray has not yet of the run's own: it comes ten seconds after it. (Ray's counters begin with their
            first increase.)"""
            own = scraped(ours) if ours.exists() else {}
            gauges = {f"ray_{name}" for name in own if FAMILIES[name].kind != COUNTER}
            return ({*gauges, "ray_headway_samples_total"} if own else {""}) - set(through_ray())

        wait_until(lambda: not late(), "Ray's exporter has them", 300)
        found, own = through_ray(), scraped(ours)
        assert found["ray_headway_workers"] == {"r": 2.0}
        assert set(found["ray_headway_run_state"]) == set(own["headway_run_state"])
        assert found["ray_headway_worker_lane_seconds"].keys() == {"r,w0", "r,w1"}
        assert 0 < found["ray_headway_samples_total"]["r"] <= scraped(ours)["headway_samples_total"]["r"]
        assert own["headway_exchanged_bytes_total"]["r"] > 0
        brake.unlink()
        assert process.wait(300) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()
    assert list((tmp_path / "runs" / FOLDER).glob("[!.]*")) == []
    assert RunFolder(tmp_path / "runs" / "r").read()["dollars"] > 0
