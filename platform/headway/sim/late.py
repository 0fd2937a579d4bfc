"""The game of Can't Be Late (Z. Wu and others, NSDI 2024): a task, a deadline, and spot machines that come and go.

At every look it is decided what runs until the next: a spot machine where there is one, one on demand, or nothing. What
starts, or starts elsewhere, computes only once a restart has passed. Machines are paid by whole gaps. The players are
the policy of `headway.core.late`, the very one that decides in a real run; uniform progress, as the paper has it; what
on demand alone costs; and the best that somebody could do who knows the whole recording beforehand.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headway.core.habits import learned
from headway.core.late import Late, Prices, Situation
from headway.core.phases import Phases
from headway.core.slack import NOTHING, ON_DEMAND, SPOT
from headway.core.spot_habits import LEARNED
from headway.errors import BadInput
from headway.sim.spells import Spell, halves

AWS = Prices(spot=0.9731, on_demand=3.06)
"""Of the paper's machines (p3.2xlarge), dollars an hour."""

Player = Callable[[Situation, float], str]
"""What is to run, of how things stand and of the seconds since the start."""


@dataclass(frozen=True)
class Rules:
    """Of a game.

    Args:
        work_s: seconds of computing.
        deadline_s: seconds until the deadline.
        restart_s: seconds that a restart takes.
    """

    work_s: float = 48 * 3600.0
    deadline_s: float = 52 * 3600.0
    restart_s: float = 180.0
    prices: Prices = AWS

    def looks(self, spell: Spell) -> int:
        """How many there are until the deadline.

        Raises:
            BadInput: the deadline cannot be met, or the recording ends before it.
        """
        number = math.floor(self.deadline_s / spell.gap_s + 1e-9)
        alone = math.ceil((self.work_s + self.restart_s) / spell.gap_s - 1e-9)
        if number < alone:
            raise BadInput(
                f"a deadline of {self.deadline_s / 3600:g} h cannot be met",
                f"on demand alone it takes {alone * spell.gap_s / 3600:g} h, in gaps of {spell.gap_s:g} s",
                "Give a later deadline or less work.",
            )
        if number > len(spell.there):
            raise BadInput(
                f"{spell.pool}, {spell.name} is of {len(spell.there) * spell.gap_s / 3600:.3g} h",
                f"the deadline is after {self.deadline_s / 3600:g} h",
                "Give an earlier deadline, or a longer recording.",
            )
        return number


@dataclass(frozen=True)
class Outcome:
    """How a game ended. dollars: paid until it was done, or the deadline."""

    dollars: float
    in_time: bool
    starts: int


def play(spell: Spell, rules: Rules, player: Player) -> Outcome:
    """One game."""
    gap_s, prices = spell.gap_s, {SPOT: rules.prices.spot, ON_DEMAND: rules.prices.on_demand, NOTHING: 0.0}
    work_s, owed_s, running, paid, starts = rules.work_s, 0.0, NOTHING, 0.0, 0
    for look in range(rules.looks(spell)):
        if work_s <= 1e-6:
            break
        there, at = spell.there[look], look * gap_s
        if running == SPOT and not there:
            running, owed_s = NOTHING, 0.0
        left_s, done_s = rules.deadline_s - at, rules.work_s - work_s
        now = Situation(
            *(work_s, left_s, running, owed_s, there, rules.prices, rules.restart_s, gap_s),
            sure_s=gap_s,
            done_s=done_s,
            paid=paid,
        )
        run = player(now, at)
        if run == SPOT and not there:
            raise ValueError(f"there is no spot machine at {at:g} s")
        if run != running:
            running, owed_s = run, 0.0 if run == NOTHING else rules.restart_s
            starts += run != NOTHING
        if running != NOTHING:
            passes_s = min(owed_s, gap_s)
            work_s, owed_s = work_s - (gap_s - passes_s), owed_s - passes_s
            paid += prices[running] * gap_s / 3600.0
    return Outcome(paid, work_s <= 1e-6, starts)


def ours(phases: Phases) -> Callable[[Rules], Callable[[], Player]]:
    """The policy of `headway.core.late`, one for each game; its programme is made once for each set of rules."""

    def of(rules: Rules) -> Callable[[], Player]:
        first = Late(phases)

        def fresh() -> Player:
            policy = first.successor()
            return lambda now, at: policy.decide(now, at).run

        return fresh

    return of


def uniform_progress(rules: Rules, at_once: bool = False) -> Player:
    """Uniform progress: no further behind than the straight line from the start to the deadline.

    - Idle and spot to be had: spot, and on it until it is reclaimed.
    - Idle and behind the line: on demand; on it until what is done would do for two restarts later (hysteresis).
    - When what is left is hardly more than is needed, two restarts and a gap among it: on demand to the end.

    Args:
        at_once: from on demand to spot as soon as it is to be had, which the paper's second rule can be read as.
    """
    last = False

    def player(now: Situation, at: float) -> str:
        nonlocal last
        if last:
            return ON_DEMAND
        if now.running != SPOT and now.left_s < now.work_s + 2 * now.restart_s + now.every_s:
            last = True
            return ON_DEMAND
        if now.running == SPOT:
            return SPOT
        line = rules.work_s / rules.deadline_s
        if now.running == ON_DEMAND:
            if now.done_s >= (at + 2 * now.restart_s) * line - 1e-6:
                return SPOT if now.spot else NOTHING
            return SPOT if at_once and now.spot else ON_DEMAND
        return SPOT if now.spot else ON_DEMAND if now.done_s < at * line - 1e-6 else NOTHING

    return player


def on_demand(now: Situation, at: float) -> str:
    """Nothing but machines on demand."""
    return ON_DEMAND


def bound(spell: Spell, rules: Rules) -> float:
    """Dollars of the best plan of one who knows the recording; exact, by a programme over looks, work and restarts.

    Work and restart are counted in the largest unit in which the gap, they and a second are whole numbers.

    Raises:
        BadInput: of `Rules.looks`; or seconds of the rules or the gap are no whole numbers.
    """
    looks = rules.looks(spell)
    sizes = [spell.gap_s, rules.restart_s, rules.work_s]
    if any(size != int(size) for size in sizes):
        raise BadInput("work, restart and gap have parts of seconds", "the bound counts in whole ones", "Round them.")
    unit = math.gcd(*map(int, sizes))
    gap, restart, work = (int(size) // unit for size in sizes)
    stages = max(1, math.ceil(restart / gap))
    owed = [max(0, restart - stage * gap) for stage in range(stages + 1)]  # after so many looks since a start
    hours = spell.gap_s / 3600.0
    paid = {SPOT: rules.prices.spot * hours, ON_DEMAND: rules.prices.on_demand * hours}
    none = np.full(work + 1, np.inf)
    none[0] = 0.0
    runs = {(way, stage): none for way in paid for stage in range(1, stages + 1)}  # by work left: dollars to the end

    def on(way: str, stage: int, runs: dict[tuple[str, int], NDArray[np.float64]]) -> NDArray[np.float64]:
        computed = max(0, gap - owed[stage])
        after = runs[way, min(stage + 1, stages)]
        found = np.full(work + 1, paid[way] + after[0])
        found[computed:] = paid[way] + after[: work + 1 - computed]
        return found

    for there in reversed(spell.there[:looks]):
        ways = (SPOT, ON_DEMAND) if there else (ON_DEMAND,)
        idle = np.minimum.reduce([none, *(on(way, 0, runs) for way in ways)])
        idle[0] = 0.0
        new = {}
        for way, stage in runs:
            new[way, stage] = np.minimum(idle, on(way, stage, runs)) if way in ways else idle
            new[way, stage][0] = 0.0
        none, runs = idle, new
    return float(none[work])


@dataclass(frozen=True)
class Line:
    """Of the table: means over the recordings, in dollars.

    Args:
        uniform: of uniform progress.
        at_once: of uniform progress that takes spot at once.
        late: games of ours that ended late.
        spells: (pool, name, ours, uniform progress, bound) of each recording.
    """

    rules: Rules
    on_demand: float
    uniform: float
    at_once: float
    ours: float
    bound: float
    late: int
    spells: tuple[tuple[str, str, float, float, float], ...]

    @property
    def closed(self) -> float:
        """The part of the gap between uniform progress and the bound that ours closes."""
        return _closed(self.uniform, self.ours, self.bound)

    @property
    def closed_of_at_once(self) -> float:
        """The same against uniform progress that takes spot at once."""
        return _closed(self.at_once, self.ours, self.bound)

    def _of(self, pool: str) -> dict[str, float]:
        """Means of one pool."""
        means = np.mean([costs for name, _, *costs in self.spells if name == pool], axis=0)
        return dict(zip(("ours", "uniform_progress", "bound"), (round(float(mean), 3) for mean in means), strict=True))

    def as_json(self) -> dict[str, Any]:
        """For --json and the benchmark's results."""
        return {
            "deadline_h": self.rules.deadline_s / 3600,
            "restart_s": self.rules.restart_s,
            "on_demand": round(self.on_demand, 3),
            "uniform_progress": round(self.uniform, 3),
            "uniform_progress_at_once": round(self.at_once, 3),
            "ours": round(self.ours, 3),
            "bound": round(self.bound, 3),
            "closed": round(self.closed, 4),
            "closed_against_at_once": round(self.closed_of_at_once, 4),
            "late": self.late,
            "pools": {pool: self._of(pool) for pool in sorted({pool for pool, *_ in self.spells})},
        }


@dataclass(frozen=True)
class Table:
    """Line by line. taught: where the habits of spot machines came from, in words."""

    lines: tuple[Line, ...]
    taught: str

    def words(self) -> str:
        """What it is of."""
        spells = self.lines[0].spells
        pools = len({pool for pool, *_ in spells})
        return (
            f"{len(spells)} recordings of {pools} pools, {self.lines[0].rules.work_s / 3600:g} h of computing, mean "
            f"dollars; habits learned from {self.taught}"
        )

    def as_json(self) -> dict[str, Any]:
        """For --json."""
        return {
            "work_h": self.lines[0].rules.work_s / 3600,
            "spot_per_hour": self.lines[0].rules.prices.spot,
            "on_demand_per_hour": self.lines[0].rules.prices.on_demand,
            "spells": len(self.lines[0].spells),
            "habits_from": self.taught,
            "closed_in_the_mean": round(float(np.mean([line.closed for line in self.lines])), 4),
            "closed_in_the_mean_against_at_once": round(
                float(np.mean([line.closed_of_at_once for line in self.lines])), 4
            ),
            "late": sum(line.late for line in self.lines),
            "settings": [line.as_json() for line in self.lines],
        }


def table(
    spells: Sequence[Spell],
    work_h: float,
    deadlines_h: Sequence[float],
    restarts_h: Sequence[float],
    every_half: bool = False,
) -> Table:
    """All players, for every deadline and restart.

    Ours knows of a pool only what half of the other pools taught; of a single pool, what Headway comes with.

    Args:
        every_half: by every way to halve the pools, not by the one in order of their names.

    Raises:
        BadInput: a deadline that cannot be met, or that a recording ends before; a number below 0, or none.
    """
    for name, hours in (("work", [work_h]), ("deadline", deadlines_h), ("restart", restarts_h)):
        for each in hours:
            if not math.isfinite(each * 3600.0):
                raise BadInput(f"a {name} of {each:g} h", "that is no length of time", "Give a number of hours.")
    if min(*restarts_h, 0.0) < 0.0:
        raise BadInput(f"a restart of {min(restarts_h):g} h", "it would end before it begins", "Give 0 or more.")
    settings = [
        Rules(float(round(work_h * 3600)), deadline * 3600.0, float(round(restart * 3600)))
        for deadline in deadlines_h
        for restart in restarts_h
    ]
    for rules in settings:
        for spell in spells:
            rules.looks(spell)
    parts: list[tuple[Phases, Sequence[Spell]]]
    parts = [
        (learned([spell.there for spell in taught], taught[0].gap_s), judged)
        for taught, judged in halves(spells, every_half)
    ]
    words = "other pools: each half of them judged by what the other taught"
    if not parts:
        parts, words = [(LEARNED, spells)], "those that Headway comes with"
    return Table(tuple(line(rules, parts) for rules in settings), words)


def rows(table: Table) -> Iterator[tuple[str, ...]]:
    """The table, heads first."""
    yield (
        *("deadline", "restart", "on demand", "uniform progress", "the same, spot at once", "ours", "bound"),
        *("gap closed", "against at once", "late"),
    )
    for one in table.lines:
        rules = one.rules
        yield (
            f"{rules.deadline_s / 3600:g} h",
            f"{rules.restart_s / 3600:.3g} h" if rules.restart_s >= 60.0 else f"{rules.restart_s:g} s",
            *(f"{dollars:.1f}" for dollars in (one.on_demand, one.uniform, one.at_once, one.ours, one.bound)),
            *(f"{100 * part:.0f} %" for part in (one.closed, one.closed_of_at_once)),
            str(one.late),
        )


def _closed(peer: float, ours: float, bound: float) -> float:
    return (peer - ours) / (peer - bound) if peer > bound else 0.0


def line(rules: Rules, parts: Sequence[tuple[Phases, Sequence[Spell]]]) -> Line:
    """One line of the table.

    Args:
        parts: (habits that were learned elsewhere, recordings to judge them by); the mean of ours is over all.
    """
    spells = list(dict.fromkeys(spell for _, judged in parts for spell in judged))
    came: dict[Spell, list[Outcome]] = {spell: [] for spell in spells}
    for phases, judged in parts:
        players = ours(phases)(rules)
        for spell in judged:
            came[spell].append(play(spell, rules, players()))
    mine = {spell: float(np.mean([outcome.dollars for outcome in games])) for spell, games in came.items()}
    uniform = {spell: play(spell, rules, uniform_progress(rules)).dollars for spell in spells}
    least = {spell: bound(spell, rules) for spell in spells}
    return Line(
        rules,
        on_demand=float(np.mean([play(spell, rules, on_demand).dollars for spell in spells])),
        uniform=float(np.mean(list(uniform.values()))),
        at_once=float(np.mean([play(spell, rules, uniform_progress(rules, True)).dollars for spell in spells])),
        ours=float(np.mean(list(mine.values()))),
        bound=float(np.mean(list(least.values()))),
        late=sum(not outcome.in_time for games in came.values() for outcome in games),
        spells=tuple((s.pool, s.name, mine[s], uniform[s], least[s]) for s in spells),
    )
