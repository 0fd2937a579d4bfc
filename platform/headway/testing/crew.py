"""A sweep's crew that makes its numbers up: a clock of its own, workers that come and go, runs that fail, a driver that
dies at any moment. What `headway.elastic.crew` does in minutes is done here in no time.

    ground = Ground()                                     # what outlives the driver: runs, their states and evaluations
    crew = FakeCrew(ground, workers=4, curve=lambda settings, step: {"accuracy": ...})
    crew.at(12.0, lambda: crew.lose(1))
    crew.dies_after(7)                                    # of its words with this driver the seventh is the last
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from headway.errors import BadInput
from headway.sweeps.crew import Crew, Holds, Left, Leg, News, Origin, Passed, Said, Sized

Curve = Callable[[Mapping[str, Any], int], Mapping[str, float]]
"""Validation metrics of a trial's settings after so many steps."""


MOST_NEWS = 20_000
"""A driver that asks more often than that does not come to an end."""


class Died(BaseException):
    """The driver was killed: nothing that it would have done next is done."""


class Twice(AssertionError):
    """Something was run that was run before, or that is over."""


@dataclass
class Record:
    """A run, as its folder tells of it.

    Args:
        settings: of its trial.
        length, every: its steps, and those between its evaluations.
        saved: steps after which its state is kept, the newest last.
        evaluations: by step.
        over: why it never goes on; empty where it may.
        done: how often each step was computed.
        lineage: whose state it took over, and when.
        closed: it says itself that it does not go on at the moment.
    """

    settings: Mapping[str, Any]
    length: int
    every: int
    saved: list[int] = field(default_factory=list)
    evaluations: dict[int, dict[str, float]] = field(default_factory=dict)
    over: str = ""
    done: dict[int, int] = field(default_factory=dict)
    lineage: list[tuple[str, int, int]] = field(default_factory=list)
    legs: int = 0
    closed: bool = False

    @property
    def repeated(self) -> int:
        """Steps that were computed more than once."""
        return sum(times - 1 for times in self.done.values() if times > 1)


@dataclass
class Ground:
    """What outlives a driver: the runs, by name."""

    runs: dict[str, Record] = field(default_factory=dict)


@dataclass
class _Active:
    """A run that has workers, or waits for some."""

    leg: Leg
    record: Record
    step: int
    until: int
    workers: int = 0
    wanted: int = 1
    stands: bool = False
    since: float = 0.0
    """When the step that is under way began."""
    version: int = 0
    leaving: str = ""
    said: int = -1


class FakeCrew(Crew):
    """See the module.

    Args:
        ground: where the runs are.
        workers: of the cluster.
        curve: NaN in what it gives is a divergence.
        step_s: of one worker; k workers take the k-th part, up to the job's lanes.
        noise: share by which a step's seconds vary.
        start_s: until a run that is begun trains.
        fails: by trial: the step in which it fails, and the kind of failure (`UserCodeFailed`, `NonFiniteLoss`, …).
        breaks: by trial: how often it fails for the platform's sake, each time in its next step.
        saves_every: steps between checkpoints besides those of who leaves; None: only then, and where a leg says so.
        late_s: until what a leg is to keep for others is there, once it is told of.
        ends: by run: the step after which it is at its end by its own account, before its length.
        seed: of the noise.
    """

    def __init__(
        self,
        ground: Ground,
        workers: int,
        curve: Curve,
        step_s: float = 1.0,
        noise: float = 0.0,
        start_s: float = 0.5,
        fails: Mapping[int, tuple[int, str]] | None = None,
        breaks: Mapping[int, int] | None = None,
        saves_every: int | None = None,
        late_s: float = 0.0,
        ends: Mapping[str, int] | None = None,
        seed: int = 0,
    ) -> None:
        self.ground, self._curve = ground, curve
        self.now = 0.0
        self._step_s, self._noise, self._start_s = step_s, noise, start_s
        self._fails, self._breaks, self._saves_every = dict(fails or {}), dict(breaks or {}), saves_every
        self._late_s, self._ends = late_s, dict(ends or {})
        self._draw = random.Random(seed)
        self._cluster, self._wanted = workers, workers
        self._active: dict[str, _Active] = {}
        self._news: list[News] = []
        self._later: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._left_to_say = math.inf
        self._asked_for_news = 0
        self.held_s = 0.0
        """Worker-seconds of runs so far."""
        self._push(Sized(self.size))

    @property
    def size(self) -> int:
        """Workers that are there."""
        return min(self._cluster, self._wanted)

    @property
    def free(self) -> int:
        return self.size - sum(run.workers for run in self._active.values())

    # What a test does to it

    def at(self, seconds: float, do: Callable[[], None]) -> None:
        """Do something at that moment of its clock."""
        heapq.heappush(self._later, (seconds, next(self._order), do))

    def lose(self, workers: int = 1) -> None:
        """Machines are gone; whose all are gone goes back to its checkpoint, and waits."""
        self._cluster = max(0, self._cluster - workers)
        for run in reversed(self._active.values()):
            while self.free < 0 and run.workers:
                run.workers -= 1
                if not run.workers:
                    self._set_back(run)
        self._resized()

    def join(self, workers: int = 1) -> None:
        """Machines come."""
        self._cluster += workers
        self._resized()

    def dies_after(self, words: int) -> None:
        """Let the driver hear so many more of its news, or say so many words, and then raise Died: in the middle of
        what it does."""
        self._left_to_say = words

    # What a driver asks of it

    def want(self, workers: int) -> None:
        self._wanted = workers
        self._resized()

    def begin(self, leg: Leg) -> None:
        self._word()
        if leg.run in self._active:
            raise Twice(f"{leg.run} is under way")
        record = self._record(leg)
        if record.over in ("finished", "stopped") and leg.run not in self._ends:  # those say again that they are over
            raise Twice(f"{leg.run} is {record.over}")
        record.over, record.closed = "", False
        step = max((at for at in record.saved), default=0)
        run = _Active(leg, record, step, leg.until, wanted=max(1, leg.workers))
        self._active[leg.run] = run
        record.legs += 1
        self._seat()

    def go_on(self, run: str, until: int) -> None:
        self._word()
        active = self._active[run]
        if until <= active.until:  # as a gate does
            return
        if not active.stands:
            raise Twice(f"{run} does not stand")
        active.until, active.stands = until, False
        self._next_step(active)

    def leave(self, run: str, why: str) -> None:
        self._word()
        active = self._active.get(run)
        if active is None or active.leaving:
            return
        active.leaving = why
        if active.stands or not active.workers:
            self._leave(active)

    def resize(self, run: str, workers: int) -> None:
        self._word()
        active = self._active.get(run)
        if active is not None:
            active.wanted = workers
            if active.workers > workers:
                active.workers = workers
            self._seat()
            self._holds()

    def news(self, timeout_s: float) -> Sequence[News]:
        self._asked_for_news += 1
        if self._asked_for_news > MOST_NEWS:
            raise AssertionError("nothing comes of it")
        deadline = self.now + timeout_s
        while not self._news and self._later and self._later[0][0] <= deadline:
            at, _, do = heapq.heappop(self._later)
            self._pass_to(at)
            do()
        if not self._news:
            self._pass_to(deadline)
            return []
        if self._left_to_say <= 0:
            raise Died
        said = self._news[: int(min(self._left_to_say, len(self._news)))]
        del self._news[: len(said)]
        self._left_to_say -= len(said)
        return said

    def close(self) -> None:
        self._active.clear()
        self._later.clear()

    def _take_over(self, record: Record, origin: Origin, settings: dict[str, Any]) -> None:
        source, before = self.ground.runs[origin.run], [(run, step) for run, step, _ in record.lineage]
        has_it = not origin.exact and before[-1:] == [(origin.run, origin.step)] and record.settings == settings
        if not has_it:
            if origin.step not in source.saved:
                raise Twice(f"{origin.run} has no state of step {origin.step}: {source.saved}")
            record.lineage.append((origin.run, origin.step, len(record.evaluations)))
        record.settings, record.saved = settings, [origin.step]
        record.evaluations.clear()
        if origin.exact:
            record.evaluations.update(each for each in source.evaluations.items() if each[0] <= origin.step)

    def _word(self) -> None:
        if self._left_to_say <= 0:
            raise Died
        self._left_to_say -= 1

    # How it goes on

    def _record(self, leg: Leg) -> Record:
        settings = dict((leg.facts.get("sweep") or {}).get("settings") or {})
        length = leg.job.steps
        if length is None:
            raise BadInput("steps", "a made-up crew knows no epochs", "Give steps.")
        every = leg.job.evaluate_every_steps or length
        record = self.ground.runs.get(leg.run)
        if record is None:
            record = self.ground.runs[leg.run] = Record(settings, self._ends.get(leg.run, length), every)
        elif record.settings != settings and (leg.origin is None or leg.origin.exact):
            raise Twice(f"{leg.run} has other settings: {record.settings}, and now {settings}")
        if leg.origin is not None:
            self._take_over(record, leg.origin, settings)
        return record

    def _seat(self) -> None:
        """Free workers go to the runs that want them, the first come first."""
        for run in self._active.values():
            given = min(self.free, run.wanted - run.workers)
            if given > 0:
                first, run.workers = not run.workers, run.workers + given
                if first:
                    run.version += 1
                    self._after(self._start_s, run, lambda run=run: self._train(run))  # type: ignore[misc]
        self._holds()

    def _train(self, run: _Active) -> None:
        """It has workers, and is where its state is."""
        if run.step >= run.until or run.step >= run.record.length:
            self._stand(run)
        else:
            self._next_step(run)

    def _next_step(self, run: _Active) -> None:
        run.version += 1
        fast = min(run.workers, run.leg.job.lanes)
        varied = 1.0 + self._noise * (2.0 * self._draw.random() - 1.0)
        # as far as nothing can happen at once, by whole stretches: many steps are one event
        end = min(run.until, run.record.length, (run.step // run.record.every + 1) * run.record.every)
        end = min([end, *(step for step in run.leg.save_at if step > run.step)])
        if run.leg.run in self._troubled(run):
            end = min(end, run.step + 1)
        run.since = self.now
        self._after((end - run.step) * self._step_s * varied / max(1, fast), run, lambda: self._did(run, end))

    def _troubled(self, run: _Active) -> set[str]:
        """Runs whose very next step may fail."""
        trial = self._trial(run)
        at = self._fails.get(trial, (0, ""))[0]
        return {run.leg.run} if self._breaks.get(trial) or (at and at > run.step) else set()

    def _did(self, run: _Active, step: int) -> None:
        """The stretch up to this step is committed."""
        trial = self._trial(run)
        if self._breaks.get(trial):
            self._breaks[trial] -= 1
            self._fail(run, "HeadwayFault", "the disk is on fire")
            return
        at, kind = self._fails.get(trial, (0, ""))
        if at == step:
            self._fail(run, kind, "the task raised ValueError in step {step}")
            return
        for each in range(run.step + 1, step + 1):
            run.record.done[each] = run.record.done.get(each, 0) + 1
        run.step = step
        every = self._saves_every
        if step in run.leg.save_at and self._late_s:
            self._after(self._late_s, run, lambda: self._save(run, step))
        elif step in run.leg.save_at or (every and step // every > max(run.record.saved, default=0) // every):
            self._save(run)
        if step % run.record.every == 0 or step == run.record.length:
            self._evaluate(run)
        if run.leaving:
            self._leave(run)
        elif step >= run.until or step >= run.record.length:
            self._stand(run)
        else:
            self._next_step(run)

    def _evaluate(self, run: _Active) -> None:
        values = dict(self._curve(run.record.settings, run.step))
        run.record.evaluations[run.step] = values
        whole = run.leg.job.steps or run.record.length
        if run.step < min(run.until, whole):  # its loop's own end it does not know yet
            self._push(Passed(run.leg.run, run.step, values, stands=False))

    def _stand(self, run: _Active) -> None:
        if run.step not in run.record.evaluations:
            run.record.evaluations[run.step] = dict(self._curve(run.record.settings, run.step))
        if run.step >= run.record.length:
            self._save(run)
        run.stands = True
        self._push(Passed(run.leg.run, run.step, dict(run.record.evaluations[run.step]), stands=True))
        if run.step >= run.record.length:
            run.leaving = "finished"
        if run.leaving:
            self._leave(run)

    def _save(self, run: _Active, step: int | None = None) -> None:
        step = run.step if step is None else step
        if step not in run.record.saved:
            run.record.saved.append(step)

    def _leave(self, run: _Active) -> None:
        self._save(run)
        if run.leaving != "paused":
            run.record.over = run.leaving
        self._gone(run)
        self._push(Left(run.leg.run, run.step, run.leaving))

    def _fail(self, run: _Active, kind: str, fact: str) -> None:
        if kind != "HeadwayFault":
            run.record.over = "failed"
        self._gone(run)
        said = {"kind": kind, "fact": fact.format(step=run.step), "reason": "", "remedy": "", "traceback": ""}
        self._push(Left(run.leg.run, run.step, "failed", said))

    def _gone(self, run: _Active) -> None:
        run.version += 1
        run.record.closed = True
        self._active.pop(run.leg.run, None)
        self._seat()

    def _set_back(self, run: _Active) -> None:
        """All its workers are lost."""
        run.version += 1
        run.step, run.stands = max(run.record.saved, default=0), False
        self._push(Said(run.leg.run, "lost all its workers"))

    def _resized(self) -> None:
        self._push(Sized(self.size))
        self._seat()

    def _holds(self) -> None:
        held = {name: run.workers for name, run in self._active.items() if run.workers}
        steps = {name: run.step for name, run in self._active.items()}
        self._push(Holds(held, steps, {"compute": self.held_s}))

    def _push(self, news: News) -> None:
        if isinstance(news, Holds) and self._news and isinstance(self._news[-1], Holds):
            self._news.pop()
        self._news.append(news)

    def _after(self, seconds: float, run: _Active, do: Callable[[], None]) -> None:
        version = run.version

        def still() -> None:
            if run.version == version:
                do()

        self.at(self.now + seconds, still)

    def _pass_to(self, at: float) -> None:
        self.held_s += max(0.0, at - self.now) * sum(run.workers for run in self._active.values())
        self.now = max(self.now, at)

    def _trial(self, run: _Active) -> int:
        return int((run.leg.facts.get("sweep") or {}).get("trial", 0))
