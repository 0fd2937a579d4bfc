"""Where lines are kept: files of a folder that grow, or objects of a store that are written once.

Both keep the first `HEAD_BYTES` of a stream and the newest `TAIL_BYTES`, and of earlier streams of the source the
newest `EARLIER_BYTES`; of a whole run `RUN_BYTES`. Not for several threads.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from headway.errors import HeadwayError
from headway.logs.layout import (
    LOGS,
    Kept,
    Segment,
    fixed_name,
    folder_of,
    growing_name,
    middle,
    outlived,
    segment,
    streams_of,
)

if TYPE_CHECKING:
    from headway.storage.protocol import Storage

HEAD_BYTES = 512 << 10
TAIL_BYTES = 1 << 20
BLOCK_BYTES = 128 << 10
"""Of a segment, about: the next line begins another."""
PIECES = 32
"""Objects of a block that is not full; then they become one."""
EARLIER_BYTES = 4 << 20
RUN_BYTES = 256 << 20
QUIET_S = 3600.0
"""A process that was not heard of for so long makes room for others, should there be too little."""


class Sink(Protocol):
    """A stream's place."""

    def begin(self) -> int:
        """Make room. Returns how many bytes of earlier processes are not kept any more."""

    def add(self, data: bytes) -> None:
        """Keep whole lines, about a block at most. Where this raises nobody knows whether they are kept, and the very
        same is to be given again."""

    def finish(self) -> None:
        """Nothing comes any more."""


class Files:
    """In a run's folder. Methods raise OSError.

    Args:
        run: the run's folder.
        source: whose it is.
        stream: of this process.
    """

    def __init__(self, run: Path, source: str, stream: str) -> None:
        self._run, self._source, self._stream = run, source, stream
        self._folder = run / folder_of(source, stream)
        self._blocks: list[tuple[int, int]] = []
        self._begin = self._end = 0

    def begin(self) -> int:
        gone = _outlived(self._found(), self._source)
        for each in gone:
            for name in each.names:
                with suppress(OSError):
                    (self._run / name).unlink(missing_ok=True)
            with suppress(OSError):
                (self._run / each.names[0]).parent.rmdir()
        return sum(each.bytes for each in gone)

    def add(self, data: bytes) -> None:
        if not self._run.is_dir():
            raise FileNotFoundError(errno.ENOENT, "the run's folder is not there", str(self._run))
        path = self._folder / growing_name(self._begin)
        if self._end > self._begin and not path.exists():  # it made room for others: what comes is kept again
            self._begin = self._end
            path = self._folder / growing_name(self._begin)
        if self._end == self._begin:
            self._folder.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
        try:
            os.ftruncate(file, self._end - self._begin)  # of what was kept by half
            os.lseek(file, 0, os.SEEK_END)
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(file, rest) :]
        finally:
            os.close(file)
        self._end += len(data)
        if self._end - self._begin >= BLOCK_BYTES:
            self._blocks.append((self._begin, self._end))
            self._begin = self._end
            self._forget()

    def finish(self) -> None:
        if not self._end:
            return
        last = self._folder / growing_name(self._begin, last=True)
        if self._end > self._begin:
            (self._folder / growing_name(self._begin)).rename(last)
        else:
            last.touch()

    def _forget(self) -> None:
        for block in middle(self._blocks, HEAD_BYTES, TAIL_BYTES):
            with suppress(OSError):
                (self._folder / growing_name(block[0])).unlink(missing_ok=True)
            self._blocks.remove(block)

    def _found(self) -> Iterator[tuple[Segment, float]]:
        for path in (self._run / LOGS).glob("*/*/*.log"):
            with suppress(OSError):
                state = path.stat()
                found = segment(path.relative_to(self._run).as_posix(), state.st_size)
                if found is not None:
                    yield found, max(0.0, time.time() - state.st_mtime)


class Objects:
    """In a store. Methods raise HeadwayError and OSError.

    Args:
        storage: of the run.
        source: whose it is.
        stream: of this process.
    """

    def __init__(self, storage: Storage, source: str, stream: str) -> None:
        self._storage, self._source, self._stream = storage, source, stream
        self._folder = folder_of(source, stream)
        self._blocks: list[tuple[int, int]] = []
        self._names: dict[tuple[int, int], str] = {}
        self._open = b""
        """Of the block that is not full."""
        self._begin = 0
        self._written: list[str] = []
        """Objects that hold parts of it, or may."""
        self._stale: list[str] = []
        """Objects that are to go."""

    def begin(self) -> int:
        listed = ((segment(each.name, each.bytes), each.age_s) for each in self._storage.list(LOGS))
        gone = _outlived(((each, age_s) for each, age_s in listed if each is not None), self._source)
        self._storage.delete([name for each in gone for name in each.names])
        return sum(each.bytes for each in gone)

    def add(self, data: bytes) -> None:
        whole = self._open + data
        if len(whole) >= BLOCK_BYTES or len(self._written) >= PIECES:
            before, self._open = self._open, whole
            try:
                self._close()
            except BaseException:  # raised again: it is tried again with the same
                self._open = before
                raise
        else:
            begin = self._begin + len(self._open)
            name = self._folder + fixed_name(begin, begin + len(data))
            if name not in self._written:
                self._written.append(name)  # an answer may be lost
            self._storage.put(name, data)
            self._open = whole
        self._remove()

    def finish(self) -> None:
        if self._begin or self._open:
            self._close(last=True)
        self._remove()

    def _close(self, last: bool = False) -> None:
        """Have one object for the whole block; it is done with where it is full."""
        end = self._begin + len(self._open)
        name = self._folder + fixed_name(self._begin, end, last)
        self._storage.put(name, self._open)
        self._stale += [each for each in self._written if each != name]
        self._written = [name]
        if len(self._open) < BLOCK_BYTES or last:
            return
        block = (self._begin, end)
        self._blocks.append(block)
        self._names[block] = name
        self._begin, self._open, self._written = end, b"", []
        for block in middle(self._blocks, HEAD_BYTES, TAIL_BYTES):
            self._blocks.remove(block)
            self._stale.append(self._names.pop(block))

    def _remove(self) -> None:
        """What cannot be removed now is tried again later; readers know what to do with it."""
        if self._stale:
            with suppress(HeadwayError, OSError):
                self._storage.delete(self._stale)
                self._stale = []


def _outlived(found: Iterable[tuple[Segment, float]], source: str) -> list[Kept]:
    return outlived(streams_of(found, QUIET_S), source, EARLIER_BYTES, RUN_BYTES)
