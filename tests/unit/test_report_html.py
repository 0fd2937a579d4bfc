"""`headway report --html`: of runs that were trained, one by one and side by side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import make_dataset
from tests.unit.in_process import STEPS, Ground


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Ground:
    """Two runs that differ in their seed."""
    folder = tmp_path_factory.mktemp("ground")
    make_dataset(folder / "data" / "train", (24, 16), (24,))
    make_dataset(folder / "data" / "val", (16,))
    made = Ground(folder, folder / "data")
    made.train(made.job(), name="first")
    made.train(made.job() | {"seed": 11}, name="second")
    return made


def test_the_page_of_a_run(ground: Ground, run: Any, tmp_path: Path) -> None:
    code, out, said = run("report", "first", "--runs", str(ground.runs), "--html", "first.html")
    assert code == 0, said
    assert out.startswith("first.html: 0.")
    text = (tmp_path / "first.html").read_text()
    for told in ("64 rows", f"{STEPS}", "accuracy", "No worker was lost", f"{ground.folder}/task.py"):
        assert told in text, told


def test_of_what_is_sent_round_nobody_learns_where_it_ran(ground: Ground, run: Any, tmp_path: Path) -> None:
    code, out, said = run(
        "report", "first", "--runs", str(ground.runs), "--html", "out/first.html", "--redact", "--json"
    )
    assert code == 0, said
    told = json.loads(out)
    text = (tmp_path / told["page"]).read_text()
    assert len(text.encode()) == told["bytes"]
    assert str(ground.folder) not in text
    assert ground.folder.name not in text
    assert "were left out" in text


def test_two_runs_side_by_side(ground: Ground, run: Any, tmp_path: Path) -> None:
    code, _, said = run("report", "first", "second", "--runs", str(ground.runs), "--html", "both.html")
    assert code == 0, said
    text = (tmp_path / "both.html").read_text()
    assert text.index(">seed<") < text.index('id="curves"')
    assert ">11<" in text


def test_a_page_that_cannot_be_written_is_said(ground: Ground, run: Any, tmp_path: Path) -> None:
    code, _, said = run("report", "first", "--runs", str(ground.runs), "--html", str(tmp_path))
    assert (code, "it is a folder" in said) == (2, True)
