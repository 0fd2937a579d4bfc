"""The file that keeps what is seen of a sweep: history.jsonl, a line for each thing that happened, with its time.

    {"at": 1767225600.0, "begun": {subject}}          somebody began to lead it
    {"at": ..., "n": 12, "event": {...}, "then": [{...}]}   the loop heard this (12th of its book), and asked for that
    {"at": ..., "workers": {run: n}, "steps": {run: n}, "seconds": {cause: s}}
    {"at": ..., "over": "finished", "message": "..."}

The sweep goes on from its book, never from here; a lost line is a gap in a picture.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from headway.durable import Lines
from headway.sweeps import events
from headway.sweeps.crew import Holds
from headway.sweeps.events import Action, Event
from headway.sweeps.seen.sight import Sight
from headway.sweeps.seen.view import Subject

FILE = "history.jsonl"


class History:
    """Adds to the file. What cannot be written is not kept: a full disk ends no sweep."""

    def __init__(self, path: Path) -> None:
        self._lines = Lines(path)

    def begun(self, at: float, subject: Subject) -> None:
        self._add({"at": at, "begun": asdict(subject)})

    def heard(self, at: float, number: int, event: Event, actions: Sequence[Action]) -> None:
        self._add({"at": at, "n": number, "event": _tree(event), "then": [_tree(action) for action in actions]})

    def holds(self, at: float, holds: Holds) -> None:
        self._add({"at": at, **asdict(holds)})

    def over(self, at: float, state: str, message: str) -> None:
        self._add({"at": at, "over": state, "message": message})

    def close(self) -> None:
        self._lines.close()

    def _add(self, line: Mapping[str, Any]) -> None:
        with suppress(OSError):
            self._lines.append(json.dumps(line, default=str, separators=(",", ":")).encode() + b"\n")


class Reading:
    """Lines of the file, one after the other. What cannot be read is passed over.

    Attributes:
        sight: the sweep that they tell of; None where they tell of none.
        last: the number of the last event in them.
    """

    def __init__(self) -> None:
        self.sight: Sight | None = None
        self.last = 0

    def add(self, line: str | bytes) -> None:
        """The next."""
        with suppress(ValueError, KeyError, TypeError, AttributeError):
            tree = json.loads(line)
            if "begun" in tree:
                subject = _subject(tree["begun"])
                self.sight = self.sight or Sight(subject)
                self.sight.subject = subject
                self.sight.begun(tree["at"])
            elif self.sight is not None:
                self.last = max(self.last, _apply(self.sight, tree))


def seen(lines: Iterator[str] | Sequence[str]) -> tuple[Sight, int] | None:
    """The sweep that the lines tell of, and the number of the last event in them; None where they tell of none."""
    reading = Reading()
    for line in lines:
        reading.add(line)
    return None if reading.sight is None else (reading.sight, reading.last)


def read(path: Path) -> tuple[Sight, int] | None:
    """The same of a file; None where there is none."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return seen(file)
    except OSError:
        return None


def _apply(sight: Sight, tree: dict[str, Any]) -> int:
    at = float(tree["at"])
    if "event" in tree:
        number = int(tree["n"])
        sight.heard(at, _value(tree["event"]), [_value(each) for each in tree["then"]])
        return number
    if "over" in tree:
        sight.over(at, tree["over"], tree["message"])
    elif "workers" in tree:
        sight.holds(at, Holds(tree["workers"], tree["steps"], tree["seconds"]))
    return 0


def _subject(tree: dict[str, Any]) -> Subject:
    return Subject(**{**tree, "logarithmic": tuple(tree.get("logarithmic", ()))})


def _tree(value: Event | Action) -> dict[str, Any]:
    return {"is": type(value).__name__, **asdict(value)}


def _value(tree: dict[str, Any]) -> Any:
    kind = getattr(events, tree.pop("is"))
    return kind(**tree)
