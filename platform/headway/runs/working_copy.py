"""The working copy of a run that lives in a store: an ordinary folder of a run on this machine.

.copy.json     what it is a copy of; there only while it is one, and nobody writes to it
.mirror.lock   held by the process that ships what is written to it
.pull.lock     held while it is brought up to date
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from stat import S_ISREG

from headway.durable import replace
from headway.locks import taken
from headway.runs.stream import ELSEWHERE, is_record

MARK = ".copy.json"
MIRRORED = ".mirror.lock"
PULLED = ".pull.lock"


@dataclass(frozen=True)
class Entry:
    """A file of the copy, as it is in the store.

    Args:
        bytes, changed_ns, inode: by which it is seen that nobody wrote to it.
        sha256: of its content; empty for one that grows.
        object: that holds it, where it is large.
    """

    bytes: int
    changed_ns: int
    inode: int
    sha256: str = ""
    object: str = ""

    def is_still(self, stat: os.stat_result) -> bool:
        return (self.bytes, self.changed_ns, self.inode) == (stat.st_size, stat.st_mtime_ns, stat.st_ino)


@dataclass
class Copy:
    """What a working copy is of: a run's stream up to a position, and the files that this gives."""

    id: str
    position: int = 0
    files: dict[str, Entry] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Raises OSError."""
        replace(folder / MARK, json.dumps(asdict(self)))

    def is_still(self, folder: Path) -> bool:
        """Whether the folder has these files, untouched."""
        found = dict(walk(folder))
        if found.keys() != self.files.keys():
            return False
        return all(self.files[name].is_still(stat) for name, stat in found.items())


def read(folder: Path) -> Copy | None:
    """What the folder is a copy of, if it says so."""
    try:
        tree = json.loads((folder / MARK).read_text(encoding="utf-8"))
        return Copy(tree["id"], tree["position"], {name: Entry(**entry) for name, entry in tree["files"].items()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def forget(folder: Path) -> None:
    """It is going to be something else."""
    (folder / MARK).unlink(missing_ok=True)


def walk(folder: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Files that are records, by their path in the folder, sorted; what is gone meanwhile is left out."""
    for root, folders, files in os.walk(folder):
        here = Path(root).relative_to(folder)
        if root == str(folder):
            folders[:] = [name for name in folders if name not in ELSEWHERE]
        folders[:] = sorted(name for name in folders if is_record((here / name).as_posix()))
        for name in sorted(files):
            path = (here / name).as_posix()
            if is_record(path):
                with suppress(FileNotFoundError):
                    stat = os.stat(folder / path, follow_symlinks=False)  # noqa: PTH116 - of what walk found
                    if S_ISREG(stat.st_mode):
                        yield path, stat


@contextmanager
def held(path: Path, timeout_s: float) -> Iterator[bool]:
    """A lock of this machine's; gives whether it was had within the time."""
    with path.open("a") as file:
        yield taken(file, timeout_s)


def hold(folder: Path, timeout_s: float) -> int | None:
    """The right to write to the copy, until the descriptor is closed; None where another process has it."""
    file = os.open(folder / MIRRORED, os.O_RDWR | os.O_CREAT, 0o644)
    if taken(file, timeout_s):
        return file
    os.close(file)
    return None
