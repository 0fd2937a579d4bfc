"""What every reader keeps, whichever way it reads: the order's rows, once each, through resizes and resumes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.conftest import SharedRay, make_dataset
from tests.tiers import SOAK, examples
from tests.waiting import until

from headway.core.lanes import carried
from headway.core.mixture import Mixture, Walk
from headway.core.order import Order
from headway.core.sampling import Sampling
from headway.data import manifest as manifests
from headway.data.own.reader import RowReader
from headway.data.own.rows import Rows
from headway.data.read.direct import DirectReader
from headway.data.read.groups import Groups
from headway.data.read.ray_reader import RayReader
from headway.data.read.reader import Batch, Reader, Transform
from headway.data.store.files import LocalFiles
from headway.data.tensors import column
from headway.data.write.sizing import Sizes
from headway.data.write.writer import write_dataset

LAYOUTS = [((1,),), ((7, 3),), ((20, 7, 40), (33, 20), (25, 25, 30)), ((5,) * 30, (9,) * 11), ((64,), (64,), (1, 64))]


def direct(folders: Sequence[Path], order: Walk, **options: Any) -> Reader:
    sources = [Groups(LocalFiles(folder, manifests.load(folder))) for folder in folders]
    return DirectReader(sources, order, **{"seed": 5, "prefetch": 10_000, **options})


def elsewhere(
    folders: Sequence[Path], order: Walk, options: dict[str, Any], transform: Transform | None, report: Any
) -> Reader:
    """The direct reader in a process of the cluster."""
    reader = direct(folders, order, **options)
    reader.use(transform)
    return reader


class Streamed(RayReader):
    """The Ray Data reader, held to what it streams: batches that are to come are waited for, however early."""

    def __init__(self, folders: Sequence[Path], order: Walk, **options: Any) -> None:
        self.make = partial(elsewhere, folders, order, options)
        own = direct(folders, order, **options)
        super().__init__(own, partial(self.make, None), 10**6, 10_000, lambda *what: None, lead=0)

    def use(self, transform: Transform | None) -> None:
        super().use(transform)
        self._make = partial(self.make, transform)

    def batch(self, epoch: int, step: int, lane: int) -> Batch:
        deadline = time.monotonic() + 180  # a process of Ray's that was lost as it started is missed after 60 s
        while self._job is not None and not self._job.flows:
            assert time.monotonic() < deadline, "Ray Data gives nothing"
            time.sleep(0.005)
        return super().batch(epoch, step, lane)


class Stored(torch.utils.data.Dataset[dict[str, Any]]):
    """A folder's rows, one by one, as somebody's own Dataset has them."""

    def __init__(self, folder: Path) -> None:
        shards = [pq.read_table(folder / shard.path) for shard in manifests.load(folder).shards]
        self.ids = np.concatenate([shard["id"].to_numpy() for shard in shards])
        self.x = np.concatenate([np.stack(shard["x"].to_numpy(zero_copy_only=False)) for shard in shards])

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, row: int) -> dict[str, Any]:
        return {"id": int(self.ids[row]), "x": self.x[row]}


def own(folders: Sequence[Path], order: Order, **options: Any) -> Reader:
    return RowReader(Rows(Stored(folders[0])), order, "data.train", **{"seed": 5, "prefetch": 10_000, **options})


KINDS: dict[str, Callable[..., Reader]] = {"direct": direct, "ray": Streamed, "own": own}


@pytest.fixture(params=["direct", "own", pytest.param("ray", marks=[pytest.mark.ray])])
def open_reader(request: pytest.FixtureRequest, shared_ray: SharedRay) -> Callable[..., Reader]:
    """Opens a reader of each kind over folders, along an order."""
    if request.param == "ray":
        shared_ray.begin()
    return KINDS[request.param]


STORED = ["direct", pytest.param("ray", marks=[pytest.mark.ray])]
"""Of folders alone."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("sets")
    return [make_dataset(root / str(number), *layout) for number, layout in enumerate(LAYOUTS)]


def groups_of(folder: Path) -> tuple[int, ...]:
    return manifests.load(folder).groups


def wanted(order: Walk, epoch: int, step: int, lane: int) -> list[int]:
    begin = step * order.lane_batch
    return order.lane_ids(epoch, lane)[begin : begin + order.lane_batch].tolist()  # type: ignore[no-any-return]


def read(reader: Reader, number: int, lanes: Sequence[int]) -> Iterator[tuple[int, list[int]]]:
    """The lanes' sample ids at a step of the run; each batch is compared with the rows of these ids."""
    epoch, step = divmod(number, reader.order.steps_per_epoch)
    for lane in lanes:
        if reader.order.sizes(step)[lane]:
            batch = reader.batch(epoch, step, lane)
            ids = batch.ids.tolist()
            assert ids == wanted(reader.order, epoch, step, lane)
            if isinstance(reader.order, Order):
                assert batch.arrays["id"].tolist() == ids, "the rows are the ids' rows"
            addresses = [np.asarray(array).ctypes.data for array in batch.arrays.values()]
            assert all(address % 64 == 0 for address in addresses), "2.14: as any other reader's"
            x = np.sin(np.asarray(batch.arrays["id"])[:, None] * np.arange(1, 5))
            assert np.allclose(batch.arrays["x"], x, atol=1e-6)
            yield lane, ids


histories = st.lists(st.tuples(st.integers(1, 6), st.integers(1, 4), st.booleans()), min_size=1, max_size=4)


LONGER = [pytest.mark.soak, pytest.mark.timeout(3600 if SOAK else 300)]


@pytest.mark.parametrize(
    ("kind", "cases", "most"),
    [
        pytest.param("direct", examples(60, 3000), 4, marks=LONGER),
        pytest.param("own", examples(30, 1000), 4, marks=LONGER),
        pytest.param("ray", 3, 2, marks=[pytest.mark.ray]),
        pytest.param("ray", examples(10, 100), 4, marks=[pytest.mark.ray, pytest.mark.long, *LONGER]),
    ],
)
def test_every_row_once_in_one_order_for_all_histories_of_workers(
    kind: str, cases: int, most: int, folders: list[Path], shared_ray: SharedRay
) -> None:
    """Cases of rows, lanes, batch, window, budget and history, each from a random step of the run on."""

    if kind == "ray":
        shared_ray.begin()

    @settings(max_examples=cases, suppress_health_check=[HealthCheck.too_slow])
    @given(
        folder=st.sampled_from(folders),
        lanes=st.integers(1, 6),
        lane_batch=st.sampled_from([1, 4, 9, 33, 100]),
        window=st.sampled_from([1, 4, 16]),
        start=st.integers(0, 40),
        prefetch=st.sampled_from([1, 3000, 20_000]),
        history=histories,
    )
    def case(folder: Path, lanes: int, lane_batch: int, window: int, start: int, prefetch: int, history: Any) -> None:
        order = Order(groups_of(folder), 3, lanes, lane_batch, window)
        workers = [KINDS[kind]([folder], order, prefetch=prefetch) for _ in range(min(lanes, most))]
        number, taken = start, dict[int, list[int]]()
        for steps, size, breaks in history:  # (steps of the generation, workers, whether its last step is done again)
            shares = carried(lanes, min(size, lanes, most))
            for worker, share in zip(workers, [*shares, *[range(0)] * len(workers)], strict=False):
                worker.carry(share, number)
            for again in range(steps + breaks):
                ids = [i for w, share in zip(workers, shares, strict=False) for _, i in read(w, number, share)]
                taken[number] = [i for lane in ids for i in lane]
                number += 0 if breaks and again == steps - 1 else 1
        for worker in workers:
            worker.close()
        for epoch in range(start // order.steps_per_epoch, number // order.steps_per_epoch + 1):
            steps_of = range(epoch * order.steps_per_epoch, (epoch + 1) * order.steps_per_epoch)
            if all(step in taken for step in steps_of):
                assert sorted(i for step in steps_of for i in taken[step]) == list(range(order.rows))

    case()


@pytest.mark.parametrize("sampling", [None, Sampling(rows=300), Sampling(strata=np.arange(200) % 3)])
def test_whole_epochs(open_reader: Any, folders: list[Path], sampling: Sampling | None) -> None:
    order = Order(groups_of(folders[2]), 1, 3, 9, 6, sampling=sampling)
    with closing(open_reader([folders[2]], order)) as reader:
        reader.carry(range(3), 0)
        for number in range(3 * order.steps_per_epoch):
            assert list(read(reader, number, range(3)))


@pytest.mark.parametrize("open_reader", STORED, indirect=True)
def test_a_mixture(open_reader: Any, folders: list[Path]) -> None:
    orders = tuple(Order(groups_of(folder), seed, 2, 16, 4) for seed, folder in enumerate(folders[2:4]))
    mixture = Mixture(orders, (3.0, 1.0), 7)
    with closing(open_reader(folders[2:4], mixture)) as reader:
        reader.carry([0, 1], 0)
        for number in range(mixture.steps_per_epoch + 3):
            assert list(read(reader, number, [0, 1]))
        assert list(read(reader, 2, [1])), "an earlier step again"


def test_any_step_can_be_asked_for_at_once(open_reader: Any, folders: list[Path]) -> None:
    """A resumed run, or a lane that moved, begins in the middle; nobody said that it would."""
    order = Order(groups_of(folders[2]), 1, 3, 9, 6)
    with closing(open_reader([folders[2]], order)) as reader:
        for epoch, step, lane in [(5, 3, 2), (0, 6, 0), (5, 3, 2), (2, 0, 1), (5, 2, 2)]:
            assert list(read(reader, epoch * order.steps_per_epoch + step, [lane]))
        with pytest.raises(ValueError, match="lane 0 has no rows"):
            reader.batch(0, 99, 0)


def test_batches_are_the_askers_own(open_reader: Any, folders: list[Path]) -> None:
    """What the loop does to a batch in place is not seen by a step that is done again, or by the next epoch."""
    order = Order(groups_of(folders[2]), 1, 2, 8, 4, shuffle=False)
    with closing(open_reader([folders[2]], order, training=False)) as reader:
        for _ in range(3):
            batch = reader.batch(0, 2, 1)
            torch.as_tensor(batch.arrays["id"]).mul_(0)  # a read-only array would warn, and warnings are errors
            assert batch.arrays["id"].tolist() == [0] * 8
            assert reader.batch(0, 2, 1).arrays["id"].tolist() == wanted(order, 0, 2, 1)


WIDTHS = (9, 13, 17, 33, 65, 129)
"""Of these MKL's bits follow from the address of what is multiplied."""


@pytest.mark.ray
def test_2_14a_a_linear_layer_gives_the_same_bits_from_both_readers(tmp_path: Path, connected: None) -> None:
    random = np.random.default_rng(3)
    wide = {f"x{width}": column(random.normal(size=(200, width)).astype(np.float32)) for width in WIDTHS}
    write_dataset(tmp_path / "wide", [pa.table({**wide, "id": np.arange(200)})], name="w", source="s", sizes=Sizes(20))
    order = Order(groups_of(tmp_path / "wide"), 1, 2, 7, 4)
    found: dict[str, list[bytes]] = {}
    for kind in ("direct", "ray"):
        with closing(KINDS[kind]([tmp_path / "wide"], order)) as reader:
            reader.carry([0, 1], 0)
            found[kind] = []
            for step in range(12):
                for lane in (0, 1):
                    batch = reader.batch(0, step, lane)
                    for width in WIDTHS:
                        torch.manual_seed(width)
                        bits = torch.nn.Linear(width, 10)(torch.as_tensor(batch.arrays[f"x{width}"]))
                        found[kind].append(bits.detach().numpy().tobytes())
            if isinstance(reader, RayReader):
                assert reader.streamed > 0, "some of them came through the object store"
    assert found["direct"] == found["ray"]


def noisy(table: pa.Table, random: np.random.Generator, training: bool) -> dict[str, Any]:
    return {"id": table["id"].to_numpy(), "noise": random.random(len(table)), "training": np.full(len(table), training)}


@pytest.mark.parametrize("open_reader", STORED, indirect=True)
def test_the_transforms_randomness_follows_the_lane(open_reader: Any, folders: list[Path]) -> None:
    order = Order(groups_of(folders[2]), 1, 3, 9, 6)
    seen: list[dict[tuple[int, int], Any]] = []
    for lanes, start in (([0, 1, 2], 0), ([1], 4), ([2, 1], 2)):
        with closing(open_reader([folders[2]], order)) as reader:
            reader.use(noisy)
            reader.carry(lanes, start)
            seen.append({})
            for number in range(start, 7):
                epoch, step = divmod(number, order.steps_per_epoch)
                for lane in lanes:
                    batch = reader.batch(epoch, step, lane)
                    assert batch.arrays["id"].tolist() == batch.ids.tolist()
                    assert all(array.ctypes.data % 64 == 0 for array in batch.arrays.values())
                    assert batch.arrays["training"].all()
                    seen[-1][number, lane] = batch.arrays["noise"].tolist()
    whole = seen[0]
    assert all(whole[place] == noise for part in seen[1:] for place, noise in part.items())
    assert len({str(noise) for noise in whole.values()}) == len(whole)


@pytest.mark.parametrize("open_reader", STORED, indirect=True)
def test_an_error_of_the_transform_surfaces_where_its_batch_is_asked_for(open_reader: Any, folders: list[Path]) -> None:
    order = Order(groups_of(folders[2]), 1, 1, 9, 6)
    bad = wanted(order, 0, 3, 0)[4]

    def picky(table: pa.Table, random: np.random.Generator, training: bool) -> dict[str, Any]:
        if bad in table["id"].to_pylist():
            raise ZeroDivisionError("the user's")
        return {"id": table["id"].to_numpy()}

    with closing(open_reader([folders[2]], order)) as reader:
        reader.use(picky)
        reader.carry([0], 0)
        for step in range(3):
            assert reader.batch(0, step, 0).arrays["id"].tolist() == wanted(order, 0, step, 0)
        for _ in range(2):
            with pytest.raises(ZeroDivisionError, match="the user's") as caught:
                reader.batch(0, 3, 0)
            assert any(entry.name == "picky" for entry in caught.traceback)
        assert reader.batch(0, 4, 0).arrays["id"].tolist() == wanted(order, 0, 4, 0)


@pytest.mark.parametrize("open_reader", STORED, indirect=True)
def test_evaluation_walks_the_same_rows_again(open_reader: Any, folders: list[Path]) -> None:
    order = Order(groups_of(folders[2]), 1, 3, 10, 4, shuffle=False)
    with closing(open_reader([folders[2]], order, training=False)) as reader:
        reader.use(noisy)
        found = []
        for _ in range(2):
            reader.carry(range(3), 0)
            places = [(step, lane) for step in range(order.steps_per_epoch) for lane in range(3)]
            batches = [reader.batch(0, step, lane) for step, lane in places if order.sizes(step)[lane]]
            reader.carry((), 0)
            assert not any(batch.arrays["training"].any() for batch in batches)
            found.append([batch.arrays["noise"].tolist() for batch in batches])
            assert sorted(i for batch in batches for i in batch.ids) == list(range(200))
        assert found[0] == found[1]


def ready(reader: RowReader) -> bool:
    """Whether all that is read ahead is there."""
    return bool(reader._batches) and all(batch.value is not None for batch in reader._batches.values())


def test_own_rows_read_ahead_in_processes_are_the_same(folders: list[Path]) -> None:
    """However long rows take, and whoever reads them."""
    order = Order(groups_of(folders[2]), 1, 3, 9, 6)
    with closing(own([folders[2]], order, processes=1, slow_s=-1.0)) as reader:
        assert isinstance(reader, RowReader)
        reader.carry(range(3), 0)
        for number in range(2):
            assert list(read(reader, number, range(3)))
        until(lambda: reader._up == 1, "the process is there", within_s=120.0)
        reader.carry(range(3), 2)
        until(lambda: ready(reader), "what was read ahead is there", within_s=120.0)
        here, ahead = reader._read, len(reader._batches)
        steps = range(2, 2 * order.steps_per_epoch)
        found = sum(len(list(read(reader, number, range(3)))) for number in steps)
        assert reader._read - here <= found - ahead, "those came from the process"
