"""Parquet that is read where it is encoded: when that may be, and which rows are read together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq
import pytest

import headway
from headway.data.prepare.sources.delimited import plan_csv
from headway.data.prepare.sources.listing import Plan
from headway.data.prepare.sources.tables import plan_parquet
from headway.data.prepare.stages import pipeline
from headway.data.prepare.steps.filters import Filter
from headway.data.prepare.steps.recipe import Recipe
from headway.data.write.sizing import Sizes
from headway.driver import attach


def table(rows: int) -> pa.Table:
    return pa.table({"id": np.arange(rows), "x": np.arange(rows) / 7})


def plan(folder: Path, *files: tuple[int, int]) -> Plan:
    """Files of so many rows in row groups of so many."""
    paths = [folder / f"{number}.parquet" for number in range(len(files))]
    for path, (rows, group_rows) in zip(paths, files, strict=True):
        pq.write_table(table(rows), path, row_group_size=group_rows)
    return plan_parquet(paths)


def counted(found: Plan, recipe: Recipe | None = None, row_group_rows: int = 300) -> int | None:
    return pipeline.counted(found, recipe or Recipe(), found.schema, Sizes(row_group_rows))


@pytest.mark.parametrize("first", [0, 1])
def test_every_row_is_read_once_and_in_order(first: int, tmp_path: Path) -> None:
    found = plan(tmp_path, (3000, 170), (0, 10), (1, 1), (5000, 2048), (2000, 1))
    rows_per_task = counted(found)
    assert rows_per_task == 64 * 300
    runs = [run for _, run in pipeline.unread(found, Recipe(), found.schema, first, rows_per_task)]
    rows = pa.concat_tables([run.block.read() for run in runs])
    wanted = np.concatenate([np.arange(rows) for rows in (3000, 0, 1, 5000, 2000)[first:]])
    assert rows["id"].to_pylist() == wanted.tolist()
    assert all(run.block.read().num_rows == run.rows for run in runs)
    assert len(runs) < 8, "many small row groups are read together"
    at: dict[int, int] = {}
    for run in runs:
        assert run.offset == at.get(run.piece, 0)
        at[run.piece] = run.offset + run.rows


def test_not_where_the_sources_row_groups_are_large(tmp_path: Path) -> None:
    """A task would read them in whole for a few of their rows."""
    found = plan(tmp_path, (3000, 1000))
    assert counted(found, row_group_rows=32) == 2048
    assert counted(found, row_group_rows=31) is None


def test_not_where_rows_are_wide_though_they_are_packed_well(tmp_path: Path) -> None:
    """What a footer calls the size of a row group is that of its encoded bytes."""
    words = ["a" * 600 + "bcd"[number % 3] for number in range(80_000)]
    pq.write_table(pa.table({"word": words}), tmp_path / "0.parquet")
    found = plan_parquet([tmp_path / "0.parquet"])
    assert pq.read_metadata(tmp_path / "0.parquet").row_group(0).total_byte_size < 1 << 20
    assert pipeline.counted(found, Recipe(), found.schema, Sizes()) is None


def test_not_where_rows_are_left_out_or_not_numbered(tmp_path: Path) -> None:
    found = plan(tmp_path, (3000, 100))
    assert counted(found) is not None
    assert counted(found, Recipe(filter=Filter("x < 3"))) is None
    assert counted(found, Recipe(shuffle=True)) is None
    csv.write_csv(table(10), tmp_path / "0.csv")
    assert counted(plan_csv([tmp_path / "0.csv"])) is None
    assert counted(plan(tmp_path, (0, 10))) is None


def test_a_cluster_gets_the_whole_of_headway() -> None:
    """Whatever folder the module that says so lies in."""
    (package,) = attach.shipped()["py_modules"]
    assert Path(package) == Path(headway.__file__).parent
