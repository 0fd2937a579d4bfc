"""How many workers a run has, and on machines of which market, by what they bring and what they cost. Pure.

- One more worker is worth its price while the steps that it adds cost no more than twice what steps cost now: an hour
  that the run ends sooner may cost as much as an hour of it (`headway.core.demand` has the same rule for all prices
  alike). What it adds is what the last one added, see `headway.core.rates`.
- With a deadline the market is `headway.core.late`'s choice: spot while there is slack, on demand when there is none.
  The line is drawn by the fastest size on demand that the money allows, and by what a change costs: a machine's way
  here, and steps since the newest checkpoint, for all machines may be taken at once.
- Money sets bounds: no more dollars an hour than may be spent, and no size with which the rest cannot be paid while
  there is one with which it can.
- Sizes that only are worth it are taken by `headway.core.steady`; what money or the deadline force is taken at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from headway.core import demand
from headway.core.purses import HOUR_S, Purse
from headway.core.rates import Rates
from headway.core.steady import HOLD_S, Steady

WORTH = 0.5
"""Of what a dollar brings on average, the last one must bring so much."""
FORGIVES = 0.8
"""A size that is held stays while its last worker brings so much of what it would have to."""


@dataclass(frozen=True)
class Means:
    """What a job allows and asks.

    Args:
        purse: its money.
        deadline: Unix seconds; None where there is none.
        on_demand_min: so many workers are on demand in any case.
        every_steps, every_s: between two checkpoints; None: none by that.
    """

    purse: Purse = Purse()
    deadline: float | None = None
    on_demand_min: int = 0
    every_steps: int | None = None
    every_s: float | None = None

    @property
    def any(self) -> bool:
        """Whether there is anything to go by."""
        purse = self.purse
        return any(each is not None for each in (purse.usd, purse.usd_per_hour, self.deadline)) or self.on_demand_min > 0


@dataclass(frozen=True)
class Prices:
    """Dollars for an hour of a worker; None where such a machine is not sold, or nobody tells.

    Args:
        spot_to_be_had: whether spot machines are, as far as is known.
        beside: dollars per hour of what costs beside workers: the head, storage.
        known: whether any market's price is told; else workers cost the same everywhere.
    """

    on_demand: float | None = None
    spot: float | None = None
    spot_to_be_had: bool = True
    beside: float = 0.0

    def of(self, spot: bool) -> float:
        """Of a market; of one without a price what the other costs."""
        first, second = (self.spot, self.on_demand) if spot else (self.on_demand, self.spot)
        return first if first is not None else second if second is not None else 0.0


@dataclass(frozen=True)
class View:
    """A run at one moment.

    Args:
        now: Unix seconds.
        steps: left to be done; None where that is not known.
        training: workers that train.
        there: workers that have a place, and stay; on_demand: of them those on demand, spot: those on spot machines.
        spent: dollars so far.
        come_s: seconds from asking for a machine until a worker on it trains.
        worth: workers that are worth asking for by time alone, see `headway.core.demand`.
    """

    now: float
    steps: int | None
    training: int
    there: int
    on_demand: int
    spot: int
    spent: float
    come_s: float
    worth: int


@dataclass(frozen=True)
class Order:
    """What to have: so many workers, of them so many on demand at least, and why. late_s: by so much the deadline is
    missed even so; short: so many dollars are missing to the end."""

    workers: int
    on_demand: int
    reason: str
    late_s: float = 0.0
    short: float = 0.0
