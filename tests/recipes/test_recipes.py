"""Every recipe, run in small on tables of the same schema as its real data."""

from __future__ import annotations

import math
import runpy
import subprocess
import sys
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import headway
from headway import job as jobs
from headway.data import tensors
from headway.data.prepare.sources import text
from headway.data.sets.known import FLIGHT_CODES, FLIGHT_NUMBERS
from headway.data.write.sizing import Sizes
from headway.data.write.writer import write_dataset
from headway.driver.in_process import ADDRESS

TRAINERS = Path(__file__).resolve().parents[2] / "trainers"
CONTEXT = 32


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of small datasets: images, source and flights, each with train and test."""
    folder = tmp_path_factory.mktemp("data")
    for part, rows in (("train", 512), ("test", 96)):
        for name, table in (("images", images(rows)), ("source", source()), ("flights", flights(rows))):
            write_dataset(folder / name / part, [table], name=name, source="test", sizes=Sizes(row_group_rows=32))
    return folder


def images(rows: int) -> pa.Table:
    """A bright row of the picture says the label."""
    random = np.random.default_rng(rows)
    labels = np.arange(rows) % 10
    pixels = random.integers(0, 60, (rows, 28, 28), dtype=np.uint8)
    for row, label in enumerate(labels):
        pixels[row, 2 * label + 4 : 2 * label + 6] = 200
    return pa.table({"image": tensors.column(pixels), "label": pa.array(labels)})


def source() -> pa.Table:
    """256 blocks of this very file."""
    blocks = text.blocks([Path(__file__)], CONTEXT)
    return pa.table({"tokens": tensors.column(np.resize(blocks, (256, CONTEXT + 1)))})


def flights(rows: int) -> pa.Table:
    """All columns of the real table; late in the evening, and exactly there, flights are late."""
    random = np.random.default_rng(rows)
    hour = random.integers(5, 23, rows)
    known = {"month": random.integers(1, 13, rows), "day": random.integers(1, 29, rows), "hour": hour}
    known |= {"sched_dep_time": hour * 100, "sched_arr_time": hour * 100 + 130, "distance": hour * 0 + 800}
    numbers = {name: pa.array(known.get(name, hour * 0), pa.float32()) for name in FLIGHT_NUMBERS}
    codes = {name: pa.array(random.integers(0, 3, rows)) for name in FLIGHT_CODES}
    return pa.table({**numbers, **codes, "label": pa.array((hour > 16).astype(np.int64))})


def small(recipe: str, folder: Path, runs: Path, *settings: str, workers: int = 1) -> headway.Report:
    """Run a recipe's own job file with other data and fewer steps; one worker is this process."""
    job = jobs.load(
        TRAINERS / recipe / "job.yaml",
        [
            f"data.train={folder / 'train'}",
            f"data.validation={folder / 'test'}",
            f"workers={{min: {workers}, max: {workers}}}",
            "tracking.enabled=false",
            *settings,
        ],
    )
    return headway.train(job, runs_folder=runs, address=None if workers > 1 else ADDRESS)


def assert_sane(report: headway.Report, steps: int, rows: int, metrics: set[str], workers: int = 1) -> None:
    """The report of a run that went well: every field says so."""
    assert (report.state, report.message) == ("finished", "")
    assert report.steps == report.total_steps == len(report.losses) == steps
    assert report.samples_seen == rows
    assert all(math.isfinite(loss) for loss in report.losses)
    assert set(report.metrics) == metrics
    assert report.evaluations[-1]["step"] == steps
    assert report.checkpoints[-1]["step"] == steps
    assert [entry["workers"] for entry in report.workers] == [workers]
    for digest in (report.samples_sha256, report.weights_sha256):
        assert digest is not None
        assert len(digest) == 64


def fall(losses: list[float], window: int = 4) -> float:
    """The last losses' mean as a share of the first ones'."""
    return float(np.mean(losses[-window:]) / np.mean(losses[:window]))


@pytest.mark.ray
def test_image_classification(connected: None, data: Path, tmp_path: Path) -> None:
    settings = ("steps=30", "lane_batch=8", "schedule.warmup_steps=5", "evaluate_every_steps=15")
    report = small("image_classification", data / "images", tmp_path, *settings, workers=2)
    assert_sane(report, 30, 30 * 64, {"accuracy", "loss"}, workers=2)
    assert [e["step"] for e in report.evaluations] == [15, 30]
    assert fall(report.losses) < 0.7
    assert report.metrics["accuracy"] > 0.5


def test_language_model(data: Path, tmp_path: Path) -> None:
    arguments = f"arguments={{context: {CONTEXT}, width: 32, heads: 2, layers: 2, dropout: 0.1, rate: 0.01}}"
    settings = ("steps=20", "schedule.warmup_steps=4", "precision=bf16")
    report = small("language_model", data / "source", tmp_path, arguments, *settings)
    assert_sane(report, 20, 20 * 16, {"loss", "bits_per_byte"})
    assert report.losses[0] == pytest.approx(math.log(256), rel=0.05)
    assert fall(report.losses) < 0.8
    assert report.metrics["bits_per_byte"] == pytest.approx(report.metrics["loss"] / math.log(2), rel=1e-5)


def test_tabular(data: Path, tmp_path: Path) -> None:
    report = small("tabular", data / "flights", tmp_path, "epochs=4", "lane_batch=8", "schedule.warmup_steps=4")
    assert_sane(report, 32, 4 * 512, {"log_loss", "accuracy", "brier"})
    assert fall(report.losses) < 0.7
    assert report.metrics["accuracy"] > 0.8


@pytest.mark.parametrize("strategy", ["served", "all_reduce"])
def test_recommender(strategy: str, data: Path, tmp_path: Path) -> None:
    settings = ["epochs=4", "lane_batch=8", "schedule.warmup_steps=4", "arguments.rate=0.1"]
    settings += ["arguments.rows=5000000"] if strategy == "served" else ["arguments.rows=2000", "strategy=all_reduce"]
    report = small("recommender", data / "flights", tmp_path, *settings)
    assert_sane(report, 32, 4 * 512, {"log_loss", "accuracy", "brier"})
    assert fall(report.losses) < 0.8
    assert report.metrics["accuracy"] > 0.7


@pytest.mark.ray
def test_own_loop(connected: None, data: Path, tmp_path: Path) -> None:
    report = small("own_loop", data / "images", tmp_path, "epochs=3", "lane_batch=8", workers=2)
    assert_sane(report, 24, 3 * 512, {"accuracy"}, workers=2)
    assert [e["step"] for e in report.evaluations] == [8, 16, 24]
    assert fall(report.losses) < 0.7


def test_plain_pytorch(data: Path) -> None:
    command = [sys.executable, TRAINERS / "plain_pytorch.py", "--data", data / "images", "--epochs", "3", "--batch=64"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    epochs = [line.split() for line in done.stdout.splitlines()]
    assert [words[:2] for words in epochs] == [["epoch", f"{epoch}:"] for epoch in range(3)]
    losses = [float(words[3].rstrip(",")) for words in epochs]
    assert losses[-1] < losses[0]
    assert float(epochs[-1][-1]) > 0.5


def test_plain_pytorch_stands_alone() -> None:
    lines = (TRAINERS / "plain_pytorch.py").read_text(encoding="utf-8").splitlines()
    imported = {line.split()[1].partition(".")[0] for line in lines if line.startswith(("import ", "from "))}
    assert "torch" in imported
    assert "headway" not in imported


def tabular() -> dict[str, Any]:
    """The names in the tabular recipe."""
    return runpy.run_path(str(TRAINERS / "tabular" / "task.py"))


@pytest.mark.parametrize("departed", [False, True])
def test_tabular_reads_nothing_that_is_known_later(departed: bool) -> None:
    task = tabular()["FlightDelays"](departed=departed)
    later = ["dep_time", "arr_time", "air_time", "arr_delay", *([] if departed else ["dep_delay"])]
    table, random = flights(16), np.random.default_rng(0)
    whole = task.transform(table, random, False)
    without = task.transform(table.drop_columns(later), random, False)
    assert whole.keys() == without.keys()
    assert all(np.array_equal(whole[name], without[name]) for name in whole)
    assert whole["numbers"].shape == (16, 4 if departed else 3)


def test_tabular_knows_the_calendar_and_the_clock() -> None:
    names = tabular()
    days = [date(2013, 1, 1) + timedelta(days=n) for n in range(365)]
    month, day = (np.array([getattr(d, field) for d in days], np.float32) for field in ("month", "day"))
    assert names["weekday"](month, day).tolist() == [d.weekday() for d in days]
    assert names["minutes"](np.array([0.0, 59.0, 2359.0])).tolist() == [0, 59, 1439]
