"""A cluster in bad weather under a virtual clock: the real watch and membership, toy workers, and links that fail.

Where `headway.sim.workers` tries every order of messages, this tries what happens in time: pulses every tenth of a
second, silences, leases, phases that are slow. What goes wrong is `headway.sim.air`'s: links that are cut one way or
both, packets lost and delayed, machines and processes that stand still. Everything is drawn from a seed, and no real
second passes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from headway.core.events import (
    Action,
    Arrived,
    Committed,
    Dismiss,
    End,
    Event,
    Fail,
    Generation,
    Go,
    Gone,
    Launch,
    Lost,
    Pause,
    Placed,
    Publish,
    Ready,
    Stuck,
    Tick,
)
from headway.core.membership import ENTERED, READY, Membership, Policy
from headway.core.watch import At, Clock, Sign, Watch
from headway.sim.air import HEAD, Air, Fault

TICK_S = 0.1
PROBED_S = 1.2
RESEND_S = 1.0
SAVE_EVERY = 100  # steps
LAUNCH_S = 1.0


@dataclass
class Pulse:
    """What a worker's heart says. heard: sending time of our newest word that it has."""

    sent: float
    at: At
    mark: int
    waiting: bool
    stopped: bool
    heard: float


@dataclass
class Toy:
    """A worker."""

    name: str
    node: str
    alive: bool = True
    at: At = At.STARTING
    mark: int = 0
    busy_until: float = 0.0
    waiting: bool = False
    known: Generation | None = None
    number: int = 0
    go: Go | None = None
    round: int = 0
    step: int = -1
    answered: float = 0.0
    """Sending time of its newest pulse that was answered."""
    heard: float = 0.0
    unreached_s: float = 0.0
    inbox: deque[Action] = field(default_factory=deque)
    outbox: deque[Event] = field(default_factory=deque)


@dataclass
class Heard:
    """What the lead knows of a worker, in awake seconds."""

    pulse: Pulse
    heard_at: float
    moved_at: float
    acknowledged_at: float
    known_at: float
    """When the newest word was sent that it is known to have heard."""


@dataclass
class Weather:
    """See the module.

    Args:
        policy: of the run; its patience is the watch's.
        nodes: where workers are placed, in turn; may have `HEAD` among them.
        faults: what goes wrong, and when.
        phases: seconds that phases take, by what they are; STEP and USER in each step, FIRST_STEP once.
        seed: of losses and delays.
    """

    policy: Policy
    nodes: tuple[str, ...]
    faults: list[Fault] = field(default_factory=list)
    phases: dict[At, float] = field(default_factory=dict)
    seed: int = 0

    def __post_init__(self) -> None:
        self.machine, self.watch, self.clock = Membership(self.policy), Watch(self.policy.patience), Clock(TICK_S)
        self.now = self.awake = 0.0
        self.toys: dict[str, Toy] = {}
        self.signs: dict[str, Heard] = {}
        self.killed: list[tuple[float, str, str]] = []
        """(seconds, worker, why) of each that lived and was dismissed."""
        self.gone: list[tuple[float, str, str]] = []
        self.generations: list[tuple[float, Generation]] = []
        self.went: list[tuple[float, Generation]] = []
        """Generations that were told to go."""
        self.commits: list[tuple[float, str, int, int]] = []
        """(seconds, worker, generation, step)."""
        self.doubts: list[float] = []
        self.ended: End | Fail | None = None
        self.air = Air(self.faults, self.seed)
        self._later: list[tuple[float, Callable[[], None]]] = []
        self._entered: dict[tuple[int, int], set[str]] = {}
        self._completed: dict[tuple[int, int], bool] = {}
        """Exchanges by generation and number: who is in them; and of those completed, whether all leave after it."""
        self._blocked: dict[str, float] = {}
        self._mail: dict[str, list[Action]] = {}
        self._free = deque(self.nodes)
        self._do(self.machine.begin())

    def run(self, until: float) -> None:
        """Let time pass."""
        while self.now < until and self.ended is None:
            self.now = round(self.now + TICK_S, 3)
            self.air.advance(self.now)
            due = [happen for at, happen in self._later if at <= self.now]
            self._later = [(at, happen) for at, happen in self._later if at > self.now]
            for happen in due:
                happen()
            for toy in list(self.toys.values()):
                if toy.alive:
                    self._live(toy)
            self._converse()
            frozen = self.air.any("freeze")
            if frozen is None:
                self._lead()

    # Packets

    def _send(self, node: str, way: tuple[str, str], arrive: Callable[[], None]) -> None:
        """One packet, which may be lost."""
        if self.air.reaches(*way) and not self.air.loses(node):
            self._later.append((self.now + self.air.delay_s(node), arrive))

    # Workers

    def _live(self, toy: Toy) -> None:
        if self.air.any("freeze", toy.node):
            toy.busy_until += TICK_S  # its whole machine stands still
            return
        stopped = self.air.any("stop", toy.name) is not None
        pulse = Pulse(self.now, toy.at, toy.mark, toy.waiting, stopped, toy.heard)
        self._send(toy.node, (toy.node, HEAD), lambda: self._hear(toy, pulse))
        if stopped or self.air.any("lock", toy.name):
            toy.busy_until = max(toy.busy_until, self.now + TICK_S / 2)
            return
        self._read(toy)
        if not toy.alive or self.now < toy.busy_until:
            return
        if toy.go is None:
            if toy.at is At.STARTING:
                toy.at, toy.waiting = At.IDLE, True
                toy.outbox.append(Ready(toy.name, self.now))
        elif not toy.waiting:
            self._entered.setdefault((toy.go.generation.number, toy.round), set()).add(toy.name)
            toy.at, toy.waiting, toy.mark = At.EXCHANGE, True, toy.mark + 1
        else:
            self._exchange(toy, toy.go)

    def _exchange(self, toy: Toy, go: Go) -> None:
        generation = go.generation
        round_ = (generation.number, toy.round)
        if round_ not in self._completed:
            peers = [self.toys[m] for m in generation.members if m != toy.name]
            unreached = [
                p for p in peers if not (self.air.reaches(toy.node, p.node) and self.air.reaches(p.node, toy.node))
            ]
            if any(p not in unreached and (not p.alive or p.number > generation.number) for p in peers):
                self._lose(toy, ())
                return
            toy.unreached_s = toy.unreached_s + TICK_S if unreached else 0.0
            if toy.unreached_s > self.policy.patience.silence_s + PROBED_S:
                self._lose(toy, tuple(p.name for p in unreached))
                return
            if len(self._entered[round_]) < len(generation.members) or self._apart([toy, *peers]):
                return
            # All hear in the exchange that one of them knows of a change, and make it together.
            self._completed[round_] = any(p.known and p.known.number > generation.number for p in [toy, *peers])
        if self.now - toy.answered >= go.lease_s:
            return  # it may be given up by now: no commit without word
        toy.step, toy.round, toy.mark, toy.unreached_s = toy.step + 1, toy.round + 1, toy.mark + 1, 0.0
        self.commits.append((self.now, toy.name, generation.number, toy.step))
        if toy.round == 1:
            toy.outbox.append(Committed(toy.name, generation.number, toy.step, 0.1, self.now))
        if self._completed[round_]:
            self._arrive(toy)
        elif At.SAVING in self.phases and toy.step % SAVE_EVERY == 0 and toy.name == generation.members[0]:
            self._work(toy, At.SAVING)
        else:
            self._work(toy, At.STEP)

    def _apart(self, toys: list[Toy]) -> bool:
        nodes = {t.node for t in toys}
        return not all(self.air.reaches(a, b) for a in nodes for b in nodes)

    def _work(self, toy: Toy, at: At) -> None:
        toy.at, toy.waiting, toy.mark = at, False, toy.mark + 1
        toy.busy_until = self.now + self.phases.get(at, 0.3) + self.phases.get(At.USER, 0.0) * (at is At.STEP)

    def _lose(self, toy: Toy, peers: tuple[str, ...]) -> None:
        assert toy.go is not None
        toy.outbox.append(Lost(toy.name, toy.go.generation.number, peers, self.now))
        toy.number = toy.go.generation.number + 1
        self._leave(toy)

    def _leave(self, toy: Toy) -> None:
        toy.go, toy.at, toy.waiting, toy.unreached_s = None, At.IDLE, True, 0.0
        toy.mark += 1

    def _arrive(self, toy: Toy) -> None:
        self._leave(toy)
        if toy.known is not None:
            toy.number = toy.known.number
            if toy.name in toy.known.members:
                toy.outbox.append(Arrived(toy.name, toy.known.number, toy.step, max(0, toy.step), False, self.now))

    def _read(self, toy: Toy) -> None:
        while toy.inbox and toy.alive:
            message = toy.inbox.popleft()
            match message:
                case Publish(generation):
                    toy.known = generation
                    if toy.at is not At.STARTING and (generation.urgent or toy.go is None):
                        toy.busy_until = min(toy.busy_until, self.now)
                        self._arrive(toy)
                case Pause(number=number):
                    toy.known = Generation(number, (), (), True, "pause")
                    if toy.at is not At.STARTING:
                        self._arrive(toy)
                case Go(generation) if toy.known == generation and toy.name in generation.members:
                    first = toy.step < 0
                    toy.go, toy.round = message, 0
                    toy.step = max(0, *(step for step, _ in message.positions))
                    self._work(toy, At.FIRST_STEP if first else At.STEP)
                case Dismiss():
                    toy.alive = False

    # The line

    def _converse(self) -> None:
        """What is sent for certain: in order, and later while a link is down."""
        frozen = self.air.any("freeze")
        for toy in self.toys.values():
            if not (self.air.reaches(toy.node, HEAD) and self.air.reaches(HEAD, toy.node)):
                self._blocked[toy.name] = self.now + RESEND_S
                continue
            if toy.name in self.signs and toy.alive:
                self.signs[toy.name].acknowledged_at = self.awake
            if self.now < self._blocked.get(toy.name, 0.0) or self.air.loses(toy.node):
                continue
            toy.inbox.extend(self._mail.pop(toy.name, ()))
            if frozen is None:
                while toy.outbox:
                    self._feed(toy.outbox.popleft())

    # The lead

    def _hear(self, toy: Toy, pulse: Pulse) -> None:
        frozen = self.air.any("freeze")
        if frozen is not None:
            if not frozen.amount:
                self._later.append((frozen.end, lambda: self._hear(toy, pulse)))
            return
        known = self.signs.get(toy.name)
        if known is None or pulse.sent < known.pulse.sent:
            return
        known.moved_at = self.awake if pulse.mark != known.pulse.mark else known.moved_at
        known.pulse, known.heard_at, known.known_at = pulse, self.awake, max(known.known_at, pulse.heard)
        sent = self.awake

        def answered() -> None:
            toy.answered, toy.heard = max(toy.answered, pulse.sent), max(toy.heard, sent)

        self._send(toy.node, (HEAD, toy.node), answered)

    def _signs(self) -> Iterator[tuple[str, Sign]]:
        active, workers = self.machine.active, self.machine.workers
        members = set(active.members) if active else {w for w, k in workers.items() if k.phase in ENTERED}
        for name, h in self.signs.items():
            if name in workers:
                yield (
                    name,
                    Sign(
                        h.pulse.at,
                        self.awake - h.heard_at,
                        self.awake - h.known_at,
                        self.awake - h.acknowledged_at < self.policy.patience.silence_s / 2,
                        self.awake - h.moved_at,
                        h.pulse.stopped,
                        h.pulse.waiting,
                        name in members or workers[name].phase in ENTERED,
                        self.toys[name].node,
                        standing=workers[name].phase == READY,
                    ),
                )

    def _lead(self) -> None:
        self.awake = self.clock.advance(self.now)
        look = self.watch.look(dict(self._signs()))
        if look.doubt:
            self.doubts.append(self.now)
        for verdict in look.condemned:
            self.gone.append((self.now, verdict.worker, verdict.cause))
            self._feed(Gone(verdict.worker, verdict.cause, self.now, verdict.seconds, verdict.heard_s))
        if look.stuck and self.machine.active is not None:
            self._feed(Stuck(self.machine.active.number, self.now))
        self._feed(Tick(self.now))

    def _feed(self, event: Event) -> None:
        if isinstance(event, Lost):
            event = Lost(event.worker, event.generation, self.watch.credible(event.worker, event.peers), event.at)
        if isinstance(event, Gone) and event.cause == "process_died":
            self.gone.append((self.now, event.worker, event.cause))
        self._do(self.machine.step(event))

    def _do(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Launch(worker, after_s):
                    self._later.append((self.now + after_s + LAUNCH_S, lambda w=worker: self._place(w)))  # type: ignore[misc]
                case Publish(generation):
                    self.generations.append((self.now, generation))
                    for name in self.machine.workers:
                        self._mail.setdefault(name, []).append(action)
                case Pause() | Go():
                    if isinstance(action, Go):
                        self.went.append((self.now, action.generation))
                    for name in self.machine.workers:
                        self._mail.setdefault(name, []).append(action)
                case Dismiss(worker, reason) if worker in self.toys:
                    if self.toys[worker].alive and not action.graceful:
                        self.killed.append((self.now, worker, reason))
                    self._mail.setdefault(worker, []).append(action)
                    self.signs.pop(worker, None)
                case End() | Fail():
                    self.ended = action

    def _place(self, worker: str) -> None:
        if not self._free:
            self._later.append((self.now + LAUNCH_S, lambda: self._place(worker)))
            return
        node = self._free.popleft()
        toy = self.toys[worker] = Toy(worker, node, answered=self.now)
        toy.busy_until = self.now + self.phases.get(At.STARTING, 1.0)
        pulse = Pulse(self.now, At.STARTING, 0, False, False, self.awake)
        self.signs[worker] = Heard(pulse, self.awake, self.awake, self.awake, self.awake)
        self._feed(Placed(worker, node, self.now))

    # What a test does

    def kill(self, worker: str) -> None:
        """A process dies; its connection is closed by its machine."""
        toy = self.toys[worker]
        toy.alive = False
        toy.outbox.append(Gone(worker, "process_died", self.now))

    def lose_node(self, node: str) -> None:
        """A machine is gone without a word."""
        self.faults.append(Fault("cut", self.now, float("inf"), (node,)))
        for toy in self.toys.values():
            if toy.node == node:
                toy.alive = False
                toy.outbox.clear()

    def add(self, *nodes: str) -> None:
        """More places for workers."""
        self._free.extend(nodes)

    def beside(self) -> list[tuple[float, str, int, int]]:
        """Commits of a generation after another was published that has nobody of it: there must be none."""
        found = []
        for at, new in self.generations:
            went = [g for t, g in self.went if t <= at and g.number < new.number]
            if went and not set(went[-1].members) & set(new.members):
                found += [c for c in self.commits if c[0] > at and c[2] <= went[-1].number]
        return found

    def facts(self) -> dict[str, Any]:
        """For a report."""
        return {
            "killed": self.killed,
            "commits": len(self.commits),
            "generations": len(self.generations),
            "doubt_s": round(len(self.doubts) * TICK_S, 1),
            "ended": str(self.ended) if self.ended else None,
        }
