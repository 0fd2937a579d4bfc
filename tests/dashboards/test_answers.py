"""A real Prometheus beside real runs: every panel's query is answered, and alerts are what promtool says of them."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import yaml
from dashboards.description import all_of_them
from dashboards.generate import HERE
from tests.prometheus import Prometheus, needed, scraping_of
from tests.unit import loops
from tests.waiting import until

import headway
from headway.core.families import FAMILIES
from headway.dashboards import scraping
from headway.data.write.writer import write_dataset
from headway.sweeps.seen import figures
from headway.sweeps.seen.view import Subject, Trial, View
from headway.testing.elastic import Run, advance
from headway.tracking.prometheus.discovery import FOLDER
from headway.tracking.prometheus.exporter import Exporter, Way

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

PANELS = [
    pytest.param(query.query, panel.needs, id=f"{dashboard.name}-{panel.title}-{number}".replace(" ", "-"))
    for dashboard in all_of_them()
    for panel in dashboard.panels
    for number, query in enumerate(panel.queries)
]
PRICE = {"workers": {"min": 1, "max": 2, "price_per_hour": 0.5}, "budget": {"worker_hours": 1}}
ALONE = """
import time
import headway, torch
from torch import nn


class Small(headway.Task):
    def model(self):
        return nn.Linear(4, 2)

    def loss(self, model, batch):
        time.sleep(0.02)
        return nn.functional.cross_entropy(model(batch["x"]), batch["y"])

    def metrics(self, model, batch):
        return {"accuracy": (model(batch["x"]).argmax(1) == batch["y"]).double().mean()}
"""


@dataclass(frozen=True)
class Seen:
    """What a Prometheus has of two runs and a sweep, and of which seconds."""

    prometheus: Prometheus
    begin: float
    end: float


def rows(folder: Path, holes: int) -> None:
    """256 rows; the first `holes` have no number in them."""
    random = np.random.default_rng(1)
    x = random.normal(size=(256, 4)).astype("float32")
    y = (x.sum(1) > 0).astype("int64")
    x[:holes] = np.nan
    column = pa.FixedSizeListArray.from_arrays(pa.array(x.ravel()), 4)
    write_dataset(folder, [pa.table({"x": column, "y": pa.array(y)})], name="rows", source="made by a test")


def loop(context: Any) -> None:
    """A worker's: until nobody wants more."""
    import torch
    from torch import nn

    torch.manual_seed(1)
    model = nn.Linear(4, 2)
    with headway.session(model, torch.optim.SGD(model.parameters(), lr=0.05)) as session:
        for step in session.steps():
            for batch in step.lanes():
                time.sleep(0.01)
                step.backward(nn.functional.cross_entropy(model(batch["x"]), batch["y"]))
            advance(step.number + 1)


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    folder = tmp_path_factory.mktemp("seen")
    runs = folder / "runs"
    for name, holes in (("train", 9), ("val", 0)):
        rows(folder / name, holes)
    (folder / "prometheus").mkdir()
    with scraping_of(runs, folder / "prometheus") as prometheus:
        begin = time.time()
        runs.mkdir()
        sweep = Exporter("sweep", "lr", lambda: figures.samples(view(begin), 0.5), Way(runs, "lr"))
        sweep.open()
        alone = _train_alone(folder, runs)
        try:
            _train_under_fire(folder, runs, prometheus)
            until(lambda: prometheus.now("headway_node_cpu_ratio"), "a machine's figures are scraped", 120)
            until(
                lambda: prometheus.now("headway_quarantined_rows_total > 0"), "rows that are set aside are scraped", 120
            )
            until(lambda: prometheus.now('headway_validation{run="alone"}'), "an evaluation is scraped", 120)
            until(lambda: max(prometheus.now('count_over_time(headway_step{run="alone"}[1m])').values()) > 10, "", 60)
            yield Seen(prometheus, begin, time.time())
        finally:
            alone.send_signal(signal.SIGTERM)
            alone.communicate(timeout=120)
            sweep.close()


def view(begin: float) -> View:
    trials = {1: Trial(1, {}, "running"), 2: Trial(2, {}, "finished", best=0.25)}
    subject = Subject("lr", "loss", "min", price=2.0)
    held = time.time() - begin
    told: dict[str, Any] = {"workers": 4, "room": 4, "seconds": held, "worker_s": 4 * held, "ledger_s": {}}
    return View(subject, "running", "", trials, trials[2], **told)


def _train_alone(folder: Path, runs: Path) -> subprocess.Popen[bytes]:
    """`headway train --local`, with records, a price, and rows that cannot be used; one of the sweep's trials too."""
    (folder / "task.py").write_text(ALONE)
    data = {
        "train": "train",
        "validation": "val",
        "on_bad_data": "quarantine",
        "no_nulls": ["x"],
        "quarantine_limit": 0.5,
    }
    sizes = {"lanes": 4, "lane_batch": 4, "steps": 100_000, "evaluate_every_steps": 20}
    job = {"name": "small", "task": "task.py:Small", "data": data, **sizes, **PRICE, "checkpoint": {"every_steps": 20}}
    (folder / "job.yaml").write_text(yaml.safe_dump({**job, "optimizer": {"name": "sgd", "lr": 0.01}}))
    command = [sys.executable, "-m", "headway.cli.app", "train", str(folder / "job.yaml"), "--local", "--name", "alone"]
    log = (folder / "alone.log").open("w")
    return subprocess.Popen([*command, "--runs", str(runs)], stdout=log, stderr=subprocess.STDOUT)


def _train_under_fire(folder: Path, runs: Path, prometheus: Prometheus) -> None:
    """An elastic run of which a worker is killed; its name is that of a trial of the sweep."""
    (folder / "elastic").mkdir()
    job = loops.job(loops.rows(folder / "elastic"), steps=100_000, **PRICE)
    with Run(runs / "lr.0001", job, loop, exports=True) as run:
        run.wait_until(lambda: run.step >= 10 and len(run.members) == 2)
        until(lambda: prometheus.now('headway_step{run="lr.0001"} > 9'), "its steps are scraped", 60)
        run.kill(run.members[0])
        query = 'sum(headway_recoveries_total{run="lr.0001", cause="process_died"})'
        until(lambda: prometheus.now(query) == {(): 1.0}, "its loss is scraped", 60)
        until(lambda: prometheus.now('headway_worker_lane_seconds{run="lr.0001"}'), "its workers' pace is scraped", 60)
        until(lambda: prometheus.now('headway_checkpoint_step{run="lr.0001"}'), "its checkpoint is scraped", 60)
        until(lambda: max(prometheus.now('count_over_time(headway_loss{run="lr.0001"}[1m])').values()) > 10, "", 60)
        run.request_stop()
        run.result()


@pytest.mark.parametrize(("query", "needs"), PANELS)
def test_every_panel_has_an_answer(seen: Seen, query: str, needs: str) -> None:
    asked = query.replace("$__rate_interval", "10s").replace("$__range", "2m")
    asked = asked.replace("$run", ".+").replace("$sweep", "lr")
    assert "$" not in asked
    answer = seen.prometheus.over(asked, seen.begin, seen.end)
    if needs and not answer:
        pytest.skip(f"this machine has not {needs}")
    assert answer, asked


def test_every_family_that_is_promised_was_scraped(seen: Seen) -> None:
    names = {name for name in seen.prometheus.ask("label/__name__/values") if name.startswith("headway_")}
    assert set(FAMILIES) - names <= {"headway_node_gpu_ratio"}
    assert names <= set(FAMILIES)


def test_figures_are_those_of_the_run(seen: Seen) -> None:
    steps = seen.prometheus.over('headway_step{run="alone"}', seen.begin, seen.end)
    assert steps[0] == sorted(steps[0])
    assert steps[0][-1] > 20
    (aside,) = seen.prometheus.over('headway_quarantined_rows_total{run="alone"}', seen.begin, seen.end)
    assert aside[-1] >= 9


def test_rules_are_recorded_and_no_alert_is_wrong(seen: Seen) -> None:
    told = seen.prometheus.ask("rules")["groups"]
    assert {group["name"] for group in told} == {"headway-records", "headway-alerts"}
    assert {rule["health"] for group in told for rule in group["rules"]} == {"ok"}
    assert seen.prometheus.over("run:headway_goodput:ratio_rate5m", seen.begin, seen.end)


# Without runs


def test_rules_and_alerts_do_what_promtool_is_told_of_them() -> None:
    needed("promtool")
    done = subprocess.run(
        ["promtool", "test", "rules", str(HERE / "alerts_test.yml")], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    checked = ["promtool", "check", "config", str(HERE / "prometheus" / "prometheus.yml")]
    done = subprocess.run(checked, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT])
def test_up_scrapes_what_is_there_and_leaves_nothing(tmp_path: Path, ending: signal.Signals) -> None:
    needed("prometheus")
    runs, temporary = tmp_path / "runs", tmp_path / "tmp"
    for folder in (runs, temporary, runs / FOLDER):
        folder.mkdir()
    gone = runs / FOLDER / "gone.json"
    gone.write_text(json.dumps([{"targets": ["127.0.0.1:1"], "labels": {"instance": "gone", "job": "headway"}}]))
    exporter = Exporter("run", "there", lambda: [("step", (), 7.0)], Way(runs, "there"))
    exporter.open()
    exporter.wait()
    heard = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # noqa: E731  # a shell's `&` has it ignored
    command = [sys.executable, "-m", "headway.cli.app", "dashboards", "up", "--runs", str(runs), "--port", "0"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, preexec_fn=heard, env={**os.environ, "TMPDIR": str(temporary)}
    )
    try:
        assert process.stdout is not None
        found = re.search(r"http://127\.0\.0\.1:\d+", process.stdout.readline())
        assert found is not None
        prometheus = Prometheus(found[0])
        until(lambda: prometheus.now("headway_step") == {("headway_step", "there", "headway", "there"): 7.0}, "", 60)
        assert not gone.exists(), "an entry whose run is gone is cleared away"
        assert len(list(temporary.glob("headway-prometheus-*"))) == 1
        process.send_signal(ending)
        assert process.wait(30) == 0
        assert list(temporary.iterdir()) == []
        with pytest.raises(OSError, match="refused"):
            prometheus.now("up")
    finally:
        process.kill()
        process.communicate()
        exporter.close()


def test_figures_that_come_through_ray_have_the_names_of_ours(tmp_path: Path) -> None:
    """As Ray's agents serve them: with Ray's name before, and labels of Ray's."""
    import threading
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    class Agent(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(
                b'ray_headway_step{run="far",WorkerId="1",NodeAddress="10.0.0.1"} 9\nray_tasks{State="x"} 1\n'
            )

        def log_message(self, *_: object) -> None: ...

    agent = ThreadingHTTPServer(("127.0.0.1", 0), Agent)
    serving = threading.Thread(target=agent.serve_forever)
    serving.start()
    try:
        entry = [{"labels": {"job": "ray"}, "targets": [f"127.0.0.1:{agent.server_address[1]}"]}]
        (tmp_path / "ray.json").write_text(json.dumps(entry))
        with scraping_of(tmp_path / "runs", tmp_path) as prometheus:
            until(lambda: prometheus.now("max by (run) (headway_step)") == {("far",): 9.0}, "", 60)
            assert prometheus.now("count(ray_headway_step)") == {}
            assert prometheus.now("max(ray_tasks)") == {(): 1.0}
    finally:
        agent.shutdown()
        serving.join()
        agent.server_close()


def test_rays_own_file_is_looked_for_where_ray_keeps_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from ray._private.ray_constants import PROMETHEUS_SERVICE_DISCOVERY_FILE

    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    assert scraping.discovered_by_ray() == tmp_path / "ray" / PROMETHEUS_SERVICE_DISCOVERY_FILE
