"""Raw pyarrow: shuffled row groups in windows of sixteen, rows permuted within, straight into tensors; one thread.

What somebody would write who needs neither resume nor resizing nor checks: the ceiling for this format.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data_peers.rows import BATCH, WINDOW_GROUPS, Array, Batch, Kind

VERSIONS: tuple[str, ...] = ()
SETTINGS = {"window_row_groups": WINDOW_GROUPS, "prefetch": "none"}


def make(kind: Kind, folder: Path) -> None:
    """Nothing: it reads what Headway reads."""


def epochs(kind: Kind, folder: Path, variant: str) -> Callable[[int], Iterator[Batch]]:
    import pyarrow.parquet as pq

    files = [pq.ParquetFile(path, memory_map=True) for path in parts(kind, folder)]
    groups = [(file, index) for file in files for index in range(file.metadata.num_row_groups)]

    def epoch(number: int) -> Iterator[Batch]:
        chance = np.random.default_rng(number)
        line = chance.permutation(len(groups))
        for at in range(0, len(line), WINDOW_GROUPS):
            read = [groups[i][0].read_row_group(groups[i][1], use_threads=False) for i in line[at : at + WINDOW_GROUPS]]
            window = {name: np.concatenate([decoded(t, name, kind) for t in read]) for name in kind.columns}
            order = chance.permutation(len(window["label"]))
            for start in range(0, len(order), BATCH):
                chosen = order[start : start + BATCH]
                yield {name: torch.from_numpy(column[chosen]) for name, column in window.items()}

    return epoch


def parts(kind: Kind, folder: Path) -> list[Path]:
    """The Parquet files."""
    return sorted((folder / kind.name / "parquet").glob("*.parquet"))


def decoded(table: Any, name: str, kind: Kind) -> Array:
    """A column of an Arrow table without a copy where it lies in one piece; shape [rows, *shape]."""
    dtype, shape = kind.columns[name]
    chunks = table[name].chunks
    if not shape:
        return np.concatenate([c.to_numpy() for c in chunks]) if len(chunks) > 1 else chunks[0].to_numpy()
    arrays = []
    for chunk in chunks:
        stored = getattr(chunk, "storage", chunk)
        width = stored.type.byte_width
        flat = np.frombuffer(stored.buffers()[1], np.uint8, len(stored) * width, stored.offset * width)
        arrays.append(flat.view(dtype).reshape(-1, *shape))
    return np.concatenate(arrays) if len(arrays) > 1 else arrays[0]
