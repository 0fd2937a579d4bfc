"""How long this process was kept from running while a test measures: a promise of time is the code's, and a busy
machine breaks it for everybody. What code waits for of itself is no stall."""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Self

STEP_S = 0.005
_now, _sleep = time.monotonic, time.sleep  # tests may put others in their place


class Stalls:
    """A thread beside the measured one, which wants to wake all the time and counts by how much it is late.

    with Stalls() as stalls:
        begun = time.monotonic()
        ...
        took_s = time.monotonic() - begun - stalls.lost_s(begun)
    """

    def __init__(self) -> None:
        self._late: list[tuple[float, float]] = []
        """When it woke, and how late."""
        self._wants = _now() + STEP_S
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="stalls", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def lost_s(self, since: float) -> float:
        """Seconds since then that were lost, to be called while it watches. since: of time.monotonic()."""
        now, wants = _now(), self._wants
        return sum(min(late, woke - since) for woke, late in list(self._late) if woke > since) + max(0.0, now - wants)

    def _watch(self) -> None:
        while not self._over.is_set():
            self._wants = _now() + STEP_S
            _sleep(STEP_S)
            woke = _now()
            self._late.append((woke, max(0.0, woke - self._wants)))
