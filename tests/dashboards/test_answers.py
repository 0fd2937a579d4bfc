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
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from dashboards.description import all_of_them
from dashboards.generate import HERE
from tests.browser import opened, outward
from tests.dashboards.scene import SLOWLY_S, Seen, runs_seen
from tests.prometheus import Prometheus, needed, scraping_of
from tests.waiting import until

from dashboards import drawing
from headway.core.families import FAMILIES
from headway.dashboards import scraping
from headway.tracking.prometheus.discovery import FOLDER
from headway.tracking.prometheus.exporter import Exporter, Way

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

if TYPE_CHECKING:
    from playwright.sync_api import Browser

PANELS = [
    pytest.param(query.query, panel.needs, id=f"{dashboard.name}-{panel.title}-{number}".replace(" ", "-"))
    for dashboard in all_of_them()
    for panel in dashboard.panels
    for number, query in enumerate(panel.queries)
]


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    with runs_seen(tmp_path_factory.mktemp("seen")) as found:
        yield found


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
    steps = seen.prometheus.over('headway_step{run="lr.0001"}', seen.begin, seen.end)
    assert steps[0] == sorted(steps[0])
    assert steps[0][-1] > 20
    (aside,) = seen.prometheus.over('headway_quarantined_rows_total{run="lr.0001"}', seen.begin, seen.end)
    assert aside[-1] >= 9


def test_rules_are_recorded_and_no_alert_is_wrong(seen: Seen) -> None:
    """They are evaluated four times a minute: what is asked comes before long, while a run goes on."""

    def health() -> set[str]:
        return {rule["health"] for group in seen.prometheus.ask("rules")["groups"] for rule in group["rules"]}

    def recorded() -> bool:
        return bool(seen.prometheus.over("run:headway_goodput:ratio_rate5m", seen.begin, time.time()))

    assert {group["name"] for group in seen.prometheus.ask("rules")["groups"]} == {"headway-records", "headway-alerts"}
    until(lambda: "unknown" not in health(), "each was evaluated", SLOWLY_S)
    assert health() == {"ok"}
    until(recorded, "one was recorded", SLOWLY_S)


# In Perses

TALL = (1440, 4500)
"""A window with room for all: Perses makes the panels of a section as it comes near the part in sight."""
KINDS = {dashboard.name: dashboard for dashboard in all_of_them()}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    reason = drawing.missing()
    if reason:
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("site")
    drawing.build(folder)
    with drawing.served(folder) as url:
        yield url


@pytest.mark.parametrize(("name", "theme"), [(name, "dark" if name == "data" else "light") for name in KINDS])
def test_perses_draws_every_panel(seen: Seen, site: str, chromium: Browser, name: str, theme: str) -> None:
    page = drawing.address(site, name, seen.prometheus.url, (seen.begin, seen.end), theme, "1s")
    with opened(chromium, page, TALL, dark=theme == "dark", within_s=SLOWLY_S) as sight:
        drawing.settled(sight.page, within_s=SLOWLY_S)
        shown = sight.page.locator(drawing.PANEL)
        assert shown.count() == len(KINDS[name].panels)
        for number, panel in enumerate(KINDS[name].panels):
            shown.nth(number).scroll_into_view_if_needed(timeout=SLOWLY_S * 1000)
            drawing.settled(sight.page, number, SLOWLY_S)
            said = shown.nth(number).inner_text()
            assert panel.title in said
            assert "No data" not in said or panel.needs, panel.title
            assert "rror" not in said, said
        assert sight.errors == []
        assert outward(sight) != []
        assert all(url.startswith((site, seen.prometheus.url)) for url in outward(sight))


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
        until(
            lambda: prometheus.now("headway_step") == {("headway_step", "there", "headway", "there"): 7.0}, "", SLOWLY_S
        )
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
            until(lambda: prometheus.now("max by (run) (headway_step)") == {("far",): 9.0}, "", SLOWLY_S)
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
