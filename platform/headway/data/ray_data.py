"""Ray Data as `prepare` and the Ray reader use it: a task per item, and the blocks in the order of the items."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa


def ordered(
    items: list[dict[str, Any]],
    work: Callable[[pa.Table], Iterator[pa.Table]],
    *,
    block_bytes: int | None = None,
    watch: Any = None,
) -> Iterator[Any]:
    """Ray's references to the blocks that tasks make of the items, read as far ahead as fits.

    Its bundles are gone through, for Ray Data's `iter_batches` leaves a thread behind each time that it is broken off.

    Args:
        items: at least one.
        work: gets each as a table of one row; runs on the cluster.
        block_bytes: of the blocks at most; None: as Ray Data has it.
        watch: class of an execution callback of Ray Data's.
    """
    import ray.data

    dataset = ray.data.from_items(items, override_num_blocks=len(items))
    context = dataset.context
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    if block_bytes is not None:
        context.target_max_block_size = block_bytes
    if watch is not None:
        context.custom_execution_callback_classes = [*context.custom_execution_callback_classes, watch]
    made = dataset.map_batches(work, batch_size=1, batch_format="pyarrow")
    for bundle in made.iter_internal_ref_bundles():
        for entry in bundle.blocks:
            yield entry.ref
