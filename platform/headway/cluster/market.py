"""What a cloud sells, and what is asked of it: the protocol behind every cluster whose machines come and go.

A cluster's file names node types. Each stands for a list of options, (machine type, zone, spot or not): when one cannot
be had the next is tried. `headway.cluster.provider` does that for Ray's autoscaler, with any market behind it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

CAPACITY, QUOTA, THROTTLED, FORBIDDEN, UNKNOWN = "capacity", "quota", "throttled", "forbidden", "unknown"
"""Why a machine is refused: none of this kind is left there; the account may have no more; too many requests; the
account may not; there is no such type or zone."""


@dataclass(frozen=True)
class Option:
    """One way to get a machine.

    Args:
        type: the cloud's name of the machine type.
        zone: the cloud's name of the zone; "" where it has none.
        spot: whether it is cheap and may be taken away.
        price_per_hour: dollars; None where that is not told.
    """

    type: str
    zone: str = ""
    spot: bool = False
    price_per_hour: float | None = None

    def __str__(self) -> str:
        return " ".join(filter(None, [self.type, f"in {self.zone}" if self.zone else "", "spot" if self.spot else ""]))


@dataclass(frozen=True)
class Machine:
    """A machine that the cloud says it has for this cluster, and may charge for.

    Args:
        id: the cloud's; never that of another.
        state: `booting`, `running`, or `stopping` (it costs until it is gone).
        option: how it was got.
        tags: that it was launched with.
        ip: inside the cluster's network; "" while it has none.
        since: Unix seconds of its launch.
    """

    id: str
    state: Literal["booting", "running", "stopping"]
    option: Option
    tags: Mapping[str, str] = field(default_factory=dict)
    ip: str = ""
    since: float = 0.0


class Refused(Exception):
    """The cloud does not give what is asked for.

    Args:
        kind: one of those of this module.
        reason: in the cloud's words.
        retry_s: seconds after which it may be asked again, where the cloud says so.
    """

    def __init__(self, kind: str, reason: str, retry_s: float | None = None) -> None:
        super().__init__(reason)
        self.kind, self.reason, self.retry_s = kind, reason, retry_s


class Market(Protocol):
    """A cloud, for one cluster. Its methods may be called by several threads at once.

    Each raises Refused for what the cloud refuses, and OSError where it cannot be reached.
    """

    def launch(self, option: Option, tags: Mapping[str, str], config: Mapping[str, Any], once: str) -> Machine:
        """Get one machine.

        Args:
            option: of which kind.
            tags: to be put on it, at once with its making.
            config: the node type's `node_config`: the cloud's own keys.
            once: names this request: asked again with it after an answer was lost, the cloud makes no second machine.
        """

    def tag(self, machine: str, tags: Mapping[str, str]) -> None:
        """Put tags on a machine, beside those that it has."""

    def terminate(self, machines: Sequence[str]) -> None:
        """Let machines go. Those that are gone, or going, are no error."""

    def machines(self) -> Sequence[Machine]:
        """All of this cluster that cost anything, the head among them: asked of the cloud, not remembered."""


@runtime_checkable
class Charges(Protocol):
    """A market that tells what it charges for. Its methods raise as those of `Market` do."""

    def ended(self, machines: Sequence[str]) -> Mapping[str, float]:
        """Of machines that are gone, since when they cost nothing, in Unix seconds; of those for which it knows."""

    def spot_prices(self, options: Sequence[Option], since: float) -> Mapping[Option, Sequence[tuple[float, float]]]:
        """What spot machines cost: (Unix seconds, dollars per hour from then on), in order of time, by option.

        Args:
            options: spot ones, by type and zone.
            since: Unix seconds; the price that holds then is the first, from whenever it does.
        """
