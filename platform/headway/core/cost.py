"""What a run costs: worker-seconds by a price, and how much of what it was meant to cost that is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

HOUR_S = 3600.0


@dataclass(frozen=True)
class Paid:
    """What starts before have cost: dollars, None where none had a price, and the worker-seconds that they were for."""

    dollars: float | None = None
    worker_s: float = 0.0

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Paid:
        """From run.json, as the recorder keeps it."""
        return cls(facts.get("dollars_before"), facts.get("dollars_before_s", 0.0))


@dataclass(frozen=True)
class Terms:
    """Of one start of a run.

    Args:
        price: dollars for an hour of a worker; None where it was not said.
        worker_hours, dollars: what the run may cost in all its starts; None: nobody said.
        idle_s: so long machines cost on once the run has left them.
    """

    price: float | None = None
    worker_hours: float | None = None
    dollars: float | None = None
    idle_s: float = 0.0

    def cost(self, worker_s: float, paid: Paid | None = None) -> float | None:
        """Dollars for so many seconds of workers.

        Args:
            worker_s: of all starts together.
            paid: what of them was paid already, perhaps by another price.

        Returns:
            None where no start had a price.
        """
        paid = paid or Paid()
        if self.price is None:
            return paid.dollars
        return (paid.dollars or 0.0) + max(0.0, worker_s - paid.worker_s) / HOUR_S * self.price

    def used(self, worker_s: float, dollars: float | None) -> float | None:
        """The share that is spent of the budget, of the one that is nearer to its end; None without any.

        Args:
            worker_s, dollars: of all starts together.
        """
        shares = []
        if self.worker_hours is not None:
            shares.append(worker_s / HOUR_S / self.worker_hours)
        if self.dollars is not None and dollars is not None:
            shares.append(dollars / self.dollars)
        return max(shares, default=None)


def so_far(facts: Mapping[str, Any], worker_s: float) -> float | None:
    """What a run has cost; of one that goes on, or whose leader was killed, by the price that its start had, or what
    its machines had cost when that was kept last.

    Args:
        facts: of run.json.
        worker_s: of all its starts together.

    Returns:
        Dollars; None where no start had a price.
    """
    told = facts.get("dollars", (facts.get("outlay") or {}).get("dollars"))
    if told is None:
        told = Terms(facts.get("price_per_hour")).cost(worker_s, Paid.of(facts))
    return float(told) if isinstance(told, int | float) else None
