"""The recorder's part of what was logged: into the run's folder, its index, and to the tracking store."""

from __future__ import annotations

import math
from base64 import b64decode
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from headway.logged import index
from headway.logged.paths import FOLDER, path_of

if TYPE_CHECKING:
    from headway.elastic.lead.scribe import Scribe
    from headway.runs import RunFolder

MOST, MOST_BYTES = 5_000, 1 << 30
"""Files of a run, and bytes in them."""


class Logged:
    """Args:
    run: whose recorder this is.
    scribe: writes.
    say: takes a line for people.
    """

    def __init__(self, run: RunFolder, scribe: Scribe, say: Callable[[str], None]) -> None:
        self._run, self._scribe, self._say = run, scribe, say
        self._there: dict[str, tuple[int, int]] | None = None
        """Step and bytes by path; None: not looked at yet."""
        self._last: float = math.inf
        """Of what starts before have left, only so many steps count."""
        self._bytes = 0
        self._full = False

    def take(self, record: dict[str, Any]) -> None:
        """One of the journal's."""
        what, name, step, content = record["thing"], record["name"], record["step"], record["content"]
        path = path_of(name, step, record["suffix"])
        if content is None:
            if path not in self._kept():  # else it was told again, by who kept only its name
                self._say(f"the {what} {name[:100]!r} of step {step} was lost: too much waited to be kept")
            return
        data = b64decode(content)
        if not self._has_room(path, step, len(data)):
            return
        about = {"step": step, "time": record["time"], "name": name, "kind": what, "path": path}
        about |= {"mime": record["mime"], "bytes": len(data), "caption": record["caption"]}
        self._scribe.file(path, data)
        self._scribe.line(FOLDER, about)
        self._scribe.track({"kind": "artifact", "path": path, "folder": path.rpartition("/")[0], "shown": what})

    def rewind(self, last: int) -> None:
        """The run goes on from after this step: what was logged later is not there any more, or soon will not be."""
        if self._there is None:
            self._last = min(self._last, last)
            return
        self._there = {path: each for path, each in self._there.items() if each[0] <= last}
        self._bytes = sum(size for _, size in self._there.values())

    def _kept(self) -> dict[str, tuple[int, int]]:
        """Looked up once: from then on all that is there has come by here, whenever it is written."""
        if self._there is None:
            before = [entry for entry in index.entries(self._run.path) if entry["step"] <= self._last]
            self._there = {entry["path"]: (entry["step"], int(entry.get("bytes", 0))) for entry in before}
            self._bytes = sum(size for _, size in self._there.values())
        return self._there

    def _has_room(self, path: str, step: int, size: int) -> bool:
        there = self._kept()
        total = self._bytes + size - there.get(path, (0, 0))[1]
        if (len(there) >= MOST and path not in there) or total > MOST_BYTES:
            if not self._full:
                self._full = True
                limits = f"{len(there):,} of them, {self._bytes / 2**20:,.0f} MiB"
                self._say(f"no more figures, texts, tables and files are kept: {limits} are there")
            return False
        there[path], self._bytes = (step, size), total
        return True
