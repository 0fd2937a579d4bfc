"""A trace replayed through the real membership, under a virtual clock.

The clock is a heap of things to come. Nodes take workers, workers warm up, members arrive, and a generation trains from
its first exchange until a member is gone or the step ends after which all switch. Steps between two events are counted,
not played, so a year of faults takes seconds; the membership hears everything it would hear, and is not changed.
"""

from __future__ import annotations

import heapq
import itertools
import time
from collections import deque
from collections.abc import Callable, Iterable

from headway.core.events import (
    Action,
    Arrived,
    Committed,
    Dismiss,
    Drained,
    End,
    Event,
    Fail,
    Generation,
    Go,
    Gone,
    Launch,
    Pause,
    Placed,
    Publish,
    Ready,
    Tick,
)
from headway.core.membership import READY, Membership, Policy
from headway.errors import RunFailed
from headway.sim.account import Account, Training
from headway.sim.costs import Costs
from headway.sim.trace import Change, Trace

ARRIVE_S = 0.01


class Replay:
    """One run over one trace. Fields are for reading.

    Args:
        lanes: of the run.
        most: workers.
        notice_s: how long before a node goes the membership is told; 0: never.
        spares: workers beyond these that stand by.
    """

    def __init__(
        self, trace: Trace, costs: Costs, lanes: int, most: int, notice_s: float = 0.0, spares: int = 0
    ) -> None:
        self.trace, self.costs, self.lanes, self.most = trace, costs, lanes, most
        self.machine = Membership(Policy(lanes, 1, most, spares=spares))
        self.account = Account("live")
        self.now = 0.0
        self.step = 0
        self.slowest_s = 0.0
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._free: deque[str] = deque()
        self._wanted: deque[str] = deque()
        self._place: dict[str, str] = {}
        self._worker_on: dict[str, str] = {}
        self._up: set[str] = set()
        self._dead: set[str] = set()
        self._holders: set[str] = set()  # that live and have the state
        self._group: Generation | None = None
        self._formed_at = 0.0
        self._training = Training(self.account, costs.checkpoint_every_s)
        self._draining: set[str] = set()
        self._switching = 0
        self._mark = 0.0
        self._cause = "regroup"
        for change in trace.changes:
            self._later(change.at, lambda c=change: self._node(c))  # type: ignore[misc]
            if notice_s and not change.up:
                self._later(max(0.0, change.at - notice_s), lambda c=change: self._notice(c))  # type: ignore[misc]

    def run(self) -> Account:
        """Replay the trace to its end.

        Raises:
            RunFailed: the membership gave the run up.
        """
        self._carry_out(self.machine.begin())
        while self._heap and self._heap[0][0] <= self.trace.until:
            at, _, happen = heapq.heappop(self._heap)
            self._book(at)
            happen()
        self._book(self.trace.until)
        self._stop("regroup")
        return self.account

    def _later(self, at: float, happen: Callable[[], None]) -> None:
        heapq.heappush(self._heap, (at, next(self._order), happen))

    def _tell(self, event: Event) -> None:
        start = time.process_time()
        actions = self.machine.step(event)
        self.slowest_s = max(self.slowest_s, time.process_time() - start)
        self._carry_out(actions)

    # The world

    def _node(self, change: Change) -> None:
        node = change.node
        self._draining.discard(node)
        if change.up:
            self._up.add(node)
            self._free.append(node)
            self._fill()
        else:
            self._up.discard(node)
            worker = self._worker_on.pop(node, None)
            if worker is None:
                if node in self._free:
                    self._free.remove(node)
            else:
                self._dead.add(worker)
                self._place.pop(worker, None)
                self._holders.discard(worker)
                if self._group is not None and worker in self._group.carries():
                    self._stop("detect")
                self._later(
                    self.now + self.costs.detect_s,
                    lambda: self._tell(Gone(worker, "node_died", self.now, self.costs.detect_s, self.costs.detect_s)),
                )
        self._point()

    def _notice(self, change: Change) -> None:
        self._draining.add(change.node)
        if change.node in self._free:
            self._free.remove(change.node)
        if (worker := self._worker_on.get(change.node)) is not None and worker in self.machine.workers:
            self._tell(Drained(worker, change.at, self.now))
            self._later(change.at - self.machine.policy.leave_s, lambda: self._tell(Tick(self.now)))

    def _fill(self) -> None:
        while self._free and self._wanted:
            worker, node = self._wanted.popleft(), self._free.popleft()
            self._place[worker], self._worker_on[node] = node, worker
            self._tell(Placed(worker, node, self.now))
            self._later(self.now + self.costs.warm_up_s, lambda w=worker: self._ready(w))  # type: ignore[misc]

    def _ready(self, worker: str) -> None:
        if worker in self._place:
            self._tell(Ready(worker, self.now))
            if self.machine.published is None:
                self._later(self.now + self.machine.policy.gather_s, self._gathered)

    def _gathered(self) -> None:
        if self.machine.published is None:  # time alone changes its mind only here, and before a deadline
            self._tell(Tick(self.now))

    def _launch(self, worker: str) -> None:
        self._wanted.append(worker)
        self._fill()

    # What the membership asks for

    def _carry_out(self, actions: Iterable[Action]) -> None:
        for action in actions:
            match action:
                case Launch(worker, after_s):
                    self._later(self.now + after_s, lambda w=worker: self._launch(w))  # type: ignore[misc]
                case Publish(generation):
                    self.account.changes += 1
                    self._publish(generation)
                case Go():
                    self._go(action)
                case Pause(urgent=urgent):
                    self._switching += 1
                    if urgent:
                        self._stop("regroup")
                    else:
                        self._at_end_of_step(lambda: self._stop("regroup"))
                case Dismiss(worker):
                    self._free_place(worker)
                case Fail(reason):
                    raise RunFailed(f"the simulated run failed after {self.now:.0f} s", reason)
                case End():
                    raise AssertionError("nobody finishes here")

    def _free_place(self, worker: str) -> None:
        self._dead.discard(worker)
        self._holders.discard(worker)
        if (node := self._place.pop(worker, None)) is not None and self._worker_on.get(node) == worker:
            del self._worker_on[node]
            if node in self._up and node not in self._draining:
                self._free.append(node)
                self._later(self.now, self._fill)

    def _publish(self, generation: Generation) -> None:
        self._switching += 1
        turn = self._switching
        if generation.urgent or self._group is None:
            self._stop("regroup")
            self._later(self.now + ARRIVE_S, lambda: self._arrive(generation, turn))
        else:
            self._at_end_of_step(lambda: self._arrive(generation, turn))

    def _at_end_of_step(self, happen: Callable[[], None]) -> None:
        """Call at the end of the step that is under way, if it comes to that; a break comes with news of its own."""
        group, turn, training = self._group, self._switching, self._training
        if group is None:
            happen()
            return
        self._later(
            training.since + (training.steps(self.now) + 1) * training.step_s,
            lambda: happen() if turn == self._switching and self._group is group else None,
        )

    def _arrive(self, generation: Generation, turn: int) -> None:
        if turn != self._switching:
            return
        self._stop("regroup")
        if not self._dead.isdisjoint(generation.members):
            return  # the others arrive and wait in vain; the news that ends it is on its way
        for m in generation.members:
            step = self.step if m in self._holders else -1
            self._tell(Arrived(m, generation.number, step, step, False, self.now))

    def _go(self, go: Go) -> None:
        if go.source is None:
            self.step -= self._training.fall_back()
        joins = go.source is not None and any(step < 0 for step, _ in go.positions)
        begins_at = self.now + (self.costs.join_s if joins else self.costs.regroup_s)
        step_s = self.costs.step_s * max(map(len, go.generation.lanes)) * self.most / self.lanes
        group = self._group = go.generation
        self._formed_at, self._holders = self.now, set(group.members)
        self._training.begin(begins_at, len(group.members), step_s)
        self._later(begins_at + step_s, lambda: self._first_step(group))
        self._point()

    def _first_step(self, group: Generation) -> None:
        if self._group is group:
            for m in group.members:
                self._tell(Committed(m, group.number, self.step + 1, 0.0, self.now))

    # Accounts

    def _book(self, now: float) -> None:
        """Worker-seconds up to now of all that do not train; a stretch of training is booked when it stops."""
        seconds, self._mark, self.now = now - self._mark, now, now
        if self._group is not None:
            members = len(self._group.members)
        else:
            members = len(self._holders)
            self.account.lose(self._cause, seconds * members)
        starting = len(self._place) - members
        spares = self._standing_by() if self._holders else 0
        self.account.lose("start", seconds * (starting - spares))
        self.account.lose("spare", seconds * spares)
        self.account.lose("idle", seconds * (len(self._up) - members - starting))

    def _standing_by(self) -> int:
        """Workers that are ready and wait for a seat, beside others that have a state."""
        most = self.machine.policy.spares
        if not most:
            return 0
        ready = sum(self.machine.workers[w].phase == READY for w in self._place if w in self.machine.workers)
        return min(most, ready)

    def _stop(self, cause: str) -> None:
        """The members stop now, and what they do until they train again has a cause."""
        group, self._group, self._cause = self._group, None, cause
        if group is not None:
            training = self._training
            waited = min(self.now, training.since) - self._formed_at
            self.account.lose("regroup", waited * training.workers)
            lane_s = self.costs.step_s * self.most / self.lanes
            uneven_s = training.step_s * training.workers - lane_s * self.lanes
            steps = training.stop(self.now)
            self.step += steps
            self.account.uneven_s += steps * uneven_s
            self._point()

    def _point(self) -> None:
        speed = self.costs.step_s / self._training.step_s if self._group else 0.0
        members = len(self._group.members) if self._group else 0
        self.account.points.append((self.now, len(self._up), members, speed))
