"""Common beginnings are run once: a run that has not begun follows the one that it begins like.

As long as both are the same, what was evaluated of the one is what would be evaluated of the other. Where they part,
the follower begins with the other's checkpoint; and where the other will never come there, with the newest it has.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from headway.core.prefix import Course, common
from headway.storage.protocol import OutOfReach
from headway.sweeps.company import Company, Run
from headway.sweeps.crew import Origin
from headway.sweeps.events import Values


@dataclass
class _Known:
    """A run as others begin like it.

    Args:
        course: what it computes.
        source, parts: the run before it that it has most in common with, of several the first, and after how many
            steps they part; itself and 0 where there is none.
        evaluated: by step.
        begun: it has a state of its own.
        follows: up to a gate that it is to come to.
    """

    run: Run
    course: Course
    source: _Known = field(init=False, repr=False)
    parts: int = 0
    evaluated: dict[int, Values] = field(default_factory=dict)
    begun: bool = False
    follows: int | None = None

    def __post_init__(self) -> None:
        self.source = self


class Following:
    """See the module.

    Args:
        company: of all runs.
        saved: gives the steps of a run's checkpoints.
        passed: told of evaluations that a follower would have had: run, step, values, whether it stands there.
    """

    def __init__(
        self,
        company: Company,
        saved: Callable[[str], Collection[int]],
        passed: Callable[[Run, int, Values, bool], None],
    ) -> None:
        self._company, self._saved, self._passed = company, saved, passed
        self._known: dict[str, _Known] = {}
        company.prepare = self._prepare

    def add(self, run: Run, course: Course, evaluated: Mapping[int, Values]) -> None:
        """There is such a run, which has recorded that. Those that were there before it are the ones that it may
        follow."""
        new = _Known(run, course, evaluated=dict(evaluated), begun=bool(evaluated))
        for each in self._known.values():  # once and for all: that walks along the schedules, step by step
            if (steps := common(each.course, course)) > new.parts:
                new.source, new.parts = each, steps
        self._known[run.name] = new
        for known in self._known.values():
            if known.begun and known.run.state == "waits":  # it has not begun yet, and may save for this one too
                known.run.save_at = self.save_at(known.run)

    def go(self, run: Run, until: int) -> None:
        """Let a run come to a gate: by itself, or behind another."""
        known = self._known[run.name]
        known.run.until = until
        if known.begun or not known.parts:
            self._begin(known, until, None)
        else:
            known.follows = until
            self._look(known)

    def evaluated(self, run: Run, step: int, values: Values) -> None:
        """A run was evaluated."""
        self._known[run.name].evaluated[step] = values

    def forget(self, run: Run) -> None:
        """It does not follow any more: it was paused, or is over."""
        self._known[run.name].follows = None

    def look(self) -> None:
        """Whoever follows may be able to go on."""
        for known in [each for each in self._known.values() if each.follows is not None]:
            self._look(known)

    def save_at(self, run: Run) -> tuple[int, ...]:
        """Steps of a run with which others are to begin."""
        mine = self._known[run.name]
        others = (each for each in self._known.values() if each is not mine and not each.begun)
        found = {each.parts for each in others if each.source is mine}
        return tuple(sorted(found))  # behind it, too: where it keeps one of those, it is to keep it

    def _look(self, known: _Known) -> None:
        with suppress(OutOfReach):  # it is looked again soon
            self._follow(known)

    def _follow(self, known: _Known) -> None:
        assert known.follows is not None
        source, parts = known.source, known.parts
        until, run = known.follows, known.run
        evaluated = self._evaluated(source)
        for step in sorted(evaluated):
            if run.step < step <= min(until, parts):
                run.step = step
                stands = step == until
                if stands:
                    known.follows = None
                self._passed(run, step, evaluated[step], stands)
                if stands:
                    return
        goal = min(until, parts)
        if until > parts and parts in (there := self._saved(source.run.name)):
            self._begin(known, until, Origin(source.run.name, parts))
        elif not self._comes(source, goal, until > parts):
            there = [step for step in self._saved(source.run.name) if run.step <= step <= goal]
            self._begin(known, until, Origin(source.run.name, max(there)) if there else None)

    def _evaluated(self, known: _Known) -> dict[int, Values]:
        """By step: of a run itself, and of those that it begins like."""
        found, parts = dict(known.evaluated), math.inf
        while known.source is not known:
            parts, known = min(parts, known.parts), known.source
            found = {**{step: values for step, values in known.evaluated.items() if step <= parts}, **found}
        return found

    def _comes(self, source: _Known, goal: int, saved: bool) -> bool:
        """Whether it is on its way there, or was just there and writes its checkpoint."""
        run = source.run
        if source.follows is not None:
            return source.follows >= goal
        on_its_way = run.state in ("waits", "trains") or (run.state in ("stands", "leaves") and saved)
        keeps = not saved or run.state == "waits" or goal in run.save_at or run.until == goal
        return on_its_way and run.until >= goal and keeps

    def _begin(self, known: _Known, until: int, origin: Origin | None) -> None:
        known.begun, known.follows, run = True, None, known.run
        run.origin = origin
        if origin is not None:
            run.step = origin.step
        self._company.go(run, until)

    def _prepare(self, run: Run) -> None:
        """It begins now: whoever is known by now may begin with what it keeps."""
        run.save_at = self.save_at(run)
