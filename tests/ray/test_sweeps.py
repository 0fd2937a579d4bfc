"""Sweeps on a real Ray: warm workers that take trial after trial, and what becomes of a sweep when something dies."""

from __future__ import annotations

import json
import os
import re
import signal
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.ray.conftest import TASK, Command, Project, wait_until

import headway
from headway.runs import RunFolder
from headway.sweeps import book
from headway.sweeps.report import SweepReport
from headway.sweeps.run import sweep
from headway.tracking.prometheus.discovery import FOLDER

pytestmark = [pytest.mark.ray, pytest.mark.slow]

FIGURES: list[str] = []
"""Of the quiet sweep, as they were served."""
STRICT = {"order": "strict", "width": 2, "scheduler": {"name": "asha", "first": 4, "factor": 2}}
SAME = {"trial", "settings", "state", "step", "evaluations"}


def tree(project: Project, **changes: Any) -> dict[str, Any]:
    """Six trials of sixteen steps, evaluated at every fourth."""
    job = project.tree(epochs=None, steps=16, evaluate_every_steps=4, checkpoint={"every_steps": None})
    return {
        "name": "digits",
        "job": job,
        "metric": "accuracy",
        "mode": "max",
        "trials": 6,
        "space": {"clip_norm": {"loguniform": [0.01, 10.0]}},
        "search": {"name": "random", "seed": 1},
        "scheduler": {"name": "asha", "first": 4, "factor": 2},
        "workers": {"min": 1, "max": 2},
        **changes,
    }


def folders(report: SweepReport | dict[str, Any], place: Path) -> list[RunFolder]:
    trials = report["trials"] if isinstance(report, dict) else report.model_dump()["trials"]
    return [RunFolder(place / trial["run"]) for trial in trials]


def processes(runs: list[RunFolder]) -> set[str]:
    """Of workers, as their logs begin with them."""
    logs = (path.read_text() for run in runs for path in (run.path / "logs").rglob("*.log"))
    return {number for text in logs for number in re.findall(r" w\d+, process (\d+)", text)}


def steps_of(run: RunFolder) -> list[int]:
    return [each["step"] for each in run.steps()]


def outcome(report: SweepReport) -> dict[str, Any]:
    """What does not hang on machines, in a strict sweep."""
    found = json.loads(report.model_dump_json())
    best = found["best"]["trial"], found["best"]["best"]
    trials = [{key: trial[key] for key in SAME} for trial in found["trials"]]
    return {"trials": trials, "rungs": found["rungs"], "best": best}


@contextmanager
def written(project: Project, folder: Path, **changes: Any) -> Iterator[Path]:
    folder.mkdir(exist_ok=True)
    file = folder / "sweep.yaml"
    file.write_text(yaml.safe_dump(tree(project, **changes)))
    yield file


@pytest.fixture(scope="module")
def quiet(project: Project, connected: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[SweepReport, Path]:
    """A strict sweep that nothing happens to, and where its runs are; its figures are read on the way."""
    place = tmp_path_factory.mktemp("quiet")

    def look(_: Any) -> None:
        entry = place / FOLDER / "digits.json"
        if entry.exists():
            (target,) = json.loads(entry.read_text())[0]["targets"]
            with suppress(OSError), urllib.request.urlopen(f"http://{target}/metrics", timeout=20) as answer:
                FIGURES.append(answer.read().decode())

    asked = tree(project, **STRICT, price_per_worker_hour=0.5)
    return sweep(asked, name="digits", runs_folder=place, watch=look), place


@pytest.mark.long
def test_its_figures_and_those_of_its_runs_are_one_target(quiet: tuple[SweepReport, Path]) -> None:
    report, place = quiet
    both = [text for text in FIGURES if "headway_sweep_best{" in text and "headway_step{" in text]
    assert both, "they are served while it is under way"
    assert re.search(r'headway_sweep_trials\{state="running",sweep="digits"\} [12]\.0', both[0])
    assert re.search(r'headway_sweep_dollars_total\{sweep="digits"\} 0\.0', both[0])
    assert {run for text in both for run in re.findall(r'headway_step\{run="(.*?)"\}', text)} <= {
        trial.run for trial in report.trials
    }
    assert list((place / FOLDER).glob("[!.]*")) == []
    assert folders(report, place)[0].read()["dollars"] > 0, "its runs are told the price"


def test_a_sweep_comes_to_a_best_job_which_trains_to_the_trials_bits(quiet: tuple[SweepReport, Path]) -> None:
    report, place = quiet
    assert report.state == "finished"
    assert len(report.trials) == 6
    assert {trial.state for trial in report.trials} <= {"finished", "stopped"}
    assert report.best is not None
    assert report.best.step == 16
    assert len(report.rungs[4]) == 6
    assert 3 <= len(report.rungs[8]) < 6, "one in two, or a few more that were promoted before"
    for trial, run in zip(report.trials, folders(report, place), strict=True):
        assert steps_of(run) == list(range(trial.step)), "each step once"
    assert report.pictures
    assert all((place / "digits" / picture).stat().st_size for picture in report.pictures)
    again = headway.train(place / "digits" / "best.yaml", runs_folder=place / "again")
    trained = RunFolder(place / report.best.run).read()
    assert again.weights_sha256 == trained["weights_sha256"]


def test_its_workers_are_warm_for_the_next_trial(quiet: tuple[SweepReport, Path]) -> None:
    report, place = quiet
    assert len(processes(folders(report, place))) <= 2


def test_a_worker_that_dies_changes_no_decision(
    project: Project, quiet: tuple[SweepReport, Path], tmp_path: Path
) -> None:
    killed: list[int] = []

    def kill(view: Any) -> None:
        """Once, when two trials have been evaluated: a worker that trains."""
        if not killed and sum(bool(trial.points) for trial in view.trials.values()) >= 2:
            found = processes([RunFolder(path.parent) for path in tmp_path.glob("digits.*/run.json")])
            killed.append(int(sorted(found)[0]))
            os.kill(killed[0], signal.SIGKILL)

    report = sweep(tree(project, **STRICT), name="digits", runs_folder=tmp_path, watch=kill)
    assert killed
    assert outcome(report) == outcome(quiet[0])
    for trial, run in zip(report.trials, folders(report, tmp_path), strict=True):
        assert steps_of(run) == list(range(trial.step)), "each step once"


def test_a_driver_that_dies_leaves_a_sweep_that_goes_on(
    project: Project, quiet: tuple[SweepReport, Path], headway: Callable[..., Command], tmp_path: Path
) -> None:
    with written(project, tmp_path / "file", **STRICT) as file:
        place = tmp_path / "runs"
        first = headway("sweep", file, "--name", "digits", "--runs", place)

        def events() -> int:
            return len(list(book.entries(place / "digits" / book.FILE)))

        wait_until(lambda: events() >= 8 or first.process.poll() is not None, "it is under way")
        first.process.kill()
        first.end()
        before = events()
        second = headway("resume", "digits", "--runs", place, "--json").report()
        report = SweepReport.model_validate(second)
        assert before < len(list(book.entries(place / "digits" / book.FILE)))
        assert outcome(report) == outcome(quiet[0])
        for trial, run in zip(report.trials, folders(report, place), strict=True):
            assert steps_of(run) == list(range(trial.step)), "each step once"


def test_tune_pauses_our_trials_and_hands_their_process_on(project: Project, connected: None, tmp_path: Path) -> None:
    """HyperBand fills a bracket, pauses its trials, and lets the better ones go on."""
    from ray import tune
    from ray.tune.schedulers import HyperBandScheduler

    (tmp_path / "digits.py").write_text(TASK.replace("ray.train.get_context().get_world_rank()", "0"))
    (tmp_path / "scale.py").write_text("SCALE = 1 / 255\n")
    job = project.tree(epochs=None, steps=16, evaluate_every_steps=4, task=f"{tmp_path / 'digits.py'}:Digits")
    hyperband = HyperBandScheduler(time_attr="step", max_t=16, reduction_factor=2)
    tuner = tune.Tuner(
        headway.tune_trainable(job),
        param_space={"clip_norm": tune.grid_search([0.01, 0.1, 1.0, 10.0])},
        tune_config=tune.TuneConfig(
            metric="accuracy", mode="max", scheduler=hyperband, reuse_actors=True, max_concurrent_trials=2
        ),
        run_config=tune.RunConfig(name="tune", storage_path=str(tmp_path), verbose=0),
    )
    results = tuner.fit()
    assert not results.errors
    best = results.get_best_result()
    assert best.metrics is not None
    report = headway.train({**job, "clip_norm": best.metrics["config"]["clip_norm"]}, runs_folder=tmp_path / "runs")
    alone = {each["step"]: each["values"]["accuracy"] for each in report.evaluations}
    assert best.metrics["accuracy"] == alone[best.metrics["step"]], "as a run that nobody paused"


@pytest.mark.long  # tests/ray/test_crew.py has it, and tests/unit/test_sweep_loop.py
def test_a_trial_whose_task_raises_ends_no_other(project: Project, connected: None, tmp_path: Path) -> None:
    space = {"arguments.trouble": {"choice": ["", "raise"]}}
    report = sweep(
        tree(project, space=space, search="grid", scheduler="none", trials=2), name="digits", runs_folder=tmp_path
    )
    states = {trial.settings["arguments.trouble"]: trial for trial in report.trials}
    assert states[""].state == "finished"
    assert states["raise"].state == "failed"
    assert "no such thing" in states["raise"].why
