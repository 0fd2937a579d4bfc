"""The recorder's part of what was logged: into the run's folder, its index, and to the tracking store."""

from __future__ import annotations

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
        self._there: dict[str, int] | None = None
        """Bytes by path; None: not looked at yet."""
        self._bytes = 0
        self._full = False

    def take(self, record: dict[str, Any]) -> None:
        """One of the journal's."""
        what, name, step, content = record["thing"], record["name"], record["step"], record["content"]
        if content is None:
            self._say(f"the {what} {name[:100]!r} of step {step} was lost: too much waited to be kept")
            return
        data, path = b64decode(content), path_of(name, step, record["suffix"])
        if not self._has_room(path, len(data)):
            return
        about = {"step": step, "time": record["time"], "name": name, "kind": what, "path": path}
        about |= {"mime": record["mime"], "bytes": len(data), "caption": record["caption"]}
        self._scribe.file(path, data)
        self._scribe.line(FOLDER, about)
        self._scribe.track({"kind": "artifact", "path": path, "folder": path.rpartition("/")[0], "shown": what})

    def cut(self) -> None:
        """What is there is to be looked at again: the run went on from before."""
        self._there = None

    def _has_room(self, path: str, size: int) -> bool:
        if self._there is None:
            self._there = {entry["path"]: int(entry.get("bytes", 0)) for entry in index.entries(self._run.path)}
            self._bytes = sum(self._there.values())
        total = self._bytes + size - self._there.get(path, 0)
        if (len(self._there) >= MOST and path not in self._there) or total > MOST_BYTES:
            if not self._full:
                self._full = True
                limits = f"{len(self._there):,} of them, {self._bytes / 2**20:,.0f} MiB"
                self._say(f"no more figures, texts, tables and files are kept: {limits} are there")
            return False
        self._there[path], self._bytes = size, total
        return True
