"""`headway data prepare`: files into a dataset, as a Ray Data job.

Tasks on the cluster read, decode and change pieces of the source side by side, and encode row groups; this process lays
their bytes into shards, in the order of the source, whatever the order in which they end. So the same source gives the
same bytes on any cluster, only this machine needs to see the destination, and memory holds a few pieces and 16 row
groups per part, however large the source. After a crash the same command goes on where the journal ends.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pyarrow as pa

from headway.data.manifest import Manifest, difference, schema_of
from headway.data.prepare.appending import appended_to, check_alike
from headway.data.prepare.options import Options
from headway.data.prepare.preparation import Preparation
from headway.data.prepare.progress import Say, nobody
from headway.data.prepare.publishing import describe, published
from headway.data.prepare.sources.listing import Plan
from headway.data.prepare.sources.planned import planned
from headway.data.prepare.stages import pipeline
from headway.data.prepare.stages.duplicates import FindDuplicates
from headway.data.prepare.stages.journal import Workplace, workplace
from headway.data.prepare.stages.rows import WriteRows
from headway.data.prepare.stages.shuffle import Scatter
from headway.data.prepare.steps.parsed import recipe_of
from headway.data.prepare.steps.recipe import Recipe
from headway.data.write.sizing import Sizes
from headway.data.write.writer import refuse_taken, writing
from headway.errors import BadInput


def prepared(src: str | Path, dst: str | Path, options: Options, say: Say = nobody) -> dict[str, Manifest]:
    """Make the dataset: decide all that can be decided before rows are read, go through the stages, publish.

    Args:
        src: a file, or a folder of files of one format. Every worker must see it under this path.
        dst: the folder to make.
        options: what is asked for.
        say: is told how far the work is.

    Returns:
        The manifest of each part by its name; of a dataset that is not split under ''.

    Raises:
        BadData, BadInput, RunFailed: see `headway.data.prepare.prepare`.
    """
    source, target = Path(src), Path(os.path.realpath(dst))
    _check_places(source, dst, target)
    recipe = recipe_of(options)
    before = appended_to(target, recipe) if options.append else {}
    check_alike(target, before, options.kept, options.label)
    if not options.append:
        refuse_taken(target, options.force)
    plan = planned(source, target, options, recipe, before)
    with pipeline.ray_for(options.address) as cpus:
        schema = _schema(source, target, plan, recipe, before)
        asked = Preparation(
            source=str(source),
            target=target,
            plan=plan,
            recipe=recipe,
            schema=schema,
            label=_label(source, options.label, plan, schema),
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


def _schema(source: Path, target: Path, plan: Plan, recipe: Recipe, before: dict[str, Manifest]) -> pa.Schema:
    """The columns of the dataset, which are those of what is appended to."""
    schema = pipeline.probed(plan, recipe)
    for name, manifest in before.items():
        found = schema_of(schema)
        if found != manifest.schema:
            reason = difference(manifest.schema, found)
            remedy = "Append only what has the columns of the dataset, or prepare a new one."
            raise BadInput(f"{source} does not fit {target / name}", reason, remedy)
    return schema


def _label(source: Path, asked: str | None, plan: Plan, schema: pa.Schema) -> str | None:
    """The column that is counted. That which the format provides may be gone, by a transform or in blocks."""
    label = asked or plan.label
    if label is None or label in schema.names:
        return label
    if label == plan.label:
        return None
    columns = ", ".join(schema.names)
    raise BadInput(f"--label {label}", f"{source} has no such column", f"Columns: {columns}.")


def _check_places(source: Path, dst: str | Path, target: Path) -> None:
    if "://" in str(dst) or re.match(r"[a-z0-9]+:/", str(dst)):
        raise BadInput(f"{dst} is an address", "datasets are made in folders", "Make it in one, and copy that there.")
    real = Path(os.path.realpath(source))
    if real == target or target in real.parents:
        raise BadInput(f"{source} lies in {target}", "the destination would replace the source", "Choose another.")
