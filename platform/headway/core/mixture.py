"""Several datasets walked as one: which of them, and which row of its own walk, every place of a lane takes.

A lane's walk is cut into blocks of one size. In every block each source has exactly its share of the places, spread
evenly, at places that change from block to block; so the number of rows that a source has given before any place is
arithmetic, and a cursor finds its place at once. Every source is walked by an `Order` of its own, epoch after epoch,
whatever the others do and wherever the mixture's epochs end.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property, lru_cache
from itertools import accumulate
from typing import Any, Literal

import numpy as np

from headway.core.indices import Indices
from headway.core.keys import key
from headway.core.order import Cut, Order
from headway.core.sampling import Rows

Codes = np.ndarray[Any, np.dtype[np.int64]]
LEAST_BLOCK, LARGEST_BLOCK = 256, 4096


@dataclass(frozen=True)
class Span:
    """Rows [start, stop) of a lane's walk through an epoch of one source."""

    source: int
    epoch: int
    start: int
    stop: int


def shares(weights: tuple[float, ...]) -> tuple[int, ...]:
    """Places of each source in a block, by largest remainder: the smallest block that is exact, or else the largest.

    Args:
        weights: of the sources, above 0.

    Returns:
        At least one place for each; weights that come to less than one of LARGEST_BLOCK places get more than their due.
    """
    parts = np.array(weights) / sum(weights)
    for size in range(len(parts), LARGEST_BLOCK + 1):
        places = np.rint(parts * size)
        if places.min() >= 1 and np.abs(places - parts * size).max() < 1e-9 * size:
            places *= -(-LEAST_BLOCK // size)
            return tuple(int(n) for n in places)
    exact = np.maximum(parts * LARGEST_BLOCK, 1.0)
    exact *= LARGEST_BLOCK / exact.sum()
    places = np.maximum(np.floor(exact), 1.0)
    while places.sum() > LARGEST_BLOCK:  # many got more than their due
        places[np.argmax(places)] -= min(places.sum() - LARGEST_BLOCK, places.max() - 1)
    over = np.argsort(places - exact, kind="stable")[: int(LARGEST_BLOCK - places.sum())]
    places[over] += 1
    return tuple(int(n) for n in places)


@dataclass(frozen=True)
class Mixture(Cut):
    """The walk of every lane over a mixture.

    Args:
        orders: of the sources, of the same lanes and lane batch; each source has a row for each lane.
        weights: shares of the rows, in relation to each other.
        seed: of the places.
        ends: an epoch's end: with the first source that ends, with the last, or after so many rows.
        shuffle: False gives the sources the same places in every block.
    """

    orders: tuple[Order, ...]
    weights: tuple[float, ...]
    seed: int
    ends: Literal["smallest", "largest"] | int = "largest"
    shuffle: bool = True

    def __hash__(self) -> int:
        return self._hash

    def __getstate__(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @cached_property
    def _hash(self) -> int:
        return hash((self.orders, self.weights, self.seed, self.ends, self.shuffle))

    @property
    def lanes(self) -> int:  # type: ignore[override]
        return self.orders[0].lanes

    @property
    def lane_batch(self) -> int:  # type: ignore[override]
        return self.orders[0].lane_batch

    @cached_property
    def shares(self) -> tuple[int, ...]:
        """Places of each source in a block."""
        return shares(self.weights)

    @cached_property
    def rows(self) -> int:
        if isinstance(self.ends, int):
            return self.ends
        block = sum(self.shares)
        lasts = [-(-order.rows * block // share) for order, share in zip(self.orders, self.shares, strict=True)]
        return min(lasts) if self.ends == "smallest" else max(lasts)

    @cached_property
    def first_ids(self) -> tuple[int, ...]:
        """What is added to a source's sample ids, so that no two sources share one."""
        return tuple(accumulate((order.stored for order in self.orders[:-1]), initial=0))

    def spans(self, epoch: int, lane: int, start: int, stop: int) -> tuple[tuple[Span, ...], Rows]:
        """What rows [start, stop) of a lane's walk through the mixture's epoch are made of.

        Returns:
            Stretches of the sources' walks, and the place of each of their rows, laid end to end: shape [stop - start].
        """
        first = epoch * self.length(lane) + start
        taken, before = self._sources(lane, first, first + stop - start)
        spans = []
        for source, rows in enumerate(np.bincount(taken, minlength=len(self.orders))):
            at, end = int(before[source]), int(before[source] + rows)
            length = self.orders[source].length(lane)
            while at < end:
                own, low = divmod(at, length)
                high = min(length, low + end - at)
                spans.append(Span(source, own, low, high))
                at += high - low
        return tuple(spans), np.argsort(taken, kind="stable")

    def lane_ids(self, epoch: int, lane: int) -> Rows:
        """Sample ids of the lane's whole walk through an epoch of the mixture; shape [rows of the lane]."""
        spans, places = self.spans(epoch, lane, 0, self.length(lane))
        found = np.empty(len(places), np.int64)
        at = 0
        for span in spans:
            ids = self.orders[span.source].walk_ids(span.epoch, lane, span.start, span.stop)
            found[places[at : at + len(ids)]] = ids + self.first_ids[span.source]
            at += len(ids)
        return found

    def _sources(self, lane: int, start: int, stop: int) -> tuple[Codes, Codes]:
        """The source of each of a lane's places [start, stop), counted from the run's beginning, shape [places]; and
        how many rows each source has given before, shape [sources]."""
        size = sum(self.shares)
        block, offset = divmod(start, size)
        blocks = [_places(self, lane, b) for b in range(block, -(-max(stop, start + 1) // size))]
        before = block * np.array(self.shares) + np.bincount(blocks[0][:offset], minlength=len(self.shares))
        return np.concatenate(blocks)[offset : offset + stop - start], before


Walk = Order | Mixture | Indices
"""Over one dataset, over several, or over one of rows that are had one by one."""


@lru_cache(maxsize=256)
def _places(mixture: Mixture, lane: int, block: int) -> Codes:
    """The source of every place of a block; shape [block]."""
    counts = np.array(mixture.shares)
    sources = np.repeat(np.arange(len(counts)), counts)
    turns = np.arange(len(sources)) - np.repeat(np.cumsum(counts) - counts, counts)
    if mixture.shuffle:
        raw = np.random.Philox(key=key("mixture", mixture.seed, lane, block)).random_raw(len(sources))
        turns = turns + (raw >> 11) * 2.0**-53
    else:
        turns = turns + 0.5
    found: Codes = sources[np.argsort(turns / counts[sources], kind="stable")]
    return found
