"""A folder as a storage: of one machine, or on a disk that several share (NFS).

An object is a file; it is written beside its place and linked or renamed there, so that a crash leaves nothing of it to
be seen. Writes that look before they write hold the lock (flock) of the file's folder.
"""

from __future__ import annotations

import errno
import fcntl
import os
import random
import re
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from headway.durable import sync_folder
from headway.errors import BadInput, HeadwayError
from headway.storage.protocol import Absent, Buffer, Conflict, Found, OutOfReach, named

LOCK, NEW = ".lock", ".new-"
TRIES = 100
LOCKED_S = 20.0
"""For so long a folder's lock is waited for."""
ABANDONED_S = 3600.0
"""After which a file that was never finished is a dead process's."""
_OURS = re.compile(r"\.lock|\.new-.*")
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK}
"""What a disk says that knows no second name of a file: some of memory sticks, and buckets that are mounted."""
_PASSING = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.EHOSTDOWN}
_PASSING |= {errno.ENFILE, errno.EMFILE, errno.EREMOTEIO, errno.ENOLCK, errno.EINTR, errno.ENOMEM, errno.ENODEV}


class FolderStorage:
    """`Storage` of a folder, which is made by the first write.

    Args:
        folder: where the objects are.
        top: the folder that was opened; none above it is removed when it is empty.
    """

    def __init__(self, folder: Path, top: Path | None = None) -> None:
        self.url, self._folder, self._top = str(folder), folder, top or folder

    def get(self, name: str) -> bytes:
        return self.look(name)[0]

    def look(self, name: str) -> tuple[bytes, str]:
        path = self._path(name)
        with _explained(path, "read"), path.open("rb") as file:
            content = file.read()
            return content, _version(os.fstat(file.fileno()))

    def read(self, name: str, offset: int, length: int) -> Buffer:
        path = self._path(name)
        with _explained(path, "read"):
            descriptor = os.open(path, os.O_RDONLY)
            try:
                content = bytearray(length)
                view, at = memoryview(content), 0
                while at < length and (count := os.preadv(descriptor, [view[at:]], offset + at)):
                    at += count
                if at < length:
                    raise EOFError(f"{path} ends before byte {offset + length}")
                return content
            finally:
                os.close(descriptor)

    def put(self, name: str, content: Buffer, only_if: Absent | str | None = None) -> str:
        return self._write(name, [content], only_if)[1]

    def upload(self, name: str, blocks: Iterable[Buffer]) -> int:
        return self._write(name, blocks, None)[0]

    def folders(self, prefix: str = "") -> list[str]:
        where = self._folder / prefix
        with _explained(where, "listed", absent=None):
            try:
                entries = list(os.scandir(where))
            except (FileNotFoundError, NotADirectoryError):
                return []
            found = sorted(entry.name for entry in entries if entry.is_dir())
            return [name for name in found if next(_walk(where, name), None) is not None]

    def list(self, prefix: str = "") -> list[Found]:
        now, found = time.time(), []
        with _explained(self._folder, "listed", absent=None):
            for name, entry in _walk(self._folder, prefix.rpartition("/")[0]):
                if name.startswith(prefix):
                    with suppress(FileNotFoundError):  # removed meanwhile
                        state = entry.stat()
                        age_s = max(0.0, now - state.st_mtime)
                        found.append(Found(name, state.st_size, _version(state), age_s))
        return sorted(found, key=lambda each: each.name)

    def delete(self, names: Sequence[str]) -> None:
        for name in names:
            path = self._path(name)
            with _explained(path, "removed", absent=None):
                if not path.parent.is_dir():
                    continue
                with self._locked(path.parent, make=False):
                    path.unlink(missing_ok=True)
                self._prune(path.parent)

    def at(self, prefix: str) -> FolderStorage:
        return FolderStorage(self._folder / prefix, self._top)

    def close(self) -> None:
        return

    def _path(self, name: str) -> Path:
        if _OURS.fullmatch(named(name).rpartition("/")[2]):
            raise ValueError(f"{name!r} is what a folder keeps for itself")
        return self._folder / name

    def _write(self, name: str, blocks: Iterable[Buffer], only_if: Absent | str | None) -> tuple[int, str]:
        """Write a file beside its place, then put it there if it may be; returns its bytes and its version."""
        path = self._path(name)
        temporary, size, written = self._beside(path), 0, False
        try:
            with _explained(path, "written", absent=None):
                descriptor = self._create(temporary)
            try:
                for block in blocks:  # whose errors are the caller's own
                    with _explained(path, "written", absent=None):
                        size += _write_all(descriptor, block)
                with _explained(path, "written", absent=None):
                    now = time.time_ns()  # the kernel's own mark of time is coarse: two writes may have one
                    os.utime(descriptor, ns=(now, now))
                    os.fsync(descriptor)
                    version = _version(os.fstat(descriptor))
            finally:
                os.close(descriptor)
            with _explained(path, "written", absent=None):
                self._place(temporary, path, only_if)
            written = True
            return size, version
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            if not written:
                self._prune(path.parent)

    def _place(self, temporary: Path, path: Path, only_if: Absent | str | None) -> None:
        with self._locked(path.parent):
            if isinstance(only_if, Absent):
                try:
                    os.link(temporary, path)
                except FileExistsError:
                    raise Conflict(f"{path} is there already") from None
                except OSError as error:
                    if error.errno not in _NO_LINKS:
                        raise
                    if path.exists():  # nobody else writes, for the folder is locked
                        raise Conflict(f"{path} is there already") from None
                    temporary.rename(path)
            else:
                if only_if is not None and _now(path) != only_if:
                    raise Conflict(f"{path} is not the version that was read")
                temporary.replace(path)
            sync_folder(path.parent)

    def _beside(self, path: Path) -> Path:
        return path.with_name(f"{NEW}{os.getpid()}-{uuid.uuid4().hex[:12]}")

    def _create(self, temporary: Path) -> int:
        for tries_left in reversed(range(TRIES)):
            self._make(temporary.parent)
            try:
                return os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
            except FileNotFoundError:  # somebody found the folder empty, and removed it
                if not tries_left:
                    raise
        raise AssertionError

    def _make(self, folder: Path) -> None:
        """Make a folder and those above it, for good."""
        if folder.is_dir():
            return
        self._make(folder.parent)
        with suppress(FileExistsError, FileNotFoundError):  # the latter: see `_create`, which tries again
            folder.mkdir()
            sync_folder(folder.parent)

    @contextmanager
    def _locked(self, folder: Path, make: bool = True) -> Iterator[None]:
        """Be the only one, of all processes, who looks and then writes in the folder."""
        while True:
            try:
                descriptor = os.open(folder / LOCK, os.O_CREAT | os.O_RDWR, 0o644)
            except FileNotFoundError:
                if not make:
                    yield  # there is no such folder any more, and nothing in it
                    return
                self._make(folder)
                continue
            try:
                _lock(descriptor, folder / LOCK)
                if _is_at(descriptor, folder / LOCK):  # else it was removed with the folder
                    yield
                    return
            finally:
                os.close(descriptor)

    def _prune(self, folder: Path) -> None:
        """Remove folders that hold nothing, as they are not there in an object store either."""
        while folder != self._top and self._top in folder.parents:
            with suppress(OSError):  # gone, or not empty, or in use: all are well
                if _left(folder) is None:
                    return
                with self._locked(folder, make=False):
                    left = _left(folder)
                    if left is None:
                        return
                    for path in left:
                        path.unlink(missing_ok=True)
                    (folder / LOCK).unlink(missing_ok=True)
                folder.rmdir()
            folder = folder.parent


def _lock(descriptor: int, path: Path) -> None:
    """Wait for a lock, but not for ever: whoever holds it may be stopped."""
    deadline, pause_s = time.monotonic() + LOCKED_S, 0.0005
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                reason = f"another process has held its lock for {LOCKED_S:g} s"
                remedy = "See whether that one is stopped."
                raise OutOfReach(f"{path.parent} cannot be written", reason, remedy) from None
        time.sleep(pause_s * random.uniform(0.5, 1.0))
        pause_s = min(0.01, 2 * pause_s)


def _left(folder: Path) -> list[Path] | None:
    """What the dead have left in a folder; None if anything else is in it, but its lock."""
    old = time.time() - ABANDONED_S
    with os.scandir(folder) as entries:
        others = [entry for entry in entries if entry.name != LOCK]
        if any(not entry.name.startswith(NEW) or entry.stat().st_mtime > old for entry in others):
            return None
    return [Path(entry.path) for entry in others]


def _write_all(descriptor: int, block: Buffer) -> int:
    view = memoryview(block)
    if not view.nbytes:
        return 0
    view = view.cast("B")
    at = 0
    while at < len(view):
        at += os.write(descriptor, view[at:])
    return at


def _version(state: os.stat_result) -> str:
    return f"{state.st_mtime_ns:x}-{state.st_size:x}-{state.st_ino:x}"


def _now(path: Path) -> str | None:
    """The version that is there; opened, so that a network's disk asks its server."""
    try:
        with path.open("rb") as file:
            return _version(os.fstat(file.fileno()))
    except FileNotFoundError:
        return None


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _walk(folder: Path, below: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Files in the folder `below` and in those in it, by their names."""
    try:
        with os.scandir(folder / below) as entries:
            found = list(entries)
    except (FileNotFoundError, NotADirectoryError):
        return
    for entry in found:
        name = f"{below}/{entry.name}" if below else entry.name
        if entry.is_dir():
            yield from _walk(folder, name)
        elif not _OURS.fullmatch(entry.name):
            yield name, entry


@contextmanager
def _explained(path: Path, verb: str, absent: type[OSError] | None = FileNotFoundError) -> Iterator[None]:
    """Errors of the disk as errors of a storage."""
    try:
        yield
    except HeadwayError:
        raise
    except OSError as error:
        if absent is not None and isinstance(error, FileNotFoundError | IsADirectoryError | NotADirectoryError):
            raise absent(str(path)) from None
        reason = error.strerror or str(error)
        if error.errno in _PASSING:
            remedy = "Make room on that disk." if error.errno in (errno.ENOSPC, errno.EDQUOT) else "Check the disk."
            raise OutOfReach(f"{path} cannot be {verb}", reason, remedy) from None
        raise BadInput(f"{path} cannot be {verb}", reason, "Give a folder that can be read and written.") from None
