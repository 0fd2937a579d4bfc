"""Who trains, and who carries what: the decisions of an elastic run, as a state machine.

`Membership.step(event)` takes what happened and returns what is to be done, each action with its reason. It reads no
clock and does no I/O: times come with the events. The same machine runs under Ray, under property tests and in the
simulator.

A *generation* is a numbered membership that was published. Its members arrive (they stop between two steps, or in the
middle of one that broke), and when the last has arrived all are told to go: they build their process group, whoever is
behind takes the state of whoever is ahead, and they train. A planned change (a worker that joins, one that is drained)
waits until the members reach the end of a step. An urgent one (a member is gone) breaks the exchange that they are in;
it seats nobody new where enough are left, since whoever has no state keeps the others waiting.

A *spare* is a worker that is ready and that no generation seats while `max` are in. It is nothing else than a joiner
that has to wait: when a member is gone it joins between two of the others' steps, at once; where too few are left it is
seated in the urgent generation; where nobody is left it begins the next alone, from what was kept. Spares are asked for
when the first step is committed: those that come then rehearse beside the others, and hold up no start.

A run's size may be asked for while it runs (`Resized`): who is too many leaves between two steps, and is called back if
another is missed before that. A larger `min` counts from when so many train: nobody stops for it.

No generation begins beside another: where nobody of the last one is left, and some of it fell silent rather than died,
the next waits until the last lease that they may hold has run out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

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
    HeadDrained,
    Lost,
    Pause,
    Placed,
    Publish,
    Raised,
    Ready,
    Resized,
    Save,
    Slow,
    Stuck,
    Tick,
)
from headway.core.hiring import Hiring
from headway.core.incidents import Incidents
from headway.core.lanes import moved
from headway.core.links import Links
from headway.core.roster import (
    BLIPS_S,
    ENTERED,
    FINISHED,
    LEAVING,
    MEMBER,
    READY,
    WARMING,
    Policy,
    Worker,
)
from headway.core.seating import enough, planned, seats, surplus, survivors
from headway.core.states import Broken, Ended, Gathering, State, Training, Waiting
from headway.core.watch import lease_s

__all__ = ["ENTERED", "FINISHED", "LEAVING", "MEMBER", "READY", "WARMING", "Membership", "Policy", "Worker", "seats"]

DEAD = frozenset({"process_died", "hardware"})
"""Causes after which a worker surely does nothing more; after any other it may not know yet that it is out."""
AT_FAULT = frozenset({"hardware", "parted"})
"""Causes after which a worker's node is better avoided."""
DEATHS_EACH = 3
STOOD_S = 60.0
"""A worker that was ready for so long did not fail to start."""
APART_NODES = 100
"""Among more than so many nodes a spare shares none with most members, wherever it is."""
PARTED_S = 0.3
NAMED = 16
"""Workers that are named one by one in a reason."""


@dataclass
class _PutOff:
    """What is left to be decided when several events have been taken in.

    Args:
        left: members that are gone, and whether the others' exchange breaks by it.
        considered: when a change was to be thought of.
        hired: why, and when, others were to be asked for.
    """

    left: list[tuple[Gone, bool]] = field(default_factory=list)
    considered: float | None = None
    hired: tuple[str, float] | None = None


class Membership:
    """The state machine. Fields and properties are for reading."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.workers: dict[str, Worker] = {}
        self.committed = 0
        """Steps known to be committed."""
        self.carried: dict[str, tuple[int, ...]] = {}
        """Lanes of the last generation that was told to go, by worker: these may hold the newest state."""
        self._state: State = Waiting()
        self._number = 0
        self._least = policy.min
        """Wanted; `policy.min` is less while so many have not trained yet."""
        self._hiring = Hiring(policy.max, policy.patience.slow_s)
        self._incidents = Incidents()
        self._links = Links()
        self._blips, self._blips_since = 0, 0.0
        self._deaths = 0
        self._spares = 0
        """That are wanted now: none before the first step."""
        self._reshape = False
        self._anew = True
        """Whether nobody had a state when the last generation was told to go."""
        self._finishing = False
        """Some have done all steps: nobody new is needed."""
        self._fence = 0.0
        """Until when workers that fell silent may still hold a lease."""
        self._head_deadline = float("inf")
        self._head_saves = 0
        """Checkpoints still to be asked for, since the machine that leads will be taken away."""
        self.moves = 0
        """Grows with whatever may have changed who is there, and as what."""
        self._settled = -1
        """`moves` when a tick found that nothing is to be done, whatever the time."""
        self._put_off: _PutOff | None = None

    @property
    def published(self) -> Generation | None:
        """The newest generation; None before the first, and while training is paused."""
        state = self._state
        return None if isinstance(state, Waiting) else state.generation

    @property
    def active(self) -> Generation | None:
        """The newest generation that was told to go, if it is not broken."""
        match self._state:
            case Training(generation):
                return generation
            case Gathering(before=before):
                return before
        return None

    @property
    def sought(self) -> int:
        """Workers that were asked for, and have no place so far."""
        return len(self._hiring.asked)

    @property
    def ended(self) -> bool:
        """Whether the run is over."""
        return isinstance(self._state, Ended)

    def begin(self) -> list[Action]:
        """The actions before any event."""
        return self._hire("the run begins", 0.0)

    def step(self, event: Event) -> list[Action]:
        """Take an event in; returns what is to be done, in order.

        Events of workers that are not known (they were evicted, and have not noticed) have no effect but `Dismiss`.
        """
        if self.ended:
            return []
        self.moves += not isinstance(event, Tick)
        worker = getattr(event, "worker", None)
        if worker is not None and worker not in self.workers and not isinstance(event, Placed):
            if worker not in self._hiring.asked:
                return [] if isinstance(event, Gone) else [Dismiss(worker, "it is no longer part of the run")]
            if not isinstance(event, Gone | Raised):
                return []  # it has no place yet, as far as is known
        return _HANDLERS[type(event)](self, event)

    def together(self, events: Sequence[Gone | Ready]) -> list[Action]:
        """Take in what happened at about the same time, and decide about all of it once: the loss of a hundred workers
        is one generation, and a thousand that are ready cost no more thought than one.

        The actions are those of `step` for each, but for publishing, pausing and hiring, which follow at the end.
        """
        if len(events) == 1:
            return self.step(events[0])
        put_off = self._put_off = _PutOff()
        actions: list[Action] = []
        try:
            for event in events:
                actions += self.step(event)
        finally:
            self._put_off = None
        if self.ended:
            return actions
        if put_off.left:
            actions += self._left_behind(put_off.left)
        if put_off.considered is not None and not self.ended:
            actions += self._consider(put_off.considered)
        if put_off.hired is not None and not self.ended:
            actions += self._hire(*put_off.hired)
        return actions

    # What happens

    def _on_placed(self, event: Placed) -> list[Action]:
        if event.worker in self.workers:
            return []
        if not self._hiring.placed(event.worker, event.node):
            return [Dismiss(event.worker, "nobody asked for it any more")]
        self.workers[event.worker] = Worker(node=event.node)
        return []

    def _on_ready(self, event: Ready) -> list[Action]:
        worker = self.workers[event.worker]
        if worker.phase == WARMING:
            worker.phase, worker.ready_at = READY, event.at
            self._hiring.stands()
            if isinstance(self._state, Waiting) and self._state.ready_at is None:
                self._state.ready_at = event.at
        return self._consider(event.at)

    def _on_arrived(self, event: Arrived) -> list[Action]:
        state = self._state
        if not isinstance(state, Gathering) or event.generation != state.generation.number:
            return []
        if event.worker not in state.awaited:
            return []
        state.awaited.discard(event.worker)
        state.arrived[event.worker] = (event.step, event.exchanges, event.busy)
        return [] if state.awaited else self._go(state, event.at)

    def _go(self, state: Gathering, at: float) -> list[Action]:
        """All have arrived."""
        generation = state.generation
        arrived = [state.arrived[m] for m in generation.members]
        busy = any(b for step, _, b in arrived if step >= 0)
        fresh = {m for m, (step, _, _) in zip(generation.members, arrived, strict=True) if step < 0}
        if busy and fresh:
            for m in fresh & self.workers.keys():
                self.carried.pop(m, None)
                self.workers[m].phase = READY if self.workers[m].phase == MEMBER else self.workers[m].phase
            others = [m for m in generation.members if m not in fresh]
            return self._publish(others, at, False, "an evaluation is under way: whoever is new waits for its end")
        positions = tuple((step, exchanges) for step, exchanges, _ in arrived)
        newest = max(positions)
        source = generation.members[positions.index(newest)] if newest[0] >= 0 else None
        self._state, self._anew = Training(generation, busy), source is None
        continues, self.carried = bool(self.carried), generation.carries()
        lease = lease_s(self.policy.patience, len({self.workers[m].node for m in generation.members}))
        new = [m for m in generation.members if not self.workers[m].entered]
        if new:
            self._hiring.seated()
            if source is not None and continues:
                self._incidents.note("joined", new, at)
        for m in generation.members:
            self.workers[m].entered, self.workers[m].lease_s = True, lease
        self._hold(len(members := set(generation.members)))
        reason = "all have arrived" if source else "all have arrived, and nobody holds a state"
        actions: list[Action] = [Go(generation, source, positions, reason, lease)]
        for m in [m for m, w in self.workers.items() if w.phase == LEAVING and m not in members]:
            del self.workers[m]
            actions.append(Dismiss(m, "the others go on without it", graceful=True))
        return actions + self._consider(at)

    def _on_committed(self, event: Committed) -> list[Action]:
        self.committed = max(self.committed, event.step)
        self._deaths = self._blips = 0
        self._links.forget()
        active, state = self.active, self._state
        if active is None or event.generation != active.number:
            return []
        actions: list[Action] = [*self._incidents.over(event, active, self._anew)]
        if self._spares != self.policy.spares:
            self._spares = self.policy.spares
            actions += self._hire("spares are to stand by", event.at)
        if isinstance(state, Training) and state.busy:
            state.busy = False
            actions += self._consider(event.at)
        return actions

    def _on_lost(self, event: Lost) -> list[Action]:
        peers = [p for p in event.peers if p in self.workers]
        self._links.accuse(event.worker, peers)
        state, reason = self._state, f"{event.worker} lost the others"
        if isinstance(state, Waiting) and state.stopping is not None and event.generation == state.stopping.number:
            return self._pause(event.at, True, f"{reason} before all had stopped")
        if self.active is not None and event.generation == self.active.number:
            return self._broke("connection_lost", [event.worker], event.at, reason, bool(peers))
        if peers and isinstance(state, Gathering) and state.before is None and event.generation == state.after:
            self._state = Broken(state.generation, event.at + PARTED_S)
        return []  # it is broken already

    def _on_stuck(self, event: Stuck) -> list[Action]:
        if self.active is None or event.generation != self.active.number:
            return []
        return self._broke("stuck", [], event.at, "all wait for each other", False)

    def _broke(self, cause: str, workers: list[str], at: float, reason: str, accused: bool) -> list[Action]:
        """The active generation's exchange broke, with nobody gone so far."""
        active = self.active
        assert active is not None
        self._blips += 1
        if self._blips == 1:
            self._blips_since = at
        if self._blips > self.policy.blips and at - self._blips_since >= BLIPS_S:
            return self._fail(
                f"the workers' connections to each other broke {self._blips} times in a row with nobody gone; "
                "they cannot reach each other"
            )
        self._incidents.note(cause, workers, at)
        if accused:  # others will say the same, and the more are heard the surer it is who must go
            self._state = Broken(active, at + PARTED_S)
            return []
        return self._without(at, True, reason)

    def _part(self, at: float) -> list[Action]:
        """Whoever cannot reach the most others goes, until all that are left reach each other."""
        heard = self._stay()
        parted: list[str] = []
        while (worst := self._links.blamed([m for m in heard if m not in parted])) is not None:
            parted.append(worst)
        if not parted:
            return self._without(at, True, "the exchange broke")
        actions: list[Action] = []
        for m in parted[:-1]:
            actions.append(Dismiss(m, "parted"))
            self._strike(self.workers.pop(m), Gone(m, "parted", at))
        return actions + self._on_gone(Gone(parted[-1], "parted", at))

    def _on_gone(self, event: Gone) -> list[Action]:
        return self._gone(event, None)

    def _gone(self, event: Gone, raised: Raised | None) -> list[Action]:
        """A worker is gone. raised: because of that, and it was no member."""
        self._hiring.asked.discard(event.worker)
        worker = self.workers.pop(event.worker, None) or Worker()
        phase, reason = worker.phase, f"{event.worker} is gone ({event.cause})"
        actions: list[Action] = [Dismiss(event.worker, event.cause)]
        if phase == FINISHED:
            return actions + self._consider(event.at)
        active = self.active
        breaks = active is None or event.worker in active.seated  # else the others step on undisturbed
        if phase in ENTERED:
            self._strike(worker, event)
        if phase not in ENTERED or raised is not None:
            if phase == READY and event.at - worker.ready_at >= STOOD_S:
                self._hiring.seated()
            self._hiring.failed(worker.node, event.at)
        if phase == WARMING or raised is not None:
            failure = self._in_vain(event, raised)
            if failure is not None:
                return actions + failure
        elif breaks and (phase in ENTERED or isinstance(self._state, Waiting)):  # nobody misses a spare
            self._deaths += 1
            if self._deaths >= DEATHS_EACH * self.policy.max:
                return actions + self._fail(
                    f"workers died {self._deaths} times without a single new step (the last: {reason})"
                )
        if phase in ENTERED:
            actions += self._left_behind([(event, breaks)])
        return actions + self._consider(event.at) + self._hire(reason, event.at)

    def _strike(self, worker: Worker, event: Gone) -> None:
        """A member is off the list."""
        self._blips = 0
        self._incidents.note(event.cause, [event.worker], event.at, event.silent_s)
        if event.cause in AT_FAULT:
            self._hiring.avoid(worker.node, event.at)
        if event.cause not in DEAD:
            self._fence = max(self._fence, event.at - event.heard_s + worker.lease_s)

    def _left_behind(self, left: list[tuple[Gone, bool]]) -> list[Action]:
        """What those do that are left when members are gone: each, and whether the others' exchange breaks by it."""
        if self._put_off is not None:
            self._put_off.left += left
            return []
        state, (first, _) = self._state, left[0]
        at, breaks = max(event.at for event, _ in left), any(breaks for _, breaks in left)
        reason = f"{first.worker} is gone ({first.cause})"
        if len(left) > 1:
            reason = f"{len(left)} workers are gone, {first.worker} ({first.cause}) first"
        if isinstance(state, Waiting):
            stopping = state.stopping.seated if state.stopping is not None else ()
            if any(event.worker in stopping for event, _ in left):
                return self._pause(at, True, f"{reason} before all had stopped")
            return []
        members = state.generation.seated if state.generation is not None else ()
        if breaks or any(event.worker in members for event, _ in left):
            return self._without(at, breaks, reason)
        return []

    def _in_vain(self, event: Gone, raised: Raised | None) -> list[Action] | None:
        """Whether the run ends, since nobody can be started."""
        if any(w.phase != WARMING for w in self.workers.values()):
            return None
        theirs = raised is not None and raised.kind == "user"
        if not self._hiring.hopeless(event.at, theirs, bool(self.workers)):
            return None
        if raised is not None:
            return self._fail(raised.message, raised.worker)
        return self._fail(f"no worker could be started in {self._hiring.in_vain} attempts (the last: {event.cause})")

    def _on_drained(self, event: Drained) -> list[Action]:
        worker = self.workers[event.worker]
        if worker.phase == FINISHED or (worker.deadline is not None and worker.deadline <= event.deadline):
            return []
        worker.deadline, worker.surplus = event.deadline, False
        reason = f"{event.worker}'s machine is being taken away"
        if event.deadline == float("inf"):  # at risk only: it has room for the next one
            self._hiring.avoid(worker.node, event.at)
        if worker.phase in (WARMING, READY):
            del self.workers[event.worker]
            return [Dismiss(event.worker, "its machine is being taken away"), *self._hire(reason, event.at)]
        worker.phase = LEAVING
        actions = self._hire(reason, event.at)
        others = [w for w in self.workers.values() if w.phase in (MEMBER, READY)]
        if len(others) < self.policy.min:
            actions.append(Save(f"{event.worker} is being taken away, and {len(others)} would be left"))
        return actions + self._consider(event.at)

    def _on_head_drained(self, event: HeadDrained) -> list[Action]:
        if self._head_deadline <= event.deadline:
            return []
        self._head_deadline, self._head_saves = event.deadline, 1
        return [Save("the machine that leads the run is being taken away")]

    def _on_slow(self, event: Slow) -> list[Action]:
        worker = self.workers[event.worker]
        if self.policy.slow == "rebalance":
            weight = round(1.0 / max(event.factor, 1.0), 2)
            if weight != worker.weight:
                worker.weight, self._reshape = weight, True
        elif self.policy.slow == "replace" and event.factor > 1.0 and worker.phase == MEMBER:
            worker.phase, worker.deadline = LEAVING, float("inf")
            return self._hire(f"{event.worker} is {event.factor:.1f} times slower", event.at) + self._consider(event.at)
        return self._consider(event.at)

    def _on_diverged(self, event: Diverged) -> list[Action]:
        worker = self.workers[event.worker]
        worker.divergences += 1
        if worker.divergences < self.policy.divergences:
            return []
        return self._on_gone(Gone(event.worker, "diverged", event.at))

    def _on_raised(self, event: Raised) -> list[Action]:
        worker = self.workers.get(event.worker)
        if worker is None or not worker.entered:
            return self._gone(Gone(event.worker, "start_failed", event.at), event)
        if event.kind == "user":
            return self._fail(event.message, event.worker)
        return self._on_gone(Gone(event.worker, "hardware", event.at))

    def _on_resized(self, event: Resized) -> list[Action]:
        if (event.min, event.max) == (self._least, self.policy.max) or self._finishing:
            return []
        self._least, self._hiring.most = event.min, event.max
        least = event.min if isinstance(self._state, Waiting) else min(event.min, self.policy.min)
        self.policy = replace(self.policy, min=least, max=event.max)
        self._hold(len(self.active.members) if self.active else 0)
        reason = f"{event.by} asks for {event.max} workers" if event.max > 1 else f"{event.by} asks for 1 worker"
        return [*self._let_go(reason, event.leave), *self._consider(event.at), *self._hire(reason, event.at)]

    def _hold(self, training: int) -> None:
        """So many train: a `min` that was asked for and reached counts."""
        if self.policy.min < self._least <= training:
            self.policy = replace(self.policy, min=self._least)

    def _let_go(self, reason: str, leave: Iterable[str] = ()) -> list[Action]:
        """Those beyond the full number: who has not trained at once, members between two steps. leave: of `Resized`."""
        members = [m for m, w in self.workers.items() if w.phase == MEMBER]
        for m in surplus(self.workers, members, self.carried, len(members) - self.policy.max, leave):
            self.workers[m].phase, self.workers[m].deadline, self.workers[m].surplus = LEAVING, float("inf"), True
        aside = [m for phase in (READY, WARMING) for m, w in self.workers.items() if w.phase == phase]
        aside += self._hiring.in_order
        actions: list[Action] = []
        for m in aside[::-1][: max(0, -self._missing)]:
            self._hiring.asked.discard(m)
            self.workers.pop(m, None)
            actions.append(Dismiss(m, reason))
        return actions

    def _on_finished(self, event: Finished) -> list[Action]:
        self.workers[event.worker].phase = FINISHED
        self._finishing = True
        if not any(m in self.workers and self.workers[m].phase in ENTERED for m in self.carried):
            return self._end("every member has finished")
        if self.active is None:  # the others would wait for it to arrive
            return self._without(event.at, True, f"{event.worker} has finished")
        return []

    def _on_tick(self, event: Tick) -> list[Action]:
        actions: list[Action] = []
        if self._head_saves and event.at >= self._head_deadline - self.policy.leave_s:
            self._head_saves -= 1
            actions.append(Save("the machine that leads the run is about to go"))
        if isinstance(self._state, Broken) and event.at >= self._state.until:
            self.moves += 1
            return actions + self._part(event.at)
        if self._settled == self.moves:
            return actions
        found = self._consider(event.at)
        if found:
            self.moves += 1
        elif isinstance(self._state, Training) and all(w.deadline is None for w in self.workers.values()):
            self._settled = self.moves  # nothing that comes to be due by time alone
        return actions + found

    # Who is in

    def _stay(self) -> list[str]:
        """Members that could be in the next generation, in order of rank."""
        before = self.published.members if self.published else self.carried
        could = {m for m, w in self.workers.items() if w.phase in ENTERED}
        alive = [m for m in before if m in could]
        first = set(alive)
        return alive + [m for m in self.workers if m in could and m not in first]

    def _survivors(self, at: float) -> list[str]:
        if self._finishing:
            return [m for m in self._stay() if m in self.carried]
        return survivors(self.policy, self.workers, self._stay(), self.carried, at)

    def _planned(self, at: float) -> list[str]:
        newcomers = not (isinstance(self._state, Training) and self._state.busy)
        return planned(self.policy, self.workers, self._stay(), self.carried, at, newcomers)

    def _enough(self, wanted: list[str], at: float, urgent: bool) -> bool:
        return bool(wanted) and (self._finishing or enough(self.policy, self.workers, wanted, at, urgent))

    def _fenced(self, wanted: list[str], at: float) -> bool:
        """Whether others may still train that nobody of these has been with."""
        return at < self._fence and not any(m in self.carried for m in wanted)

    # What is to be done

    def _consider(self, at: float) -> list[Action]:
        """Publish a planned change, or a first generation, if it is time."""
        if self._put_off is not None:
            self._put_off.considered = at
            return []
        state = self._state
        if self._finishing:
            return []
        if isinstance(state, Waiting):
            return self._start(state, at)
        if not isinstance(state, Training):
            return []  # the last change is not through yet; the next one waits, and gathers more
        wanted, members = self._planned(at), state.generation.seated
        few = len(members) < self.policy.min and not state.busy
        if not self._reshape and not few and set(wanted) == members:
            return []
        staying = set(wanted)
        left = [m for m in state.generation.members if m not in staying]
        if not self._enough(wanted, at, False):
            return self._pause(at, False, f"{_named(left) or 'some'} left, and fewer than {self.policy.min} remain")
        joined = [m for m in wanted if m not in members]
        words = [f"{_named(joined)} joined" if joined else "", f"{_named(left)} left" if left else ""]
        reason = "; ".join(w for w in words if w) or "lanes are shared anew"
        cause = "resized" if all(self.workers[m].surplus for m in left) else "drained"
        self._incidents.note(cause if left else "joined" if joined else "rebalanced", left or joined, at)
        return self._publish(wanted, at, False, reason)

    def _start(self, state: Waiting, at: float) -> list[Action]:
        """Publish the first generation, or the first after a pause."""
        held = any(m in self.workers for m in self.carried)  # members wait with their state: no more delay
        first = at if state.ready_at is None else state.ready_at
        phases = [w.phase for w in self.workers.values()]
        waits = WARMING in phases and sum(p in (READY, MEMBER) for p in phases) < self.policy.max
        if waits and not held and at < first + self.policy.gather_s:
            return []
        wanted = self._survivors(at)
        if not self._enough(wanted, at, True) or self._fenced(wanted, at):
            return []
        ready = "1 worker is ready" if len(wanted) == 1 else f"{len(wanted)} workers are ready"
        return self._publish(wanted, at, True, ready)

    def _without(self, at: float, urgent: bool, reason: str) -> list[Action]:
        """Somebody of the published or active generation is gone."""
        if self._finishing and not urgent:
            return []
        wanted = self._survivors(at) if urgent else self._planned(at)
        if self._finishing and not wanted:
            return self._end("every member that is left has finished")
        if not self._enough(wanted, at, urgent):
            return self._pause(at, urgent, f"{reason}; {len(wanted)} left, {self.policy.min} needed")
        if self._fenced(wanted, at):
            return self._pause(at, urgent, f"{reason}; nobody is left that trained, and some may not know it yet")
        return self._publish(wanted, at, urgent, reason)

    def _publish(self, members: Iterable[str], at: float, urgent: bool, reason: str) -> list[Action]:
        chosen, published, active = tuple(members), self.published, self.active
        self._number += 1
        weights = {m: self.workers[m].weight for m in chosen if self.workers[m].weight != 1.0}
        lanes = moved(self.policy.lanes, chosen, self.carried, weights)
        before = None if urgent else active
        # A planned generation that was never entered must not hide that the one before it is broken.
        generation = Generation(self._number, chosen, lanes, before is None, reason)
        broken = active or published
        after = self._state.after if isinstance(self._state, Gathering) and active is None else 0
        self._state = Gathering(generation, {}, set(chosen), before, after or (broken.number if broken else 0))
        self._reshape = False
        seated = set(chosen)
        for m, w in self.workers.items():
            if w.phase == READY and m in seated:
                w.phase = MEMBER
            elif w.phase == MEMBER and m not in seated and m not in self.carried:
                w.phase = READY  # it was to enter a generation that never came about
        return [Publish(generation)]

    def _pause(self, at: float, urgent: bool, reason: str) -> list[Action]:
        self._number += 1
        leaving = [m for m, w in self.workers.items() if w.phase == LEAVING]
        save = bool(leaving) and not any(w.phase in (MEMBER, READY) for w in self.workers.values())
        if not urgent:
            self._incidents.note("drained", leaving, at)
        self.carried = {m: lanes for m, lanes in self.carried.items() if m in self.workers}
        ready = any(w.phase == READY for w in self.workers.values())
        self._state = Waiting(at if ready else None, None if urgent else self.active)
        return [Pause(self._number, urgent, save, reason)]

    def _hire(self, reason: str, at: float) -> list[Action]:
        """Ask for as many as are missing to the full number, and for spares; first call back who is about to leave."""
        if self._put_off is not None:
            self._put_off.hired = reason, at
            return []
        if self._finishing:
            return []
        self._call_back()
        missing = self._missing
        spares = min(missing, self._spares)
        if missing <= 0 or spares <= 0:
            return [*self._hiring.ask(missing, reason, at)]
        nodes = {w.node for w in self.workers.values() if w.phase in ENTERED and w.node is not None}
        apart = tuple(sorted(nodes)) if len(nodes) <= APART_NODES else ()
        return [*self._hiring.ask(missing, reason, at, spares, apart)]

    @property
    def _missing(self) -> int:
        """To the full number, and spares; negative where there are more."""
        there = sum(w.phase in (WARMING, READY, MEMBER) for w in self.workers.values()) + len(self._hiring.asked)
        return self.policy.max + self._spares - there

    def _call_back(self) -> None:
        """Who leaves only since the run is to be smaller stays, where others are missed and it is still counted on."""
        counted = self.published.members if self.published else self.carried
        for m in [m for m in counted if m in self.workers and self.workers[m].surplus]:
            if self._missing > self._spares:
                worker = self.workers[m]
                worker.phase, worker.deadline, worker.surplus = MEMBER, None, False

    def _end(self, reason: str) -> list[Action]:
        self._state = Ended(self.published)
        return [End(reason)]

    def _fail(self, reason: str, worker: str | None = None) -> list[Action]:
        self._state = Ended(self.published)
        return [Fail(reason, worker)]


def _named(workers: list[str]) -> str:
    """In words; of many the first."""
    if len(workers) <= NAMED:
        return ", ".join(workers)
    return f"{', '.join(workers[: NAMED - 1])} and {len(workers) - NAMED + 1} others"


_HANDLERS: dict[type[Event], Callable[[Membership, Any], list[Action]]] = {
    Placed: Membership._on_placed,
    Ready: Membership._on_ready,
    Arrived: Membership._on_arrived,
    Committed: Membership._on_committed,
    Lost: Membership._on_lost,
    Stuck: Membership._on_stuck,
    Gone: Membership._on_gone,
    Drained: Membership._on_drained,
    HeadDrained: Membership._on_head_drained,
    Slow: Membership._on_slow,
    Diverged: Membership._on_diverged,
    Raised: Membership._on_raised,
    Resized: Membership._on_resized,
    Finished: Membership._on_finished,
    Tick: Membership._on_tick,
}
