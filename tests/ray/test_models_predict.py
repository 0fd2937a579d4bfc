"""A prediction as a Ray Data job: the same rows and bits as in one process; one that is broken off goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.unit.trained import TASK, points, trained

import headway
from headway.data.write.sizing import Sizes
from headway.data.write.writer import write_dataset
from headway.errors import UserCodeFailed
from headway.models import sources

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.usefixtures("connected")]
FRAGILE = """        import os
        if (batch["x"][:, 0] > 100).any() and os.path.exists("FLAG"):
            raise LookupError("more than a hundred")
"""


def test_it_is_what_one_process_makes_and_goes_on_after_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "PART_ROWS", 100)
    task = TASK.replace("    def predict(self, model, batch):\n", f"    def predict(self, model, batch):\n{FRAGILE}")
    task = task.replace("FLAG", str(tmp_path / "flag"))
    run = trained(tmp_path, task, points(tmp_path / "data"))
    chance = np.random.default_rng(5)

    def written(name: str, last: float) -> Path:
        columns = {"a": chance.normal(size=1000), "b": chance.normal(size=1000)}
        columns["a"][-1] = last
        write_dataset(tmp_path / name, [pa.table(columns)], name=name, source="made", sizes=Sizes(50, None))
        return tmp_path / name

    data, odd, told = written("data1", 0.0), written("data2", 1e6), []
    wanted = headway.predict(run.path, data, batch=32).table

    def say(done: int, of: Any) -> None:
        told.append((done, of))

    made = headway.predict(run.path, data, tmp_path / "out", batch=32, address="local", say=say)
    assert (made.rows, made.before) == (1000, 0)
    assert told[-1] == (1000, 1000)
    assert len(list((tmp_path / "out").glob("part-*"))) == 10
    assert pq.read_table(tmp_path / "out").equals(wanted)

    (tmp_path / "flag").touch()
    with pytest.raises(UserCodeFailed, match="LookupError: more than a hundred") as caught:
        headway.predict(run.path, odd, tmp_path / "odd", batch=32, address="local")
    assert "points.py" in caught.value.traceback
    (tmp_path / "flag").unlink()
    made = headway.predict(run.path, odd, tmp_path / "odd", batch=32, address="in-process")
    assert made.rows == 1000
    assert pq.read_table(tmp_path / "odd")["row"].to_pylist() == list(range(1000))
