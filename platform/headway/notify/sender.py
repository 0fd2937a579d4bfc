"""Posts words to one address, by a thread of its own: in order, again and again where nobody answers, and for no longer
than there is time for at the end. A word may come twice, where the answer to it is lost; its `id` is the same then."""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Callable
from http.client import HTTPException
from typing import Any

from headway.core.retry import Policy
from headway.notify.addresses import Address
from headway.notify.forms import body

MOST = 100
"""Words that wait; the oldest of more are not sent."""
TRY_S = 10.0
PATIENCE = Policy(first_pause_s=1.0, longest_pause_s=60.0)
LATE_S = 0.5
"""Between two tries when the run is at its end."""
AGAIN = (408, 425, 429)
"""Answers that pass, beside those of servers in trouble (5xx)."""


class Refused(Exception):
    """Nobody takes words at the address, and will not later."""


class NotNow(Exception):
    """It could not be posted; it may be later. args: why, and after how many seconds, where the answer says so."""


def post(url: str, content: bytes, timeout_s: float) -> None:
    """Post it once.

    Raises:
        Refused, NotNow: it was not taken; neither tells the address.
    """
    from urllib import error, request

    class Straight(request.HTTPRedirectHandler):
        def redirect_request(self, *_: Any) -> None:
            """A post that is sent elsewhere becomes a request without content."""

    headers = {"Content-Type": "application/json", "User-Agent": "headway"}
    try:
        asked = request.Request(url, content, headers, method="POST")
        with request.build_opener(Straight).open(asked, timeout=timeout_s):
            return
    except error.HTTPError as answer:
        answer.close()
        said = f"the answer is {answer.code} {answer.reason}"[:200]
        if answer.code in AGAIN or answer.code >= 500:
            after = str(answer.headers.get("Retry-After", ""))
            raise NotNow(said, float(after) if after.isdecimal() and after.isascii() else 0.0) from None
        raise Refused(said) from None
    except error.URLError as away:
        raise NotNow(_reason(away.reason), 0.0) from None
    except (OSError, HTTPException, ValueError) as away:
        raise NotNow(_reason(away), 0.0) from None


def _reason(error: Any) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return str(getattr(error, "strerror", None) or type(error).__name__)


class Sender:
    """See the module.

    Args:
        address: to post to.
        say: takes a line for people; called in the thread.
        posting: posts once, see `post`.
    """

    def __init__(
        self,
        address: Address,
        say: Callable[[str], None],
        posting: Callable[[str, bytes, float], None] = post,
        patience: Policy = PATIENCE,
    ) -> None:
        self._address, self._say, self._post, self._patience = address, say, posting, patience
        self._waiting: deque[bytes] = deque()
        self._news = threading.Condition()
        self._until: float | None = None
        self._tries = 0
        self._away = self._refused = False
        self.sent = self.dropped = 0
        """Words that were taken; that will never be sent."""
        self._thread: threading.Thread | None = None

    def add(self, told: dict[str, Any]) -> None:
        """A word (`forms.tree`); of the kinds that the address is told of."""
        if told["kind"] not in self._address.on and told["kind"] != "test":
            return
        content = body(self._address.form, told)
        with self._news:
            if self._refused or self._until is not None:
                self.dropped += 1
                return
            self._waiting.append(content)
            if len(self._waiting) > MOST:
                self._waiting.popleft()
                self.dropped += 1
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="notify", daemon=True)
                self._thread.start()
            self._news.notify_all()

    def end(self, until: float) -> None:
        """Nothing more is added, and what waits is sent until then (by time.monotonic), or not at all."""
        with self._news:
            self._until = until
            self._news.notify_all()

    def close(self) -> int:
        """After `end`: wait for it. Returns how many words were never sent, in all."""
        assert self._until is not None
        if self._thread is not None:
            self._thread.join(max(0.0, self._until - time.monotonic()))
        with self._news:
            self.dropped += len(self._waiting)
            self._waiting.clear()
            return self.dropped

    # In the thread

    def _work(self) -> None:
        while True:
            with self._news:
                self._news.wait_for(lambda: self._waiting or self._until is not None)
                if not self._waiting or self._late():
                    return
                content = self._waiting[0]
            if self._tried(content):
                with self._news:
                    if self._waiting and self._waiting[0] is content:
                        self._waiting.popleft()

    def _tried(self, content: bytes) -> bool:
        """Whether it is not to be tried again."""
        left_s = TRY_S if self._until is None else min(TRY_S, max(0.1, self._until - time.monotonic()))
        try:
            self._post(self._address.url, content, left_s)
        except Refused as error:
            self._give_up(str(error))
            return True
        except NotNow as error:
            reason, after_s = error.args
            if not self._away:
                self._say(f"{self._address.name} cannot be told: {reason}; it is tried again")
            self._away, self._tries = True, self._tries + 1
            self._pause(max(after_s, self._patience.pause_s(self._tries - 1, random.random())))
            return False
        if self._away:
            self._say(f"{self._address.name} is told again")
        self._away, self._tries, self.sent = False, 0, self.sent + 1
        return True

    def _pause(self, seconds: float) -> None:
        with self._news:
            began = time.monotonic()
            self._news.wait_for(lambda: self._until is not None, min(seconds, self._patience.longest_pause_s))
            if self._until is not None:
                left_s = min(seconds, LATE_S) - (time.monotonic() - began)
                self._news.wait_for(self._late, max(0.0, left_s))

    def _late(self) -> bool:
        return self._until is not None and time.monotonic() >= self._until

    def _give_up(self, reason: str) -> None:
        with self._news:
            self._refused = True
            self.dropped += len(self._waiting)
            self._waiting.clear()
        self._say(f"{self._address.name} takes no words: {reason}; nobody is told there")
