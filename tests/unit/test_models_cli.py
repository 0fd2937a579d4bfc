"""`headway evaluate` and `headway predict` as commands: one JSON object on standard output, notes on standard error."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
from tests.unit.trained import TASK, points, trained
from typer.testing import CliRunner

from headway.cli.app import app


def test_both_commands(tmp_path: Path) -> None:
    data = points(tmp_path / "data")
    run = trained(tmp_path, TASK, data)
    runs = ["--runs", str(run.path.parent)]
    told = CliRunner().invoke(app, ["evaluate", "r", str(data / "val"), "--json", *runs], catch_exceptions=False)
    found = json.loads(told.stdout)
    assert found["rows"] == 24
    assert sum(map(sum, found["confusion"])) == 24
    shown = CliRunner().invoke(app, ["evaluate", "r", str(data / "val"), *runs], catch_exceptions=False).stdout
    assert "accuracy: " in shown
    assert "true class in rows, predicted in columns:" in shown
    command = ["predict", "r", str(data / "val"), "--out", str(tmp_path / "out"), "--keep", "a, y", "--json", *runs]
    made = json.loads(CliRunner().invoke(app, command, catch_exceptions=False).stdout)
    assert (made["rows"], made["before"], made["out"]) == (24, 0, str(tmp_path / "out"))
    assert pq.read_table(tmp_path / "out").column_names == ["row", "a", "y", "class", "scores"]
    again = json.loads(CliRunner().invoke(app, command, catch_exceptions=False).stdout)
    assert again["before"] == 24
