"""What happened to a run, for its page: marks on its curves, size and lanes over time, recoveries, a folded list."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from headway.core import chronicle
from headway.report.curves import round_s
from headway.report.shape import Event, Lanes, Mark, Recovery, Size

MARKS, SIZES, LANES, RECOVERIES, CHECKPOINTS = 1000, 2000, 500, 500, 200
"""That are told of a run at most; of the first few kinds the evenly spaced ones."""
EVENTS, FOLDED, WINDOW = 500, 120, 8
"""Entries of the list; of one that is longer than the second, what is alike within so many is one."""
PLAIN = ("start", "end", "restart", "stop", "resize", "checkpoint", "quarantine", "warned")
"""Kinds of events that are marks of the same name."""
RESIZED = ("resized", "rebalanced")
_NUMBERS = re.compile(r"\d+(?:[.,]\d+)*")

T = TypeVar("T")


@dataclass
class Happenings:
    """See the module. The counts are of all, whatever is told."""

    marks: list[Mark] = field(default_factory=list)
    workers: list[Size] = field(default_factory=list)
    lanes: list[Lanes] = field(default_factory=list)
    recoveries: list[Recovery] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    saved: dict[int, float] = field(default_factory=dict)
    """Seconds, by step, at which checkpoints were written."""
    causes: dict[str, int] = field(default_factory=dict)
    """How often the membership changed, by cause."""
    lost_workers: int = 0
    repeated_steps: int = 0
    from_kept: int = 0
    from_checkpoint: int = 0
    longest_pause_s: float | None = None
    starts: int = 0
    last: float = 0.0
    """Seconds, of the newest event."""


def told(events: Iterable[Mapping[str, Any]], created: float, step_at: Callable[[float], int]) -> Happenings:
    """Args:
    events: lines of events.jsonl.
    created: Unix seconds.
    step_at: how many steps were committed at a Unix time.
    """
    return _Telling(created, step_at).of(events)


class _Telling:
    def __init__(self, created: float, step_at: Callable[[float], int]) -> None:
        self._created, self._step_at = created, step_at
        self._found = Happenings()
        self._folded = Folded()
        self._reason = ""
        """Of the newest generation."""

    def of(self, events: Iterable[Mapping[str, Any]]) -> Happenings:
        for event in events:
            try:
                self._take(event)
            except (KeyError, TypeError, ValueError, IndexError):  # of another release, or damaged
                continue
        found = self._found
        found.marks = _fewer_marks(found.marks)
        found.workers, found.lanes = spaced(found.workers, SIZES), spaced(found.lanes, LANES)
        found.recoveries, found.events = spaced(found.recoveries, RECOVERIES), self._folded.entries()
        return found

    def _take(self, event: Mapping[str, Any]) -> None:
        kind, at = str(event["kind"]), float(event["time"])
        found, seconds = self._found, float(round_s(max(0.0, at - self._created)) or 0.0)
        found.last = max(found.last, seconds)
        step = self._step(event, at)
        if kind == "generation":
            self._reason = str(event.get("reason", ""))
            self._lanes(event, step, seconds)
            if found.workers and found.workers[-1].seconds == seconds:  # its size was told in the line before
                found.workers[-1] = found.workers[-1].model_copy(update={"cause": self._reason})
        elif kind == "workers":
            self._size(event, seconds)
        elif kind == "recovery":
            self._recovery(event, step, seconds)
        elif kind == "slow" and event["factor"] > 1.0:
            self._mark("slow", step, seconds, "", [str(event["worker"])], event)
        elif kind in PLAIN:
            self._plain(kind, event, step, seconds)
        if kind not in chronicle.QUIET:
            self._folded.add(seconds, step, kind, chronicle.tell(event).text)

    def _step(self, event: Mapping[str, Any], at: float) -> int:
        step = event.get("step")
        return step if isinstance(step, int) and step >= 0 else self._step_at(at)

    def _plain(self, kind: str, event: Mapping[str, Any], step: int, seconds: float) -> None:
        found = self._found
        if kind == "start":
            found.starts += 1
        elif kind == "checkpoint":
            found.saved[step] = seconds
        elif kind == "restart":
            step = int(event["from_step"])
            found.repeated_steps += int(event.get("lost_steps") or 0)
            found.from_kept += bool(event.get("kept"))
            found.from_checkpoint += not event.get("kept")
        cause = str(event.get("cause") or event.get("state") or "")
        workers = [str(event["worker"])] if event.get("worker") else []
        self._mark(kind, step, seconds, cause, workers, event)

    def _recovery(self, event: Mapping[str, Any], step: int, seconds: float) -> None:
        found, cause = self._found, str(event["cause"])
        workers = [str(worker) for worker in event["workers"]]
        kind = "joined" if cause == "joined" else "resize" if cause in RESIZED else "lost"
        found.causes[cause] = found.causes.get(cause, 0) + 1
        pause = float(event["pause_s"])
        if kind == "lost":
            found.lost_workers += len(workers)
        if cause not in (*RESIZED, "joined", "drained"):
            found.longest_pause_s = max(found.longest_pause_s or 0.0, pause)
        began = float(event.get("detected_at") or event["time"]) - self._created
        self._mark(kind, step, float(round_s(max(0.0, began)) or 0.0), cause, workers, event)
        found.recoveries.append(
            Recovery(
                cause=cause,
                workers=workers,
                step=step,
                seconds=seconds,
                silent_s=_seconds(event.get("silent_s")),
                pause_s=_seconds(pause),
                lost_steps=int(event.get("lost_steps") or 0),
                kept=bool(event.get("kept")),
                words=chronicle.tell(event).text,
            )
        )

    def _lanes(self, event: Mapping[str, Any], step: int, seconds: float) -> None:
        lanes = [[int(lane) for lane in each] for each in event.get("lanes") or ()]
        members = [str(member) for member in event["members"]]
        one = Lanes(generation=int(event["generation"]), step=step, seconds=seconds, members=members, lanes=lanes)
        self._found.lanes.append(one)

    def _size(self, event: Mapping[str, Any], seconds: float) -> None:
        sizes, step = self._found.workers, int(event["step"])
        while sizes and sizes[-1].step >= step:
            sizes.pop()
        sizes.append(Size(step=step, seconds=seconds, workers=int(event["workers"]), cause=self._reason))

    def _mark(
        self, kind: Any, step: int, seconds: float, cause: str, workers: list[str], event: Mapping[str, Any]
    ) -> None:
        words = chronicle.tell(event).text
        one = Mark(step=step, seconds=seconds, kind=kind, cause=cause, workers=workers, words=words)
        self._found.marks.append(one)


class Folded:
    """A list of what happened, in which what is alike is one entry while nothing else comes between. Checkpoints never
    come between; they are an entry for each stretch of them. A long list is folded further, over what alternates."""

    def __init__(self) -> None:
        self._entries: list[_Entry] = []

    def add(self, seconds: float, step: int | None, kind: str, words: str) -> None:
        """Something happened."""
        like = kind if kind == "checkpoint" else _NUMBERS.sub("0", words)
        newest = self._entries[-2:]
        if len(newest) == 2 and newest[1].like != "checkpoint":
            newest = newest[1:]
        same = next((entry for entry in newest if entry.like == like), None)
        if same is not None:
            same.count += 1
        else:
            self._entries.append(_Entry(seconds, step, words, like))

    def entries(self) -> list[Event]:
        """In order; where too many are left, a line in the middle says how many are left out."""
        found = self._entries if len(self._entries) <= FOLDED else _over(self._entries)
        left = len(found) - EVENTS
        if left > 0:
            half = EVENTS // 2
            gap = _Entry(found[half].seconds, None, f"{left} more are left out here: see `headway events`", "")
            found = [*found[:half], gap, *found[-half:]]
        return [Event(seconds=e.seconds, step=e.step, words=e.words, count=e.count) for e in found]


@dataclass
class _Entry:
    seconds: float
    step: int | None
    words: str
    like: str
    count: int = 1


def _over(entries: Sequence[_Entry]) -> list[_Entry]:
    """What is alike within the newest few kinds is one."""
    found: list[_Entry] = []
    for entry in entries:
        same = next((each for each in found[-WINDOW:] if each.like == entry.like), None)
        if same is None:
            found.append(entry)
        else:
            same.count += entry.count
    return found


def spaced(found: Sequence[T], most: int) -> list[T]:
    """At most so many, evenly over all; the first and the last are among them."""
    if len(found) <= most:
        return list(found)
    return [found[i * (len(found) - 1) // (most - 1)] for i in range(most)]


def _fewer_marks(marks: list[Mark]) -> list[Mark]:
    """Checkpoints make way first."""
    saved = spaced([mark for mark in marks if mark.kind == "checkpoint"], CHECKPOINTS)
    others = spaced([mark for mark in marks if mark.kind != "checkpoint"], MARKS - CHECKPOINTS)
    return sorted((*saved, *others), key=lambda mark: mark.seconds)


def _seconds(value: Any) -> float | None:
    return round(float(value), 3) if isinstance(value, int | float) else None
