"""Row groups worth shuffling, and destinations that are whole or not there."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headway.data import manifest as manifests
from headway.data.tensors import column
from headway.data.write.sizing import Sizes
from headway.data.write.writer import staging, write_dataset
from headway.errors import BadData, BadInput


def table(rows: int) -> pa.Table:
    return pa.table({"x": np.arange(rows), "name": [f"row {i}" for i in range(rows)]})


def written(folder: Path, tables: list[pa.Table], **options: object) -> manifests.Manifest:
    with staging(folder) as staged:
        return write_dataset(staged, tables, name="set", source="test", **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rows", "groups", "largest"), [(10, 1, 10), (1000, 4, 256), (20_000, 16, 1250), (300_000, 37, 8192)]
)
def test_row_groups_follow_the_number_of_rows(tmp_path: Path, rows: int, groups: int, largest: int) -> None:
    found = written(tmp_path / "set", [pa.table({"x": np.arange(rows)})])
    assert (len(found.groups), max(found.groups), sum(found.groups)) == (groups, largest, rows)


def test_row_groups_of_images_are_about_4_mib(tmp_path: Path) -> None:
    images = np.zeros((800, 224, 224, 3), np.uint8)
    found = written(tmp_path / "set", [pa.table({"image": column(images[i : i + 50])}) for i in range(0, 800, 50)])
    assert found.groups[0] == 2 * 2**20 // (224 * 224 * 3)


def test_the_same_rows_give_the_same_bytes_however_they_arrive(tmp_path: Path) -> None:
    rows = table(30_000)
    whole = written(tmp_path / "a", [rows])
    pieces = written(tmp_path / "b", [rows.slice(0, 0), rows.slice(0, 7), rows.slice(7, 12_345), rows.slice(12_352)])
    assert pieces.digest == whole.digest
    found = pq.read_table(tmp_path / "b" / "shard-00000.parquet")
    assert found.equals(rows)


def test_shards_are_cut_at_whole_row_groups(tmp_path: Path) -> None:
    found = written(tmp_path / "set", [table(1000)], sizes=Sizes(row_group_rows=90, shard_rows=200))
    assert [shard.rows for shard in found.shards] == [270, 270, 270, 190]
    manifests.verify(tmp_path / "set", found)


def test_labels_are_counted_but_not_floats(tmp_path: Path) -> None:
    rows = pa.table({"n": np.arange(12) % 3, "f": np.linspace(0, 1, 12), "s": ["b", "a"] * 6})
    assert written(tmp_path / "n", [rows], label="n").label_counts == {"0": 4, "1": 4, "2": 4}
    assert written(tmp_path / "s", [rows], label="s").label_counts == {"a": 6, "b": 6}
    assert written(tmp_path / "f", [rows], label="f").label_counts is None


def test_no_such_label(tmp_path: Path) -> None:
    with pytest.raises(BadData, match="no column 'y' for the label: columns: x, name"):
        written(tmp_path / "set", [table(3)], label="y")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("tables", [[], [table(0)]])
def test_zero_rows_leave_nothing(tmp_path: Path, tables: list[pa.Table]) -> None:
    with pytest.raises(BadData, match="zero rows"):
        written(tmp_path / "set", tables)
    assert not list(tmp_path.iterdir())


def test_a_crash_leaves_nothing(tmp_path: Path) -> None:
    def tables() -> Iterator[pa.Table]:
        yield table(200_000)
        raise RuntimeError("crash")

    with pytest.raises(RuntimeError, match="crash"), staging(tmp_path / "set") as staged:
        write_dataset(staged, tables(), name="set", source="test")
    assert not list(tmp_path.iterdir())


def test_nothing_has_the_name_before_all_is_written(tmp_path: Path) -> None:
    with staging(tmp_path / "set") as staged:
        write_dataset(staged, [table(10)], name="set", source="test")
        assert not (tmp_path / "set").exists()
    assert manifests.load(tmp_path / "set").rows == 10
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_destination_taken(tmp_path: Path) -> None:
    written(tmp_path / "set", [table(10)])
    with pytest.raises(BadInput, match=r"already exists.*--force"):
        written(tmp_path / "set", [table(20)])
    assert manifests.load(tmp_path / "set").rows == 10


def test_force_replaces_a_dataset_whole(tmp_path: Path) -> None:
    written(tmp_path / "set", [table(1000)], sizes=Sizes(100, 100))
    with staging(tmp_path / "set", force=True) as staged:
        write_dataset(staged, [table(20)], name="set", source="test")
    found = manifests.load(tmp_path / "set")
    manifests.verify(tmp_path / "set", found)
    assert sorted(path.name for path in (tmp_path / "set").iterdir()) == [
        "manifest-000001.json",
        "manifest.json",
        "shard-00000.parquet",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


@pytest.mark.parametrize(
    "make", [lambda p: p.mkdir() or (p / "diary.txt").write_text("dear"), lambda p: p.write_text("x")]
)
def test_force_deletes_nothing_but_datasets(tmp_path: Path, make: Callable[[Path], object]) -> None:
    make(tmp_path / "mine")
    with pytest.raises(BadInput, match="--force does not delete"), staging(tmp_path / "mine", force=True):
        pass
    assert (tmp_path / "mine").exists()


def test_a_failed_force_keeps_what_was_there(tmp_path: Path) -> None:
    written(tmp_path / "set", [table(10)])
    with pytest.raises(BadData), staging(tmp_path / "set", force=True) as staged:
        write_dataset(staged, [], name="set", source="test")
    assert manifests.load(tmp_path / "set").rows == 10


def test_destination_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(BadInput, match="cannot be written"):
        written(tmp_path / "file" / "set", [table(10)])


def test_disk_full_by_a_failing_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pq.ParquetWriter, "write_table", full)
    with pytest.raises(BadInput, match="the disk is full") as caught:
        written(tmp_path / "set", [table(10)])
    assert caught.value.exit_code == 2
    assert not list(tmp_path.iterdir())


def test_disk_full_on_a_real_small_disk(small_disk: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (3000, 1024), dtype=np.uint8)
    with pytest.raises(BadInput, match="the disk is full"):
        written(small_disk / "set", [pa.table({"x": column(noise)})])
    assert not list(small_disk.iterdir())
