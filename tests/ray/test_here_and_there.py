"""A run that is begun in a process without Ray is gone on with on a Ray, and back: the same bits, wherever."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.conftest import make_dataset
from tests.unit.in_process import STEPS, Ground

import headway
from headway.driver.progress import Progress
from headway.runs import RunFolder, epochs
from headway.runs.requests import Box, Stop, of_epoch

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.usefixtures("connected")]


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    make_dataset(tmp_path / "data" / "train", (24, 16), (24,))
    make_dataset(tmp_path / "data" / "val", (16,))
    return Ground(tmp_path, tmp_path / "data")


def stopping(folder: Path, after: int) -> Callable[[Progress], None]:
    """A watch that asks for the run's end once so many steps are done."""

    def watch(progress: Progress) -> None:
        if progress.step >= after:
            Box.of_run(RunFolder(folder)).ask(of_epoch(epochs.newest(folder)), Stop("mary@here", 0.0))

    return watch


@pytest.mark.long
def test_a_run_moves_between_a_process_and_a_cluster(ground: Ground) -> None:
    slow = "import time; time.sleep(0.05)"
    wide = {"min": 2, "max": 2}
    two = headway.train(ground.job(workers=wide), runs_folder=ground.runs, name="two")
    here = ground.train(ground.job(), name="here")
    assert (here.weights_sha256, here.samples_sha256) == (two.weights_sha256, two.samples_sha256)
    assert here.losses == two.losses
    assert here.metrics == two.metrics

    run = ground.runs / "moved"
    report = ground.train(ground.job(slow), name="moved", watch=stopping(run, 3))
    begun = report.steps
    assert report.state == "stopped"
    report = headway.resume("moved", runs_folder=ground.runs, watch=stopping(run, begun + 3))
    assert report.state == "stopped"
    assert begun < report.steps < STEPS
    ground.job()
    report = ground.resume("moved")
    assert (report.state, report.steps) == ("finished", STEPS)
    assert (report.weights_sha256, report.samples_sha256) == (two.weights_sha256, two.samples_sha256)
    assert report.losses == two.losses
