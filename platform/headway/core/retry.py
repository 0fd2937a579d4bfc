"""When a request to an object store is worth another try, how long to wait before it, and when to ask a second time.

Pauses grow exponentially with full jitter, which spreads clients that were refused together (Brooker, "Exponential
Backoff And Jitter", 2015). A request that takes longer than almost all of late is asked again at the side, and the
first answer is taken (Dean and Barroso, "The Tail at Scale", 2013); such extra requests are a small share of all.
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass

LASTING = re.compile(
    r"ACCESS_DENIED|INVALID_ACCESS_KEY_ID|SIGNATURE_DOES_NOT_MATCH|INVALID_CLIENT_TOKEN_ID|UNRECOGNIZED_CLIENT"
    r"|EXPIRED_TOKEN|ExpiredToken|INVALID_TOKEN|NO_SUCH_BUCKET|NO_SUCH_KEY|AuthenticationFailed|AuthorizationFailure"
    r"|Unauthenticated|PermissionDenied|HTTP status (400|401|403|404|405|411|416)\b"
)


@dataclass(frozen=True)
class Policy:
    """How much patience there is.

    Args:
        retries: further tries after the first.
        timeout_s: after which a try is given up.
        hedge: ask a second time when an answer is late.
        first_pause_s: the longest pause before the first retry; doubles with each.
        longest_pause_s: no pause is longer.
    """

    retries: int = 8
    timeout_s: float = 20.0
    hedge: bool = True
    first_pause_s: float = 0.1
    longest_pause_s: float = 10.0

    def pause_s(self, retry: int, draw: float) -> float:
        """Seconds to wait before retry number `retry` (from 0); `draw` is uniform in [0, 1)."""
        return draw * min(self.longest_pause_s, self.first_pause_s * 2.0 ** min(retry, 60))


def lasting(message: str) -> bool:
    """Whether an error, by its text, is about rights, names or the request, so that it will come again."""
    return LASTING.search(message) is not None


class Latencies:
    """The latest seconds that answers took, and with them when an answer is late.

    Requests of like size are compared: what is normal for megabytes is late for a footer.

    Args:
        keep: answers remembered per size.
        least: answers that must be known before any is called late.
        quantile: of the latest answers, above which one is late.
        floor_s: no answer is late before.
    """

    def __init__(self, keep: int = 128, least: int = 16, quantile: float = 0.95, floor_s: float = 0.01) -> None:
        self._keep, self._least, self._quantile, self._floor_s = keep, least, quantile, floor_s
        self._latest: dict[int, deque[float]] = {}

    def add(self, size: int, seconds: float) -> None:
        """An answer of `size` bytes took so long."""
        self._latest.setdefault(_class(size), deque(maxlen=self._keep)).append(seconds)

    def late_s(self, size: int) -> float | None:
        """Seconds after which an answer of `size` bytes is late; None while too little is known."""
        latest = self._latest.get(_class(size), ())
        if len(latest) < self._least:
            return None
        ranked = sorted(latest)
        return max(self._floor_s, ranked[min(len(ranked) - 1, int(self._quantile * len(ranked)))])


def _class(size: int) -> int:
    """Sizes within a factor of four have the same."""
    return size.bit_length() // 2


class Allowance:
    """Bounds the extra requests to a share of all, with a few at the start.

    Args:
        share: extra requests per request.
        most: extra requests that may be saved up.
    """

    def __init__(self, share: float = 0.1, most: float = 8.0) -> None:
        self._share, self._most, self._saved = share, most, most / 2

    def earn(self) -> None:
        """A request was made."""
        self._saved = min(self._most, self._saved + self._share)

    def spend(self) -> bool:
        """Take one extra request, if there is one."""
        if self._saved < 1.0:
            return False
        self._saved -= 1.0
        return True
