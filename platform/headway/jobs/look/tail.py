"""A file of lines that grows, read on from where it was read last."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO

PLACES = 600
"""Of a long file that was not read yet: so many lines of it, evenly spread, stand for what lies before its end."""
END_BYTES = 256 << 10


class Tail:
    """Whole lines of a file that another process writes. One that was made anew (a run that goes back some steps) is
    read from its beginning.

    Args:
        path: of the file, which may not be there yet.
        sparse: of a file that is long when it is read first, only some lines before the last ones are given.
    """

    def __init__(self, path: Path, sparse: bool = False) -> None:
        self._path, self._sparse = path, sparse
        self._at = 0
        self._file: int | None = None
        self.anew = False
        """Whether what `more` gave last replaces what it gave before."""

    def more(self) -> list[bytes]:
        """Lines that were added since."""
        self.anew = False
        try:
            with self._path.open("rb") as file:
                stat = os.fstat(file.fileno())
                if self._file not in (None, stat.st_ino) or stat.st_size < self._at:
                    self._at, self.anew = 0, True
                self._file = stat.st_ino
                found: list[bytes] = []
                if self._sparse and not self._at and stat.st_size > 2 * END_BYTES:
                    found, self._at = _spread(file, stat.st_size - END_BYTES)
                file.seek(self._at)
                content = file.read()
        except OSError:  # it is not there yet, or its disk does not answer: it is read on another time
            return []
        whole = content[: content.rfind(b"\n") + 1]
        self._at += len(whole)
        return found + whole.splitlines()


def _spread(file: IO[bytes], size: int) -> tuple[list[bytes], int]:
    """Lines that are spread over the first so many bytes, and where the line begins that follows these."""
    found = [file.readline()]
    for number in range(1, PLACES):
        file.seek(max(file.tell(), size * number // PLACES))
        file.readline()  # the rest of a line
        if file.tell() < size:
            found.append(file.readline())
    file.seek(max(file.tell(), size))
    file.readline()
    return found, file.tell()
