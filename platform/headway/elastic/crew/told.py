"""What the driver tells the house of a sweep's runs, and what that tells the driver."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from headway.core.membership import Policy
from headway.elastic.lead.coordinator import Failure


@dataclass(frozen=True)
class Given:
    """A leg of a run to be done.

    Args:
        leg: its number, never used again.
        policy: of the run's membership.
        alike: see `headway.elastic.lead.coordinator.Coordinator`.
        until: the step of the first gate.
        recorder: where its records go: a `headway.elastic.crew.recorders.Seat`.
        config: of its workers, see `headway.elastic.worker.main.main`.
    """

    leg: int
    policy: Policy
    alike: bool
    until: int
    recorder: Any
    config: dict[str, Any]


@dataclass(frozen=True)
class Evaluated:
    """See `headway.elastic.wire.messages.Evaluated`."""

    leg: int
    step: int
    values: dict[str, float]
    stands: bool


@dataclass(frozen=True)
class Ended:
    """A leg is over: nothing more is recorded of it. failure: why it could not go on; None: in order."""

    leg: int
    step: int
    failure: Failure | None


@dataclass(frozen=True)
class There:
    """So many processes have a place, or could have one at once."""

    processes: int


@dataclass(frozen=True)
class Account:
    """How things stand.

    Args:
        workers, steps: by leg.
        seconds: of all processes so far, by cause of the ledger; they add up to the times that places were held.
    """

    workers: dict[int, int]
    steps: dict[int, int]
    seconds: dict[str, float]


@dataclass(frozen=True)
class Remark:
    """A line for people. leg: whose it is; None: of all."""

    leg: int | None
    text: str


@dataclass(frozen=True)
class Broken:
    """The house can do no more."""

    failure: Failure


Told = Evaluated | Ended | There | Account | Remark | Broken
