"""Memory of batches: aligned and row after row, whoever read them, so that bits follow from the values alone."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from numpy.lib.stride_tricks import as_strided

from headway.core.order import Order
from headway.data import manifest as manifests
from headway.data.read.aligned import ALIGNMENT, aligned, aligned_batch, empty
from headway.data.read.direct import DirectReader
from headway.data.read.groups import Groups
from headway.data.read.ray_reader import packed_batch, unpacked
from headway.data.store.files import LocalFiles
from headway.data.tensors import column
from headway.data.write.sizing import Sizes
from headway.data.write.writer import write_dataset


def off_by(shift: int, shape: tuple[int, ...], dtype: Any = np.float32) -> Any:
    """An array that begins so many bytes behind an aligned address."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    array = empty((size + shift,), np.uint8)[shift:].view(dtype).reshape(shape)
    array[...] = np.arange(array.size).reshape(shape) % 251
    return array


def address(value: Any) -> int:
    return value.data_ptr() if isinstance(value, torch.Tensor) else value.ctypes.data  # type: ignore[no-any-return]


@pytest.mark.parametrize("shape", [(1,), (3,), (5, 7), (2, 3, 4), (1, 1, 9)])
@pytest.mark.parametrize("dtype", [np.uint8, np.bool_, np.float16, np.float32, np.int64, np.complex64])
@pytest.mark.parametrize("shift", [0, 16, 32, 48])
def test_2_14a_an_array_is_copied_only_where_it_must_be(shape: tuple[int, ...], dtype: Any, shift: int) -> None:
    given = off_by(shift, shape, dtype)
    found = aligned(given)
    assert address(found) % ALIGNMENT == 0
    assert (found == given).all()
    assert (found.dtype, found.shape) == (given.dtype, given.shape)
    assert (found is given) == (shift == 0)


def test_2_14a_whatever_the_transform_returns_lies_the_same_way() -> None:
    base = off_by(0, (8, 6))
    frozen = base.copy()
    frozen.flags.writeable = False
    for value in [
        base.T,
        base[:, ::2],
        base[::-1],
        np.asfortranarray(base),
        frozen,
        np.broadcast_to(np.float32(3), (4, 4)),
        as_strided(base[:1], (1, 6), (4, 4)),  # C-contiguous by its flags, with a stride of its own
        [[1, 2], [3, 4]],
    ]:
        found = aligned(value)
        assert address(found) % ALIGNMENT == 0
        assert found.flags.writeable
        assert found.strides == np.zeros(found.shape, found.dtype).strides
        assert (found == np.asarray(value)).all()


def test_2_14a_tensors_keep_the_order_of_their_dimensions() -> None:
    memory = torch.arange(2 * 3 * 4 * 5 + 1, dtype=torch.float32)
    image = memory[1:].view(2, 3, 4, 5)
    found = aligned(image)
    assert address(found) % ALIGNMENT == 0
    assert torch.equal(found, image)
    last = image.contiguous(memory_format=torch.channels_last)
    assert aligned(last).stride() == last.stride()
    wide = torch.ones(1).expand(4, 4)
    assert aligned(wide).stride() == aligned(wide.clone()).stride() == (4, 1)
    own = torch.ones(4, 4)
    assert aligned(own) is own


def test_what_holds_no_numbers_is_left_to_be_refused() -> None:
    words, ragged, none = np.array(["a"]), [[1], [2, 3]], np.empty((0, 3))
    assert aligned(words) is words
    assert aligned(ragged) is ragged
    assert aligned(none) is none
    assert aligned_batch("no dict") == "no dict"


WIDTHS = (9, 13, 17, 33, 65, 129)


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 rows with a column of each width, in row groups that lane batches do not divide."""
    folder = tmp_path_factory.mktemp("wide")
    random = np.random.default_rng(3)
    columns = {f"x{width}": column(random.normal(size=(300, width)).astype(np.float32)) for width in WIDTHS}
    write_dataset(folder, [pa.table({**columns, "y": np.arange(300)})], name="w", source="s", sizes=Sizes(37))
    return folder


def every(batches: Any, order: Order) -> list[Any]:
    return [
        batches(0, step, lane) for step in range(order.steps_per_epoch) for lane in range(3) if order.sizes(step)[lane]
    ]


def as_it_is(table: pa.Table, random: np.random.Generator, training: bool) -> dict[str, Any]:
    return {name: table[name].combine_chunks().to_numpy_ndarray() for name in table.column_names if name != "y"}


def shifted(table: pa.Table, random: np.random.Generator, training: bool) -> dict[str, Any]:
    """Of the user's own making, anywhere in memory."""
    return {name: off_by(4, array.shape) + array for name, array in as_it_is(table, random, training).items()}


@pytest.mark.parametrize("transform", [None, as_it_is, shifted])
@pytest.mark.parametrize("lane_batch", [1, 7, 16, 50])
def test_2_14a_both_readers_batches_give_the_same_bits(wide: Path, transform: Any, lane_batch: int) -> None:
    """A batch that came through the object store, as one that the worker read itself."""
    order = Order(manifests.load(wide).groups, 3, 3, lane_batch, 4)

    def reader() -> DirectReader:
        found = DirectReader([Groups(LocalFiles(wide, manifests.load(wide)))], order, seed=5)
        found.use(transform)
        return found

    with closing(reader()) as here, closing(reader()) as there:
        here.carry(range(3), 0)
        direct = every(here.batch, order)
        streamed = [unpacked(packed_batch((0, 0, 0), batch, []))[1] for batch in every(there.batch, order)]
    assert len(direct) == len(streamed) > 0
    for one, other in zip(direct, streamed, strict=True):
        assert one.ids.tolist() == other.ids.tolist()
        for name, array in one.arrays.items():
            assert address(array) % ALIGNMENT == address(other.arrays[name]) % ALIGNMENT == 0
            assert array.strides == other.arrays[name].strides
    for width in WIDTHS:
        torch.manual_seed(width)
        layer = torch.nn.Linear(width, 10)
        with torch.no_grad():
            for one, other in zip(direct, streamed, strict=True):
                ours, theirs = (layer(torch.from_numpy(batch.arrays[f"x{width}"])) for batch in (one, other))
                assert ours.numpy().tobytes() == theirs.numpy().tobytes()


@pytest.mark.parametrize("lane_batch", [16, 24, 30])
def test_2_14a_whole_batches_of_a_window_need_no_copy(wide: Path, lane_batch: int) -> None:
    """Windows are laid so that their batches are aligned, with a few rows left free where their bytes want it."""
    order = Order(manifests.load(wide).groups, 3, 3, lane_batch, 4)
    groups = Groups(LocalFiles(wide, manifests.load(wide)))
    copied = whole = 0
    with closing(DirectReader([groups], order, seed=5)) as found:
        for lane in range(3):
            for step in range(order.length(lane) // lane_batch):
                (part,), _ = found._parts((0, step, lane))
                if len(part.reaches) > 1:
                    continue
                whole += 1
                (piece,) = found._sources[0].slices(part.reaches, False)
                copied += sum(aligned(array) is not array for array in piece.arrays().values())
    assert whole > 1
    assert copied == 0
