"""The searcher, in a thread of its own: asked and told in exactly the order in which the loop says so."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence

from headway.sweeps.events import Ask, Suggested, Tell
from headway.sweeps.search.line import Line
from headway.sweeps.search.protocol import Searcher


class Asking:
    """See the module. One that takes its time holds nobody up.

    Args:
        searcher: called from the thread alone.
        answer: takes what it suggests; called in the thread.
        failed: takes what it raised, which is its last word; likewise.
        held: trials that it was asked for before, and said nothing yet.
    """

    def __init__(
        self,
        searcher: Searcher,
        answer: Callable[[Suggested], None],
        failed: Callable[[BaseException], None],
        held: Sequence[int] = (),
    ) -> None:
        self._line, self._answer, self._failed = Line(searcher, list(held)), answer, failed
        self._tasks: queue.Queue[Ask | Tell | int | None] = queue.Queue()
        self._given = self._done = 0
        self._thread = threading.Thread(target=self._run, name="searcher", daemon=True)
        self._thread.start()

    def do(self, action: Ask | Tell) -> None:
        """Ask or tell it, after all that was said before. Returns at once."""
        self._given += 1
        self._tasks.put(action)

    def give_up(self, trial: int) -> None:
        """It is not asked for this one any more."""
        self._given += 1
        self._tasks.put(trial)

    @property
    def waits(self) -> bool:
        """Whether it has heard all, and has nothing to say before it hears more."""
        return self._done == self._given and bool(self._line.held)

    def close(self, within_s: float = 1.0) -> None:
        """Nothing more is asked; what it is busy with is not waited for any longer than that."""
        self._tasks.put(None)
        self._thread.join(within_s)

    def _run(self) -> None:
        while (action := self._tasks.get()) is not None:
            try:
                self._act(action)
            except BaseException as error:  # told to whoever leads the sweep
                self._failed(error)
                return
            self._done += 1

    def _act(self, action: Ask | Tell | int) -> None:
        if isinstance(action, int):
            self._line.give_up(action)
            return
        for said in self._line.do(action):
            self._answer(said)
