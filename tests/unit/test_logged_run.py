"""Figures, texts, tables and files of a task's own: each once, whoever is lost, and never in the way of training."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.unit.in_process import STEPS as TASK_STEPS
from tests.unit.in_process import Ground
from tests.unit.loops import STEPS, job, rows
from tests.unit.test_elastic_run import Exact

from headway.elastic.worker.context import Context
from headway.elastic.worker.session import Session
from headway.records import export
from headway.runs import Place, RunFolder, find
from headway.testing.elastic import Outcome, Run, advance
from headway.testing.s3 import S3

pytestmark = pytest.mark.usefixtures("one_thread")
SOON_S = 240.0


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rows(tmp_path_factory.mktemp("data"))


# -- a loop on several workers


def shown(context: Context, pace_s: float = 0.0) -> int:
    model = Exact()
    with Session(context, model, torch.optim.SGD(model.parameters(), lr=2**-6), None) as training:
        for step in training.steps():
            for batch in step.lanes():
                time.sleep(pace_s)
                step.log_text("lane/ids", " ".join(map(str, batch["id"].tolist())), caption="of a lane")
                step.backward(model(batch["x"]))
            advance(training.step)
            step.log_figure("weight", np.full((4, 4), training.step / 100))
            training.log_table("walk", {"step": [training.step], "weight": [model.weight.tolist()]})
            training.log_table("walk", {"step": [-1]})
    return training.step


def check(run: Path, outcome: Outcome) -> None:
    assert outcome.failure is None, outcome.failure
    entries = RunFolder(run).logged()
    for name in ("weight", "walk", "lane/ids"):
        of_it = [entry for entry in entries if entry["name"] == name]
        assert [entry["step"] for entry in of_it] == list(range(1, STEPS + 1)), f"{name}: each step once, in order"
    index = [json.loads(line)["path"] for line in (run / "logged.jsonl").read_text().splitlines()]
    assert len(index) == len(set(index)) == 3 * STEPS
    for entry in entries:
        assert (run / entry["path"]).stat().st_size == entry["bytes"]
    tables = [json.loads((run / entry["path"]).read_bytes()) for entry in entries if entry["name"] == "walk"]
    assert [table["data"][0][0] for table in tables] == list(range(1, STEPS + 1)), "the first of a step is kept"
    files = {str(path.relative_to(run)) for path in (run / "logged").rglob("*") if path.is_file()}
    assert files == set(index), "nothing is left beside what the index names"


def test_each_is_kept_once_whoever_is_lost(tmp_path: Path, data: Path) -> None:
    with Run(tmp_path / "run", job(data), shown, 0.004, hold=5) as run:
        run.wait_until(lambda: len(run.members) == 3 and run.step >= 3, SOON_S)
        run.kill(run.members[0])  # who speaks for all
        run.stand(8)
        run.wait_until(lambda: run.step >= 6, SOON_S)
        run.kill(run.members[-1])
        run.release()
        outcome = run.result(SOON_S)
    check(tmp_path / "run", outcome)
    texts = [entry for entry in RunFolder(tmp_path / "run").logged() if entry["name"] == "lane/ids"]
    assert {(entry["kind"], entry["mime"], entry["caption"]) for entry in texts} == {
        ("text", "text/plain", "of a lane")
    }


def test_what_is_logged_after_the_checkpoint_comes_again_in_its_place(tmp_path: Path, data: Path) -> None:
    with Run(tmp_path / "run", job(data), shown, 0.004, hold=9) as run:
        run.wait_until(lambda: len(run.members) == 3 and run.step >= 8, SOON_S)
        for worker in list(run.members):  # nobody is left: all begin anew from the checkpoint of step 5
            run.kill(worker)
        run.release()
        outcome = run.result(SOON_S)
    restarts = [event for event in RunFolder(tmp_path / "run").events() if event["kind"] == "restart"]
    assert restarts, "it went on from a checkpoint"
    check(tmp_path / "run", outcome)


# -- a task, in this process

TOP = """
import numpy as np

class Shows(headway.Hook):
    def on_step_end(self, session, step):
        session.log_text("note.md", f"# step {session.step}")
        session.log_table("note.md", {"a": [1]})
        session.log_figure("broken", object())
        session.log_table("broken", 7)
        session.log_artifact("gone", "no/such.file")

    def on_evaluate(self, session, metrics):
        session.log_table("metrics", {"name": list(metrics), "value": list(metrics.values())}, "of an evaluation")

class Refuses:
    def savefig(self, file, format):
        raise RuntimeError("no room to draw")
"""
METHODS = """
    def hooks(self):
        return [Shows()]
"""
THEN = """self.log_figure("batch", batch["x"].abs().clamp(0, 1), "its first rows")
        self.log_figure("refused", Refuses())"""


@pytest.fixture
def ground(tmp_path: Path, data: Path) -> Ground:
    return Ground(tmp_path, data)


def trained(ground: Ground, **more: Any) -> RunFolder:
    job = ground.job(then=THEN, top=TOP, **more)
    file = ground.folder / "task.py"
    file.write_text(file.read_text().replace("    def metrics(", METHODS + "\n    def metrics(", 1))
    report = ground.train(job)
    assert report.state == "finished"
    return RunFolder(Path(report.path))


def test_a_task_and_its_hooks_log_in_a_local_run(ground: Ground) -> None:
    run = trained(ground)
    entries = run.logged()
    by_name = {name: [e["step"] for e in entries if e["name"] == name] for name in {e["name"] for e in entries}}
    every = list(range(1, TASK_STEPS + 1))
    assert by_name == {"note.md": every, "batch": every, "metrics": [10, 20]}
    note = next(entry for entry in entries if entry["name"] == "note.md")
    assert (note["mime"], (run.path / note["path"]).read_text()) == ("text/markdown", "# step 1")
    table = next(entry for entry in entries if entry["name"] == "metrics")
    assert table["caption"] == "of an evaluation"
    assert json.loads((run.path / table["path"]).read_bytes())["data"][0][0] == "accuracy"


def test_what_cannot_be_kept_is_told_once_by_its_name(ground: Ground) -> None:
    run = trained(ground)
    told = [event["text"] for event in run.events() if event["kind"] == "warned"]
    assert sorted(told) == [
        "the artifact 'gone' is not kept: no/such.file cannot be read: No such file or directory",
        "the figure 'broken' is not kept: a object is no figure of matplotlib or plotly, no image of PIL, and no "
        "array of pixels",
        "the figure 'refused' is not kept: RuntimeError: no room to draw",
        "the table 'broken' is not kept: a int is no table: that is a frame of pandas or Arrow, a dict of columns or a "
        "list of dicts",
        "the table 'note.md' is not kept: a text of that name was logged in the same step",
    ]


def test_a_run_in_a_store_takes_them_along(
    ground: Ground, s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found from another machine, and written as Parquet there."""
    monkeypatch.setenv("HEADWAY_STORE_ENDPOINT", s3.endpoint)
    s3.make_bucket("runs")
    ground.runs = f"s3://runs/{tmp_path.name}"  # type: ignore[assignment]
    monkeypatch.setenv("HEADWAY_CACHE", str(tmp_path / "here"))
    large = "x" * 200_000  # more than travels within the records
    job = ground.job(then=f'self.log_text("long", "{large[:10]}" * 20_000)')
    assert ground.train(job, name="r").state == "finished"
    monkeypatch.setenv("HEADWAY_CACHE", str(tmp_path / "elsewhere"))
    run = find(Place.of(str(ground.runs)), "r")
    assert str(run.path).startswith(str(tmp_path / "elsewhere"))
    entries = run.logged()
    assert [entry["step"] for entry in entries] == list(range(1, TASK_STEPS + 1))
    assert all((run.path / entry["path"]).read_text() == large for entry in entries)
    done = export(run, tmp_path / "out")
    assert (done.rows["steps"], done.rows["logged"]) == (TASK_STEPS, TASK_STEPS)
    assert done.rows["checkpoints"] > 0
