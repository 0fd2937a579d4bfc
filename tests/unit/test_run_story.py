"""A run told as a document, whatever became of it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from tests import run_records
from tests.run_records import at, generation, lines, made, recovery, start

from headway import report
from headway.report import inputs
from headway.report.happenings import EVENTS, FOLDED, MARKS, Folded
from headway.report.shape import Story
from headway.report.story import tell
from headway.runs import RunFolder, find

GOLDEN = Path(__file__).parents[1] / "golden" / "story.json"


def test_a_run_under_fire_is_told_whole(tmp_path: Path) -> None:
    story = tell(made(tmp_path))
    head = story.headline
    assert (head.steps, head.total_steps, head.epochs, head.samples) == (100, 100, 2.0, 6400)
    assert (head.losses, head.joins, head.recoveries, head.repeated_steps) == (1, 1, 1, 0)
    assert (head.workers_max, head.worker_seconds, head.goodput) == (2, 40.0, 0.875)
    assert head.best is not None
    assert (head.best.metric, head.best.step) == ("accuracy", 100)
    loss = next(each for each in story.series if each.group == "loss")
    assert loss.step[0] == 1
    assert loss.step[-1] == 100
    assert loss.seconds[-1] == pytest.approx(at(100) - run_records.CREATED)
    assert {each.name for each in story.series if each.group == "validation"} == {"accuracy", "loss"}
    rate = next(each for each in story.series if each.group == "rate")
    assert rate.value == pytest.approx([640.0] * 99, rel=1e-3)
    assert [(size.step, size.workers, size.cause) for size in story.workers] == [
        (0, 2, "2 workers are ready"),
        (40, 1, "w1 is gone (process_died)"),
        (60, 2, "w2 joined"),
    ]
    assert [(each.step, each.lanes) for each in story.lanes] == [
        (0, [[0, 1], [2, 3]]),
        (40, [[0, 1, 2, 3]]),
        (60, [[0, 1], [2, 3]]),
    ]
    kinds = [mark.kind for mark in story.marks]
    assert kinds == ["start", "checkpoint", "lost", "joined", "checkpoint", "end"]
    assert story.ledger.seconds["compute"] == 30.0
    assert story.ledger.over_time.seconds == [6.0, 10.0, 15.0]
    assert story.ledger.over_time.causes["compute"] == [3.0, 15.0, 30.0]
    assert [(r.cause, r.pause_s, r.silent_s) for r in story.recoveries] == [
        ("process_died", 0.5, 0.1),
        ("joined", 0.1, 0.1),
    ]
    assert (story.task.description, story.task.model) == ("Digits, by a small net", "Sequential")
    assert story.reproduce.git == {"commit": "ab" * 20, "dirty": True}
    assert "git" not in story.environment
    assert set(story.reproduce.digests) == {"job", "code", "data.train", "samples"}
    assert f"git checkout {'ab' * 20}" in story.reproduce.commands
    assert "steps: 100" in story.job.yaml
    assert "prefetch" not in story.job.yaml


def test_a_story_is_json_and_comes_back(tmp_path: Path) -> None:
    steps = run_records.steps(10)
    steps[3]["loss"] = float("nan")
    steps[4]["loss"] = float("inf")
    run = made(tmp_path)
    lines(run.path / "steps.jsonl", steps)
    lines(run.path / "metrics.jsonl", [{"step": 5, "time": at(5), "values": {"accuracy": float("nan")}}])
    story = tell(run)
    tree = json.loads(json.dumps(story.model_dump(mode="json"), allow_nan=False))
    assert Story.model_validate(tree) == story
    loss = next(each for each in story.series if each.group == "loss")
    assert loss.value[3:5] == [None, None]


def test_the_fixture_has_the_shape() -> None:
    """Whoever changes the shape makes the fixture anew, and tells the page."""
    tree = json.loads(GOLDEN.read_text())
    story = Story.model_validate(tree)
    assert story.model_dump(mode="json") == tree
    assert {"lost", "joined", "start", "end"} <= {mark.kind for mark in story.marks}
    assert story.headline.starts == 3
    assert story.nodes
    assert story.ledger.over_time.seconds
    assert any(column.get("top") for data in story.data for column in data.columns)


def test_curves_are_thinned_with_their_extremes(tmp_path: Path) -> None:
    run = made(tmp_path)
    steps = run_records.steps(30_000)
    steps[12_345]["loss"] = 77.0
    lines(run.path / "steps.jsonl", steps)
    own = [
        {"step": s, "time": at(s), "values": {f"m{i}": s * i for i in range(30)}, "recorded": True} for s in range(600)
    ]
    lines(run.path / "metrics.jsonl", own)
    story = tell(run)
    assert all(len(each.step) == len(each.seconds) == len(each.value) <= 4000 for each in story.series)
    loss = next(each for each in story.series if each.group == "loss")
    assert loss.of == 30_000
    assert loss.value[loss.step.index(12_346)] == 77.0
    assert len(story.model_dump_json()) < 1_200_000


def test_a_rate_that_stays_is_told_by_where_it_changes(tmp_path: Path) -> None:
    run = made(tmp_path)
    steps = run_records.steps(100)
    for step in steps[60:]:
        step["lr"] = 0.01
    lines(run.path / "steps.jsonl", steps)
    rate = next(each for each in tell(run).series if each.name == "lr")
    assert list(zip(rate.step, rate.value, strict=True)) == [(1, 0.1), (60, 0.1), (61, 0.01), (100, 0.01)]


def test_a_run_that_has_only_a_name(tmp_path: Path) -> None:
    run = made(tmp_path, count=1, events=[], metrics=[])
    for path in (*run.path.glob("*.jsonl"), run.job_file):
        path.unlink()
    run.write({"run": "digits", "created": run_records.CREATED})
    story = tell(run)
    assert (story.run.state, story.headline.steps, story.series, story.headline.best) == ("interrupted", 0, [], None)
    assert story.words.how_well == "No step was committed."
    assert story.words.again == "How it was started is not recorded."


def test_a_run_without_validation_says_so(tmp_path: Path) -> None:
    job = {**run_records.JOB, "data": {"train": "/d"}, "checkpoint": {}}
    story = tell(made(tmp_path, metrics=[], job=job))
    assert story.headline.best is None
    assert story.evaluations == []
    assert "There was no validation set." in story.words.data
    assert story.words.how_well == "The training loss ended at 0.0381. It was not evaluated."


def test_a_run_of_an_earlier_release(tmp_path: Path) -> None:
    """Metrics and workers in run.json; no times of steps, no account over time, no digests, no environment."""
    run = made(tmp_path, events=[{"kind": "generation", "time": at(0), "members": ["w0"]}, {"kind": "odd"}])
    lines(run.path / "steps.jsonl", ({n: s[n] for n in ("step", "loss", "rows")} for s in run_records.steps(8)))
    (run.path / "metrics.jsonl").unlink()
    (run.path / "ledger.jsonl").unlink()
    told = {"run": "digits", "created": run_records.CREATED, "state": "finished", "ended": at(9), "ledger_s": {}}
    told |= {
        "metrics": [{"step": 4, "values": {"accuracy": 0.5}}],
        "workers": [{"step": 0, "workers": 3, "time": at(0)}],
    }
    run.write(told)
    run.spool.write_text(json.dumps({"kind": "run", "environment": {"python": "3.10.1"}}) + "\n")
    story = tell(run)
    assert story.headline.metrics == {"accuracy": 0.5}
    assert [size.workers for size in story.workers] == [3]
    assert (story.headline.worker_seconds, story.ledger.over_time.seconds) == (None, [])
    assert story.environment == {"python": "3.10.1"}
    assert next(each for each in story.series if each.group == "loss").seconds == [None] * 8
    assert not any(each.group == "rate" for each in story.series)
    assert story.words.cost == "What it cost is not recorded."


def test_damaged_lines_are_left_out_and_told(tmp_path: Path) -> None:
    run = made(tmp_path)
    with (run.path / "steps.jsonl").open("a") as file:
        file.write("\0\0\0\n" + json.dumps({**run_records.steps(101)[100]}) + "\n")
    for name in ("events", "ledger", "nodes", "logged"):
        with (run.path / f"{name}.jsonl").open("a") as file:
            file.write('{"time": "never", "nodes": 3, "kind": "recovery"}\n{"torn\n[]\n')
    story = tell(run)
    assert story.headline.steps == 101
    assert story.run.notes == ["1 lines of its records are damaged, and left out"]
    assert story.headline.recoveries == 1


def test_a_run_that_trains_is_told_as_far_as_it_is(tmp_path: Path) -> None:
    run = made(tmp_path, events=under_way(), state="running", ended=None, ledger_s=None)
    with run.led():
        story = tell(run)
        assert story.run.state == "running"
        assert story.run.seconds == pytest.approx(at(100) - run_records.CREATED)
        assert story.ledger.seconds["compute"] == 30.0
        assert report.load(run).goodput == 0.875
        assert "by now" not in story.words.how_long
        assert story.words.how_long == "Running after all 100 steps, 15 s after it was begun."
    assert tell(run).run.state == "interrupted"


def under_way() -> list[dict[str, Any]]:
    return run_records.under_fire()[:-1]


def test_restarts_are_counted_with_what_was_done_again(tmp_path: Path) -> None:
    events = [
        start(),
        *generation(1, 0, ["w0"], "1 worker is ready"),
        {"kind": "restart", "time": at(50), "from_step": 40, "lost_steps": 10},
        start(40),
        {"kind": "restart", "time": at(70), "from_step": 70, "lost_steps": 0, "kept": True},
        recovery("process_died", ["w0"], 71, kept=True),
    ]
    story = tell(made(tmp_path, events=events))
    assert (story.headline.starts, story.headline.repeated_steps) == (2, 10)
    assert story.recoveries[0].kept
    assert "10 steps were done again." in story.words.trouble
    assert "a checkpoint once" in story.words.trouble
    assert [mark.step for mark in story.marks if mark.kind == "restart"] == [40, 70]


def test_a_storm_is_folded_and_bounded(tmp_path: Path) -> None:
    events: list[dict[str, Any]] = [start()]
    for number in range(3000):
        step = number % 100
        events += generation(number + 1, step, [f"w{number}"], f"w{number} is gone (process_died)")
        events.append(recovery("process_died", [f"w{number}"], step))
        events.append({"kind": "checkpoint", "time": at(step), "step": step, "bytes": number})
    story = tell(made(tmp_path, events=events))
    assert story.headline.losses == 3000
    assert len(story.marks) <= MARKS
    assert story.marks[0].kind == "start"
    assert len(story.events) <= EVENTS
    assert sum(event.count for event in story.events) == 1 + 3 * 3000
    assert len(story.model_dump_json()) < 1_500_000


def test_alike_in_a_row_is_one_entry_and_checkpoints_never_come_between() -> None:
    folded = Folded()
    for number in range(5):
        folded.add(float(number), number, "warned", f"w{number} warns: text {number}")
        folded.add(number + 0.5, number, "checkpoint", f"the checkpoint of step {number} is written")
    folded.add(9.0, 9, "stop", "a signal asks the run to end")
    folded.add(10.0, 9, "warned", "w1 warns: text 1")
    assert [(e.words, e.count) for e in folded.entries()] == [
        ("w0 warns: text 0", 5),
        ("the checkpoint of step 0 is written", 5),
        ("a signal asks the run to end", 1),
        ("w1 warns: text 1", 1),
    ]


def test_a_list_that_cannot_be_folded_says_what_is_left_out() -> None:
    folded = Folded()
    for number in range(2000):
        folded.add(float(number), None, "note", "abcdefghij"[number % 10] * (number % 37 + 1))
    found = folded.entries()
    assert FOLDED < len(found) <= EVENTS + 1
    gap = [each.words for each in found if "left out here" in each.words]
    assert len(gap) == 1


def test_what_was_logged_comes_along_and_nothing_from_elsewhere(tmp_path: Path) -> None:
    run = made(tmp_path)
    (run.path / "logged" / "a").mkdir(parents=True)
    (run.path / "logged" / "a" / "1.png").write_bytes(b"\x89PNG old")
    (run.path / "logged" / "a" / "2.png").write_bytes(b"\x89PNG new")
    (run.path / "logged" / "t.json").write_text(json.dumps({"columns": ["x"], "data": [[1], [2]]}))
    (run.path / "logged" / "n.txt").write_text("y" * 20_000)
    (tmp_path / "secret").write_text("secret")
    png = {"name": "a", "kind": "figure", "mime": "image/png", "time": 1.0, "caption": "how it looks"}
    told = [
        {**png, "step": 1, "path": "logged/a/1.png"},
        {**png, "step": 2, "path": "logged/a/2.png"},
        {**png, "step": 2, "path": "logged/../../secret", "name": "b"},
        {**png, "step": 2, "path": "keeper.json", "name": "c", "kind": "text"},
        {"step": 2, "name": "t", "kind": "table", "path": "logged/t.json", "time": 1.0},
        {"step": 2, "name": "n", "kind": "text", "path": "logged/n.txt", "time": 1.0},
    ]
    lines(run.path / "logged.jsonl", told)
    found = {figure.name: figure for figure in tell(run).figures}
    assert (found["a"].data, found["a"].caption) == ("iVBORyBuZXc=", "how it looks")
    assert found["t"].table == {"columns": ["x"], "rows": [[1], [2]], "of": 2}
    assert len(found["n"].text) < 10_100
    for name in ("b", "c"):
        assert "is not there" in found[name].text
        assert not found[name].data


def test_machines_are_told_by_node(tmp_path: Path) -> None:
    run = made(tmp_path)
    node = {"cpu": 0.5, "memory": 0.25, "received": 10, "sent": 5, "read": 1, "written": 2}
    told = [{"time": at(s), "step": s, "seconds": 10, "nodes": {"n1": {**node, "cpu": s / 2000}}} for s in range(1000)]
    lines(run.path / "nodes.jsonl", told)
    (found,) = tell(run).nodes
    assert found["name"] == "n1"
    assert len(found["seconds"]) == len(found["cpu"]) <= 300
    assert (found["cpu"][0], found["cpu"][-1]) == (0.0, 0.499)
    assert found["network"][0] == 15
    assert "gpu" not in found


def test_ranges_of_columns_come_from_files_that_are_the_same(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from headway.data import manifest
    from headway.data.prepare import prepare
    from headway.runs import datasets

    pq.write_table(pa.table({"age": [3, 9, None], "y": ["a", "b", "a"]}), tmp_path / "rows.parquet")
    prepare(tmp_path / "rows.parquet", tmp_path / "set", label="y")
    found = manifest.load(tmp_path / "set")
    run = made(tmp_path)
    datasets.keep(run.path, {"train": (str(tmp_path / "set"), 1)}, {"train": found})
    run.write({**run.read(), "datasets": {"train": {"name": "set", "rows": 3, "version": 1, "digest": found.digest}}})
    columns = {column["name"]: column for column in tell(run).data[0].columns}
    assert columns["age"] == {"name": "age", "type": "int64", "missing": 1, "min": 3, "max": 9}
    assert columns["y"]["distinct"] == 2
    assert sorted(rows for _, rows in columns["y"]["top"]) == [1, 2]
    (tmp_path / "set" / "manifest.json").unlink()
    columns = {column["name"]: column for column in tell(find(tmp_path, "digits")).data[0].columns}
    assert columns["age"] == {"name": "age", "type": "int64"}


def test_an_infinite_value_in_a_column_is_no_bound_of_it(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    ranges: dict[str, dict[str, object]] = {}
    for values in ([-math.inf, 1.0], [2.0, 3.0], [1.0, math.inf]):
        pq.write_table(pa.table({"x": values}), tmp_path / "rows.parquet")
        inputs._add(ranges, pq.read_metadata(tmp_path / "rows.parquet"))
    assert ranges == {"x": {"missing": 0, "min": 1.0, "max": 3.0}}


def test_a_copy_of_a_folder_has_the_same_digest_of_code_and_other_code_another(tmp_path: Path) -> None:
    one, two = made(tmp_path, "one"), made(tmp_path, "two")
    (two.code / "__pycache__").mkdir()
    (two.code / "__pycache__" / "task.pyc").write_bytes(b"x")
    assert tell(one).job.code_digest == tell(two).job.code_digest
    (two.code / "more.py").write_text("")
    assert tell(one).job.code_digest != tell(RunFolder(two.path)).job.code_digest
