"""Real runs beside a real Prometheus: one that is led here, a worker killed; one of the command line; and a sweep."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import yaml
from tests.prometheus import Prometheus, scraping_of
from tests.unit import loops
from tests.waiting import until

import headway
from headway.data.write.writer import write_dataset
from headway.sweeps.seen import figures
from headway.sweeps.seen.view import Subject, Trial, View
from headway.testing.elastic import Run, advance
from headway.tracking.prometheus.exporter import Exporter, Way

SLOWLY_S = 240.0
"""Whatever else the machine does."""
SWEEP, ALONE, UNDER_FIRE = "lr", "lr.0001", "under-fire"
PRICE = {"workers": {"min": 1, "max": 2, "price_per_hour": 0.5}, "budget": {"worker_hours": 1}}
TASK = """
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


@contextmanager
def runs_seen(folder: Path) -> Iterator[Seen]:
    """A Prometheus that has scraped all that there is, while the run of the command line goes on."""
    runs = folder / "runs"
    for name, holes in (("train", 9), ("val", 0)):
        rows(folder / name, holes)
    (folder / "prometheus").mkdir()
    with scraping_of(runs, folder / "prometheus") as prometheus:
        begin = time.time()
        runs.mkdir()
        sweep = Exporter("sweep", SWEEP, lambda: figures.samples(_view(begin), 0.5), Way(runs, SWEEP))
        sweep.open()
        alone = _train_alone(folder, runs)
        try:
            _train_under_fire(folder, runs, prometheus)
            for query in ("headway_node_cpu_ratio", "headway_quarantined_rows_total > 0", "headway_validation"):
                _scraped(prometheus, query)
            _scraped(prometheus, f'count_over_time(headway_step{{run="{ALONE}"}}[1m]) > 10')
            yield Seen(prometheus, begin, time.time())
        finally:
            alone.send_signal(signal.SIGTERM)
            alone.communicate(timeout=120)
            sweep.close()


def _view(begin: float) -> View:
    trials = {1: Trial(1, {}, "running"), 2: Trial(2, {}, "finished", best=0.25)}
    subject = Subject(SWEEP, "loss", "min", price=2.0)
    held = time.time() - begin
    told: dict[str, Any] = {"workers": 4, "room": 4, "seconds": held, "worker_s": 4 * held, "ledger_s": {}}
    return View(subject, "running", "", trials, trials[2], **told)


def _train_alone(folder: Path, runs: Path) -> subprocess.Popen[bytes]:
    """`headway train --local`: records, a price, rows that cannot be used; named as a trial of the sweep is."""
    (folder / "task.py").write_text(TASK)
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
    command = [sys.executable, "-m", "headway.cli.app", "train", str(folder / "job.yaml"), "--local", "--name", ALONE]
    with (folder / "alone.log").open("w") as log:
        return subprocess.Popen([*command, "--runs", str(runs)], stdout=log, stderr=subprocess.STDOUT)


def _train_under_fire(folder: Path, runs: Path, prometheus: Prometheus) -> None:
    """An elastic run of which a worker is killed."""
    (folder / "elastic").mkdir()
    job = loops.job(loops.rows(folder / "elastic"), steps=100_000, **PRICE)
    with Run(runs / UNDER_FIRE, job, loop, exports=True) as run:
        run.wait_until(lambda: run.step >= 10 and len(run.members) == 2, SLOWLY_S)
        _scraped(prometheus, f'headway_step{{run="{UNDER_FIRE}"}} > 9')
        run.kill(run.members[0])
        _scraped(prometheus, f'headway_recoveries_total{{run="{UNDER_FIRE}", cause="process_died"}} == 1')
        for name in ("headway_worker_lane_seconds", "headway_checkpoint_step"):
            _scraped(prometheus, f'{name}{{run="{UNDER_FIRE}"}}')
        _scraped(prometheus, f'count_over_time(headway_loss{{run="{UNDER_FIRE}"}}[1m]) > 10')
        run.request_stop()
        run.result()


def _scraped(prometheus: Prometheus, query: str) -> None:
    until(lambda: prometheus.now(query), query, SLOWLY_S)
