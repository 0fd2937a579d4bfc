"""What a prepare has done so far, kept beside what it writes, so that after a crash it goes on, not begins anew.

The work lies in a hidden folder beside the destination: `data/` becomes the dataset, `work/` holds the journal and what
is spilled. The folder's name holds a digest of source and options, so only the same command goes on with it. Nothing is
trusted because the journal says so: what lies on the disk is held against the digests in it, since a crash of the
machine may keep the one and lose the other.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from xxhash import xxh3_64

from headway.data.write.writer import writing
from headway.errors import BadInput, RunFailed

LOCK = "lock"
NOTED_BYTES = 32 << 20
Record = dict[str, Any]


class Journal:
    """Records in the order in which they were noted, one JSON line each. A torn last line never happened.

    `records` are those of an earlier process: a long work's own would fill the memory.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.records = self._read()
        self._rewrite(self.records)

    def drop(self, unwanted: Callable[[Record], bool]) -> None:
        """Take records away."""
        self._rewrite([record for record in self._read() if not unwanted(record)])
        self.records = [record for record in self.records if not unwanted(record)]

    def _read(self) -> list[Record]:
        found: list[Record] = []
        lines = self._path.read_bytes().split(b"\n") if self._path.exists() else []
        for line in lines:
            try:
                found.append(json.loads(line))
            except ValueError:
                break
        return found

    def _rewrite(self, records: list[Record]) -> None:
        temporary = self._path.with_suffix(".new")
        temporary.write_text("".join(json.dumps(record) + "\n" for record in records))
        temporary.rename(self._path)

    def note(self, kind: str, **values: Any) -> None:
        """Add a record."""
        with self._path.open("a") as file:
            file.write(json.dumps({"kind": kind, **values}) + "\n")

    def of(self, kind: str, **values: Any) -> list[Record]:
        """The records of a kind with these values."""
        wanted = {"kind": kind, **values}
        return [record for record in self.records if wanted.items() <= record.items()]


class Spill:
    """Bytes sorted into numbered files, gone on with after a crash behind the last piece that was whole.

    Args:
        folder: of the files.
        count: of files.
        journal: to note in.
        kind: of its records.
    """

    def __init__(self, folder: Path, count: int, journal: Journal, kind: str) -> None:
        self._folder, self._journal, self._kind = folder, journal, kind
        folder.mkdir(parents=True, exist_ok=True)
        self.sizes = [0] * count
        self._digests = [xxh3_64() for _ in range(count)]
        self._unnoted = 0
        noted = journal.of(kind)
        self.pieces = noted[-1]["piece"] + 1 if noted and self._restored(noted[-1]) else 0
        """Pieces that are whole on the disk."""
        if not self.pieces:
            self._begin_anew()

    def path(self, index: int) -> Path:
        return self._folder / f"{index:05d}"

    def add(self, index: int, data: Any) -> None:
        """Write at the end of a file."""
        with self.path(index).open("ab") as file:
            file.write(data)
        self._digests[index].update(data)
        self.sizes[index] += len(data)
        self._unnoted += len(data)

    def done(self, piece: int, last: bool = False) -> None:
        """All of a piece has been added. Noted only now and then: the notes of many files are long."""
        if self._unnoted < NOTED_BYTES and not last:
            return
        self._unnoted = 0
        digests = [digest.hexdigest() for digest in self._digests]
        self._journal.note(self._kind, piece=piece, sizes=list(self.sizes), digests=digests)

    def _restored(self, noted: Record) -> bool:
        for index, (size, digest) in enumerate(zip(noted["sizes"], noted["digests"], strict=True)):
            path = self.path(index)
            if size and not path.exists():
                return False
            if path.exists():
                os.truncate(path, min(size, path.stat().st_size))
                with path.open("rb") as file:
                    while data := file.read(1 << 20):
                        self._digests[index].update(data)
            if self._digests[index].hexdigest() != digest:
                return False
            self.sizes[index] = size
        return True

    def _begin_anew(self) -> None:
        shutil.rmtree(self._folder)
        self._folder.mkdir()
        self.sizes = [0] * len(self.sizes)
        self._digests = [xxh3_64() for _ in self.sizes]
        self._journal.drop(lambda record: record["kind"] == self._kind)


class Workplace:
    """Where one prepare works.

    Args:
        folder: hidden, beside the destination.
    """

    def __init__(self, folder: Path) -> None:
        self.data, self.work = folder / "data", folder / "work"
        self._open()

    def clear(self) -> None:
        """Begin anew."""
        shutil.rmtree(self.data)
        shutil.rmtree(self.work)
        self._open()

    def _open(self) -> None:
        for made in (self.data, self.work):
            made.mkdir(exist_ok=True)
        self.journal = Journal(self.work / "journal.jsonl")
        self.complete = bool(self.journal.of("complete"))
        """Whether all is written, and only to be published."""

    def finish(self) -> None:
        """All is written."""
        self.journal.note("complete")
        self.complete = True


@contextmanager
def workplace(destination: Path, identity: str) -> Iterator[Workplace]:
    """The place for a command's work, as it was left. It is removed at the end, unless that is an interruption; a
    failure that may pass says that the work is gone on with.

    Args:
        destination: of the dataset.
        identity: hex digest of all that the result depends on.

    Raises:
        BadInput: another prepare is at work on this destination, or the disk refuses.
    """
    folder = destination.parent / f".{destination.name}.{identity[:16]}.partial"
    with writing(destination):
        destination.parent.mkdir(parents=True, exist_ok=True)
        theirs = re.compile(rf"\.{re.escape(destination.name)}\.[0-9a-f]{{16}}\.partial")
        for other in [path for path in destination.parent.iterdir() if theirs.fullmatch(path.name)]:
            if other != folder and (other / LOCK).exists():
                with _locked(other, destination):
                    shutil.rmtree(other, ignore_errors=True)
        folder.mkdir(exist_ok=True)
        with _locked(folder, destination):
            place = Workplace(folder)
            try:
                yield place
            except Exception as error:
                # What is complete may be half published, and the same command must find it.
                if isinstance(error, BadInput | OSError) and not place.complete:
                    shutil.rmtree(folder, ignore_errors=True)
                elif isinstance(error, RunFailed) and error.passes:
                    error.remedy = f"{error.remedy} The same command goes on where this one ended.".lstrip()
                raise
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _locked(folder: Path, destination: Path) -> Iterator[None]:
    """The kernel drops the lock with the process, however that ends."""
    with (folder / LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            fact = f"{destination} is being prepared"
            raise BadInput(fact, f"another process works in {folder}", "Wait for it, or end it.") from None
        yield
