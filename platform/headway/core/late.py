"""Finish in time at the least cost: spot while there is slack, on demand when it is worth it, and never late.

Every way that may be chosen is judged by what it is expected to cost until the end (`core.slack`), given what was seen
of spot machines so far (`core.phases`). A way may be chosen only if machines on demand can still make it afterwards,
their restart paid, whatever spot machines do; and only if what was paid by then could not come to more than was
allowed over what on demand alone costs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np

from headway.core.lifetime import said
from headway.core.phases import Phases, Seen, of_json, unseen
from headway.core.slack import MOST_TICKS, NOTHING, ON_DEMAND, SPOT, Programme, Terms
from headway.core.spot_habits import LEARNED

OVER = 0.1
"""So much more than on demand alone a run may cost, as a part of that, in the worst case."""

ALIKE = 1e-3
"""Ways whose expected costs differ by no more, in hours on demand, cost the same; the one that ends sooner is taken."""

PATIENCE = (3.0, 12 * 3600.0)
"""Slack beyond so many times the work, and beyond so many seconds, is no reason to wait any longer."""


@dataclass(frozen=True)
class Prices:
    """Dollars an hour of what the run needs: all of its machines. Where on demand is for nothing, the two are alike."""

    spot: float
    on_demand: float


@dataclass(frozen=True)
class Situation:
    """How things stand when it is to be decided.

    Args:
        work_s: seconds of computing still to do, restarts not among it.
        left_s: seconds until the deadline.
        running: NOTHING, SPOT or ON_DEMAND. What was reclaimed no longer runs.
        owed_s: of the restart of what runs, still to pass; 0 when it computes.
        spot: whether spot machines are to be had now. While one's own run, they are.
        prices: now.
        restart_s: from the order of a machine until it computes.
        every_s: until it is decided again, at the latest.
        sure_s: of those, in which a spot machine that runs is sure to stay.
        done_s: seconds of computing done so far.
        paid: dollars for machines so far. Where it is left out, nothing is checked against what was allowed.
    """

    work_s: float
    left_s: float
    running: str
    owed_s: float
    spot: bool
    prices: Prices
    restart_s: float
    every_s: float
    sure_s: float = 0.0
    done_s: float = 0.0
    paid: float = 0.0

    @property
    def need_s(self) -> float:
        """Seconds on demand, from now to the end."""
        return self.work_s + (self.owed_s if self.running == ON_DEMAND else self.restart_s)

    @property
    def short_s(self) -> float:
        """By how much even machines on demand will be late; 0 if they can make it."""
        return max(0.0, self.need_s - self.left_s)


@dataclass(frozen=True)
class Decision:
    """What is to run until it is decided again.

    Args:
        run: NOTHING, SPOT or ON_DEMAND.
        reason: in words.
        expected: dollars from now to the end by each way that was weighed; empty where there was no choice.
    """

    run: str
    reason: str
    expected: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))


class Late:
    """The policy of one run's deadline. It keeps what was seen of spot machines, and the programme that it made of it.

    Args:
        phases: habits of spot machines.
        over: how much more than on demand alone it may cost at worst, as a part of that.
        seen: what was seen before.
    """

    def __init__(self, phases: Phases = LEARNED, over: float = OVER, seen: Seen | None = None) -> None:
        self.phases, self.over = phases, over
        self.seen = seen or unseen(phases)
        self._programme: Programme | None = None

    def as_json(self) -> dict[str, Any]:
        """What was learned: what a successor needs to go on."""
        return self.seen.as_json()

    @staticmethod
    def of_json(tree: Any, phases: Phases = LEARNED, over: float = OVER) -> Late:
        """A successor; one that has seen nothing where `tree` is not of these phases."""
        return Late(phases, over, of_json(tree, phases))

    def successor(self) -> Late:
        """One for another run that has seen nothing, with the programme that was made."""
        other = Late(self.phases, self.over)
        other._programme = self._programme
        return other

    def decide(self, now: Situation, at: float) -> Decision:
        """What is to run.

        Args:
            at: seconds by any clock that goes on, the same at every call of a run.
        """
        spot = now.spot or now.running == SPOT
        self.seen = self.seen.looked(self.phases, spot, at)
        if now.work_s <= 0.0:
            return Decision(NOTHING, "all is computed")
        if now.short_s > 0.0:
            if now.running == SPOT and now.work_s + now.owed_s <= now.left_s:
                return Decision(SPOT, "only what runs can still be in time: a change would be late")
            return Decision(
                ON_DEMAND,
                f"even on demand it ends {_time(now.short_s)} late: "
                f"{_time(now.need_s)} needed, {_time(now.left_s)} left",
            )
        open_, closed = allowed(now, spot, self.over)
        if open_ == (ON_DEMAND,):
            return Decision(ON_DEMAND, closed)
        slack_s = self._slack(now)
        hours = self._fitting(now, slack_s).ahead(
            now.running, np.array(self.seen.belief), now.work_s + now.owed_s + slack_s, slack_s
        )
        costs = {way: hours[way] for way in open_ if way in hours}
        best = min(costs.values())
        run = next(way for way in (SPOT, ON_DEMAND, NOTHING) if costs.get(way, np.inf) <= best + ALIKE)
        dollars = {way: cost * now.prices.on_demand for way, cost in costs.items()}
        return Decision(run, _why(run, now, dollars, closed), MappingProxyType(dollars))

    def _slack(self, now: Situation) -> float:
        """As much of it as counts, in seconds."""
        times, least_s = PATIENCE
        return min(now.left_s - now.work_s - now.owed_s, max(times * now.work_s, least_s))

    def _fitting(self, now: Situation, slack_s: float) -> Programme:
        """The programme at hand where it was made for this, else one that is made now."""
        price = now.prices.spot / now.prices.on_demand if now.prices.on_demand > 0.0 else 1.0
        horizon_s = now.work_s + now.owed_s + slack_s
        if self._programme is not None:
            made = self._programme.terms
            fits = (
                horizon_s <= (made.ticks + 0.5) * made.tick_s
                and slack_s <= made.slack_s + made.tick_s
                and abs(price - made.price) <= 0.02 * made.price
                and abs(now.restart_s - made.restart_s) <= max(0.1 * made.restart_s, 0.01 * made.tick_s)
            )
            if fits:
                return self._programme
        tick_s = max(now.every_s, horizon_s / MOST_TICKS)
        ticks = int(np.ceil(horizon_s / tick_s - 1e-9))
        self._programme = Programme(Terms(tick_s, ticks, max(slack_s, tick_s), now.restart_s, price), self.phases)
        return self._programme


def allowed(now: Situation, spot: bool, over: float) -> tuple[tuple[str, ...], str]:
    """The ways that leave a way back to machines on demand, in time and within what may be paid; why not the others.

    Args:
        spot: whether spot machines are to be had.
        over: as of `Late`.
    """
    limit = (1.0 + over) * now.prices.on_demand * (now.done_s + now.work_s + now.restart_s) / 3600.0
    owed_s = now.owed_s if now.running == SPOT else now.restart_s
    sure_s = max(0.0, min(now.sure_s, now.every_s) - owed_s)  # computed before a spot machine can go
    back_s = now.work_s + now.restart_s
    open_, closed = [ON_DEMAND], ""
    ways = ((NOTHING, now.every_s, 0.0, 0.0), (SPOT, now.every_s, sure_s, now.prices.spot))
    for way, passes_s, computed_s, price in ways:
        if way == SPOT and not spot:
            continue
        worst = now.paid + (price * passes_s + now.prices.on_demand * (back_s - computed_s)) / 3600.0
        if computed_s >= now.work_s:  # it is done by then
            open_.append(way)
        elif now.left_s - passes_s < back_s - computed_s - 1e-6:
            spare_s = max(0.0, now.left_s - now.work_s)
            closed = f"{_time(spare_s)} to spare are needed for a restart on demand should spot machines go"
        elif now.paid > 0.0 and worst > limit:
            closed = f"{now.paid:.2f} dollars are spent, and more could end {100 * over:.0f} % over on demand alone"
        else:
            open_.append(way)
    return tuple(open_), closed


def _why(run: str, now: Situation, dollars: Mapping[str, float], closed: str) -> str:
    """A choice in words."""
    others = {way: cost for way, cost in dollars.items() if way != run}
    spare = f"{_time(now.left_s - now.work_s - now.owed_s)} to spare"
    weighed = ", ".join(f"{_named(way)} {cost:.2f}" for way, cost in sorted(others.items(), key=lambda item: item[1]))
    head = {
        SPOT: "spot machines are to be had",
        ON_DEMAND: "waiting for spot machines is not worth it" if not now.spot else "a change to spot is not worth it",
        NOTHING: "spot machines are worth waiting for" if not now.spot else "spot machines are not worth a start",
    }[run]
    tail = f"; {closed}" if closed else ""
    return f"{head}, {spare}: to the end {dollars[run]:.2f} dollars expected ({weighed or 'the only way'}){tail}"


def _named(way: str) -> str:
    return "waiting" if way == NOTHING else way


def _time(seconds: float) -> str:
    """A time in words, with three figures."""
    unit = 3600.0 if seconds >= 3600.0 else 60.0 if seconds >= 60.0 else 1.0
    return said(float(f"{seconds / unit:.3g}") * unit)
