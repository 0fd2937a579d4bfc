"""Ray Data: read_parquet, streaming_split, iter_torch_batches with a local shuffle buffer.

Best settings: its file shuffle, a collate function on Arrow tables that decodes without conversions, and all cores,
as it is made of processes. Each of its epochs begins with a new execution, which takes seconds: all but the first
epoch, which is checked, are the files many times over, so that this weighs little, and the rate within epochs leaves
it out.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from data_peers.raw_pyarrow import decoded, parts
from data_peers.rows import BATCH, Batch, Kind

VERSIONS: tuple[str, ...] = ()
PASSES = 10
SETTINGS = {
    "shuffle": "files",
    "local_shuffle_buffer_size": "rows of 16 row groups",
    "prefetch_batches": 4,
    "passes": PASSES,
}


def make(kind: Kind, folder: Path) -> None:
    """Nothing: it reads what Headway reads."""


def epochs(kind: Kind, folder: Path, variant: str) -> Callable[[int], Iterator[Batch]]:
    import ray
    from ray.data.collate_fn import ArrowBatchCollateFn

    class Decode(ArrowBatchCollateFn):
        def __call__(self, table: Any) -> Any:
            return {name: torch.from_numpy(decoded(table, name, kind).copy()) for name in kind.columns}

    ray.init(address="local", include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False
    files = [str(path) for path in parts(kind, folder)]

    def epoch(number: int) -> Iterator[Batch]:
        rows = ray.data.read_parquet(files * (PASSES if number else 1), shuffle="files")
        split = rows.streaming_split(1, equal=False)[0]
        yield from split.iter_torch_batches(
            batch_size=BATCH,
            prefetch_batches=4,
            collate_fn=Decode(),
            local_shuffle_buffer_size=kind.window_rows,
            local_shuffle_seed=number,
        )

    return epoch
