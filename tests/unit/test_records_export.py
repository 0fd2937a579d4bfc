"""`headway records export`: all that a run has recorded, as Parquet."""

from __future__ import annotations

import datetime
import json
import math
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from tests.pages import links, strange
from typer.testing import CliRunner

from headway.cli.app import app
from headway.errors import BadInput
from headway.records import export
from headway.records import reading as readings
from headway.records.tables import SCHEMAS
from headway.runs import RunFolder

T0 = 1_700_000_000.25
PAGE = Path(__file__).parents[2] / "docs" / "see-records.md"


def lines(path: Path, *entries: dict[str, Any] | str) -> None:
    made = [entry if isinstance(entry, str) else json.dumps(entry) for entry in entries]
    path.write_text("".join(line + "\n" for line in made))


def step(number: int, **more: Any) -> dict[str, Any]:
    made = {"step": number, "epoch": 0, "loss": 1 / (number + 1), "lr": 0.1, "rows": 8, "time": T0 + number}
    return {**made, "samples": "ab", **more}


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    folder = tmp_path / "runs" / "r"
    folder.mkdir(parents=True)
    found = RunFolder(folder)
    found.write({"run": "r", "state": "finished", "created": T0})
    recovery = {"kind": "recovery", "time": T0 + 5, "cause": "process_died", "workers": ["w1"], "generation": 2}
    recovery |= {"step": 3, "detected_at": T0 + 4, "resumed_at": T0 + 5, "silent_s": 1, "pause_s": 1.5, "lost_steps": 0}
    lines(folder / "steps.jsonl", *(step(number) for number in range(5)))
    lines(
        folder / "metrics.jsonl",
        {"step": 4, "time": T0, "values": {"accuracy": 0.5, "f1": 1}, "tables": {"confusion": [[1, 2], [3, 4]]}},
        {"step": 5, "time": T0, "values": {"mine": -1.0}},
    )
    lines(folder / "events.jsonl", {"kind": "start", "time": T0, "step": 0}, recovery, {"kind": "end", "time": T0 + 9})
    lines(folder / "ledger.jsonl", {"time": T0, "step": 2, "seconds": {"compute": 3.0, "idle": 1}})
    nodes = {"n0": {"cpu": 0.5, "memory": 0.25, "received": 10}, "n1": {"cpu": 1, "gpu": 0.75}}
    lines(folder / "nodes.jsonl", {"time": T0, "step": 2, "seconds": 10, "nodes": nodes})
    logged = {"step": 1, "time": T0, "name": "notes", "kind": "text", "path": "logged/notes/1.txt", "bytes": 3}
    lines(folder / "logged.jsonl", {**logged, "mime": "text/plain", "caption": "c"})
    return found


def rows(folder: Path, name: str) -> list[dict[str, Any]]:
    table = pq.read_table(folder / f"{name}.parquet")
    assert table.schema.remove_metadata().equals(SCHEMAS[name])
    found: list[dict[str, Any]] = table.to_pylist()
    return found


def when(seconds: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC)


def test_every_table_has_what_the_run_has(run: RunFolder, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = export(run, out)
    wanted = {"steps": 5, "metrics": 4, "events": 3, "recoveries": 1, "ledger": 2, "nodes": 2}
    assert done.rows == {**wanted, "checkpoints": 0, "logged": 1}
    assert done.damaged == {}
    assert sorted(path.name for path in out.iterdir()) == sorted(f"{name}.parquet" for name in SCHEMAS)
    steps = rows(out, "steps")
    assert [row["step"] for row in steps] == list(range(5))
    assert steps[3]["time"] == when(T0 + 3)
    assert [(r["name"], r["value"], r["table"]) for r in rows(out, "metrics")] == [
        ("accuracy", 0.5, None),
        ("f1", 1.0, None),
        ("confusion", None, "[[1, 2], [3, 4]]"),
        ("mine", -1.0, None),
    ]
    (lost,) = rows(out, "recoveries")
    assert (lost["cause"], lost["workers"], lost["pause_s"]) == ("process_died", ["w1"], 1.5)
    assert lost["resumed_at"] == when(T0 + 5)
    assert json.loads(rows(out, "events")[1]["details"])["generation"] == 2
    assert rows(out, "ledger")[1]["seconds"] == 1.0
    nodes = [(row["node"], row["cpu"], row["gpu"]) for row in rows(out, "nodes")]
    assert nodes == [("n0", 0.5, None), ("n1", 1.0, 0.75)]
    about = pq.read_schema(out / "steps.parquet").metadata
    assert about[b"headway.run"] == b"r"


def test_a_run_of_an_earlier_release_has_empty_tables(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.write({"run": "r", "metrics": [{"step": 3, "values": {"accuracy": 0.5}}]})
    done = export(run, tmp_path / "out")
    assert {name for name, found in done.rows.items() if found} == {"metrics"}
    (row,) = rows(tmp_path / "out", "metrics")
    assert (row["step"], row["time"], row["value"]) == (3, None, 0.5)
    for name in SCHEMAS.keys() - {"metrics"}:
        assert rows(tmp_path / "out", name) == []


def test_damaged_lines_are_left_out_and_counted(run: RunFolder, tmp_path: Path) -> None:
    torn = json.dumps(step(3))[:20]
    odd = ["[1, 2]", "\x00\x00", json.dumps({**step(9), "step": "nine"})]
    lines(run.path / "steps.jsonl", step(0), torn, step(1, loss=math.nan), *odd, step(2, more=1))
    with (run.path / "steps.jsonl").open("a") as file:
        file.write('{"step": 3, "ep')  # under way
    lines(run.path / "metrics.jsonl", {"step": 1, "time": T0}, {"step": 2, "time": T0, "values": {"a": "x"}}, "{}")
    done = export(run, tmp_path / "out")
    assert [row["step"] for row in rows(tmp_path / "out", "steps")] == [0, 1, 2]
    assert math.isnan(rows(tmp_path / "out", "steps")[1]["loss"])
    assert done.damaged == {"steps": 4, "metrics": 3}
    assert done.rows["metrics"] == 0


def test_it_is_read_a_stretch_at_a_time(run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readings, "BLOCK_BYTES", 1000)
    lines(run.path / "steps.jsonl", *(step(number) for number in range(500)), step(500, samples="x" * 5000), step(501))
    export(run, tmp_path / "out")
    assert [row["step"] for row in rows(tmp_path / "out", "steps")] == list(range(502))
    assert pq.ParquetFile(tmp_path / "out" / "steps.parquet").num_row_groups > 10


def test_an_export_takes_the_place_of_the_one_before(run: RunFolder, tmp_path: Path) -> None:
    export(run, tmp_path / "out")
    lines(run.path / "steps.jsonl", step(0))
    export(run, tmp_path / "out")
    assert len(rows(tmp_path / "out", "steps")) == 1
    assert not list((tmp_path / "out").glob(".*"))


def test_a_place_that_cannot_be_written_is_named(run: RunFolder, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BadInput, match="cannot be written") as caught:
        export(run, tmp_path / "file" / "out")
    assert "--to" in caught.value.remedy


def test_the_command(run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["records", "export", "r"])
    assert done.exit_code == 0, done.output
    assert done.output.startswith("r-records: ")
    assert "steps 5" in done.output
    told = CliRunner().invoke(app, ["records", "export", "r", "--to", "elsewhere", "--json"])
    assert json.loads(told.output)["rows"]["steps"] == 5
    assert (tmp_path / "elsewhere" / "steps.parquet").is_file()


def test_the_page_names_commands_that_there_are() -> None:
    assert strange(PAGE) == []
    assert links(PAGE) == []
