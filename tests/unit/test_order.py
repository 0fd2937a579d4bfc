"""Properties of the order of samples: what every run relies on, for any dataset and any cut into lanes."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.core.lanes import carried
from headway.core.order import Cursor, Order, permutation

GROUPS = st.lists(st.integers(0, 40), min_size=1, max_size=12).filter(any).map(tuple)
ORDERS = st.builds(
    Order,
    groups=GROUPS,
    seed=st.integers(0, 2**63 - 1),
    lanes=st.integers(1, 9),
    lane_batch=st.integers(1, 17),
    window=st.integers(1, 20),
    shuffle=st.booleans(),
)
EPOCHS = st.integers(0, 1000)


def taken(order: Order, epoch: int) -> list[list[np.ndarray]]:
    """The sample ids that each lane takes, step by step."""
    walks = [order.lane_ids(epoch, lane) for lane in range(order.lanes)]
    size = order.lane_batch
    return [[walk[s * size : (s + 1) * size] for walk in walks] for s in range(order.steps_per_epoch)]


@given(ORDERS, EPOCHS)
def test_every_row_comes_exactly_once_per_epoch(order: Order, epoch: int) -> None:
    walks = [order.lane_ids(epoch, lane) for lane in range(order.lanes)]
    assert np.array_equal(np.sort(np.concatenate(walks)), np.arange(order.rows))


@given(ORDERS, EPOCHS)
def test_sizes_say_what_the_lanes_take(order: Order, epoch: int) -> None:
    steps = taken(order, epoch)
    assert [[len(ids) for ids in lanes] for lanes in steps] == [order.sizes(s) for s in range(len(steps))]
    assert sum(map(sum, map(order.sizes, range(len(steps))))) == order.rows
    assert sum(order.sizes(len(steps) - 1)) > 0, "the last step has rows"
    assert sum(order.sizes(len(steps))) == 0, "no step comes after it"


@given(ORDERS, EPOCHS)
def test_all_steps_but_the_last_two_are_full(order: Order, epoch: int) -> None:
    """Lanes differ by one row at most, so only the end of an epoch is short."""
    full = order.lanes * order.lane_batch
    assert all(sum(order.sizes(step)) == full for step in range(order.steps_per_epoch - 2))


@given(ORDERS)
def test_lanes_cut_the_rows_into_equal_parts(order: Order) -> None:
    bounds = [order.bounds(lane) for lane in range(order.lanes)]
    assert bounds[0][0] == 0
    assert bounds[-1][1] == order.rows
    assert all(stop == start for (_, stop), (start, _) in pairwise(bounds))
    lengths = [stop - start for start, stop in bounds]
    assert max(lengths) - min(lengths) <= 1


@given(ORDERS, EPOCHS)
def test_windows_lie_end_to_end_and_hold_no_more_row_groups_than_the_lanes_share(order: Order, epoch: int) -> None:
    for lane in range(order.lanes):
        windows = order.windows(epoch, lane)
        begin, stop = order.bounds(lane)
        assert sum(w.rows for w in windows) == stop - begin
        assert [w.index for w in windows] == list(range(len(windows)))
        assert [w.first for w in windows] == [sum(w.rows for w in windows[:i]) for i in range(len(windows))]
        assert all(1 <= len(w.pieces) <= max(1, order.window // order.lanes) for w in windows)
        assert all(0 <= p.start < p.stop <= order.groups[p.group] for w in windows for p in w.pieces)


@given(ORDERS, EPOCHS)
def test_equal_arguments_give_equal_orders(order: Order, epoch: int) -> None:
    from headway.core import order as module

    before = [order.lane_ids(epoch, lane) for lane in range(order.lanes)]
    module._windows.cache_clear()
    module._line.cache_clear()
    module._first_ids.cache_clear()
    fields = (order.seed, order.lanes, order.lane_batch, order.window, order.shuffle)
    again = Order((*order.groups,), *fields)
    list(again.windows(epoch + 1, 0))  # what was looked up before must not matter
    for lane in reversed(range(order.lanes)):
        assert np.array_equal(again.lane_ids(epoch, lane), before[lane])


@given(ORDERS, EPOCHS)
def test_the_lane_batch_only_cuts_the_walk(order: Order, epoch: int) -> None:
    other = Order(order.groups, order.seed, order.lanes, order.lane_batch + 1, order.window, order.shuffle)
    for lane in range(order.lanes):
        assert np.array_equal(order.lane_ids(epoch, lane), other.lane_ids(epoch, lane))


def walk(seed: int = 3, epoch: int = 0, **fields: object) -> list[int]:
    order = Order(**{"groups": (50, 50, 50, 50), "seed": seed, "lanes": 2, "lane_batch": 8, **fields})  # type: ignore[arg-type]
    return [int(i) for lane in range(order.lanes) for i in order.lane_ids(epoch, lane)]


def test_seeds_and_epochs_and_lanes_give_different_orders() -> None:
    walks = [walk(), walk(seed=4), walk(epoch=1), walk(seed=4, epoch=1), walk(lanes=4), walk(window=2)]
    assert len({tuple(w) for w in walks}) == len(walks)


def test_lanes_permute_equal_windows_differently() -> None:
    order = Order((64,), 0, 2, 8)
    first, second = (order.window_order(0, lane, order.windows(0, lane)[0]) for lane in (0, 1))
    assert not np.array_equal(first, second)


def test_rows_are_mixed_across_the_row_groups_of_a_window() -> None:
    order = Order((100,) * 4, 0, 1, 10, window=4)
    groups = {int(i) // 100 for i in order.lane_ids(0, 0)[:40]}
    assert groups == {0, 1, 2, 3}


def test_without_shuffling_rows_come_as_stored() -> None:
    assert walk(shuffle=False) == list(range(200)) == walk(shuffle=False, epoch=5, seed=9)


def test_cursor_counts_epochs_and_steps() -> None:
    order = Order((10, 10, 5), 7, 2, 4)  # lanes of 12 and 13 rows: 4 steps
    assert order.steps_per_epoch == 4
    cursors = [order.cursor(step) for step in (0, 3, 4, 11)]
    assert cursors == [Cursor(7, 0, 0), Cursor(7, 0, 3), Cursor(7, 1, 0), Cursor(7, 2, 3)]


def test_fewer_rows_than_lanes_leave_lanes_empty() -> None:
    order = Order((3,), 1, 8, 4)
    assert order.steps_per_epoch == 1
    assert sorted(order.sizes(0)) == [0] * 5 + [1] * 3
    assert sorted(int(i) for lane in range(8) for i in order.lane_ids(0, lane)) == [0, 1, 2]


@given(st.integers(0, 300), st.integers(0, 2**63 - 1))
def test_a_permutation_holds_every_number_once(n: int, seed: int) -> None:
    found = permutation(n, seed)
    assert found.dtype == np.int64
    assert np.array_equal(np.sort(found), np.arange(n))


def test_the_permutation_never_changes() -> None:
    """A golden value: another NumPy or another Headway must give old runs their old order."""
    assert permutation(12, 7).tolist() == [8, 4, 1, 6, 3, 2, 11, 7, 5, 9, 10, 0]
    order = Order((5, 3, 4), 7, 2, 3, 4)
    assert [order.lane_ids(e, lane).tolist() for e in (0, 1) for lane in (0, 1)] == [
        [9, 11, 5, 6, 8, 10],
        [1, 4, 2, 0, 3, 7],
        [9, 11, 5, 10, 6, 8],
        [3, 2, 4, 0, 7, 1],
    ]


def test_large_datasets_are_cheap_to_ask() -> None:
    """A step asks for sizes and windows: neither may go through 100,000 row groups once per lane."""
    import time

    order = Order((8192,) * 100_000, 0, 64, 32)
    order.sizes(0)
    begun = time.process_time()
    for step in range(50):
        order.sizes(step)
        order.windows(0, 3)
    assert time.process_time() - begun < 2.0


@given(st.integers(1, 64), st.data())
def test_workers_carry_every_lane_once_in_order(lanes: int, data: st.DataObject) -> None:
    workers = data.draw(st.integers(1, lanes))
    parts = carried(lanes, workers)
    assert [lane for part in parts for lane in part] == list(range(lanes))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("workers", [0, -1, 9])
def test_lanes_cannot_be_carried_by_none_or_by_more_workers(workers: int) -> None:
    with pytest.raises(ValueError, match="8 lanes cannot be carried"):
        carried(8, workers)
