"""Which rows an epoch takes, which lane takes them, and which of them share a batch: pure, and the same everywhere.

Nothing here depends on a NumPy release or on a machine's vector units: random bits are Philox's raw stream, and what is
done to them are single IEEE operations in a fixed order. A draw depends on (weights, seed, epoch) alone, never on who
asks, so lanes and workers need not agree on anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from headway.core.keys import key

Rows = np.ndarray[Any, np.dtype[np.int64]]
Codes = np.ndarray[Any, np.dtype[np.int32]]
Floats = np.ndarray[Any, np.dtype[np.floating[Any]]]


@dataclass(frozen=True, eq=False)
class Sampling:
    """Which rows come how often. Two are equal only if they are the same object: they may hold an entry per row.

    Args:
        rows: drawn for an epoch; None takes each stored row once.
        weights: of every stored row, 0 or more, not all 0; shape [stored rows]. None: all alike.
        replacement: a row may be drawn more than once.
        strata: class of every stored row; shape [stored rows]. Lanes get each class in equal parts, up to one row.
        lengths: of every stored row; shape [stored rows]. Rows of like length share a lane's batch.
        buckets: batches' worth of a lane's rows that are sorted by length together.
    """

    rows: int | None = None
    weights: Floats | None = None
    replacement: bool = True
    strata: Codes | None = None
    lengths: np.ndarray[Any, Any] | None = None
    buckets: int = 16

    @property
    def scattered(self) -> bool:
        """Whether a lane's rows are others than a plain stretch of the line of row groups."""
        return self.rows is not None or self.strata is not None

    def draw(self, stored: int, seed: int, epoch: int) -> Rows:
        """Ids of the rows that an epoch takes, ascending, a repeated row as often as it comes; shape [rows drawn]."""
        if self.rows is None:
            return np.arange(stored)
        weights = np.ones(stored) if self.weights is None else self.weights
        draw = with_replacement if self.replacement else without_replacement
        return draw(weights, self.rows, key("draw", seed, epoch))


def with_replacement(weights: Floats, count: int, seed: int) -> Rows:
    """Exactly `count` draws in proportion to weight, ascending; shape [count].

    Stratified (Cochran 1977): the line of weights is cut into `count` equal parts, and one point is drawn in each. The
    expected counts are those of independent draws, their variance is less: a row whose expected count is c comes
    between c - 2 and c + 2 times.
    """
    ends = np.cumsum(weights)
    points = (np.arange(count) + _uniform(count, seed)) * (ends[-1] / count)
    found: Rows = np.searchsorted(ends, np.minimum(points, np.nextafter(ends[-1], 0.0)), side="right")
    return found


def without_replacement(weights: Floats, count: int, seed: int) -> Rows:
    """`count` different rows, ascending, each draw in proportion to the weights of what is left; shape [count].

    Rows of weight 0 are never drawn; there must be `count` others. By exponential keys (Efraimidis and Spirakis 2006).
    """
    able = np.flatnonzero(weights)
    keys = -_log(_uniform(len(weights), seed))[able] / weights[able]
    if count == 0:
        return able[:0]
    limit = np.partition(keys, count - 1)[count - 1]
    below = keys < limit
    tied = np.flatnonzero(keys == limit)[: count - int(below.sum())]
    below[tied] = True
    found: Rows = able[below]
    return found


def _uniform(count: int, seed: int) -> Floats:
    """Numbers strictly between 0 and 1, multiples of 2^-53; shape [count]."""
    found: Floats = ((np.random.Philox(key=seed).random_raw(count) >> 12) + 0.5) * 2.0**-52
    return found


def _log(x: Floats) -> Floats:
    """The natural logarithm by its own series: NumPy's differs in the last bit between machines' vector units."""
    mantissa, exponent = np.frexp(x)
    low = mantissa < np.sqrt(0.5)
    mantissa, exponent = np.where(low, 2.0 * mantissa, mantissa), exponent - low
    ratio = (mantissa - 1.0) / (mantissa + 1.0)  # at most 0.172: eleven terms are enough for 53 bits
    square = ratio * ratio
    series = np.zeros_like(x)
    for term in range(21, 0, -2):
        series = series * square + 1.0 / term
    found: Floats = 2.0 * ratio * series + exponent * 0.6931471805599453
    return found


def balanced(classes: Codes) -> Floats:
    """Weights with which every class comes equally often; shape [rows]. classes: code of each row, shape [rows]."""
    counts = np.bincount(classes)
    found: Floats = (1.0 / np.maximum(counts, 1))[classes]
    return found


def dealt(classes: Codes, lengths: list[int]) -> Codes:
    """The lane of every row, such that lanes hold equal parts of each class, up to one row; shape [rows].

    A lane's rows of a class lie next to each other on the line: where classes are mixed, lanes stay stretches of it.

    Args:
        classes: code of each row on the line, shape [rows].
        lengths: rows that each lane is to hold, differing by one at most, adding up to the rows.
    """
    lanes = len(lengths)
    by_class = np.argsort(classes, kind="stable")
    ends = np.cumsum(np.bincount(classes))[:, None]  # [classes, 1]
    begins = np.concatenate([[[0]], ends[:-1]])
    # Dealt like cards, class after class: card i goes to player i mod lanes, so hands and suits differ by one at most.
    player = np.arange(lanes)[None]
    cards = (ends - player + lanes - 1) // lanes - (begins - player + lanes - 1) // lanes  # [classes, lanes]
    seats = np.argsort([-length for length in lengths], kind="stable")  # the first players hold one card more
    held = np.empty_like(cards)
    held[:, seats] = cards
    found = np.empty(len(classes), np.int32)
    found[by_class] = np.repeat(np.tile(np.arange(lanes), len(cards)), held.ravel())
    return found


def bucketed(
    order: Rows, lengths: np.ndarray[Any, Any], first: int, lane_batch: int, buckets: int, seed: int, epoch: int
) -> Rows:
    """A window's order, rearranged so that rows of like length come in one batch; shape [rows].

    The rows of every `buckets` batches are sorted by length and dealt to these batches at random. Which batch gets long
    rows is the same in every lane, so that no lane waits for another's.

    Args:
        order: of the window's rows, shape [rows].
        lengths: of the rows that `order` numbers, shape [rows of the window's pieces].
        first: the walk's index of the window's first row.
        lane_batch: rows of a batch.
        buckets: batches sorted together.
        seed: of the order.
        epoch: of the walk.
    """
    found = np.empty_like(order)
    chunk_rows = lane_batch * buckets
    last = first + len(order)
    for chunk in range(first // chunk_rows, -(-last // chunk_rows)):
        low, high = max(first, chunk * chunk_rows), min(last, (chunk + 1) * chunk_rows)
        rows = order[low - first : high - first]
        rows = rows[np.argsort(lengths[rows], kind="stable")]
        ranks = np.random.Philox(key=key("bucket", seed, epoch, chunk)).random_raw(buckets)
        batches = np.arange(low, high) // lane_batch - chunk * buckets  # of every place in the walk
        found[np.argsort(ranks[batches], kind="stable") + low - first] = rows
    return found
