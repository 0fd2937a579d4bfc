"""What MLflow shows of a run that was rewound, resized, killed and resumed: one curve of each metric, few keys, no
extreme missing, and each step once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from headway.elastic.lead.recorder import Recorder
from headway.runs import RunFolder
from headway.tracking.store import default_uri
from headway.tracking.told import at_start

pytestmark = pytest.mark.filterwarnings("ignore:.*noload", "ignore::DeprecationWarning", "ignore::FutureWarning")

TOTAL, SPIKE, DIP = 9000, 7_345, 8_123
PEAK = 5_994  # held back when the leader was killed
EVERY = 1500  # steps between two evaluations, and checkpoints
TRACKING = {"uri": None, "experiment": "curves"}
BEGAN = 1_790_000_000.0


def loss(step: int) -> float:
    return 9.0 if step in (SPIKE, PEAK) else -9.0 if step == DIP else 1.0 + 1.0 / (step + 1)


def accuracy(step: int) -> float:
    return 0.9 if step == 6000 else step / 20_000


class Start:
    """A start of the run, as its workers tell of it."""

    def __init__(self, folder: Path) -> None:
        first = {"kind": "run", "job": {"name": "n", "tracking": TRACKING}, "datasets": [], "environment": {}}
        first["tags"] = at_start("ann@box", "/runs/r", "box", "ab" * 32, {"train": "cd" * 32})
        tracking = {"experiment": "curves", "run_name": "r"}
        self.recorder = Recorder(str(folder), tracking, first, 10, best=("accuracy", "max"), sends=False)

    def tell(self, kind: str, step: int, **fields: Any) -> None:
        record = {"kind": kind, "step": step, "time": BEGAN + step, **fields}
        assert self.recorder.push("w0", [record])["accepted"]

    def train(self, begin: int, end: int) -> None:
        self.tell("began", begin, total_steps=TOTAL, steps_per_epoch=100)
        for step in range(begin, end):
            self.tell("step", step, loss=loss(step), lr=0.1, epoch=0, rows=8, samples="x")
            done = step + 1
            if done % EVERY == 0:
                values = {"accuracy": accuracy(done), "loss": 1.0 / done}
                self.tell("metrics", done, values=values)
                self.tell("checkpoint", done, path=f"/c/checkpoints/{done}", bytes=1, metrics=values, digest="d")

    def resize(self, workers: int, step: int) -> None:
        members = [f"w{number}" for number in range(workers)]
        self.recorder.event(
            {"kind": "generation", "members": members, "workers": workers, "step": step, "time": BEGAN + step}
        )

    def kill(self) -> None:
        """It goes without a word: what the recorder holds in memory goes with it."""
        assert self.recorder._scribe.close(60.0)
        self.recorder._standing.close()
        self.recorder.release()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("runs")
    run = RunFolder(runs / "r")
    run.path.mkdir()
    run.write({"run": "r", "state": "running", "created": BEGAN})
    first = Start(run.path)
    first.resize(2, 0)
    first.train(0, 3210)
    first.train(3000, 5077)  # both were lost, and the run began again from a checkpoint
    first.resize(3, 5077)
    first.train(5000, 6100)
    first.kill()
    second = Start(run.path)
    second.resize(1, 6000)
    second.train(6000, TOTAL)
    ledger = {"kind": "ledger", "seconds": {"compute": 30.0, "idle": 10.0}, "goodput": 0.75, "workers": 1}
    second.recorder.event(ledger)
    told = second.recorder.finish("finished", "", 300.0)
    second.recorder.release()
    assert (told["error"], told["waiting"]) == ("", 0)
    return runs


@pytest.fixture(scope="module")
def client(runs: Path) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(default_uri(runs))


@pytest.fixture(scope="module")
def run(client: Any) -> Any:
    (found,) = client.search_runs([client.get_experiment_by_name("curves").experiment_id])
    return found


def test_each_metric_is_one_curve(client: Any, run: Any) -> None:
    for key in run.data.metrics:
        history = client.get_metric_history(run.info.run_id, key)
        steps = sorted(point.step for point in history)
        assert len(steps) == len(set(steps)), f"{key}: each step once"
        in_time = sorted(history, key=lambda point: point.timestamp)
        assert [point.step for point in in_time] == steps, f"{key}: never back"


def test_no_extreme_is_missing_and_the_points_are_few(client: Any, run: Any) -> None:
    drawn = {point.step: point.value for point in client.get_metric_history(run.info.run_id, "loss")}
    assert {SPIKE: 9.0, PEAK: 9.0, DIP: -9.0, 0: 2.0}.items() <= drawn.items()
    assert drawn[TOTAL - 1] == loss(TOTAL - 1)
    assert all(value == loss(step) for step, value in drawn.items())
    assert 900 < len(drawn) < 2200
    evaluated = client.get_metric_history(run.info.run_id, "validation/accuracy")
    assert {point.step: point.value for point in evaluated} == {
        step: accuracy(step) for step in range(EVERY, TOTAL + 1, EVERY)
    }


def test_the_keys_are_few(run: Any) -> None:
    machines = 4  # of `system/`, which this run has none of
    assert len(run.data.metrics) + machines <= 12
    assert set(run.data.metrics) == {
        *("loss", "lr", "samples_per_s", "workers", "goodput"),
        *("validation/accuracy", "validation/loss", "best_validation/accuracy"),
    }


def test_the_best_is_told(client: Any, run: Any, runs: Path) -> None:
    assert run.data.metrics["best_validation/accuracy"] == 0.9
    assert run.data.tags["best_validation/accuracy"] == "0.9 at step 6000"
    curve = [point.value for point in client.get_metric_history(run.info.run_id, "best_validation/accuracy")]
    assert curve == sorted(set(curve))
    best = json.loads((runs / "r" / "run.json").read_text())["best"]
    assert (best["metric"], best["mode"], best["history"][-1]) == ("accuracy", "max", [6000, 0.9])


def test_it_ended_and_its_tags_say_whose_it_is_and_where_the_time_went(run: Any) -> None:
    assert run.info.status == "FINISHED"
    tags = run.data.tags
    assert (tags["mlflow.user"], tags["headway.by"], tags["headway.place"]) == ("ann", "ann@box", "/runs/r")
    assert (tags["headway.digest"], tags["headway.data.train"]) == ("ab" * 32, "cd" * 32)
    assert json.loads(tags["headway.worker_seconds"])["compute"] == 30.0
    assert tags["headway.goodput"] == "0.75"


def test_a_checkpoints_metrics_are_the_points_of_the_curve(client: Any, run: Any) -> None:
    models = client.search_logged_models([run.info.experiment_id], max_results=100)
    assert len(models) == TOTAL // EVERY
    for model in models:
        step = int(model.params["step"])
        told = {(metric.key, metric.value, metric.step) for metric in model.metrics}
        assert told == {("validation/accuracy", accuracy(step), step), ("validation/loss", 1.0 / step, step)}
