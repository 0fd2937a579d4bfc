"""The book of a sweep: every event that its loop heard, in order, a line each, durable before anything follows from it.

    {"book": "headway-sweep/1", "key": "6f0c…", "sweep": "digits", "terms": "91ab…", "limits": {"trials": 8, …}}
    {"at": 1795700000.1, "event": "suggested", "trial": 1, "config": {"optimizer.lr": 0.01}}
    {"at": 1795700009.7, "event": "reported", "trial": 1, "step": 20, "values": {"accuracy": 0.7}, "waits": true}

A loop that has the same limits and is fed with it is where the one was that wrote it. NaN and infinities are written as
Python writes them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from headway.durable import Lines
from headway.errors import BadData, BadInput, RunFailed
from headway.sweeps.events import Again, Event, Failed, Halt, Limits, Reported, Spent, Suggested, Width

LAYOUT = "headway-sweep/1"
FILE = "book.jsonl"
EVENTS = (Width, Suggested, Reported, Failed, Spent, Halt, Again, Limits)
KINDS: dict[str, type[Any]] = {kind.__name__.lower(): kind for kind in EVENTS}


@dataclass(frozen=True)
class Entry:
    """An event as it was written down. number: from 1; at: Unix seconds, for people."""

    number: int
    at: float
    event: Event


class Book:
    """See the module; for the process that leads the sweep.

    Args:
        path: of the file.
        secure: makes what is on the disk durable for whoever takes the sweep up, on this machine or another, and raises
            Superseded where another process leads it by now.
        now: Unix seconds.
    """

    def __init__(self, path: Path, secure: Callable[[], None], now: Callable[[], float] = time.time) -> None:
        self.path = path
        self._secure, self._now = secure, now
        self._lines = Lines(path)
        self._count = 0
        self.limits: Limits | None = None
        """With which the sweep began; known after `begin`."""

    def begin(self, sweep: str, key: str, terms: str, limits: Limits | None = None) -> list[Entry]:
        """Open it; make it, where there is none.

        Args:
            sweep: its name.
            key: of this sweep and no other of its name.
            terms: a digest of what its decisions depend on.
            limits: of a new one.

        Returns:
            What is in it.

        Raises:
            BadInput: it is of another sweep, or of other terms.
            BadData: it is damaged.
        """
        if not self.path.exists() or not self.path.stat().st_size:
            self.limits = limits
            told = {"limits": asdict(limits)} if limits is not None else {}
            self._write({"book": LAYOUT, "key": key, "sweep": sweep, "terms": terms, **told})
            self.secure()
            return []
        head, entries = read(self.path)
        self.admit(sweep, key, terms, head)
        self._count, self.limits = len(entries), limits_of(head)
        return entries

    def admit(self, sweep: str, key: str, terms: str, head: dict[str, Any] | None = None) -> None:
        """Raises BadInput where the book is of another sweep, or of other terms; see `begin`. head: its first line."""
        head = head if head is not None else read(self.path)[0]
        if head.get("key") != key:
            fact = f"{self.path} is the book of another sweep ({head.get('sweep')})"
            raise BadInput(fact, f"it does not belong to {sweep}", "Put it back where it was, or begin anew: --name.")
        if head.get("terms") != terms:
            reason = "its job, space, search, scheduler, order, metric or seeds are not those that its book began with"
            reason += "; or its trials, which count in strict order, HyperBand and populations"
            raise BadInput(
                f"sweep {sweep} is another one by now", reason, "Put sweep.yaml back, or begin anew: --name."
            )

    def append(self, event: Event) -> Entry:
        """Write an event down; `secure` makes it last. Returns it as whoever reads it later will have it.

        Raises:
            RunFailed: it cannot be written.
        """
        tree = json.loads(self._write({"at": round(self._now(), 3), **encode(event)}))
        self._count += 1
        return Entry(self._count, tree["at"], decode(tree))

    def secure(self) -> None:
        """Return once all that was written will be found by whoever takes the sweep up.

        Raises:
            Superseded: another process leads the sweep.
            RunFailed: it cannot be.
        """
        try:
            self._lines.sync()
        except OSError as error:
            raise self._unwritable(error) from None
        self._secure()

    def close(self) -> None:
        self._lines.close()

    def _write(self, line: dict[str, Any]) -> str:
        text = json.dumps(line, default=plain)
        try:
            self._lines.append(text.encode() + b"\n")
        except OSError as error:
            raise self._unwritable(error) from None
        return text

    def _unwritable(self, error: OSError) -> RunFailed:
        remedy = "Free space or mend the folder, then go on: headway resume."
        return RunFailed(f"{self.path} cannot be written", error.strerror or str(error), remedy)


def read(path: Path) -> tuple[dict[str, Any], list[Entry]]:
    """A book's first line, and its events. A torn last line was never acted upon, and is none.

    Raises:
        BadData: it is damaged.
    """
    lines = path.read_bytes().split(b"\n")[:-1]
    number = 0
    try:
        head = json.loads(lines[0]) if lines else {}
        if head.get("book") != LAYOUT:
            raise ValueError(f"this Headway reads {LAYOUT!r}, and it begins with {str(head)[:80]}")
        entries = []
        for number, line in enumerate(lines[1:], 1):
            tree = json.loads(line)
            entries.append(Entry(number, float(tree["at"]), decode(tree)))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = (
            f"line {number + 1}: {error}" if not isinstance(error, KeyError) else f"line {number + 1} has no {error}"
        )
        remedy = "Nothing was guessed: put an older copy of it back, or begin anew: --name."
        raise BadData(f"{path} is damaged", reason, remedy) from None
    return head, entries


def limits_of(head: dict[str, Any]) -> Limits | None:
    """Those with which a sweep began, by the first line of its book."""
    return Limits(**head["limits"]) if "limits" in head else None


def entries(path: Path) -> Iterator[Entry]:
    """What is in a book that may be written at the moment; nothing where there is none. Raises BadData."""
    if path.exists() and path.stat().st_size:
        yield from read(path)[1]


def encode(event: Event) -> dict[str, Any]:
    """An event as plain values."""
    return {"event": type(event).__name__.lower(), **asdict(event)}


def decode(tree: dict[str, Any]) -> Event:
    """And back. Raises KeyError, TypeError, ValueError: it is none."""
    kind = KINDS[tree["event"]]
    event: Event = kind(**{name: value for name, value in tree.items() if name not in ("at", "event")})
    return event


def plain(value: Any) -> Any:
    """Numbers of numpy and torch as Python's own."""
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"{value!r} is no plain value")
