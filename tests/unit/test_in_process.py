"""Runs in the calling process, without Ray: records, checkpoints, ends and bits are those of a run on a cluster."""

from __future__ import annotations

import gc
import os
import random
import signal
import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from tests.conftest import make_dataset
from tests.unit.in_process import STEPS, Ground

import headway
from headway.carried import code
from headway.driver.in_process import ADDRESS
from headway.driver.progress import Progress
from headway.elastic.worker import garbage
from headway.elastic.worker.main import run as run_task
from headway.errors import BadInput, UserCodeFailed
from headway.job import parse
from headway.runs import Place, RunFolder, find
from headway.runs.requests import Box, Stop, of_epoch
from headway.testing.elastic import Run
from headway.testing.s3 import S3


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """64 rows: 4 full steps per epoch."""
    folder = tmp_path_factory.mktemp("data")
    make_dataset(folder / "train", (24, 16), (24,))
    make_dataset(folder / "val", (16,))
    return folder


@pytest.fixture
def ground(tmp_path: Path, data: Path) -> Ground:
    return Ground(tmp_path, data)


def test_it_trains_evaluates_saves_and_reports(ground: Ground) -> None:
    seen: list[Progress] = []
    warns = "import warnings; warnings.warn('odd rows')"
    with pytest.warns(UserWarning, match="odd rows"):
        report = ground.train(ground.job(warns), watch=seen.append, name="r")
    assert (report.state, report.steps, report.total_steps) == ("finished", STEPS, STEPS)
    assert [e["step"] for e in report.evaluations] == [10, 20]
    assert report.checkpoints[-1]["step"] == STEPS
    assert report.workers == [{"step": 0, "workers": 1, "time": report.workers[0]["time"]}]
    assert report.goodput is not None
    assert report.goodput > 0
    assert report.ledger_s["compute"] > 0
    assert seen[-1].step == STEPS
    run = RunFolder(ground.runs / "r")
    assert not run.is_led()
    assert [event["kind"] for event in run.events()][:2] == ["start", "generation"]
    warned = [event["text"] for event in run.events() if event["kind"] == "warned"]
    assert warned[0].startswith("UserWarning: odd rows")
    assert not [line for progress in seen for line in progress.messages if "odd rows" in line]
    assert "in process" in "".join(path.read_text() for path in run.logs.rglob("*.log"))


def _train(context: Any, file: str) -> None:
    from headway.carried import code

    run_task(context.job, code.load(code.locate(file)))


@pytest.mark.parametrize("name", ["Small", "loop"])
def test_the_bits_are_those_of_elastic_runs_whoever_is_lost(ground: Ground, name: str) -> None:
    tree = ground.job(name=name)
    if name == "loop":
        tree |= {"optimizer": None, "evaluate_every_steps": None}
    here = ground.train(tree)
    job = parse({**tree, "workers": {"min": 1, "max": 2}})
    with Run(ground.folder / "elastic", job, _train, tree["task"]) as run:
        outcome = run.result()
    assert outcome.failure is None
    assert outcome.facts["weights_sha256"] == here.weights_sha256
    assert outcome.steps[-1]["samples"] == here.samples_sha256


def test_one_that_was_stopped_goes_on_to_the_same_bits(ground: Ground) -> None:
    whole = ground.train(ground.job(), name="whole")
    folder = ground.runs / "cut"

    def watch(progress: Progress) -> None:
        if progress.step >= 2:
            Box.of_run(RunFolder(folder)).ask(of_epoch(1), Stop("mary@here", 0.0))

    slow = "import time; time.sleep(0.3)"  # the end comes long after it is asked for, on a busy machine too
    report = ground.train(ground.job(slow), name="cut", watch=watch)
    assert report.state == "stopped"
    assert "stopped by mary@here" in report.message
    assert 2 <= report.steps < STEPS
    assert report.checkpoints[-1]["step"] == report.steps
    assert "stop" in [event["kind"] for event in RunFolder(folder).events()]
    ground.job()
    again = ground.resume("cut")
    assert (again.state, again.steps) == ("finished", STEPS)
    assert (again.weights_sha256, again.samples_sha256) == (whole.weights_sha256, whole.samples_sha256)
    assert again.losses == whole.losses


def test_what_fails_in_the_first_step_is_refused_and_leaves_no_run(ground: Ground) -> None:
    with pytest.raises(BadInput, match=r"task Small.loss\(\) failed on the first rows: KeyError: 'label'") as refused:
        ground.train(ground.job("batch['label']"), name="r")
    assert "task.py" in refused.value.traceback
    assert "headway/elastic" not in refused.value.traceback
    with pytest.raises(BadInput, match=r"NoneType.*Module is needed"):
        ground.train(ground.job(model="pass"), name="r")
    with pytest.raises(BadInput, match="item"):
        ground.train(ground.job("return loss.item()"), name="r")
    tree = ground.job() | {"optimizer": None}
    file = ground.folder / "task.py"
    aside = "def optimizer(self, model):\n        return torch.optim.SGD([nn.Parameter(torch.zeros(3))], 0.1)"
    file.write_text(file.read_text().replace("def metrics", f"{aside}\n\n    def metrics"))
    with pytest.raises(BadInput, match="none of the 1 parameters of optimizer SGD got a gradient"):
        ground.train(tree, name="r")
    file.write_text(
        file.read_text().replace("return torch.optim.SGD", "return 'adam' or ")
    )  # told by the trial of other runs
    with pytest.raises(BadInput, match=r"task Small.optimizer\(\) returned str"):
        ground.train(tree, name="r")
    assert not (ground.runs / "r").exists()


def test_what_fails_later_ends_the_run_with_the_authors_lines(ground: Ground) -> None:
    fails = "if self.calls > 30: raise ValueError('too many')"
    with pytest.raises(UserCodeFailed, match="ValueError: too many") as failed:
        ground.train(ground.job(fails), name="r")
    assert "raise ValueError('too many')" in failed.value.traceback
    assert isinstance(failed.value.__cause__, ValueError)  # a debugger looks into its frames
    facts = RunFolder(ground.runs / "r").read()
    assert (facts["state"], facts["cause"]) == ("failed", "task")
    ground.job()
    assert ground.resume("r").state == "finished"


def test_the_process_is_left_as_it_was(ground: Ground) -> None:
    garbage.take_in()  # another test's session, in this process, may have left something out
    threads, path = torch.get_num_threads(), list(sys.path)
    drawn = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    others = set(threading.enumerate())
    task = sys.modules.get("task")  # of another test, maybe
    ground.train(ground.job(top="import headway as once", workers={"cpus": 3}))
    assert torch.get_num_threads() == threads
    assert sys.path == path
    assert sys.modules.get("task") is task
    assert torch.equal(torch.get_rng_state(), drawn[0])
    assert (np.random.get_state()[1] == drawn[1]).all()
    assert random.getstate() == drawn[2]
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert gc.get_freeze_count() == 0
    left = set(threading.enumerate()) - others
    assert not [thread for thread in left if thread.name in ("follower", "scribe", "journal")]
    with pytest.raises(BadInput, match="NameError"):  # the file is read anew
        ground.train(ground.job(top="gone"))


def test_what_another_run_or_a_ray_left_here_is_in_nobodys_way(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module of the task's name, and a debugger that waits for somebody elsewhere: there again when the run ends."""
    before = ModuleType("task")
    before.__file__ = str(ground.folder.parent / "else" / "task.py")
    monkeypatch.setitem(sys.modules, "task", before)
    monkeypatch.setattr(code, "_folders", {Path(before.__file__).parent})
    monkeypatch.setenv("PYTHONBREAKPOINT", "ray.util.rpdb.set_trace")
    found = ground.train(ground.job("import os; assert 'PYTHONBREAKPOINT' not in os.environ"))
    assert found.state == "finished"
    assert sys.modules["task"] is before
    assert os.environ["PYTHONBREAKPOINT"] == "ray.util.rpdb.set_trace"
    with pytest.raises(BadInput, match="NameError"):  # the file is read anew
        ground.train(ground.job(top="gone"))


def test_jobs_that_one_process_cannot_be(ground: Ground) -> None:
    with pytest.raises(BadInput, match=r"workers.min=2 in this process.*one worker"):
        ground.train(ground.job(workers={"min": 2}))
    again = f"headway.train({{}}, address={ADDRESS!r})"
    with pytest.raises(BadInput):
        ground.train(ground.job(again))
    if not torch.cuda.is_available():
        with pytest.raises(BadInput, match="torch finds none"):
            ground.train(ground.job(workers={"gpus": 1}))
    assert not ground.runs.exists()


def test_a_watch_that_fails_ends_the_run_and_is_heard(ground: Ground) -> None:
    def watch(progress: Progress) -> None:
        if progress.step:
            raise LookupError("no screen")

    with pytest.raises(LookupError, match="no screen"):
        ground.train(ground.job("import time; time.sleep(0.3)"), name="r", watch=watch)
    assert RunFolder(ground.runs / "r").read()["state"] == "interrupted"


FITS = """
    def fit(self, dataset):
        with open({called!r}, "a") as file:
            file.write("x")
        return {{"mean": dataset.mean("y")}}
"""


def test_a_task_is_fitted_once_for_all_starts(ground: Ground) -> None:
    called = ground.folder / "called"
    until_stopped = ground.folder / "until stopped"
    until_stopped.touch()
    slow = f"import time; time.sleep(0.3 * os.path.exists({str(until_stopped)!r}))"
    tree = ground.job(f"{slow}; assert 0 < self.fitted['mean'] < 1")
    file = ground.folder / "task.py"
    file.write_text(file.read_text().replace("    def metrics", f"{FITS.format(called=str(called))}\n    def metrics"))
    folder = ground.runs / "r"

    def watch(progress: Progress) -> None:
        if progress.step >= 2:
            Box.of_run(RunFolder(folder)).ask(of_epoch(1), Stop("mary@here", 0.0))

    cut = ground.train(tree | {"steps": 100}, name="r", watch=watch)
    assert cut.state == "stopped"
    until_stopped.unlink()
    digest = RunFolder(folder).read()["fitted"]["sha256"]
    assert ground.resume("r").state == "finished"
    assert called.read_text() == "x"
    assert RunFolder(folder).read()["fitted"]["sha256"] == digest


OWN = """
class Rows(torch.utils.data.Dataset):
    def __len__(self):
        return 32

    def __getitem__(self, number):
        if number == 7:
            {then}
        x = torch.rand(4)
        return {{"x": x, "y": (x.sum() > 2).long()}}

def rows():
    return Rows()
"""


def test_a_dataset_of_ones_own_is_read_in_this_thread(ground: Ground) -> None:
    ground.job(top=OWN.format(then="import threading; assert threading.current_thread() is threading.main_thread()"))
    tree = ground.job(top=OWN.format(then="pass"))
    tree |= {"data": {"train": f"{ground.folder / 'task.py'}:rows"}, "evaluate_every_steps": None}
    first = ground.train(tree)
    assert (first.state, first.samples_seen) == ("finished", STEPS * 16)
    then = "import threading; assert threading.current_thread() is threading.main_thread()"
    ground.job(top=OWN.format(then=then))
    assert ground.train(tree).weights_sha256 == first.weights_sha256


def test_a_run_in_a_bucket(ground: Ground, s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is all there when it ends, and another machine goes on with it."""
    monkeypatch.setenv("HEADWAY_STORE_ENDPOINT", s3.endpoint)
    monkeypatch.setenv("HEADWAY_CACHE", str(ground.folder / "one"))
    s3.make_bucket("runs")
    tree, place = ground.job(), "s3://runs/some/place"

    def watch(progress: Progress) -> None:
        if progress.step >= 2:
            Box.of(Place.of(place), "r").ask(of_epoch(1), Stop("mary@here", 0.0))

    slow = ground.job("import time; time.sleep(0.3)")
    cut = headway.train(slow, runs_folder=place, address=ADDRESS, name="r", watch=watch)
    assert cut.state == "stopped"
    assert cut.checkpoints[-1]["step"] == cut.steps
    monkeypatch.setenv("HEADWAY_CACHE", str(ground.folder / "another"))
    ground.job()
    again = headway.resume("r", runs_folder=place, address=ADDRESS)
    assert (again.state, again.steps) == ("finished", STEPS)
    assert again.weights_sha256 == ground.train(tree).weights_sha256
    failing = ground.job("batch['label']")
    with pytest.raises(BadInput, match="KeyError"):
        headway.train(failing, runs_folder=place, address=ADDRESS, name="vain")
    with pytest.raises(BadInput, match="no run 'vain'"):
        find(Place.of(place), "vain")
