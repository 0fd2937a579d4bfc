"""A dataset's manifest: what it says, and what is refused when the folder is not what it says."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headway.data import manifest as manifests
from headway.data.write.sizing import Sizes
from headway.data.write.writer import write_dataset
from headway.errors import BadData


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """1,000 rows in row groups of 100, 300 rows a shard."""
    table = pa.table({"x": np.arange(1000), "label": np.arange(1000) % 3})
    folder = tmp_path / "set"
    write_dataset(folder, [table], name="set", source="test", label="label", sizes=Sizes(100, 300))
    return folder


def refused(folder: Path, check: Callable[[Path, manifests.Manifest], None] = manifests.quick_check) -> str:
    with pytest.raises(BadData) as caught:
        check(folder, manifests.load(folder))
    assert caught.value.exit_code == 2
    assert caught.value.remedy
    return str(caught.value)


def test_what_was_written_is_what_is_read(dataset: Path) -> None:
    found = manifests.load(dataset)
    assert (found.rows, found.groups) == (1000, (100,) * 10)
    assert [shard.path for shard in found.shards] == [f"shard-{i:05d}.parquet" for i in range(4)]
    assert found.schema == (("x", "int64"), ("label", "int64"))
    assert found.label_counts == {"0": 334, "1": 333, "2": 333}
    assert found.bytes == sum(path.stat().st_size for path in dataset.glob("*.parquet"))
    manifests.verify(dataset, found)


def test_every_row_group_is_found_in_its_shard(dataset: Path) -> None:
    found = manifests.load(dataset)
    for group in range(10):
        shard, index = found.locate(group)
        with pq.ParquetFile(dataset / shard.path) as file:
            assert file.read_row_group(index)["x"][0].as_py() == 100 * group
    for outside in (-1, 10):
        with pytest.raises(IndexError):
            found.locate(outside)


def test_digest_is_of_the_data_alone(dataset: Path) -> None:
    found = manifests.load(dataset)
    elsewhere = replace(found, name="b", source="other", created="later", headway_version="9")
    assert elsewhere.digest == found.digest
    changed = replace(found, shards=(replace(found.shards[0], sha256="0" * 64), *found.shards[1:]))
    assert changed.digest != found.digest


def test_writing_leaves_no_temporary(dataset: Path) -> None:
    manifests.write(dataset, manifests.load(dataset))
    assert sorted(path.suffix for path in dataset.iterdir()) == [".json", ".json", *[".parquet"] * 4]


def test_no_folder(tmp_path: Path) -> None:
    message = refused(tmp_path / "nowhere")
    assert "does not exist" in message
    assert "headway data get" in message
    assert "headway data prepare" in message


def test_a_file_where_the_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    assert "it is a file" in refused(tmp_path / "file")


def test_no_manifest(tmp_path: Path) -> None:
    assert "has no manifest.json" in refused(tmp_path)


def test_unreadable_manifest(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").mkdir()
    assert "cannot be read" in refused(tmp_path)


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        ("{", "is not JSON"),
        ('"\udcff', "is not JSON"),
        ("[]", "has format None"),
        ('{"format": "headway-dataset/99"}', "this Headway reads 'headway-dataset/3'"),
        ('{"format": "headway-dataset/2"}', "is damaged"),
    ],
)
def test_not_a_manifest(tmp_path: Path, text: str, fact: str) -> None:
    (tmp_path / "manifest.json").write_bytes(text.encode(errors="surrogateescape"))
    assert fact in refused(tmp_path)


@pytest.mark.parametrize(
    ("path", "value", "fact"),
    [
        (("rows",), 999, "do not add up to 999 rows"),
        (("bytes",), 1, "do not add up to 1 bytes"),
        (("shards", 0, "rows"), 1, "row groups of shard-00000.parquet do not add up"),
        (("shards", 0, "path"), "../other.parquet", "not a plain file name"),
        (("shards", 0, "surprise"), 1, "is damaged"),
        (("shards",), None, "is damaged"),
    ],
)
def test_a_manifest_that_contradicts_itself(dataset: Path, path: tuple, value: object, fact: str) -> None:
    tree = json.loads((dataset / "manifest.json").read_text())
    at = tree
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = value
    (dataset / "manifest.json").write_text(json.dumps(tree))
    assert fact in refused(dataset)


def test_zero_rows(dataset: Path) -> None:
    empty = replace(manifests.load(dataset), rows=0, bytes=0, shards=())
    manifests.write(dataset, empty)
    assert "has zero rows" in refused(dataset)


def test_missing_shard(dataset: Path) -> None:
    (dataset / "shard-00002.parquet").unlink()
    message = refused(dataset)
    assert "shard-00002.parquet is missing" in message


def test_truncated_shard(dataset: Path) -> None:
    shard = dataset / "shard-00001.parquet"
    shard.write_bytes(shard.read_bytes()[:-100])
    assert "shard-00001.parquet is truncated" in refused(dataset)


def test_shard_that_is_a_folder(dataset: Path) -> None:
    (dataset / "shard-00001.parquet").unlink()
    (dataset / "shard-00001.parquet").mkdir()
    assert "shard-00001.parquet cannot be read: it is a folder" in refused(dataset)


def test_link_that_leads_nowhere(dataset: Path) -> None:
    (dataset / "shard-00001.parquet").unlink()
    (dataset / "shard-00001.parquet").symlink_to(dataset / "gone")
    assert "shard-00001.parquet is missing" in refused(dataset)


def test_footer_damaged_at_the_same_size(dataset: Path) -> None:
    shard = dataset / "shard-00001.parquet"
    shard.write_bytes(shard.read_bytes()[:-8] + b"\0" * 8)
    assert "shard-00001.parquet cannot be read" in refused(dataset)


def test_one_byte_altered_is_found_by_the_digest_only(dataset: Path) -> None:
    shard = dataset / "shard-00003.parquet"
    content = bytearray(shard.read_bytes())
    content[20] ^= 1
    shard.write_bytes(content)
    manifests.quick_check(dataset, manifests.load(dataset))
    message = refused(dataset, manifests.verify)
    assert "shard-00003.parquet has been altered" in message
    assert "SHA-256" in message


def replaced(dataset: Path, table: pa.Table, row_group_rows: int) -> None:
    """Put another table in shard 0, with the manifest told only its size."""
    pq.write_table(table, dataset / "shard-00000.parquet", row_group_size=row_group_rows)
    size = (dataset / "shard-00000.parquet").stat().st_size
    found = manifests.load(dataset)
    first = replace(found.shards[0], bytes=size)
    total = found.bytes - found.shards[0].bytes + size
    manifests.write(dataset, replace(found, bytes=total, shards=(first, *found.shards[1:])))


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        ({"x": np.arange(300.0), "label": np.arange(300)}, "column 'x' is double, not int64"),
        ({"x": np.arange(300)}, "column 'label' is gone"),
        ({"x": np.arange(300), "label": np.arange(300), "y": np.arange(300)}, "column 'y' is new"),
        ({"label": np.arange(300), "x": np.arange(300)}, "in another order"),
    ],
)
def test_changed_schema(dataset: Path, table: dict, reason: str) -> None:
    replaced(dataset, pa.table(table), 100)
    message = refused(dataset)
    assert "shard-00000.parquet has another schema" in message
    assert reason in message


def test_changed_row_groups(dataset: Path) -> None:
    replaced(dataset, pa.table({"x": np.arange(300), "label": np.arange(300)}), 150)
    assert "shard-00000.parquet has other row groups" in refused(dataset)
