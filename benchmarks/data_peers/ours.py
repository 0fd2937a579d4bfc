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
        folder: of the dataset.
        lanes: of the run; this process carries them all.
        step: of the run from which on it reads.
        check_digests: as in the job.
    """

    def __init__(self, folder: Path, lanes: int = 1, step: int = 0, check_digests: bool = True) -> None:
        from headway.core.order import Order
        from headway.data.manifest import load as load_manifest
        from headway.data.stream import Streams

        manifest = load_manifest(folder)
        self.order = Order(manifest.groups, seed=1, lanes=lanes, lane_batch=BATCH // lanes, window=WINDOW_GROUPS)
        self._streams = Streams(folder, manifest, self.order, None)
        self.rows = manifest.rows

    def batch(self, epoch: int, step: int, lane: int = 0) -> Batch:
        """A lane's rows at a step, as tensors; shape [rows, ...] each."""
        from headway.data.arrays import arrays

        table, _ = self._streams.rows(epoch, step, lane)
        return {name: torch.from_numpy(array) for name, array in arrays(table).items()}

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """The batches of all lanes."""
        for step in range(self.order.steps_per_epoch):
            for lane in range(self.order.lanes):
                yield self.batch(epoch, step, lane)

    def close(self) -> None:
        self._streams.close()


def make(kind: Kind, folder: Path) -> None:
    """Write the Parquet shards, which pyarrow, the DataLoader and Ray Data read too."""
    from headway.data.sizing import Sizes
    from headway.data.writer import write_dataset

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
    return Reader(folder / kind.name / "parquet", check_digests=variant != "no digests").epoch
