"""The part of prepare that runs on the whole cluster: a Ray Data job that reads, decodes and changes pieces.

Its blocks come out in the order of the source. Each row says of which piece and part it is; what else this process has
to know of a block is counted where the block lies, so that rows cross the network only to be encoded, and then packed.
"""

from __future__ import annotations

import json
import logging
import os
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import numpy as np
import pyarrow as pa

from headway.data.prepare.sources.listing import Piece, Plan
from headway.data.prepare.stages.assembly import Run, Unread, rows_per_task
from headway.data.prepare.steps.recipe import Flags, Recipe, fitted, typed
from headway.data.ray_data import ordered
from headway.data.write.sizing import SAMPLE_ROWS, Sizes, width_of
from headway.driver import attach
from headway.errors import BadData
from headway.faults import internal

OBJECT_STORE_BYTES = 384 << 20
BLOCK_BYTES = 24 << 20
PIECE, PART = "headway.piece", "headway.part"
Step = Callable[[int, Iterator[pa.Table], Flags | None], Iterator[pa.Table]]


def rows_of(recipe: Recipe, schema: pa.Schema, what: str, *arguments: Any) -> Iterator[pa.Table]:
    """Runs on the cluster: the rows of a piece as they are stored, with their piece and part."""
    piece, tables, dropped = arguments
    for part, table in recipe.parted(tables, dropped):
        if not table.num_rows:
            continue
        plain = fitted(table, schema, what)
        origin = pa.array(np.full(plain.num_rows, piece, np.int32))
        plain = plain.append_column(PIECE, origin)
        if recipe.num_parts > 1:
            plain = plain.append_column(PART, pa.array(np.full(plain.num_rows, part, np.int8)))
        yield plain


def counted(plan: Plan, recipe: Recipe, schema: pa.Schema, sizes: Sizes) -> int | None:
    """Rows that an encoding task takes, if the source's rows can be read there: else None.

    They can where it is known without reading which rows make up each new row group, and where those of the source are
    small beside what a task takes, as the first of them say.
    """
    if not recipe.keeps_all or not all("counts" in piece for piece in plan.pieces):
        return None
    first = next((piece for piece in plan.pieces if any(piece["counts"])), None)
    if first is None:
        return None
    sample = next(_stored(plan.read, plan.schema, partial(rows_of, recipe, schema, "a piece", 0), first))
    rows = rows_per_task(width_of(typed(sample.slice(0, SAMPLE_ROWS), schema)), sizes)
    return rows if 2 * max(max(piece["counts"]) for piece in plan.pieces if piece["counts"]) <= rows else None


def unread(plan: Plan, recipe: Recipe, schema: pa.Schema, first: int, rows_per_task: int) -> Iterator[tuple[int, Run]]:
    """The rows of a plan that is `counted`, for the tasks that encode them to read: none passes the object store.

    What lies across two of these tasks is read by both.
    """
    for number, piece in enumerate(plan.pieces[first:], first):
        step, offset, at = partial(rows_of, recipe, schema, "a piece", number), 0, 0
        while at < len(piece["groups"]):
            stop, rows = at + 1, piece["counts"][at]
            while stop < len(piece["groups"]) and 4 * (rows + piece["counts"][stop]) <= rows_per_task:
                rows += piece["counts"][stop]
                stop += 1
            some = {**piece, "groups": piece["groups"][at:stop], "counts": piece["counts"][at:stop]}
            if rows:
                yield 0, Run(number, offset, rows, Unread(partial(_whole, plan.read, plan.schema, step, some)), 0)
            offset, at = offset + rows, stop


def _stored(read: Any, schema: pa.Schema, step: Any, piece: Piece, flags: Flags | None = None) -> Iterator[pa.Table]:
    """What the step makes of a piece."""
    tables: Iterator[pa.Table] = step((typed(table, schema) for table in read(piece, schema)), flags)
    return tables


def _whole(read: Any, schema: pa.Schema, step: Any, piece: Piece) -> pa.Table:
    """Runs on the cluster: what the step makes of a piece that says how many rows it has."""
    tables = list(_stored(read, schema, step, piece))
    found, rows = sum(table.num_rows for table in tables), sum(piece["counts"])
    if found != rows:
        reason = f"{rows} rows were in some row groups of it, now {found}"
        raise BadData(f"{piece['path']} has changed", reason, "Try again with a source that rests.")
    return pa.concat_tables(tables)


def blocks(
    plan: Plan, step: Step, first: int = 0, dropped: Callable[[int], Flags | None] | None = None
) -> Iterator[Any]:
    """Ray's references to the blocks that a step makes of the plan's pieces, in order, read as far ahead as fits.

    Args:
        plan: of the source.
        step: what becomes of a piece's tables; runs on the cluster.
        first: piece to begin with.
        dropped: the rows of a piece that are left out.
    """
    from ray.exceptions import RayError

    items = []
    for number in range(first, len(plan.pieces)):
        flags = dropped(number) if dropped else None
        packed = b"" if flags is None else np.packbits(flags).tobytes()
        count = -1 if flags is None else len(flags)
        items.append({"number": number, "piece": json.dumps(plan.pieces[number]), "count": count, "flags": packed})
    if not items:
        return
    work = partial(_piece, read=plan.read, schema=plan.schema, step=step)
    with quiet(), raising_ours(RayError):
        yield from ordered(items, work, block_bytes=BLOCK_BYTES)


def tables(references: Iterator[Any]) -> Iterator[pa.Table]:
    """The blocks themselves, brought here."""
    import ray
    from ray.exceptions import RayError

    with raising_ours(RayError):
        for reference in references:
            table = ray.get(reference)
            if table.num_rows:
                yield table


def runs(references: Iterator[Any], num_parts: int, ahead: int) -> Iterator[tuple[int, Run]]:
    """What the blocks hold, in order: pairs of (part, run). Parts of a block are taken apart where it lies.

    Args:
        references: to blocks of `rows_of`.
        num_parts: of the split.
        ahead: blocks looked into at once.
    """
    import ray
    from ray.exceptions import RayError

    look = ray.remote(num_cpus=1, num_returns=1 if num_parts == 1 else 1 + num_parts)(_looked_into)
    under_way: deque[list[Any]] = deque()
    seen = [(-1, 0)] * num_parts

    def oldest() -> Iterator[tuple[int, Run]]:
        counts, *parts = under_way.popleft()
        for part, pieces in enumerate(ray.get(counts)):
            start = 0
            for piece, rows in pieces:
                offset = seen[part][1] if seen[part][0] == piece else 0
                seen[part] = (piece, offset + rows)
                yield part, Run(piece, offset, rows, parts[part], start)
                start += rows

    with raising_ours(RayError):
        for reference in references:
            looked = cast("Any", look.remote(num_parts, reference))
            under_way.append([looked, reference] if num_parts == 1 else looked)
            if len(under_way) > ahead:
                yield from oldest()
        while under_way:
            yield from oldest()


def _looked_into(num_parts: int, block: pa.Table) -> Any:
    """Runs on the cluster: rows by piece of each part, and the parts, if there is more than one."""
    if not block.num_rows:
        return [[]] if num_parts == 1 else ([[] for _ in range(num_parts)], *[block] * num_parts)
    if num_parts == 1:
        return [_counted(block)]
    part = block[PART].to_numpy()
    parts = [block.take(pa.array(np.flatnonzero(part == number))) for number in range(num_parts)]
    return [_counted(table) for table in parts], *parts


def _counted(block: pa.Table) -> list[tuple[int, int]]:
    if not block.num_rows:
        return []
    pieces = block[PIECE].to_numpy()
    begins = np.flatnonzero(np.diff(pieces, prepend=-1))
    ends = [*begins[1:], len(pieces)]
    return [(int(pieces[begin]), int(end - begin)) for begin, end in zip(begins, ends, strict=True)]


def _piece(rows: pa.Table, read: Any, schema: pa.Schema, step: Step) -> Iterator[pa.Table]:
    """Runs on the cluster: what the step makes of one piece."""
    piece: Piece = json.loads(rows["piece"][0].as_py())
    count = rows["count"][0].as_py()
    packed = np.frombuffer(rows["flags"][0].as_py(), np.uint8)
    flags = None if count < 0 else np.unpackbits(packed, count=count).astype(bool)
    yield from _stored(read, schema, partial(step, rows["number"][0].as_py()), piece, flags)


def probed(plan: Plan, recipe: Recipe) -> pa.Schema:
    """The columns of the dataset; where a transform decides on them, by its rows for the first batch of the source."""
    import ray
    from ray.exceptions import RayError

    if recipe.transform is None or not plan.pieces:
        return recipe.schema(plan.schema.empty_table())
    with raising_ours(RayError):
        return ray.get(ray.remote(num_cpus=1)(_probe).remote(plan, recipe))


def _probe(plan: Plan, recipe: Recipe) -> pa.Schema:
    batches = (table for piece in plan.pieces for table in plan.read(piece, plan.schema) if table.num_rows)
    sample = next(batches, None)
    return recipe.schema(plan.schema.empty_table() if sample is None else typed(sample, plan.schema))


@contextmanager
def quiet() -> Iterator[None]:
    """Ray Data prints its progress, and the tracebacks of errors that we say in one line."""
    log = logging.getLogger("ray.data")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(level)


@contextmanager
def raising_ours(kind: type[BaseException]) -> Iterator[None]:
    """Ray's errors as the one that our code raised on the cluster, or as what is at the bottom of them."""
    try:
        yield
    except kind as error:
        raise internal.of(error, "in a Ray Data job") from None


@contextmanager
def ray_for(address: str | None) -> Iterator[int]:
    """Ray as it is if this process has it, else a connection or an embedded one that ends with the block.

    Gives the number of CPUs of the cluster.
    """
    with attach.ray_for(address, os.cpu_count() or 1, OBJECT_STORE_BYTES):
        yield _cpus()


def _cpus() -> int:
    import ray

    return max(1, int(cast("float", ray.cluster_resources().get("CPU", 1))))
