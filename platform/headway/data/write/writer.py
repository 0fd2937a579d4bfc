"""Writing a dataset: shards and manifest go into a hidden folder beside the destination, which then takes its name."""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
from xxhash import xxh3_128_hexdigest

from headway import __version__
from headway.data.manifest import FILE, Manifest, RowGroup, Shard, schema_of, span, write
from headway.data.write import footer
from headway.data.write.encode import EncodedGroup, Labels, encoded
from headway.data.write.sizing import Sizes, gathered
from headway.durable import sync_folder, take_place
from headway.errors import BadData, BadInput


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
        with writing(destination):
            destination.parent.mkdir(parents=True, exist_ok=True)
            folder = Path(tempfile.mkdtemp(prefix=f".{destination.name}.", suffix=".partial", dir=destination.parent))
            folder.chmod(0o755)
            yield folder
            publish(folder, destination, force)
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def writing(destination: Path) -> Iterator[None]:
    """What a disk refuses, as errors that name the destination.

    Raises:
        BadInput: it cannot be written, or is full.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            remedy = "Free space, or choose another disk. What was written has been removed."
            raise BadInput(f"{destination} cannot be written", "the disk is full", remedy) from None
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
            reason = f"{error.filename or destination.parent}: {error.strerror}"
            raise BadInput(f"{destination} cannot be written", reason, "Choose another destination.") from None
        raise


def folder_only(destination: str | Path) -> Path:
    """The folder that a dataset is to be made in. Raises BadInput: it is a URL, also one that a Path was made of."""
    if "://" in str(destination) or re.match(r"[A-Za-z0-9+.-]+:/", str(destination)):
        reason = "datasets are made in folders"
        raise BadInput(f"{destination} is an address", reason, "Make it in one, and copy that there.")
    return Path(destination)


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
    return all(ours.fullmatch(p.name) or _only_datasets(p) for p in folder.iterdir())


def publish(folder: Path, destination: Path, force: bool) -> None:
    """Give a finished folder its name, in place of what `force` allows to be replaced.

    Raises:
        BadInput: the name has been taken meanwhile.
        OSError: as the file system says.
    """
    refuse_taken(destination, force)
    aside = folder.with_name(folder.name + ".old")
    take_place(folder, destination, aside)
    sync_folder(destination.parent)
    shutil.rmtree(aside, ignore_errors=True)


@dataclass(frozen=True)
class Placed:
    """A row group where it lies in its shard, and its part of the footer for there."""

    group: RowGroup
    struct: bytes


class Shards:
    """The shards of a dataset being written from encoded row groups, one open at a time.

    Args:
        folder: that holds them.
        first: number of the first one.
    """

    def __init__(self, folder: Path, first: int = 0) -> None:
        self._folder, self._first = folder, first
        self.done: list[Shard] = []
        self.frame = b""
        self._placed: list[Placed] = []
        self._file: BinaryIO | None = None
        self._sha = sha256()
        self._at = 0

    def add(self, group: EncodedGroup, data: memoryview, frame: bytes, max_rows: int) -> tuple[Placed, Shard | None]:
        """Write one row group; the shard, where it is full now.

        Args:
            group: what is written.
            data: its bytes.
            frame: footer of the schema.
            max_rows: rows of a full shard.

        Raises:
            OSError: as the file system says.
        """
        self.frame = frame
        if self._file is None:
            self._file = self._path.open("wb")
            self._put(footer.MAGIC)
        struct = footer.moved(group.struct, self._at - len(footer.MAGIC) - group.start, len(self._placed))
        placed = Placed(RowGroup(group.rows, self._at, group.size, group.xxh3), struct)
        self._put(data)
        self._file.flush()
        self._placed.append(placed)
        full = sum(p.group.rows for p in self._placed) >= max_rows
        return placed, self.close() if full else None

    def close(self) -> Shard | None:
        """Finish the open shard, if any."""
        if self._file is None:
            return None
        groups = tuple(p.group for p in self._placed)
        rows = sum(group.rows for group in groups)
        end = footer.joined(self.frame, [p.struct for p in self._placed], rows)
        self._put(end)
        self._file.flush()
        os.fsync(self._file.fileno())
        shard = Shard(self._path.name, rows, self._at, self._sha.hexdigest(), groups, xxh3_128_hexdigest(end))
        self.drop()
        self.done.append(shard)
        return shard

    def drop(self) -> None:
        """Leave the open file as it is; on a full disk closing fails again, which tells nothing new."""
        if self._file is not None:
            with suppress(OSError):
                self._file.close()
        self._file, self._placed, self._sha, self._at = None, [], sha256(), 0

    def restore(self, placed: list[Placed]) -> int:
        """Open the next shard again with the row groups that it had; how many of them are whole on the disk."""
        try:
            self._file = self._path.open("r+b")
        except FileNotFoundError:
            return 0
        self._sha.update(self._file.read(len(footer.MAGIC)))
        self._at = len(footer.MAGIC)
        for item in placed:
            data = self._file.read(item.group.bytes)
            if xxh3_128_hexdigest(data) != item.group.xxh3:
                break
            self._sha.update(data)
            self._at += len(data)
            self._placed.append(item)
        self._file.seek(self._at)
        self._file.truncate()
        whole = len(self._placed)
        if not whole:
            self.drop()
        return whole

    def _put(self, data: bytes | memoryview) -> None:
        assert self._file is not None
        self._file.write(data)
        self._sha.update(data)
        self._at += len(data)

    @property
    def _path(self) -> Path:
        return self._folder / f"shard-{self._first + len(self.done):05d}.parquet"


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
    labels, shards, schema = Labels(), Shards(folder), None
    try:
        for group, max_rows in gathered(tables, sizes or Sizes()):
            if schema is None:
                schema = group.schema
                _require(label, schema.names)
            made = encoded([group], label)
            shards.add(made.groups[0], memoryview(made.data), made.frame, max_rows)
            labels.add(made.groups[0].labels)
        shards.close()
    finally:
        shards.drop()
    if schema is None:
        raise empty(source)
    manifest = described(shards.done, name=name, source=source, label=label, labels=labels, folder=folder)
    manifest = replace(manifest, categories=categories or {})
    write(folder, manifest)
    return manifest


def empty(source: str) -> BadData:
    """The error for a source of zero rows."""
    return BadData(f"{source} has zero rows", "there is nothing to train on", "Give a source with rows.")


def described(
    shards: list[Shard], *, name: str, source: str, label: str | None, labels: Labels, folder: Path
) -> Manifest:
    """The manifest of at least one shard that lies in `folder`."""
    return Manifest(
        name=name,
        source=source,
        rows=sum(shard.rows for shard in shards),
        bytes=sum(shard.bytes for shard in shards),
        schema=schema_of(pq.read_schema(folder / shards[-1].path)),  # as Parquet gives it back, not as it was given
        shards=tuple(shards),
        label=label,
        label_counts=labels.result() if label is not None else None,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        headway_version=__version__,
    )


def _require(label: str | None, columns: list[str]) -> None:
    if label is not None and label not in columns:
        raise BadData(f"no column {label!r} for the label", f"columns: {', '.join(columns)}", "Name one with --label.")
