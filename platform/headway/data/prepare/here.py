"""A small source made into a dataset by this process alone: the rows, parts and types that `prepare` gives, no Ray."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pyarrow as pa

from headway import __version__
from headway.data.manifest import Manifest, write
from headway.data.prepare.options import Options
from headway.data.prepare.sources.listing import Plan
from headway.data.prepare.sources.planned import planned
from headway.data.prepare.steps.parsed import recipe_of
from headway.data.prepare.steps.recipe import Recipe, fitted, typed
from headway.data.write.encode import left_uncounted
from headway.data.write.writer import folder_only, publish, refuse_taken, write_dataset, writing
from headway.errors import BadInput

MOST_BYTES = 64 << 20
"""Of a source's files; more is better read by all processors, and so that it can be gone on with."""


def is_small(src: Path) -> bool:
    """Whether a source is for this process. Nothing is raised of one that is not there."""
    paths = [src] if src.is_file() else src.rglob("*")
    return sum(path.stat().st_size for path in paths if path.is_file()) <= MOST_BYTES


def prepared_here(src: Path, dst: Path, options: Options) -> dict[str, Manifest]:
    """Make the dataset. All or nothing; the source is read once for each part.

    Args:
        src: a file, or a folder of files of one format.
        dst: the folder to make.
        options: without a transform, dedup, mask, pack, shuffle and append, which are for `prepare`.

    Returns:
        The manifest of each part by its name; of a dataset that is not split under ''.

    Raises:
        BadData, BadInput: see `headway.data.prepare.prepare`.
    """
    folder_only(dst)
    target = Path(os.path.realpath(dst))
    refuse_taken(target, force=False)
    recipe = recipe_of(options)
    plan = planned(src, target, options, recipe, {})
    schema = recipe.schema(plan.schema.empty_table())
    label = options.label or plan.label
    if label is not None and label not in schema.names:
        raise BadInput(f"--label {label}", f"{src} has no such column", f"Columns: {', '.join(schema.names)}.")
    plan = replace(plan, notes=[*plan.notes, *left_uncounted(schema, label)])
    names = recipe.parts.names if recipe.parts is not None else ("",)
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        beside.chmod(0o777 & ~_mask())
        try:
            for part, name in enumerate(names):
                _write(beside / name, target / name, part, src, plan, recipe, schema, label, options)
            publish(beside, target, force=False)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
    from headway.data.manifest import load

    return {name: load(target / name) for name in names}


def _write(
    folder: Path,
    target: Path,
    part: int,
    src: Path,
    plan: Plan,
    recipe: Recipe,
    schema: pa.Schema,
    label: str | None,
    options: Options,
) -> None:
    rows = partial(_rows, plan, recipe, schema)
    first = next(rows(part), None)
    if first is None:
        reason, remedy = f"it got no row of {src}", "Give it a larger share, or a source with more rows."
        raise BadInput(f"part {target.name!r} is empty", reason, remedy)
    manifest = write_dataset(
        folder, rows(part), name=target.name, source=str(src), label=label, categories=plan.categories
    )
    made = {
        "source": str(src),
        "rows": manifest.rows,
        "shards": len(manifest.shards),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "headway_version": __version__,
        "options": options.kept,
        "notes": plan.notes,
    }
    write(folder, replace(manifest, made={"1": made}))


def _rows(plan: Plan, recipe: Recipe, schema: pa.Schema, part: int) -> Iterator[pa.Table]:
    for piece in plan.pieces:
        tables = (typed(table, plan.schema) for table in plan.read(piece, plan.schema))
        for number, rows in recipe.parted(tables, None):
            if number == part and rows.num_rows:
                yield typed(fitted(rows, schema, "a piece"), schema)


def _mask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
