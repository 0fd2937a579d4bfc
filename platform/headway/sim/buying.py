"""What a run costs whose machines are bought: the real membership and `core.demand`, under a virtual clock.

Nothing goes wrong here (`sim.live` is about that): machines boot, workers warm up and join, and each machine costs from
its order until the run's end, or until its worker is let go.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from headway.core.events import Action, Arrived, Committed, Dismiss, Event, Go, Launch, Placed, Publish, Ready, Resized
from headway.core.events import Tick as Passes
from headway.core.membership import Membership, Policy
from headway.core.prospect import Prospect, on_their_way_out

TICK_S = 1.0
MOST_S = 10**7


@dataclass(frozen=True)
class Market:
    """What machines take and cost.

    Args:
        boot_s: from an order until it runs.
        warm_s: from then until its worker could train.
        per_hour: dollars.
    """

    boot_s: float = 60.0
    warm_s: float = 10.0
    per_hour: float = 1.0


@dataclass(frozen=True)
class Bill:
    """What came of it. sizes: (seconds, workers that train) at each change."""

    seconds: float
    dollars: float
    bought: int
    sizes: tuple[tuple[float, int], ...]


class Buying:
    """One run.

    Args:
        policy: of the run.
        steps: to be done.
        lane_s: seconds that a lane of a step takes.
        at_once: workers whose machines are ordered whether or not it pays; all of them where not given.
        resizes: (fewest, most) workers that somebody asks for, by when.
    """

    def __init__(
        self,
        policy: Policy,
        market: Market,
        steps: int,
        lane_s: float,
        at_once: int | None = None,
        resizes: Mapping[float, tuple[int, int]] | None = None,
    ) -> None:
        self.machine, self.market, self.steps, self.lane_s = Membership(policy), market, steps, lane_s
        self.prospect = Prospect(policy.max if at_once is None else at_once, steps)
        self.now, self.done = 0.0, 0.0
        self._resizes = dict(resizes or {})
        self._wanted: list[str] = []
        self._ordered: dict[str, float] = {}
        """Machines that cost, by worker, and since when."""
        self._placed: set[str] = set()
        self._ready: set[str] = set()
        self._cost_s = 0.0
        self._bought = 0
        self._sizes: list[tuple[float, int]] = []

    def run(self) -> Bill:
        """To its end."""
        self._carry_out(self.machine.begin())
        while self.done < self.steps and self.now < MOST_S:
            self._train()
            self.now += TICK_S
            for at in [at for at in self._resizes if at <= self.now]:
                least, most = self._resizes.pop(at)
                self.prospect.at_once = least
                self._tell(Resized(least, most, "somebody", self.now))
            self._boot()
            self._order()
            self._tell(Passes(self.now))
        self._cost_s += sum(self.now - since for since in self._ordered.values())
        dollars = self._cost_s / 3600 * self.market.per_hour
        return Bill(self.now, dollars, self._bought, tuple(self._sizes))

    def _train(self) -> None:
        active = self.machine.active
        if active is not None:
            before, self.done = self.done, self.done + TICK_S / (self.lane_s * max(map(len, active.lanes)))
            if int(self.done) > int(before):
                self._tell(Committed(active.members[0], active.number, int(self.done), 0.0, self.now))

    def _order(self) -> None:
        """As `Orders` admits them: who was asked for first."""
        allowed = self.prospect.look(self.machine, int(self.done), self.now).workers + on_their_way_out(self.machine)
        for worker in self._wanted[: max(0, allowed - len(self._placed))]:
            if worker not in self._ordered:
                self._ordered[worker] = self.now
                self._bought += 1
        for worker in self._wanted[max(0, allowed - len(self._placed)) :]:
            self._give_back(worker)

    def _boot(self) -> None:
        for worker, since in list(self._ordered.items()):
            if worker not in self._placed and self.now >= since + self.market.boot_s:
                self._wanted.remove(worker)
                self._placed.add(worker)
                self.prospect.came(self.now - since)
                self._tell(Placed(worker, f"node of {worker}", self.now))
            late = since + self.market.boot_s + self.market.warm_s
            if worker in self._placed and worker not in self._ready and self.now >= late:
                self._ready.add(worker)
                self.prospect.warmed(self.market.warm_s)
                self._tell(Ready(worker, self.now))

    def _give_back(self, worker: str) -> None:
        since = self._ordered.pop(worker, None)
        if since is not None:
            self._cost_s += self.now - since

    def _tell(self, event: Event) -> None:
        self._carry_out(self.machine.step(event))

    def _carry_out(self, actions: Iterable[Action]) -> None:
        for action in actions:
            match action:
                case Launch(worker):
                    self._wanted.append(worker)
                case Dismiss(worker):
                    self._give_back(worker)
                    self._placed.discard(worker)
                    if worker in self._wanted:
                        self._wanted.remove(worker)
                case Publish(generation):
                    held = set(self.machine.carried)
                    for member in generation.members:
                        step = int(self.done) if member in held else -1
                        self._tell(Arrived(member, generation.number, step, 0, False, self.now))
                case Go(generation):
                    self._sizes.append((self.now, len(generation.members)))
