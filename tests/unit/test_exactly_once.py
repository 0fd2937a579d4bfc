"""Random runs: workers come and go, and every step sees the rows that the order says, each in one place."""

from __future__ import annotations

import pickle
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tiers import examples

from headway.core.lanes import moved
from headway.core.mixture import Mixture, Walk
from headway.core.order import Order
from headway.core.sampling import Sampling


@st.composite
def samplings(draw: st.DrawFn, stored: int) -> Sampling | None:
    if draw(st.booleans()):
        return None
    codes = np.array(draw(st.lists(st.integers(0, 3), min_size=stored, max_size=stored)), np.int32)
    rows = draw(st.none() | st.integers(1, 2 * stored))
    weights = 1.0 + codes if draw(st.booleans()) else None
    replacement = rows is None or rows > stored or draw(st.booleans())
    stratify, bucket = draw(st.booleans()), draw(st.booleans())
    return Sampling(rows, weights, replacement, codes if stratify else None, codes if bucket else None, 2)


@st.composite
def walks(draw: st.DrawFn) -> Walk:
    lanes, lane_batch = draw(st.integers(1, 8)), draw(st.integers(1, 9))
    cut: dict[str, Any] = {"lanes": lanes, "lane_batch": lane_batch, "window": draw(st.integers(1, 12))}
    orders = []
    for seed in range(draw(st.integers(1, 2))):
        groups = draw(st.lists(st.integers(1, 12), min_size=1, max_size=5).map(tuple))
        sampling = draw(samplings(sum(groups)))
        orders.append(Order(groups, seed, shuffle=draw(st.booleans()), sampling=sampling, **cut))
    if len(orders) == 1 or min(order.rows for order in orders) < lanes:
        return orders[0]
    return Mixture(tuple(orders), (1.0, 2.0), 5, draw(st.sampled_from(["smallest", "largest"])))


def ids(walk: Walk, epoch: int, lane: int, start: int, stop: int) -> list[int]:
    """Rows [start, stop) of a lane, found from nothing but their numbers."""
    if isinstance(walk, Order):
        return [int(i) for i in walk.walk_ids(epoch, lane, start, stop)]
    spans, places = walk.spans(epoch, lane, start, stop)
    parts = [
        walk.orders[span.source].walk_ids(span.epoch, lane, span.start, span.stop) + walk.first_ids[span.source]
        for span in spans
    ]
    found = np.empty(len(places), np.int64)
    found[places] = np.concatenate(parts) if parts else np.empty(0, np.int64)
    return [int(i) for i in found]


@pytest.mark.soak
@settings(max_examples=examples(150, 5000))
@given(walks(), st.integers(0, 5), st.lists(st.sets(st.integers(0, 9), min_size=1), min_size=1, max_size=4), st.data())
def test_whoever_carries_the_lanes(
    walk: Walk, first_epoch: int, memberships: list[set[int]], data: st.DataObject
) -> None:
    """Members of the group change between steps; a worker that is new knows the order and the cursor, and no more."""
    steps = range(2 * walk.steps_per_epoch)
    changes = sorted(data.draw(st.integers(0, len(steps))) for _ in memberships[1:])
    copies: dict[int, Walk] = {}
    carried: dict[str, tuple[int, ...]] = {}
    seen: list[list[list[int]]] = [[[] for _ in range(walk.lanes)] for _ in range(2)]
    for step in steps:
        members = sorted(memberships[sum(change <= step for change in changes)])[: walk.lanes]
        names = [str(member) for member in members]
        copies = {member: copies.get(member) or pickle.loads(pickle.dumps(walk)) for member in members}
        carried = dict(zip(names, moved(walk.lanes, names, carried), strict=True))
        cursor = walk.cursor(first_epoch * walk.steps_per_epoch + step)
        taken = Counter[int]()
        for member in members:
            mine = copies[member]
            for lane in carried[str(member)]:
                start = cursor.step * mine.lane_batch
                found = ids(mine, cursor.epoch, lane, start, start + mine.sizes(cursor.step)[lane])
                seen[cursor.epoch - first_epoch][lane] += found
                taken[lane] += 1
        assert taken == Counter(range(walk.lanes)), "every lane is carried once"
    for number, lanes in enumerate(seen):
        assert lanes == [walk.lane_ids(first_epoch + number, lane).tolist() for lane in range(walk.lanes)]
        if isinstance(walk, Order):
            drawn = walk.sampling.draw(walk.stored, walk.seed, first_epoch + number) if walk.sampling else None
            expected = range(walk.stored) if drawn is None else drawn.tolist()
            assert Counter(i for lane in lanes for i in lane) == Counter(expected)
