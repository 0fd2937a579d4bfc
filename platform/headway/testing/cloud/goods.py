"""What the test cloud sells, and what is written down of each machine and each request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from headway.cluster.market import Machine, Option

LEAST_S = 60.0
"""A machine that was there for less costs as much."""
TERMINATED, RECLAIMED, KILLED = "terminated", "reclaimed", "killed"
"""Why a machine is gone: it was given back, taken back, or failed."""


@dataclass(frozen=True)
class Offer:
    """One type of machine in one zone.

    Args:
        type: its name.
        zone: the zone's.
        price_per_hour: dollars, on demand.
        spot_price_per_hour: dollars; None where it is not sold as spot.
        capacity: so many can be had at once, on demand and spot together; None for any number.
        boot_s: from the request until it runs.
        stop_s: from the request for its end until it is gone; it costs as long.
    """

    type: str
    zone: str = "a"
    price_per_hour: float = 1.0
    spot_price_per_hour: float | None = 0.3
    capacity: int | None = None
    boot_s: float = 2.0
    stop_s: float = 0.2


@dataclass
class VM:
    """One machine, ever. Times are Unix seconds.

    Args:
        id: its own for ever.
        cluster: whose it is.
        option: how it was asked for, at the price that it costs.
        tags: of its own.
        config: that it was asked for with.
        asked_at: of the request.
        boots: whether it will ever run.
        running_at: since when it runs.
        ending_at: since when it is on its way out.
        gone_at: since when it costs nothing.
        why: it is gone.
        deadline: until when it may run, once it is to be taken back.
        number: of its node, once it has one.
    """

    id: str
    cluster: str
    option: Option
    tags: dict[str, str]
    config: Mapping[str, Any]
    asked_at: float
    boots: bool = True
    running_at: float | None = None
    ending_at: float | None = None
    gone_at: float | None = None
    why: str = ""
    deadline: float | None = None
    number: int | None = None
    ip: str = ""
    repriced: list[tuple[float, float]] = field(default_factory=list)
    """(since when, dollars per hour) of a spot machine whose price has changed since it was asked for."""

    def dollars(self, now: float) -> float:
        """What it has cost: from the request until it was gone, a minute at least."""
        return self.between(self.asked_at, now)

    def between(self, since: float, now: float) -> float:
        """What of that is for a time; the minute is owed from the request on."""
        until = max(now if self.gone_at is None else min(now, self.gone_at), self.asked_at + LEAST_S)
        whole, price, at = 0.0, self.option.price_per_hour or 0.0, self.asked_at
        for changed, other in [*self.repriced, (until, 0.0)]:
            edge = min(changed, until)
            whole += price * max(0.0, edge - max(at, since)) / 3600.0
            price, at = other, max(at, edge)
        return whole if now >= self.asked_at else 0.0

    def shown(self) -> Machine:
        """As the cloud lists it."""
        state = "stopping" if self.ending_at is not None else "booting" if self.running_at is None else "running"
        return Machine(self.id, state, self.option, dict(self.tags), self.ip, self.asked_at)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Request:
    """One request, and how it was answered.

    Args:
        at: Unix seconds.
        verb: launch, terminate, machines, tag; or what was done to the cloud: notice, kill, refuse, and so on.
        answer: a machine's id, `ok`, or the refusal.
    """

    at: float
    verb: str
    what: str
    answer: str


@dataclass
class Refuse:
    """A rule by which requests are refused.

    Args:
        kind: of refusal.
        reason: in the cloud's words.
        until: Unix seconds; inf until it is lifted.
        type, zone, spot: what it is about; None for all.
    """

    kind: str
    reason: str
    until: float
    type: str | None = None
    zone: str | None = None
    spot: bool | None = None

    def meets(self, option: Option, now: float) -> bool:
        """Whether it is about such a machine, now."""
        asked = ((self.type, option.type), (self.zone, option.zone), (self.spot, option.spot))
        return now < self.until and all(said is None or said == is_ for said, is_ in asked)


@dataclass
class Lies:
    """What the cloud does wrong, each until a time (Unix seconds).

    Args:
        ghosts: it lists as running what is gone.
        forgets: it lists nothing but the head.
        foreign: it lists another cluster's machine as well.
        loses: it does as asked, and its answer is lost.
        throttles: it refuses every request as one too many.
        silent: it answers nobody.
        stuck: machines do not end when told to, and cost on.
        never_boots: so many of the next machines never run.
    """

    ghosts: float = 0.0
    forgets: float = 0.0
    foreign: float = 0.0
    loses: float = 0.0
    throttles: float = 0.0
    silent: float = 0.0
    stuck: float = 0.0
    never_boots: int = 0
