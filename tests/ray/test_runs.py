"""Runs on a Ray that is already there: widths, failures, damage."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.ray.conftest import Project

import headway
import headway.report
import headway.runs
from headway.errors import BadCheckpoint, BadInput, RunFailed, UserCodeFailed

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("connected")]


def run(project: Project, runs: Path, name: str, workers: int, **changes: Any) -> headway.Report:
    tree = project.tree(workers={"min": workers, "max": workers}, **changes)
    return headway.train(tree, name=name, runs_folder=runs)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def alone(connected: None, project: Project, runs: Path) -> headway.Report:
    return run(project, runs, "alone", 1)


@pytest.fixture(scope="module")
def two(connected: None, project: Project, runs: Path) -> headway.Report:
    return run(project, runs, "two", 2)


def assert_as_alone(wide: headway.Report, alone: headway.Report, workers: int) -> None:
    assert wide.samples_sha256 == alone.samples_sha256
    assert wide.losses[0] == pytest.approx(alone.losses[0], abs=1e-6)
    assert wide.losses == pytest.approx(alone.losses, abs=1e-3)
    assert wide.metrics["accuracy"] == pytest.approx(alone.metrics["accuracy"], abs=0.02)
    assert wide.workers[0]["workers"] == workers


def test_the_cluster_decides_how_fast_never_what(alone: headway.Report, project: Project, runs: Path) -> None:
    assert_as_alone(run(project, runs, "three", 3), alone, 3)


@pytest.mark.long
def test_two_are_as_one_too(alone: headway.Report, two: headway.Report) -> None:
    """As tests/ray/test_crew.py has it, of runs of one worker and the command line's of two."""
    assert_as_alone(two, alone, 2)


@pytest.mark.long
def test_a_killed_worker_costs_no_sample(two: headway.Report, project: Project, runs: Path) -> None:
    hit = run(project, runs, "hit", 2, arguments={"trouble": "die", "rank": 1, "at": 23})
    # The restarted process counts its calls anew, so it dies once more at its own 23rd step; checkpoints move it on.
    assert hit.state == "finished"
    assert hit.samples_sha256 == two.samples_sha256
    assert hit.weights_sha256 == two.weights_sha256
    assert hit.losses == two.losses
    assert len(hit.workers) > 1


def test_a_task_that_raises_ends_the_run_once(project: Project, runs: Path) -> None:
    with pytest.raises(UserCodeFailed) as caught:
        run(project, runs, "raises", 2, arguments={"trouble": "raise", "rank": 1})
    error = caught.value
    assert "KeyError: 'no such thing' in worker 1, at step 5" in str(error)
    assert error.traceback.count("KeyError") == 2  # the raising line and the exception
    assert str(project.folder / "digits.py") in error.traceback
    assert "headway/elastic" not in error.traceback
    report = headway.report.load(headway.runs.find(runs, "raises"))
    assert report.state == "failed"
    assert report.steps == 5


@pytest.mark.long  # tests/ray/test_crew.py has it
@pytest.mark.slow
def test_a_nan_is_caught_by_name_and_step(project: Project, runs: Path) -> None:
    with pytest.raises(RunFailed, match=r"loss=nan at step 5, from lane 3: the update was not applied") as caught:
        run(project, runs, "nan", 2, arguments={"trouble": "nan", "rank": 1})
    assert caught.value.exit_code == 1
    report = headway.report.load(headway.runs.find(runs, "nan"))
    assert (report.state, report.cause) == ("failed", "task")


@pytest.mark.long
def test_workers_that_always_die_are_given_up(project: Project, runs: Path) -> None:
    with pytest.raises(RunFailed, match="died 3 times without a single new step"):
        run(project, runs, "hopeless", 1, arguments={"trouble": "die", "at": 1})


def copy(runs: Path, name: str) -> Path:
    """A finished run as it was before its last steps: as after a kill."""
    target = runs / name
    shutil.copytree(runs / "alone", target)
    shutil.rmtree(target / "checkpoints" / "step-00000064")
    facts = headway.runs.RunFolder(target).read()
    headway.runs.RunFolder(target).write({**facts, "state": "running"})
    return target


def test_a_damaged_checkpoint_falls_back(alone: headway.Report, runs: Path) -> None:
    target = runs / "damaged"
    shutil.copytree(runs / "alone", target)
    # On a slow disk one that is due is skipped while the one before is being written: which are there is found.
    there = (target / "checkpoints").glob("step-*")
    *_, before, newest = sorted(int(path.name.removeprefix("step-")) for path in there)
    assert newest == 64
    (part,) = (target / "checkpoints" / "step-00000064").glob("e*/00000-*")
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 1
    part.write_bytes(data)
    said: list[str] = []
    report = headway.resume("damaged", runs_folder=runs, settings=["epochs=3"], watch=lambda p: said.extend(p.messages))
    assert report.steps == 96
    assert report.losses[:64] == alone.losses
    assert f"resuming damaged from step {before}" in said
    assert any(f"step-00000064/{part.parent.name}/{part.name} was altered" in text for text in said)


def test_another_jobs_checkpoint_is_refused(alone: headway.Report, runs: Path) -> None:
    copy(runs, "other")
    with pytest.raises(BadCheckpoint, match="belongs to another job"):
        headway.resume("other", runs_folder=runs, settings=["lane_batch=4"])


def test_2_14c_other_threads_are_told_and_must_be_allowed(alone: headway.Report, runs: Path) -> None:
    copy(runs, "threads")
    settings = ["workers.cpus=2"]
    with pytest.raises(BadInput, match=r"threads=2, and 1 before.*--allow threads"):
        headway.resume("threads", runs_folder=runs, settings=settings)
    said: list[str] = []
    headway.resume(
        "threads",
        runs_folder=runs,
        settings=settings,
        allow=["threads"],
        watch=lambda p: said.extend(p.messages),
    )
    assert any("other bits from here on, as allowed: threads=2, and 1 before" in text for text in said)


def test_an_unknown_run_is_named_with_the_nearest(alone: headway.Report, runs: Path) -> None:
    with pytest.raises(BadInput, match="Did you mean 'alone'"):
        headway.resume("alon", runs_folder=runs)


def test_a_taken_name_is_refused(alone: headway.Report, project: Project, runs: Path) -> None:
    with pytest.raises(BadInput, match="alone is taken"):
        run(project, runs, "alone", 1)
    (runs / "file").write_text("")
    with pytest.raises(BadInput, match="a file is in the way"):
        run(project, runs, "file", 1)


def test_a_run_that_is_led_cannot_be_resumed(alone: headway.Report, runs: Path) -> None:
    folder = headway.runs.RunFolder(copy(runs, "led"))
    with folder.led(), pytest.raises(BadInput, match="another process leads it"):
        headway.resume("led", runs_folder=runs)


def test_a_wider_resume_goes_on_with_the_same_samples(alone: headway.Report, runs: Path) -> None:
    copy(runs, "wider")
    report = headway.resume("wider", runs_folder=runs, settings=["workers.max=3", "workers.min=3"])
    assert report.samples_sha256 == alone.samples_sha256
    assert [w["workers"] for w in report.workers] == [1, 3]


@pytest.mark.long  # tests/unit/test_session.py has it
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_trains(project: Project, runs: Path, precision: str) -> None:
    report = run(project, runs, precision, 2, precision=precision)
    assert report.state == "finished"
    assert report.losses[-1] < report.losses[0] / 2


def test_an_unreachable_tracking_server_does_not_stop_training(project: Project, runs: Path, free_port: int) -> None:
    uri = f"http://127.0.0.1:{free_port}"
    report = run(project, runs, "untracked", 1, tracking={"uri": uri}, epochs=None, steps=4)
    assert report.state == "finished"
    assert report.tracking["waiting"] > 0
    assert report.tracking["error"]
