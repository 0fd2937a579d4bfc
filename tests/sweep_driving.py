"""Whole sweeps as they are run, on a crew that makes its numbers up, in no time."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from headway.core.allotment import Rule
from headway.core.prefix import Course as Computed
from headway.job import Job, parse
from headway.runs.requests import Stop as StopRequest
from headway.sweeps import book
from headway.sweeps.asking import Asking
from headway.sweeps.book import Book
from headway.sweeps.course import Course
from headway.sweeps.crew import News
from headway.sweeps.events import Action, Ask, Config, Event, Suggested, Tell
from headway.sweeps.loop import Loop
from headway.sweeps.names import run_of
from headway.sweeps.order import create
from headway.sweeps.rules import Rules, Way
from headway.sweeps.running import Running
from headway.sweeps.schedule.protocol import Scheduler
from headway.sweeps.search.line import Line
from headway.sweeps.search.protocol import Searcher
from headway.sweeps.terms import Terms
from headway.testing.crew import FakeCrew

NAME = "s"
ENOUGH_S = 100_000.0
"""On the crew's clock: a sweep that is not over by then does not end."""


@cache
def _job(length: int, every: int, most: int, arguments: str) -> Job:
    tree = {"name": "made-up", "task": "/t.py:T", "data": {"train": "/d", "validation": "/v"}, "steps": length}
    more = {"evaluate_every_steps": every, "workers": {"min": 1, "max": most}, "arguments": json.loads(arguments)}
    return parse({**tree, **more})


def even_way(length: int, every: int) -> Callable[[Config], Way]:
    return lambda config: Way(length, every)


def name(trial: int, repeat: int = 1) -> str:
    return run_of(NAME, trial, repeat)


class AtOnce(Asking):
    """Asks the searcher in the thread that leads: nothing then depends on how threads are switched."""

    def __init__(
        self,
        searcher: Searcher,
        answer: Callable[[Suggested], None],
        failed: Callable[[BaseException], None],
        held: Sequence[int] = (),
    ) -> None:
        self._line, self._answer, self._failed = Line(searcher, list(held)), answer, failed
        self._given = self._done = 0

    def do(self, action: Ask | Tell) -> None:
        try:
            self._act(action)
        except Exception as error:  # as where it has a thread
            self._failed(error)

    def give_up(self, trial: int) -> None:
        self._line.give_up(trial)

    def close(self, within_s: float = 1.0) -> None:
        pass


@dataclass
class Looked:
    """Who looks on: keeps what was heard."""

    turns: list[tuple[int, Event, list[Action]]] = field(default_factory=list)
    again: list[Action] = field(default_factory=list)

    def heard(self, number: int, event: Event, actions: Iterable[Action]) -> None:
        self.turns.append((number, event, list(actions)))

    def placed(self, actions: Iterable[Action]) -> None:
        self.again = list(actions)

    def news(self, news: Sequence[News]) -> None:
        pass


@dataclass
class Plan:
    """A sweep: what a driver is made of, each time anew.

    Args:
        folder: of the book.
        most: workers of a trial.
        course: what its jobs compute, where common beginnings are run once.
        workers, least: of the sweep.
    """

    folder: Path
    rules: Rules
    scheduler: Callable[[], Scheduler]
    searcher: Callable[[], Searcher]
    order: str = "async"
    width: int = 4
    repeats: int = 1
    most: int = 1
    workers: int = 16
    least: int = 1
    rule: Rule = "best_first"
    exploits: bool = False
    course: Callable[[Job], Computed] | None = None
    stop: threading.Event = field(default_factory=threading.Event)
    asked: StopRequest | None = None
    seen: Looked = field(default_factory=Looked)
    said: list[str] = field(default_factory=list)

    def job(self, config: Config, repeat: int) -> Job:
        way = self.rules.way(config)
        return _job(way.length, way.every or way.length, self.most, json.dumps(config))

    def drive(self, crew: FakeCrew) -> Loop:
        """Go through the sweep, or go on with it, to its end; raises what the crew raises."""
        strict = self.order == "strict"
        terms = Terms(
            name=NAME,
            key="key",
            terms="terms",
            repeats=self.repeats,
            job=self.job,
            strict=strict,
            width=self.width,
            workers=self.workers,
            rule=self.rule,
            saves=self.exploits,
            maximize=self.rules.mode == "max",
            course=self.course,
            least=self.least,
        )
        loop = Loop(self.rules, self.scheduler())
        written = Book(self.folder / book.FILE, secure=lambda: None, now=lambda: crew.now)
        course = Course(loop, create(self.order, loop, self.width), written)
        self.seen = Looked()

        def recorded(run: str) -> list[tuple[int, dict[str, float]]]:
            record = crew.ground.runs.get(run)
            return sorted(record.evaluations.items()) if record is not None else []

        def saved(run: str) -> list[int]:
            record = crew.ground.runs.get(run)
            return record.saved if record is not None else []

        def close(runs: Sequence[str]) -> None:
            for run in runs:
                if run in crew.ground.runs:
                    crew.ground.runs[run].closed = True

        def finished(run: str) -> bool:
            record = crew.ground.runs.get(run)
            return record is not None and record.over == "finished"

        def lost() -> None:
            raise AssertionError("the sweep does not end")

        crew.at(ENOUGH_S, lost)
        running = Running(
            terms,
            course,
            self.searcher(),
            crew,
            self.seen,
            self.stop,
            lambda: self.asked,
            evaluations=recorded,
            saved=saved,
            close=close,
            finished=finished,
            say=self.said.append,
            now=lambda: crew.now,
            asking=AtOnce,
        )
        try:
            running.run()
        finally:
            written.close()
            crew.close()
        return loop
