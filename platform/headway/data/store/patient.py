"""Patience with an object store: time-outs, retries, a second request where the first is late, and what was counted."""

from __future__ import annotations

import random
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, TypeVar
from urllib.parse import urlsplit

from headway.core.retry import Allowance, Latencies, Policy, lasting
from headway.data.store.protocol import KEYS, OutOfReach, Store
from headway.errors import BadInput, HeadwayError

T = TypeVar("T")
BODY = 8 << 20
"""Bytes that a time-out is for: a larger body has as many times as long."""
_SECRET = re.compile(r"(?i)\b(sig|signature|x-amz-[a-z-]+|token|secret|key)=[^\s&'\"]+")


@dataclass
class Counts:
    """What was asked of a store since it was opened.

    Args:
        requests: all, with retries and hedges.
        retries: requests made because the one before failed.
        timeouts: requests given up.
        hedges: second requests for late answers.
        hedges_won: of these, those that answered first.
        bytes: of the answers taken.
    """

    requests: int = 0
    retries: int = 0
    timeouts: int = 0
    hedges: int = 0
    hedges_won: int = 0
    bytes: int = 0


class Remote:
    """A `Store` that asks another, which is far away and fails at times, as often as it takes.

    Args:
        raw: makes each request once.
        policy: how much patience there is.
        seed: of the pauses' jitter.
    """

    def __init__(self, raw: Store, policy: Policy, seed: int | None = None) -> None:
        self.url, self.counts = raw.url, Counts()
        self._raw, self._policy, self._random = raw, policy, random.Random(seed)
        self._latencies, self._allowance = Latencies(), Allowance()
        self._lock = threading.Lock()
        self._waiting: set[SimpleQueue[Any]] = set()
        self._closed = threading.Event()

    def read(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        content = self._ask("read", name, lambda: self._raw.read(name, offset, length), length or 0)
        with self._lock:
            self.counts.bytes += len(content)
        return content

    def size(self, name: str) -> int:
        return self._ask("read", name, lambda: self._raw.size(name))

    def exists(self, name: str) -> bool:
        return self._ask("read", name, lambda: self._raw.exists(name))

    def list(self) -> list[str]:
        return self._ask("listed", "", self._raw.list)

    def write(self, name: str, content: bytes | Path) -> None:
        size = len(content) if isinstance(content, bytes) else content.stat().st_size
        self._ask("written", name, lambda: self._raw.write(name, content), size, hedge=False)

    def close(self) -> None:
        """Nothing more will be asked for; whoever waits for an answer is told so."""
        self._closed.set()
        with self._lock:
            for answers in self._waiting:
                answers.put((0, None, OSError("it has been closed")))
        self._raw.close()

    def _ask(self, verb: str, name: str, request: Callable[[], T], size: int = 0, hedge: bool = True) -> T:
        """The request's answer, after as many tries as the policy allows."""
        url = f"{self.url}/{name}" if name else self.url
        begin, error, tries = time.monotonic(), OSError("it has been closed"), 0
        while tries <= self._policy.retries and not self._closed.is_set():
            if tries:
                with self._lock:
                    self.counts.retries += 1
            tries += 1
            try:
                return self._try(request, size, hedge and self._policy.hedge)
            except FileNotFoundError:
                raise FileNotFoundError(url) from None
            except HeadwayError:
                raise
            except Exception as caught:  # fsspec's clients have errors of their own kinds
                error = caught if isinstance(caught, OSError) else OSError(f"{type(caught).__name__}: {caught}")
            if isinstance(error, PermissionError) or lasting(str(error)):
                keys = KEYS.get(urlsplit(url).scheme, "what its client needs in the environment")
                raise BadInput(f"{url} cannot be {verb}", _said(error), f"Check the name, and {keys}.") from None
            if tries <= self._policy.retries:
                with self._lock:
                    draw = self._random.random()
                self._closed.wait(self._policy.pause_s(tries - 1, draw))
        took = f"{tries} {'request' if tries == 1 else 'requests'} in {time.monotonic() - begin:.1f} s"
        remedy = "Check that the store can be reached, or raise data.store.retries or data.store.timeout_s."
        raise OutOfReach(f"{url} cannot be {verb}", f"{took}, the last one: {_said(error)}", remedy) from None

    def _try(self, request: Callable[[], T], size: int, hedge: bool) -> T:
        """One answer within the time-out, by the first or, where that is late, by a second request."""
        answers: SimpleQueue[tuple[int, T | None, BaseException | None]] = SimpleQueue()
        begin, limit_s = time.monotonic(), self._policy.timeout_s * max(1, -(-size // BODY))
        with self._lock:
            self._waiting.add(answers)
            late_s = self._latencies.late_s(size) if hedge else None
            self._allowance.earn()
        try:
            self._send(0, request, answers)
            begins, failed = [begin], 0
            while True:
                may_hedge = len(begins) == 1 and late_s is not None and late_s < limit_s
                until_s = late_s if may_hedge and late_s is not None else limit_s
                try:
                    which, answer, error = answers.get(timeout=max(0.0, begin + until_s - time.monotonic()))
                except Empty:
                    if may_hedge and self._spend():
                        self._send(1, request, answers)
                        begins.append(time.monotonic())
                    elif may_hedge:
                        late_s = None
                    else:
                        with self._lock:
                            self.counts.timeouts += len(begins) - failed
                        raise TimeoutError(f"no answer within {limit_s:g} s") from None
                    continue
                if error is None:
                    self._note(which, size, time.monotonic() - begins[which])
                    return answer  # type: ignore[return-value]  # None where T is None
                failed += 1
                if failed == len(begins) or self._closed.is_set():
                    raise error
        finally:
            with self._lock:
                self._waiting.discard(answers)

    def _send(self, which: int, request: Callable[[], T], answers: SimpleQueue[Any]) -> None:
        """Make the request in a thread of its own: a client that hangs cannot be interrupted, only left behind."""

        def ask() -> None:
            try:
                answers.put((which, request(), None))
            except BaseException as error:  # whoever waits must hear of it
                answers.put((which, None, error))

        with self._lock:
            self.counts.requests += 1
        threading.Thread(target=ask, name="store-request", daemon=True).start()

    def _spend(self) -> bool:
        with self._lock:
            allowed = self._allowance.spend()
            self.counts.hedges += allowed
        return allowed

    def _note(self, which: int, size: int, seconds: float) -> None:
        with self._lock:
            self.counts.hedges_won += which
            self._latencies.add(size, seconds)


def _said(error: BaseException) -> str:
    """The first line of what a client said, without keys."""
    line = (str(error) or type(error).__name__).splitlines()[0]
    return _SECRET.sub(r"\1=...", line)
