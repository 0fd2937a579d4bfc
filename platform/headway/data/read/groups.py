"""Row groups brought into memory: read, compared with their digest, decoded, looked through for what is forbidden."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from xxhash import xxh3_128_hexdigest

from headway.data.manifest import REMAKE, Shard, schema_of
from headway.data.read.ahead import reading_ahead
from headway.data.read.gather import Mask
from headway.data.read.quarantine import Quarantine
from headway.data.store.files import Files
from headway.data.tensors import TensorType
from headway.errors import BadData

PATIENCE_S = 30.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 2.0
FOOTERS = 64  # parsed footers kept: some 100 KB each
OPENED = 8  # shards that a thread keeps opened for decoding
COPIES = 3  # of a row group that are tried, where another may be better
LASTING = (errno.ENOENT, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR)


@dataclass(frozen=True)
class Group:
    """A row group in memory.

    Args:
        rows: of it.
        table: its columns; None if it could not be read and is set aside.
        bad: which rows are set aside, shape [rows]; None for none.
    """

    rows: int
    table: pa.Table | None
    bad: Mask | None


class Groups:
    """Reads row groups of one dataset. Keeps nothing but footers; from any thread.

    Args:
        files: of the dataset.
        columns: to read, or None for all.
        no_nulls: columns in which nulls and NaN are bad data.
        check_digests: whether bytes are compared with the manifest's digests.
        quarantine: takes what is bad; None: bad data is an error.
        patience_s: for how long reading is tried again when the file system fails.
    """

    def __init__(
        self,
        files: Files,
        columns: Sequence[str] | None = None,
        no_nulls: Sequence[str] = (),
        check_digests: bool = True,
        quarantine: Quarantine | None = None,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self.files, self._manifest = files, files.manifest
        self._columns, self._no_nulls = columns, tuple(no_nulls)
        self._check, self._quarantine, self._patience_s = check_digests, quarantine, patience_s
        self._footers: OrderedDict[str, pq.FileMetaData] = OrderedDict()
        self._lock = threading.Lock()
        self._own = _Own()
        self._closed = threading.Event()

    def load(self, group: int) -> Group:
        """Read a row group.

        Raises:
            BadData: naming the shard, the row group and, for nulls and NaN, the row; unless it could be set aside.
        """
        shard, index = self._manifest.locate(group)
        rows = shard.row_groups[index].rows
        try:
            table = self._decoded(*self._patiently(group, shard, index), shard, index)
        except BadData as error:
            if self._quarantine is None or (isinstance(error.__cause__, OSError) and reading_ahead()):
                raise  # ahead of its time: whoever needs it tries again
            self._quarantine.add(shard.path, index, rows, str(error))
            return Group(rows, None, np.ones(rows, np.bool_))
        bad = self._forbidden(table, shard, index)
        return Group(rows, table if self._columns is None else table.select(list(self._columns)), bad)

    def give_up(self) -> None:
        """Try nothing again from now on."""
        self._closed.set()

    def _patiently(self, group: int, shard: Shard, index: int) -> tuple[pq.FileMetaData, pa.Buffer]:
        """The shard's footer and the row group's bytes, again and again while the file system fails.

        Raises:
            BadData: they are not what the manifest says, or cannot be read.
        """
        deadline, pause, copies = time.monotonic() + self._patience_s, FIRST_PAUSE_S, COPIES
        while True:
            path, sound = self.files.path(group), True
            try:
                return self._checked(path, shard, index)
            except (BadData, OSError) as error:
                failure = error
                sound = isinstance(error, OSError) and error.errno != errno.EIO
            finally:
                better = self.files.release(group, sound) and copies > 0
            if better:
                copies -= 1
            elif isinstance(failure, BadData):
                raise failure
            elif failure.errno in LASTING or time.monotonic() + pause > deadline or self._closed.wait(pause):
                raise _bad(shard, index, "cannot be read", failure.strerror or str(failure)) from failure
            else:
                pause = min(2 * pause, LONGEST_PAUSE_S)

    def _checked(self, path: Path, shard: Shard, index: int) -> tuple[pq.FileMetaData, pa.Buffer]:
        """Raises OSError: the file system's; BadData: what was read is not what the manifest says."""
        # Read, not mapped: an error of the disk under a mapping kills the process, and mapped pages count as its.
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            size = os.fstat(file).st_size
            if size != shard.bytes:
                reason = f"its file has {size} bytes, the manifest says {shard.bytes}"
                raise _bad(shard, index, "cannot be read", reason)
            footer = self._footer(file, shard, index)
            place = shard.row_groups[index]
            data = self._bytes(file, place.offset, place.bytes, shard, index)
        finally:
            os.close(file)
        if self._check and xxh3_128_hexdigest(memoryview(data)) != place.xxh3:
            raise _bad(shard, index, "has been altered", "its bytes differ from the manifest's digest")
        return footer, data

    def _decoded(self, footer: pq.FileMetaData, data: pa.Buffer, shard: Shard, index: int) -> pa.Table:
        """Raises BadData: these bytes are no row group as the manifest says."""
        place = shard.row_groups[index]
        wanted = None if self._columns is None else list(dict.fromkeys([*self._columns, *self._no_nulls]))
        known = self._own.opened
        source, parquet = known.pop(shard.path) if shard.path in known else _opened(footer, shard.bytes)
        try:
            with source.showing(data, place.offset):
                table = parquet.read_row_group(index, columns=wanted, use_threads=False)
        except MemoryError:
            raise  # says nothing of the data
        except (OSError, pa.ArrowException, IndexError) as error:  # not the disk's: the bytes are in memory
            raise _bad(shard, index, "cannot be decoded", _said(error)) from error
        known[shard.path] = source, parquet
        if len(known) > OPENED:
            known.popitem(last=False)
        if table.num_rows != place.rows:
            raise _bad(shard, index, f"has {table.num_rows} rows", f"its manifest says {place.rows}")
        return table

    def _footer(self, file: int, shard: Shard, index: int) -> pq.FileMetaData:
        """The shard's parsed footer, once it is known to be what the manifest says."""
        with self._lock:
            footer = self._footers.get(shard.path)
            if footer is not None:
                self._footers.move_to_end(shard.path)
                return footer
        data = self._bytes(file, shard.footer_offset, shard.bytes - shard.footer_offset, shard, index)
        if self._check and xxh3_128_hexdigest(memoryview(data)) != shard.footer:
            raise _bad(shard, index, "cannot be read", "its file's footer differs from the manifest's digest")
        try:
            with pq.ParquetFile(pa.BufferReader(data)) as parquet:
                footer, schema = parquet.metadata, schema_of(parquet.schema_arrow)
        except (OSError, pa.ArrowException) as error:
            raise _bad(shard, index, "cannot be read", f"its file's footer: {_said(error)}") from error
        if schema != self._manifest.schema:
            raise _bad(shard, index, "has another schema", _columns_that_differ(self._manifest.schema, schema))
        with self._lock:
            self._footers[shard.path] = footer
            if len(self._footers) > FOOTERS:
                self._footers.popitem(last=False)
        return footer

    def _bytes(self, file: int, offset: int, size: int, shard: Shard, index: int) -> pa.Buffer:
        data = pa.allocate_buffer(size)
        view, done = memoryview(data), 0
        while done < size:
            count = os.preadv(file, [view[done:]], offset + done)
            if not count:
                raise _bad(shard, index, "cannot be read", f"its file ends after {offset + done} bytes")
            done += count
        return data

    def _forbidden(self, table: pa.Table, shard: Shard, index: int) -> Mask | None:
        """Rows with nulls or NaN where there must be none; None for none."""
        bad: Mask | None = None
        reasons = []
        for name in self._no_nulls:
            found = empty_rows(table[name])
            if found is not None:
                bad = found if bad is None else bad | found
                rows = np.flatnonzero(found)
                shown = ", ".join(map(str, rows[:5])) + (", ..." if len(rows) > 5 else "")
                reasons.append(f"column {name!r} is null or NaN in row{'s' * (len(rows) > 1)} {shown}")
        if bad is None:
            return None
        if self._quarantine is None:
            remedy = "Mend the data, or set data.on_bad_data to quarantine."
            raise BadData(f"row group {index} of {shard.path} has bad rows", "; ".join(reasons), remedy)
        reason = f"row group {index} of {shard.path}: {'; '.join(reasons)}"
        self._quarantine.add(shard.path, index, int(bad.sum()), reason)
        return bad


def empty_rows(column: pa.ChunkedArray) -> Mask | None:
    """In which rows a column is null or NaN, anywhere in the row's list or tensor; shape [rows]. None for nowhere."""
    marks = [_empty(chunk) for chunk in column.chunks]
    if not any(mark.any() for mark in marks):
        return None
    found: Mask = np.concatenate(marks)
    return found


def _empty(chunk: pa.Array) -> Mask:
    mark: Mask = chunk.is_null(nan_is_null=True).to_numpy(zero_copy_only=False)
    kind = chunk.type
    if isinstance(kind, TensorType):
        if kind.dtype.kind == "f":
            mark = mark | np.isnan(chunk.to_numpy_ndarray().reshape(len(chunk), -1)).any(axis=1)
        return mark
    if isinstance(kind, pa.FixedShapeTensorType):
        chunk, kind = chunk.storage, chunk.storage.type
    if pa.types.is_fixed_size_list(kind) and kind.list_size:
        inner = pc.list_flatten(chunk.fill_null([0] * kind.list_size) if chunk.null_count else chunk)
        return mark | _empty(inner).reshape(len(chunk), -1).any(axis=1)
    return mark


def _bad(shard: Shard, index: int, fact: str, reason: str) -> BadData:
    return BadData(f"row group {index} of {shard.path} {fact}", reason, REMAKE)


def _said(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def _columns_that_differ(wanted: tuple[tuple[str, str], ...], found: tuple[tuple[str, str], ...]) -> str:
    odd = sorted({name for name, _ in set(wanted) ^ set(found)})
    return f"column {', '.join(map(repr, odd))} is not as the manifest says" if odd else "another order of columns"


class _Own(threading.local):
    """What each thread keeps for itself: opened shards, for opening costs a tenth of decoding a row group."""

    def __init__(self) -> None:
        self.opened: OrderedDict[str, tuple[_Bytes, pq.ParquetFile]] = OrderedDict()


def _opened(footer: pq.FileMetaData, size: int) -> tuple[_Bytes, pq.ParquetFile]:
    source = _Bytes(size)
    # Not buffered ahead: Arrow's own threads would read, and keep a process that ends meanwhile from ending.
    return source, pq.ParquetFile(source, metadata=footer, pre_buffer=False)


class _Bytes:
    """Part of a file, already read, as a file that pyarrow reads at the true places; without copies.

    Args:
        size: of the whole file.
    """

    closed = False

    def __init__(self, size: int) -> None:
        self._size, self._at, self._data, self._offset = size, 0, pa.py_buffer(b""), 0

    @contextmanager
    def showing(self, data: pa.Buffer, offset: int) -> Iterator[None]:
        """These bytes can be read, which lie there."""
        self._data, self._offset = data, offset
        try:
            yield
        finally:
            self._data = pa.py_buffer(b"")

    def seek(self, to: int, whence: int = os.SEEK_SET) -> int:
        self._at = to + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, count: int = -1) -> pa.Buffer:
        first = self._at - self._offset
        last = first + (self._size - self._at if count < 0 else count)
        if first < 0 or last > len(self._data):
            raise OSError(f"bytes [{self._at}, {self._at + count}) lie outside the row group")
        self._at += last - first
        return self._data[first:last]

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def writable(self) -> bool:
        return False

    def close(self) -> None:
        return
