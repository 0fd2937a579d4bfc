"""Digests and keys: equal for equal samples whoever computed them, and the same for ever."""

from __future__ import annotations

import itertools

import numpy as np

from headway.core.digest import WORDS, Chain, of_ids
from headway.core.keys import key


def lanes(*walks: range) -> np.ndarray:
    return np.stack([of_ids(np.arange(walk.start, walk.stop)) for walk in walks])


def test_golden_values_never_change() -> None:
    """A change here makes every old report incomparable, and every resumed run a different one."""
    assert key("lane", 7, 0, 3, 5) == 3408895534586165566
    assert key("window", -1) == 8482453603274433001
    assert key("x") == 6303653372332490977
    assert of_ids(np.arange(5)).tolist() == [41051, 21674, 43844, 10024]
    chain = Chain()
    chain.add(0, lanes(range(5), range(5, 9)))
    chain.add(1, np.zeros((2, WORDS), np.uint16))
    assert chain.hexdigest() == "80c3a0b4be1259a38ac97f8675a5896eaa4ae31601a80edf461a64c60bbae9e4"


def test_keys_of_neighbours_and_purposes_differ_and_fit_63_bits() -> None:
    keys = {key(p, *n) for p in ("lane", "window") for n in itertools.product(range(-1, 4), repeat=3)}
    assert len(keys) == 2 * 5**3
    assert all(0 <= k < 2**63 for k in keys)
    assert key("ab", 1) != key("a", 1)
    assert key("a", 1) != key("a", 1, 0)


def test_the_chain_is_the_same_whoever_computed_the_lanes() -> None:
    """Workers fill their own lanes of a zeroed array and the arrays are summed, in float32 as on the wire."""
    walks = [range(0, 5), range(5, 9), range(9, 14)]
    whole, split = Chain(), Chain()
    for step in range(3):
        whole.add(step, lanes(*walks))
        parts = np.zeros((2, 3, WORDS), np.float32)
        parts[0, :2], parts[1, 2:] = lanes(*walks)[:2], lanes(*walks)[2:]
        split.add(step, parts.sum(0).astype(np.uint16))
    assert whole.hexdigest() == split.hexdigest()


def test_the_chain_goes_on_from_its_state() -> None:
    through, first = Chain(), Chain()
    for step in range(4):
        through.add(step, lanes(range(step, step + 3)))
    for step in range(2):
        first.add(step, lanes(range(step, step + 3)))
    second = Chain(first.hexdigest())
    for step in range(2, 4):
        second.add(step, lanes(range(step, step + 3)))
    assert second.hexdigest() == through.hexdigest()


def test_the_chain_notices_order_step_and_lane() -> None:
    def digest(*steps: tuple[int, np.ndarray]) -> str:
        chain = Chain()
        for number, of_lanes in steps:
            chain.add(number, of_lanes)
        return chain.hexdigest()

    a, b = range(0, 4), range(4, 8)
    found = {
        digest((0, lanes(a, b))),
        digest((1, lanes(a, b))),
        digest((0, lanes(b, a))),
        digest((0, lanes(a, b)), (1, lanes(a, b))),
        digest((0, lanes(a, range(4, 7)))),
    }
    assert len(found) == 5
    assert of_ids(np.array([1, 2])).tolist() != of_ids(np.array([2, 1])).tolist()


def test_digests_do_not_depend_on_memory_layout() -> None:
    ids = np.arange(20)[::2]
    assert np.array_equal(of_ids(ids), of_ids(np.ascontiguousarray(ids)))
    assert np.array_equal(of_ids(ids), of_ids(ids.astype(">i8")))
