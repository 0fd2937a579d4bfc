"""`headway data prepare`: files into a dataset, as a Ray Data job.

Tasks on the cluster read, decode and change pieces of the source side by side, and encode row groups; this process lays
their bytes into shards, in the order of the source, whatever the order in which they end. So the same source gives the
same bytes on any cluster, only this machine needs to see the destination, and memory holds a few pieces and 16 row
groups per part, however large the source. After a crash the same command goes on where the journal ends.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa

from headway.data.manifest import Manifest, difference, schema_of
from headway.data.prepare.appending import appended_to, check_alike
from headway.data.prepare.options import Options, as_arguments
from headway.data.prepare.preparation import Preparation
from headway.data.prepare.progress import Note, Say, nobody, on_stderr
from headway.data.prepare.publishing import describe, published
from headway.data.prepare.sources import frames
from headway.data.prepare.sources.listing import Plan
from headway.data.prepare.sources.planned import planned
from headway.data.prepare.stages import pipeline
from headway.data.prepare.stages.duplicates import FindDuplicates
from headway.data.prepare.stages.journal import Workplace, workplace
from headway.data.prepare.stages.rows import WriteRows
from headway.data.prepare.stages.shuffle import Scatter
from headway.data.prepare.steps.parsed import recipe_of
from headway.data.prepare.steps.recipe import Recipe
from headway.data.write.encode import left_uncounted
from headway.data.write.sizing import Sizes
from headway.data.write.writer import folder_only, refuse_taken, writing
from headway.errors import BadInput


def prepared(
    src: Any, dst: str | Path, options: Options, say: Say = nobody, note: Note = on_stderr
) -> dict[str, Manifest]:
    """Make the dataset: decide all that can be decided before rows are read, go through the stages, publish.

    Args:
        src: a file, or a folder of files of one format. Every worker must see it under this path. Or a frame or table
            in memory; every worker must then see the folder in which `dst` is.
        dst: the folder to make.
        options: what is asked for.
        say: is told how far the work is.
        note: is told what is not kept, or was changed; the manifest keeps it too.

    Returns:
        The manifest of each part by its name; of a dataset that is not split under ''.

    Raises:
        BadData, BadInput, RunFailed: see `headway.data.prepare.prepare`.
    """
    target = Path(os.path.realpath(dst))
    _check_places(src, dst, target)
    recipe = recipe_of(options)
    before = appended_to(target, recipe) if options.append else {}
    check_alike(target, before, options.kept, options.label)
    if not options.append:
        refuse_taken(target, options.force)
    with _plan(src, target, options, recipe, before) as (source, plan, seen):
        for text in plan.notes:
            note(text)
        with pipeline.ray_for(options.address) as cpus:
            schema = _schema(source, target, plan, recipe, before)
            label = _label(source, options.label, plan, schema)
            for text in (uncounted := left_uncounted(schema, label)):
                note(text)
            asked = Preparation(
                source=source,
                seen=seen,
                target=target,
                plan=replace(plan, notes=[*plan.notes, *uncounted]),
                recipe=recipe,
                schema=schema,
                label=label,
                sizes=Sizes(options.row_group_rows, options.shard_rows),
                before=before,
                options=options.kept,
                force=options.force,
                say=say,
            )
            with workplace(target, asked.identity) as place, writing(target):
                if not place.complete:
                    _begin(asked, place)
                    _work(asked, place, 2 * cpus)
                    place.finish()
                return published(asked, place)


@contextmanager
def _plan(
    src: Any, target: Path, options: Options, recipe: Recipe, before: dict[str, Manifest]
) -> Iterator[tuple[str, Plan, Any]]:
    """The source's name, how it is read for as long as the block lasts, and what tells it from another."""
    if isinstance(src, str | Path):
        plan = planned(Path(src), target, options, recipe, before)
        yield str(src), plan, [(str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in plan.files]
        return
    frame = frames.framed(src)
    for name in ("format", "encoding", "null_values", "image_size"):
        if (value := getattr(options, name)) is not None:
            raise BadInput(as_arguments(name, value), f"{frame.name} is no file", "Leave it out.")
    with writing(target), frames.written(frame, target) as path:
        plan = planned(path, target, options, recipe, before)
        yield frame.name, replace(plan, notes=frame.notes), sha256(path.read_bytes()).hexdigest()


def _work(asked: Preparation, place: Workplace, ahead: int) -> None:
    """Go through the stages, each from where an earlier process left it."""
    dropped = FindDuplicates(asked).run(place) if asked.recipe.dedup else None
    scattered = Scatter(asked, dropped).run(place) if asked.recipe.shuffle else None
    writers = WriteRows(asked, ahead, dropped, scattered).run(place)
    for writer, name in zip(writers, asked.names, strict=True):
        describe(asked, place, writer, name)


def _begin(asked: Preparation, place: Workplace) -> None:
    """Go on with what an earlier process left, unless the dataset that it appended to is another by now."""
    versions = {name: [manifest.version, manifest.digest] for name, manifest in asked.before.items()}
    noted = place.journal.of("before")
    if noted and noted[0]["versions"] != versions:
        place.clear()
        noted = []
    if not noted:
        place.journal.note("before", versions=versions)


def _schema(source: str, target: Path, plan: Plan, recipe: Recipe, before: dict[str, Manifest]) -> pa.Schema:
    """The columns of the dataset, which are those of what is appended to."""
    schema = pipeline.probed(plan, recipe)
    for name, manifest in before.items():
        found = schema_of(schema)
        if found != manifest.schema:
            reason = difference(manifest.schema, found)
            remedy = "Append only what has the columns of the dataset, or prepare a new one."
            raise BadInput(f"{source} does not fit {target / name}", reason, remedy)
    return schema


def _label(source: str, asked: str | None, plan: Plan, schema: pa.Schema) -> str | None:
    """The column that is counted. That which the format provides may be gone, by a transform or in blocks."""
    label = asked or plan.label
    if label is None or label in schema.names:
        return label
    if label == plan.label:
        return None
    columns = ", ".join(schema.names)
    raise BadInput(f"--label {label}", f"{source} has no such column", f"Columns: {columns}.")


def _check_places(src: Any, dst: str | Path, target: Path) -> None:
    folder_only(dst)
    if isinstance(src, str | Path):
        real = Path(os.path.realpath(src))
        if real == target or target in real.parents:
            raise BadInput(f"{src} lies in {target}", "the destination would replace the source", "Choose another.")
