"""A torch DataLoader over Parquet: an IterableDataset that yields whole batches out of a buffer of shuffled row groups.

As good as such a thing is commonly written: batches are gathered by NumPy from the buffer, not row by row, and worker
processes take row groups in turn. Variants: the number of workers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from data_peers.raw_pyarrow import decoded, parts
from data_peers.rows import BATCH, WINDOW_GROUPS, Array, Batch, Kind

VERSIONS: tuple[str, ...] = ()
SETTINGS = {"buffer_row_groups": WINDOW_GROUPS, "prefetch_factor": 2, "persistent_workers": True}


class Rows(IterableDataset[Batch]):
    """Batches in a shuffled order.

    Args:
        kind: of the rows.
        files: Parquet files.
    """

    def __init__(self, kind: Kind, files: list[Path]) -> None:
        self.kind, self.files, self.epoch = kind, files, 0

    def __iter__(self) -> Iterator[Batch]:
        import pyarrow.parquet as pq

        worker = get_worker_info()
        number, count = (worker.id, worker.num_workers) if worker else (0, 1)
        chance = np.random.default_rng(self.epoch)
        self.epoch += 1
        files = [pq.ParquetFile(path, memory_map=True) for path in self.files]
        groups = [(file, index) for file in files for index in range(file.metadata.num_row_groups)]
        mine = chance.permutation(len(groups))[number::count]
        buffer: list[dict[str, Array]] = []
        for i in mine:
            file, index = groups[i]
            table = file.read_row_group(index, use_threads=False)
            buffer.append({name: decoded(table, name, self.kind) for name in self.kind.columns})
            if len(buffer) == WINDOW_GROUPS:
                yield from self._batches(buffer, chance)
                buffer = []
        if buffer:
            yield from self._batches(buffer, chance)

    def _batches(self, buffer: list[dict[str, Array]], chance: Any) -> Iterator[Batch]:
        rows = {name: np.concatenate([part[name] for part in buffer]) for name in self.kind.columns}
        order = chance.permutation(len(rows["label"]))
        for start in range(0, len(order), BATCH):
            chosen = order[start : start + BATCH]
            yield {name: torch.from_numpy(column[chosen]) for name, column in rows.items()}


def make(kind: Kind, folder: Path) -> None:
    """Nothing: it reads what Headway reads."""


def epochs(kind: Kind, folder: Path, variant: str) -> Callable[[int], Iterator[Batch]]:
    workers = int(variant)
    more: dict[str, Any] = {"prefetch_factor": 2, "persistent_workers": True} if workers else {}
    loader = DataLoader(Rows(kind, parts(kind, folder)), batch_size=None, num_workers=workers, **more)
    return lambda epoch: iter(loader)
