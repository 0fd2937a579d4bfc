"""The spool of a run: an append-only file of JSON lines that holds every event until MLflow has it, and afterwards.

One event is one line, a mapping with `kind` and, added when missing, `time` (unix seconds):

    {"kind": "run", "job": {...}, "datasets": [{"context": "train", "name", "digest", "rows", "path", "schema"}, ...],
     "environment": {...}}                          once at every start and resume; besides, where there are such:
                                                    "tags": {...}, and see `headway.tracking.lineage`: "key", "parent"
    {"kind": "points", "step": 20, "values": {"loss": 0.4, "lr": 0.01, "samples_per_s": 912.0}}
    {"kind": "checkpoint", "step": 200, "path": "...", "bytes": 123, "metrics": {"loss": 0.3}, "measured": 1790.5}
                                                    measured: when the metrics were, which are points of that time;
                                                    "held": points that were not drawn so far, for a start after a kill
    {"kind": "state", "state": "running" | "finished" | "stopped" | "interrupted" | "failed", "message": "...",
     "cause": "task" | "platform", where it failed}
    {"kind": "artifact", "path": "report.json"}      a file of the run's folder (or an absolute path) to keep in MLflow,
                                                    under "folder" there, where one is named; of one that the task
                                                    logged, "shown" says what it is: figure, text, table, artifact

Steps of one metric rise; a step that comes again (a resumed run that replays) is kept here and not sent again.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from headway.errors import RunFailed

FILE = "spool.jsonl"
CHUNK_BYTES = 4 << 20
LATE_BYTES = 256 << 10
"""The end of the file, in which every metric that is still recorded has a point."""

Event = dict[str, Any]


class Spool:
    """Append events to a file, and read them back from a byte offset.

    One process appends at a time; any number may read meanwhile. What `append` has returned from survives the death of
    the process (not of the machine).

    Args:
        path: the file; made, with its folder, by the first append.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.damaged = 0
        """Lines that `read` skipped because they were not an event."""
        self._file: int | None = None

    def append(self, event: Mapping[str, Any]) -> None:
        """Add one event. NaN and infinities, which JSON has no words for, are written as strings.

        Raises:
            RunFailed: the file cannot be written (disk full, folder gone).
        """
        line = json.dumps(_plain({"time": time.time(), **event}), allow_nan=False, separators=(",", ":")) + "\n"
        data = line.encode()
        try:
            if self._file is None:
                self._file = self._open()
            written = os.write(self._file, data)
        except OSError as error:
            self.close()
            raise _unwritable(self.path, error.strerror or str(error)) from error
        if written < len(data):
            # Reopening ends the torn line, so that the next event does not hang on to it.
            self.close()
            raise _unwritable(self.path, "the disk took only a part of a line")

    def read(self, offset: int = 0, max_bytes: int = CHUNK_BYTES) -> tuple[list[Event], int]:
        """Events after a byte offset, and the offset after them; about `max_bytes` at most, so call until it stays.

        A last line without its end is left for later; a line that is not an event is skipped and counted in `damaged`.
        """
        events, end = [], offset
        for event, end in self.entries(offset, max_bytes):  # noqa: B007 - the last end is the result
            if event is not None:
                events.append(event)
        return events, end

    def events(self, offset: int = 0) -> Iterator[Event]:
        """All events after an offset, a chunk at a time."""
        before = -1
        while offset != before:
            before = offset
            events, offset = self.read(offset)
            yield from events

    def entries(self, offset: int = 0, max_bytes: int = CHUNK_BYTES) -> Iterator[tuple[Event | None, int]]:
        """Each event with the offset after it; None in place of a line that is not an event."""
        for line in self._lines(offset, max_bytes):
            offset += len(line)
            event = _event(line)
            if event is None and line.strip():
                self.damaged += 1
            yield event, offset

    def drawn(self) -> tuple[dict[str, int], dict[str, Any]]:
        """The newest step of each metric, and what was held back at the newest checkpoint, as far as the end of the
        file tells."""
        found: dict[str, int] = {}
        held: dict[str, Any] = {}
        begin = max(0, self.size() - LATE_BYTES)
        for event in self.events(begin):  # the first line may be a part of one, which is no event
            if (
                event["kind"] == "points"
                and isinstance(event.get("values"), dict)
                and isinstance(event.get("step"), int)
            ):
                found.update(dict.fromkeys(event["values"], event["step"]))
            if event["kind"] == "checkpoint" and isinstance(event.get("held"), dict):
                held = event["held"]
        return found, held

    def state(self) -> str | None:
        """What was told last of how the run stands; None where nothing was."""
        found = None
        for event in self.events():
            if event["kind"] == "state":
                found = str(event.get("state"))
        return found

    def size(self) -> int:
        """Bytes written so far."""
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0

    def close(self) -> None:
        """Release the file. The next append opens it again."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _open(self) -> int:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        size = os.fstat(file).st_size
        if size and os.pread(file, 1, size - 1) != b"\n":
            os.write(file, b"\n")
        return file

    def _lines(self, offset: int, max_bytes: int) -> list[bytes]:
        try:
            with self.path.open("rb") as file:
                file.seek(offset)
                data = file.read(max_bytes)
                if len(data) == max_bytes and not data.endswith(b"\n"):
                    data += file.readline()
        except FileNotFoundError:
            return []
        return data[: data.rfind(b"\n") + 1].splitlines(keepends=True) if b"\n" in data else []


def _unwritable(path: Path, reason: str) -> RunFailed:
    return RunFailed(f"{path} cannot be written", reason, "Free some space or mend the folder, then resume the run.")


def _event(line: bytes) -> Event | None:
    try:
        event = json.loads(line)
    except ValueError:
        return None
    if not isinstance(event, dict) or not isinstance(event.get("kind"), str):
        return None
    for name in ("values", "metrics"):
        if isinstance(event.get(name), dict):
            event[name] = {key: _number(value) for key, value in event[name].items()}
    return event


def _number(value: Any) -> Any:
    return float(value) if value in ("NaN", "Infinity", "-Infinity") else value


def _plain(value: Any) -> Any:
    """The value in JSON's own types."""
    if isinstance(value, bool | int | str) or value is None:
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else _word(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if callable(getattr(value, "item", None)) and getattr(value, "size", 1) == 1:
        return _plain(value.item())  # NumPy's scalars, and tensors of one element
    return str(value)


def _word(value: float) -> str:
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
