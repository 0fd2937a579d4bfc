"""Datasets that can only be gone through: an `IterableDataset`, a function that gives an iterator."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

from headway.core.keys import key
from headway.data.own.content import Content, told_by
from headway.data.own.rows import Fields, fields_of
from headway.data.own.seeding import lent


class Stream:
    """Rows in the order in which they come.

    Args:
        make: gives an iterable; called as make(), or make(lane, lanes) where it shares out its rows itself.
        sharded: it does.
        dataset: what was given, where it is an object.
    """

    def __init__(self, make: Callable[..., Any], sharded: bool, dataset: Any = None) -> None:
        self._make, self.sharded, self.dataset = make, sharded, dataset

    def lane(self, lane: int, lanes: int, epoch: int) -> Iterator[Any]:
        """A lane's share of the rows, from the beginning.

        What shares its rows out among a DataLoader's workers by `get_worker_info` does so among lanes; Hugging Face's
        streams are split by their own means. Of all others each lane passes over what is the others'.

        Args:
            lane: number of it.
            lanes: how many there are.
            epoch: how often the lane has been through all of its rows; told to what has `set_epoch`.
        """
        found = self._make(lane, lanes) if self.sharded else self._make()
        if hasattr(found, "set_epoch"):
            found.set_epoch(epoch)
        if self.sharded:
            return iter(found)
        if type(found).__module__.partition(".")[0] == "datasets":
            from datasets.distributed import split_dataset_by_node  # type: ignore[import-not-found,unused-ignore]

            return iter(split_dataset_by_node(found, rank=lane, world_size=lanes))
        with _as_loader(lane, lanes) as asked:
            rows = iter(found)
            first = list(islice(rows, 1))  # a generator asks when its first row is wanted
        if asked():
            return _followed(first, rows)
        return islice(_followed(first, rows), lane, None, lanes)

    def digest(self) -> str:
        """Its own, or of its class: what will come is not known."""
        told = told_by(self.dataset) if self.dataset is not None else None
        if told is not None:
            return Content("told", told).hexdigest()
        kind = type(self.dataset) if self.dataset is not None else self._make
        return Content("stream", getattr(kind, "__qualname__", type(kind).__qualname__)).hexdigest()

    def fields(self, seed: int, lanes: int) -> Fields | None:
        """Of the first row of the first lane; None where there is none."""
        with lent() as seeded:
            seeded(key("stream", seed, 0, 0))
            for row in self.lane(0, lanes, 0):
                return fields_of(row)
        return None


def _followed(first: list[Any], rows: Iterator[Any]) -> Iterator[Any]:
    yield from first
    yield from rows


@contextmanager
def _as_loader(lane: int, lanes: int) -> Iterator[Callable[[], bool]]:
    """Answer torch's `get_worker_info` as in worker number `lane` of a DataLoader; gives whether it was asked."""
    import sys

    if "torch" not in sys.modules:
        yield lambda: False
        return
    from torch.utils.data import _utils

    asked = False

    class Info(_utils.worker.WorkerInfo):
        def __getattribute__(self, name: str) -> Any:
            nonlocal asked
            asked = asked or name in ("id", "num_workers")
            return super().__getattribute__(name)

    before = _utils.worker._worker_info
    _utils.worker._worker_info = Info(id=lane, num_workers=lanes, seed=0, dataset=None)  # type: ignore[arg-type]
    try:
        yield lambda: asked
    finally:
        _utils.worker._worker_info = before
