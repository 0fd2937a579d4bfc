"""Who trains, and who carries what: the decisions of an elastic run, as a state machine.

`Membership.step(event)` takes what happened and returns what is to be done, each action with its reason. It reads no
clock and does no I/O: times come with the events. The same machine runs under Ray, under property tests and in the
simulator.

A *generation* is a numbered membership that was published. Its members arrive (they stop between two steps, or in the
middle of one that broke), and when the last has arrived all are told to go: they build their process group, whoever is
behind takes the state of whoever is ahead, and they train. A planned change (a worker that joins, one that is drained)
waits until the members reach the end of a step. An urgent one (a member is gone) breaks the exchange that they are in.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

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
    Recovered,
    Save,
    Slow,
    Tick,
)
from headway.core.lanes import moved

WARMING, READY, MEMBER, LEAVING, FINISHED = "warming", "ready", "member", "leaving", "finished"
PLANNED = ("joined", "drained", "rebalanced")


@dataclass(frozen=True)
class Policy:
    """What the job says about its workers.

    Args:
        lanes: of the run.
        min: fewest workers to train with.
        max: most workers.
        gather_s: how long the first generation waits for workers that are starting, once `min` are ready.
        leave_s: how long before its deadline a drained worker leaves at the latest, replaced or not.
        slow: "report", "rebalance" (fewer lanes) or "replace", for workers that are slower than the others.
        divergences: after so many a worker whose replica differs is evicted.
        blips: so often in a row may an exchange break with nobody gone.
    """

    lanes: int
    min: int = 1
    max: int = 1
    gather_s: float = 3.0
    leave_s: float = 5.0
    slow: str = "report"
    divergences: int = 2
    blips: int = 5


@dataclass
class Worker:
    """What is known of a worker that was launched and is not gone."""

    phase: str = WARMING
    node: str | None = None
    deadline: float | None = None
    weight: float = 1.0
    divergences: int = 0


@dataclass
class _Incident:
    cause: str
    workers: list[str]
    at: float
    silent_s: float


@dataclass
class Membership:
    """The state machine. Fields are for reading."""

    policy: Policy
    workers: dict[str, Worker] = field(default_factory=dict)
    published: Generation | None = None
    """The newest generation; None before the first, and while training is paused."""
    active: Generation | None = None
    """The newest generation that was told to go, if it is not broken."""
    committed: int = 0
    """Steps known to be committed."""
    ended: bool = False
    _number: int = 0
    _names: int = 0
    _asked: set[str] = field(default_factory=set)
    _arrived: dict[str, tuple[int, int]] = field(default_factory=dict)
    _awaited: set[str] = field(default_factory=set)
    _last_carried: dict[str, tuple[int, ...]] = field(default_factory=dict)
    _incident: _Incident | None = None
    _first_ready_at: float | None = None
    _blips: int = 0
    _deaths: int = 0
    _failed_starts: int = 0
    _reshape: bool = False
    _finishing: bool = False
    _pausing: Generation | None = None
    """Whose members a planned pause asked to stop; they may be in a last exchange."""

    def begin(self) -> list[Action]:
        """The actions before any event."""
        return self._launch("the run begins")

    def step(self, event: Event) -> list[Action]:
        """Take an event in; returns what is to be done, in order.

        Events of workers that are not known (they were evicted, and have not noticed) have no effect but `Dismiss`.
        """
        if self.ended:
            return []
        worker = getattr(event, "worker", None)
        if worker is not None and worker not in self.workers and not isinstance(event, Placed):
            if worker in self._asked:  # it has no place yet, as far as is known
                return self._on_gone(event) if isinstance(event, Gone) else []
            return [] if isinstance(event, Gone) else [Dismiss(worker, "it is no longer part of the run")]
        handlers = {
            Placed: self._on_placed,
            Ready: self._on_ready,
            Arrived: self._on_arrived,
            Committed: self._on_committed,
            Lost: self._on_lost,
            Gone: self._on_gone,
            Drained: self._on_drained,
            Slow: self._on_slow,
            Diverged: self._on_diverged,
            Raised: self._on_raised,
            Finished: self._on_finished,
            Tick: self._on_tick,
        }
        return handlers[type(event)](event)  # type: ignore[operator, no-any-return]

    # What happens

    def _on_placed(self, event: Placed) -> list[Action]:
        if event.worker in self.workers:
            return []
        if event.worker not in self._asked:
            return [Dismiss(event.worker, "nobody asked for it any more")]
        self._asked.discard(event.worker)
        self.workers[event.worker] = Worker(node=event.node)
        return []

    def _on_ready(self, event: Ready) -> list[Action]:
        worker = self.workers[event.worker]
        if worker.phase == WARMING:
            worker.phase = READY
            self._failed_starts = 0
            if self._first_ready_at is None:
                self._first_ready_at = event.at
        return self._consider(event.at)

    def _on_arrived(self, event: Arrived) -> list[Action]:
        generation = self.published
        if generation is None or event.generation != generation.number or event.worker not in self._awaited:
            return []
        self._awaited.discard(event.worker)
        self._arrived[event.worker] = (event.step, event.exchanges)
        if self._awaited:
            return []
        positions = tuple(self._arrived[m] for m in generation.members)
        newest = max(positions)
        source = generation.members[positions.index(newest)] if newest[0] >= 0 else None
        self.active = generation
        self._arrived = {}
        self._last_carried = generation.carries()
        reason = "all have arrived" if source else "all have arrived, and nobody holds a state"
        actions: list[Action] = [Go(generation, source, positions, reason)]
        for m in [m for m, w in self.workers.items() if w.phase == LEAVING and m not in generation.members]:
            del self.workers[m]
            actions.append(Dismiss(m, "the others go on without it", graceful=True))
        return actions + self._consider(event.at)

    def _on_committed(self, event: Committed) -> list[Action]:
        self.committed = max(self.committed, event.step)
        self._deaths = self._blips = 0
        incident, active = self._incident, self.active
        if incident is None or active is None or event.generation != active.number:
            return []
        self._incident = None
        return [
            Recovered(
                incident.cause,
                tuple(incident.workers),
                active.number,
                event.step,
                incident.at,
                event.at,
                incident.silent_s,
                event.pause_s,
                f"step {event.step} is committed by generation {active.number}",
            )
        ]

    def _on_lost(self, event: Lost) -> list[Action]:
        if self._pausing is not None and event.generation == self._pausing.number:
            return self._pause(event.at, True, f"{event.worker} lost the others before all had stopped")
        if self.active is None or event.generation != self.active.number:
            return []  # it is broken already
        self._blips += 1
        if self._blips > self.policy.blips:
            return self._fail(
                f"the workers' connections to each other broke {self._blips} times in a row with nobody gone; "
                "they cannot reach each other"
            )
        self._note("connection_lost", [event.worker], event.at)
        self.active = None
        return self._without(event.at, True, f"{event.worker} lost the others")

    def _on_gone(self, event: Gone) -> list[Action]:
        self._asked.discard(event.worker)
        worker = self.workers.pop(event.worker, None)
        phase = worker.phase if worker else WARMING
        actions: list[Action] = [Dismiss(event.worker, event.cause)]
        reason = f"{event.worker} is gone ({event.cause})"
        breaks = self.active is None or event.worker in self.active.members  # else the others step on undisturbed
        if phase in (WARMING, READY):
            self._failed_starts += 1
        elif phase in (MEMBER, LEAVING):
            self._blips = 0
            self._note(event.cause, [event.worker], event.at, event.silent_s)
        if phase != FINISHED and breaks:
            self._deaths += 1
            if self._deaths >= 3 * self.policy.max:
                return actions + self._fail(
                    f"workers died {self._deaths} times without a single new step (the last: {reason})"
                )
        if phase != FINISHED:
            if breaks:
                self.active = None
            if self._pausing is not None and event.worker in self._pausing.members:
                actions += self._pause(event.at, True, f"{reason} before all had stopped")
            elif self.published is not None and (breaks or event.worker in self.published.members):
                actions += self._without(event.at, breaks, reason) if phase in (MEMBER, LEAVING) else []
        return actions + self._consider(event.at) + self._launch(reason)

    def _on_drained(self, event: Drained) -> list[Action]:
        worker = self.workers[event.worker]
        if worker.phase == FINISHED or (worker.deadline is not None and worker.deadline <= event.deadline):
            return []
        worker.deadline = event.deadline
        if worker.phase in (WARMING, READY):
            del self.workers[event.worker]
            return [Dismiss(event.worker, "its machine is being taken away"), *self._launch("a machine is taken away")]
        worker.phase = LEAVING
        actions = self._launch(f"{event.worker}'s machine is being taken away")
        others = [w for w in self.workers.values() if w.phase in (MEMBER, READY)]
        if len(others) < self.policy.min:
            actions.append(Save(f"{event.worker} is being taken away, and {len(others)} would be left"))
        return actions + self._consider(event.at)

    def _on_slow(self, event: Slow) -> list[Action]:
        worker = self.workers[event.worker]
        if self.policy.slow == "rebalance":
            weight = round(1.0 / max(event.factor, 1.0), 2)
            if weight != worker.weight:
                worker.weight, self._reshape = weight, True
        elif self.policy.slow == "replace" and event.factor > 1.0 and worker.phase == MEMBER:
            worker.phase, worker.deadline = LEAVING, float("inf")
            return self._launch(f"{event.worker} is {event.factor:.1f} times slower") + self._consider(event.at)
        return self._consider(event.at)

    def _on_diverged(self, event: Diverged) -> list[Action]:
        worker = self.workers[event.worker]
        worker.divergences += 1
        if worker.divergences < self.policy.divergences:
            return []
        return self._on_gone(Gone(event.worker, "diverged", event.at))

    def _on_raised(self, event: Raised) -> list[Action]:
        return self._fail(event.message, event.worker)

    def _on_finished(self, event: Finished) -> list[Action]:
        self.workers[event.worker].phase = FINISHED
        self._finishing = True
        if not any(m in self.workers and self.workers[m].phase in (MEMBER, LEAVING) for m in self._last_carried):
            self.ended = True
            return [End("every member has finished")]
        if self.active is None:  # the others would wait for it to arrive
            return self._without(event.at, True, f"{event.worker} has finished")
        return []

    def _on_tick(self, event: Tick) -> list[Action]:
        return self._consider(event.at)

    # What is to be done

    def _stay(self) -> list[str]:
        """Members that could be in the next generation, in order of rank."""
        before = self.published.members if self.published else self._last_carried
        could = {m for m, w in self.workers.items() if w.phase in (MEMBER, LEAVING)}
        alive = [m for m in before if m in could]
        first = set(alive)
        return alive + [m for m in self.workers if m in could and m not in first]

    def _wanted(self, at: float, urgent: bool) -> list[str]:
        """The next generation's members by the wishes of the moment: who stays, then who is ready, at most max.

        Those who are being taken away go as soon as others have taken all their places and one of them holds the state,
        or when their deadline is near: until then they are as good as any. But nobody goes whose exchange broke: it may
        have been completed there and nowhere else. An urgent generation therefore has all that may hold a state, and
        the next one is without the leaving.
        """
        alive = self._stay()
        if self._finishing:
            return [m for m in alive if m in self._last_carried]
        wanted = [m for m in alive if self.workers[m].phase == MEMBER]
        wanted += [m for m, w in self.workers.items() if w.phase == READY]
        wanted = wanted[: self.policy.max]
        leaving = [m for m in alive if self.workers[m].phase == LEAVING]
        kept: list[str] = []
        if leaving:
            held = any(m in self._last_carried for m in wanted)
            for m in sorted(leaving, key=lambda m: -(self.workers[m].deadline or 0.0)):
                there = len(wanted) + len(kept)
                short = not self._due(m, at) and there < self.policy.max
                hands_over = there > 0 and m in self._last_carried and (urgent or not held)
                if short or hands_over:
                    kept.append(m)
                    held = held or m in self._last_carried
        order = {m: i for i, m in enumerate(alive)}
        return sorted(wanted[: self.policy.lanes - len(kept)] + kept, key=lambda m: order.get(m, len(order)))

    def _due(self, worker: str, at: float) -> bool:
        """Whether a worker's machine is about to be taken away."""
        deadline = self.workers[worker].deadline
        return deadline is not None and at >= deadline - self.policy.leave_s

    def _enough(self, wanted: list[str], at: float) -> bool:
        return sum(not self._due(m, at) for m in wanted) >= self.policy.min or (self._finishing and bool(wanted))

    def _consider(self, at: float) -> list[Action]:
        """Publish a planned change, or a first generation, if it is time."""
        if self.ended or self._finishing:
            return []
        published = self.published
        if published is None:
            return self._start(at)
        if self.active is not published:
            return []  # the last change is not through yet; the next one waits, and gathers more
        wanted, members = self._wanted(at, False), set(published.members)
        if not self._reshape and set(wanted) == members:
            return []
        left = [m for m in published.members if m not in set(wanted)]
        if not self._enough(wanted, at):
            return self._pause(at, False, f"{', '.join(left)} leave, and fewer than {self.policy.min} are left")
        joined = [m for m in wanted if m not in members]
        words = [f"{', '.join(joined)} joined" if joined else "", f"{', '.join(left)} left" if left else ""]
        reason = "; ".join(w for w in words if w) or "lanes are shared anew"
        self._note("drained" if left else "joined" if joined else "rebalanced", left or joined, at)
        return self._publish(wanted, at, False, reason)

    def _start(self, at: float) -> list[Action]:
        """Publish the first generation, or the first after a pause."""
        held = any(m in self.workers for m in self._last_carried)  # members wait with their state: no more delay
        first = at if self._first_ready_at is None else self._first_ready_at
        warming = any(w.phase == WARMING for w in self.workers.values())
        if warming and not held and at < first + self.policy.gather_s:
            return []
        wanted = self._wanted(at, True)
        if not self._enough(wanted, at):
            return []
        return self._publish(wanted, at, True, f"{len(wanted)} workers are ready")

    def _without(self, at: float, urgent: bool, reason: str) -> list[Action]:
        """Somebody of the published or active generation is gone."""
        if self._finishing and not urgent:
            return []
        wanted = self._wanted(at, urgent)
        if self._finishing and not wanted:
            self.ended = True
            return [End("every member that is left has finished")]
        if not self._enough(wanted, at):
            return self._pause(at, urgent, f"{reason}; {len(wanted)} left, {self.policy.min} needed")
        return self._publish(wanted, at, urgent, reason)

    def _publish(self, members: Iterable[str], at: float, urgent: bool, reason: str) -> list[Action]:
        chosen = tuple(members)
        self._number += 1
        weights = {m: self.workers[m].weight for m in chosen if self.workers[m].weight != 1.0}
        lanes = moved(self.policy.lanes, chosen, self._last_carried, weights)
        # A planned generation that was never entered must not hide that the active one is broken.
        urgent = urgent or self.active is None
        self.published = Generation(self._number, chosen, lanes, urgent, reason)
        self._arrived, self._awaited = {}, set(chosen)
        self._pausing = None
        self._reshape = False
        for m in chosen:
            if self.workers[m].phase == READY:
                self.workers[m].phase = MEMBER
        self._first_ready_at = None
        return [Publish(self.published)]

    def _pause(self, at: float, urgent: bool, reason: str) -> list[Action]:
        self._number += 1
        leaving = [m for m, w in self.workers.items() if w.phase == LEAVING]
        save = bool(leaving) and not any(w.phase in (MEMBER, READY) for w in self.workers.values())
        if not urgent:
            self._note("drained", leaving, at)
            self._pausing = self.active
        else:
            self._pausing = None
        self.published, self.active, self._arrived = None, None, {}
        self._last_carried = {m: lanes for m, lanes in self._last_carried.items() if m in self.workers}
        if self._first_ready_at is None and any(w.phase == READY for w in self.workers.values()):
            self._first_ready_at = at
        return [Pause(self._number, urgent, save, reason)]

    def _launch(self, reason: str) -> list[Action]:
        """Ask for as many as are missing to the full number."""
        if self._finishing:
            return []
        there = sum(w.phase in (WARMING, READY, MEMBER) for w in self.workers.values()) + len(self._asked)
        delay = min(60.0, 2.0 ** min(self._failed_starts - 1, 6)) if self._failed_starts > 1 else 0.0
        actions: list[Action] = []
        for _ in range(self.policy.max - there):
            name = f"w{self._names}"
            self._names += 1
            self._asked.add(name)
            actions.append(Launch(name, delay, reason))
        return actions

    def _fail(self, reason: str, worker: str | None = None) -> list[Action]:
        self.ended = True
        return [Fail(reason, worker)]

    def _note(self, cause: str, workers: list[str], at: float, silent_s: float = 0.0) -> None:
        """An incident begins, or goes on; a planned change that something worse comes into takes its name."""
        incident = self._incident
        if incident is None or (incident.cause in PLANNED and cause not in PLANNED):
            self._incident = _Incident(cause, workers, at, silent_s)
        elif incident.cause == "connection_lost" and cause not in (*PLANNED, "connection_lost"):
            self._incident = _Incident(cause, workers, incident.at, silent_s)  # now it is known why
        elif cause not in PLANNED or cause == incident.cause:
            incident.workers += [w for w in workers if w not in incident.workers]
