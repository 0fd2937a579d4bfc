"""What a cluster has bought: every machine with its prices and its times, as its provider tells the runs on it.

The provider keeps it (`headway.cluster.till`), and writes it where Ray keeps the cluster's news; the leads of runs read
it there, and come to their bills (`headway.core.bill`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from headway.core.news import NAMESPACE

__all__ = ["KEY", "NAMESPACE", "Sold", "Till"]

KEY = b"till"
"""Where Ray's internal store keeps it, in `NAMESPACE`."""
MOST = 2000
"""Machines that are gone and still told of, the newest."""


@dataclass(frozen=True)
class Sold:
    """A machine of the cluster. Times are Unix seconds.

    Args:
        id: the cloud's.
        type, zone, spot: how it was bought.
        since: it costs.
        prices: (since when, dollars per hour), in order of time; empty where nobody knows.
        head: whether it is the head's.
        until: it cost; None while it does.
    """

    id: str
    type: str
    zone: str = ""
    spot: bool = False
    since: float = 0.0
    prices: tuple[tuple[float, float], ...] = ()
    head: bool = False
    until: float | None = None

    @property
    def words(self) -> str:
        """Its type, zone and kind."""
        return " ".join(filter(None, [self.type, f"in {self.zone}" if self.zone else "", "spot" if self.spot else ""]))


@dataclass(frozen=True)
class Till:
    """See the module.

    Args:
        machines: by id, in the order of purchase.
        storage: dollars for a gigabyte and month, where runs are kept in a store; 0 where nobody knows.
        at: Unix seconds, when it was told.
    """

    machines: Mapping[str, Sold] = field(default_factory=dict)
    storage: float = 0.0
    at: float = 0.0

    def having(self, *sold: Sold) -> Till:
        """The same with these, or what is new of them; of those that are gone the oldest may be left out."""
        machines = {**self.machines, **{each.id: each for each in sold}}
        gone = [id for id, each in machines.items() if each.until is not None]
        old = set(gone[: max(0, len(gone) - MOST)])
        return replace(self, machines={id: each for id, each in machines.items() if id not in old})

    def living(self) -> list[Sold]:
        """Those that cost."""
        return [each for each in self.machines.values() if each.until is None]

    def encode(self) -> bytes:
        """For `decode`."""
        machines = [asdict(each) for each in self.machines.values()]
        return json.dumps({"machines": machines, "storage": self.storage, "at": self.at}).encode()

    @staticmethod
    def decode(data: bytes | None) -> Till | None:
        """What was encoded; None where there is none, or none that can be read."""
        try:
            read: dict[str, Any] = json.loads(data or b"")
            machines = [Sold(**{**each, "prices": _steps(each["prices"])}) for each in read["machines"]]
            by_id = {each.id: each for each in machines}
            return Till(by_id, float(read.get("storage", 0.0)), float(read.get("at", 0.0)))
        except (ValueError, TypeError, KeyError, AttributeError):
            return None


def _steps(found: Any) -> tuple[tuple[float, float], ...]:
    return tuple((float(at), float(per_hour)) for at, per_hour in found)
