"""What the job says about its workers, and what is known of each."""

from __future__ import annotations

from dataclasses import dataclass, field

from headway.core.watch import Patience

WARMING, READY, MEMBER, LEAVING, FINISHED = "warming", "ready", "member", "leaving", "finished"
ENTERED = (MEMBER, LEAVING)
BLIPS_S = 60.0


@dataclass(frozen=True)
class Policy:
    """What the job says about its workers.

    Args:
        lanes: of the run.
        min: fewest workers to train with.
        max: most workers that train.
        spares: workers beyond these that stand by, warmed up, and take the place of one that is gone.
        gather_s: how long the first generation waits for workers that are starting, once `min` are ready.
        leave_s: how long before its deadline a drained worker leaves at the latest, replaced or not.
        slow: "report", "rebalance" (fewer lanes) or "replace", for workers that are slower than the others.
        divergences: after so many a worker whose replica differs is evicted.
        blips: so often in a row may an exchange break with nobody gone, if that goes on for `BLIPS_S`.
        patience: of the watch; leases follow from it.
    """

    lanes: int
    min: int = 1
    max: int = 1
    gather_s: float = 3.0
    leave_s: float = 5.0
    slow: str = "report"
    divergences: int = 2
    blips: int = 5
    patience: Patience = field(default_factory=Patience.of)
    spares: int = 0


@dataclass
class Worker:
    """What is known of a worker that was launched and is not gone.

    Args:
        surplus: it leaves since the run is to be smaller, and for nothing else.
        ready_at: since when it could enter.
        entered: it was a member of a generation that was told to go.
        lease_s: of the newest of these.
    """

    phase: str = WARMING
    node: str | None = None
    deadline: float | None = None
    weight: float = 1.0
    divergences: int = 0
    surplus: bool = False
    ready_at: float = 0.0
    entered: bool = False
    lease_s: float = 0.0
