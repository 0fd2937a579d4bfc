"""Figures of real runs, scraped while they train: an elastic one that a worker joins, and one in this process."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import torch
from prometheus_client.parser import text_string_to_metric_families
from tests.unit import loops
from tests.unit.in_process import STEPS, Ground
from torch import nn

from headway.driver.progress import Progress
from headway.elastic.worker.context import Context
from headway.elastic.worker.session import Session
from headway.errors import HeadwayError
from headway.runs import RunFolder
from headway.testing.elastic import Run, advance
from headway.tracking.prometheus.discovery import FOLDER
from headway.tracking.prometheus.exporter import RunExporter

HOLD = 3
WEIGHTS = 4 * 256


def scraped(runs: Path) -> dict[str, float]:
    """Values by name and labels; none while nothing is served."""
    found: dict[str, float] = {}
    for path in (runs / FOLDER).glob("[!.]*.json"):
        (target,) = json.loads(path.read_text())[0]["targets"]
        with urllib.request.urlopen(f"http://{target}/metrics", timeout=20) as answer:
            for family in text_string_to_metric_families(answer.read().decode()):
                for sample in family.samples:
                    labels = ",".join(v for k, v in sorted(sample.labels.items()) if k != "run")
                    found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


def paces(values: dict[str, float]) -> list[float]:
    """Of workers, whatever their names: one that has no time on a busy machine may be replaced."""
    return [value for name, value in values.items() if name.startswith("headway_worker_lane_seconds{")]


def train(context: Context) -> None:
    model = nn.Linear(4, 256, bias=False)
    session = Session(context, model, torch.optim.SGD(model.parameters(), lr=0.01), None)
    with session:
        for step in session.steps():
            for batch in step.lanes():
                step.backward(model(batch["x"]).square().mean())
            advance(session.step)


def test_an_elastic_run_tells_of_its_workers_and_of_what_they_exchange(tmp_path: Path) -> None:
    data = loops.rows(tmp_path / "data")
    job = loops.job(data, workers={"min": 2, "max": 3, "price_per_hour": 1.0}, budget={"worker_hours": 1.0})
    with Run(tmp_path / "run", job, train, places=2, hold=HOLD, exports=True) as run:
        run.wait_until(lambda: run.step >= HOLD)
        run.wait_until(lambda: len(paces(scraped(tmp_path))) == 2)
        values = scraped(tmp_path)
        assert values["headway_run_state{running}"] == 1
        assert (values["headway_workers"], values["headway_workers_max"]) == (2, 3)
        assert values["headway_step"] >= HOLD - 1
        assert min(paces(values)) > 0
        assert values["headway_dollars_total"] > 0
        assert 0 < values["headway_budget_used_ratio"] < 1
        assert "headway_spool_bytes" not in values
        run.join()
        outcome = run.result()
        assert outcome.failure is None
        exporter = run._recorder._export
        assert isinstance(exporter, RunExporter)
        last = {(name, *labels): value for name, labels, value in exporter.samples()}
    assert last["step",] == loops.STEPS
    assert last["samples_total",] == sum(step["rows"] for step in outcome.steps)
    assert last["recoveries_total", "joined"] >= 1
    assert last["recovery_seconds_total", "joined"] > 0
    assert last["run_state", "finished"] == 1
    # A sum over two sends each weight there and back at least once; what else goes over the wire is small. Of the steps
    # after the join some may be missing, for they took no longer than from one look to the next.
    assert HOLD * WEIGHTS * 4 / 2 < last["exchanged_bytes_total",] < 100 * loops.STEPS * WEIGHTS * 4
    assert list((tmp_path / FOLDER).glob("[!.]*")) == []


def test_a_run_in_this_process_is_seen_while_it_trains_and_is_no_more_afterwards(tmp_path: Path) -> None:
    ground = Ground(tmp_path, loops.rows(tmp_path / "data"))
    seen: list[tuple[int, dict[str, float]]] = []

    def watch(progress: Progress) -> None:
        values = scraped(ground.runs)
        if values.get("headway_worker_lane_seconds{w0}"):  # once a second
            seen.append((progress.step, values))
            looked.touch()

    looked = tmp_path / "looked"  # it takes its time until then, on a busy machine too
    waits = f"time.sleep(0.03 if os.path.exists({str(looked)!r}) else 0.15)"
    report = ground.train(ground.job(waits, top="import time", workers={"price_per_hour": 2.0}), name="r", watch=watch)
    assert report.state == "finished"
    assert seen, "it is served since its first step"
    step, values = seen[0]
    assert values["headway_step"] >= step - 1
    assert values["headway_steps_planned"] == STEPS
    assert values["headway_run_state{running}"] == 1
    assert values["headway_worker_lane_seconds{w0}"] >= 0.03
    assert (values["headway_workers"], values["headway_generation"]) == (1, 1)
    assert list((ground.runs / FOLDER).glob("[!.]*")) == []
    facts: dict[str, Any] = RunFolder(ground.runs / "r").read()
    assert abs(facts["dollars"] - sum(facts["ledger_s"].values()) / 3600 * 2.0) < 1e-4


def test_who_wants_no_figures_gets_none(tmp_path: Path) -> None:
    ground = Ground(tmp_path, loops.rows(tmp_path / "data"))
    ground.train(ground.job(prometheus=False), name="r")
    assert not (ground.runs / FOLDER).exists()


def test_a_run_that_did_not_begin_leaves_nothing_behind(tmp_path: Path) -> None:
    ground = Ground(tmp_path, loops.rows(tmp_path / "data"))
    with pytest.raises(HeadwayError):
        ground.train(ground.job("raise ValueError"), name="r")
    assert not (ground.runs / FOLDER).exists()
