"""The pages' tasks in whole runs: docs/hooks.md and docs/metrics.md say what works."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import make_dataset
from tests.unit.in_process import Ground

from headway.checkpoint.store import committed
from headway.cli import runs as shown
from headway.driver.progress import Progress
from headway.errors import BadInput, RunFailed
from headway.hooks import averaged
from headway.runs import Place, RunFolder, outline

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    make_dataset(tmp_path / "data/train", (24, 16), (24,))
    make_dataset(tmp_path / "data/val", (24, 14))
    return Ground(tmp_path, tmp_path / "data")


def job(ground: Ground, page: str, name: str, more: str = "", **fields: Any) -> dict[str, Any]:
    tree = ground.job(name=name, **fields)
    text = (DOCS / page).read_text(encoding="utf-8")
    (ground.folder / "task.py").write_text("\n".join([*re.findall(r"```python\n(.*?)```", text, re.DOTALL), more]))
    return tree


def test_the_page_of_metrics_is_a_run(ground: Ground, capsys: pytest.CaptureFixture[str]) -> None:
    report = ground.train(job(ground, "metrics.md", "Churn"), name="r")
    assert report.state == "finished"
    assert set(report.metrics) == {"loss", "auc", "f1"}
    (first, second) = report.evaluations
    assert (first["step"], second["step"]) == (10, 20)
    assert sum(map(sum, second["tables"]["confusion"])) == 38
    shown.show(report)
    printed = capsys.readouterr().out
    assert "confusion, after step 20:" in printed
    assert "auc" in printed


def test_a_task_of_the_page_measures_in_training_too(ground: Ground) -> None:
    report = ground.train(job(ground, "metrics.md", "Watched"), name="r")
    assert report.state == "finished"
    assert [e["step"] for e in report.evaluations if "train/auc" in e["values"]] == [9, 19]


def test_the_page_of_hooks_is_a_run(ground: Ground) -> None:
    report = ground.train(job(ground, "hooks.md", "Averaged"), name="r")
    assert report.state == "finished"
    assert "largest_loss" in report.metrics
    run = RunFolder(ground.runs / "r")
    parts = committed(run.checkpoint_root, run.counting)[-1].load()
    average = averaged(parts["session"])
    assert average is not None
    assert average.keys() == parts["model"].keys()
    assert parts["session"]["state"]["hook.Peak"]["largest"] == report.metrics["largest_loss"]


STUCK = """
class Stuck(Averaged):
    def metrics(self, model, batch):
        return {"score": 1.0}
"""


def test_a_run_that_stops_early_is_finished_and_says_why(ground: Ground) -> None:
    stop = {"metric": "score", "patience": 2, "mode": "max"}
    seen: list[Progress] = []
    tree = job(ground, "hooks.md", "Stuck", STUCK, stop=stop, evaluate_every_steps=4)
    report = ground.train(tree, name="r", watch=seen.append)
    assert (report.state, report.steps, report.total_steps) == ("finished", 12, 20)
    why = "finished after step 12 of 20: score has not improved in the last 2 evaluations: its best is 1, of step 4"
    said = [line for progress in seen for line in progress.messages]
    assert any(why in line for line in said), said
    message = f"early: the task's loop ended after step 12 of 20: {why.partition(': ')[2]}"
    assert report.message == message
    assert RunFolder(ground.runs / "r").read()["message"] == message
    (told,) = outline(Place.of(str(ground.runs)))
    assert (told.state, told.message) == ("finished", message)


ENOUGH = """
class Enough(headway.Hook):
    def on_step_end(self, session, step):
        if session.step == 6:
            session.stop("it is good enough")


class Good(Churn):
    def hooks(self):
        return [Enough()]
"""


def test_the_reason_of_a_stop_is_in_the_report(ground: Ground) -> None:
    report = ground.train(job(ground, "metrics.md", "Good", ENOUGH), name="r")
    assert (report.state, report.steps) == ("finished", 6)
    assert report.message == "early: the task's loop ended after step 6 of 20: it is good enough"


def test_a_stop_by_what_nobody_reports_ends_at_the_first_evaluation(ground: Ground) -> None:
    """Here, where the first step is the try-out; else no worker starts, see test_tryout."""
    with pytest.raises(RunFailed, match=r"stop\.metric=scor"):
        ground.train(job(ground, "hooks.md", "Stuck", STUCK, stop={"metric": "scor"}), name="r")


BAD = """
class Bad(Churn):
    def measures(self):
        return {"auc": AUC(), "largest": object()}
"""


def test_a_measure_that_is_none_starts_no_run(ground: Ground) -> None:
    with pytest.raises(BadInput, match=r"the metric largest \(object\) has no update\(\)"):
        ground.train(job(ground, "metrics.md", "Bad", BAD), name="r")
