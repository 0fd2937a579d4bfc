"""Figures on their way to Prometheus: served here, found through a file, whatever is in the way."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import socket
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.waiting import until

from headway.core.cost import Terms, so_far
from headway.core.figures import Figures, Sample, Subject
from headway.elastic.crew.recorders import Recorders
from headway.elastic.lead.recorder import Recorder
from headway.runs import RunFolder, accounts
from headway.tracking.prometheus import discovery, exporting, through_ray
from headway.tracking.prometheus.exporter import Exporter, RunExporter
from headway.tracking.prometheus.way import Exported, Way

SAMPLES: list[Sample] = [("step", (), 7.0), ("samples_total", (), 12.0), ("validation", ("acc",), 0.5)]


def entry(runs: Path, name: str) -> Any:
    return json.loads((runs / discovery.FOLDER / f"{name}.json").read_text())[0]


def entries(runs: Path) -> list[str]:
    return sorted(path.stem for path in (runs / discovery.FOLDER).glob("[!.]*.json"))


def scraped(runs: Path, name: str) -> dict[tuple[str, str], float]:
    """Values by name and labels, of the process whose entry this is."""
    with urllib.request.urlopen(f"http://{entry(runs, name)['targets'][0]}/metrics", timeout=20) as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    found = {}
    for sample in (sample for family in families for sample in family.samples):
        labels = ",".join(f"{key}={value}" for key, value in sorted(sample.labels.items()))
        found[sample.name, labels] = sample.value
    return found


@pytest.fixture
def exported(tmp_path: Path) -> Iterator[Callable[..., Exporter]]:
    made: list[Exporter] = []

    def begin(name: str = "r", say: Callable[[str], None] = lambda _: None, **way: Any) -> Exporter:
        exporter = Exporter("run", name, lambda: SAMPLES, Way(tmp_path, way.pop("entry", name), **way), say)
        made.append(exporter)
        exporter.open()
        exporter.wait()
        return exporter

    yield begin
    for each in made:
        if each.url is not None:
            each.close()


def test_figures_are_served_and_found_until_the_end(exported: Callable[..., Exporter], tmp_path: Path) -> None:
    exporter = exported()
    told = entry(tmp_path, "r")
    assert told["labels"]["instance"] == "r", "a run that is resumed has the same series, at whatever port"
    assert exporter.url == f"http://{told['targets'][0]}/metrics"
    values = scraped(tmp_path, "r")
    assert values["headway_step", "run=r"] == 7.0
    assert values["headway_samples_total", "run=r"] == 12.0
    assert values["headway_validation", "metric=acc,run=r"] == 0.5
    assert not any(name.endswith("_created") for name, _ in values)
    begun = time.monotonic()
    exporter.close()
    assert time.monotonic() - begun < 5.0
    assert (entries(tmp_path), exporter.url) == ([], None)
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"http://{told['targets'][0]}/metrics", timeout=20)


def test_an_entry_is_what_prometheus_reads(exported: Callable[..., Exporter], tmp_path: Path) -> None:
    """Its file_sd refuses keys that it does not know, and drops labels that begin with __."""
    exported()
    told = entry(tmp_path, "r")
    assert set(told) == {"targets", "labels"}
    assert all(isinstance(value, str) for value in told["labels"].values())
    assert {name for name in told["labels"] if not name.startswith("__meta_")} == {"instance", "job"}


def test_a_port_that_is_taken_is_told_and_another_is_used(exported: Callable[..., Exporter], tmp_path: Path) -> None:
    said: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        exported(port=port, say=said.append)
        assert scraped(tmp_path, "r")["headway_step", "run=r"] == 7.0
    (line,) = said
    assert line.startswith(f"port {port} cannot be had")
    assert entry(tmp_path, "r")["targets"][0] in line


def test_a_port_that_is_free_is_the_one(exported: Callable[..., Exporter], tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
    said: list[str] = []
    exported(port=port, say=said.append)
    assert (entry(tmp_path, "r")["targets"], said) == ([f"127.0.0.1:{port}"], [])


def test_an_address_that_is_not_this_machines_is_told_and_nothing_else_happens(
    exported: Callable[..., Exporter], tmp_path: Path
) -> None:
    said: list[str] = []
    exporter = exported(host="192.0.2.1", say=said.append)
    assert exporter.url is None
    assert entries(tmp_path) == []
    assert "192.0.2.1" in said[0]
    assert said[0].endswith("training goes on")
    exporter.close()


def test_a_host_that_is_no_name_is_told_and_nothing_else_happens(
    exported: Callable[..., Exporter], tmp_path: Path
) -> None:
    said: list[str] = []
    exported(host=64 * "a", say=said.append).close()
    (line,) = said
    assert "training goes on" in line


def test_records_that_are_damaged_are_no_reason_not_to_begin(tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "events.jsonl").write_bytes(b'{"kind": "restart", "lost_steps": 7}\n\xff\xfe\n')
    made = exporting.of_run(
        Exported(Subject(), Way(tmp_path, "r")), RunFolder(tmp_path / "r"), {}, Terms(), 0, None, print
    )
    assert isinstance(made, RunExporter)
    assert ("step", (), 0.0) in made.samples()


def test_where_no_entry_can_be_written_figures_are_served_all_the_same(
    exported: Callable[..., Exporter], tmp_path: Path
) -> None:
    (tmp_path / discovery.FOLDER).write_text("a file is in the way")
    said: list[str] = []
    exporter = exported(say=said.append)
    assert exporter.url is not None
    assert exporter.url in said[0]
    with urllib.request.urlopen(exporter.url, timeout=20) as answer:
        assert b'headway_step{run="r"} 7.0' in answer.read()


def test_a_client_that_says_nothing_holds_nobody_up(exported: Callable[..., Exporter], tmp_path: Path) -> None:
    exporter = exported()
    host, _, port = entry(tmp_path, "r")["targets"][0].rpartition(":")
    with socket.create_connection((host, int(port))):
        assert scraped(tmp_path, "r")["headway_step", "run=r"] == 7.0
        begun = time.monotonic()
        exporter.close()
        assert time.monotonic() - begun < 5.0


def test_runs_of_one_sweep_are_one_target(exported: Callable[..., Exporter], tmp_path: Path) -> None:
    first, second = exported("s.0001", entry="s"), exported("s.0002", entry="s")
    target = entry(tmp_path, "s")["targets"]
    assert entries(tmp_path) == ["s"]
    assert {labels for name, labels in scraped(tmp_path, "s") if name == "headway_step"} == {"run=s.0001", "run=s.0002"}
    first.close()
    assert entry(tmp_path, "s")["targets"] == target
    assert {labels for name, labels in scraped(tmp_path, "s") if name == "headway_step"} == {"run=s.0002"}
    second.close()
    assert entries(tmp_path) == []


def _serve(runs: str, ready: Any) -> None:
    exporter = Exporter("run", "gone", lambda: SAMPLES, Way(Path(runs), "gone"))
    exporter.open()
    exporter.wait()
    ready.set()
    threading.Event().wait(60)


def test_the_entry_of_a_process_that_was_killed_is_cleared_by_the_next(
    exported: Callable[..., Exporter], tmp_path: Path
) -> None:
    processes = multiprocessing.get_context("spawn")
    ready = processes.Event()
    process = processes.Process(target=_serve, args=(str(tmp_path), ready), daemon=True)
    process.start()
    try:
        assert ready.wait(120)
        assert discovery.clear(tmp_path) == [], "it is there"
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert entries(tmp_path) == ["gone"]
        exported()
        assert entries(tmp_path) == ["r"]
    finally:
        process.kill()
        process.join()
        process.close()


def test_entries_of_other_machines_are_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / discovery.FOLDER
    folder.mkdir()
    labels = {"instance": "far", discovery.HOST: "another-machine"}
    (folder / "far.json").write_text(json.dumps([{"targets": ["10.0.0.1:9"], "labels": labels}]))
    (folder / "damaged.json").write_text("{")
    assert discovery.clear(tmp_path) == ["damaged"]
    assert entries(tmp_path) == ["far"]
    assert discovery.clear(tmp_path / "nowhere") == []


def test_one_that_was_taken_over_by_another_process_is_not_withdrawn(tmp_path: Path) -> None:
    old = discovery.announce(tmp_path, "r", "127.0.0.1:1")
    new = discovery.announce(tmp_path, "r", "127.0.0.1:2")
    old.withdraw()
    assert entry(tmp_path, "r")["targets"] == ["127.0.0.1:2"]
    new.withdraw()
    assert entries(tmp_path) == []


# The recorder's


def step(number: int) -> dict[str, Any]:
    place = (1, number, "step", 0)
    told = {"epoch": 0, "loss": 0.5, "lr": 0.1, "rows": 16, "samples": "", "time": time.time()}
    return {"kind": "step", "step": number, "place": place, **told}


def recorder(folder: Path, **more: Any) -> Recorder:
    folder.mkdir(exist_ok=True)
    run = RunFolder(folder)
    if not (folder / "run.json").exists():
        run.write({"run": folder.name, "created": time.time()})
    exported = Exported(Subject("task.py:T", "d", (1, 2)), Way(folder.parent, folder.name))
    return Recorder(str(folder), None, {}, 10, terms=Terms(price=36.0), exported=exported, **more)


def test_a_recorder_serves_what_it_is_told_and_a_record_that_comes_twice_counts_once(tmp_path: Path) -> None:
    made = recorder(tmp_path / "r")
    try:
        made.event({"kind": "ledger", "seconds": {"compute": 50.0}, "goodput": 1.0, "workers": 1})
        made.push("w0", [step(0), step(1)])
        made.push("w0", [step(1), step(2)])
        until(lambda: entries(tmp_path) == ["r"], "it is served")
        values = scraped(tmp_path, "r")
        assert (values["headway_step", "run=r"], values["headway_samples_total", "run=r"]) == (3.0, 48.0)
        assert values["headway_dollars_total", "run=r"] == pytest.approx(0.5)
        assert ("headway_spool_bytes", "run=r") not in values, "nothing is tracked"
    finally:
        made.finish("finished", "", 1.0)
        made.release()
    assert entries(tmp_path) == []
    assert RunFolder(tmp_path / "r").read()["dollars"] == 0.5


def test_what_makes_no_figure_is_told_once_and_stops_nobody(tmp_path: Path) -> None:
    said: list[str] = []
    one = RunExporter("r", Figures(Subject()), Way(tmp_path, "r"), None, said.append)
    for _ in range(3):
        one.event({"kind": "ledger"})
    one.record({"kind": "began", "step": 3, "total_steps": 9})
    assert said == ["figures for Prometheus lack something: KeyError: 'workers'"]
    assert ("steps_planned", (), 9) in one.samples()


def test_what_a_run_costs_adds_up_over_its_starts_though_one_was_killed(tmp_path: Path) -> None:
    ledger = {"kind": "ledger", "seconds": {"compute": 100.0}, "goodput": 1.0, "workers": 1}
    for _ in range(2):
        made = recorder(tmp_path / "r")
        made.event(ledger)
        made.finish("stopped", "", 1.0)
        made.release()
    facts = RunFolder(tmp_path / "r").read()
    assert (facts["dollars"], facts["ledger_s"]["compute"]) == (2.0, 200.0)
    killed = recorder(tmp_path / "r")
    until(lambda: "dollars" not in RunFolder(tmp_path / "r").read(), "it has begun")
    killed.event(ledger)
    killed._export.close()
    killed._standing.close()
    killed._scribe.close(1.0)  # without its last words
    killed.release()
    left = RunFolder(tmp_path / "r").read()
    assert so_far(left, sum(accounts.known(tmp_path / "r", left).values())) == 3.0, "who looks at it knows that, too"
    made = recorder(tmp_path / "r")
    try:
        assert isinstance(made._export, RunExporter)
        assert ("dollars_total", (), 3.0) in made._export.samples()
    finally:
        made.event(ledger)
        made.finish("stopped", "", 1.0)
        made.release()
    assert RunFolder(tmp_path / "r").read()["dollars"] == 4.0


def test_the_recorders_of_a_sweep_serve_its_own_figures_beside_those_of_its_runs(tmp_path: Path) -> None:
    made = Recorders()
    made.figures([("sweep_workers", (), 4.0)])
    made.export("s", Way(tmp_path, "s"))
    try:
        until(lambda: entries(tmp_path) == ["s"], "it is served")
        made.figures([("sweep_trials", ("running",), 2.0), ("sweep_best", (), 0.25)])
        values = scraped(tmp_path, "s")
        assert values["headway_sweep_trials", "state=running,sweep=s"] == 2.0
        assert values["headway_sweep_best", "sweep=s"] == 0.25
        assert ("headway_sweep_workers", "sweep=s") not in values
    finally:
        made.end()
    assert entries(tmp_path) == []


def test_what_waits_for_the_tracking_store_is_a_figure(tmp_path: Path) -> None:
    waiting = [5]
    exporter = RunExporter("r", Figures(Subject()), Way(tmp_path, "r"), lambda: waiting[0], lambda _: None)
    assert ("spool_bytes", (), 5.0) in exporter.samples()
    waiting[0] = 0
    assert ("spool_bytes", (), 0.0) in exporter.samples()


# Through Ray's exporter


class Metric:
    """Of `ray.util.metrics`: keeps what it is told."""

    def __init__(self, name: str, description: str, tag_keys: tuple[str, ...]) -> None:
        self.name, self.tag_keys, self.told = name, tag_keys, []  # type: ignore[var-annotated]

    def set(self, value: float, tags: dict[str, str]) -> None:
        self._take("set", value, tags)

    def inc(self, value: float, tags: dict[str, str]) -> None:
        assert value > 0, "Ray refuses others"
        self._take("inc", value, tags)

    def _take(self, verb: str, value: float, tags: dict[str, str]) -> None:
        assert set(tags) == set(self.tag_keys)
        self.told.append((verb, value, tags))


def test_rays_gauges_are_said_again_and_its_counters_are_told_what_is_added(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.util import metrics

    made: dict[str, Metric] = {}

    def make(name: str, description: str, tag_keys: tuple[str, ...]) -> Metric:
        assert name not in made, "each is made once"
        made[name] = Metric(name, description, tag_keys)
        return made[name]

    monkeypatch.setattr(metrics, "Gauge", make)
    monkeypatch.setattr(metrics, "Counter", make)
    now: list[Sample] = [("samples_total", (), 100.0), ("step", (), 1.0)]
    through = through_ray.ThroughRay("run", "r", lambda: list(now), every_s=0.01)
    through.start()
    until(lambda: "headway_step" in made, "it is said")
    assert "headway_samples" not in made, "what was counted before it began is not added"
    now[:] = [("samples_total", (), 130.0), ("step", (), 2.0), ("validation", ("acc",), 0.5)]
    through.close()
    assert made["headway_samples"].told == [("inc", 30.0, {"run": "r"})]
    assert made["headway_step"].told[-1] == ("set", 2.0, {"run": "r"})
    assert len(made["headway_step"].told) >= 2
    assert made["headway_validation"].told[-1] == ("set", 0.5, {"run": "r", "metric": "acc"})
