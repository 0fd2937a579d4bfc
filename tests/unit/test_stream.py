"""What the direct reader reads and keeps, and what becomes of what it cannot read."""

from __future__ import annotations

import errno
import os
import threading
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from headway.core.order import Order
from headway.data import manifest as manifests
from headway.data.read import groups as groups_module
from headway.data.read.direct import DirectReader
from headway.data.read.gather import LEAST_BYTES, Memory
from headway.data.read.groups import Groups, empty_rows
from headway.data.read.quarantine import Quarantine
from headway.data.store.files import LocalFiles
from headway.data.tensors import column
from headway.data.write.writer import write_dataset
from headway.errors import BadData


@pytest.fixture
def dataset(tmp_path: Path, make_dataset: Any) -> Path:
    """200 rows in row groups of 7 to 40, numbers 0 to 7."""
    folder: Path = make_dataset(tmp_path / "set", (20, 7, 40), (33, 20), (25, 25, 30))
    return folder


def groups(folder: Path, quarantine: Quarantine | None = None, **options: Any) -> Groups:
    return Groups(LocalFiles(folder, manifests.load(folder)), quarantine=quarantine, **{"patience_s": 5.0, **options})


def reader(source: Groups, prefetch: int = 10_000, **fields: Any) -> DirectReader:
    options = {"seed": 1, "lanes": 3, "lane_batch": 9, "window": 6, **fields}
    return DirectReader([source], Order(source.files.manifest.groups, **options), seed=1, prefetch=prefetch)


class Aside:
    """A quarantine that remembers what it was told."""

    def __init__(self, limit: float = 1.0) -> None:
        self.told: list[tuple[str, str, int, int, str]] = []
        self.quarantine = Quarantine("data.train", 200, limit, lambda *said: self.told.append(said))


def epoch(found: DirectReader, number: int = 0) -> list[int]:
    """The ids of an epoch, each batch compared with its rows."""
    ids: list[int] = []
    for step in range(found.order.steps_per_epoch):
        for lane in range(found.order.lanes):
            if found.order.sizes(step)[lane]:
                batch = found.batch(number, step, lane)
                assert len(batch.ids) == 0 or batch.arrays["id"].tolist() == batch.ids.tolist()
                ids += batch.ids.tolist()
    return ids


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The row groups that are read from now on, in order."""
    loaded: list[int] = []
    load = Groups.load

    def counting(self: Groups, group: int) -> Any:
        loaded.append(group)
        return load(self, group)

    monkeypatch.setattr(Groups, "load", counting)
    return loaded


@pytest.mark.parametrize("lanes", [1, 3, 8])
def test_a_row_group_is_read_once_an_epoch_however_many_lanes_share_it(
    dataset: Path, monkeypatch: pytest.MonkeyPatch, lanes: int
) -> None:
    loaded = counted(monkeypatch)
    source = groups(dataset)
    steps = Order(source.files.manifest.groups, 1, lanes, 5).steps_per_epoch
    order = Order(source.files.manifest.groups, 1, lanes, 5)
    with closing(DirectReader([source], order, seed=1, steps=steps)) as found:
        found.carry(range(lanes), 0)
        assert sorted(epoch(found)) == list(range(200))
    assert sorted(loaded) == list(range(8))


def test_only_the_row_groups_of_the_carried_lanes_are_read(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = counted(monkeypatch)
    source = groups(dataset)
    order = Order(source.files.manifest.groups, 1, 4, 5)
    with closing(DirectReader([source], order, seed=1, steps=order.steps_per_epoch)) as found:
        found.carry([2], 0)
        for step in range(order.steps_per_epoch):
            if order.sizes(step)[2]:
                found.batch(0, step, 2)
    assert set(loaded) == {piece.group for window in order.windows(0, 2) for piece in window.pieces}


def test_moving_lanes_keeps_what_is_still_needed(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = groups(dataset)
    order = Order(source.files.manifest.groups, 1, 2, 9, window=2)
    with closing(DirectReader([source], order, seed=1, prefetch=1)) as found:
        found.carry([0, 1], 0)
        found.batch(0, 0, 0)
        loaded = counted(monkeypatch)
        found.carry([0], 1)
        found.batch(0, 1, 0)
        first = {piece.group for piece in order.windows(0, 0)[0].pieces}
        assert not first & set(loaded)


def test_until_the_first_batch_only_its_windows_are_opened(dataset: Path) -> None:
    """A run that resumes waits for them, and nothing else may take its processors meanwhile."""
    with closing(reader(groups(dataset), lanes=2, window=1)) as found:
        found.carry([0, 1], 2)
        found._plan()
        own = [found.order.windows(0, lane) for lane in (0, 1)]
        at = {(lane, 0, next(w.index for w in own[lane] if w.first + w.rows > 18)) for lane in (0, 1)}
        assert set(found._sources[0]._held) == at
        found.batch(0, 2, 0)
        found._plan()
        assert set(found._sources[0]._held) > at


def test_memory_is_the_windows_and_the_budget(tmp_path: Path, make_dataset: Any) -> None:
    """Ten times the rows hold no more windows; nothing is kept of the epochs before.

    A window has 1,280 bytes: one fits ahead, two where guesses at their sizes are low, and a lane that
    crosses from one into the next holds both.
    """
    for count in (60, 600):
        source = groups(make_dataset(tmp_path / str(count), (10,) * count))
        with closing(reader(source, prefetch=2000, window=4, lanes=2, lane_batch=5)) as found:
            found.carry([0, 1], 0)
            held = []
            for step in range(60):
                for lane in range(2):
                    found.batch(*divmod(step, found.order.steps_per_epoch), lane)
                    held.append(len(found._sources[0]._held))
            assert max(held) <= 6


def test_tiny_datasets_are_not_read_for_a_hundred_epochs(tmp_path: Path, make_dataset: Any) -> None:
    with closing(reader(groups(make_dataset(tmp_path / "tiny", (3,))), prefetch=2**30, lanes=1)) as found:
        found.carry([0], 0)
        for number in range(100):
            found.batch(number, 0, 0)
            assert len(found._sources[0]._held) <= 70


def spoil(path: Path, manifest: manifests.Manifest, group: int, byte: int = 0xFF) -> None:
    """Flip bytes in the middle of one row group, leaving the file's size and footer."""
    shard, index = manifest.locate(group)
    place = shard.row_groups[index]
    data = bytearray((path / shard.path).read_bytes())
    data[place.offset + place.bytes // 2] ^= byte
    (path / shard.path).write_bytes(data)


def damaged(folder: Path, how: str) -> None:
    """Damage shard 1: row groups 3 and 4, rows 67 to 119."""
    path = folder / "shard-00001.parquet"
    if how == "missing":
        path.unlink()
    elif how == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
    elif how == "flipped":
        spoil(folder, manifests.load(folder), 3, 1)
        spoil(folder, manifests.load(folder), 4, 1)
    elif how == "footer":
        data = bytearray(path.read_bytes())
        data[-20] ^= 1
        path.write_bytes(data)
    else:
        manifest = manifests.load(folder)
        manifests.write(folder, replace(manifest, schema=(("id", "int64"), ("x", "string"), ("y", "int64"))))


DAMAGE = {
    "missing": "No such file",
    "truncated": r"has \d+ bytes, the manifest says \d+",
    "flipped": "has been altered: its bytes differ from the manifest's digest",
    "footer": "footer differs from the manifest's digest",
}


@pytest.mark.parametrize("how", list(DAMAGE))
def test_bad_shards_are_named(dataset: Path, how: str) -> None:
    damaged(dataset, how)
    with pytest.raises(BadData, match=rf"row group 1 of shard-00001\.parquet .*{DAMAGE[how]}") as caught:
        groups(dataset).load(4)
    assert caught.value.remedy

    def walked() -> None:
        with closing(reader(groups(dataset))) as found:
            found.carry(range(3), 0)
            epoch(found)

    with pytest.raises(BadData, match=r"shard-00001\.parquet"):
        walked()


@pytest.mark.parametrize("how", list(DAMAGE))
@pytest.mark.parametrize("fields", [{}, {"window": 1}, {"lanes": 1, "window": 16}])
def test_bad_shards_are_set_aside(dataset: Path, how: str, fields: dict[str, Any]) -> None:
    """Every other row comes, in its own batch; what is missing was said, once."""
    damaged(dataset, how)
    aside = Aside()
    with closing(reader(groups(dataset, aside.quarantine), **fields)) as found:
        found.carry(range(found.order.lanes), 0)
        for number in range(2):
            whole = [i for i in range(200) if not 67 <= i < 120]
            assert sorted(epoch(found, number)) == whole
        for step in range(found.order.steps_per_epoch):  # each batch is what it would have been, less those rows
            if found.order.sizes(step)[0]:
                begin = step * 9
                wanted = [i for i in found.order.lane_ids(0, 0)[begin : begin + 9] if not 67 <= i < 120]
                assert found.batch(0, step, 0).ids.tolist() == wanted
    assert sorted(said[:4] for said in aside.told) == [
        ("data.train", "shard-00001.parquet", 0, 33),
        ("data.train", "shard-00001.parquet", 1, 20),
    ]
    assert aside.quarantine.rows == 53


def test_too_many_bad_rows_end_the_run(dataset: Path) -> None:
    damaged(dataset, "flipped")
    aside = Aside(limit=0.2)
    found = groups(dataset, aside.quarantine)
    assert found.load(3).table is None
    with pytest.raises(BadData, match=r"53 of the 200 rows of data\.train are set aside, more than .*=0\.2"):
        found.load(4)


def test_another_schema_is_named(dataset: Path) -> None:
    damaged(dataset, "schema")
    with pytest.raises(BadData, match=r"row group 0 of shard-00000\.parquet has another schema: column 'x'"):
        groups(dataset).load(0)


def test_without_digests_what_can_be_decoded_is_taken(dataset: Path) -> None:
    assert groups(dataset, check_digests=False).load(0).rows == 20
    spoil(dataset, manifests.load(dataset), 0, 1)
    with pytest.raises(BadData, match=r"row group 0 of shard-00000\.parquet has been altered"):
        groups(dataset).load(0)
    assert groups(dataset, check_digests=False).load(0).rows == 20


@pytest.fixture
def holes(tmp_path: Path) -> Path:
    """20 rows; nulls in `v` of rows 3 and 12, NaN in `v` of row 4 and in `image` of row 15."""
    v = pa.array([None if i in (3, 12) else float("nan") if i == 4 else float(i) for i in range(20)])
    images = np.arange(80, dtype=np.float32).reshape(20, 2, 2)
    images[15, 1, 0] = np.nan
    table = pa.table({"id": np.arange(20), "v": v, "image": column(images)})
    write_dataset(tmp_path / "holes", [table.slice(0, 10), table.slice(10)], name="n", source="s")
    return tmp_path / "holes"


def test_forbidden_nulls_are_named_by_row(holes: Path) -> None:
    rows = manifests.load(holes).groups
    with pytest.raises(BadData, match=r"row group 0 of shard-00000\.parquet has bad rows: column 'v' .* rows 3, 4"):
        groups(holes, no_nulls=["v", "image"]).load(0)
    assert sum(rows) == 20


def test_forbidden_nulls_are_set_aside_row_by_row(holes: Path) -> None:
    told: list[Any] = []
    quarantine = Quarantine("data.train", 20, 1.0, lambda *said: told.append(said))
    source = groups(holes, quarantine, no_nulls=["v", "image"])
    order = Order(source.files.manifest.groups, 1, 2, 4)
    with closing(DirectReader([source], order, seed=1)) as found:
        found.carry([0, 1], 0)
        assert sorted(epoch(found)) == [i for i in range(20) if i not in (3, 4, 12, 15)]
    assert sum(said[3] for said in told) == 4


def test_empty_rows_of_lists() -> None:
    lists = pa.array([[1.0, 2.0], None, [float("nan"), 1.0], [None, 2.0]], pa.list_(pa.float32(), 2))
    found = empty_rows(pa.chunked_array([lists]))
    assert found is not None
    assert found.tolist() == [False, True, True, True]
    assert empty_rows(pa.chunked_array([lists.slice(0, 1)])) is None


class Flaky:
    """os.preadv that fails a number of times."""

    def __init__(self, times: int) -> None:
        self.left, self.real, self.lock = times, os.preadv, threading.Lock()

    def __call__(self, *arguments: Any) -> int:
        with self.lock:
            self.left -= 1
            if self.left >= 0:
                raise OSError(errno.EIO, "Input/output error")
        return self.real(*arguments)


def test_what_cannot_be_read_for_a_while_is_read_again(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "preadv", Flaky(3))
    assert groups(dataset).load(0).rows == 20


def test_what_cannot_be_read_for_long_is_bad_data(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "preadv", Flaky(10**9))
    with pytest.raises(BadData, match=r"row group 2 of shard-00000\.parquet cannot be read: Input/output error"):
        groups(dataset, patience_s=0.2).load(2)


def test_only_the_columns_asked_for_are_given(dataset: Path) -> None:
    source = groups(dataset, columns=["y"], no_nulls=["x"])
    with closing(reader(source)) as found:
        assert list(found.batch(0, 0, 0).arrays) == ["y"]


def test_text_reaches_the_transform_and_nothing_else(tmp_path: Path) -> None:
    table = pa.table({"id": np.arange(30), "word": [f"w{i}" for i in range(30)], "flag": np.arange(30) % 2 == 0})
    write_dataset(tmp_path / "words", [table], name="n", source="s")
    source = groups(tmp_path / "words")
    with closing(reader(source, lanes=1)) as found, pytest.raises(BadData, match="column 'word' is string"):
        found.batch(0, 0, 0)
    with closing(reader(source, lanes=1)) as found:
        found.use(lambda rows, random, training: {"id": [int(w[1:]) for w in rows["word"].to_pylist()]})
        batch = found.batch(0, 1, 0)
        assert batch.arrays["id"].tolist() == batch.ids.tolist()


def test_only_the_callers_thread_reads(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Arrow's own threads, caught in Python code by the end of the process, would keep it from ending."""
    readers = set()
    read = groups_module._Bytes.read

    def noted(self: Any, count: int = -1) -> Any:
        readers.add(threading.current_thread())
        return read(self, count)

    monkeypatch.setattr(groups_module._Bytes, "read", noted)
    groups(dataset).load(4)
    assert readers == {threading.current_thread()}


def test_a_transform_cannot_change_the_rows_of_a_step_done_again(dataset: Path) -> None:
    def spoiled(table: pa.Table, random: np.random.Generator, training: bool) -> dict[str, Any]:
        rows = np.frombuffer(table["id"].chunk(0).buffers()[1], np.int64)
        with pytest.raises(ValueError, match="read-only"):
            rows[:] = 0
        return {"id": table["id"].to_numpy()}

    with closing(reader(groups(dataset))) as found:
        found.use(spoiled)
        found.carry(range(3), 0)
        for _ in range(2):
            batch = found.batch(0, 1, 0)
            assert batch.arrays["id"].tolist() == batch.ids.tolist()


@pytest.mark.parametrize("quarantined", [False, True])
def test_an_outage_while_reading_ahead_is_over_when_the_rows_are_needed(
    dataset: Path, monkeypatch: pytest.MonkeyPatch, quarantined: bool
) -> None:
    away, tried = threading.Event(), threading.Event()
    away.set()
    read = os.preadv

    def preadv(*arguments: Any) -> int:
        if away.is_set() and threading.current_thread() is not threading.main_thread():
            tried.set()
            raise OSError(errno.EIO, "away")
        return read(*arguments)

    monkeypatch.setattr(os, "preadv", preadv)
    aside = Aside()
    source = groups(dataset, aside.quarantine if quarantined else None, patience_s=0.0)
    with closing(reader(source)) as found:
        found.carry(range(3), 0)
        assert tried.wait(30)
        away.clear()
        assert sorted(epoch(found)) == list(range(200))
    assert not aside.told


def test_what_is_had_from_elsewhere_moves_what_is_read_ahead(dataset: Path) -> None:
    with closing(reader(groups(dataset), prefetch=1)) as found:
        found.carry(range(3), 0)
        steps = found.order.steps_per_epoch
        for number in range(20 * steps):
            for lane in range(3):
                if found.order.sizes(number % steps)[lane]:
                    found.skip(*divmod(number, steps), lane)
        assert found.batch(20, 0, 2).ids.tolist() == found.order.lane_ids(20, 2)[:9].tolist()
        assert sum(len(windows._held) for windows in found._sources) <= 6


def test_memory_is_used_again_only_when_nobody_looks_at_it() -> None:
    memory = Memory()
    first = memory.take(LEAST_BYTES)
    first[:] = 7
    seen = first[10:20].view(np.uint16)
    place = first.ctypes.data
    del first
    second = memory.take(LEAST_BYTES)
    assert second.ctypes.data != place
    second[:] = 1
    assert (seen == 0x0707).all()
    del seen
    assert memory.take(LEAST_BYTES).ctypes.data == place
