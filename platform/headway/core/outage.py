"""How long something that should work has not: when to try again, and when to give up."""

from __future__ import annotations

FIRST_PAUSE_S, MOST_PAUSE_S = 0.2, 5.0


class Outage:
    """Of one writer to one place. Times are seconds on any one clock.

    Args:
        limit_s: seconds after which nobody should wait any longer; None for never.
    """

    def __init__(self, limit_s: float | None) -> None:
        self.limit_s = limit_s
        self.since: float | None = None
        self.times = 0
        """Failures in a row."""
        self.reason = ""
        """Of the newest failure."""

    def failed(self, now: float, reason: str) -> float:
        """It failed once more; returns the seconds to wait before it is tried again."""
        if self.since is None:
            self.since = now
        self.times += 1
        self.reason = reason
        return float(min(FIRST_PAUSE_S * 2.0 ** min(self.times - 1, 16), MOST_PAUSE_S))

    def worked(self, now: float) -> float | None:
        """It worked; returns the seconds for which it had not, or None if nothing was wrong."""
        since, self.since, self.times = self.since, None, 0
        return None if since is None else now - since

    def too_long(self, now: float) -> bool:
        """Whether to give up."""
        return self.since is not None and self.limit_s is not None and now - self.since >= self.limit_s
