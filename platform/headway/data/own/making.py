"""One lane's batch of a map-style dataset, made in this process or, by the same code, in another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from headway.core.indices import Indices
from headway.core.order import Order
from headway.core.order import Rows as Ids
from headway.data.own.batching import collated, nest
from headway.data.own.rows import Columns, Place, Rows
from headway.data.read.aligned import aligned

Key = tuple[int, int, int]
"""A batch's epoch, step of the epoch, and lane."""


@dataclass(frozen=True)
class Part:
    """What was read of a batch.

    Args:
        content: the batch; or its rows, where the task's own `collate` puts them together.
        ids: of its rows.
        aside: of rows that could not be had: number, and why.
    """

    content: Any
    ids: Ids
    aside: Sequence[tuple[int, str]]


@dataclass(frozen=True)
class Making:
    """What batches are made of.

    Args:
        rows: the dataset.
        order: of its rows.
        seed: the job's.
        training: False draws the same in every epoch.
        use: of the dataset, for errors.
        forgive: rows that raise are set aside.
        raw: rows are left for the task's own `collate`.
    """

    rows: Rows
    order: Indices | Order
    seed: int
    training: bool
    use: str
    forgive: bool
    raw: bool

    def ids(self, key: Key) -> Ids:
        """Numbers of a batch's rows. Raises ValueError: there are none."""
        epoch, step, lane = key
        start = step * self.order.lane_batch
        stop = min(start + self.order.lane_batch, self.order.length(lane))
        if not 0 <= start < stop:
            raise ValueError(f"lane {lane} has no rows at step {step} of an epoch")
        return self.order.walk_ids(epoch, lane, start, stop)

    def __call__(self, key: Key) -> Part:
        """Read a batch.

        Raises:
            BadInput: its rows are not alike.
            Exception: of the user's `__getitem__`.
        """
        ids = self.ids(key)
        if isinstance(self.rows, Columns) and not self.raw:
            return Part(nest(self.rows.batch(ids), _tensor), ids, ())
        numbers = ids.tolist()
        taken = self.rows.take(numbers, Place(self.seed, key[0], self.training), self.forgive)
        if taken.aside:
            gone = {number for number, _ in taken.aside}
            ids = np.array([number for number in numbers if number not in gone], np.int64)
        content: Any = taken.rows
        if taken.rows and not self.raw:
            content = collated(taken.rows, ids.tolist(), self.use)
        return Part(content, ids, taken.aside)


def _tensor(array: Any) -> Any:
    import torch

    return torch.from_numpy(aligned(array)) if isinstance(array, np.ndarray) else aligned(array)
