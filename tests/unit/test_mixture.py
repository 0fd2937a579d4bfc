"""Properties of mixtures of datasets: their shares, their epochs, and that every place can be found by its number."""

from __future__ import annotations

import pickle
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.core.mixture import LARGEST_BLOCK, Mixture, shares
from headway.core.order import Order

WEIGHTS = st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=5).map(tuple)
EPOCHS = st.integers(0, 20)


@st.composite
def mixtures(draw: st.DrawFn) -> Mixture:
    lanes, lane_batch = draw(st.integers(1, 5)), draw(st.integers(1, 17))
    weights = draw(st.lists(st.sampled_from([0.1, 0.25, 1.0, 3.0, 7.5]), min_size=1, max_size=4).map(tuple))
    groups = st.lists(st.integers(1, 30), min_size=1, max_size=6).map(tuple).filter(lambda g: sum(g) >= lanes)
    sources = [draw(groups) for _ in weights]
    seed = draw(st.integers(0, 2**62))
    orders = tuple(Order(g, seed + i, lanes, lane_batch, window=4) for i, g in enumerate(sources))
    ends = draw(st.sampled_from(["smallest", "largest"]) | st.integers(lanes, 2000))
    return Mixture(orders, weights, seed, ends, shuffle=draw(st.booleans()))


def source_of(mixture: Mixture, ids: np.ndarray) -> np.ndarray:
    return np.searchsorted(mixture.first_ids, ids, side="right") - 1


@given(WEIGHTS)
def test_shares_are_the_weights_to_a_place(weights: tuple[float, ...]) -> None:
    found = np.array(shares(weights))
    exact = np.array(weights) / sum(weights)
    assert 256 <= found.sum() <= LARGEST_BLOCK
    assert found.min() >= 1
    small = exact * LARGEST_BLOCK < 1  # these have one place though less is their due, at the others' cost
    assert np.abs(found - exact * found.sum()).max() <= 1 + small.sum()


@pytest.mark.parametrize(
    ("weights", "expected"),
    [((1.0,), [1.0]), ((0.7, 0.2, 0.1), [0.7, 0.2, 0.1]), ((1.0, 2.0), [1 / 3, 2 / 3]), ((1.0, 999.0), [0.001, 0.999])],
)
def test_round_weights_are_kept_exactly(weights: tuple[float, ...], expected: list[float]) -> None:
    found = np.array(shares(weights))
    assert np.allclose(found / found.sum(), expected, rtol=1e-12)


@given(mixtures(), EPOCHS)
def test_every_block_of_a_lane_holds_the_exact_shares(mixture: Mixture, epoch: int) -> None:
    block = sum(mixture.shares)
    for lane in range(mixture.lanes):
        sources, _ = mixture._sources(lane, epoch * block, (epoch + 3) * block)
        counts = [np.bincount(part, minlength=len(mixture.shares)) for part in np.split(sources, 3)]
        assert all(tuple(found) == mixture.shares for found in counts)


@given(mixtures(), st.integers(0, 5000), st.integers(1, 200))
def test_every_stretch_holds_the_shares_to_a_few_rows(mixture: Mixture, start: int, rows: int) -> None:
    sources, _ = mixture._sources(0, start, start + rows)
    expected = rows * np.array(mixture.shares) / sum(mixture.shares)
    assert np.abs(np.bincount(sources, minlength=len(mixture.shares)) - expected).max() < 4


@given(mixtures())
def test_every_source_is_walked_in_its_own_order_and_epochs(mixture: Mixture) -> None:
    """However the mixture's epochs and batches cut the walk, nothing is left out and nothing comes twice."""
    for lane in range(mixture.lanes):
        walks: list[list[int]] = [[] for _ in mixture.orders]
        for epoch in range(3):
            ids = mixture.lane_ids(epoch, lane)
            for i, source in zip(ids, source_of(mixture, ids), strict=True):
                walks[source].append(int(i) - mixture.first_ids[source])
        for walk, order in zip(walks, mixture.orders, strict=True):
            length, expected = order.length(lane), list[int]()
            for epoch in range(-(-len(walk) // length)):
                expected += order.lane_ids(epoch, lane).tolist()
            assert walk == expected[: len(walk)]


@given(mixtures(), EPOCHS)
def test_steps_cut_the_walk_and_any_can_be_asked_for_first(mixture: Mixture, epoch: int) -> None:
    twin = pickle.loads(pickle.dumps(mixture))
    for lane in range(mixture.lanes):
        walk = mixture.lane_ids(epoch, lane).tolist()
        steps = range(mixture.steps_per_epoch)
        size = mixture.lane_batch
        for step in reversed(steps):
            rows = twin.sizes(step)[lane]
            assert walk[step * size : step * size + rows] == ids_of(twin, epoch, lane, step * size, step * size + rows)
        assert sum(mixture.sizes(step)[lane] for step in steps) == len(walk)


def ids_of(mixture: Mixture, epoch: int, lane: int, start: int, stop: int) -> list[int]:
    spans, places = mixture.spans(epoch, lane, start, stop)
    found = [
        mixture.orders[s.source].walk_ids(s.epoch, lane, s.start, s.stop) + mixture.first_ids[s.source] for s in spans
    ]
    return [int(i) for i in np.concatenate(found)[np.argsort(places)]] if found else []


@pytest.mark.parametrize(("ends", "rows"), [("smallest", 200), ("largest", 2000), (777, 777)])
def test_when_an_epoch_ends(ends: Any, rows: int) -> None:
    orders = tuple(Order((n,), i, 2, 8) for i, n in enumerate((100, 1000)))
    mixture = Mixture(orders, (1.0, 1.0), 0, ends)
    assert mixture.rows == rows
    ids = np.concatenate([mixture.lane_ids(0, lane) for lane in range(2)])
    counts = Counter(ids.tolist())
    if ends == "smallest":
        assert all(counts[i] == 1 for i in range(100))
    if ends == "largest":
        assert all(counts[i] == 1 for i in range(100, 1100))
        assert all(counts[i] == 10 for i in range(100))


def test_the_mixture_goes_on_where_its_epoch_ended() -> None:
    orders = tuple(Order((n,), i, 1, 8) for i, n in enumerate((100, 1000)))
    mixture = Mixture(orders, (1.0, 1.0), 0, "smallest")
    ids = np.concatenate([mixture.lane_ids(epoch, 0) for epoch in range(10)])
    assert Counter(ids[ids >= 100].tolist()) == Counter(range(100, 1100)), "ten short epochs walk the large source once"


def test_places_never_change() -> None:
    """A golden value: another NumPy or another Headway must give old runs their old mixtures."""
    mixture = Mixture((Order((6,), 1, 1, 4), Order((9,), 2, 1, 4)), (2.0, 3.0), 7, 12)
    assert mixture.lane_ids(0, 0).tolist() == [2, 10, 3, 12, 8, 11, 6, 4, 0, 7, 13, 5]


def test_seeking_far_into_a_run_costs_no_more_than_the_beginning() -> None:
    import time

    orders = tuple(Order((10_000,) * 100, i, 8, 32) for i in range(3))
    mixture = Mixture(orders, (0.7, 0.2, 0.1), 0)
    mixture.spans(0, 0, 0, 32)
    begun = time.process_time()
    for lane in range(8):
        mixture.spans(1_000_000, lane, 777, 809)
    assert time.process_time() - begun < 1.0


@pytest.mark.parametrize("tiny", [60, 300, 2000])
def test_many_tiny_weights_leave_a_block_as_large_as_any(tiny: int) -> None:
    found = shares((1.0, *[1e-6] * tiny))
    assert sum(found) == LARGEST_BLOCK
    assert set(found[1:]) == {1}
