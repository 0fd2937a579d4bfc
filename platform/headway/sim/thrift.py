"""A run with a budget or a deadline whose spot machines come and go by a trace: the policy of production, its paces,
the provider's choice of a market and the bill, under a virtual clock.

Spot machines are to be had while the trace says so, and all of them are taken when it ends. A machine boots, its worker
warms up and joins; one that is replaced works on until then. When nobody is left, steps since the newest checkpoint are
done again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from headway.core.bill import Bill, Bought
from headway.core.policy import Order, Policy, Prices, View
from headway.core.purses import Purse
from headway.core.wishes import Wish, market

LOOK_S = 30.0
EACH = {"CPU": 1.0}
MOST_S = 400 * 3600.0


@dataclass(frozen=True)
class Place:
    """What the run's cluster sells, and how the run is.

    Args:
        on_demand, spot: dollars per hour of a machine, which carries one worker.
        come_s: from an order until its worker trains.
        idle_s: a machine costs on for so long once it is left.
        lanes: of the run; lane_s: seconds that one takes.
        steps: to be done.
        save_every: steps between two checkpoints.
    """

    on_demand: float = 3.0
    spot: float = 1.0
    come_s: float = 180.0
    idle_s: float = 60.0
    lanes: int = 8
    lane_s: float = 1.0
    steps: int = 10_000
    save_every: int = 100


@dataclass(frozen=True)
class Outcome:
    """What came of it: seconds, dollars, steps that are done, whether it was stopped for want of money, and (seconds,
    workers, of them on demand) at each decision that was another."""

    seconds: float
    dollars: float
    steps: float
    stopped: bool
    decisions: tuple[tuple[float, int, int], ...]


@dataclass
class _Machine:
    id: str
    spot: bool
    since: float
    leaves: bool = False


@dataclass
class _World:
    place: Place
    machines: list[_Machine] = field(default_factory=list)
    bill: Bill = field(default_factory=lambda: Bill(0.0))
    number: int = 0

    def buy(self, spot: bool, now: float) -> None:
        price = self.place.spot if spot else self.place.on_demand
        machine = _Machine(f"m{self.number}", spot, now)
        self.number += 1
        self.machines.append(machine)
        self.bill.bought(Bought(machine.id, "m", now, ((now, price),), spot=spot, least_s=0.0))

    def let_go(self, machine: _Machine, at: float) -> None:
        self.machines.remove(machine)
        self.bill.gone(machine.id, at)

    def ready(self, now: float) -> list[_Machine]:
        return [each for each in self.machines if now >= each.since + self.place.come_s]


def run(policy: Policy, place: Place, trace: Sequence[bool], tick_s: float, first: int = 1) -> Outcome:
    """One run.

    Args:
        policy: of it; its deadline in seconds from now.
        trace: for each stretch of `tick_s`, whether spot machines are to be had; for good as at its end.
        first: workers that are asked for at once.
    """
    world, purse, now, done, saved = _World(place), policy.means.purse, 0.0, 0.0, 0.0
    decisions: list[tuple[float, int, int]] = []
    while done < place.steps and now < MOST_S:
        spot = trace[min(len(trace) - 1, int(now // tick_s))]
        for machine in [each for each in world.machines if each.spot and not spot]:
            world.let_go(machine, now)
        training = len(world.ready(now))
        if not training:
            done = saved
        dollars = world.bill.dollars(now)
        order = policy.look(_view(world, place, now, done, dollars, first), _prices(place, spot))
        if not decisions or decisions[-1][1:] != (order.workers, order.on_demand):
            decisions.append((now, order.workers, order.on_demand))
        to_end_s = LOOK_S + place.idle_s
        lasts_s = Purse(purse.usd).lasts_s(dollars, world.bill.per_hour(now), to_end_s)
        if lasts_s is not None and lasts_s <= LOOK_S:
            return _over(world, place, now, done, True, decisions)
        _obey(world, order, spot, now)
        training = len(world.ready(now))
        if training:
            per_s = 1.0 / (place.lane_s * -(-place.lanes // training))
            done = min(float(place.steps), done + per_s * LOOK_S)
            saved = max(saved, done - done % place.save_every)
        now += LOOK_S
        policy.rates.look(training, int(done), now)
    return _over(world, place, now, done, False, decisions)


def _over(
    world: _World, place: Place, now: float, done: float, stopped: bool, decisions: list[tuple[float, int, int]]
) -> Outcome:
    """Machines idle until they are given back."""
    for machine in list(world.machines):
        world.let_go(machine, now + place.idle_s)
    return Outcome(now, world.bill.dollars(now + place.idle_s), done, stopped, tuple(decisions))


def _view(world: _World, place: Place, now: float, done: float, dollars: float, first: int) -> View:
    stay = [each for each in world.machines if not each.leaves]
    spot = sum(each.spot for each in stay)
    left = int(place.steps - done)
    training = len(world.ready(now))
    return View(
        now, left, training, len(stay), len(stay) - spot, spot, dollars, place.come_s, worth=place.lanes, asked=first
    )


def _prices(place: Place, spot: bool) -> Prices:
    return Prices(place.on_demand, place.spot, spot)


def _obey(world: _World, order: Order, spot: bool, now: float) -> None:
    """Buy what is wished, as the provider does; whoever is of the wrong market leaves once another is ready."""
    wish = Wish("r", EACH, order.on_demand, order.workers - order.on_demand, at=now)
    for of_spot, number in ((True, order.workers - order.on_demand), (False, order.on_demand)):
        mine = [each for each in world.machines if each.spot == of_spot and not each.leaves]
        if of_spot or spot:  # from on demand only to what is to be had
            for machine in mine[number:]:
                machine.leaves = True
    while sum(not each.leaves for each in world.machines) < order.workers:
        wanted = market([wish], EACH, [each.spot for each in world.machines if not each.leaves], now)
        if wanted is None or (wanted and not spot):
            break
        world.buy(wanted, now)
    instead = sum(not each.leaves for each in world.ready(now))
    leaving = [each for each in world.machines if each.leaves]
    for machine in leaving:
        young = machine not in world.ready(now)
        if young or instead + sum(each.leaves for each in world.ready(now)) > order.workers:
            world.let_go(machine, now)
