"""A small disk for a drill's runs, so that it can be full for a while without filling anybody's real one."""

from __future__ import annotations

import os
import subprocess
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from headway.errors import BadInput

SIZE_MB = 512
_MARK, _BALLAST = ".disk-of-a-drill", ".ballast"
_MOUNT = (
    'mount -t tmpfs -o "size=$2m" none "$1" && echo ready && cat >/dev/null; '  # until its owner ends it, or is gone
    'umount -l "$1"'
)


class Disk:
    """A file system in memory, mounted on a folder for as long as its owner lives; use it as a context manager.

    What is started before it, in a mount namespace of its own, does not see it.
    """

    def __init__(self, folder: Path, size_mb: int = SIZE_MB) -> None:
        self.folder, self._size_mb = folder, size_mb
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._process = subprocess.Popen(
            ["sh", "-c", _MOUNT, "mount", str(self.folder), str(self._size_mb)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        said = self._process.stdout.readline().strip()
        if said != "ready":
            self._end()
            raise BadInput("no small disk can be mounted for the drill", said, "Run as root, or leave out `full-disk`.")
        (self.folder / _MARK).touch()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
        if self._process is not None:
            self._process.communicate()
            self._process = None


def disk_of(path: Path) -> Path | None:
    """The drill's disk on which a path lies; None where it is on somebody's real one."""
    for folder in path.absolute().parents:
        if (folder / _MARK).exists() and folder.is_mount():
            return folder
    return None


def fill(disk: Path) -> None:
    """Leave no byte free on a drill's disk."""
    with (disk / _BALLAST).open("wb") as file, suppress(OSError):
        while True:
            found = os.statvfs(disk)
            free = found.f_bavail * found.f_frsize
            os.posix_fallocate(file.fileno(), file.seek(0, os.SEEK_END), max(free, found.f_frsize))


def free(disk: Path) -> None:
    """Give the space back."""
    (disk / _BALLAST).unlink(missing_ok=True)
