"""What a run wishes of its cluster, by its money and its deadline: the shell around `headway.core.policy`.

One thread learns (what is sold, what machines there are, what was spent) and decides, which may take a moment; the
coordinator's says how the run is, and takes what was decided.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from headway.core.alarms import span
from headway.core.bill import Outlay
from headway.core.demand import Worth
from headway.core.foresight import LATE, MONEY, Foresight
from headway.core.kinds import Kinds
from headway.core.membership import MEMBER, READY, WARMING, Membership
from headway.core.offers import Stock
from headway.core.policy import Order, Policy, Prices, View
from headway.core.purses import HOUR_S
from headway.core.wishes import EACH_S, Wish

SHORT = 0.01
"""Of what is left, so little money or time is not told to be missing."""


class Wishing:
    """See the module.

    Args:
        policy: of the run, whose rates are kept up here.
        run: its name.
        each: what a worker takes, by Ray's names.
        total_steps: of the run; 0 where that is not known.
        price: dollars for a worker's hour where the cluster tells none; None: nobody tells.
        before: dollars of the starts before; done: their steps.
        listed: dollars per hour of a type, in a zone, as spot or not, where the cluster tells none.
    """

    def __init__(
        self,
        policy: Policy,
        run: str,
        each: Mapping[str, float],
        total_steps: int,
        price: float | None = None,
        before: float = 0.0,
        done: int = 0,
        listed: Callable[[str, str, bool], float | None] | None = None,
    ) -> None:
        self._listed = listed
        self.policy, self._run, self._each, self._total, self._price = policy, run, dict(each), total_steps, price
        self._stock, self._before, self._done = Stock(), before, done
        self._machines: dict[str, tuple[str, bool]] = {}
        self._outlay: Outlay | None = None
        self._beside, self._spares = 0.0, 0
        self._kinds, self._foresight = Kinds(), Foresight()
        self._order: Order | None = None
        self.most = policy.most
        """Workers that are wanted at most, by whoever asks."""
        self._seen: tuple[View, int, float, dict[str, tuple[str | None, float]]] | None = None
        """How the run is: with its step, when that was, and of members their node and what they take for a lane."""
        self._resized: tuple[int, int] | None = None
        self._untold: list[dict[str, Any]] = []
        self._lock = threading.Lock()
        self._shown: tuple[int, int | None] | None = None
        self._said: Wish | None = None

    # By the thread that learns

    def learnt(
        self, stock: Stock, machines: Mapping[str, tuple[str, bool]], outlay: Outlay | None, beside: float
    ) -> None:
        """What there is to know.

        Args:
            stock: what is sold.
            machines: of each node by Ray's id, the type of its machine, and whether it is a spot machine.
            outlay: how the run stands; None where no machine has a price.
            beside: dollars per hour of what costs beside workers.
        """
        self._stock = stock if self._listed is None else stock.listed(self._listed)
        self._machines, self._outlay, self._beside = dict(machines), outlay, beside

    def decide(self) -> None:
        """Think about how the run was said to be last."""
        with self._lock:
            seen, self._seen = self._seen, None
            resized, self._resized = self._resized, None
        if resized is not None:
            self.policy.resized(*resized)
        if seen is None:
            return
        view, step, at, paces = seen
        self.policy.rates.look(view.training, step, at)
        for node, lane_s in paces.values():
            if node in self._machines:
                self._kinds.note(self._machines[node][0], lane_s)
        order = self.policy.look(view, self._prices(view.now, view.there))
        told = [*self._decided(order, view), *self._foreseen(order, view)]
        with self._lock:
            if self._resized is None:
                self._order = order
            self._untold += told

    def wish(self, now: float) -> Wish | None:
        """What the cluster is to be told; None where it knows. now: Unix seconds."""
        order = self._order
        if order is None or not self._stock.offers:
            return None
        spot = order.workers - order.on_demand
        wish = Wish(self._run, self._each, order.on_demand, spot, self._kinds.speeds(), now, order.reason)
        said = self._said
        if said is not None and now - said.at < EACH_S and replace(said, at=now, why=wish.why) == wish:
            return None
        self._said = wish
        return wish

    # By the coordinator's

    def look(
        self,
        membership: Membership,
        step: int,
        worth: Worth,
        at_once: int,
        come_s: float,
        lane_s: Mapping[str, float],
        worker_s: float,
    ) -> tuple[Worth, list[dict[str, Any]]]:
        """How the run is; gives what to have now, and what is to be told of it.

        Args:
            step: that the foremost worker is at; -1: nobody holds a state, and what was known last is left.
            worth: what would be worth it by time alone.
            at_once: workers that are asked for whether or not they pay.
            come_s: seconds from asking for a machine until a worker on it trains.
            lane_s: what members take for a lane, by worker.
            worker_s: seconds of all workers in this start.
        """
        active = membership.active
        training = len(active.members) if active is not None else 0
        on_demand, spot, unknown = self._by_market(membership)
        unheld = self._done if step < 0 else 0
        self._done = step = unheld or max(0, step)
        steps = max(0, self._total - step) if self._total else None
        there = len(on_demand) + len(spot) + len(unknown)
        spent = self._before + worker_s / HOUR_S * (self._price or 0.0)
        spent = spent if self._outlay is None else self._outlay.dollars
        number, self._spares = (len(on_demand), len(spot)), membership.policy.spares
        view = View(time.time(), steps, training, there, *number, spent, come_s, worth.workers, at_once, unheld)
        nodes = {worker: known.node for worker, known in membership.workers.items()}
        paces = {worker: (nodes.get(worker), seconds) for worker, seconds in lane_s.items()}
        with self._lock:
            self._seen = view, step, time.monotonic(), paces
            told, self._untold = self._untold, []
            order = self._order
        return worth if order is None else Worth(order.workers, order.reason), told

    def resized(self, least: int, most: int) -> None:
        """Somebody asks for another size; it is thought about before long."""
        with self._lock:
            self._resized, self._order, self.most = (least, most), None, most

    def astray(self, membership: Membership) -> list[tuple[str, str]]:
        """Members to be replaced by one on a machine of the other market, and why: of machines that are known."""
        order = self._order
        if order is None or not self._stock.offers:
            return []
        on_demand, spot, unknown = self._by_market(membership)
        many = order.workers - order.on_demand
        leave: list[tuple[str, str]] = []
        if self._stock.sold(self._each, False):
            train = [worker for worker in spot if membership.workers[worker].phase == MEMBER]
            leave += [(worker, f"a machine on demand is wished: {order.reason}") for worker in train[many:]]
        if len(spot) + len(unknown) < many and self._stock.to_be_had(self._each, True, time.time()) and self._cheaper():
            too_many = max(0, len(on_demand) - order.on_demand)
            leave += [(worker, f"a spot machine will do: {order.reason}") for worker in on_demand[::-1][:too_many]]
        return [(worker, why) for worker, why in leave if membership.workers[worker].phase == MEMBER]

    def _by_market(self, membership: Membership) -> tuple[list[str], list[str], list[str]]:
        """Workers that have a place and stay, oldest first: those on demand, those on spot machines, and those on
        machines of which nothing is known so far."""
        found: tuple[list[str], list[str], list[str]] = [], [], []
        for worker, known in membership.workers.items():
            if known.phase in (WARMING, READY, MEMBER):
                machine = self._machines.get(known.node or "")
                found[2 if machine is None else int(machine[1])].append(worker)
        return found

    def _cheaper(self) -> bool:
        """Whether spot machines are."""
        spot, other = (self._stock.price(self._each, each, other=self._price) for each in (True, False))
        return spot is None or other is None or spot < other

    def _prices(self, now: float, there: int) -> Prices:
        stock, each, other = self._stock, self._each, self._price
        on_demand = stock.price(each, False, other=other)
        spot = stock.price(each, True, now, other)
        spot = stock.price(each, True, other=other) if spot is None else spot
        had = stock.to_be_had(each, True, now)
        sold = (stock.sold(each, False), stock.sold(each, True)) if stock.offers else None
        if on_demand is None and spot is None:
            price = self._price
            if self._outlay is not None and there:  # as those cost that are there
                price = max(0.0, self._outlay.per_hour - self._beside) / there
            return Prices(price, price, had or sold is None, self._beside + self._spares * (price or 0.0), sold)
        stand_by = self._spares * (spot if spot is not None else on_demand or 0.0)
        rooms = stock.room(each, False, other=other), stock.room(each, True, now if had else None, other)
        return Prices(on_demand, spot, had, self._beside + stand_by, sold, rooms)

    def _decided(self, order: Order, view: View) -> list[dict[str, Any]]:
        """The event of a decision, where it is another."""
        on_demand = order.on_demand if self._stock.offers else None
        if self._shown == (order.workers, on_demand):
            return []
        self._shown = order.workers, on_demand
        told = {"workers": order.workers, "on_demand": on_demand, "reason": order.reason}
        return [{"kind": "policy", "time": view.now, **told, "spent": round(view.spent, 6)}]

    def _foreseen(self, order: Order, view: View) -> list[dict[str, Any]]:
        means = self.policy.means
        late = money = ""
        if means.deadline is not None and order.late_s > SHORT * max(0.0, means.deadline - view.now):
            could = self.policy.could(view)
            late = f"the deadline will be missed by {span(order.late_s)}, on {order.workers} workers on demand; {could}"
        if means.purse.usd is not None and order.short > SHORT * means.purse.usd:
            need = means.purse.usd + order.short
            money = f"budget.usd={means.purse.usd:g} ends it before its last step: the whole takes about {need:.2f}"
        said = [*self._foresight.look(LATE, late, view.now), *self._foresight.look(MONEY, money, view.now)]
        return [
            {"kind": "foreseen", "time": view.now, "about": told.about, "text": told.text, "over": told.over}
            for told in said
        ]
