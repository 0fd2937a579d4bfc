"""The job's sampling and mixtures held against real datasets: what is drawn, and what is refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from headway.core.mixture import Mixture
from headway.core.order import Order
from headway.data.manifest import load
from headway.data.read.streams import open_readers, train_order
from headway.data.sampling import index
from headway.data.store.files import LocalFiles
from headway.data.write.writer import write_dataset
from headway.errors import BadData, BadInput
from headway.job import Job, parse

ROWS = 1000
KIND = np.repeat([0, 1, 2], [900, 90, 10])
COLUMNS: dict[str, Any] = {
    "id": pa.array(range(ROWS)),
    "kind": pa.array(KIND),
    "word": pa.array([f"w{k}" for k in KIND]),
    "weight": pa.array(np.linspace(0, 3, ROWS)),
    "length": pa.array(np.arange(ROWS) % 77, pa.int16()),
    "text": pa.array(["x" * (i % 50) for i in range(ROWS)]),
    "tokens": pa.array([[1] * (i % 9) for i in range(ROWS)]),
    "holes": pa.array([None if i == 500 else i for i in range(ROWS)]),
    "nan": pa.array([float("nan") if i == 500 else 1.0 for i in range(ROWS)]),
    "debt": pa.array(np.linspace(-1, 1, ROWS)),
    "nothing": pa.array(np.zeros(ROWS)),
}


def dataset(folder: Path, label: str | None = "kind") -> Path:
    table = pa.table(COLUMNS)
    tables = [table.slice(start, 100) for start in range(0, ROWS, 100)]
    names = {"kind": ["cat", "dog", "emu"]}
    write_dataset(folder, tables, name=folder.name, source="test", label=label, categories=names)
    return folder


def files(folder: Path) -> LocalFiles:
    return LocalFiles(folder, load(folder))


Make = Callable[..., Job]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    folder = dataset(tmp_path / "train")

    def job(**data: Any) -> Job:
        data = {"train": str(folder), "columns": ["id", "kind"], **data}
        return parse({"name": "n", "task": "t:T", "data": data, "lanes": 4, "lane_batch": 16, "epochs": 1})

    return job


def order(job: Job) -> Order:
    walk = train_order(job, [files(Path(job.data.sources[0].path))])
    assert isinstance(walk, Order)
    return walk


def drawn(walk: Order, epoch: int = 0) -> np.ndarray:
    return np.concatenate([walk.lane_ids(epoch, lane) for lane in range(walk.lanes)])


def test_without_sampling_the_order_is_the_plain_one_and_no_column_is_read(make: Make) -> None:
    index._columns.clear()
    job = make()
    assert order(job) == Order(load(Path(str(job.data.train))).groups, job.seed, 4, 16, 16, True)
    assert order(make(sampling={"by": "no_such"})).sampling is None
    assert not index._columns


@pytest.mark.parametrize("by", [None, "kind", "word"])
def test_balanced(make: Make, by: str | None) -> None:
    ids = drawn(order(make(sampling={"weights": "balanced", "by": by})))
    assert len(ids) == ROWS
    assert np.abs(np.bincount(KIND[ids]) - ROWS / 3).max() <= 2


@pytest.mark.parametrize("names", [("0", "2"), (0, 2), ("cat", "emu")])
def test_weights_by_class_are_1_for_those_not_named(make: Make, names: tuple[Any, Any]) -> None:
    ids = drawn(order(make(sampling={"weights": {names[0]: 0.1, names[1]: 9}, "rows": 540})))
    assert np.abs(np.bincount(KIND[ids]) - 540 * np.array([90, 90, 90]) / 270).max() <= 2


def test_weights_of_a_column(make: Make) -> None:
    ids = drawn(order(make(sampling={"by": "weight", "weights": "column", "rows": 50, "replacement": False})))
    assert len(set(ids.tolist())) == 50
    assert 0 not in ids
    assert ids.mean() > 550


def test_rows_alone_draw_all_rows_alike(make: Make) -> None:
    ids = [drawn(order(make(sampling={"rows": 300, "replacement": False})), epoch) for epoch in range(2)]
    assert [len(set(i.tolist())) for i in ids] == [300, 300]
    assert set(ids[0].tolist()) != set(ids[1].tolist())


def test_stratified(make: Make) -> None:
    walk = order(make(sampling={"stratify": True}))
    counts = [np.bincount(KIND[walk.lane_ids(3, lane)], minlength=3) for lane in range(4)]
    assert np.ptp(counts, axis=0).max() <= 1
    assert sorted(drawn(walk, 3).tolist()) == list(range(ROWS))


@pytest.mark.parametrize(("column", "lengths"), [("length", 77), ("text", 50), ("tokens", 9)])
def test_buckets(make: Make, column: str, lengths: int) -> None:
    walk = order(make(sampling={"bucket": column}))
    spread = [np.ptp(walk.lane_ids(0, lane)[s * 16 : s * 16 + 16] % lengths) for lane in range(4) for s in range(15)]
    assert np.mean(spread) < lengths / 8
    assert sorted(drawn(walk).tolist()) == list(range(ROWS))


@pytest.mark.parametrize(
    ("sampling", "said"),
    [
        ({"weights": "balanced", "by": "kinds"}, r"data.sampling.by: no column 'kinds'.*Did you mean 'kind'"),
        ({"bucket": "lenght"}, r"data.sampling.bucket: no column 'lenght'.*Did you mean 'length'"),
        ({"bucket": "nan"}, "data.sampling.bucket: column 'nan' holds NaN"),
        ({"weights": "balanced", "by": "weight"}, "data.sampling.by: column 'weight' is double"),
        ({"weights": "column", "by": "word"}, "data.sampling.by: column 'word' is string"),
        ({"weights": "column"}, "data.sampling.weights=column without data.sampling.by"),
        ({"weights": "column", "by": "debt"}, "column 'debt' has negative values"),
        ({"weights": "column", "by": "nothing"}, "the weight 0: nothing can be drawn"),
        ({"weights": "column", "by": "holes"}, r"1 nulls in row group 1 of shard-00000.parquet, the first in row 244"),
        ({"weights": {"dgo": 2}}, "names the class 'dgo': no row is of that class. Did you mean 'dog'"),
        ({"weights": {"3": 2}}, "names the class '3'"),
        ({"rows": 1001, "replacement": False}, "Set data.sampling.rows to 1,000 or fewer"),
        ({"rows": 101, "replacement": False, "weights": {"cat": 0}}, "train has 100 rows that can be drawn"),
        ({"weights": "balanced", "replacement": False}, "each row comes once, whatever its weight"),
    ],
)
def test_what_does_not_fit_the_data_is_refused(make: Make, sampling: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        order(make(sampling=sampling))


def test_classes_without_a_label_are_refused(tmp_path: Path, make: Make) -> None:
    folder = dataset(tmp_path / "bare", label=None)
    with pytest.raises(BadInput, match=r"data.sampling.by is not given: bare has no label"):
        order(make(train=str(folder), sampling={"stratify": True}))


def test_buckets_of_rows_in_the_order_stored_are_refused(make: Make) -> None:
    with pytest.raises(BadInput, match=r"Set data.shuffle to true"):
        order(make(shuffle=False, sampling={"bucket": "length"}))


def test_a_damaged_shard_is_named(make: Make) -> None:
    index._columns.clear()
    job = make(sampling={"bucket": "length"})
    shard = Path(str(job.data.train)) / "shard-00000.parquet"
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(BadData, match=r"data\.sampling\.bucket: row group 0 of shard-00000\.parquet cannot be read"):
        order(job)


def test_a_flipped_bit_in_a_column_of_weights_is_found(make: Make) -> None:
    """Else one machine's lanes would take other rows than all the others believe."""
    index._columns.clear()
    job = make(sampling={"weights": "column", "by": "weight", "rows": 50})
    shard = Path(str(job.data.train)) / "shard-00000.parquet"
    content = bytearray(shard.read_bytes())
    content[len(content) // 3] ^= 4
    shard.write_bytes(content)
    with pytest.raises(BadData, match=r"shard-00000\.parquet has been altered"):
        order(job)


def test_a_column_is_read_once(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    job = make(sampling={"weights": "balanced", "stratify": True, "bucket": "length"})
    first = order(job)
    monkeypatch.setattr(index, "Groups", None)
    again = order(job)
    assert drawn(first).tolist() == drawn(again).tolist()


def test_classes_are_named_as_the_manifest_counts_them(tmp_path: Path) -> None:
    source = files(dataset(tmp_path / "d"))
    assert index.class_index(source, "kind").counts == source.manifest.label_counts
    assert index.class_index(source, "kind").codes.dtype == np.int32
    assert index.column_index(source, "weight").dtype == np.float32
    assert index.column_index(source, "length").dtype == np.int32


def test_a_reader_gives_the_rows_that_the_sampling_draws(make: Make) -> None:
    job = make(sampling={"weights": "balanced", "stratify": True, "bucket": "length"})
    reader, _ = open_readers(job)
    try:
        seen: Counter[int] = Counter()
        for step in range(reader.order.steps_per_epoch):
            for lane in range(4):
                if reader.order.sizes(step)[lane]:
                    batch = reader.batch(0, step, lane)
                    assert batch.arrays["id"].tolist() == batch.ids.tolist()
                    assert len(batch.ids) == reader.order.sizes(step)[lane]
                    seen.update(batch.ids.tolist())
        assert seen == Counter(drawn(order(job)).tolist())
    finally:
        reader.close()


def test_a_reader_of_a_mixture(tmp_path: Path, make: Make) -> None:
    parts = [{"path": str(dataset(tmp_path / name)), "weight": weight} for name, weight in (("a", 3), ("b", 1))]
    job = make(train=parts, mixture_epoch=600)
    reader, _ = open_readers(job)
    try:
        mixture = reader.order
        assert isinstance(mixture, Mixture)
        walks = [mixture.lane_ids(2, lane) for lane in range(4)]
        for step in reversed(range(mixture.steps_per_epoch)):
            for lane in range(4):
                if rows := mixture.sizes(step)[lane]:
                    batch = reader.batch(2, step, lane)
                    assert batch.ids.tolist() == walks[lane][step * 16 : step * 16 + rows].tolist()
                    assert batch.arrays["id"].tolist() == (batch.ids % ROWS).tolist()
        shares = np.bincount(np.concatenate(walks) // ROWS)
        assert np.abs(shares - [450, 150]).max() <= 8
    finally:
        reader.close()


def test_parts_of_a_mixture_are_walked_in_orders_of_their_own(tmp_path: Path, make: Make) -> None:
    parts = [{"path": str(dataset(tmp_path / name))} for name in "ab"]
    mixture = train_order(make(train=parts), [files(Path(part["path"])) for part in parts])
    assert isinstance(mixture, Mixture)
    first, second = mixture.orders
    assert first.lane_ids(0, 0).tolist() != second.lane_ids(0, 0).tolist()


@pytest.mark.parametrize(
    ("data", "lanes", "said"),
    [
        ({"sampling": {"rows": 10}}, 4, r"data.sampling.rows=10: the training set is a mixture"),
        ({}, 1001, r"data.train\[0\] has 1000 rows"),
        ({"sampling": {"weights": {"yak": 1}}}, 4, "names the class 'yak'"),
    ],
)
def test_what_does_not_fit_a_mixture_is_refused(
    tmp_path: Path, make: Make, data: dict[str, Any], lanes: int, said: str
) -> None:
    parts = [{"path": str(dataset(tmp_path / name))} for name in "ab"]
    job = make(train=parts, **data).model_copy(update={"lanes": lanes})
    with pytest.raises(BadInput, match=said):
        train_order(job, [files(Path(part["path"])) for part in parts])
