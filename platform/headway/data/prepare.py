"""`headway data prepare`: files into a dataset, as a Ray Data job.

Tasks on the cluster read and decode pieces of the source side by side; this process writes what they give, in the order
of the source, whatever the order in which they end. So the same source gives the same bytes on any cluster, only this
machine needs to see the destination, and memory holds a few pieces and 16 row groups, however large the source.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import pyarrow as pa

from headway.data.manifest import FILE, Manifest, load
from headway.data.sizing import Sizes
from headway.data.sources import Piece, Plan, chosen, listed
from headway.data.tensors import TensorType
from headway.data.writer import refuse_taken, staging, write_dataset
from headway.errors import BadInput, HeadwayError, RunFailed

OBJECT_STORE_BYTES = 256 << 20
BLOCK_BYTES = 8 << 20


def prepare(
    src: str | Path,
    dst: str | Path,
    *,
    format: str | None = None,
    label: str | None = None,
    row_group_rows: int | None = None,
    shard_rows: int | None = None,
    image_size: str | None = None,
    address: str | None = None,
    force: bool = False,
) -> Manifest:
    """Turn files into Parquet shards with a manifest, all or nothing.

    Rows keep the order of the source (files by path), but images, which are mixed once by a fixed seed as their order
    is by class. Row groups are cut as `headway.data.sizing` says: at least 16 where there are 4,096 rows or more, up to
    8,192 rows of a narrow table or about 4 MiB of images each.

    Args:
        src: a file, or a folder of files of one format. Every worker must see it under this path.
        dst: the folder to make.
        format: parquet, csv, jsonl, images (SRC/CLASS/NAME.png) or text (see `headway.data.text`); guessed by the
            files' endings when not given.
        label: the column that is predicted, counted in the manifest.
        row_group_rows: rows per row group.
        shard_rows: rows per shard, rounded up to whole row groups.
        image_size: HxW to which images are resized; they must be of one size when not given.
        address: of a Ray cluster; this process's own when it has one, else an embedded one.
        force: replace the dataset at `dst`.

    Raises:
        BadData: the source is missing, unreadable, empty, or not of one schema; names the file.
        BadInput: an option cannot be used, the destination is taken, or the disk is full.
        RunFailed: Ray failed.
    """
    source, target = Path(src), Path(os.path.realpath(dst))
    _check_places(source, target)
    refuse_taken(target, force)
    for name, value in (("row_group_rows", row_group_rows), ("shard_rows", shard_rows)):
        if value is not None and value < 1:
            raise BadInput(f"{name}={value}", "must be at least 1", "")
    plan = _plan(source, target, format, image_size)
    label = label or plan.label
    if label is not None and label not in plan.schema.names:
        columns = ", ".join(plan.schema.names)
        raise BadInput(f"--label {label}", f"{source} has no such column", f"Columns: {columns}.")
    with _ray(address), staging(target, force) as folder:
        return write_dataset(
            folder,
            _tables(plan),
            name=target.name,
            source=str(source),
            label=label,
            categories=plan.categories,
            sizes=Sizes(row_group_rows, shard_rows),
        )


def _check_places(source: Path, target: Path) -> None:
    real = Path(os.path.realpath(source))
    if real == target or target in real.parents:
        raise BadInput(f"{source} lies in {target}", "the destination would replace the source", "Choose another.")


def _plan(source: Path, target: Path, kind: str | None, image_size: str | None) -> Plan:
    from headway.data import images, tables, text

    files = [p for p in listed(source) if target not in Path(os.path.realpath(p)).parents]
    kind, files = chosen(source, files, kind)
    if image_size is not None and kind != "images":
        raise BadInput(f"--image-size {image_size}", f"{source} holds {kind}, not images", "Leave it out.")
    absolute = [p.absolute() for p in files]
    if kind == "images":
        return images.plan_images(source.absolute(), absolute, images.size_of(image_size) if image_size else None)
    if kind == "parquet" and (source / FILE).is_file():
        named = load(source)  # a dataset cut anew keeps what its codes stand for
        return replace(tables.plan_parquet(absolute), label=named.label, categories=named.categories)
    plans = {"parquet": tables.plan_parquet, "csv": tables.plan_csv, "jsonl": tables.plan_jsonl, "text": text.plan_text}
    return plans[kind](absolute)


def _tables(plan: Plan) -> Iterator[pa.Table]:
    """The plan's tables in order, read by Ray Data as far ahead as its memory allows."""
    import ray.data
    from ray.exceptions import RayError

    if not plan.pieces:
        return
    items = [{"piece": json.dumps(piece)} for piece in plan.pieces]
    dataset = ray.data.from_items(items, override_num_blocks=len(items))
    dataset.context.execution_options.preserve_order = True
    dataset.context.target_max_block_size = BLOCK_BYTES
    dataset.context.enable_progress_bars = False
    dataset.context.print_on_execution_start = False
    read = dataset.map_batches(
        partial(_read_piece, read=plan.read, schema=plan.schema),
        batch_size=1,
        batch_format="pyarrow",
    )
    with _quiet():
        try:
            for table in cast("Iterator[pa.Table]", read.iter_batches(batch_size=None, batch_format="pyarrow")):
                if table.num_rows:
                    yield _typed(table, plan.schema)
        except RayError as error:
            raise _ours(error) from None


@contextmanager
def _quiet() -> Iterator[None]:
    """Ray Data prints its progress, and the tracebacks of errors that we say in one line."""
    log = logging.getLogger("ray.data")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(level)


def _read_piece(rows: pa.Table, read: Any, schema: pa.Schema) -> Iterator[pa.Table]:
    """Runs on the cluster: the tables of one piece."""
    piece: Piece = json.loads(rows["piece"][0].as_py())
    yield from read(piece, schema)


def _typed(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Plain binary columns as the tensors that they are; no copy."""
    columns = []
    for column in schema:
        found = table[column.name]
        if isinstance(column.type, TensorType):
            chunks = [pa.ExtensionArray.from_storage(column.type, chunk) for chunk in found.chunks]
            found = pa.chunked_array(chunks, column.type)
        columns.append(found)
    return pa.table(columns, schema=schema)


def _ours(error: BaseException) -> HeadwayError:
    """The error that a reader raised on the cluster, out of all that Ray wraps around it."""
    from ray.exceptions import RayError

    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, HeadwayError) and not isinstance(seen, RayError):
            return seen
        seen = getattr(seen, "cause", None) or seen.__cause__
    return RunFailed("the Ray Data job failed", str(error).strip().splitlines()[-1].rstrip("."))


@contextmanager
def _ray(address: str | None) -> Iterator[None]:
    """Ray as it is if this process has it, else a connection or an embedded one that ends with the block."""
    import ray

    if ray.is_initialized():
        yield
        return
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if address in (None, "local"):
        quiet["object_store_memory"] = OBJECT_STORE_BYTES
        ray.init(address="local", num_cpus=os.cpu_count(), include_dashboard=False, **quiet)
    else:
        shipped = {"py_modules": [str(Path(__file__).parents[1])]}
        try:
            ray.init(address=address, runtime_env=shipped, **quiet)
        except (ConnectionError, ValueError, RuntimeError) as error:
            reason = f"no Ray cluster answers there ({str(error).splitlines()[0]})"
            raise BadInput(f"--address {address}", reason, "Check it, or leave it out.") from None
    try:
        yield
    finally:
        ray.shutdown()
