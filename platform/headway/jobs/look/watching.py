"""A run as it goes, for who looks at it from another process, on this machine or another: by what its place tells."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headway import runs as kept
from headway.core.cost import so_far
from headway.core.ends import OVER
from headway.core.incidents import PLANNED
from headway.errors import BadInput, HeadwayError
from headway.jobs.look import closeup
from headway.jobs.look.history import FILE as EVENTS
from headway.jobs.look.history import FOLDER_S, STORE_S, Event, parsed
from headway.jobs.look.tail import Tail
from headway.runs import Brief, NoRun, Place, RunFolder, accounts

POINTS = 4096
"""Of a curve."""
SHOWN = 200
"""Events that are remembered."""


@dataclass(frozen=True)
class Worker:
    """One that is there. phase: as of `headway.core.membership`; lanes: that it carries; slow: times the others'."""

    name: str
    phase: str
    lanes: tuple[int, ...]
    node: str
    slow: float = 1.0


@dataclass(frozen=True)
class Watched:
    """A run at one moment.

    Args:
        brief: as a listing has it.
        at: Unix seconds, when it was looked at.
        epoch: walks through the data, begun.
        samples_per_s: lately; None where that is not known.
        loss: (step, loss), thinned.
        metrics: by name (step, value), thinned; the best of each is in `best` where the run says which is better.
        workers: that are there.
        ledger_s: worker-seconds by cause, of all starts.
        lost: how often, by cause, workers were lost; lost_s: seconds that this took; planned: joins and leaves.
        lost_steps: that had to be done again.
        events: the newest, oldest first.
        fresh: those that were not seen before.
        dollars: spent; None where no price is known.
        lacks: why its place cannot be read at the moment; what is told is older then.
    """

    brief: Brief
    at: float
    epoch: int | None = None
    samples_per_s: float | None = None
    loss: tuple[tuple[int, float], ...] = ()
    metrics: Mapping[str, tuple[tuple[int, float], ...]] = field(default_factory=dict)
    evaluated: int | None = None
    workers: tuple[Worker, ...] = ()
    ledger_s: Mapping[str, float] = field(default_factory=dict)
    lost: Mapping[str, int] = field(default_factory=dict)
    lost_s: float = 0.0
    planned: int = 0
    lost_steps: int = 0
    events: tuple[Event, ...] = ()
    fresh: tuple[Event, ...] = ()
    dollars: float | None = None
    lacks: str = ""

    @property
    def over(self) -> bool:
        """Whether it is at its end, as far as is known for sure."""
        return self.brief.state in OVER and not self.brief.unclosed


class Watching:
    """See the module. For one thread.

    Args:
        place, name: of the run, which is there.
        say: takes a line for people, where something takes a while.
    """

    def __init__(self, place: Place, name: str, say: Callable[[str], None] = lambda _: None) -> None:
        self._place, self._name, self._say = place, name, say
        self.every_s = FOLDER_S if place.url is None else STORE_S
        self._run: RunFolder | None = None
        self._steps: Tail | None = None
        self._measured: Tail | None = None
        self._happened: Tail | None = None
        self._brief: Brief | None = None
        self._loss = Curve()
        self._metrics: dict[str, Curve] = {}
        self._evaluated: int | None = None
        self._newest: dict[str, Any] = {}
        self._events: deque[Event] = deque(maxlen=SHOWN)
        self._lost: dict[str, int] = {}
        self._lost_s, self._planned, self._lost_steps = 0.0, 0, 0
        self._slow: dict[str, float] = {}

    def look(self) -> Watched:
        """How it is now; or was, where its place does not answer.

        Raises:
            NoRun: there is no such run (any more).
            HeadwayError: its place cannot be read, and never could.
        """
        lacks = ""
        try:
            self._read()
        except NoRun:
            raise
        except (HeadwayError, OSError) as error:
            if self._brief is None or self._run is None:
                raise
            lacks = getattr(error, "reason", "") or str(error)
        assert self._run is not None
        return self._told(self._run, lacks)

    def _read(self) -> None:
        brief = kept.glance(self._place, self._name)
        if self._run is None:
            self._run = kept.find(self._place, self._name)
            folder = self._run.path
            self._steps = Tail(folder / "steps.jsonl", sparse=True)
            self._measured = Tail(folder / "metrics.jsonl", sparse=True)
            self._happened = Tail(folder / EVENTS)
        else:
            self._run.refresh()
        if brief is None:
            raise NoRun(f"run {self._name} is gone from {self._place}", "it was removed", "")
        if closeup.is_left(brief):
            brief = closeup.closed(self._place, brief, self._say)
        self._brief = brief

    def _told(self, run: RunFolder, lacks: str) -> Watched:
        assert self._brief is not None
        self._follow_steps()
        self._follow_metrics()
        fresh = self._follow_events()
        facts = _facts(run)
        ledger_s = accounts.known(run.path, facts)
        rate, rows = self._brief.steps_per_s, self._newest.get("rows")
        known = isinstance(rows, int | float) and rate is not None
        return Watched(
            brief=self._brief,
            at=time.time(),
            epoch=self._newest.get("epoch"),
            samples_per_s=rate * rows if known and rate is not None and rows is not None else None,
            loss=self._loss.points,
            metrics={name: curve.points for name, curve in self._metrics.items()},
            evaluated=self._evaluated,
            workers=self._workers(run.path),
            ledger_s=ledger_s,
            lost=dict(self._lost),
            lost_s=self._lost_s,
            planned=self._planned,
            lost_steps=self._lost_steps,
            events=tuple(self._events),
            fresh=tuple(fresh),
            dollars=so_far(facts, sum(ledger_s.values())),
            lacks=lacks,
        )

    def _follow_steps(self) -> None:
        assert self._steps is not None
        lines = self._steps.more()
        if self._steps.anew:
            self._loss = Curve()
        for line in lines:
            tree = parsed(line)
            if tree is not None and isinstance(tree.get("step"), int):
                self._newest = tree
                self._loss.add(tree["step"] + 1, tree.get("loss"))

    def _follow_metrics(self) -> None:
        assert self._measured is not None
        lines = self._measured.more()
        if self._measured.anew:
            self._metrics = {}
        for line in lines:
            tree = parsed(line) or {}
            values = tree.get("values")
            if not isinstance(values, dict) or not isinstance(tree.get("step"), int):
                continue
            self._evaluated = tree["step"]
            for name, value in values.items():
                self._metrics.setdefault(str(name), Curve()).add(tree["step"], value)

    def _follow_events(self) -> list[Event]:
        assert self._happened is not None
        lines = self._happened.more()
        if self._happened.anew:
            self._events.clear()
            self._lost, self._lost_s, self._planned, self._lost_steps = {}, 0.0, 0, 0
        fresh = [Event.of(tree) for line in lines if (tree := parsed(line)) is not None]
        for event in fresh:
            self._count(event)
        shown = [event for event in fresh if not event.quiet]
        self._events.extend(shown)
        return shown

    def _count(self, event: Event) -> None:
        told = event.fields
        if event.kind == "recovery":
            cause = str(told.get("cause"))
            if cause in PLANNED:
                self._planned += 1
            else:
                self._lost[cause] = self._lost.get(cause, 0) + 1
                self._lost_s += _number(told.get("pause_s"))
        elif event.kind == "restart":
            self._lost_steps += int(_number(told.get("lost_steps")))
        elif event.kind == "slow":
            self._slow[str(told.get("worker"))] = _number(told.get("factor"), 1.0)

    def _workers(self, folder: Path) -> tuple[Worker, ...]:
        """Those that are there; none of a run that nobody leads."""
        import json

        assert self._brief is not None
        if self._brief.state != "running":
            return ()
        try:
            told = json.loads((folder / "members.json").read_text(encoding="utf-8"))["workers"]
            return tuple(
                Worker(
                    str(each["id"]),
                    str(each["phase"]),
                    tuple(each["lanes"]),
                    str(each.get("node_ip") or ""),
                    self._slow.get(str(each["id"]), 1.0),
                )
                for each in told
            )
        except (OSError, ValueError, KeyError, TypeError):
            return ()


class Curve:
    """Points as they come, in few."""

    def __init__(self) -> None:
        self._points: list[tuple[int, float]] = []

    def add(self, step: int, value: Any) -> None:
        """A point; what is no number is none. One that is not behind the last takes away what it is before."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            return
        while self._points and self._points[-1][0] >= step:
            self._points.pop()
        self._points.append((step, float(value)))
        if len(self._points) >= 2 * POINTS:
            self._points = thinned(self._points, POINTS)

    @property
    def points(self) -> tuple[tuple[int, float], ...]:
        return tuple(self._points)


def thinned(points: list[tuple[int, float]], most: int) -> list[tuple[int, float]]:
    """So many of them at most, the lowest and the highest of each stretch."""
    import numpy as np

    from headway.core.thinning import kept as chosen

    return [points[index] for index in chosen(np.array([value for _, value in points]), most)]


def _facts(run: RunFolder) -> dict[str, Any]:
    try:
        return run.read()
    except BadInput:  # it is being written, or damaged; the rest is told all the same
        return {}


def _number(value: Any, default: float = 0.0) -> float:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else default
