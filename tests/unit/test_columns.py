"""Records read in columns: as they are, torn, damaged, of earlier releases."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests import run_records

from headway.runs import columns


def test_steps_are_read_as_they_were_written(tmp_path: Path) -> None:
    told = run_records.steps(50)
    run_records.lines(tmp_path / "steps.jsonl", told)
    found = columns.steps(tmp_path / "steps.jsonl")
    assert found.step.tolist() == list(range(50))
    for name in ("epoch", "loss", "lr", "rows", "time"):
        assert getattr(found, name).tolist() == [line[name] for line in told]
    assert found.damaged == 0


def test_where_there_is_no_file_there_are_no_steps(tmp_path: Path) -> None:
    assert len(columns.steps(tmp_path / "steps.jsonl").step) == 0
    assert columns.measurements(tmp_path / "metrics.jsonl").by_name == {}


def test_a_torn_line_is_none_and_damaged_ones_are_counted(tmp_path: Path) -> None:
    whole = [json.dumps(line) for line in run_records.steps(6)]
    whole[2] = whole[2][:30]
    whole[4] = "\0" * 40
    text = "\n".join(whole) + "\n" + '{"step": 6, "loss": 1.0, "ro'
    (tmp_path / "steps.jsonl").write_text(text)
    found = columns.steps(tmp_path / "steps.jsonl")
    assert found.step.tolist() == [0, 1, 3, 5]
    assert found.damaged == 2


@pytest.mark.parametrize("line", ['{"loss": 1.0}', "[1, 2]", '"text"', "3", '{"step": "one"}', '{"step": null}', "{}"])
def test_a_line_without_a_step_is_damaged(tmp_path: Path, line: str) -> None:
    (tmp_path / "steps.jsonl").write_text('{"step": 0, "loss": 1.0}\n' + line + "\n")
    found = columns.steps(tmp_path / "steps.jsonl")
    assert (found.step.tolist(), found.damaged) == ([0], 1)


def test_what_an_earlier_release_did_not_tell_is_no_number(tmp_path: Path) -> None:
    (tmp_path / "steps.jsonl").write_text('{"step": 0, "loss": 1.0, "rows": 8}\n{"step": 1, "loss": NaN, "rows": 8}\n')
    found = columns.steps(tmp_path / "steps.jsonl")
    assert np.isnan(found.time).all()
    assert found.loss[0] == 1.0
    assert np.isnan(found.loss[1])
    assert found.rows.sum() == 16


def test_of_steps_that_came_again_the_newest_count(tmp_path: Path) -> None:
    run_records.lines(
        tmp_path / "steps.jsonl", [{"step": s, "loss": float(n)} for n, s in enumerate([0, 1, 2, 1, 2, 3])]
    )
    found = columns.steps(tmp_path / "steps.jsonl")
    assert found.step.tolist() == [0, 1, 2, 3]
    assert found.loss.tolist() == [0.0, 3.0, 4.0, 5.0]


@given(st.lists(st.sampled_from(["good", "torn", "zeros", "empty"]), max_size=30), st.integers(40, 400))
def test_it_is_the_same_in_chunks_of_any_size(
    tmp_path_factory: pytest.TempPathFactory, kinds: list[str], size: int
) -> None:
    path = tmp_path_factory.mktemp("chunks") / "steps.jsonl"
    good = [json.dumps(line) for line in run_records.steps(len(kinds) or 1)]
    odd = {"torn": "{", "zeros": "\0\0", "empty": ""}
    path.write_text("".join(f"{odd.get(kind, good[i])}\n" for i, kind in enumerate(kinds)))
    whole = columns.steps(path)
    before, columns.CHUNK_BYTES = columns.CHUNK_BYTES, size
    try:
        found = columns.steps(path)
    finally:
        columns.CHUNK_BYTES = before
    assert found.step.tolist() == whole.step.tolist() == [i for i, kind in enumerate(kinds) if kind == "good"]


def test_what_was_recorded_is_told_by_name(tmp_path: Path) -> None:
    told = [
        {"step": 5, "time": 1.0, "values": {"accuracy": 0.5, "count": 3}},
        {"step": 5, "time": 1.5, "values": {"temperature": 0.1}, "recorded": True},
        {"step": 9, "time": 2.0, "values": {"accuracy": None}, "tables": {"confusion": [[1, 2], [3, "x"]]}},
        {"step": 9, "time": 2.5, "values": {"accuracy": 0.75}},
    ]
    run_records.lines(tmp_path / "metrics.jsonl", told)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write("{damaged\n")
    found = columns.measurements(tmp_path / "metrics.jsonl", [{"step": 1, "values": {"accuracy": 0.25}}])
    accuracy = found.by_name["accuracy"]
    assert accuracy.step.tolist() == [1, 5, 9]
    assert accuracy.value.tolist() == [0.25, 0.5, 0.75]
    assert not accuracy.recorded
    assert found.by_name["temperature"].recorded
    assert found.by_name["count"].value.tolist() == [3.0]
    assert found.damaged == 1
    assert columns.newest_tables(tmp_path / "metrics.jsonl") == {"confusion": (9, [[1, 2], [3, "x"]])}


def test_lines_that_are_alike_are_read_in_columns_as_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = run_records.measured(2000, 3)
    run_records.lines(tmp_path / "metrics.jsonl", told)
    monkeypatch.setattr(columns, "_values_slowly", lambda *_: pytest.fail("each line was made an object"))
    found = columns.measurements(tmp_path / "metrics.jsonl").by_name
    assert found["accuracy"].value.tolist() == [line["values"]["accuracy"] for line in told]
    assert found["loss"].step.tolist() == [line["step"] for line in told]


@pytest.mark.parametrize("more", [{}, {"tables": {"confusion": [[1, "x"]]}}])
def test_what_the_task_recorded_under_an_evaluations_name_is_a_curve_of_its_own(
    tmp_path: Path, more: dict[str, Any]
) -> None:
    own = [{"step": s, "time": 1.0, "values": {"accuracy": 0.9}, "recorded": True} for s in range(1, 11)]
    found = [{"step": s, "time": 2.0, "values": {"accuracy": 0.5}, **more} for s in (5, 10)]
    told = sorted([*own, *found], key=lambda line: int(line["step"]))
    run_records.lines(tmp_path / "metrics.jsonl", told)
    by_name = columns.measurements(tmp_path / "metrics.jsonl").by_name
    assert {name: each.recorded for name, each in by_name.items()} == {"accuracy": False, "accuracy (recorded)": True}
    assert by_name["accuracy"].step.tolist() == [5, 10]
    assert by_name["accuracy"].value.tolist() == [0.5, 0.5]
    assert by_name["accuracy (recorded)"].step.tolist() == list(range(1, 11))
