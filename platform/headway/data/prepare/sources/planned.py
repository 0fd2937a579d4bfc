"""How a source is read: its kind's own plan, with the names and types of the dataset that is appended to."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq

from headway.data.manifest import FILE, Manifest, load
from headway.data.prepare.options import Options, as_command
from headway.data.prepare.sources import images, tables, tabular, text, webdataset
from headway.data.prepare.sources.listing import Plan, Reading, chosen, left_out, listed
from headway.data.prepare.steps.recipe import Recipe
from headway.data.tensors import TensorType
from headway.errors import BadInput


def planned(source: Path, target: Path, options: Options, recipe: Recipe, before: dict[str, Manifest]) -> Plan:
    """The plan of a source.

    Args:
        source: a file or folder of this machine.
        target: where the dataset will lie; what is there is no source.
        options: format, encoding, null_values, image_size.
        recipe: what is done to rows: whether documents are kept whole, and which columns keep their types.
        before: manifests of what is appended to.

    Raises:
        BadData: the source is missing, unreadable, or not of one schema; names the file.
        BadInput: an option does not fit it.
    """
    files = [p for p in listed(source) if target not in Path(os.path.realpath(p)).parents]
    kind, of_kind = chosen(source, files, options.format)
    _check_fits(kind, source, options)
    # A part that got no row of an append knows fewer names.
    known = max(before.values(), key=lambda manifest: sum(map(len, manifest.categories.values())), default=None)
    absolute = [p.absolute() for p in of_kind]
    plan = _of_kind(kind, source, absolute, options, recipe, known)
    plan = replace(plan, files=absolute, notes=[*plan.notes, *left_out(files, of_kind, kind)])
    if known is None:
        return plan
    plan = replace(plan, label=known.label)
    return plan if recipe.transform or recipe.pack else _as_before(plan, target, next(iter(before)), known, recipe)


def _of_kind(
    kind: str, source: Path, files: list[Path], options: Options, recipe: Recipe, known: Manifest | None
) -> Plan:
    size = images.size_of(options.image_size) if options.image_size else None
    if kind == "images":
        return images.plan_images(source.absolute(), files, size, known.categories.get("label", []) if known else [])
    if kind == "webdataset":
        return webdataset.plan_webdataset(files, size)
    if kind == "text":
        return text.plan_text(files) if recipe.pack is None else text.plan_documents(files)
    if kind == "parquet" and (source / FILE).is_file():
        named = load(source)  # a dataset cut anew keeps what its codes stand for
        return replace(tables.plan_parquet(files), label=named.label, categories=named.categories)
    reading = Reading.asked(options.encoding, options.null_values)
    if known is not None and known.rules < 3:
        then = replace(reading, null_values=tuple(csv.ConvertOptions().null_values), text_has_nulls=False)
        return tabular.plan_files(kind, files, then)
    return tabular.plan_tables(kind, source.absolute(), files, reading)


FITTING = {"image_size": ("images", "webdataset"), "encoding": ("csv", "jsonl"), "null_values": ("csv",)}
"""Options that are for some kinds of source alone."""


def _check_fits(kind: str, source: Path, options: Options) -> None:
    for name, kinds in FITTING.items():
        value = getattr(options, name)
        if value is not None and kind not in kinds:
            other = "" if name != "image_size" else ", not images"
            raise BadInput(as_command(name, value), f"{source} holds {kind}{other}", "Leave it out.")


def _as_before(plan: Plan, target: Path, name: str, known: Manifest, recipe: Recipe) -> Plan:
    """The plan with the types that the dataset has, for formats in which types are guessed from what comes first."""
    have = pq.read_schema(target / name / known.shards[0].path)
    masked = {mask.column for mask in recipe.masks}
    kept = [c if c.name in masked or c.name not in have.names else _as_had(c, have.field(c.name)) for c in plan.schema]
    return replace(plan, schema=pa.schema(kept))


def _as_had(found: pa.Field, had: pa.Field) -> pa.Field:
    """The type that the dataset has, unless it is of tensors: these are never guessed, and mean other bytes."""
    return found if isinstance(found.type, TensorType) or isinstance(had.type, TensorType) else had
