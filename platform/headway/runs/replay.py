"""A run's records out of a store into a folder: what was done to its files is done again, from where the copy ends."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO

from headway.errors import BadData, BadInput
from headway.runs import working_copy
from headway.runs.head import Head, Segment
from headway.runs.stream import Append, Cut, Operation, Remove, Replace, Stored, decode, unpack
from headway.runs.working_copy import Copy, Entry
from headway.storage.protocol import Storage

READ_BYTES = 4 << 20
AHEAD = 8
"""Reads under way at once."""
WAIT_S = 60.0
OPEN = 32
"""Files to which is added that are open at once."""
REMEDY = "Nothing was guessed: put it back from a copy of the store, or go on from a copy of the run."


def bring_up_to_date(storage: Storage, now: Callable[[], Head], folder: Path, led: Callable[[], bool]) -> Head:
    """See `RemoteRun.pull`. now: asks for the head."""
    folder.mkdir(parents=True, exist_ok=True)
    with (
        working_copy.held(folder / working_copy.PULLED, WAIT_S) as alone,
        working_copy.held(folder / working_copy.MIRRORED, 0.0) as mine,
    ):
        head = now()
        if not alone:
            reason = f"another process of this machine has brought it up to date for {WAIT_S:.0f} s"
            raise BadInput(f"{folder} is in use", reason, "Wait for its end, or stop that process.")
        while mine and not led():
            try:
                _replay(storage, head, folder)
                break
            except FileNotFoundError as error:
                before, head = head, now()
                if (before.segments, before.position) == (head.segments, head.position):
                    raise BadData(f"{error} is missing", f"the head of run {head.run} names it", REMEDY) from None
        return head


def _replay(storage: Storage, head: Head, folder: Path) -> None:
    copy = working_copy.read(folder)
    fits = copy is not None and copy.id == head.id and copy.position <= head.position and copy.is_still(folder)
    if copy is None or not fits:
        working_copy.forget(folder)
        for name, _ in list(working_copy.walk(folder)):
            (folder / name).unlink()
        copy = Copy(head.id)
    elif copy.position == head.position:
        return
    working_copy.forget(folder)
    files = Files(storage, folder, dict(copy.files))
    try:
        for operation in decode(records(storage, head, copy.position)):
            files.do(operation)
        copy = Copy(head.id, head.position, files.finished())
    except ValueError as error:
        raise BadData(f"the records of {storage.url} cannot be read", str(error), REMEDY) from None
    finally:
        files.close()
    copy.write(folder)


class Files:
    """A folder's files, to which things are done. What replaces one is written at the end: most is replaced again."""

    def __init__(self, storage: Storage, folder: Path, files: dict[str, Entry]) -> None:
        self._storage, self._folder, self._files = storage, folder, files
        self._last: dict[str, Replace | Stored] = {}
        self._open: dict[str, IO[bytes]] = {}

    def do(self, operation: Operation) -> None:
        """Raises ValueError where it cannot be."""
        name = operation.name
        if isinstance(operation, Append) and name in self._last:
            raise ValueError(f"{name} is replaced, and does not grow")
        if isinstance(operation, Append):
            file = self._growing(name)
            if file.tell() != operation.at:
                raise ValueError(f"{name} has {file.tell()} bytes where {operation.at} were")
            file.write(operation.content)
            return
        self._close(name)
        self._last.pop(name, None)
        match operation:
            case Replace() | Stored():
                self._last[name] = operation
            case Cut(_, at):
                path = self._folder / name
                if not path.exists() or path.stat().st_size < at:
                    raise ValueError(f"{name} is shorter than {at} bytes")
                os.truncate(path, at)
                self._is(name)
            case Remove():
                (self._folder / name).unlink(missing_ok=True)
                self._files.pop(name, None)

    def finished(self) -> dict[str, Entry]:
        """Write and fetch what is left to be; the files."""
        for name in list(self._open):
            self._close(name)
        for name, last in self._last.items():
            path = self._folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(last, Replace):
                _whole(path, [last.content])
                self._is(name, hashlib.sha256(last.content).hexdigest())
            else:
                where = f"{self._storage.url}/{last.object}"
                _whole(path, _verified(_blocks(self._storage, last.object, last.bytes), last, where))
                self._is(name, last.sha256, last.object)
        self._last.clear()
        return self._files

    def close(self) -> None:
        for file in self._open.values():
            file.close()

    def _growing(self, name: str) -> IO[bytes]:
        file = self._open.get(name)
        if file is None:
            if len(self._open) >= OPEN:
                self._close(next(iter(self._open)))
            path = self._folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            file = self._open[name] = path.open("ab")
        return file

    def _close(self, name: str) -> None:
        file = self._open.pop(name, None)
        if file is not None:
            file.close()
            self._is(name)

    def _is(self, name: str, sha256: str = "", held: str = "") -> None:
        stat = (self._folder / name).stat()
        self._files[name] = Entry(stat.st_size, stat.st_mtime_ns, stat.st_ino, sha256, held)


def _whole(path: Path, blocks: Iterable[bytes]) -> None:
    """The file appears whole; what it was before may be read on by those who have it open."""
    temporary = path.with_name(f".{path.name}.pulled")
    with temporary.open("wb") as file:
        for block in blocks:
            file.write(block)
    temporary.replace(path)


def records(storage: Storage, head: Head, position: int) -> Iterator[bytes]:
    """The stream from a position on, in pieces.

    Raises:
        FileNotFoundError: an object is not there.
        BadData: one is damaged; it is named.
    """
    begin = 0
    wanted = []
    for segment in head.segments:
        if segment.end > position:
            wanted.append((segment, max(0, position - begin)))
        begin = segment.end
    ahead = _Ahead(storage, [segment for segment, _ in wanted])
    with ahead:
        for segment, skip in wanted:
            yield from _skipped(_segment(storage, segment, ahead.blocks(segment)), skip)
    yield head.tail[max(0, position - begin) :]


def _skipped(pieces: Iterator[bytes], skip: int) -> Iterator[bytes]:
    for piece in pieces:
        if skip < len(piece):
            yield piece[skip:]
        skip = max(0, skip - len(piece))


def _segment(storage: Storage, segment: Segment, blocks: Iterator[bytes]) -> Iterator[bytes]:
    try:
        yield from unpack(_checked(blocks, segment.sha256))
    except ValueError as error:
        fact = f"{storage.url}/{segment.name} is damaged"
        raise BadData(fact, str(error), REMEDY) from None


def _checked(blocks: Iterable[bytes], sha256: str) -> Iterator[bytes]:
    digest = hashlib.sha256()
    for block in blocks:
        digest.update(block)
        yield block
    if digest.hexdigest() != sha256:
        raise ValueError("its digest is not the one that the head tells")


def _verified(blocks: Iterator[bytes], stored: Stored, where: str) -> Iterator[bytes]:
    try:
        yield from _checked(blocks, stored.sha256)
    except ValueError as error:
        raise BadData(f"{where} is damaged", str(error), REMEDY) from None


def _blocks(storage: Storage, name: str, size: int) -> Iterator[bytes]:
    for at in range(0, size, READ_BYTES):
        yield _block(storage, name, at, min(READ_BYTES, size - at))


def _block(storage: Storage, name: str, at: int, size: int) -> bytes:
    try:
        return bytes(storage.read(name, at, size))
    except FileNotFoundError:
        raise FileNotFoundError(f"{storage.url}/{name}") from None
    except EOFError as error:
        raise BadData(f"{storage.url}/{name} is damaged", f"it is too short ({error})", REMEDY) from None


class _Ahead:
    """Segments' bytes, some reads ahead of who takes them in order."""

    def __init__(self, storage: Storage, segments: list[Segment]) -> None:
        self._storage = storage
        self._todo = deque(
            (s.name, at, min(READ_BYTES, s.bytes - at)) for s in segments for at in range(0, s.bytes, READ_BYTES)
        )
        self._going: deque[Future[bytes]] = deque()

    def __enter__(self) -> None:
        self._pool = ThreadPoolExecutor(AHEAD, thread_name_prefix="pull")

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def blocks(self, segment: Segment) -> Iterator[bytes]:
        for _ in range(0, segment.bytes, READ_BYTES):
            while self._todo and len(self._going) < AHEAD:
                self._going.append(self._pool.submit(_block, self._storage, *self._todo.popleft()))
            yield self._going.popleft().result()
