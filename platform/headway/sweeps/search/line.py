"""Who is asked by a searcher's turn: one that says nothing at the moment is asked again when it has heard more."""

from __future__ import annotations

from headway.sweeps.events import Ask, Suggested, Tell
from headway.sweeps.search.protocol import NotNow, Searcher


class Line:
    """Asks and tells a searcher. What it is called for follows from what it says and the words before alone, so that a
    sweep that is taken up again comes to the same.

    Args:
        searcher: a new one.
        held: trials that it was asked for and said nothing yet.
    """

    def __init__(self, searcher: Searcher, held: list[int] | None = None) -> None:
        self._searcher = searcher
        self.held = list(held or [])

    def do(self, action: Ask | Tell) -> list[Suggested]:
        """Ask or tell it; gives what it suggests, for this trial or for those that it was asked for before."""
        if isinstance(action, Ask):
            self.held.append(action.trial)
            return self._answers() if len(self.held) == 1 else []
        self._searcher.told(action.trial, action.step, action.value, action.final)
        return self._answers()

    def give_up(self, trial: int) -> None:
        """It has none for this one."""
        if trial in self.held:
            self.held.remove(trial)

    def _answers(self) -> list[Suggested]:
        found: list[Suggested] = []
        while self.held:
            try:
                found.append(Suggested(self.held[0], self._searcher.suggest(self.held[0])))
            except NotNow:
                break
            del self.held[0]
        return found
