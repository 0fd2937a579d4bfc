"""`headway data prepare`: files into a dataset, as a Ray Data job.

Tasks on the cluster read, decode and change pieces of the source side by side, and encode row groups; this process lays
their bytes into shards, in the order of the source, whatever the order in which they end. So the same source gives the
same bytes on any cluster, only this machine needs to see the destination, and memory holds a few pieces and 16 row
groups per part, however large the source. After a crash the same command goes on where the journal ends.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from headway import __version__
from headway.core import parts as splits
from headway.data.manifest import FILE, Manifest, difference, load, schema_of, write
from headway.data.prepare.sources.listing import Plan, chosen, listed
from headway.data.prepare.stages import duplicates, pipeline, shuffle
from headway.data.prepare.stages.assembly import Assembly, PartWriter, Run
from headway.data.prepare.stages.journal import Spill, Workplace, workplace
from headway.data.prepare.steps.blocks import Pack
from headway.data.prepare.steps.filters import Filter
from headway.data.prepare.steps.masks import parse as parse_mask
from headway.data.prepare.steps.recipe import Recipe
from headway.data.prepare.steps.transform import load as load_transform
from headway.data.tensors import TensorType
from headway.data.write.encode import Labels
from headway.data.write.sizing import Sizes
from headway.data.write.writer import described, empty, publish, refuse_taken, writing
from headway.durable import sync_folder
from headway.errors import BadInput


@dataclass(frozen=True)
class Progress:
    """How far a prepare is.

    Args:
        stage: reading, or what comes before it (finding duplicates, scattering) or after (sorting).
        done: pieces of the stage.
        total: pieces of the stage.
        rows: written so far in this stage.
    """

    stage: str
    done: int
    total: int
    rows: int


Say = Callable[[Progress], None]
SAME_IN_ALL_VERSIONS = ("mask", "split", "split_by", "pack", "seed")  # the seed where there is a split


def prepare(
    src: str | Path,
    dst: str | Path,
    *,
    format: str | None = None,
    label: str | None = None,
    transform: str | None = None,
    batch_format: str | None = None,
    filter: str | None = None,
    dedup: str | None = None,
    split: str | None = None,
    split_by: str | None = None,
    mask: tuple[str, ...] = (),
    pack: str | None = None,
    shuffle: bool = False,
    seed: int = 0,
    append: bool = False,
    row_group_rows: int | None = None,
    shard_rows: int | None = None,
    image_size: str | None = None,
    address: str | None = None,
    force: bool = False,
    progress: Say | None = None,
) -> Manifest | dict[str, Manifest]:
    """Turn files into Parquet shards with a manifest, all or nothing.

    Rows keep the order of the source (files by path), but images, which are mixed once by a fixed seed as their order
    is by class. Row groups are cut as `write.sizing` says: at least 16 where there are 4,096 rows or more, up to
    8,192 rows of a narrow table or about 2 MiB of images each. Steps are taken in the order in which they stand here.

    Args:
        src: a file, or a folder of files of one format. Every worker must see it under this path.
        dst: the folder to make.
        format: parquet, csv, jsonl, images (SRC/CLASS/NAME.png), webdataset (tars) or text (see `sources.text`);
            guessed by the files' endings when not given.
        label: the column that is predicted, counted in the manifest.
        transform: module:function or file.py:function; takes a batch and gives one. See `steps.transform`.
        batch_format: arrow or numpy: what the transform takes; by its annotation when not given.
        filter: expression over columns; see `steps.filters`.
        dedup: columns, separated by commas: of rows with equal values the first in the source stays.
        split: as NAME=SHARE,...: makes DST/NAME of each, by a seeded hash of each row.
        split_by: columns, separated by commas, that decide on a row's part; all its values when not given.
        mask: each COLUMN=hash:VARIABLE, COLUMN=redact or COLUMN=generalise:STEP; see `steps.masks`.
        pack: LENGTH or LENGTH:COLUMN: documents end to end in blocks; see `steps.blocks`.
        shuffle: write rows in a random order.
        seed: of split and shuffle.
        append: add shards to the dataset at `dst`, as a new version of its manifest.
        row_group_rows: rows per row group.
        shard_rows: rows per shard, rounded up to whole row groups.
        image_size: HxW to which images are resized; they must be of one size when not given.
        address: of a Ray cluster; this process's own when it has one, else an embedded one.
        force: replace the dataset at `dst`.
        progress: called as the work goes on.

    Returns:
        The manifest; where the dataset is split, that of each part by its name.

    Raises:
        BadData: the source is missing, unreadable, empty, or not of one schema; names the file.
        BadInput: an option cannot be used, the destination is taken, or the disk is full.
        RunFailed: Ray failed. What was done is kept, and the same command goes on with it.
    """
    source, target = Path(src), Path(os.path.realpath(dst))
    options = {
        "format": format,
        "label": label,
        "transform": transform,
        "batch_format": batch_format,
        "filter": filter,
        "dedup": dedup,
        "split": split,
        "split_by": split_by,
        "mask": list(mask),
        "pack": pack,
        "shuffle": shuffle,
        "seed": seed,
        "row_group_rows": row_group_rows,
        "shard_rows": shard_rows,
        "image_size": image_size,
    }
    _check_places(source, dst, target)
    for name, value in (("row_group_rows", row_group_rows), ("shard_rows", shard_rows)):
        if value is not None and value < 1:
            raise BadInput(f"{name}={value}", "must be at least 1", "")
    recipe = Recipe(
        transform=load_transform(transform, batch_format) if transform else None,
        filter=Filter(filter) if filter else None,
        dedup=_names(dedup),
        parts=_parts(split),
        split_by=_names(split_by),
        seed=seed,
        masks=tuple(parse_mask(text) for text in mask),
        pack=_pack(pack),
        shuffle=shuffle,
    )
    before = _appended_to(target, recipe) if append else {}
    _check_options(target, before, options)
    odd = next((m.label for m in before.values() if label is not None and m.label != label), None)
    if odd is not None:
        raise BadInput(f"--append --label {label}", f"the label of {target} is {odd!r}", "Leave it out.")
    if not append:
        refuse_taken(target, force)
    plan = _plan(source, target, format, image_size, recipe, before)
    job = _Job(source, target, plan, recipe, label or plan.label, Sizes(row_group_rows, shard_rows), before, force)
    job = replace(job, options={name: value for name, value in options.items() if value}, say=progress)
    with pipeline.ray_for(address) as cpus:
        made = job.done(cpus)
    return made if split else made[""]


@dataclass(frozen=True)
class _Job:
    """All that is decided before the work begins."""

    source: Path
    target: Path
    plan: Plan
    recipe: Recipe
    label: str | None
    sizes: Sizes
    before: dict[str, Manifest]
    force: bool
    options: dict[str, Any] | None = None
    say: Say | None = None

    @property
    def names(self) -> tuple[str, ...]:
        return self.recipe.parts.names if self.recipe.parts else ("",)

    def done(self, cpus: int) -> dict[str, Manifest]:
        """Do the work, or what an earlier process has left of it. The manifest of each part; of all under ''."""
        schema = self._schema()
        label = self.label if self.label in schema.names or self.label != self.plan.label else None  # packed away
        if label is not None and label not in schema.names:
            columns = ", ".join(schema.names)
            raise BadInput(f"--label {label}", f"{self.source} has no such column", f"Columns: {columns}.")
        with workplace(self.target, self._identity(schema)) as place, writing(self.target):
            if not place.complete:
                self._begin(place)
                self._write(place, schema, label, cpus)
            return self._published(place)

    def _begin(self, place: Workplace) -> None:
        """Go on with what an earlier process left, unless the dataset that it appended to is another by now."""
        versions = {name: [manifest.version, manifest.digest] for name, manifest in self.before.items()}
        noted = place.journal.of("before")
        if noted and noted[0]["versions"] != versions:
            place.clear()
            noted = []
        if not noted:
            place.journal.note("before", versions=versions)

    def _schema(self) -> pa.Schema:
        schema = pipeline.probed(self.plan, self.recipe)
        for name, manifest in self.before.items():
            found = schema_of(schema)
            if found != manifest.schema:
                reason = difference(manifest.schema, found)
                remedy = "Append only what has the columns of the dataset, or prepare a new one."
                raise BadInput(f"{self.source} does not fit {self.target / name}", reason, remedy)
        return schema

    def _identity(self, schema: pa.Schema) -> str:
        """Digest of all that the bytes depend on: who finds work begun under it can go on with it."""
        stats = [(str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in self.plan.files]
        salts = [sha256(mask.salt).hexdigest() for mask in self.recipe.masks]
        code = self.recipe.transform.digest if self.recipe.transform else ""
        said = [__version__, str(schema), self.options, stats, salts, code, sorted(self.before)]
        return sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()

    def _write(self, place: Workplace, schema: pa.Schema, label: str | None, cpus: int) -> None:
        """Write all shards of all parts into the workplace."""
        from ray.exceptions import RayError

        ahead = 2 * cpus
        writers = []
        for part, name in enumerate(self.names):
            first = len(self.before[name].shards) if name in self.before else 0
            writer = PartWriter(place.data / name, part, first, schema, self.sizes, label, place.journal)
            writer.restore()
            writers.append(writer)
        dropped = self._duplicates(place) if self.recipe.dedup else None
        assembly = Assembly(writers, schema, label, ahead)
        try:
            with pipeline.raising_ours(RayError):
                for part, run in self._runs(place, schema, writers, dropped, ahead):
                    assembly.add(part, run)
                assembly.end()
        finally:
            assembly.drop()
        for writer, name in zip(writers, self.names, strict=True):
            self._describe(place, writer, name, label)
        place.finish()

    def _runs(
        self, place: Workplace, schema: pa.Schema, writers: list[PartWriter], dropped: Any, ahead: int
    ) -> Iterator[tuple[int, Run]]:
        """The rows to be written, in order, from the first piece that is not all written."""
        what = f"--transform {self.options and self.options.get('transform')}" if self.recipe.transform else "a piece"
        if self.recipe.shuffle:
            paths = self._scattered(place, schema, what, dropped)
            begin = [writer.upto[0] for writer in writers]
            found = shuffle.runs(paths, len(writers), begin)
            yield from self._told(
                found, "sorting", len(paths), lambda part, run: part * len(paths) // len(writers) + run.piece
            )
            return
        first = min(writer.upto[0] for writer in writers)
        total = len(self.plan.pieces)
        rows_per_task = pipeline.counted(self.plan, self.recipe, schema, self.sizes)
        if rows_per_task is not None:
            found = pipeline.unread(self.plan, self.recipe, schema, first, rows_per_task)
            yield from self._told(found, "reading", total, lambda part, run: run.piece)
            return
        step = partial(pipeline.rows_of, self.recipe, schema, what)
        references = pipeline.blocks(self.plan, step, first, dropped.of if dropped else None)
        found = pipeline.runs(references, len(writers), ahead)
        yield from self._told(found, "reading", total, lambda part, run: run.piece)

    def _told(
        self, found: Iterator[tuple[int, Run]], stage: str, total: int, done: Callable[[int, Run], int]
    ) -> Iterator[tuple[int, Run]]:
        rows = 0
        for part, run in found:
            rows += run.rows
            self._tell(stage, done(part, run), total, rows)
            yield part, run
        self._tell(stage, total, total, rows)

    def _tell(self, stage: str, done: int, total: int, rows: int) -> None:
        if self.say is not None:
            self.say(Progress(stage, done, total, rows))

    def _duplicates(self, place: Workplace) -> duplicates.Duplicates:
        """Which rows of each piece are left out."""
        journal, path = place.journal, place.work / "duplicates"
        noted = journal.of("duplicates")
        if noted and path.exists():
            return duplicates.Duplicates(path, noted[-1]["rows"])
        spill = Spill(place.work / "keys", duplicates.BUCKETS, journal, "keys")
        counts = {r["piece"]: r["rows"] for r in journal.of("counted") if r["piece"] < spill.pieces}
        if not spill.pieces:
            self._known_keys(spill)
        total = len(self.plan.pieces)
        step = partial(duplicates.keys_of, self.recipe)
        rows, at = sum(counts.values()), spill.pieces
        for table in pipeline.tables(pipeline.blocks(self.plan, step, spill.pieces)):
            piece = int(table["piece"][0].as_py())
            if piece != at:
                journal.note("counted", piece=at, rows=counts.get(at, 0))
                spill.done(at)
                self._tell("finding duplicates", piece, total, rows)
                at = piece
            duplicates.spilled(spill, duplicates.entries(table, rows))
            counts[piece] = counts.get(piece, 0) + table.num_rows
            rows += table.num_rows
        found = duplicates.Duplicates(path, [counts.get(piece, 0) for piece in range(total)])
        files = (spill.path(index) for index in range(duplicates.BUCKETS) if spill.sizes[index])
        found.mark(np.fromfile(file, duplicates.ENTRY) for file in files)
        journal.note("duplicates", rows=[counts.get(piece, 0) for piece in range(total)])
        shutil.rmtree(place.work / "keys")
        return found

    def _known_keys(self, spill: Spill) -> None:
        """The keys of the rows that the dataset has already, all before the new ones."""
        for name, manifest in self.before.items():
            number = -manifest.rows
            for shard in manifest.shards:
                with pq.ParquetFile(self.target / name / shard.path) as file:
                    for batch in file.iter_batches(columns=list(self.recipe.dedup)):
                        keys = self.recipe.keys(pa.Table.from_batches([batch]))
                        table = pa.table({"high": keys[:, 0], "low": keys[:, 1]})
                        duplicates.spilled(spill, duplicates.entries(table, number))
                        number += batch.num_rows

    def _scattered(self, place: Workplace, schema: pa.Schema, what: str, dropped: Any) -> list[Path]:
        """Files in which all rows lie by the numbers that they drew, part by part."""
        parts = len(self.names)
        files = shuffle.files_for(sum(path.stat().st_size for path in self.plan.files) // parts)
        spill = Spill(place.work / "rows", parts * files, place.journal, "scattered")
        total = len(self.plan.pieces)
        step = partial(shuffle.scattered, self.recipe, schema, what, files)
        references = pipeline.blocks(self.plan, step, spill.pieces, dropped.of if dropped else None)
        at = spill.pieces
        for table in pipeline.tables(references):
            piece = int(table["piece"][0].as_py())
            if piece != at:
                spill.done(at)
                self._tell("scattering", piece, total, 0)
                at = piece
            for index, data in zip(table[shuffle.FILE].to_pylist(), table[shuffle.DATA], strict=True):
                spill.add(index, memoryview(data.as_buffer()))
        if spill.pieces < total:
            spill.done(total - 1, last=True)
        return [spill.path(index) for index in range(parts * files)]

    def _describe(self, place: Workplace, writer: PartWriter, name: str, label: str | None) -> None:
        """The manifest of one part, beside its shards; an appended one has the shards before, which lie elsewhere."""
        folder, shards = place.data / name, writer.shards.done
        before = self.before.get(name)
        if not shards and before is None:
            if name:
                reason = f"it got no row of {self.source}"
                raise BadInput(f"part {name!r} is empty", reason, "Give it a larger share, or split more rows.")
            raise empty(str(self.source))
        if not shards:
            return
        full = self.target / name if name else self.target
        made = described(
            shards, name=full.name, source=str(self.source), label=label, labels=writer.labels, folder=folder
        )
        masked = {mask.column for mask in self.recipe.masks}
        known = {} if self.recipe.pack else self.plan.categories
        categories = {column: names for column, names in known.items() if column not in masked}
        made = replace(made, categories=categories, made={"1": self._made(made)})
        write(folder, made if before is None else _added(before, made, self._made(made)))

    def _made(self, manifest: Manifest) -> dict[str, Any]:
        return {
            "source": str(self.source),
            "rows": manifest.rows,
            "shards": len(manifest.shards),
            "created": manifest.created,
            "headway_version": __version__,
            "options": self.options,
        }

    def _published(self, place: Workplace) -> dict[str, Manifest]:
        """Give what was made its name: all at once where it is new, else shards first and then the manifest."""
        if not self.before:
            if all((place.data / name / FILE).exists() for name in self.names):  # else it was, before a crash
                publish(place.data, self.target, self.force)
            return {name: load(self.target / name) for name in self.names}
        for name in self.names:
            folder, target = place.data / name, self.target / name
            if (folder / FILE).exists():  # not so where it got no rows, or was published before a crash
                made, now = load(folder), load(target)
                if now.digest != made.digest:
                    if now.version != made.version - 1:
                        reason = "something was appended to it while this went on"
                        raise BadInput(f"{target} is of version {now.version}", reason, "Append again.")
                    for shard in folder.glob("shard-*.parquet"):
                        shard.rename(target / shard.name)
                    sync_folder(target)
                    write(target, made)
                (folder / FILE).unlink()
        return {name: load(self.target / name) for name in self.names}


def _added(before: Manifest, new: Manifest, made: dict[str, Any]) -> Manifest:
    """The next version of a dataset's manifest."""
    for column, names in before.categories.items():
        if new.categories.get(column, names)[: len(names)] != names:
            reason = f"code 0, 1, ... of column {column!r} would stand for {', '.join(new.categories[column])}"
            remedy = "Append what has the same codes, or prepare both anew from their names."
            raise BadInput(f"{before.name} has other categories: {', '.join(names)}", reason, remedy)
    labels = Labels()
    for counts in (before.label_counts, new.label_counts):
        labels.add(counts)
    version = before.version + 1
    return replace(
        before,
        rows=before.rows + new.rows,
        bytes=before.bytes + new.bytes,
        shards=before.shards + new.shards,
        label_counts=labels.result() if before.label is not None else None,
        categories={**before.categories, **new.categories},
        created=new.created,
        headway_version=new.headway_version,
        version=version,
        made={**before.made, str(version): made},
    )


def _check_options(target: Path, before: dict[str, Manifest], options: dict[str, Any]) -> None:
    """What is appended must be masked, split and packed like what is there."""
    for name, manifest in before.items():
        had = manifest.made.get(str(manifest.version), {}).get("options") or {}
        for option in SAME_IN_ALL_VERSIONS if had.get("split") or options.get("split") else SAME_IN_ALL_VERSIONS[:-1]:
            then, now = (of.get(option) or [] for of in (had, options))
            if then != now:
                fact = f"--append with --{option.replace('_', '-')} {_told(now)}"
                reason = f"{target / name} was made with {_told(then)}"
                raise BadInput(fact, reason, "Give what it was made with, or prepare a new dataset.")


def _told(value: Any) -> str:
    return " ".join(map(str, value)) or "none" if isinstance(value, list | tuple) else str(value)


def _check_places(source: Path, dst: str | Path, target: Path) -> None:
    if "://" in str(dst) or re.match(r"[a-z0-9]+:/", str(dst)):
        raise BadInput(f"{dst} is an address", "datasets are made in folders", "Make it in one, and copy that there.")
    real = Path(os.path.realpath(source))
    if real == target or target in real.parents:
        raise BadInput(f"{source} lies in {target}", "the destination would replace the source", "Choose another.")


def _names(text: str | None) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",")) if text else ()


def _parts(text: str | None) -> splits.Parts | None:
    try:
        return splits.parse(text) if text else None
    except ValueError as error:
        raise BadInput(f"--split {text}", str(error), "Write it like train=0.8,validation=0.1,test=0.1.") from None


def _pack(text: str | None) -> Pack | None:
    if text is None:
        return None
    length, _, column = text.partition(":")
    if not length.isdecimal() or int(length) < 1:
        raise BadInput(f"--pack {text}", "not a number of tokens", "Write --pack LENGTH or --pack LENGTH:COLUMN.")
    return Pack(int(length), column or None)


def _appended_to(target: Path, recipe: Recipe) -> dict[str, Manifest]:
    """The manifests of the parts that are added to.

    Raises:
        BadData: they are not there.
        BadInput: duplicates of what is there cannot be known.
    """
    masked = sorted({mask.column for mask in recipe.masks} & set(recipe.dedup))
    if masked:
        fact = f"--append --dedup {masked[0]} --mask {masked[0]}"
        raise BadInput(fact, "rows of the dataset are masked, and cannot be compared", "Deduplicate by another column.")
    names = recipe.parts.names if recipe.parts else ("",)
    found = {name: load(target / name) for name in names}
    for name, manifest in found.items():
        have = [column for column, _ in manifest.schema]
        odd = next((column for column in recipe.dedup if column not in have), None)
        if odd is not None:
            raise BadInput(
                f"--append --dedup {odd}", f"{target / name} has no such column", f"Columns: {', '.join(have)}."
            )
    return found


def _plan(
    source: Path,
    target: Path,
    kind: str | None,
    image_size: str | None,
    recipe: Recipe,
    before: dict[str, Manifest],
) -> Plan:
    from headway.data.prepare.sources import images, tables, text, webdataset

    files = [p for p in listed(source) if target not in Path(os.path.realpath(p)).parents]
    kind, files = chosen(source, files, kind)
    if image_size is not None and kind not in ("images", "webdataset"):
        raise BadInput(f"--image-size {image_size}", f"{source} holds {kind}, not images", "Leave it out.")
    size = images.size_of(image_size) if image_size else None
    absolute = [p.absolute() for p in files]
    # A part that got no row of an append knows fewer names.
    known = max(before.values(), key=lambda manifest: sum(map(len, manifest.categories.values())), default=None)
    if kind == "images":
        classes = known.categories.get("label", []) if known else []
        plan = images.plan_images(source.absolute(), absolute, size, classes)
    elif kind == "webdataset":
        plan = webdataset.plan_webdataset(absolute, size)
    elif kind == "text" and recipe.pack is not None:
        plan = text.plan_documents(absolute)
    elif kind == "parquet" and (source / FILE).is_file():
        named = load(source)  # a dataset cut anew keeps what its codes stand for
        plan = replace(tables.plan_parquet(absolute), label=named.label, categories=named.categories)
    else:
        plans = {
            "parquet": tables.plan_parquet,
            "csv": tables.plan_csv,
            "jsonl": tables.plan_jsonl,
            "text": text.plan_text,
        }
        plan = plans[kind](absolute)
    plan = replace(plan, files=absolute)
    if known is None:
        return plan
    plan = replace(plan, label=known.label)
    return plan if recipe.transform or recipe.pack else _as_before(plan, target, next(iter(before)), known, recipe)


def _as_before(plan: Plan, target: Path, name: str, known: Manifest, recipe: Recipe) -> Plan:
    """The plan with the types that the dataset has, for formats in which types are guessed from what comes first."""
    have = pq.read_schema(target / name / known.shards[0].path)
    masked = {mask.column for mask in recipe.masks}
    kept = [c if c.name in masked or c.name not in have.names else _as_had(c, have.field(c.name)) for c in plan.schema]
    return replace(plan, schema=pa.schema(kept))


def _as_had(found: pa.Field, had: pa.Field) -> pa.Field:
    """The type that the dataset has, unless it is of tensors: these are never guessed, and mean other bytes."""
    return found if isinstance(found.type, TensorType) or isinstance(had.type, TensorType) else had
