"""Properties of weighted, stratified and bucketed orders, for any dataset and any cut into lanes."""

from __future__ import annotations

import pickle
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.core import sampling as pure
from headway.core.order import Order, Window
from headway.core.sampling import Sampling

EPOCHS = st.integers(0, 1000)
SEEDS = st.integers(0, 2**63 - 1)
WEIGHTS = st.sampled_from([0.0, 1e-6, 0.5, 1.0, 3.0, 1e6])


@st.composite
def orders(draw: st.DrawFn, **fixed: Any) -> Order:
    """Any order with any sampling. fixed: fields of `Sampling`."""
    groups = draw(st.lists(st.integers(0, 40), min_size=1, max_size=12).filter(any).map(tuple))
    stored = sum(groups)
    weights = np.array(draw(st.lists(WEIGHTS, min_size=stored, max_size=stored).filter(any)))
    replacement = draw(st.booleans())
    most = 2 * stored if replacement else np.count_nonzero(weights)
    codes = st.lists(st.integers(0, 5), min_size=stored, max_size=stored)
    fields: dict[str, Any] = {
        "rows": draw(st.none() | st.integers(1, most)),
        "weights": weights,
        "replacement": replacement,
        "strata": np.array(draw(codes), np.int32) if draw(st.booleans()) else None,
        "lengths": np.array(draw(codes), np.int32) if draw(st.booleans()) else None,
        "buckets": draw(st.integers(1, 5)),
    }
    return Order(
        groups=groups,
        seed=draw(SEEDS),
        lanes=draw(st.integers(1, 9)),
        lane_batch=draw(st.integers(1, 17)),
        window=draw(st.integers(1, 20)),
        shuffle=draw(st.booleans()),
        sampling=Sampling(**{**fields, **fixed}),
    )


def sampled(order: Order) -> Sampling:
    assert order.sampling is not None
    return order.sampling


def epoch_ids(order: Order, epoch: int) -> np.ndarray:
    return np.concatenate([order.lane_ids(epoch, lane) for lane in range(order.lanes)])


@given(orders(), EPOCHS)
def test_lanes_take_what_the_epoch_draws_and_nothing_else(order: Order, epoch: int) -> None:
    drawn = sampled(order).draw(order.stored, order.seed, epoch)
    assert np.array_equal(np.sort(epoch_ids(order, epoch)), drawn)
    assert len(drawn) == order.rows


@given(orders(rows=None), EPOCHS)
def test_without_a_number_of_rows_each_comes_exactly_once(order: Order, epoch: int) -> None:
    assert np.array_equal(np.sort(epoch_ids(order, epoch)), np.arange(order.stored))


@given(orders(), EPOCHS)
def test_sizes_say_what_the_lanes_take(order: Order, epoch: int) -> None:
    for lane in range(order.lanes):
        walk = order.lane_ids(epoch, lane)
        sizes = [order.sizes(step)[lane] for step in range(order.steps_per_epoch)]
        assert len(walk) == order.length(lane) == sum(sizes)


@given(orders(), EPOCHS)
def test_windows_lie_end_to_end_and_say_what_is_read_and_what_is_taken(order: Order, epoch: int) -> None:
    for lane in range(order.lanes):
        windows = order.windows(epoch, lane)
        assert [w.first for w in windows] == [sum(w.rows for w in windows[:i]) for i in range(len(windows))]
        for window in windows:
            chosen = order.window_order(epoch, lane, window)
            assert len(chosen) == window.rows > 0
            assert len(order.ids(window)) == window.size
            assert chosen.min() >= 0
            assert chosen.max() < window.size
            assert 1 <= len(window.pieces) <= max(1, order.window // order.lanes)
            assert len({piece.group for piece in window.pieces}) == len(window.pieces), "each row group is read once"
            assert all(0 <= p.start < p.stop <= order.groups[p.group] for p in window.pieces)


@given(orders(), EPOCHS)
def test_a_twin_in_another_process_that_asks_for_a_later_window_first_finds_the_same(order: Order, epoch: int) -> None:
    """What a worker that resumes, or takes over a lane in mid-epoch, relies on."""
    twin = pickle.loads(pickle.dumps(order))

    def walk(one: Order, lane: int, window: Window) -> list[int]:
        return [int(i) for i in one.ids(window)[one.window_order(epoch, lane, window)]]

    for lane in reversed(range(order.lanes)):
        later = twin.windows(epoch, lane)
        assert later == order.windows(epoch, lane)
        assert [walk(twin, lane, w) for w in later[::-1]] == [walk(order, lane, w) for w in later][::-1]


@given(orders(lengths=None), EPOCHS)
def test_the_lane_batch_only_cuts_the_walk(order: Order, epoch: int) -> None:
    other = replace(order, lane_batch=order.lane_batch + 1)
    for lane in range(order.lanes):
        assert np.array_equal(order.lane_ids(epoch, lane), other.lane_ids(epoch, lane))


@given(orders(), EPOCHS)
def test_the_draw_does_not_depend_on_the_lanes_or_the_window(order: Order, epoch: int) -> None:
    other = replace(order, lanes=order.lanes % 9 + 1, window=order.window % 20 + 1)
    assert np.array_equal(np.sort(epoch_ids(order, epoch)), np.sort(epoch_ids(other, epoch)))


@given(st.lists(WEIGHTS, min_size=1, max_size=60).filter(any), st.integers(1, 300), SEEDS)
def test_with_replacement_counts_are_near_their_expectation(weights: list[float], count: int, seed: int) -> None:
    drawn = pure.with_replacement(np.array(weights), count, seed)
    counts = np.bincount(drawn, minlength=len(weights))
    expected = count * np.array(weights) / sum(weights)
    assert len(drawn) == count
    assert np.all(np.diff(drawn) >= 0)
    assert np.all(counts[np.array(weights) == 0] == 0)
    assert np.all(np.abs(counts - expected) < 2.001)


@given(st.lists(WEIGHTS, min_size=1, max_size=60).filter(any), SEEDS, st.data())
def test_without_replacement_rows_differ_and_have_weight(weights: list[float], seed: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(0, np.count_nonzero(weights)))
    drawn = pure.without_replacement(np.array(weights), count, seed)
    assert len(drawn) == count == len(set(drawn.tolist()))
    assert np.all(np.array(weights)[drawn] > 0)


def test_with_replacement_means_come_out_as_weighted() -> None:
    weights = np.array([1.0, 2.0, 0.5, 4.0, 2.5])
    drawn = np.concatenate([pure.with_replacement(weights, 7, seed) for seed in range(4000)])
    found = np.bincount(drawn) / 4000
    assert np.allclose(found, 7 * weights / 10, atol=0.03)


def test_without_replacement_first_draws_come_out_as_weighted() -> None:
    weights = np.array([1.0, 2.0, 0.5, 4.0, 2.5])
    first = np.concatenate([pure.without_replacement(weights, 1, seed) for seed in range(20_000)])
    assert np.allclose(np.bincount(first) / 20_000, weights / 10, atol=0.012)
    pairs = [tuple(pure.without_replacement(weights, 2, seed)) for seed in range(20_000)]
    expected = 0.4 * 0.25 / 0.6 + 0.25 * 0.4 / 0.75  # rows 3 and 4, in either order
    assert abs(pairs.count((3, 4)) / 20_000 - expected) < 0.012


def test_balanced_weights_bring_every_class_equally_often() -> None:
    classes = np.repeat(np.arange(4, dtype=np.int32), [1000, 100, 10, 1])
    drawn = pure.with_replacement(pure.balanced(classes), 1000, 5)
    assert np.all(np.abs(np.bincount(classes[drawn]) - 250) <= 2)


def test_epochs_and_seeds_draw_differently() -> None:
    sampling = Sampling(rows=50)
    draws = [sampling.draw(1000, seed, epoch).tolist() for seed in (1, 2) for epoch in (0, 1)]
    assert len({tuple(draw) for draw in draws}) == 4


def test_the_draws_never_change() -> None:
    """Golden values: another NumPy or another Headway must give old runs their old draws."""
    weights = np.array([1.0, 0.0, 3.0, 0.5, 2.0, 1.0, 1.0, 4.0])
    assert pure.with_replacement(weights, 10, 7).tolist() == [2, 2, 2, 3, 4, 5, 6, 7, 7, 7]
    assert pure.without_replacement(weights, 4, 7).tolist() == [0, 2, 5, 7]


def test_the_logarithm_is_one() -> None:
    x = np.concatenate([np.linspace(1e-9, 1.0, 10_001), 2.0 ** -np.arange(1, 54), [np.sqrt(0.5), 1 - 2**-53]])
    assert np.allclose(pure._log(x), np.log(x), rtol=1e-15, atol=1e-16)


@given(orders(), EPOCHS)
def test_stratified_lanes_differ_by_one_row_of_each_class(order: Order, epoch: int) -> None:
    strata = np.arange(order.stored, dtype=np.int32) % 4 if sampled(order).strata is None else sampled(order).strata
    assert strata is not None
    order = replace(order, sampling=replace(sampled(order), strata=strata))
    counts = [np.bincount(strata[order.lane_ids(epoch, lane)], minlength=6) for lane in range(order.lanes)]
    assert np.ptp(np.array(counts), axis=0).max() <= 1


def test_stratified_lanes_of_mixed_classes_stay_stretches_of_the_line() -> None:
    """Else every lane would read every row group."""
    strata = np.arange(6400, dtype=np.int32) % 5
    order = Order((100,) * 64, 3, 8, 10, sampling=Sampling(strata=strata))
    plain = replace(order, sampling=None)
    read = [sum(w.size for lane in range(8) for w in o.windows(0, lane)) for o in (order, plain)]
    assert read[0] <= 1.02 * read[1]


def test_a_small_draw_reads_no_more_of_a_row_group_than_it_must() -> None:
    weights = np.zeros(1000)
    weights[[110, 111, 115, 900]] = 1.0
    order = Order((100,) * 10, 0, 1, 8, sampling=Sampling(rows=4, weights=weights, replacement=False))
    (window,) = order.windows(0, 0)
    assert {(p.group, p.start, p.stop) for p in window.pieces} == {(1, 10, 16), (9, 0, 1)}
    assert (window.rows, window.size) == (4, 7)


def test_a_row_that_fills_the_epoch_is_shared_by_the_lanes() -> None:
    weights = np.zeros(100)
    weights[42] = 1.0
    order = Order((50, 50), 0, 4, 8, sampling=Sampling(rows=30, weights=weights))
    assert [order.lane_ids(0, lane).tolist() for lane in range(4)] == [[42] * 7, [42] * 8, [42] * 7, [42] * 8]


def batches(order: Order, lane: int) -> list[np.ndarray]:
    walk = order.lane_ids(0, lane)
    return [walk[at : at + order.lane_batch] for at in range(0, len(walk), order.lane_batch)]


LENGTHS = (np.random.Generator(np.random.Philox(3)).lognormal(4, 1, 20_000)).astype(np.int32)


def padding(order: Order) -> float:
    """Share of a batch's places that hold nothing, when rows are padded to the batch's longest."""
    found = [LENGTHS[batch] for lane in range(order.lanes) for batch in batches(order, lane)]
    return 1 - sum(x.sum() for x in found) / sum(x.max() * len(x) for x in found)


def test_buckets_save_most_of_the_padding() -> None:
    plain = Order((1000,) * 20, 1, 4, 16)
    order = replace(plain, sampling=Sampling(lengths=LENGTHS))
    wide = replace(plain, sampling=Sampling(lengths=LENGTHS, buckets=64))
    assert padding(order) < 0.5 * padding(plain)
    assert padding(wide) < 0.25 * padding(plain)


def test_buckets_are_not_walked_from_short_to_long() -> None:
    order = Order((1000,) * 20, 1, 4, 16, sampling=Sampling(lengths=LENGTHS))
    means = np.array([LENGTHS[batch].mean() for batch in batches(order, 0)])
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.15
    assert any(a > b for a, b in pairwise(means[:16]))


def test_long_batches_come_in_the_same_step_in_every_lane() -> None:
    order = Order((1000,) * 20, 1, 4, 16, sampling=Sampling(lengths=LENGTHS))
    longest = np.log([[LENGTHS[batch].mean() for batch in batches(order, lane)[:300]] for lane in range(4)])
    assert np.corrcoef(longest)[np.triu_indices(4, 1)].min() > 0.8


@pytest.mark.parametrize("rows", [None, 1_000_000])
def test_large_draws_are_cheap_enough_for_the_end_of_an_epoch(rows: int | None) -> None:
    import time

    strata = np.arange(1_000_000, dtype=np.int32) % 10
    weights = None if rows is None else pure.balanced(strata)
    order = Order((10_000,) * 100, 0, 16, 32, sampling=Sampling(rows=rows, weights=weights, strata=strata))
    begun = time.process_time()
    for lane in range(16):
        order.windows(0, lane)
    assert time.process_time() - begun < 3.0
