"""LitData: chunks made by its `optimize`, its StreamingDataset under its StreamingDataLoader without workers.

Best settings: flat arrays (its cheapest serializer has no header), no compression, chunks of as many rows as the
others shuffle together, batches stacked by NumPy. Its default shuffle permutes rows within blocks of 256, coarser than
the others', and faster: it is left at that. It lives in an environment of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from data_peers.rows import BATCH, Array, Batch, Kind, load, stacked

VERSIONS = ("litdata==0.2.76", "torch==2.13.0", "numpy")
SETTINGS = {"chunk_size": "rows of 16 row groups", "item_shuffle_window": "auto (256)", "workers": 0}


def make(kind: Kind, folder: Path) -> None:
    from litdata import optimize

    optimize(
        fn=partial(_row, load(kind, folder)),
        inputs=list(range(kind.rows)),
        output_dir=str(folder / kind.name / "litdata"),
        chunk_size=kind.window_rows,
        num_workers=1,
        verbose=False,
    )


def _row(columns: dict[str, Array], row: int) -> dict[str, Any]:
    """One row; numbers as Python's, which are its cheapest."""
    cells = {name: values[row] for name, values in columns.items()}
    return {name: cell.ravel().copy() if cell.ndim else cell.item() for name, cell in cells.items()}


def epochs(kind: Kind, folder: Path, variant: str) -> Callable[[int], Iterator[Batch]]:
    from litdata import StreamingDataLoader, StreamingDataset

    rows = StreamingDataset(str(folder / kind.name / "litdata"), shuffle=True)
    loader = StreamingDataLoader(rows, batch_size=BATCH, num_workers=0, collate_fn=partial(stacked, kind))
    return lambda epoch: iter(loader)
