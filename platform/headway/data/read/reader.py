"""What the session asks of whatever reads a dataset: the batches of its lanes, as arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa

from headway.core.keys import key
from headway.core.mixture import Walk
from headway.core.order import Rows

if TYPE_CHECKING:
    import torch

Transform = Callable[[pa.Table, np.random.Generator, bool], dict[str, Any]]
"""The user's: (rows, the lane's own generator, whether they are trained on) -> arrays by name, one entry per row."""

Collate = Callable[[list[Any]], Any]
"""The user's: rows, as their own dataset gave them -> a batch."""

OnQuarantine = Callable[[str, str, int, int, str], None]
"""Called once for each row group of which rows are set aside: (source, shard, row group's number in the shard, rows,
reason). From any thread."""


@dataclass(frozen=True)
class Batch:
    """What a lane takes at a step.

    Args:
        arrays: by name, first dimension = rows; NumPy arrays or tensors, writable, and nobody else's. Whatever the
            user's transform returned, where there is one. Empty where no row is left. Of a dataset of the user's own
            whatever its rows were put together to.
        ids: sample ids of the rows (row numbers in the dataset); int64, shape [rows]. Without the rows that were set
            aside.
        own: of a dataset of the user's own: the arrays are any nest of tensors and other things.
    """

    arrays: dict[str, np.ndarray[Any, Any] | torch.Tensor]
    ids: Rows
    own: bool = False


class Reader(Protocol):
    """Gives the batches of any lane at any step; the same batch whoever asks, and whatever was asked before.

    One contract for all of them: tests/contract/test_reader.py.
    """

    @property
    def order(self) -> Walk: ...

    def use(self, transform: Transform | None, collate: Collate | None = None) -> None:
        """Turn rows into arrays in this way; None: every column, by name, as it is. Before the first batch.

        Args:
            transform: of rows that are read as Arrow tables.
            collate: of rows of the user's own datasets; None: torch's.
        """

    def carry(self, lanes: Sequence[int], step: int) -> None:
        """These lanes will be asked for, step by step, from a step of the run on. Steers what is read ahead.

        What was read before and is still needed is kept. No lanes: nothing is read ahead, or kept.
        """

    def batch(self, epoch: int, step: int, lane: int) -> Batch:
        """The lane's rows at a step of an epoch. From one thread.

        Raises:
            BadData: naming the shard, the row group and the row that cannot be used.
            ValueError: the lane has no rows there.
            Exception: of the user's transform, with its own traceback.
        """

    def close(self) -> None:
        """Stop reading ahead, and let go of everything."""


def generator(seed: int, epoch: int, step: int, lane: int, training: bool) -> np.random.Generator:
    """The transform's randomness for one batch: it follows the lane, not who reads it."""
    place = ("transform", seed, epoch, step, lane) if training else ("evaluate", seed, step, lane)
    return np.random.Generator(np.random.Philox(key=key(*place)))
