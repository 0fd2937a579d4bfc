"""How the run is, said again and again while it is led (see `headway.runs.now`)."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from headway.runs import epochs, now
from headway.runs.now import Now

LATELY = 5
"""Things that happened, and are said."""
MINUTE_S = 60.0
CLOSE_S = 5.0
BEGINS = "for Ray Train to begin"
"""Until it is heard what the workers do."""


def per_second(steps: deque[tuple[float, int]], within_s: float) -> tuple[float, float]:
    """Rows and steps per second over the latest of (Unix seconds, rows) of each step; zeros where that is not known."""
    known = list(steps)  # at once, since another thread adds to it
    if len(known) < 2:
        return 0.0, 0.0
    newest = known[-1][0]
    lately = [(at, rows) for at, rows in known if newest - at <= within_s]
    span = newest - lately[0][0]
    if span <= 0:
        return 0.0, 0.0
    return sum(rows for _, rows in lately[1:]) / span, (len(lately) - 1) / span


def step_s(steps: deque[tuple[float, int]], within_s: float) -> float:
    """Seconds of a step, by the same; of those that take longer than `within_s`, by the newest. 0: unknown."""
    _, rate = per_second(steps, within_s)
    newest = [at for at, _ in list(steps)[-2:]]
    return 1.0 / rate if rate > 0 else max(0.0, newest[-1] - newest[0]) if newest else 0.0


class Standing:
    """Written by a thread of its own, at most every two seconds; where that fails, it is only not said.

    Args:
        folder: of the run, or its working copy.
        epoch: in which the run is led; 0 where nobody else could.
        trouble: gives what goes wrong at the moment, or nothing.
        steps: (Unix seconds, rows) of the latest steps.
        lately: what happened last in the starts before.
    """

    def __init__(
        self,
        folder: Path,
        epoch: int,
        trouble: Callable[[], str],
        steps: deque[tuple[float, int]],
        lately: Iterable[tuple[float, str]] = (),
    ) -> None:
        self._folder, self._epoch, self._trouble, self._steps = folder, epoch, trouble, steps
        self._waits, self._more, self._since = BEGINS, "", time.time()
        self._lately: deque[tuple[float, str]] = deque(((at, text) for at, text in lately), LATELY)
        self._account: dict[str, Any] = {}
        self._said: Now | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work, name="standing", daemon=True)

    def start(self) -> None:
        """Begin to say it."""
        self._thread.start()

    def account(self, event: dict[str, Any]) -> None:
        """Of all workers so far: `workers` and `goodput`."""
        self._account = event

    def waits(self, reason: str, more: str = "") -> None:
        """Nobody trains, for this reason; "" says that somebody does. more: why no more do."""
        self._more = more
        if reason != self._waits:
            self._waits, self._since = reason, time.time()

    @property
    def why(self) -> str:
        """Nobody trains, for this reason; empty while somebody does."""
        return self._waits

    def happened(self, text: str) -> None:
        """Something of which people are told."""
        self._lately.append((time.time(), text))

    def close(self) -> list[tuple[float, str]]:
        """The run is at its end, and says nothing more. Returns what happened lately."""
        self._over.set()
        if self._thread.ident is not None:
            self._thread.join(CLOSE_S)
        with suppress(OSError, epochs.Superseded):
            self._verify()
            (self._folder / now.FILE).unlink(missing_ok=True)
        return list(self._lately)

    def _now(self) -> Now:
        account, (_, rate) = self._account, per_second(self._steps, MINUTE_S)
        return Now(
            at=time.time(),
            workers=int(account.get("workers", 0)),
            goodput=round(account["goodput"], 4) if account else None,
            steps_per_s=round(rate, 4) or None,
            waits=self._waits,
            since=self._since,
            trouble=self._trouble() or self._more,
            lately=tuple(self._lately),
        )

    def _work(self) -> None:
        while True:
            found = self._now()
            old = self._said
            if old is None or found.at - old.at >= now.LEAST_S or not found.alike(old):
                self._say(found)
            if self._over.wait(now.EVERY_S):
                return

    def _say(self, found: Now) -> None:
        try:
            self._verify()
            now.write(self._folder, found)
        except (OSError, epochs.Superseded):  # the next time, or another process says how the run is
            return
        self._said = found

    def _verify(self) -> None:
        """Raises Superseded, OSError."""
        if self._epoch:
            epochs.verify(self._folder, self._epoch)
