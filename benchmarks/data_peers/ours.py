"""Headway's direct reader: one lane that takes 256 rows a step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from data_peers.rows import BATCH, SHARDS, WINDOW_GROUPS, Batch, Kind, load

VERSIONS: tuple[str, ...] = ()
SETTINGS = {"lanes": 1, "window": WINDOW_GROUPS, "check_digests": True}


class Reader:
    """The few calls of the reader that the benchmark makes; when the reader changes, this class does.

    Args:
        place: folder or URL of the dataset.
        lanes: of the run; this process carries them all.
        step: of the run from which on it reads.
        settings: of the job's `data` section.
    """

    def __init__(self, place: Path | str, lanes: int = 1, step: int = 0, **settings: Any) -> None:
        from headway.core.order import Order
        from headway.data.manifest import load as load_manifest
        from headway.data.read.direct import DirectReader
        from headway.data.read.groups import Groups
        from headway.data.store.cache import open_files
        from headway.job import Data

        data = Data(train=str(place), window=WINDOW_GROUPS, **settings)
        manifest = load_manifest(place, None, data.store)
        self.files = open_files(place, manifest, data)
        self.order = Order(manifest.groups, 1, lanes, BATCH // lanes, data.window)
        groups = Groups(self.files, check_digests=data.check_digests)
        self._reader = DirectReader([groups], self.order, seed=1, threads=data.read_threads, prefetch=data.prefetch)
        self._reader.use(None)
        self._reader.carry(range(lanes), step)
        self.rows = manifest.rows

    def batch(self, epoch: int, step: int, lane: int = 0) -> Batch:
        """A lane's rows at a step, as tensors; shape [rows, ...] each."""
        arrays = self._reader.batch(epoch, step, lane).arrays
        return {name: torch.from_numpy(array) for name, array in arrays.items()}

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """The batches of all lanes."""
        for step in range(self.order.steps_per_epoch):
            for lane in range(self.order.lanes):
                yield self.batch(epoch, step, lane)

    def close(self) -> None:
        self._reader.close()


def make(kind: Kind, folder: Path) -> None:
    """Write the Parquet shards, which pyarrow, the DataLoader and Ray Data read too."""
    from headway.data.write.sizing import Sizes
    from headway.data.write.writer import write_dataset

    columns = load(kind, folder)
    sizes = Sizes(kind.group_rows, -(-kind.rows // SHARDS))
    write_dataset(folder / kind.name / "parquet", tables(columns, kind), name=kind.name, source="", sizes=sizes)


def tables(columns: dict[str, Any], kind: Kind) -> Iterator[Any]:
    """The rows as Arrow tables of a row group each."""
    import pyarrow as pa

    from headway.data.tensors import column

    for start in range(0, kind.rows, kind.group_rows):
        part = {name: values[start : start + kind.group_rows] for name, values in columns.items()}
        yield pa.table({name: column(rows) if rows.ndim > 1 else pa.array(rows) for name, rows in part.items()})


def epochs(kind: Kind, folder: Path, variant: str) -> Callable[[int], Iterator[Batch]]:
    """The batches of an epoch, epochs in any order; the first call says where reading begins."""
    reader = Reader(folder / kind.name / "parquet", check_digests=variant != "no digests")
    return reader.epoch
