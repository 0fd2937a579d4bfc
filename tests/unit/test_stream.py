"""Lane streams deliver the rows that the order names, and name what they cannot read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headway.core.order import Order
from headway.data import manifest as manifests
from headway.data.stream import RowGroups, Streams
from headway.errors import BadData


@pytest.fixture
def dataset(tmp_path: Path, make_dataset: Any) -> Path:
    """200 rows in row groups of 7 to 40."""
    folder: Path = make_dataset(tmp_path / "set", (20, 7, 40), (33, 20), (25, 25, 30))
    return folder


def streams(folder: Path, columns: list[str] | None = None, **fields: Any) -> Streams:
    manifest = manifests.load(folder)
    options = {"seed": 1, "lanes": 3, "lane_batch": 9, "window": 6, **fields}
    return Streams(folder, manifest, Order(manifest.groups, **options), columns)


@pytest.mark.parametrize(
    "fields", [{}, {"window": 1}, {"window": 100}, {"lanes": 1}, {"lane_batch": 64}, {"shuffle": False}]
)
def test_the_rows_are_those_that_the_order_names(dataset: Path, fields: dict[str, Any]) -> None:
    """Across windows and epochs: batches of 9 or 64 from windows of one or more row groups."""
    stream = streams(dataset, **fields)
    order = stream.order
    for epoch in range(3):
        seen = []
        for step in range(order.steps_per_epoch):
            for lane in range(order.lanes):
                if not order.sizes(step)[lane]:
                    continue
                table, ids = stream.rows(epoch, step, lane)
                begin = step * order.lane_batch
                wanted = order.lane_ids(epoch, lane)[begin : begin + order.lane_batch]
                assert np.array_equal(ids, wanted)
                assert table["id"].to_pylist() == wanted.tolist(), "the rows are the ids' rows"
                assert np.allclose(table["x"].to_pylist(), np.sin(wanted[:, None] * np.arange(1, 5)), atol=1e-6)
                seen += ids.tolist()
        assert sorted(seen) == list(range(200))
    stream.close()


def test_any_step_can_be_asked_for_at_once(dataset: Path) -> None:
    """A resumed run, or a lane that moved, begins in the middle."""
    stream = streams(dataset)
    for epoch, step, lane in [(5, 3, 2), (0, 6, 0), (5, 3, 2), (2, 0, 1)]:
        table, ids = stream.rows(epoch, step, lane)
        assert np.array_equal(ids, stream.order.lane_ids(epoch, lane)[step * 9 : step * 9 + 9])
        assert table.num_rows == len(ids)
    stream.close()


def test_rows_outside_the_lane_are_a_mistake(dataset: Path) -> None:
    stream = streams(dataset)
    with pytest.raises(ValueError, match="lie outside lane 0"):
        stream.rows(0, 99, 0)
    stream.close()


def test_only_the_columns_asked_for_are_read(dataset: Path) -> None:
    stream = streams(dataset, columns=["y"])
    table, ids = stream.rows(0, 0, 0)
    assert table.column_names == ["y"]
    assert len(ids) == table.num_rows
    stream.close()


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The row groups that are read from disk from now on, in order."""
    loaded: list[int] = []
    load = RowGroups._load

    def counting(self: RowGroups, group: int) -> Any:
        loaded.append(group)
        return load(self, group)

    monkeypatch.setattr(RowGroups, "_load", counting)
    return loaded


def test_a_row_group_is_read_once_however_many_lanes_share_it(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = counted(monkeypatch)
    stream = streams(dataset, lanes=8, lane_batch=5, window=16)
    for step in range(stream.order.steps_per_epoch):
        for lane in range(8):
            if stream.order.sizes(step)[lane]:
                stream.rows(0, step, lane)
    stream.close()
    assert sorted(set(loaded)) == list(range(8))
    assert len(loaded) == len(set(loaded))


def test_evaluation_again_reads_nothing_ahead_of_a_next_epoch(dataset: Path) -> None:
    """Without shuffling all epochs are one; the window read ahead at the end is the first one again."""
    stream = streams(dataset, shuffle=False, lanes=1, window=2, lane_batch=50)
    for _ in range(2):
        for step in range(4):
            stream.rows(0, step, 0)
    kept = stream._lanes[0]._windows
    assert {epoch for epoch, _ in kept} == {0}
    stream.close()


def test_memory_is_the_window_whatever_the_size_of_the_dataset(tmp_path: Path, make_dataset: Any) -> None:
    stream = streams(make_dataset(tmp_path / "many", (10,) * 60), window=4, lanes=2, lane_batch=5)
    for epoch in range(2):
        for step in range(stream.order.steps_per_epoch):
            for lane in range(2):
                stream.rows(epoch, step, lane)
                assert len(stream._groups._tables) <= 4
                windows = stream._lanes[lane]._windows
                assert len(windows) <= 2, "the one at hand and the next"
    stream.close()


def spoil(path: Path, manifest: manifests.Manifest, group: int) -> None:
    """Overwrite the bytes of one row group, leaving the file's size and footer."""
    import pyarrow.parquet as pq

    shard, index = manifest.locate(group)
    column = pq.read_metadata(path / shard.path).row_group(index).column(0)
    data = bytearray((path / shard.path).read_bytes())
    begin = column.dictionary_page_offset or column.data_page_offset
    data[begin : begin + column.total_compressed_size] = b"\xff" * column.total_compressed_size
    (path / shard.path).write_bytes(data)


def test_a_bad_row_group_is_named_when_it_is_read(dataset: Path) -> None:
    spoil(dataset, manifests.load(dataset), 4)
    groups = RowGroups(dataset, manifests.load(dataset), None, keep=4)
    assert groups.read(3).num_rows == 33
    for _ in range(2):  # whoever asks later hears the same
        with pytest.raises(BadData, match=r"row group 1 of .*shard-00001\.parquet cannot be read") as caught:
            groups.read(4)
        assert caught.value.remedy


def test_an_error_of_the_thread_that_reads_ahead_surfaces(dataset: Path) -> None:
    stream = streams(dataset, shuffle=False, lanes=1, lane_batch=20, window=1)
    spoil(dataset, manifests.load(dataset), 1)
    stream.rows(0, 0, 0)  # row group 0; 1 is read ahead, and fails there
    with pytest.raises(BadData, match=r"row group 1 of .*shard-00000\.parquet"):
        stream.rows(0, 1, 0)
    stream.close()


def test_a_shard_that_vanished_is_named(dataset: Path) -> None:
    (dataset / "shard-00002.parquet").unlink()
    with pytest.raises(BadData, match=r"row group 0 of .*shard-00002\.parquet cannot be read"):
        RowGroups(dataset, manifests.load(dataset), None, keep=4).read(5)


@pytest.mark.parametrize("change", [lambda groups: (replace(groups[0], rows=groups[0].rows + 1), *groups[1:])])
def test_another_number_of_rows_than_the_manifest_says(
    dataset: Path, change: Callable[[tuple[manifests.RowGroup, ...]], tuple[manifests.RowGroup, ...]]
) -> None:
    manifest = manifests.load(dataset)
    first = replace(manifest.shards[0], row_groups=change(manifest.shards[0].row_groups))
    manifest = replace(manifest, shards=(first, *manifest.shards[1:]))
    with pytest.raises(BadData, match="has 20 rows: its manifest says 21"):
        RowGroups(dataset, manifest, None, keep=4).read(0)
