"""`headway predict` in one process: the same transform as in training, rows in their order, parts that are committed
one by one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq
import pytest
import torch
from tests.unit.trained import TASK, points, trained

import headway
from headway.data.write.sizing import Sizes
from headway.data.write.writer import write_dataset
from headway.errors import BadInput, UserCodeFailed
from headway.models import output, sources
from headway.runs import RunFolder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return points(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, data: Path) -> RunFolder:
    return trained(tmp_path_factory.mktemp("run"), TASK, data)


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "PART_ROWS", 20)


def rows(count: int = 50) -> pa.Table:
    chance = np.random.default_rng(5)
    columns = {"a": chance.normal(size=count), "b": chance.normal(size=count), "name": [f"r{i}" for i in range(count)]}
    return pa.table(columns)


def by_hand(run: RunFolder, table: pa.Table, step: str = "best") -> torch.Tensor:
    model, _ = headway.load_model(run.path, step)
    x = torch.tensor(np.stack([table["a"].to_numpy(), table["b"].to_numpy()], 1), dtype=torch.float32)
    with torch.inference_mode():
        scores: torch.Tensor = model(x).softmax(1)
    return scores


def test_a_table_in_memory(run: RunFolder) -> None:
    table = rows()
    made = headway.predict(run.path, table)
    assert made.table is not None
    assert made.rows == 50
    assert made.table.column_names == ["row", "class", "scores"]
    assert made.table["row"].to_pylist() == list(range(50))
    scores = np.stack(made.table["scores"].to_pylist())
    assert np.allclose(scores, by_hand(run, table).numpy(), atol=1e-6)
    assert made.table["class"].to_pylist() == scores.argmax(1).tolist()
    assert headway.predict(run.path, table.to_pandas()).table == made.table


def test_a_csv_and_what_is_kept_of_it(run: RunFolder, tmp_path: Path) -> None:
    csv.write_csv(rows(), tmp_path / "new.csv")
    made = headway.predict(run.path, tmp_path / "new.csv", tmp_path / "out", keep=["name"], step="last", batch=7)
    found = pd.read_parquet(tmp_path / "out")
    assert list(found.columns) == ["row", "name", "class", "scores"]
    assert found["name"].tolist() == [f"r{i}" for i in range(50)]
    assert np.allclose(np.stack(found["scores"].tolist()), by_hand(run, rows(), "last").numpy(), atol=1e-6)
    assert (made.rows, made.before, made.step, made.out) == (50, 0, 8, str(tmp_path / "out"))


def test_a_dataset_in_parts_in_its_order(run: RunFolder, tmp_path: Path, small_parts: None) -> None:
    write_dataset(tmp_path / "set", [rows()], name="set", source="made", sizes=Sizes(10, None))
    headway.predict(run.path, tmp_path / "set", tmp_path / "out", keep="all")
    parts = sorted(path.name for path in (tmp_path / "out").glob("part-*"))
    assert parts == ["part-00000.parquet", "part-00001.parquet", "part-00002.parquet"]
    found = pd.read_parquet(tmp_path / "out")
    assert found["row"].tolist() == list(range(50))
    assert found["name"].tolist() == [f"r{i}" for i in range(50)]
    told = json.loads((tmp_path / "out" / output.FILE).read_text())
    assert told["rows"] == 50
    assert [part["rows"] for part in told["parts"]] == [20, 20, 10]


def test_one_that_was_broken_off_goes_on_with_what_is_left(
    run: RunFolder, tmp_path: Path, small_parts: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_dataset(tmp_path / "set", [rows()], name="set", source="made", sizes=Sizes(10, None))
    whole = headway.predict(run.path, tmp_path / "set").table

    class Killed(BaseException):
        pass

    begun = output.write

    def write(storage: Any, number: int, tables: Any) -> Any:
        if number == 2:
            raise Killed
        return begun(storage, number, tables)

    with monkeypatch.context() as patched:
        patched.setattr(output, "write", write)
        with pytest.raises(Killed):
            headway.predict(run.path, tmp_path / "set", tmp_path / "out")
    first = (tmp_path / "out" / "part-00001.parquet").stat()
    made = headway.predict(run.path, tmp_path / "set", tmp_path / "out")
    assert (made.rows, made.before) == (50, 40)
    assert (tmp_path / "out" / "part-00001.parquet").stat() == first
    found = pq.read_table(tmp_path / "out")
    assert found["row"].to_pylist() == list(range(50))
    assert found.equals(whole)
    again = headway.predict(run.path, tmp_path / "set", tmp_path / "out")
    assert (again.rows, again.before) == (50, 50)


def test_a_part_without_its_note_does_not_count(run: RunFolder, tmp_path: Path) -> None:
    made = headway.predict(run.path, rows().to_pandas(), tmp_path / "out")
    told = json.loads((tmp_path / "out" / output.FILE).read_text())
    (tmp_path / "out" / output.FILE).write_text(json.dumps({k: v for k, v in told.items() if k != "parts"}))
    (tmp_path / "out" / "part-00000.parquet").write_bytes(b"torn")
    assert headway.predict(run.path, rows().to_pandas(), tmp_path / "out").before == 0
    assert pq.read_table(tmp_path / "out").num_rows == made.rows


def test_other_predictions_and_other_files_are_left_alone(run: RunFolder, tmp_path: Path) -> None:
    csv.write_csv(rows(), tmp_path / "new.csv")
    headway.predict(run.path, tmp_path / "new.csv", tmp_path / "out")
    with pytest.raises(BadInput, match=r"holds other predictions.*checkpoint"):
        headway.predict(run.path, tmp_path / "new.csv", tmp_path / "out", step=4)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.txt").write_text("")
    with pytest.raises(BadInput, match=r"is not empty.*a\.txt"):
        headway.predict(run.path, tmp_path / "new.csv", tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["a.txt"]


def test_somebody_elses_parquet_is_left_alone(run: RunFolder, tmp_path: Path) -> None:
    """What other tools write beside their parts begins with "_", as ours does."""
    csv.write_csv(rows(), tmp_path / "new.csv")
    theirs = {"_SUCCESS": b"", output.part_of(0): b"theirs"}
    (tmp_path / "spark").mkdir()
    for name, content in theirs.items():
        (tmp_path / "spark" / name).write_bytes(content)
    with pytest.raises(BadInput, match="is not empty"):
        headway.predict(run.path, tmp_path / "new.csv", tmp_path / "spark")
    assert {path.name: path.read_bytes() for path in (tmp_path / "spark").iterdir()} == theirs


def test_a_column_that_is_missing_is_named(run: RunFolder) -> None:
    with pytest.raises(BadInput, match=r"has no column 'b'.*trained on it.*It has: a, name") as caught:
        headway.predict(run.path, rows().drop_columns(["b"]))
    assert "points.py" in caught.value.traceback


def test_a_type_that_differs_is_named(run: RunFolder, tmp_path: Path) -> None:
    table = rows().set_column(0, "a", pa.array(["x"] * 50))
    with pytest.raises(BadInput, match=r"column 'a' of an Arrow table is string: it was double in training"):
        headway.predict(run.path, table)
    csv.write_csv(table, tmp_path / "new.csv")
    with pytest.raises(BadInput, match=r"new\.csv"):
        headway.predict(run.path, tmp_path / "new.csv")


def test_whole_numbers_in_a_csv_are_read_as_training_had_them(run: RunFolder, tmp_path: Path) -> None:
    (tmp_path / "new.csv").write_text("b,a\n1,2\n3,4\n")
    made = headway.predict(run.path, tmp_path / "new.csv").table
    assert made is not None
    assert np.allclose(
        np.stack(made["scores"].to_pylist()), by_hand(run, pa.table({"a": [2.0, 4.0], "b": [1.0, 3.0]})).numpy()
    )


def test_nothing_to_predict(run: RunFolder, tmp_path: Path) -> None:
    (tmp_path / "new.csv").write_text("a,b\n")
    for empty in (tmp_path / "new.csv", rows(0)):
        with pytest.raises(BadInput, match="no rows"):
            headway.predict(run.path, empty)
    with pytest.raises(BadInput, match="does not exist"):
        headway.predict(run.path, tmp_path / "other.csv")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ('return {"class": model(batch["x"]).argmax(1)[:-1]}', r"'class' with shape \(49,\) for 50 rows"),
        ('return {"mean": model(batch["x"]).mean()}', r"'mean' with shape \(\) for 50 rows"),
        ('return model(batch["x"])', "returned a Tensor"),
        ("return {}", "returned no names"),
        ('return {"name": model(batch["x"]).argmax(1)}', "gives 'name'"),
    ],
)
def test_what_predict_gives_is_looked_at(run: RunFolder, tmp_path: Path, body: str, words: str) -> None:
    other = with_predict(run, tmp_path, body)
    with pytest.raises(BadInput, match=words):
        headway.predict(other.path, rows(), keep=["name"])


def with_predict(run: RunFolder, tmp_path: Path, body: str) -> RunFolder:
    other = RunFolder(shutil.copytree(run.path, tmp_path / "runs" / run.name))
    path = other.code / "points.py"
    path.write_text(
        path.read_text().split("    def predict")[0] + f"    def predict(self, model, batch):\n        {body}\n"
    )
    return other


def test_text_may_be_predicted(run: RunFolder, tmp_path: Path) -> None:
    other = with_predict(run, tmp_path, 'return {"word": ["no" if n < 0 else "yes" for n in batch["x"][:, 0]]}')
    made = headway.predict(other.path, rows()).table
    assert made is not None
    assert made["word"].to_pylist() == ["no" if a < 0 else "yes" for a in rows()["a"].to_pylist()]


@pytest.mark.parametrize(
    ("first", "then", "words"),
    [
        ('{"t": [1] * 10}', '{"t": [1.5] * 10}', "gives t double for one batch: it gave t int64 for another"),
        ('{"t": [1] * 10}', '{"u": [1] * 10}', "gives u int64 for one batch"),
        ('{"t": torch.zeros(10, 2)}', '{"t": torch.zeros(10, 3)}', r"list<item: float>\[3\] for one batch"),
    ],
)
@pytest.mark.parametrize("out", [None, "out"])
def test_batches_are_predicted_alike(
    run: RunFolder, tmp_path: Path, first: str, then: str, words: str, out: str | None
) -> None:
    found = f"return {first} if batch['x'][0, 0] < 100 else {then}"
    other = with_predict(run, tmp_path, found)
    table = pa.table({"a": [0.0] * 10 + [100.0] * 10, "b": [0.0] * 20})
    with pytest.raises(BadInput, match=words):
        headway.predict(other.path, table, out and tmp_path / out, batch=10)


def test_texts_of_a_batch_may_all_be_missing(run: RunFolder, tmp_path: Path) -> None:
    found = 'return {"word": [None if x < 100 else "far" for x in batch["x"][:, 0]]}'
    table = pa.table({"a": [0.0] * 10 + [100.0] * 10, "b": [0.0] * 20})
    made = headway.predict(with_predict(run, tmp_path, found).path, table, batch=10).table
    assert made is not None
    assert made["word"].to_pylist() == [None] * 10 + ["far"] * 10


def test_a_task_without_predict(run: RunFolder, tmp_path: Path) -> None:
    other = RunFolder(shutil.copytree(run.path, tmp_path / "runs" / run.name))
    path = other.code / "points.py"
    path.write_text(path.read_text().split("    def predict")[0])
    with pytest.raises(BadInput, match="task Points of run r has no predict"):
        headway.predict(other.path, rows())


def test_what_predict_raises_is_its_own(run: RunFolder, tmp_path: Path) -> None:
    other = with_predict(run, tmp_path, 'raise LookupError("who?")')
    with pytest.raises(UserCodeFailed, match=r"LookupError: who\?") as caught:
        headway.predict(other.path, rows())
    assert "points.py" in caught.value.traceback
    assert "predicting.py" not in caught.value.traceback


def test_a_column_that_is_not_there_cannot_be_kept(run: RunFolder) -> None:
    with pytest.raises(BadInput, match="Did you mean 'name'"):
        headway.predict(run.path, rows(), keep=["nam"])
