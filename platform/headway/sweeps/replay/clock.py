"""A sweep over a table on a virtual clock: trials take their time, and what they return is heard in the order in which
it comes. A stretch of a table is a step, and takes a worker one unit of time."""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from headway.core.allotment import Rule, Running, allot
from headway.sweeps.events import (
    Action,
    Ask,
    Event,
    Failed,
    GoOn,
    Pause,
    Reported,
    Start,
    Stop,
    Suggested,
    Tell,
    Width,
)
from headway.sweeps.loop import Loop
from headway.sweeps.replay.rows import Rows
from headway.sweeps.replay.table import Table
from headway.sweeps.search.line import Line


@dataclass(frozen=True)
class Cluster:
    """On what a sweep is replayed.

    Args:
        workers: in all.
        lanes: of a trial, among which its workers share a step; 1: a trial has one worker.
        width: trials at once; as many as workers when not given.
        noise: standard deviation of the log of a stretch's time.
        settle: units of time for which a change of its workers, or its beginning, stops a trial.
        rule: who has how many.
    """

    workers: int = 1
    lanes: int = 1
    width: int | None = None
    noise: float = 0.0
    settle: float = 0.0
    rule: Rule = "best_first"


@dataclass
class Played:
    """What came of it.

    Args:
        seen: the least loss seen after each stretch; before the first one it is infinite.
        at: units of time at each.
        trials: how many were begun.
        rows: by trial, where its configuration is in the table.
        steps: how far each trial came.
        whole: trials that went their whole way.
        busy: units of time of workers that trained.
    """

    seen: list[float] = field(default_factory=lambda: [math.inf])
    at: list[float] = field(default_factory=lambda: [0.0])
    trials: int = 0
    rows: dict[int, int] = field(default_factory=dict)
    steps: dict[int, int] = field(default_factory=dict)
    whole: int = 0
    busy: float = 0.0


@dataclass
class _Trial:
    """One that is under way. left: of its stretch, in units of time on one worker; has: workers."""

    number: int
    row: int
    until: int
    step: int = 0
    left: float = 0.0
    has: int = 1


def play(loop: Loop, searcher: Rows, table: Table, cluster: Cluster, seed: int = 0) -> Played:
    """Run a sweep until it is over.

    Args:
        loop: a new one, whose trials are evaluated at every step.
        searcher: over the rows of the table.
        seed: of the noise; a row's stretch takes as long in every sweep that has this seed.
    """
    return _Play(loop, searcher, table, cluster, seed).run()


class _Play:
    def __init__(self, loop: Loop, searcher: Rows, table: Table, cluster: Cluster, seed: int) -> None:
        self._loop, self._searcher, self._table = loop, searcher, table
        self._line = Line(searcher)
        self._cluster, self._seed = cluster, seed
        self._played = Played(rows=searcher.row)
        self._trials: dict[int, _Trial] = {}
        self._running: dict[int, _Trial] = {}
        self._now, self._least = 0.0, math.inf
        self._losses = table.losses.tolist()

    def run(self) -> Played:
        self._hear([Width(self._cluster.width or self._cluster.workers)])
        while self._loop.over is None:
            if not self._running:
                self._hear([Suggested(trial, None) for trial in self._silent()])
                continue
            self._share()
            self._hear([self._next()])
        self._played.trials = len(self._trials)
        self._played.steps = {trial.number: trial.step for trial in self._trials.values()}
        self._played.whole = sum(trial.step >= self._table.length for trial in self._trials.values())
        return self._played

    def _hear(self, events: Iterable[Event]) -> None:
        """Feed the loop and do as it says, what comes of it too."""
        for event in events:
            todo = deque(self._loop.feed(event))
            while todo:
                todo.extend(self._do(todo.popleft()))

    def _do(self, action: Action) -> list[Action]:
        match action:
            case Ask() | Tell():
                return [then for said in self._line.do(action) for then in self._loop.feed(said)]
            case Start():
                self._trials[action.trial] = _Trial(action.trial, self._searcher.row[action.trial], action.until)
                self._begin(self._trials[action.trial])
            case GoOn():
                trial = self._trials[action.trial]
                trial.until = action.until
                self._begin(trial)
            case Pause() | Stop():
                self._running.pop(action.trial, None)
        return []

    def _silent(self) -> tuple[int, ...]:
        """Trials for which the searcher has nothing now, while nobody trains: it has no more."""
        if not self._line.held:
            raise RuntimeError("nothing is under way, and the sweep is not over")
        for trial in self._loop.asked:
            self._line.give_up(trial)
        return self._loop.asked

    def _begin(self, trial: _Trial) -> None:
        if trial.number not in self._running:
            trial.left = self._cluster.settle
            trial.has = 0 if self._cluster.lanes > 1 else 1
            self._running[trial.number] = trial
        trial.left += self._takes(trial.row, trial.step)

    def _takes(self, row: int, step: int) -> float:
        if not self._cluster.noise:
            return 1.0
        return random.Random(f"{self._seed}/{row}/{step}").lognormvariate(0.0, self._cluster.noise)

    def _next(self) -> Event:
        """Let the first stretch end that does."""
        trial = min(self._running.values(), key=lambda each: (each.left / self._speed(each), each.number))
        took = trial.left / self._speed(trial)
        self._now += took
        for other in self._running.values():
            other.left -= took * self._speed(other)
            self._played.busy += took * other.has
        trial.step, trial.left = trial.step + 1, 0.0
        return self._evaluated(trial, self._losses[trial.row][trial.step])

    def _evaluated(self, trial: _Trial, loss: float) -> Event:
        if loss < self._least:
            self._least = loss
        self._played.seen.append(self._least)
        self._played.at.append(self._now)
        if math.isnan(loss):
            return Failed(trial.number, trial.step, "diverged", "its loss is no number")
        stands = trial.step >= trial.until
        if not stands:
            trial.left += self._takes(trial.row, trial.step)
        value = loss if self._table.mode == "min" else -loss
        return Reported(trial.number, trial.step, {self._table.metric: value}, stands)

    def _speed(self, trial: _Trial) -> float:
        """Stretches in the time in which one worker does one; of one that waits for its worker, next to nothing."""
        lanes = self._cluster.lanes
        return lanes / -(-lanes // trial.has) if trial.has else 1e-9

    def _share(self) -> None:
        """Who has how many, where trials share the workers."""
        if self._cluster.lanes == 1:
            return
        order = sorted(self._running.values(), key=lambda each: (-each.step, self._losses[each.row][each.step]))
        asking = [
            Running(
                f"{trial.number:04d}",
                self._cluster.lanes,
                1,
                self._cluster.lanes,
                trial.has,
                rank if trial.step else None,
                (trial.left + trial.until - trial.step - 1) / self._speed(trial) if trial.has else None,
            )
            for rank, trial in enumerate(order)
        ]
        found = allot(asking, self._cluster.workers, self._cluster.rule, settle_s=self._cluster.settle)
        for trial in order:
            workers = found.workers[f"{trial.number:04d}"]
            if trial.has and workers != trial.has:
                trial.left += self._cluster.settle
            trial.has = workers
