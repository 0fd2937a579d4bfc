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

from dataclasses import dataclass, field

from headway.core import demand
from headway.core.alarms import span
from headway.core.late import Decision, Late, Situation
from headway.core.late import Prices as LatePrices
from headway.core.purses import Purse
from headway.core.rates import Rates
from headway.core.slack import NOTHING, ON_DEMAND, SPOT
from headway.core.steady import HOLD_S, Steady

WORTH = 0.5
"""Of what a dollar brings on average, the last one must bring so much."""
EVERY_S = 10.0
"""Between two decisions about the market."""
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

    purse: Purse = field(default_factory=Purse)
    deadline: float | None = None
    on_demand_min: int = 0
    every_steps: int | None = None
    every_s: float | None = None

    @property
    def any(self) -> bool:
        """Whether there is anything to go by."""
        purse = self.purse
        return (
            any(each is not None for each in (purse.usd, purse.usd_per_hour, self.deadline)) or self.on_demand_min > 0
        )


@dataclass(frozen=True)
class Prices:
    """Dollars for an hour of a worker; None where such a machine is not sold, or nobody tells.

    Args:
        spot_to_be_had: whether spot machines are, as far as is known.
        beside: dollars per hour of what costs beside workers: the head, storage.
        sold: whether machines on demand are sold, and whether spot ones are; None where that is not known: those that
            have a price.
        rooms: workers for which a machine on demand, and a spot one, has room.
    """

    on_demand: float | None = None
    spot: float | None = None
    spot_to_be_had: bool = True
    beside: float = 0.0
    sold: tuple[bool, bool] | None = None
    rooms: tuple[int, int] = (1, 1)

    def sells(self, spot: bool) -> bool:
        """Whether machines of a market are sold."""
        return (self.spot if spot else self.on_demand) is not None if self.sold is None else self.sold[spot]

    def of(self, spot: bool) -> float:
        """Of a market; of one without a price what the other costs."""
        first, second = (self.spot, self.on_demand) if spot else (self.on_demand, self.spot)
        return first if first is not None else second if second is not None else 0.0

    def whole(self, spot: bool, workers: int) -> list[float]:
        """Of so many workers of a market, dollars per hour that each adds, on machines that are theirs alone."""
        own = (self.spot if spot else self.on_demand) is not None
        room = self.rooms[spot if own else not spot]
        return [self.of(spot) * room if number % room == 0 else 0.0 for number in range(workers)]


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
        asked: workers that somebody asked for, whether or not they are worth it.
        unheld: steps that are done, and whose state no worker holds: they begin again at the newest checkpoint.
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
    asked: int = 0
    unheld: int = 0


@dataclass(frozen=True)
class Order:
    """What to have: so many workers, of them so many on demand at least, and why. late_s: by so much the deadline is
    missed even so; short: so many dollars are missing to the end."""

    workers: int
    on_demand: int
    reason: str
    late_s: float = 0.0
    short: float = 0.0


class Policy:
    """See the module. Times are Unix seconds.

    Args:
        means: of the job.
        lanes: of the run.
        least, most: workers that the job, or whoever resized the run last, allows.
        rates: of the run; whoever leads it keeps them up.
        late: of its deadline.
    """

    def __init__(self, means: Means, lanes: int, least: int, most: int, rates: Rates, late: Late | None = None) -> None:
        self.means, self.rates, self._lanes = means, rates, lanes
        self._least, self._most = least, most
        self._size: Steady | None = None
        self._behind = False
        """Whether machines on demand hold the deadline now."""
        self._late, self._market_held = late or Late(), Steady(0, HOLD_S / 2)
        self._decided: tuple[float, Prices, Decision] | None = None

    def resized(self, least: int, most: int) -> None:
        """Somebody asks for another size."""
        self._least, self._most, self._size = least, most, None

    @property
    def most(self) -> int:
        """Workers that are wanted at most, by whoever asks, not by what they cost."""
        return self._most

    def look(self, view: View, prices: Prices) -> Order:
        """What to have now."""
        left_s = None if self.means.deadline is None else self.means.deadline - view.now
        fast = self._fast(prices)
        needs_s = self._needs_s(view, fast)
        self._behind, market = self._market(view, prices, left_s, fast)
        bound = self._bound(prices, self._behind)
        forced = max(min(view.asked, bound), self._forced(view, left_s, bound, fast))
        wished = max(forced, self._worth(view, prices, bound))
        size = self._settle(wished, forced, bound, view.now)
        on_demand = size if self._behind else min(size, self.means.on_demand_min)
        order = Order(size, on_demand, self._why(view, size, wished, bound, market))
        return self._warned(order, view, prices, left_s, needs_s)

    # Time

    def _fast(self, prices: Prices) -> int:
        """The size that makes most steps an hour, on demand, of those that the money allows at a time."""
        sizes = self._sizes(self._bound(prices, True))
        return max(sizes, key=lambda size: (self.rates.at(size) or 0.0, -size))

    def _needs_s(self, view: View, size: int) -> float | None:
        """Seconds that the rest takes so many workers on demand, beginning with machines that are still to come; None
        where no pace is known."""
        per_s = self.rates.at(size)
        if per_s is None or view.steps is None:
            return None
        return view.come_s + self._lost_s(per_s) + view.steps / per_s

    def _lost_s(self, per_s: float) -> float:
        """Seconds of work that are done again, at worst, when all machines are taken at once. (Without checkpoints no
        deadline is taken on spot machines alone: `headway.driver.means`.)"""
        means = self.means
        spans = [means.every_s, means.every_steps and means.every_steps / per_s]
        return min((span for span in spans if span), default=0.0)

    def _market(self, view: View, prices: Prices, left_s: float | None, fast: int) -> tuple[bool, str]:
        """Whether all are to be on demand, and why."""
        if prices.sells(spot=False) and not prices.sells(spot=True):
            return True, "only machines on demand are sold"
        if left_s is None or not prices.sells(spot=False):
            return False, ""
        dear = prices.whole(False, self._least)
        if Purse(usd_per_hour=self._per_hour(prices)).most(dear) < self._least:
            return False, f"{self.means.purse.usd_per_hour:g} dollars an hour do not pay for machines on demand"
        per_s = self.rates.at(fast)
        if per_s is None or view.steps is None:
            if prices.spot_to_be_had:
                return False, "spot machines, until it is known how long a step takes"
            return True, "on demand, for spot machines are not to be had and it is not known how long a step takes"
        if self._decided is None or view.now - self._decided[0] >= EVERY_S or self._decided[1] != prices:
            decision = self._late.decide(self._situation(view, prices, left_s, fast, per_s), view.now)
            self._decided = view.now, prices, decision
        decision = self._decided[2]
        behind = decision.run == ON_DEMAND
        if behind:  # at once: it may be the last moment
            self._market_held.take(1)
        held = bool(self._market_held.settle(int(behind), view.now))
        return held, decision.reason if held == behind else "on demand, for it was behind a moment ago"

    def _situation(self, view: View, prices: Prices, left_s: float, fast: int, per_s: float) -> Situation:
        """As `headway.core.late` takes it."""
        floor = self.means.on_demand_min
        running = ON_DEMAND if view.on_demand > floor else SPOT if view.spot else NOTHING
        costs = LatePrices(self._cost(fast, False, prices), self._cost(fast, True, prices))
        return Situation(
            work_s=(view.steps or 0) / per_s + min(self._lost_s(per_s), view.unheld / per_s),
            left_s=left_s - self._lost_s(per_s),
            running=running if view.training else NOTHING,
            owed_s=0.0 if view.training else view.come_s,
            spot=prices.spot_to_be_had,
            prices=costs,
            restart_s=view.come_s,
            every_s=2.0 * EVERY_S,
        )

    # Money

    def _prices(self, size: int, behind: bool, prices: Prices) -> list[float]:
        """Of so many workers, dollars per hour each: the floor first."""
        floor = size if behind else min(size, self.means.on_demand_min)
        return [prices.of(False)] * floor + [prices.of(True)] * (size - floor)

    def _cost(self, size: int, behind: bool, prices: Prices) -> float:
        """Dollars per hour, of all that costs; of machines that have room for more the part that is used."""
        return sum(self._prices(size, behind, prices)) + prices.beside

    def _whole(self, size: int, behind: bool, prices: Prices) -> list[float]:
        """As `_prices`, by whole machines: so they are paid."""
        floor = size if behind else min(size, self.means.on_demand_min)
        return prices.whole(False, floor) + prices.whole(True, size - floor)

    def _bound(self, prices: Prices, behind: bool) -> int:
        """Most workers that the money allows at a time; not less than the least, without which nothing is done."""
        purse = Purse(self.means.purse.usd, self._per_hour(prices))
        return max(self._least, min(self._most, purse.most(self._whole(self._most, behind, prices))))

    def _per_hour(self, prices: Prices) -> float | None:
        """Dollars that workers may cost an hour."""
        whole = self.means.purse.usd_per_hour
        return None if whole is None else max(0.0, whole - prices.beside)

    # Size

    def _sizes(self, bound: int) -> list[int]:
        """Sizes up to a bound at which a step becomes shorter, and the least."""
        return sorted({self._least, *(size for size in demand.sizes(self._lanes, bound) if size >= self._least)})

    def _forced(self, view: View, left_s: float | None, bound: int, fast: int) -> int:
        """Workers that there must be: with a deadline so many that it is met, where any number meets it."""
        if left_s is None or view.steps is None or not self.rates.known:
            return self._least
        if self._behind:
            return min(bound, fast)
        for size in self._sizes(bound):
            needs_s = self._needs_s(view, size)
            if needs_s is not None and needs_s <= left_s:
                return size
        return bound

    def _worth(self, view: View, prices: Prices, bound: int) -> int:
        """Workers that are worth their price, as far as it is known."""
        if not self.rates.known:
            return min(bound, max(self._least, view.worth))
        sizes = [size for size in self._sizes(bound) if size <= max(self._least, view.worth)]
        chosen = sizes[0]
        for size in sizes[1:]:
            held = self._size is not None and size <= self._size.value
            if not self._pays(chosen, size, prices, WORTH * (FORGIVES if held else 1.0)):
                break
            if not self._affords(view, size, prices) and self._affords(view, chosen, prices):
                break
            chosen = size
        return chosen

    def _pays(self, few: int, many: int, prices: Prices, share: float) -> bool:
        """Whether what more workers bring for a dollar is such a share of what the fewer bring for one."""
        slow, fast = self.rates.at(few), self.rates.at(many)
        cost, more = self._cost(few, self._behind, prices), self._cost(many, self._behind, prices)
        if slow is None or fast is None or fast <= slow:
            return False
        if cost <= 0 or more <= cost:  # all cost the same, or nothing: then machines are what is spent
            cost, more = float(few), float(many)
        return (fast - slow) / (more - cost) >= share * slow / cost

    def _affords(self, view: View, size: int, prices: Prices) -> bool:
        """Whether the money lasts to the end with so many."""
        per_s = self.rates.at(size)
        if per_s is None or view.steps is None:
            return True
        rate = sum(self._whole(size, self._behind, prices)) + prices.beside
        return self.means.purse.short(view.spent, rate, view.steps / per_s) <= 0

    def _settle(self, wished: int, forced: int, bound: int, now: float) -> int:
        """The size that is taken now."""
        if self._size is None:
            self._size = Steady(min(bound, max(forced, wished)), HOLD_S)
        size = self._size.settle(wished, now)
        return size if forced <= size <= bound else self._size.take(max(forced, min(size, bound)))

    # Words

    def could(self, view: View) -> str:
        """What would hold the deadline, where nothing that is allowed does."""
        if self.means.deadline is None or view.steps is None:
            return ""
        left_s = self.means.deadline - view.now
        for size in demand.sizes(self._lanes, self._lanes):
            needs_s = self._needs_s(view, size)
            if size > self._most and needs_s is not None and needs_s <= left_s:
                return f"workers.max={size} would hold it"
        needs_s = self._needs_s(view, self._most)
        return "" if needs_s is None else f"a deadline {span(needs_s - left_s)} later would hold"

    def _why(self, view: View, size: int, wished: int, bound: int, market: str) -> str:
        told = [market] if market else []
        floor = self.means.on_demand_min
        if floor and not self._behind:
            told.append(f"{floor} on demand in any case")
        if not self.rates.known:
            told.append("more are thought of once it is known how long a step takes")
        elif size < min(self._most, view.worth) and size == bound:
            told.append(f"{self.means.purse.usd_per_hour:g} dollars an hour pay for no more")
        elif size == wished and size < min(self._most, view.worth):
            told.append("one more would not be worth its price")
        return "; ".join(told) or "as many as are worth their price"

    def _warned(self, order: Order, view: View, prices: Prices, left_s: float | None, needs_s: float | None) -> Order:
        """With what is foreseen to go wrong."""
        late_s = short = 0.0
        per_s = self.rates.at(order.workers)
        if left_s is not None and needs_s is not None and view.steps:
            late_s = max(0.0, needs_s - view.come_s - self._lost_s(self.rates.at(self._fast(prices)) or 1.0) - left_s)
        if per_s is not None and view.steps is not None:
            rate = sum(self._whole(order.workers, self._behind, prices)) + prices.beside
            short = self.means.purse.short(view.spent, rate, view.steps / per_s)
        return Order(order.workers, order.on_demand, order.reason, late_s, short)
