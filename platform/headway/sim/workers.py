"""Workers as the membership sees them, message by message, with every order of events that a cluster may produce.

A `World` holds the real `Membership` and toy workers that launch, warm up, arrive, exchange, commit, die, are cut off
and come back. What could happen next is a list of moves; who picks from it (a property test, a seed) decides the
history. Messages of one worker keep their order; everything else may overtake everything else. An exchange needs all
members of a generation, and when one breaks it may have been completed on some of them and not on others. After some
steps the workers evaluate: exchanges that commit nothing, and during which nobody new can be given the state.

The state that the toy workers train is the digest of the samples of all lanes and steps, so a lane or a step that is
lost, or counted twice, shows in the end.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np

from headway.core import digest
from headway.core.events import (
    Action,
    Arrived,
    Committed,
    Dismiss,
    Diverged,
    Drained,
    End,
    Event,
    Fail,
    Finished,
    Generation,
    Go,
    Gone,
    Launch,
    Lost,
    Pause,
    Placed,
    Publish,
    Raised,
    Ready,
    Resized,
    Slow,
    Tick,
)
from headway.core.membership import ENTERED, FINISHED, MEMBER, READY, Membership, Policy, seats
from headway.core.membership import WARMING as PLACED
from headway.core.states import Training

Words = np.ndarray[Any, np.dtype[np.uint16]]
ASKED, WARMING, WAITING, TRAINING, DONE = "asked", "warming", "waiting", "training", "done"
MOVE_S = 0.01
EVALUATE_EVERY, EVALUATIONS = 3, 2
BAD_MOUNT = "the mount is missing"


@cache
def lane_digest(step: int, lane: int) -> Words:
    """Digest of the samples that a lane takes at a step."""
    return digest.of_ids(np.array([step, lane]))


def quiet_digest(steps: int, lanes: int) -> str:
    """Digest of a run that nothing disturbs."""
    chain = digest.Chain()
    for step in range(1, steps + 1):
        chain.add(step, np.array([lane_digest(step, lane) for lane in range(lanes)]))
    return chain.hexdigest()


@dataclass
class Group:
    """The process group of a generation. rounds: who is in each exchange, and the newest plan they know of."""

    go: Go
    state: tuple[int, str]
    evaluating: int = 0
    exchanges: int = 0
    rounds: list[dict[str, int]] = field(default_factory=lambda: [{}])
    broken: bool = False

    @property
    def levels(self) -> bool:
        """Whether the first exchange brings all to one state."""
        return self.go.source is None or len(set(self.go.positions)) > 1


@dataclass
class Process:
    """A toy worker. state: steps committed, and the digest of their samples; None before it has any."""

    name: str
    doing: str = ASKED
    alive: bool = True
    cut: bool = False
    noticed: bool = False
    deadline: float | None = None
    state: tuple[int, str] | None = None
    exchanges: int = 0
    evaluating: int = 0
    """Exchanges that are left of its evaluation."""
    seen: int = 0
    target: Generation | None = None
    planned: int = 0
    save: bool = False
    group: Group | None = None
    round: int = 0
    told: bool = False
    mail: deque[Action] = field(default_factory=deque)
    news: deque[Event] = field(default_factory=deque)


class Violation(AssertionError):
    """Something that must never happen has happened."""


def require(holds: bool, fact: str) -> None:
    """Raise if an invariant does not hold."""
    if not holds:
        raise Violation(fact)


class World:
    """A cluster in the small. `moves` says what could happen, `faults` what could go wrong; a call makes it happen.

    Args:
        policy: of the run.
        steps: after which a worker has finished.
        together: the coordinator may take in at once who is dead and who is ready.
    """

    def __init__(self, policy: Policy, steps: int, together: bool = False) -> None:
        self.machine = Membership(policy)
        self.steps, self.together = steps, together
        self.now = 0.0
        self.number = 0
        self.processes: dict[str, Process] = {}
        self.groups: dict[int, Group] = {}
        self.checkpoint = (0, digest.Chain().hexdigest())
        self.commits = 0
        self.repeated = 0
        self.highest = 0
        self.ended: End | Fail | None = None
        self.log: list[str] = []
        self.gone_since_commit = 0
        self.parted: set[frozenset[str]] = set()
        """Pairs of workers that cannot reach each other."""
        self._carry_out(self.machine.begin())

    # What could happen

    def moves(self) -> Iterator[Callable[[], None]]:
        """Everything that could happen next with nothing going wrong."""
        if self.together and len(self._at_once()) > 1:
            yield self.gather
        for p in self.processes.values():
            if p.news and not p.cut:
                yield lambda p=p: self.deliver(p)  # type: ignore[misc]
            elif not p.alive and not p.noticed:
                yield lambda p=p: self.notice(p)  # type: ignore[misc]
            if not p.alive:
                continue
            if p.mail and not p.cut:
                yield lambda p=p: self.receive(p)  # type: ignore[misc]
            if p.doing == ASKED:
                yield lambda p=p: self.place(p)  # type: ignore[misc]
            elif p.doing == WARMING:
                yield lambda p=p: self.warm(p)  # type: ignore[misc]
            elif p.doing == TRAINING and p.group is not None:
                contributed = p.group.rounds[p.round]
                if p.name not in contributed:
                    yield lambda p=p: self.contribute(p)  # type: ignore[misc]
                elif len(contributed) == len(p.group.go.generation.members) and not self._apart(p.group):
                    yield lambda p=p: self.complete(p)  # type: ignore[misc]
                if p.group.broken or self._unreached(p, p.group):
                    yield lambda p=p: self.lose(p)  # type: ignore[misc]

    def faults(self) -> Iterator[Callable[[], None]]:
        """Everything that could go wrong next."""
        for p in self.processes.values():
            if not p.alive:
                continue
            yield lambda p=p: self.die(p)  # type: ignore[misc]
            yield lambda p=p: self.die(p, with_node=True)  # type: ignore[misc]
            yield lambda p=p: self.cut(p)  # type: ignore[misc]
            if p.doing != ASKED and (p.deadline is None or p.deadline > self.now + 0.5):
                yield lambda p=p: self.drain(p, 10.0)  # type: ignore[misc]
                yield lambda p=p: self.drain(p, 0.5)  # type: ignore[misc]
            if p.doing == WARMING:
                yield lambda p=p: self.fail_start(p)  # type: ignore[misc]
            if p.doing == TRAINING and p.group is not None:
                yield lambda p=p: self.disconnect(p)  # type: ignore[misc]
                if len(p.group.go.generation.members) > 1:
                    yield lambda p=p: self.part(p)  # type: ignore[misc]
                yield lambda p=p: self.hear(Slow(p.name, 3.0, self.now))  # type: ignore[misc]
                yield lambda p=p: self.hear(Diverged(p.name, self.now))  # type: ignore[misc]
                yield lambda p=p: self.keep(p)  # type: ignore[misc]

    def wishes(self) -> Iterator[Callable[[], None]]:
        """Every other size that somebody could ask for."""
        for most in range(1, self.machine.policy.lanes + 1):
            for least in {1, most // 2 + 1, most}:
                yield lambda least=least, most=most: self.hear(Resized(least, most, "mary", self.now))  # type: ignore[misc]

    # Moves

    def deliver(self, p: Process) -> None:
        """The coordinator hears a worker's oldest message."""
        self.hear(p.news.popleft())

    def notice(self, p: Process) -> None:
        """The coordinator finds a worker dead."""
        p.noticed = True
        self.hear(Gone(p.name, "process_died", self.now))

    def gather(self) -> None:
        """The coordinator takes in at once who is dead, and who is ready."""
        events: list[Gone | Ready] = []
        for p in self._at_once():
            if p.alive:
                events.append(Ready(p.name, self.now))
                p.news.popleft()
            else:
                p.noticed = True
                events.append(Gone(p.name, "process_died", self.now))
        self.hear_together(events)

    def _at_once(self) -> list[Process]:
        dead = [p for p in self.processes.values() if not p.alive and not p.noticed and not p.news]
        ready = [
            p for p in self.processes.values() if p.alive and not p.cut and p.news and isinstance(p.news[0], Ready)
        ]
        return dead + ready

    def place(self, p: Process) -> None:
        """A worker that was asked for gets a place."""
        p.doing = WARMING
        self.hear(Placed(p.name, f"node-of-{p.name}", self.now))

    def warm(self, p: Process) -> None:
        """A worker has warmed up."""
        p.doing = WAITING
        p.news.append(Ready(p.name, self.now))

    def receive(self, p: Process) -> None:
        """A worker takes the oldest message of the coordinator."""
        message = p.mail.popleft()
        match message:
            case Dismiss():
                self._leave(p)
                p.alive, p.noticed = False, True
                p.news.clear()
            case Publish(generation) if generation.number > p.seen:
                p.seen = generation.number
                p.target = generation if p.name in generation.members else None
                p.save = False
                if generation.urgent:
                    self._leave(p)
                if p.doing == WAITING:
                    self._arrive(p)
                else:
                    p.planned = generation.number
            case Pause() if message.number > p.seen:
                p.seen, p.target, p.planned = message.number, None, message.number
                p.save = message.save
                if message.urgent:
                    self._leave(p)
                if p.doing == WAITING:
                    self._kept(p)
            case Go(generation) if generation.number == p.seen and p.doing == WAITING:
                p.group = self.groups[generation.number]
                p.doing, p.round, p.planned, p.told = TRAINING, 0, 0, False

    def contribute(self, p: Process) -> None:
        """A worker enters an exchange."""
        assert p.group is not None
        p.group.rounds[p.round][p.name] = p.planned

    def complete(self, p: Process) -> None:
        """An exchange is completed on one worker."""
        group = p.group
        assert group is not None
        contributed = group.rounds[p.round]
        members = group.go.generation.members
        require(set(contributed) == set(members), "an exchange was completed without all members")
        p.round += 1
        p.exchanges += 1
        if len(group.rounds) == p.round:
            group.rounds.append({})
        if p.round == 1 and group.levels:
            p.state, p.evaluating, p.exchanges = group.state, group.evaluating, group.exchanges + 1
        else:
            if p.evaluating:
                p.evaluating -= 1
            else:
                self._commit(p, group)
            if p.state is not None and p.state[0] == self.steps:
                p.doing, p.group = DONE, None
                p.news.append(Finished(p.name, self.now))
            elif p.evaluating:
                return  # who joins waits for its end
            elif max(contributed.values()) > group.go.generation.number:
                p.doing, p.group = WAITING, None
                self._kept(p)
                self._arrive(p)

    def lose(self, p: Process) -> None:
        """A worker finds its exchange broken; it leaves its group, and the others find that too."""
        assert p.group is not None
        p.news.append(Lost(p.name, p.group.go.generation.number, tuple(self._unreached(p, p.group)), self.now))
        self._leave(p)

    def die(self, p: Process, with_node: bool = False) -> None:
        """A process is killed; what it has sent is heard, unless its node died."""
        p.alive, p.cut = False, False
        if with_node:
            p.news.clear()
        if p.group is not None:
            p.group.broken = True

    def cut(self, p: Process) -> None:
        """The link to the coordinator is cut, is held for dead when it was cut already, and then comes back."""
        if not p.cut:
            p.cut = True
        elif not p.noticed:
            p.noticed = True
            self.hear(Gone(p.name, "link_cut", self.now, silent_s=2.0))
        else:
            p.cut = False

    def fail_start(self, p: Process) -> None:
        """A worker raises before it was ever a member, for its machine's fault."""
        p.alive, p.noticed = False, True
        self.hear(Raised(p.name, BAD_MOUNT, "machine", self.now))

    def part(self, p: Process) -> None:
        """A worker and the next in rank do not reach each other any more, though the coordinator reaches both."""
        assert p.group is not None
        members = p.group.go.generation.members
        self.parted.add(frozenset((p.name, members[(members.index(p.name) + 1) % len(members)])))

    def _unreached(self, p: Process, group: Group) -> list[str]:
        return [m for m in group.go.generation.members if frozenset((p.name, m)) in self.parted]

    def _apart(self, group: Group) -> bool:
        return any(pair <= set(group.go.generation.members) for pair in self.parted)

    def heal(self) -> None:
        """All links that are cut come back."""
        self.parted.clear()
        for p in self.processes.values():
            p.cut = False

    def drain(self, p: Process, notice_s: float) -> None:
        """Notice comes that a worker's machine is taken away."""
        p.deadline = self.now + notice_s
        self.hear(Drained(p.name, p.deadline, self.now))

    def disconnect(self, p: Process) -> None:
        """A connection between two workers breaks, with nobody gone."""
        assert p.group is not None
        p.group.broken = True

    def keep(self, p: Process) -> None:
        """A checkpoint of a member's state is written."""
        if p.state is not None and p.name in self.machine.workers:
            self.checkpoint = max(self.checkpoint, p.state)

    def tick(self, seconds: float = 1.0) -> None:
        """Time passes; machines are taken away at their deadlines."""
        self.now += seconds
        for p in self.processes.values():
            if p.alive and p.deadline is not None and p.deadline <= self.now:
                self.die(p)
        self.hear(Tick(self.now))

    # What follows

    def hear(self, event: Event) -> None:
        """The coordinator takes an event in; the invariants of a single decision are checked here."""
        self.now += MOVE_S
        name = getattr(event, "worker", None)
        machine = self.machine
        known = name is None or name in machine.workers or isinstance(event, Placed | Gone)
        before = (machine.published, machine.active)
        standing = any(w.phase in (READY, *ENTERED) for n, w in machine.workers.items() if n != name)
        carried, there = dict(machine.carried), set(machine.workers)
        actions = machine.step(event)
        self.log.append(f"{event}\n   -> " + "\n   -> ".join(map(str, actions)))
        if not known and not machine.ended:
            require(all(isinstance(a, Dismiss) for a in actions), f"{name} is evicted and was heard: {actions}")
            require(before == (machine.published, machine.active), f"{name} is evicted and changed the membership")
        if isinstance(event, Raised) and standing:
            require(
                not any(isinstance(a, Fail) for a in actions), f"a failed start ended the run beside others: {actions}"
            )
        if isinstance(event, Committed):
            self.gone_since_commit = 0
        if isinstance(event, Gone) and known:
            self.gone_since_commit += 1
        self._check(actions, carried, there)

    def hear_together(self, events: list[Gone | Ready]) -> None:
        """Likewise several at once."""
        self.now += MOVE_S
        carried, there = dict(self.machine.carried), set(self.machine.workers)
        self.gone_since_commit += sum(isinstance(event, Gone) and event.worker in there for event in events)
        actions = self.machine.together(events)
        self.log.append(" and ".join(map(str, events)) + "\n   -> " + "\n   -> ".join(map(str, actions)))
        told = [a for a in actions if isinstance(a, Publish)]
        require(len(told) <= 1, f"several generations for what happened at once: {told}")
        self._check(actions, carried, there)

    def _check(self, actions: list[Action], carried: dict[str, tuple[int, ...]], there: set[str]) -> None:
        for action in actions:
            if isinstance(action, Publish):
                self._check_generation(action.generation, carried)
            elif isinstance(action, Go):
                self._check_go(action, there)
                carried = action.generation.carries()
        self._check_spares()
        self._carry_out(actions)

    def _carry_out(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Launch(worker):
                    self.processes[worker] = Process(worker)
                case Publish() | Pause():
                    number = action.generation.number if isinstance(action, Publish) else action.number
                    require(number > self.number, f"generation {number} follows {self.number}")
                    self.number = number
                    for p in self.processes.values():
                        if p.alive and p.name in self.machine.workers:
                            p.mail.append(action)
                case Go(generation):
                    state, evaluating = self.checkpoint, 0
                    if action.source is not None:
                        state = self.processes[action.source].state or state
                        evaluating = self.processes[action.source].evaluating
                    exchanges = max(action.positions)[1]  # they travel with the state
                    self.groups[generation.number] = Group(action, state, evaluating, exchanges)
                    for name in generation.members:
                        self.processes[name].mail.append(action)
                case Dismiss(worker) if worker in self.processes:
                    self.processes[worker].mail.append(action)
                case End() | Fail():
                    self.ended = action

    def _arrive(self, p: Process) -> None:
        if p.target is not None:
            p.news.append(
                Arrived(p.name, p.target.number, p.state[0] if p.state else -1, p.exchanges, p.evaluating > 0, self.now)
            )

    def _leave(self, p: Process) -> None:
        if p.group is not None:
            p.group.broken = True
            p.group, p.doing = None, WAITING

    def _kept(self, p: Process) -> None:
        if p.save:
            p.save = False
            self.keep(p)

    def _commit(self, p: Process, group: Group) -> None:
        if p.state is None:
            raise Violation(f"{p.name} commits a step without a state")
        step = p.state[0] + 1
        lanes = self.machine.policy.lanes
        total = np.zeros((lanes, digest.WORDS), np.uint16)
        for held in group.go.generation.lanes:
            for lane in held:
                total[lane] += lane_digest(step, lane)
        chain = digest.Chain(p.state[1])
        chain.add(step, total)
        p.state = (step, chain.hexdigest())
        p.evaluating = EVALUATIONS if step % EVALUATE_EVERY == 0 and step < self.steps else 0
        self.commits += 1
        self.highest = max(self.highest, step)
        if not p.told:
            p.told = True
            p.news.append(Committed(p.name, group.go.generation.number, step, 0.1, self.now))

    # What must hold

    def _check_generation(self, generation: Generation, carried: dict[str, tuple[int, ...]]) -> None:
        policy = self.machine.policy
        held = sorted(lane for lanes in generation.lanes for lane in lanes)
        require(held == list(range(policy.lanes)), f"lanes have not one carrier each: {generation}")
        require(all(generation.lanes), f"a member carries nothing: {generation}")
        require(len(set(generation.members)) == len(generation.members), f"a member is in twice: {generation}")
        finishing = any(p.doing == DONE for p in self.processes.values())
        most = seats(policy.lanes, policy.max)
        if generation.urgent:  # whoever may hold the newest state is in it, were there more seats before or not
            most = max(most, sum(m in carried for m in generation.members))
        require(len(generation.members) <= most, f"more members than the {most} seats: {generation}")
        evaluating = any(self.processes[m].evaluating for m in generation.members)
        require(len(generation.members) >= policy.min or finishing or evaluating, f"fewer than min: {generation}")
        for name in generation.members:
            require(name in self.machine.workers, f"{name} is not there: {generation}")
            require(self.machine.workers[name].phase != FINISHED, f"{name} has finished: {generation}")
        if policy.slow != "rebalance":
            sizes = [len(lanes) for lanes in generation.lanes]
            require(max(sizes) - min(sizes) <= 1, f"shares differ by more than one: {generation}")
            stay = sum(len(set(generation.carries()[m]) & set(carried.get(m, ()))) for m in generation.members)
            best = most_that_stay(policy.lanes, [len(carried.get(m, ())) for m in generation.members])
            require(stay == best, f"{best} lanes could stay, {stay} do: {generation} after {carried}")

    def _check_spares(self) -> None:
        """Nobody stands by beside a free seat, and nobody is asked for beyond seats and spares."""
        machine, policy = self.machine, self.machine.policy
        phases = [w.phase for w in machine.workers.values()]
        there = sum(p in (PLACED, READY, MEMBER) for p in phases) + len(machine._hiring.asked)
        require(there <= policy.max + policy.spares, f"{there} workers are there or asked for")
        state = machine._state
        if isinstance(state, Training) and not state.busy and not machine._finishing and READY in phases:
            seated = len(state.generation.members)
            require(seated >= policy.max, f"{phases.count(READY)} stand by, and {seated} train")

    def _check_go(self, go: Go, there: set[str]) -> None:
        """Nothing that a living worker holds is lost: the source is as far as anybody."""
        members = [self.processes[m] for m in go.generation.members]
        holders = [
            p
            for p in self.processes.values()
            if p.alive and p.name in there and p.state is not None and p.doing != DONE
        ]
        newest = max((p.state for p in holders if p.state), default=None)
        source = self.processes[go.source].state if go.source is not None else None
        if any(p.evaluating for p in members):
            require(
                all(p.state is not None for p in members if p.alive), f"a newcomer is seated in an evaluation: {go}"
            )
        if source is None:
            require(newest is None, f"{[p.name for p in holders]} hold a state, and nobody is the source: {go}")
            require(all(p.state is None for p in members if p.alive), "a holder was not asked")
        elif newest is not None:
            require(source[0] >= newest[0], f"{source} is the source, and {newest} is lost: {go}")


def most_that_stay(lanes: int, held: list[int]) -> int:
    """Most lanes that can stay with their carriers if shares differ by at most one. held: what each member has."""
    share, extra = divmod(lanes, len(held))
    spare = sorted((h > share for h in held), reverse=True)[:extra]
    return sum(min(h, share) for h in held) + sum(spare)
