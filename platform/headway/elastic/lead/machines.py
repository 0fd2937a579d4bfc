"""What a run's machines do, on the recorder's side: their keepers are asked now and then (see `headway.core.nodes`).

A run without keepers has the machine of its recorder alone. Nobody waits for this, and where it fails figures are
missing.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from headway.core import nodes
from headway.elastic.wire import keepers

EVERY_S = nodes.LEAST_S
CLOSE_S = 3.0
FRESH_S = 2.0
"""Runs of a sweep have the same machines: what one has heard so lately, the others need not ask."""

Asked = tuple[str, int, str]
"""A keeper: host, port, token."""
OWN: Asked = ("", 0, "")
"""The machine of this process."""

_heard: dict[Asked, tuple[float, dict[str, Any]]] = {}


class Machines:
    """Asks, in a thread of its own.

    Args:
        began: Unix seconds, when the run was made.
        asked: gives whom to ask.
        tell: takes the newest figures (`headway.core.nodes.Nodes.newest`) and, when it is time for them, those of an
            interval (`Nodes.line`), or None; called in the thread.
    """

    def __init__(
        self,
        began: float,
        asked: Callable[[], Sequence[Asked]],
        tell: Callable[[dict[str, dict[str, float]], dict[str, Any] | None], None],
    ) -> None:
        self._asked, self._tell = asked, tell
        self._nodes = nodes.Nodes(began)
        self._over = threading.Event()
        self._lock, self._ended = threading.Lock(), False
        self._thread = threading.Thread(target=self._work, name="machines", daemon=True)

    def start(self) -> None:
        """Begin to ask."""
        self._thread.start()

    def close(self) -> None:
        """Ask once more, and end: nothing is told afterwards, though one that was asked may still be silent."""
        self._over.set()
        if self._thread.ident is not None:
            self._thread.join(CLOSE_S)
        with self._lock:
            self._ended = True

    def _work(self) -> None:
        over = False
        while not over:
            over = self._over.is_set()
            with contextlib.suppress(Exception):  # whatever it is: figures are missing, and it is tried again
                self._look(over)
            self._over.wait(EVERY_S)

    def _look(self, over: bool) -> None:
        found = _answers(list(self._asked())[: nodes.MOST])
        if not found:
            return
        at = time.time()
        self._nodes.take({reading["key"]: reading for reading in found}, at)
        line = self._nodes.line(at) if over or self._nodes.due(at) else None
        with self._lock:
            if not self._ended:
                self._tell(self._nodes.newest(), line if line is not None and line["nodes"] else None)


def _answers(asked: Sequence[Asked]) -> list[dict[str, Any]]:
    """Of those that give one."""
    if len(asked) <= 1:
        found = [_answer(each) for each in asked]
    else:
        with ThreadPoolExecutor(min(len(asked), keepers.AT_ONCE), "ask-keepers") as threads:
            found = list(threads.map(_answer, asked))
    return [each for each in found if each is not None]


def _answer(asked: Asked) -> dict[str, Any] | None:
    at, found = _heard.get(asked, (-FRESH_S, {}))
    if found and time.monotonic() - at < FRESH_S:
        return found
    host, port, token = asked
    with contextlib.suppress(Exception):  # of sockets, of what another release answers, of a library for machines
        if asked == OWN:
            from headway.tracking import system

            return system.reading()
        found = keepers.measure((host, port), token)
        if len(_heard) > nodes.MOST:
            _heard.clear()
        _heard[asked] = time.monotonic(), found
        return found
    return None
