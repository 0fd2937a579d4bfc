"""What the runs of a sweep have recorded and kept, as the place says where they are."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TypeVar

from headway import runs
from headway.errors import BadInput
from headway.runs.place import Place
from headway.storage.protocol import OutOfReach

LOOK_S = 5.0
"""A store is asked about one run no more often than that."""
AGAIN_S, MOST_S, PATIENCE_S = 1.0, 15.0, 600.0
"""Of a store that does not answer: when it is asked again, twice as late every time, and for how long."""
T = TypeVar("T")


class Looking:
    """See the module. For one thread.

    Args:
        place: of the runs.
        wait: for some seconds; gives whether to give up.
        say: takes a line for people.
        now: seconds on a clock that only goes on.
    """

    def __init__(
        self,
        place: Place,
        wait: Callable[[float], bool],
        say: Callable[[str], None],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._place, self._wait, self._say, self._now = place, wait, say, now
        self._seen: dict[str, tuple[float, list[int] | OutOfReach]] = {}

    def recorded(self, run: str) -> list[tuple[int, dict[str, float]]]:
        """The evaluations that a run has recorded, in order; none of one that is not there. Waits for a store that does
        not answer. Raises OutOfReach."""
        return self._patiently(partial(_recorded, self._place, run))

    def finished(self, run: str) -> bool:
        """Whether a run says that it has finished: what it trained is kept. Likewise."""
        return self._patiently(partial(_finished, self._place, run))

    def saved(self, run: str) -> list[int]:
        """The steps of a run's checkpoints, as they were some seconds ago; none of one that is not there. Waits for
        nothing. Raises OutOfReach."""
        if self._place.url is None:
            return _saved(self._place, run)
        at, found = self._seen.get(run, (None, []))
        if at is None or self._now() - at >= LOOK_S:
            try:
                found = _saved(self._place, run)
            except OutOfReach as error:
                found = error
            self._seen[run] = self._now(), found
        if isinstance(found, OutOfReach):
            raise found
        return found

    def _patiently(self, ask: Callable[[], T]) -> T:
        until, wait_s = self._now() + PATIENCE_S, AGAIN_S
        while True:
            try:
                return ask()
            except OutOfReach as error:
                if self._now() >= until:
                    raise
                self._say(f"{self._place} does not answer, and is asked again in {wait_s:g} s: {error}")
                if self._wait(wait_s):
                    raise
                wait_s = min(MOST_S, 2 * wait_s)


def _recorded(place: Place, run: str) -> list[tuple[int, dict[str, float]]]:
    with suppress(BadInput):
        return [(each["step"], each["values"]) for each in runs.find(place, run).evaluations()]
    return []


def _saved(place: Place, run: str) -> list[int]:
    from headway.checkpoint import store

    with suppress(BadInput):
        found = runs.find(place, run)
        return [store.step_of(name) for name in store.names(found.checkpoint_root, found.counting)]
    return []


def _finished(place: Place, run: str) -> bool:
    with suppress(BadInput):
        return runs.find(place, run).read().get("state") == "finished"
    return False
