"""How a window's rows lie in memory: batches may begin a few rows further on, so that each is at an aligned address."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import gcd

import numpy as np

from headway.core.order import Rows
from headway.data.read.aligned import ALIGNMENT

MOST = 1.5
"""Times the memory of the rows themselves; where alignment would take more, each batch is copied instead."""


@dataclass(frozen=True)
class Lay:
    """Where the batches of a window begin.

    Args:
        first: row at which the first whole batch begins.
        batch: rows of a batch.
    """

    first: int
    batch: int

    def pad(self, width: int) -> int:
        """Rows that are left free behind each batch, of a column with so many bytes a row."""
        return -self.batch % (ALIGNMENT // gcd(width, ALIGNMENT))

    def fits(self, widths: Iterable[int]) -> bool:
        """Whether columns of such rows take no more memory than they may."""
        found = list(widths)
        return sum((self.batch + self.pad(width)) * width for width in found) <= MOST * self.batch * sum(found)

    def place(self, row: int, pad: int) -> int:
        """Where a row lies."""
        return row + pad * max((row - self.first) // self.batch, 0)

    def places(self, rows: Rows, pad: int) -> Rows:
        """Where rows lie; shape as given."""
        return rows + pad * np.maximum((rows - self.first) // self.batch, 0) if pad else rows
