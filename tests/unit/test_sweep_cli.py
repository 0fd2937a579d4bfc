"""`headway sweep`: which verb is meant, what is said before anything runs, and what bad input is told."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.conftest import Run

from headway.errors import BAD_INPUT, FINISHED, INTERRUPTED, STOPPED, BadInput
from headway.sweeps import file, preview
from headway.sweeps.file import Sweep
from headway.sweeps.report import SweepReport
from headway.sweeps.ways import Ways

TASK = """
import headway
from torch import nn


class Linear(headway.Task):
    def __init__(self, width=4):
        self.width = width

    def model(self):
        return nn.Linear(self.width, 2)

    def loss(self, model, batch):
        return model(batch["x"].float()[:, None].expand(-1, self.width)).mean()
"""
JOB: dict[str, Any] = {
    "name": "small",
    "task": "small_task.py:Linear",
    "data": {"train": "train", "validation": "train"},
    "lanes": 4,
    "lane_batch": 8,
    "steps": 64,
    "evaluate_every_steps": 1,
    "workers": {"min": 1, "max": 2},
    "optimizer": {"name": "adamw", "lr": 0.1},
}
SWEEP: dict[str, Any] = {
    "job": "job.yaml",
    "trials": 16,
    "space": {"optimizer.lr": {"loguniform": [1e-4, 1e-1]}, "arguments.width": {"choice": [4, 8]}},
    "search": "random",
    "workers": {"max": 4},
}


@pytest.fixture
def written(tmp_path: Path) -> Path:
    import pyarrow as pa

    from headway.data.write.writer import write_dataset

    write_dataset(tmp_path / "train", [pa.table({"x": [0.5] * 100})], name="train", source="a test")
    (tmp_path / "small_task.py").write_text(TASK)
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(JOB))
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(SWEEP))
    return tmp_path / "sweep.yaml"


def sweep(job: dict[str, Any] | None = None, **more: Any) -> Sweep:
    return file.taken({**SWEEP, "job": {**JOB, **(job or {})}, **more}, Path("/nowhere"))


# Which verb is meant


def test_a_file_needs_no_verb(run: Run, written: Path) -> None:
    for words in ([str(written), "--set", "trials=0"], ["--set", "trials=0", str(written)]):
        code, _, said = run("sweep", *words)
        assert code == BAD_INPUT
        assert "trials=0" in said, "whichever comes first"


def test_a_misspelt_verb_is_no_file(run: Run) -> None:
    code, _, said = run("sweep", "statsu")
    assert code == BAD_INPUT
    assert "no such command" in said
    assert "Did you mean 'status'?" in said


@pytest.mark.parametrize("verb", ["status", "resume"])
def test_a_sweep_that_is_not_there_is_said(run: Run, verb: str, tmp_path: Path) -> None:
    code, _, said = run("sweep", verb, "digits", "--runs", str(tmp_path))
    assert code == BAD_INPUT
    assert "no sweep 'digits'" in said


def test_the_schema_is_one_json_object(run: Run) -> None:
    assert "space" in json.loads(run("sweep", "schema")[1])["properties"]


def test_a_pace_is_for_a_look_ahead(run: Run, written: Path) -> None:
    assert "--dry-run" in run("sweep", str(written), "--pace", "0.1")[2]


@pytest.mark.parametrize(
    ("setting", "word"),
    [
        ("search=mine.py:Mine", "mine.py does not exist"),
        ("from=[earlier]", "no sweep 'earlier'"),
        ("trials=0", "trials=0"),
    ],
)
def test_what_cannot_begin_leaves_nothing(run: Run, written: Path, tmp_path: Path, setting: str, word: str) -> None:
    code, _, said = run("sweep", str(written), "--set", setting, "--name", "n", "--runs", str(tmp_path / "runs"))
    assert code == BAD_INPUT
    assert word in said
    assert not (tmp_path / "runs" / "n").exists()


# What is followed, and how it ends


@pytest.mark.parametrize(
    ("state", "ends"), [("finished", FINISHED), ("stopped", STOPPED), ("interrupted", INTERRUPTED), ("failed", 1)]
)
def test_the_exit_code_tells_how_it_ended(
    run: Run, written: Path, monkeypatch: pytest.MonkeyPatch, state: str, ends: int
) -> None:
    began: list[dict[str, Any]] = []
    monkeypatch.setattr("headway.sweeps.run.sweep", lambda given, **more: began.append(more) or _report(state))
    code, out, err = run("sweep", str(written), "--name", "n", "--json")
    assert code == ends
    assert json.loads(out)["state"] == state, "one JSON object, however it ended"
    assert ("headway resume" in err) == (state in ("stopped", "interrupted"))
    assert began[0]["name"] == "n"


def test_resume_and_retry_go_on_with_a_sweep(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "runs" / "digits"
    folder.mkdir(parents=True)
    (folder / "sweep.json").write_text("{}")
    asked: list[Any] = []
    monkeypatch.setattr("headway.sweeps.run.resume", lambda name, **more: asked.append(name) or _report("finished"))
    monkeypatch.setattr("headway.sweeps.control.retry", lambda name, **more: asked.append("again") or [3])
    assert run("resume", "digits", "--json")[0] == FINISHED
    assert run("sweep", "resume", "digits", "--json")[0] == FINISHED
    code, _, said = run("sweep", "retry", "digits", "--json")
    assert code == FINISHED
    assert "to be run again: 3" in said
    assert asked == ["digits", "digits", "again", "digits"]


def _report(state: str) -> SweepReport:
    nothing: dict[str, Any] = {name: {} for name in ("counts", "rungs", "ledger_s", "importance", "tracking")}
    lists: dict[str, Any] = {name: [] for name in ("trials", "workers", "pictures")}
    none: dict[str, Any] = dict.fromkeys(("best", "wanted", "goodput", "dollars"))
    zero: dict[str, Any] = dict.fromkeys(("seconds", "worker_s", "idle_s"), 0.0)
    words = {"sweep": "n", "state": state, "message": "", "metric": "loss", "mode": "min", "order": "async"}
    return SweepReport(**nothing, **lists, **none, **zero, **words, importance_note="", path="runs/n")


# What is said before anything runs


def test_a_preview_says_what_will_run_and_starts_nothing(run: Run, written: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.iterdir())
    asked = ("sweep", "preview", str(written), "--pace", "0.5", "--set", "price_per_worker_hour=3.6")
    found = json.loads(run(*asked, "--json")[1])
    assert (found["trials"], found["length"], found["every"], found["at_once"]) == (16, [64, 64], 1, 4)
    assert [rung["step"] for rung in found["rungs"]] == [1, 4, 16]
    assert found["whole"] == {"steps": 1024, "worker_s": 512.0, "dollars": pytest.approx(0.512)}
    assert found["about"]["steps"] <= found["most"]["steps"] <= 1024
    said = run(*asked)[1]
    assert "worker-seconds" in said
    assert "dollars" in said
    assert sorted(tmp_path.iterdir()) == before


def test_a_dry_run_tries_the_task(run: Run, written: Path, tmp_path: Path) -> None:
    (tmp_path / "small_task.py").write_text(TASK.replace("self.width = width", "raise ValueError('no width')"))
    code, _, said = run("sweep", str(written), "--dry-run")
    assert code == BAD_INPUT, "as of `headway train`: nothing was started"
    assert "no width" in said
    assert "arguments.width=" in said, "with the settings that it was tried with"
    assert not (tmp_path / "runs").exists()


def test_without_a_pace_steps_are_said_and_how_to_have_more() -> None:
    found = preview.preview(sweep())
    assert found.most is not None
    assert (found.most.worker_s, found.most.dollars, found.seconds) == (None, None, None)
    assert any("--pace" in note for note in found.notes)


@pytest.mark.parametrize(
    ("scheduler", "steps"),
    [
        ("none", 16 * 64),
        ({"name": "asha", "first": 4, "promote": False}, 16 * 64),
        ("median", 16 * 64),
    ],
)
def test_at_worst_no_trial_ends_early(scheduler: Any, steps: int) -> None:
    found = preview.preview(sweep(scheduler=scheduler))
    assert found.most is not None
    assert found.most.steps == steps


def test_a_population_has_an_end_and_a_note() -> None:
    found = preview.preview(sweep(scheduler={"name": "pbt", "every": 8}))
    assert found.most is not None
    assert found.most.steps >= 16 * 64 / 2
    assert any("goes back to the steps of better trials" in note for note in found.notes)


def test_promotion_takes_no_more_than_its_share_by_chance_and_more_at_worst() -> None:
    found = preview.preview(sweep(trials=64, scheduler={"name": "asha", "first": 1, "factor": 4}))
    assert [rung.step for rung in found.rungs] == [1, 4, 16]
    assert found.rungs[0].most == found.rungs[0].about == 64
    assert found.rungs[1].about <= 32
    assert found.rungs[1].most > found.rungs[1].about
    assert found.whole is not None
    assert found.about is not None
    assert found.most is not None
    assert found.about.steps < found.most.steps < found.whole.steps == 64 * 64


def test_repeats_cost_as_often() -> None:
    once, thrice = (preview.preview(sweep(repeats=n, scheduler="none")).most for n in (1, 3))
    assert once is not None
    assert thrice is not None
    assert thrice.steps == 3 * once.steps


def test_a_grid_is_counted() -> None:
    space = {"optimizer.lr": {"grid": [0.1, 0.2, 0.3]}, "arguments.width": {"choice": [4, 8]}}
    tree = {key: each for key, each in SWEEP.items() if key != "trials"}
    found = preview.preview(file.taken({**tree, "job": JOB, "search": "grid", "space": space}))
    assert found.trials == 6
    assert any("fewer than trials=16" in note for note in preview.preview(sweep(search="grid", space=space)).notes)


def test_the_budget_ends_it() -> None:
    price = {"price_per_worker_hour": 1.0, "scheduler": "none"}
    found = preview.preview(sweep(budget={"worker_hours": 0.01}, **price), 1.0)
    assert found.most is not None
    assert (found.most.steps, found.most.worker_s, found.most.dollars) == (36, pytest.approx(36), pytest.approx(0.01))
    found = preview.preview(sweep(budget={"steps": 200}, scheduler="none"))
    assert found.most is not None
    assert 200 <= found.most.steps < 200 + 64, "a trial goes on to its gate"
    found = preview.preview(sweep(trials=None, budget={"dollars": 1}, **price), 1.0)
    assert found.trials is None
    assert found.most is not None
    assert found.most.dollars == pytest.approx(1.0)


def test_lanes_that_do_not_divide_cost_more_at_worst() -> None:
    found = preview.preview(sweep({"lanes": 4, "workers": {"min": 1, "max": 3}}, scheduler="none"), 1.0)
    assert found.most is not None
    assert found.most.worker_s == pytest.approx(1024 * 3 * 2 / 4)


def test_rare_evaluations_are_noted() -> None:
    notes = preview.preview(sweep({"evaluate_every_steps": 32})).notes
    assert any("--set job.evaluate_every_steps=" in note for note in notes)
    assert not any("evaluate_every_steps" in note for note in preview.preview(sweep()).notes)


def test_what_trials_have_in_common_is_said(written: Path) -> None:
    space = "space={schedule.name: {constant: linear}, schedule.warmup_steps: {constant: 10}, steps: {grid: [40, 80]}}"
    found = preview.preview(file.load(written, ["search=grid", space]))
    assert found.shared.startswith("1 of 2 trials begin as another does: ")
    assert found.shared.endswith(" of 120 steps")
    assert any("share_prefix: true would run" in note for note in found.notes)
    apart = preview.preview(sweep(share_prefix=True))
    assert apart.shared == ""
    assert any("nothing in common" in note for note in apart.notes)


def test_thousands_of_trials_are_in_proportion() -> None:
    found = preview.preview(sweep(trials=100_000, scheduler="none"))
    assert found.most is not None
    assert found.most.steps == 100_000 * 64


# How long trials are


def test_lengths_come_from_the_data_where_the_job_counts_in_epochs(written: Path) -> None:
    given = ["job.steps=null", "job.epochs=3", "job.evaluate_every_steps=null"]
    ways = Ways(file.load(written, given))
    assert (ways.lengths.steps, ways.lengths.every) == (3 * math.ceil(100 / 32), 4)
    ways = Ways(file.load(written, [*given, "space.lane_batch={choice: [4, 8]}"]))
    assert [ways({"optimizer.lr": 0.01, "lane_batch": batch}).length for batch in (4, 8)] == [21, 12]


def test_a_budget_below_one_trial_is_refused_also_of_a_job_in_epochs(written: Path) -> None:
    given = ["job.steps=null", "job.epochs=3", "job.evaluate_every_steps=null", "repeats=2"]
    with pytest.raises(BadInput, match=r"budget.steps=23 is below one trial: the shortest has 24 steps in its 2 runs"):
        preview.preview(file.load(written, [*given, "budget.steps=23"]))
    preview.preview(file.load(written, [*given, "budget.steps=24"]))


def test_an_option_that_an_optimiser_does_not_take_is_refused_unless_it_has_a_condition() -> None:
    space: dict[str, Any] = {"optimizer.name": {"choice": ["sgd", "adamw"]}}
    free = {"optimizer.momentum": {"uniform": [0, 0.9]}}
    with pytest.raises(BadInput, match=r"optimizer adamw with .*momentum.* Give the key a condition"):
        preview.preview(sweep(space=space | free))
    bound = {"optimizer.momentum": {**free["optimizer.momentum"], "when": {"optimizer.name": "sgd"}}}
    preview.preview(sweep(space=space | bound))


def test_no_data_are_looked_at_where_the_job_counts_in_steps() -> None:
    assert Ways(sweep()).lengths.steps == 64


def test_a_run_shows_its_pace_or_is_told_that_it_cannot() -> None:
    class Told:
        run, steps, ledger_s = "r", 10, {"compute": 4.0, "communication": 1.0, "start": 9.0}

    assert preview.pace_of(Told) == 0.5
    Told.steps = 0
    with pytest.raises(BadInput, match="--pace r"):
        preview.pace_of(Told)
