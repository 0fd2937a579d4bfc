"""A run's commits as seen from outside, independently of what the run says of itself."""

from __future__ import annotations

import json
import os
from collections import Counter
from contextlib import suppress
from pathlib import Path


class Follower:
    """Reads what is new in a run's steps.jsonl, which the recorder may cut back when it falls back to a checkpoint.

    Args:
        path: of the file; it may come into being later.
    """

    def __init__(self, path: Path) -> None:
        self.newest = -1
        self.repeated: Counter[int] = Counter()
        self._path, self._inode, self._offset = path, 0, 0
        self._times: dict[int, float] = {}

    def look(self) -> int:
        """The newest step that is known to be committed, -1 before the first. `repeated` counts further commits."""
        with suppress(FileNotFoundError), self._path.open("rb") as file:
            found = os.fstat(file.fileno())
            if found.st_ino != self._inode or found.st_size < self._offset:
                self._inode, self._offset, self.newest = found.st_ino, 0, -1
            if found.st_size > self._offset:
                file.seek(self._offset)
                whole = file.read().rpartition(b"\n")[0]
                self._offset += len(whole) + 1 if whole else 0
                for line in whole.splitlines():
                    self._take(json.loads(line))
        return self.newest

    def _take(self, step: dict[str, float]) -> None:
        number = int(step["step"])
        if self._times.get(number, step["time"]) != step["time"]:
            self.repeated[number] += 1
        self._times[number], self.newest = step["time"], number
