"""What keeps a run from beginning for a while only."""

from __future__ import annotations

from headway.errors import RunFailed
from headway.runs.refusals import Away, Led

FIRST_S, LONGEST_S = 1.0, 60.0
"""Until it is tried again: twice as long each time, up to so long."""


def passing(error: BaseException) -> bool:
    """Whether the same may succeed when it is tried again, with nobody to blame in the sweep: a store does not answer,
    or somebody else leads the run at the moment."""
    from headway.data.store.protocol import OutOfReach as DataOutOfReach
    from headway.storage.protocol import OutOfReach

    return isinstance(error, OutOfReach | DataOutOfReach | Away | Led) or bool(
        isinstance(error, RunFailed) and error.passes
    )


def pause_s(tries: int) -> float:
    """Seconds until it is tried again, after so many tries that came to nothing."""
    return float(min(LONGEST_S, FIRST_S * 2.0 ** min(tries - 1, 20)))
