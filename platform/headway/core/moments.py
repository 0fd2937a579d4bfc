"""Count, mean and spread of numbers that come in pieces: the same bits wherever the pieces were counted.

Sums of a piece are rounded once (`math.fsum`), pieces are put together in their order by plain float arithmetic: the
result hangs on the numbers and on where the pieces end, and on no machine's way to add up arrays.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Moments:
    """Of so many numbers.

    Args:
        count: of them.
        mean: 0 of none.
        spread: sum of the squares of their distances from the mean.
    """

    count: int = 0
    mean: float = 0.0
    spread: float = 0.0

    def std(self, ddof: int = 1) -> float | None:
        """The standard deviation; None of too few. ddof: what is taken from the count, as NumPy has it."""
        return math.sqrt(self.spread / (self.count - ddof)) if self.count > ddof else None


def of(numbers: NDArray[np.float64]) -> Moments:
    """Of one piece, shape [n], without NaN."""
    if not len(numbers):
        return Moments()
    mean = math.fsum(numbers.tolist()) / len(numbers)
    with np.errstate(over="ignore", invalid="ignore"):
        distances = np.square(numbers - mean)
    return Moments(len(numbers), mean, math.fsum(distances.tolist()))


def merged(pieces: Iterable[Moments]) -> Moments:
    """Of all pieces together, in this order (Chan, Golub, LeVeque 1979)."""
    return reduce(_plus, pieces, Moments())


def _plus(one: Moments, other: Moments) -> Moments:
    if not one.count or not other.count:
        return one if one.count else other
    count = one.count + other.count
    apart = other.mean - one.mean
    mean = one.mean + apart * (other.count / count)
    return Moments(count, mean, one.spread + other.spread + apart * apart * (one.count * (other.count / count)))
