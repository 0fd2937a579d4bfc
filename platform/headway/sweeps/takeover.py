"""Runs that go on with another's weights, as in population based training: what they take is there, and stays until
they have it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable, Sequence

from headway.sweeps.company import Company, Run
from headway.sweeps.course import Turn
from headway.sweeps.crew import Passed
from headway.sweeps.events import Action, Clone


class Takeovers:
    """See the module.

    Args:
        company: of all runs.
        saved: gives the steps of a run's checkpoints.
    """

    def __init__(self, company: Company, saved: Callable[[str], Collection[int]]) -> None:
        self._company, self._saved = company, saved
        self._numbers = itertools.count(1)
        self._decided: dict[str, int] = {}
        """In which order it was decided who takes over another's."""
        self._unsaved: list[tuple[Run, Passed]] = []
        company.may_begin = self._may_begin

    def decided(self, run: Run) -> None:
        """It is to go on with its origin's state."""
        self._decided[run.name] = next(self._numbers)

    def _may_begin(self, run: Run) -> bool:
        """One that begins anew lets its own later states go, which others may be to take; and one whose source is to
        begin anew itself takes what the source has then. Whoever was decided upon first goes first."""
        if run.origin is None or run.origin.exact:
            return True
        mine = self._decided.get(run.name, 0)
        return not any(
            run.name == other.origin.run or run.origin.run == other.name
            for other in self._company.runs.values()
            if other.origin is not None and not other.origin.exact
            if other.state in ("waits", "leaves") and self._decided.get(other.name, 0) < mine
        )

    # What is told of a run is heard when its state is safe: from then on others may take it

    def is_early(self, run: Run, news: Passed) -> bool:
        """Whether what a run is at is to be heard later, see `due`: its state is being written."""
        waits = any(each is run for each, _ in self._unsaved)
        taken = news.stands and news.step in run.keeps
        if not waits and (not taken or news.step in self._saved(run.name)):
            return False
        self._unsaved.append((run, news))
        return True

    @property
    def waits(self) -> bool:
        return bool(self._unsaved)

    def due(self) -> list[tuple[Run, Passed]]:
        """What is to be heard now."""
        newest = {run.name: max(self._saved(run.name), default=0) for run, _ in self._unsaved}
        unsaved, self._unsaved = self._unsaved, []
        due: list[tuple[Run, Passed]] = []
        for run, news in unsaved:
            (due if news.step <= newest[run.name] else self._unsaved).append((run, news))
        return due

    def left(self, run: Run, comes_again: bool) -> list[tuple[Run, Passed]]:
        """It has left: what is to be heard of it. comes_again: it goes on from what is saved, and tells the rest once
        more."""
        of_it = [each for each in self._unsaved if each[0] is run]
        self._unsaved = [each for each in self._unsaved if each[0] is not run]
        if not of_it or not comes_again:
            return of_it
        newest = max(self._saved(run.name), default=0)
        return [(run, news) for _, news in of_it if news.step <= newest]


def in_order(actions: Iterable[Action], before: Sequence[Turn]) -> list[Action]:
    """What is to be done anew, takeovers in the order in which the book has them."""
    last = {
        action.trial: (turn.number, place)
        for turn in before
        for place, action in enumerate(turn.actions)
        if isinstance(action, Clone)
    }
    return sorted(actions, key=lambda each: last.get(each.trial, (0, 0)) if isinstance(each, Clone) else (0, 0))
