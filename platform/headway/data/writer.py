"""Writing a dataset: shards and manifest go into a hidden folder beside the destination, which then takes its name."""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from xxhash import xxh3_128_hexdigest

from headway import __version__
from headway.data.manifest import FILE, Manifest, RowGroup, Shard, schema_of, span, write
from headway.data.sizing import Sizes, gathered
from headway.data.tensors import TensorType
from headway.durable import sync_folder, take_place
from headway.errors import BadData, BadInput

MAX_LABELS = 10_000


@contextmanager
def staging(destination: Path, force: bool = False) -> Iterator[Path]:
    """A folder to write into; it becomes `destination` in one rename if the block ends well, and is removed if not.

    Args:
        destination: the folder to be.
        force: replace what is there, if it is nothing but datasets.

    Raises:
        BadInput: the destination is taken or cannot be written, or the disk is full.
    """
    destination = Path(os.path.realpath(destination))
    refuse_taken(destination, force)
    folder: Path | None = None
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{destination.name}.", suffix=".partial", dir=destination.parent))
        folder.chmod(0o755)
        yield folder
        _publish(folder, destination, force)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            remedy = "Free space, or choose another disk. What was written has been removed."
            raise BadInput(f"{destination} cannot be written", "the disk is full", remedy) from None
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
            reason = f"{error.filename or destination.parent}: {error.strerror}"
            raise BadInput(f"{destination} cannot be written", reason, "Choose another destination.") from None
        raise
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def refuse_taken(destination: Path, force: bool) -> None:
    """Refuse a destination that exists, unless forced and it is nothing but datasets.

    Raises:
        BadInput: saying which of the two.
    """
    if not os.path.lexists(destination):
        return
    if not force:
        raise BadInput(f"{destination} already exists", "nothing is overwritten unasked", "Choose another, or --force.")
    if not _only_datasets(destination):
        reason = "it holds other things than a dataset, which --force does not delete"
        raise BadInput(f"{destination} already exists", reason, "Choose another destination.")


def _only_datasets(folder: Path) -> bool:
    if folder.is_symlink() or not folder.is_dir():
        return False
    ours = re.compile(rf"{re.escape(FILE)}|manifest-\d+\.json|shard-\d+\.parquet")
    return all(ours.fullmatch(p.name) or (p.name in ("train", "test") and _only_datasets(p)) for p in folder.iterdir())


def _publish(folder: Path, destination: Path, force: bool) -> None:
    refuse_taken(destination, force)
    aside = folder.with_name(folder.name + ".old")
    take_place(folder, destination, aside)
    sync_folder(destination.parent)
    shutil.rmtree(aside, ignore_errors=True)


@dataclass
class _Shards:
    """Parquet files being written, one open at a time; a context manager so that none stays open."""

    folder: Path
    schema: pa.Schema
    max_rows: int
    done: list[Shard] = field(default_factory=list)
    groups: list[int] = field(default_factory=list)
    file: pq.ParquetWriter | None = None

    def add(self, table: pa.Table) -> None:
        """Write one row group."""
        if self.file is None:
            flat = [c.name for c in self.schema if not isinstance(c.type, TensorType)]
            self.file = pq.ParquetWriter(
                self._path, self.schema, compression="zstd", use_dictionary=flat, write_statistics=flat
            )
        self.file.write_table(table, row_group_size=max(1, table.num_rows))
        self.groups.append(table.num_rows)
        if sum(self.groups) >= self.max_rows:
            self.close()

    def close(self) -> None:
        """Finish the open shard, if any, and note what it is."""
        if self.file is None:
            return
        path, file = self._path, self.file
        self.file, self.groups = None, []
        file.close()
        with path.open("rb") as written:
            os.fsync(written.fileno())
        self.done.append(shard_of(path))

    @property
    def _path(self) -> Path:
        return self.folder / f"shard-{len(self.done):05d}.parquet"


def shard_of(path: Path) -> Shard:
    """What the manifest says of a Parquet file with at least one row group; reads all of it."""
    with pq.ParquetFile(path) as file, pa.memory_map(str(path)) as mapped:
        meta, data = file.metadata, memoryview(mapped.read_buffer())
        groups = []
        for index in range(meta.num_row_groups):
            start, stop = span(meta.row_group(index))
            rows = meta.row_group(index).num_rows
            groups.append(RowGroup(rows, start, stop - start, xxh3_128_hexdigest(data[start:stop])))
        digest = sha256(data).hexdigest()
        return Shard(path.name, meta.num_rows, len(data), digest, tuple(groups), xxh3_128_hexdigest(data[stop:]))


@dataclass
class _Labels:
    """Rows by value of a column, counted as they pass; given up for floats and for too many values."""

    column: str | None
    counts: dict[str, int] | None = field(default_factory=dict)

    def add(self, table: pa.Table) -> None:
        if self.column is None or self.counts is None:
            return
        values = table[self.column]
        if pa.types.is_floating(values.type) or len(self.counts) > MAX_LABELS:
            self.counts = None
            return
        for pair in values.value_counts():
            name = str(pair["values"].as_py())
            self.counts[name] = self.counts.get(name, 0) + pair["counts"].as_py()

    def result(self) -> dict[str, int] | None:
        if self.column is None or self.counts is None:
            return None
        return dict(sorted(self.counts.items(), key=lambda item: (len(item[0]), item[0])))


def write_dataset(
    folder: Path,
    tables: Iterable[pa.Table],
    *,
    name: str,
    source: str,
    label: str | None = None,
    categories: dict[str, list[str]] | None = None,
    sizes: Sizes | None = None,
) -> Manifest:
    """Write a stream of tables of one schema as shards and a manifest; holds at most 16 row groups in memory.

    Raises:
        BadData: there are no rows, or no column named as the label.
        OSError: as the file system says.
    """
    folder.mkdir(parents=True, exist_ok=True)
    labels, shards = _Labels(label), None
    try:
        for group, max_rows in gathered(tables, sizes or Sizes()):
            if shards is None:
                _require(label, group.column_names)
                shards = _Shards(folder, group.schema, max_rows)
            shards.add(group)
            labels.add(group)
        if shards is not None:
            shards.close()
    finally:
        if shards is not None and shards.file is not None:
            _drop(shards.file)
    if shards is None:
        raise BadData(f"{source} has zero rows", "there is nothing to train on", "Give a source with rows.")
    manifest = Manifest(
        name=name,
        source=source,
        rows=sum(shard.rows for shard in shards.done),
        bytes=sum(shard.bytes for shard in shards.done),
        schema=schema_of(pq.read_schema(folder / shards.done[0].path)),  # as Parquet gives it back, not as it was given
        shards=tuple(shards.done),
        label=label,
        label_counts=labels.result(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        headway_version=__version__,
        categories=categories or {},
    )
    write(folder, manifest)
    return manifest


def _require(label: str | None, columns: list[str]) -> None:
    if label is not None and label not in columns:
        raise BadData(f"no column {label!r} for the label", f"columns: {', '.join(columns)}", "Name one with --label.")


def _drop(file: pq.ParquetWriter) -> None:
    """Close a writer whose file is about to be removed; on a full disk closing fails again, which tells nothing new."""
    with suppress(OSError):
        file.close()
