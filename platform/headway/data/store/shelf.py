"""The folder in which a node's workers keep row groups of object stores, together and within one limit of bytes.

    members/ID.lock       locked (flock) by a reader while it lives; the kernel lets go of it whatever kills the reader
    members/ID.next       which dataset it reads, how much of its list it has taken, and the list of row groups
    room.lock             locked to make room: one decides at a time; holds the bytes that are taken
    DIGEST/GROUP-BYTES.parquet          a row group, kept; locked (shared) by those who read it
    DIGEST/GROUP-BYTES.ID.part          one that is being written by ID
    DIGEST/GROUP-BYTES.ID.once          one that ID reads without keeping it
    DIGEST/footers/SHARD                the footer of a shard
    DIGEST/locks/NUMBER                 locked while a row group with that number (modulo) is brought

Names tell the bytes, so that the account is mended by listing names alone. Nothing is synced to the disk: whoever takes
a kept row group compares its digest.
"""

from __future__ import annotations

import fcntl
import os
import re
import struct
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import numpy as np

from headway.core.eviction import ABANDONED, UNANNOUNCED, Entry, next_uses, removable
from headway.core.order import Rows
from headway.errors import BadInput

LOCKS = 512
SLACK, MOST_SLACK = 64, 64 << 20
"""A full shelf is emptied by a 64th, but no more than 64 MiB, so that it is not listed for each newcomer."""
_DATASET = re.compile("[0-9a-f]{32}")
_NAME = re.compile(r"(?P<group>[0-9]{8})-(?P<bytes>[0-9]+)\.((?P<owner>[0-9]+-[0-9a-f]{8})\.)?(parquet|part|once)")
_HEAD = struct.Struct("<32sq")  # of ID.next: the dataset, and how many of the list's first have been taken


def usual_folder() -> Path:
    """Where row groups are kept when the job does not say: one folder per user of the machine.

    Raises:
        BadInput: somebody else has made it, who could change what is in it.
    """
    folder = Path(tempfile.gettempdir()) / f"headway-cache-{os.getuid()}"
    if os.path.lexists(folder) and folder.lstat().st_uid != os.getuid():
        raise BadInput(f"{folder} cannot be used", "it belongs to another user", "Give data.cache.folder.")
    return folder


@dataclass(frozen=True)
class _File:
    """What a file's name says. `owner` is empty for what is kept."""

    dataset: str
    name: str
    bytes: int
    group: int
    owner: str


class Shelf:
    """One reader's hand on the shared folder; a member of it from `join` to `leave`. For many threads.

    Args:
        folder: shared by the node's workers.
        limit: bytes kept at most, of all datasets together. What is in use stays whatever it comes to.
        dataset: digest of the manifest.
    """

    def __init__(self, folder: Path, limit: int, dataset: str) -> None:
        self.folder, self.limit, self.dataset = folder, limit, dataset[:32]
        self.place = folder / self.dataset
        self.member = ""
        self._members = folder / "members"
        self._life = self._next = -1
        self._writing = Lock()

    def join(self) -> None:
        """Make the folders where they are not there, sweep what the dead have left, and become a member.

        Raises:
            BadInput: the folder cannot be used.
        """
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for folder in (self._members, self.place, self.place / "footers", self.place / "locks"):
                folder.mkdir(exist_ok=True)
            with self._room() as room:
                self._count(room)
                self.member = f"{os.getpid()}-{os.urandom(4).hex()}"
                self._life = _locked(self._members / f"{self.member}.lock", os.O_CREAT | os.O_EXCL)
            self.announce([])
        except OSError as error:
            raise self._unusable(error) from None

    def leave(self) -> None:
        """Be no member any more; what is kept stays for others."""
        for path in (self._members / f"{self.member}.next", self._members / f"{self.member}.lock"):
            path.unlink(missing_ok=True)
        for descriptor in (self._life, self._next):
            if descriptor >= 0:
                os.close(descriptor)
        self._life = self._next = -1

    def announce(self, groups: Sequence[int]) -> None:
        """Tell the others which row groups this member will need, the soonest first."""
        path = self._members / f"{self.member}.next"
        new = path.with_suffix(".new")
        content = _HEAD.pack(self.dataset.encode(), 0) + np.asarray(groups, dtype="<i4").tobytes()
        descriptor = os.open(new, os.O_CREAT | os.O_TRUNC | os.O_RDWR, 0o600)
        os.write(descriptor, content)
        new.rename(path)
        previous, self._next = self._next, descriptor
        if previous >= 0:
            os.close(previous)

    def taken(self, count: int) -> None:
        """The first `count` of the announced row groups are behind this member."""
        os.pwrite(self._next, struct.pack("<q", count), _HEAD.size - 8)

    def kept(self, group: int, size: int) -> Path:
        """Where a row group of so many bytes is kept, if it is."""
        return self.place / f"{group:08d}-{size}.parquet"

    def unkept(self, group: int, size: int) -> Path:
        """Where this member has a row group that it reads without keeping it."""
        return self.place / f"{group:08d}-{size}.{self.member}.once"

    @contextmanager
    def sole(self, group: int, patience_s: float, enough: Callable[[], bool]) -> Iterator[None]:
        """Be the only one on this node who brings the row group.

        After `patience_s`, or once there is `enough`, not any more: whoever brings it may be stopped, and to bring it
        twice is better than to wait for ever.
        """
        descriptor = os.open(self.place / "locks" / str(group % LOCKS), os.O_CREAT | os.O_RDWR, 0o600)
        try:
            deadline, pause_s = time.monotonic() + patience_s, 0.001
            while not _try_lock(descriptor, fcntl.LOCK_EX) and not enough() and time.monotonic() < deadline:
                time.sleep(pause_s)
                pause_s = min(0.02, 2 * pause_s)
            yield
        finally:
            os.close(descriptor)

    def footer(self, shard: str) -> bytes | None:
        """A shard's footer, if it is kept."""
        with suppress(FileNotFoundError):
            return (self.place / "footers" / shard).read_bytes()
        return None

    def keep_footer(self, shard: str, content: bytes) -> None:
        """Keep a shard's footer, for good: footers are small, and not in the account."""
        part = self.place / f"{0:08d}-0.{self.member}.part"
        with self._writing:
            part.write_bytes(content)
            part.rename(self.place / "footers" / shard)

    def make_room(self, group: int, size: int, next_use: float) -> Path | None:
        """Take so many bytes for a row group that is needed at `next_use`, removing what is needed later.

        Returns:
            The file to write it into, which is there and empty; None where all that is kept is needed no later.
        """
        part = self.place / f"{group:08d}-{size}.{self.member}.part"
        with self._room() as room:
            held = _read(room)
            if held is None or held + size > self.limit:
                held = self._remove_for(self._files(), size, next_use)
                if held is None:
                    return None
            part.touch(0o600)
            _write(room, held + size)
        return part

    def give_back(self, path: Path, size: int, descriptor: int | None = None) -> None:
        """Remove a file that took so many bytes of the room; with a descriptor, only if it is still that file."""
        with self._room() as room:
            if not path.exists() or (descriptor is not None and not _is_at(descriptor, path)):
                return
            path.unlink()
            held = _read(room)
            if held is not None:
                _write(room, max(0, held - size))

    def held(self) -> int:
        """Bytes that are taken, counted anew."""
        with self._room() as room:
            return self._count(room)

    def _remove_for(self, files: list[_File], size: int, next_use: float) -> int | None:
        """Make room for so many bytes, or remove nothing; returns the bytes that are then taken."""
        held = sum(file.bytes for file in files)
        excess = held + size - self.limit
        slack = min(self.limit // SLACK, MOST_SLACK)
        locks, gone = [], []
        try:
            for entry in removable(self._entries(files), next_use) if excess > 0 else ():
                descriptor = os.open(self.folder / entry.name, os.O_RDWR)
                locks.append(descriptor)
                if _try_lock(descriptor, fcntl.LOCK_EX):  # else somebody reads it
                    gone.append((descriptor, self.folder / entry.name))
                    excess -= entry.bytes
                    held -= entry.bytes
                if excess + slack <= 0:
                    break
            if excess > 0:
                return None
            for descriptor, path in gone:
                if _is_at(descriptor, path):
                    path.unlink()
            return held
        finally:
            for descriptor in locks:
                os.close(descriptor)

    def _entries(self, files: list[_File]) -> list[Entry]:
        announced: dict[str, list[Rows]] = {}
        for path in self._members.glob("*.next"):
            with suppress(FileNotFoundError):  # its owner has left
                content = path.read_bytes()
                if len(content) < _HEAD.size:  # its owner ended as it made it
                    continue
                dataset, taken = _HEAD.unpack_from(content)
                groups = np.frombuffer(content, "<i4", offset=_HEAD.size)[taken:].astype(np.int64)
                announced.setdefault(dataset.decode(), []).append(groups)
        uses = {dataset: next_uses(lists) for dataset, lists in announced.items()}
        entries = []
        for file in files:
            if file.owner:
                continue
            soonest = ABANDONED
            if file.dataset in uses:
                known = uses[file.dataset]
                soonest = float(known[file.group]) if file.group < len(known) else UNANNOUNCED
            name = f"{file.dataset}/{file.name}"
            entries.append(Entry(name, file.bytes, soonest, (self.folder / name).stat().st_mtime))
        return entries

    def _count(self, room: int) -> int:
        held = sum(file.bytes for file in self._files())
        _write(room, held)
        return held

    def _files(self) -> list[_File]:
        """All that takes room, after sweeping what dead members have left."""
        living = self._living()
        files = []
        for folder in (path for path in self.folder.iterdir() if _DATASET.fullmatch(path.name)):
            with os.scandir(folder) as found:
                named = [match for entry in found if (match := _NAME.fullmatch(entry.name))]
            for name in named:
                owner = name["owner"] or ""
                if owner and owner not in living:
                    (folder / name[0]).unlink(missing_ok=True)
                else:
                    files.append(_File(folder.name, name[0], int(name["bytes"]), int(name["group"]), owner))
        return files

    def _living(self) -> set[str]:
        living = {self.member}
        for lock in self._members.glob("*.lock"):
            if lock.stem == self.member:
                continue
            with suppress(FileNotFoundError):
                descriptor = os.open(lock, os.O_RDWR)
                try:
                    if _try_lock(descriptor, fcntl.LOCK_EX):
                        for ending in (".next", ".new", ".lock"):
                            lock.with_suffix(ending).unlink(missing_ok=True)
                    else:
                        living.add(lock.stem)
                finally:
                    os.close(descriptor)
        return living

    @contextmanager
    def _room(self) -> Iterator[int]:
        descriptor = os.open(self.folder / "room.lock", os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield descriptor
        finally:
            os.close(descriptor)

    def _unusable(self, error: OSError) -> BadInput:
        reason = error.strerror or str(error)
        return BadInput(f"data.cache.folder={self.folder} cannot be used", reason, "Give a folder on a local disk.")


def _locked(path: Path, flags: int) -> int:
    descriptor = os.open(path, flags | os.O_RDWR, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    return descriptor


def _try_lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether an open file is the one that has this name."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def share(path: Path) -> int | None:
    """A descriptor of a kept file, locked so that nobody removes it until it is closed; None where it is gone."""
    try:
        descriptor = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return None
    if _try_lock(descriptor, fcntl.LOCK_SH) and os.fstat(descriptor).st_nlink:
        return descriptor
    os.close(descriptor)
    return None


def _read(room: int) -> int | None:
    content = os.pread(room, 8, 0)
    return struct.unpack("<q", content)[0] if len(content) == 8 else None


def _write(room: int, held: int) -> None:
    os.pwrite(room, struct.pack("<q", held), 0)
