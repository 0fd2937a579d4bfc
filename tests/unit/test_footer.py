"""Row groups encoded apart and joined are, byte for byte, the file that one writer would have written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headway.data.tensors import TensorType, column
from headway.data.write.encode import Labels, encoded
from headway.data.write.writer import Shards, shard_of


def table(start: int, rows: int) -> pa.Table:
    ids = np.arange(start, start + rows)
    return pa.table(
        {
            "id": ids,
            "x": pa.array(ids / 3, mask=ids % 5 == 0),
            "flag": ids % 2 == 0,
            "word": [f"w{i % 9}" for i in ids],
            "list": pa.array([[int(i)] * (i % 3) for i in ids], pa.list_(pa.int64())),
            "image": column((ids[:, None] * np.ones((1, 6)) % 251).astype(np.uint8)),
            "nothing": pa.nulls(rows, pa.int32()),
        }
    )


TABLES = [table(0, 500), table(500, 3000), table(3500, 1), table(3501, 20_000)]


def in_one_go(path: Path, tables: list[pa.Table]) -> bytes:
    flat = [c.name for c in tables[0].schema if not isinstance(c.type, TensorType)]
    with pq.ParquetWriter(path, tables[0].schema, compression="zstd", use_dictionary=flat, write_statistics=flat) as w:
        for part in tables:
            w.write_table(part, row_group_size=part.num_rows)
    return path.read_bytes()


@pytest.mark.parametrize("cuts", [[1, 2, 3], [2], [], [3]])
def test_the_same_bytes_as_one_writer(tmp_path: Path, cuts: list[int]) -> None:
    shards = Shards(tmp_path)
    for start, stop in zip([0, *cuts], [*cuts, 4], strict=True):
        made = encoded(TABLES[start:stop])
        data = memoryview(made.data)
        for group in made.groups:
            shards.add(group, data[group.start : group.start + group.size], made.frame, max_rows=10**9)
    shard = shards.close()
    path = tmp_path / "shard-00000.parquet"
    assert path.read_bytes() == in_one_go(tmp_path / "whole", TABLES)
    assert shard == shard_of(path)
    assert pq.read_table(path).equals(pa.concat_tables(TABLES))


def test_many_row_groups(tmp_path: Path) -> None:
    tables = [table(i, 1) for i in range(300)]
    made, shards = encoded(tables), Shards(tmp_path)
    for group in made.groups:
        shards.add(group, memoryview(made.data)[group.start : group.start + group.size], made.frame, 10**9)
    shards.close()
    assert (tmp_path / "shard-00000.parquet").read_bytes() == in_one_go(tmp_path / "whole", tables)


@pytest.mark.parametrize("spoilt", [None, 0, 2])
def test_a_shard_is_gone_on_with(tmp_path: Path, spoilt: int | None) -> None:
    """What was written before a crash stays, up to the first row group that the disk has not whole."""
    made, shards = encoded(TABLES), Shards(tmp_path)
    views = [memoryview(made.data)[g.start : g.start + g.size] for g in made.groups]
    placed = [
        shards.add(group, view, made.frame, 10**9)[0] for group, view in zip(made.groups[:3], views[:3], strict=True)
    ]
    shards.drop()
    path = tmp_path / "shard-00000.parquet"
    content = bytearray(path.read_bytes())
    if spoilt is not None:
        content[placed[spoilt].group.offset] ^= 1
    path.write_bytes(content + b"half a row group")
    again = Shards(tmp_path)
    kept = again.restore(placed)
    assert kept == (3 if spoilt is None else spoilt)
    for group, view in zip(made.groups[kept:], views[kept:], strict=True):
        again.add(group, view, made.frame, 10**9)
    assert again.close() == shard_of(path)
    assert path.read_bytes() == in_one_go(tmp_path / "whole", TABLES)


def test_labels_add_up_and_are_given_up() -> None:
    labels = Labels()
    for part in TABLES:
        labels.add(encoded([part], "word").groups[0].labels)
    assert sum((labels.result() or {}).values()) == 23_501
    assert encoded([TABLES[0]], "x").groups[0].labels is None
    labels.add(None)
    assert labels.result() is None
