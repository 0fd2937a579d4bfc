"""Names on a disk that change at once and stay changed: what datasets, runs and checkpoints are committed with."""

from __future__ import annotations

import os
import uuid
from contextlib import suppress
from pathlib import Path


def sync_folder(folder: Path) -> None:
    """Make a folder's entries durable, renames in it among them."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace(path: Path, content: str | bytes, mode: int = 0o666) -> None:
    """Let a file have this content: at once, whole, and for good once this has returned.

    Args:
        mode: of the file from the beginning, less what the process masks.

    Raises:
        OSError: the disk is full or gone; the file is then what it was, and nothing is left beside it.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}")
    data = content.encode() if isinstance(content, str) else content
    try:
        temporary.touch(mode, exist_ok=False)
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:  # raised again: nothing half-written stays, whatever the cause
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def take_place(folder: Path, target: Path, aside: Path) -> None:
    """Rename a folder to `target`; what has that name already goes to `aside`, and back if the rename fails.

    The caller removes `aside` when it is done. All three lie on one file system.

    Raises:
        OSError: as the file system says; `target` is then what it was.
    """
    if target.exists():
        target.rename(aside)
    try:
        folder.rename(target)
    except OSError:
        if aside.exists():
            aside.rename(target)
        raise


class Lines:
    """A file that only grows, a line at a time; a line that was not written whole is taken back.

    Args:
        path: of the file; made by the first line. One writer at a time.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: int | None = None
        self._size = 0
        """Of what was written whole."""
        self._new = False

    def append(self, data: bytes) -> None:
        """Add whole lines.

        Raises:
            OSError: the disk is full or gone; the file ends with the line before.
        """
        if self._file is None:
            self._open()
        assert self._file is not None
        try:
            written = 0
            while written < len(data):
                written += os.write(self._file, data[written:])
        except OSError:
            self._take_back()
            raise
        self._size += len(data)

    def sync(self) -> None:
        """Make what was added durable. Raises OSError."""
        if self._file is None:
            return
        os.fsync(self._file)
        if self._new:
            sync_folder(self.path.parent)
            self._new = False

    def close(self) -> None:
        """Release the file; the next line opens it again."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _open(self) -> None:
        self._new = not self.path.exists()
        self._file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        self._size = _whole_lines(self._file)
        self._take_back()

    def _take_back(self) -> None:
        """Cut a torn line off; where even that fails, the file is opened anew before the next line."""
        try:
            assert self._file is not None
            if os.fstat(self._file).st_size > self._size:
                os.ftruncate(self._file, self._size)
        except OSError:
            self.close()


def last_line(path: Path) -> bytes:
    """The last whole line of a file, without its end; empty where there is none."""
    try:
        file = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return b""
    try:
        end = _whole_lines(file)
        begin = _after_newline(file, end - 1) if end else 0
        return os.pread(file, end - begin, begin).rstrip(b"\n")
    finally:
        os.close(file)


def _whole_lines(file: int) -> int:
    """Bytes up to the end of the last whole line."""
    return _after_newline(file, os.fstat(file).st_size)


def _after_newline(file: int, end: int) -> int:
    """The place behind the last newline before `end`."""
    while end > 0:
        begin = max(0, end - 65536)
        found = os.pread(file, end - begin, begin).rfind(b"\n")
        if found >= 0:
            return begin + found + 1
        end = begin
    return 0
