"""`headway export`: a folder that is used without the run, and without Headway where the task's code allows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq
import pytest
from tests.unit.trained import TASK, points, trained

import headway
from headway.data.write.writer import write_dataset
from headway.errors import BadInput
from headway.runs import RunFolder

pytest.importorskip("safetensors")

WITHOUT = """
import importlib.util, runpy, sys
ours = sys.argv.pop(1)
sys.path[:] = [path for path in sys.path if not path.startswith(ours)]
sys.meta_path[:] = [finder for finder in sys.meta_path if "editable" not in getattr(finder, "__name__", "")]
assert importlib.util.find_spec("headway") is None
sys.argv[:] = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
print("headway from", sys.modules["headway"].__file__)
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return points(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, data: Path) -> RunFolder:
    return trained(tmp_path_factory.mktemp("run"), TASK, data)


def rows(count: int = 50) -> pa.Table:
    chance = np.random.default_rng(5)
    return pa.table({"a": chance.normal(size=count), "b": chance.normal(size=count)})


def used(folder: str | Path, table: pa.Table | None, tmp_path: Path) -> tuple[pa.Table, str]:
    """What its predict.py makes of the rows, in a process that has no Headway."""
    if table is not None:
        csv.write_csv(table, tmp_path / "rows.csv")
    ours = str(Path(headway.__file__).parents[1])
    command = [sys.executable, "-c", WITHOUT, ours, f"{folder}/predict.py", "rows.csv", "out.parquet"]
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return pq.read_table(tmp_path / "out.parquet"), done.stdout


def same(found: pa.Table, wanted: Any) -> None:
    assert wanted is not None
    assert found.column_names == wanted.column_names[1:]
    for name in found.column_names:
        assert np.allclose(np.stack(found[name].to_pylist()), np.stack(wanted[name].to_pylist()), atol=1e-6)


def test_it_predicts_without_headway_what_the_run_does(run: RunFolder, tmp_path: Path) -> None:
    made = headway.export(run.path, tmp_path / "out", step=4)
    assert made.needs_headway == ""
    found, said = used(made.out, rows(), tmp_path)
    same(found, headway.predict(run.path, rows(), step=4).table)
    assert f"headway from {made.out}/without/headway/__init__.py" in said
    assert "50 predictions" in said


ODD = TASK.replace('table["a"].to_numpy(),', 'table["a"].cast("double").to_numpy() + table["when"].null_count,')


def test_columns_of_every_type_and_text_over_lines(tmp_path: Path) -> None:
    chance = np.random.default_rng(0)
    for name in ("train", "val"):
        a, b = chance.integers(0, 900, 64), chance.normal(size=64)
        columns = {
            "a": pa.array(a / 4).cast(pa.decimal128(5, 2), safe=False),
            "b": b,
            "when": pa.array(range(64), pa.timestamp("us", "Europe/Berlin")),
            "y": (b > 0).astype(np.int64),
        }
        write_dataset(tmp_path / name, [pa.table(columns)], name=name, source="made", label="y")
    run = trained(tmp_path, ODD, tmp_path)
    made = headway.export(run.path, tmp_path / "out")
    table = pa.table(
        {"a": ["1.25", "2.50"], "b": [0.5, 1.5], "note": ["two\nlines", "one"], "when": ["2020-01-01"] * 2}
    )
    found, said = used(made.out, table, tmp_path)
    assert "2 predictions" in said
    same(found, headway.predict(run.path, tmp_path / "rows.csv").table)
    text = (tmp_path / "rows.csv").read_text()
    (tmp_path / "rows.csv").write_text(text.replace(",", ";"))
    same(used(made.out, None, tmp_path)[0], headway.predict(run.path, tmp_path / "rows.csv").table)


def test_the_card_and_the_digests(run: RunFolder, tmp_path: Path) -> None:
    made = headway.export(run.path, tmp_path / "out")
    text = (tmp_path / "out" / "README.md").read_text()
    about = json.loads((tmp_path / "out" / "export.json").read_text())
    assert about["checkpoint"] in text
    assert f"| accuracy | {about['metrics']['accuracy']:.6g} |" in text
    assert "`a` (double), `b` (double)" in text
    assert {"README.md", "predict.py", "model.safetensors", "code/points.py"} <= about["files"].keys()
    assert made.bytes > 1000
    (tmp_path / "out" / "code" / "points.py").write_text("")
    with pytest.raises(AssertionError, match="is not the file that was exported"):
        used(tmp_path / "out", rows(), tmp_path)


BESIDE = (
    TASK.replace("self.width = width", "self.width = width\n        self.heads = [nn.Linear(2, 2)]").replace(
        'model(batch["x"])', 'self.heads[0](model(batch["x"]))'
    )
    + """
    def optimizer(self, model):
        return torch.optim.SGD([*model.parameters(), *self.heads[0].parameters()], lr=0.1)
"""
)
TIED = TASK.replace(
    "return nn.Sequential(nn.Linear(2, self.width), nn.BatchNorm1d(self.width), nn.ReLU(), nn.Linear(self.width, 2))",
    "a = nn.Linear(2, 2)\n        b = nn.Linear(2, 2)\n        b.weight = a.weight\n        return nn.Sequential(a, b)",
)


@pytest.mark.parametrize("task", [BESIDE, TIED])
def test_modules_beside_the_model_and_tied_weights(tmp_path: Path, data: Path, task: str) -> None:
    other = trained(tmp_path, task, data)
    made = headway.export(other.path, tmp_path / "out", step="last")
    found, _ = used(made.out, rows(), tmp_path)
    same(found, headway.predict(other.path, rows(), step="last").table)


def test_what_needs_headway_says_so(tmp_path: Path, data: Path) -> None:
    other = trained(tmp_path, TASK + "\n\ndef start():\n    headway.train('job.yaml')\n", data)
    made = headway.export(other.path, tmp_path / "out")
    assert made.needs_headway == "headway.driver.run"
    assert "Headway has to be installed" in (tmp_path / "out" / "README.md").read_text()


def test_a_folder_that_is_there_is_left_alone(run: RunFolder, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(BadInput, match="already exists"):
        headway.export(run.path, tmp_path / "out")
    with pytest.raises(BadInput, match="no checkpoint of step 5"):
        headway.export(run.path, tmp_path / "new", step=5)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
