"""What was done to the files of a run's folder since they were looked at last, as a stream tells it.

Files to which lines are added are kept open, so that one that was replaced by a part of itself (`RunFolder.cut`) can be
compared with what it was, and only the cut is told. Nothing of their content is kept in memory.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from headway.runs import working_copy
from headway.runs.stream import CHUNK_BYTES, INLINE_BYTES, Append, Cut, Operation, Remove, Replace, Stored, grows
from headway.runs.working_copy import Entry

LAST_BYTES = 256
TICK_NS = 50_000_000
"""A file that was written less than this before it was read may have been written again within one tick of its time."""


@dataclass
class _Growing:
    """A file to which lines are added; `file` is it as it was when last looked at."""

    size: int
    inode: int
    changed_ns: int
    file: int | None = None
    last: bytes = b""


class Changes:
    """Args:
    folder: of the run.
    files: as they are in the store.
    object_of: the name of the object for a large file of a digest.
    """

    def __init__(self, folder: Path, files: dict[str, Entry], object_of: Callable[[str], str]) -> None:
        self._folder, self._object_of = folder, object_of
        self._unsure: set[str] = set()
        self._fixed = {name: entry for name, entry in files.items() if not grows(name)}
        self._growing = {name: self._begun(name, entry) for name, entry in files.items() if grows(name)}

    def round(self) -> Iterator[Operation]:
        """All files once. What was given counts as told. May be left in the middle, and gone on with later.

        Raises:
            OSError: the folder cannot be read.
        """
        found = set()
        for name, stat in working_copy.walk(self._folder):
            found.add(name)
            with suppress(FileNotFoundError):
                yield from self._grown(name, stat) if grows(name) else self._replaced(name, stat)
        for name in [name for name in (*self._fixed, *self._growing) if name not in found]:
            self._fixed.pop(name, None)
            gone = self._growing.pop(name, None)
            if gone is not None and gone.file is not None:
                os.close(gone.file)
            yield Remove(name)

    def files(self) -> dict[str, Entry]:
        """The files as they were told."""
        growing = {n: Entry(g.size, g.changed_ns, g.inode) for n, g in self._growing.items()}
        return {**self._fixed, **growing}

    def objects(self) -> set[str]:
        """That hold the large ones."""
        return {entry.object for entry in self._fixed.values() if entry.object}

    def again(self, name: str) -> None:
        """What was told of this file was not: it changed meanwhile."""
        entry = self._fixed.get(name)
        if entry is not None:
            self._fixed[name] = Entry(-1, 0, 0)

    def close(self) -> None:
        for growing in self._growing.values():
            if growing.file is not None:
                os.close(growing.file)
                growing.file = None

    def _begun(self, name: str, entry: Entry) -> _Growing:
        """A file as it was told before; one that was changed since is not trusted to be its continuation."""
        try:
            file = os.open(self._folder / name, os.O_RDONLY)
        except FileNotFoundError:
            return _Growing(entry.bytes, -1, 0)
        if not entry.is_still(os.fstat(file)):
            os.close(file)
            return _Growing(entry.bytes, -1, 0)
        return _Growing(entry.bytes, entry.inode, entry.changed_ns, file, _last(file, entry.bytes))

    def _replaced(self, name: str, stat: os.stat_result) -> Iterator[Operation]:
        known = self._fixed.get(name)
        if known is not None and known.is_still(stat) and name not in self._unsure:
            return
        with (self._folder / name).open("rb") as file:
            stat = os.fstat(file.fileno())
            large = stat.st_size > INLINE_BYTES
            content = b"" if large else file.read(INLINE_BYTES + 1)
            sha256 = (hashlib.file_digest(file, "sha256") if large else hashlib.sha256(content)).hexdigest()
        same = known is not None and known.sha256 == sha256
        held = known.object if known is not None and same else self._object_of(sha256) if large else ""
        if abs(time.time_ns() - stat.st_mtime_ns) < TICK_NS:
            self._unsure.add(name)
        else:
            self._unsure.discard(name)
        self._fixed[name] = Entry(stat.st_size, stat.st_mtime_ns, stat.st_ino, sha256, held)
        if same:
            return
        yield Stored(name, held, stat.st_size, sha256) if large else Replace(name, content)

    def _grown(self, name: str, stat: os.stat_result) -> Iterator[Operation]:
        known = self._growing.get(name)
        if known is not None and (known.size, known.changed_ns, known.inode) == (
            stat.st_size,
            stat.st_mtime_ns,
            stat.st_ino,
        ):
            return
        file = os.open(self._folder / name, os.O_RDONLY)
        stat = os.fstat(file)
        at = 0 if known is None else _kept(known, file, stat)
        if known is not None and known.file is not None:
            os.close(known.file)
        before = 0 if known is None else known.size
        now = self._growing[name] = _Growing(at, stat.st_ino, stat.st_mtime_ns, file)
        if at < before:
            yield Cut(name, at)
        elif known is None:
            yield Append(name, 0, b"")
        end = max(at, _whole_lines(file, stat.st_size, at))
        while now.size < end:
            content = os.pread(file, min(CHUNK_BYTES, end - now.size), now.size)
            if not content:
                return
            now.size += len(content)
            yield Append(name, now.size - len(content), content)
        now.last = _last(file, now.size)


def _last(file: int, size: int) -> bytes:
    return os.pread(file, min(LAST_BYTES, size), max(0, size - LAST_BYTES))


def _kept(known: _Growing, file: int, stat: os.stat_result) -> int:
    """How many bytes of what was told are there still, at the file's beginning."""
    if known.inode == stat.st_ino:
        return known.size if _untouched(known, file) else 0
    if known.file is None or not _untouched(known, known.file):
        return 0
    at = 0
    while at < known.size:
        size = min(CHUNK_BYTES, known.size - at)
        old, new = os.pread(known.file, size, at), os.pread(file, size, at)
        if old != new or len(new) < size:
            return at + next(
                (i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new))
            )
        at += size
    return at


def _untouched(known: _Growing, file: int) -> bool:
    """Whether a file begins with what was told of it, by the end of that."""
    return os.pread(file, len(known.last), known.size - len(known.last)) == known.last


def _whole_lines(file: int, size: int, begin: int) -> int:
    """Where the last whole line ends."""
    end = size
    while end > begin:
        start = max(begin, end - CHUNK_BYTES)
        found = os.pread(file, end - start, start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return begin
