"""Who called `headway cluster up`, as the host sees it: at the other end of a pipe, until the cluster is up."""

from __future__ import annotations

import json
import os
import select
import threading
from collections.abc import Callable
from typing import Any


class Caller:
    """Args:
    pipe: its descriptor, for writing.
    """

    def __init__(self, pipe: int) -> None:
        self._pipe = pipe
        self._writing, self._closed = threading.Lock(), threading.Event()

    def tell(self, **what: Any) -> bool:
        """Returns whether it was heard: whoever called is still there."""
        with self._writing:
            try:
                os.write(self._pipe, json.dumps(what).encode() + b"\n")
            except OSError:
                return False
        return True

    def say(self, text: str) -> None:
        """A line of news."""
        self.tell(say=text)

    def watch(self, left: Callable[[], None]) -> None:
        """Call `left` once nobody is there any more, if that happens before `close`."""

        def look() -> None:
            poller = select.poll()
            poller.register(self._pipe, 0)  # only that the other end was closed
            while not self._closed.is_set():
                if poller.poll(100):
                    if not self._closed.is_set():
                        left()
                    return

        threading.Thread(target=look, daemon=True).start()

    def release(self) -> bool:
        """Tell that the cluster is up: whoever called may go, and is not missed. Returns whether it was still there."""
        self._closed.set()  # first: they are gone as soon as they have heard
        heard = self.tell(up=True)
        os.close(self._pipe)
        return heard
