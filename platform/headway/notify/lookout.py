"""Looks at a run every second while it is led, and has people told. A thread of its own; nothing waits for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from headway.core.alarms import Alarms, Seen, Word, ended
from headway.notify.addresses import Address
from headway.notify.forms import About, tree
from headway.notify.sender import Sender

EVERY_S = 1.0
CLOSE_S = 5.0
"""So long the end of a run waits for whoever is told of it, at most."""

Look = Callable[[], tuple[Seen, Mapping[str, Any]]]


class Lookout:
    """See the module. Without addresses it does nothing.

    Args:
        about: what is told of.
        addresses: that are told.
        look: gives how it is, and more facts for who is told; called in the thread.
        say: takes a line for people; likewise.
    """

    def __init__(
        self,
        about: About,
        addresses: Sequence[Address],
        look: Look,
        say: Callable[[str], None],
        every_s: float = EVERY_S,
    ) -> None:
        self._about, self._look, self._every_s = about, look, every_s
        self._senders = [(address, Sender(address, say)) for address in addresses]
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work, name="lookout", daemon=True)

    def start(self, left: str = "") -> None:
        """Begin to look. left: why the start before this one did not end in order, where nobody could tell that."""
        if not self._senders:
            return
        if left:
            self._tell([Word("stopped", f"{left}; it goes on now")])
        self._thread.start()

    def ended(self, state: str, message: str) -> None:
        """It is at its end."""
        self._over.set()
        if self._senders:
            seen, _ = self._look()
            self._tell(ended(state, message, seen), state=state)

    def close(self, timeout_s: float = CLOSE_S) -> list[str]:
        """Wait for what is being sent, so long at most. Returns what was never sent, in words."""
        self._over.set()
        until = time.monotonic() + timeout_s
        for _, sender in self._senders:
            sender.end(until)
        dropped = [(address.name, sender.close()) for address, sender in self._senders]
        return [f"{_words(count)} not sent to {name}" for name, count in dropped if count]

    def _work(self) -> None:
        seen, _ = self._look()
        at = time.monotonic()
        alarms = [(Alarms(address.limits, at, seen), sender) for address, sender in self._senders]
        while not self._over.wait(self._every_s):
            seen, facts = self._look()
            at = time.monotonic()
            for each, sender in alarms:
                for word in each.look(at, seen):
                    sender.add(tree(self._about, word, time.time(), facts))

    def _tell(self, words: Sequence[Word], **more: Any) -> None:
        _, facts = self._look()
        for word in words:
            told = tree(self._about, word, time.time(), {**facts, **more})
            for _, sender in self._senders:
                sender.add(told)


def _words(count: int) -> str:
    return "1 word was" if count == 1 else f"{count} words were"
