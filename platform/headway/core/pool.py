"""A pool of warm processes that runs take and give back: which there are, who has which, whom to start and whom to end.

A *seat* is a worker of a run (the run's leg, the worker's id): what the run's membership asks for is a seat, and it
gets the next process that is free, or that is started for it. Pure: times come with the calls, and every call returns
what is to be done, in order.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import StrEnum

from headway.core.events import Launch
from headway.core.hiring import Hiring

GRACE_S = 30.0
"""A process that was let go is back after so long, or is ended and replaced, which is no quicker on a busy machine."""

FEWER = "fewer are wanted"

Seat = tuple[int, str]
"""A leg of a run, and a worker of it."""

# What is to be done


@dataclass(frozen=True)
class Give:
    """Let a process work in a seat. number: of this assignment; `back` names it."""

    process: str
    number: int
    seat: Seat
    node: str
    address: tuple[str, int] | None


@dataclass(frozen=True)
class End:
    """End a process, and free its place."""

    process: str
    reason: str


@dataclass(frozen=True)
class Lost:
    """The process that worked in a seat is gone. cause: one of `headway.core.events.Gone`."""

    seat: Seat
    cause: str


@dataclass(frozen=True)
class Returned:
    """The process that worked in a seat is back, and its run had not let it go."""

    seat: Seat


@dataclass(frozen=True)
class Hopeless:
    """No process can be started."""

    reason: str


Deed = Launch | Give | End | Lost | Returned | Hopeless


class Phase(StrEnum):
    """Of a process."""

    PLACED = "placed"
    """It has a place, and starts."""
    FREE = "free"
    WORKS = "works"
    RETURNS = "returns"
    """Its run has let it go."""


@dataclass
class Process:
    """One that has a place. since: when its phase began."""

    node: str
    address: tuple[str, int] | None
    placed_at: float
    since: float
    phase: Phase = Phase.PLACED
    seat: Seat | None = None
    number: int = 0
    leaves: str = ""
    """Why it is to be ended as soon as it is free; empty where it may stay."""


@dataclass(frozen=True)
class Wish:
    """A seat that waits for a process. not_before: on the clock of the calls."""

    seat: Seat
    avoid: frozenset[str]
    not_before: float


class Pool:
    """See the module. Fields are for reading.

    Args:
        slow_s: a start may take so long.
    """

    def __init__(self, slow_s: float) -> None:
        self.processes: dict[str, Process] = {}
        self.wishes: list[Wish] = []
        self.wanted = 0
        self._hiring = Hiring(0, slow_s)
        self._shunned: set[str] = set()
        """Nodes that are taken away, or may be."""
        self._numbers = 0
        self._spent = dict.fromkeys(Phase, 0.0)
        """Seconds of processes, by phase."""

    @property
    def asked(self) -> frozenset[str]:
        """Processes that were asked for, and have no place so far."""
        return frozenset(self._hiring.asked)

    @property
    def there(self) -> int:
        """Processes that have a place, and stay."""
        return sum(not p.leaves for p in self.processes.values())

    def holds(self, leg: int) -> bool:
        """Whether processes of a run's leg are not back yet."""
        return any(p.seat is not None and p.seat[0] == leg for p in self.processes.values())

    def spent(self, now: float) -> dict[str, float]:
        """Seconds of all processes so far, by `Phase`."""
        total: dict[str, float] = {phase.value: seconds for phase, seconds in self._spent.items()}
        for process in self.processes.values():
            total[process.phase] += now - process.since
        return total

    # What is asked for

    def want(self, number: int, now: float) -> list[Deed]:
        """Have so many processes."""
        self.wanted = self._hiring.most = number
        return self._settle("so many workers are wanted", now)

    def ask(self, seat: Seat, avoid: tuple[str, ...], after_s: float, now: float) -> list[Deed]:
        """A run asks for a worker, not on these nodes if others will do."""
        self.wishes.append(Wish(seat, frozenset(avoid), now + after_s))
        return self._settle("a run waits for it", now)

    def dismiss(self, seat: Seat, now: float, given_up: bool = False) -> list[Deed]:
        """A run lets a worker go, which it may not have so far. given_up: its process is not to be waited for."""
        self.wishes = [wish for wish in self.wishes if wish.seat != seat]
        name = next((n for n, p in self.processes.items() if p.seat == seat and p.phase is Phase.WORKS), None)
        if name is None:
            return []
        self._enter(self.processes[name], Phase.RETURNS, now)
        if not given_up:
            return []
        return [*self._gone(name, "its run has given it up", now), *self._settle("one was given up", now)]

    def over(self, leg: int, now: float) -> list[Deed]:
        """A run's leg is over, and lets all go."""
        self.wishes = [wish for wish in self.wishes if wish.seat[0] != leg]
        for process in self.processes.values():
            if process.seat is not None and process.seat[0] == leg and process.phase is Phase.WORKS:
                self._enter(process, Phase.RETURNS, now)
        return []

    # What befalls processes

    def placed(self, name: str, node: str, address: tuple[str, int] | None, now: float) -> list[Deed]:
        """One has a place, and starts."""
        if not self._hiring.placed(name, node):
            return [End(name, "nobody asked for it any more")]
        self.processes[name] = Process(node, address, now, now)
        return []

    def up(self, name: str, now: float) -> list[Deed]:
        """One has started."""
        process = self.processes.get(name)
        if process is None:
            return []
        self._enter(process, Phase.FREE, now)
        self._hiring.stands()
        self._hiring.seated()
        return self._settle("it is ready", now)

    def back(self, name: str, number: int, remark: str, now: float) -> list[Deed]:
        """One has done with an assignment. remark: why it had better be ended; empty where it may stay."""
        process = self.processes.get(name)
        if process is None or process.number != number or process.seat is None:
            return []
        process.leaves = process.leaves or remark
        deeds: list[Deed] = [Returned(process.seat)] if process.phase is Phase.WORKS else []
        process.seat = None
        self._enter(process, Phase.FREE, now)
        return [*deeds, *self._settle("it is free", now)]

    def not_started(self, name: str, now: float) -> list[Deed]:
        """One that was asked for could not be started."""
        node = process.node if (process := self.processes.get(name)) is not None else None
        self._hiring.asked.discard(name)
        self._hiring.failed(node, now)
        deeds = self._gone(name, "start_failed", now)
        warming = any(p.phase is Phase.PLACED for p in self.processes.values())
        stands = any(p.phase is not Phase.PLACED for p in self.processes.values())
        if not stands and self._hiring.hopeless(now, False, warming):
            return [*deeds, Hopeless(f"no worker's process could be started in {self._hiring.in_vain} attempts")]
        return [*deeds, *self._settle(f"{name} could not be started", now)]

    def died(self, name: str, cause: str, now: float) -> list[Deed]:
        """One is gone."""
        if name not in self.processes:
            return []
        return [*self._gone(name, cause, now), *self._settle(f"{name} is gone", now)]

    def node_died(self, node: str, now: float) -> list[Deed]:
        """A node is gone, with all that was on it."""
        lost = [name for name, process in self.processes.items() if process.node == node]
        return [deed for name in lost for deed in self.died(name, "node_died", now)]

    def shun(self, node: str, now: float) -> list[Deed]:
        """A node is to be taken away, or may be: nobody new works there."""
        if node in self._shunned:
            return []
        self._shunned.add(node)
        self._hiring.avoid(node, now)
        for process in self.processes.values():
            if process.node == node:
                process.leaves = process.leaves or "its machine is being taken away"
        return self._settle("its machine is being taken away", now)

    def tick(self, now: float) -> list[Deed]:
        """Time passes: who does not come back is ended."""
        late = [n for n, p in self.processes.items() if p.phase is Phase.RETURNS and now - p.since >= GRACE_S]
        deeds: list[Deed] = []
        for name in late:
            deeds += self._gone(name, f"it did not come back within {GRACE_S:g} s", now)
        return [*deeds, *self._settle("one did not come back", now)]

    # What follows

    def _enter(self, process: Process, phase: Phase, now: float) -> None:
        self._spent[process.phase] += now - process.since
        process.phase, process.since = phase, now

    def _gone(self, name: str, reason: str, now: float) -> list[Deed]:
        process = self.processes.pop(name, None)
        if process is None:
            return [End(name, reason)]
        self._spent[process.phase] += now - process.since
        lost: list[Deed] = []
        if process.seat is not None and process.phase is Phase.WORKS:
            lost = [Lost(process.seat, reason)]
        return [*lost, End(name, reason)]

    def _settle(self, reason: str, now: float) -> list[Deed]:
        """Give what is free to those that wait, end who is too many, and ask for who is missing."""
        deeds: list[Deed] = []
        for name in [n for n, p in self.processes.items() if p.phase is Phase.FREE and p.leaves]:
            deeds += self._gone(name, self.processes[name].leaves, now)
        while (given := self._match(now)) is not None:
            deeds.append(given)
        surplus = self.there + len(self._hiring.asked) - self.wanted
        for name in self._hiring.in_order[::-1][: max(0, surplus)]:
            self._hiring.asked.discard(name)
            deeds.append(End(name, FEWER))
            surplus -= 1
        for name in self._superfluous(max(0, surplus)):
            if self.processes[name].phase in (Phase.FREE, Phase.PLACED):
                deeds += self._gone(name, FEWER, now)
            else:
                self.processes[name].leaves = FEWER
        missing = self.wanted - self.there - len(self._hiring.asked)
        for process in [p for p in self.processes.values() if p.leaves == FEWER][: max(0, missing)]:
            process.leaves, missing = "", missing - 1
        return [*deeds, *(self._hiring.ask(missing, reason, now) if missing > 0 else [])]

    def _superfluous(self, number: int) -> list[str]:
        """So many of those that stay, those that are missed least first."""
        order = (Phase.PLACED, Phase.FREE, Phase.RETURNS, Phase.WORKS)
        stay = [name for name, p in self.processes.items() if not p.leaves]
        return sorted(stay, key=lambda name: order.index(self.processes[name].phase))[:number]

    def _match(self, now: float) -> Give | None:
        """The next seat, and the process that it gets: first runs that have nobody, else in the order of asking."""
        free = [name for name, p in self.processes.items() if p.phase is Phase.FREE]
        due = [wish for wish in self.wishes if wish.not_before <= now]
        if not free or not due:
            return None
        at_work = Counter(p.seat[0] for p in self.processes.values() if p.seat is not None and p.phase is Phase.WORKS)
        wish = min(due, key=lambda each: at_work[each.seat[0]] > 0)
        name = min(free, key=lambda each: self.processes[each].node in wish.avoid)
        self.wishes.remove(wish)
        self._numbers += 1
        process = self.processes[name]
        process.seat, process.number = wish.seat, self._numbers
        self._enter(process, Phase.WORKS, now)
        return Give(name, self._numbers, wish.seat, process.node, process.address)
