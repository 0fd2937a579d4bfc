"""When a cluster ends by itself: it has been idle for too long, or has been there for as long as it may."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Lifetime:
    """What a cluster may have.

    Args:
        idle_s: seconds without any work after which it ends; None for no limit.
        whole_s: seconds after its start at which it ends, whatever runs; None for no limit.
    """

    idle_s: float | None = None
    whole_s: float | None = None

    def over(self, began: float, worked: float, now: float) -> str:
        """Why it ends now; "" if it does not.

        Args:
            began: when the cluster was up, in seconds.
            worked: when it was last known to work; `began` if it never did.
            now: by the same clock. One that was put back ends nothing.
        """
        if self.whole_s is not None and now - began >= self.whole_s:
            return f"it has been up for {said(self.whole_s)}, as long as its file allows"
        if self.idle_s is not None and now - worked >= self.idle_s:
            return f"no job has run on it for {said(self.idle_s)}"
        return ""

    def ends_at(self, began: float) -> float | None:
        """When it ends at the latest, by the clock of `began`; None if it may stay."""
        return None if self.whole_s is None else began + self.whole_s


def said(seconds: float) -> str:
    """A time in words."""
    for unit, name in ((3600.0, "hours"), (60.0, "minutes")):
        if seconds >= unit:
            return f"{seconds / unit:g} {name}"
    return f"{seconds:g} seconds"
