"""Times and lengths of time, as people read them."""

from __future__ import annotations

import time

DAY_S = 86400


def when(at: float | None, now: float | None = None) -> str:
    """A moment, by the local clock: of today the time, of another day the day too. at: Unix seconds."""
    if at is None:
        return ""
    there, here = time.localtime(at), time.localtime(now)
    same = there[:3] == here[:3]
    return time.strftime("%H:%M:%S" if same else "%Y-%m-%d %H:%M", there)


def moment(at: float) -> str:
    """A moment by the local clock, whatever the day."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def lasting(seconds: float | None) -> str:
    """A length of time: hours, minutes and seconds."""
    if seconds is None:
        return ""
    whole = int(seconds)
    days = f"{whole // DAY_S} d " if whole >= DAY_S else ""
    return f"{days}{whole % DAY_S // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"
