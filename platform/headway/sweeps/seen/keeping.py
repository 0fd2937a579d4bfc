"""Keeps what is seen of a sweep while it is led: for the terminal, the report, and MLflow."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from headway.sweeps.crew import Holds, News, Said, Sized
from headway.sweeps.events import Action, Event, Reported
from headway.sweeps.seen import history
from headway.sweeps.seen.history import History
from headway.sweeps.seen.sight import Sight
from headway.sweeps.seen.tracked import Tracked, Tracking
from headway.sweeps.seen.view import Subject, View

Watch = Callable[[View], None]

SHOW_EVERY_S = 0.25
HOLDS_EVERY_S = 5.0
"""Worker-seconds by cause are kept so often; who has how many workers, whenever that changes."""


class Seen:
    """What people see of one sweep. For one thread; `begin` makes it."""

    def __init__(
        self, sight: Sight, last: int, kept: History, tracked: Tracked | None, watch: Watch, clock: Callable[[], float]
    ) -> None:
        self._sight, self._history, self._tracked = sight, kept, tracked
        self.last = last
        """The number of the last event."""
        self._watch, self._clock = watch, clock
        self._shown_at = float("-inf")
        self._workers: Mapping[str, int] | None = None
        self._held_at = float("-inf")

    @classmethod
    def begin(
        cls,
        folder: Path,
        subject: Subject,
        tracking: Tracking | None = None,
        say: Callable[[str], None] | None = None,
        watch: Watch = lambda view: None,
        clock: Callable[[], float] = time.time,
    ) -> Seen:
        """Of a sweep that begins, or is taken up again.

        Args:
            folder: of the sweep, on this machine.
            tracking: where it is recorded, or None.
            say: takes lines about the records; into the view's messages where it is not given.
            watch: called with the view, some times a second, in the calling thread.
            clock: Unix seconds.
        """
        found = history.read(folder / history.FILE)
        sight, last = found if found is not None else (Sight(subject), 0)
        kept, at = History(folder / history.FILE), clock()
        sight.subject = subject
        sight.begun(at)
        kept.begun(at, subject)
        tracked = None
        if tracking is not None:
            tracked = Tracked(folder, tracking, say or sight.say)
            tracked.start()
        sight.view()  # what was said in earlier starts is said
        return cls(sight, last, kept, tracked, watch, clock)

    def heard(self, number: int, event: Event, actions: Iterable[Action]) -> None:
        """The loop heard this, and asked for that.

        Args:
            number: of the event in the sweep's book, from 1; what was seen already is passed over.
        """
        if number <= self.last:
            return
        at, actions = self._clock(), list(actions)
        self.last = number
        self._sight.heard(at, event, actions)
        self._history.heard(at, number, event, actions)
        if self._tracked is not None and (actions or isinstance(event, Reported)):
            self._tracked.show(number, self._sight.view(keep=True))
        self._show(at)

    def placed(self, actions: Iterable[Action]) -> None:
        """These place trials once more, of a sweep that is taken up again."""
        self._sight.placed(actions)
        self._show(self._clock())

    def news(self, news: Sequence[News]) -> None:
        """What the crew told. (The loop hears of what became of trials, and `heard` tells it.)"""
        at = self._clock()
        for each in news:
            if isinstance(each, Holds):
                self._hold(at, each)
            elif isinstance(each, Sized):
                self._sight.room = each.workers
            elif isinstance(each, Said):
                self._sight.say(f"{each.run}: {each.text}" if each.run is not None else each.text)
        self._show(at)

    def say(self, text: str) -> None:
        """A line for people, from any thread; it is shown with the next view."""
        self._sight.say(text)

    def close(self, state: str, message: str) -> None:
        """The sweep is at its end, or is left as it is; nothing more is heard."""
        at = self._clock()
        self._sight.over(at, state, message)
        self._history.over(at, state, message)
        self._history.close()
        self._watch(self._sight.view(at))

    def send(
        self, state: str, message: str, files: Mapping[str, str], tags: Mapping[str, Any], close_s: float
    ) -> dict[str, Any]:
        """The last records; waits so many seconds for the store, at most.

        Args:
            files: of the sweep's folder that MLflow is to keep, with the folder there.
            tags: of its run there.

        Returns:
            What became of the records in MLflow; empty without any.
        """
        if self._tracked is None:
            return {}
        self._tracked.show(self.last + 1, self._sight.view(keep=True))
        return self._tracked.end(state, message, files, tags, close_s)

    def view(self) -> View:
        """What is to be seen now."""
        return self._sight.view(self._clock(), keep=True)

    def _hold(self, at: float, holds: Holds) -> None:
        self._sight.holds(at, holds)
        if holds.workers != self._workers or at - self._held_at >= HOLDS_EVERY_S:
            self._workers, self._held_at = dict(holds.workers), at
            self._history.holds(at, holds)

    def _show(self, at: float) -> None:
        if at - self._shown_at >= SHOW_EVERY_S:
            self._shown_at = at
            self._watch(self._sight.view(at))
