"""How patiently a bucket is asked: what is tried again, how often, and in which words it is given up."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import urlsplit

from headway.core.retry import Policy
from headway.errors import BadInput
from headway.storage.answers import Verdict, judge, said
from headway.storage.clients import KEYS, Kind, client_for, keys_of
from headway.storage.options import Options
from headway.storage.protocol import Conflict, OutOfReach

T = TypeVar("T")

BODY = 4 << 20
"""Bytes that a time-out is for: what is larger has as many times as long to be sent."""
ROLE_TRIES = 2
"""How often the machine's role is asked for, before it is said that there are no keys."""


class Cloud:
    """A bucket, and how patiently it is asked. For many threads of one process.

    Args:
        url: of the bucket, or of what lies in it.
        options: as the user gave them.
        seed: of the pauses' jitter.
    """

    def __init__(self, url: str, options: Options, seed: int | None = None) -> None:
        parts = urlsplit(url)
        self.scheme, self.bucket, self.options = parts.scheme, parts.netloc, options
        self._policy, self._random = Policy(options.retries, options.timeout_s, hedge=False), random.Random(seed)
        self._lock, self._closed, self._process = threading.Lock(), threading.Event(), os.getpid()
        self._clients: dict[tuple[Kind, int], Any] = {}
        self._keys: dict[str, Any] = {}

    def client(self, kind: Kind, size: int = 0) -> Any:
        """The client for requests of a kind that send so many bytes."""
        times = max(1, -(-size // BODY))
        if os.getpid() != self._process:
            raise RuntimeError("a bucket that was opened before a fork hangs after it: open it in the new process")
        with self._lock:
            if (kind, times) not in self._clients:
                if not self._clients:
                    self._keys = keys_of(self.scheme)
                made = client_for(self.scheme, self.bucket, self.options, self._keys, kind, times)
                self._clients[kind, times] = made
            return self._clients[kind, times]

    def ask(
        self,
        verb: str,
        url: str,
        request: Callable[[Any], T],
        kind: Kind,
        once: bool = False,
        size: int = 0,
    ) -> T:
        """The request's answer, after as many tries as the policy allows.

        Args:
            verb: what is done, for people ("written").
            url: to what, for people.
            request: makes it once, with a client.
            kind: of the client.
            once: it cannot be made again, for what it sends is gone.
            size: bytes that it sends.
        """
        from obstore.exceptions import BaseError

        begin, tries, renewed, last = time.monotonic(), 0, False, "it has been closed"
        fact = f"{url} cannot be {verb}"
        while not self._closed.is_set():
            tries += 1
            try:
                return request(self.client(kind, size))
            except (BaseError, FileNotFoundError) as error:
                verdict, last = judge(error), said(str(error))
            if verdict is Verdict.REFUSED and not renewed and self.renew() and not once:
                renewed = True
                continue
            no_keys = verdict is Verdict.NO_KEYS
            final = once or tries > self._policy.retries or (no_keys and tries >= ROLE_TRIES)
            if (final and no_keys) or verdict not in (Verdict.PASSING, Verdict.NO_KEYS):
                raise self._error(verdict, verb, url, last) from None
            if final:
                break
            with self._lock:
                draw = self._random.random()
            self._closed.wait(self._policy.pause_s(tries - 1, draw))
        took = f"{tries} {'request' if tries == 1 else 'requests'} in {time.monotonic() - begin:.1f} s"
        remedy = "Check that the store can be reached, or raise store.retries or store.timeout_s."
        raise OutOfReach(fact, f"{took}, the last one: {last}", remedy) from None

    def renew(self) -> bool:
        """Look for other keys than those that are used; returns whether there are any."""
        keys = keys_of(self.scheme)
        with self._lock:
            if keys == self._keys or not self._clients:
                return False
            self._clients.clear()
            self._keys = keys
        return True

    def close(self) -> None:
        """Whoever waits before another try is told that there is none."""
        self._closed.set()

    def _error(self, verdict: Verdict, verb: str, url: str, last: str) -> Exception:
        """What is raised where it is of no use to try again."""
        fact, rights = f"{url} cannot be {verb}", f"Check the rights, and {KEYS[self.scheme]}."
        if verdict is Verdict.ABSENT and verb != "written":
            return FileNotFoundError(url)
        if verdict is Verdict.CONFLICT:
            return Conflict(f"{url} is not as it was expected", "somebody else has written it")
        if verdict is Verdict.FULL:
            return OutOfReach(fact, f"the bucket or its account is full: {last}", "Make room, or raise the quota.")
        if verdict is Verdict.REFUSED:
            return BadInput(fact, last, rights)
        if verdict is Verdict.NO_KEYS:
            return BadInput(fact, f"{verdict.value}: {last}", rights)
        if verdict in (Verdict.NO_BUCKET, Verdict.ABSENT):
            fact = f"the bucket {self.scheme}://{self.bucket} does not exist"
        return BadInput(fact, last, "Check the name, store.region and store.endpoint.")
