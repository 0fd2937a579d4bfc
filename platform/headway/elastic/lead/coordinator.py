"""The shell of `core.membership`: hears the workers, feeds the state machine, carries out what it decides.

It runs in a thread of its own with its own event loop, in the controller's process: a worker's end is a broken
connection and is known at once, and nothing that Ray does can hold a decision up.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Protocol

from headway.core import events, ledger, membership
from headway.core.demand import Worth
from headway.core.membership import Membership, Policy
from headway.core.pace import Pace, slowest
from headway.core.prospect import Prospect, on_their_way_out, there
from headway.core.watch import PULSE_S, START_SILENCE_S, TICK_S, Clock, examine_s, lease_s, period_s
from headway.elastic.lead.books import Books
from headway.elastic.lead.examiner import Examiner
from headway.elastic.lead.peer import Peer
from headway.elastic.lead.rendezvous import Deliveries, Rendezvous
from headway.elastic.lead.server import Line, Server
from headway.elastic.lead.shown import Shown
from headway.elastic.lead.telling import Telling
from headway.elastic.lead.wishing import Wishing
from headway.elastic.wire import messages as wire
from headway.elastic.wire.pulse import Answer, Pulse
from headway.faults import blame

logger = logging.getLogger(__name__)

LOOK_S = 1.0
PROBE_S = 0.5
GRACE_S = 30.0
TOGETHER_S = 1e-5
"""What happens within so long, for each worker there is, is decided about at once: each decision looks at all."""
SHORTER_S = 0.5
"""By so much must a second notice for a machine be shorter to be one."""
AT_FAULT = frozenset(
    {"process_died", "node_died", "link_cut", "stopped", "hung", "start_failed", "parted", "hardware", "diverged"}
    | {"unreachable"}
)
"""Causes after which nobody counts on a worker's process, see `headway.core.events.Gone`."""
LIVING = frozenset({"link_cut", "stopped", "hung", "parted", "diverged", "unreachable"})
"""Those of them after which it may be there still, and had better not be."""
ROUNDS_TO_ENTER = 3
"""Of asyncio's loop, after which a connection that it has accepted is a protocol's."""
KEEPERS_TOLD = 8
"""Of the run's keepers workers are told so many: each has a whole state."""

Failure = dict[str, str]
"""Why a run cannot go on: kind, fact, reason, remedy, traceback."""


class Effects(Protocol):
    """What the coordinator asks of the controller; nothing here may block."""

    def launch(self, wanted: events.Launch) -> None:
        """Find a place for a worker, not on the nodes that it names if others will do, and start it. Answers: `placed`,
        `gone`."""

    def dismiss(self, worker: str) -> None:
        """End the worker's process, if it is there, and free its place."""

    def record(self, event: dict[str, Any]) -> None:
        """Keep an event."""

    def changed(self, members: list[str]) -> None:
        """These train now, in order of rank."""

    def order(self, number: int, worth: Worth) -> None:
        """A cluster that buys machines may be asked for places for so many in all. worth: how many that makes, and
        why."""

    def evaluated(self, said: wire.Evaluated) -> None:
        """The run was evaluated; each step, and each stand at a gate, is told once."""

    def ended(self, failure: Failure | None) -> None:
        """The run is over."""


class Coordinator:
    """See the module.

    Args:
        policy: of the job.
        effects: carries out what concerns Ray and the records.
        node: the machine that this runs on.
        alike: whether replicas must have the same bits, so that all machines must round alike.
        prospect: of the run, which says how many workers are worth asking for.
        until: the step of the first gate, see `headway.elastic.wire.messages.Until`; -1: there is none.
        lasting: whether processes outlive the run, and are not to be ended by what is said to them in good order.
        wishing: what the run may cost, and by when it is to be done; None where that is all the same.
    """

    def __init__(
        self,
        policy: Policy,
        effects: Effects,
        node: str = "",
        alike: bool = False,
        prospect: Prospect | None = None,
        until: int = -1,
        lasting: bool = False,
        wishing: Wishing | None = None,
    ) -> None:
        self.membership = Membership(policy)
        self._patience, self._effects, self._node = policy.patience, effects, node
        self._server = Server(self)
        self._clock, self._examiner, self._pace = Clock(), Examiner(policy.patience), Pace()
        self._books, self._rendezvous, self._shown = Books(), Rendezvous(), Shown(effects.record)
        self._gathering: asyncio.TimerHandle | None = None
        """Until values of the rendezvous go to those that wait."""
        self._telling = Telling()
        self._peers: dict[str, Peer] = {}
        self._went: dict[str, Peer] = {}
        """Those of the present incident."""
        self._failures: dict[str, Failure] = {}
        """What workers raised."""
        self._seen_off: dict[str, asyncio.TimerHandle] = {}
        """Workers that leave in good order, until they have finished what they write."""
        self._keepers: dict[str, tuple[str, int]] = {}
        """Where the nodes' keepers are, by node: they outlive the workers."""
        self._keepers_told: tuple[tuple[str, int], ...] = ()
        self._keepers_kept: tuple[tuple[str, int], ...] = ()
        self._lease_s = lease_s(policy.patience, 1)
        self._period_s = PULSE_S
        self._alike, self._rounding = alike, ""
        self._head_deadline = float("inf")
        self._at_risk: set[str] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="coordinator", daemon=True)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._step_s = 0.0
        self._stepped = (0, 0.0)
        self._begun = False
        self._prospect, self._wishing = prospect or Prospect(policy.min), wishing
        self._placed_at: dict[str, float] = {}
        """Of those that warm up."""
        self._market, self._refused_at = "", float("-inf")
        """Why machines cannot be had, and when any could not last."""
        self._request = ""
        """By which it has its size."""
        self._until, self._leave, self._lasting = until, "", lasting
        self.given_up: set[str] = set()
        """Workers that are gone, and whose processes may be there still."""
        self._evaluated = (-1, False)
        """The newest evaluation that was told: its step, and whether the run stands there."""
        self._changed = False
        self._over = False
        self._at_once: list[events.Gone | events.Ready | events.Lost] = []
        """What happened just now, and is not decided about yet."""
        self._undecided: set[str] = set()
        """To whom."""
        self._deciding: asyncio.TimerHandle | None = None
        self._exchanged = 0
        """Bytes that those who are gone had exchanged."""

    @property
    def token(self) -> str:
        """Shows that a worker belongs to this run."""
        return self._server.token

    @property
    def pulse_port(self) -> int:
        """Where workers' hearts are heard."""
        return self._server.pulse_port

    @property
    def refused(self) -> Counter[str]:
        """How much came in that no worker of this run can have said, by reason."""
        return self._server.refused

    def start(self, host: str) -> int:
        """Begin to listen; returns the port."""
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(host), self._loop).result()
        return self._server.port

    def begin(self) -> None:
        """Ask for the first workers; not before they can be told the port."""

        def take() -> None:
            self._begun = True
            if not self._over:
                self._do(self.membership.begin())

        self._soon(take)

    def close(self) -> None:
        """Stop; connections are closed."""
        if self._thread.is_alive():
            asyncio.run_coroutine_threadsafe(self._stop(), self._loop)
            self._thread.join(timeout=5)
        if not self._thread.is_alive():
            self._loop.close()

    def account(self) -> dict[str, float]:
        """Seconds by cause of all workers so far; they add up to the sum of the times that they held a place."""
        return self._books.total(time.monotonic())

    # From other threads

    def placed(self, worker: str, node: str, address: tuple[str, int] | None) -> None:
        """A worker's process starts on a node; address: its raylet's, to ask whether the node is alive."""

        def take() -> None:
            now = time.monotonic()
            self._peers.setdefault(worker, Peer()).place(node, address, self._clock.advance(now))
            self._books.open(worker, now)
            self._placed_at[worker] = now
            self._feed(events.Placed(worker, node, now))

        self._soon(take)

    def spawned(self, worker: str) -> None:
        """A worker's process has begun; from now on it must say hello before long."""

        def take() -> None:
            peer = self._peers.get(worker)
            if peer is not None and not peer.spawned:
                peer.spawned, peer.heard_at = True, self._clock.advance(time.monotonic())

        self._soon(take)

    def gone(self, worker: str, cause: str) -> None:
        """A worker could not be started, or Ray says that it is dead."""
        self._soon(lambda: self._gone(worker, cause))

    def node_died(self, node: str) -> None:
        """Ray has given a node up, and ends what runs on it. A worker there that still speaks is left to its end."""

        def take() -> None:
            now = self._clock.advance(time.monotonic())
            if self._keepers.pop(node, None) is not None:
                self._tell_keepers()
            for worker in [w for w, p in self._peers.items() if p.node == node]:
                silent_s = now - self._peers[worker].heard_at
                if silent_s > self._patience.silence_s / 2:
                    self._gone(worker, "node_died", silent_s)

        self._soon(take)

    def drained(self, node: str, deadline_s: float, reason: str = "") -> None:
        """Notice that a node will be taken away in so many seconds. May be told again and again.

        Args:
            reason: in words of whoever said so.
        """

        def take() -> None:
            now = time.monotonic()
            deadline = now + deadline_s
            if node == self._node and deadline < self._head_deadline - SHORTER_S:
                self._head_deadline = deadline
                self._shown.event("head_drain", node_id=node, deadline_s=round(deadline_s, 3), reason=reason)
                self._feed(events.HeadDrained(deadline, now))
            for worker in [w for w, p in self._peers.items() if p.node == node]:
                peer = self._peers[worker]
                if worker in self.membership.workers and (
                    peer.deadline is None or deadline < peer.deadline - SHORTER_S
                ):
                    peer.deadline = deadline
                    told = {"node_id": node, "deadline_s": round(deadline_s, 3), "reason": reason}
                    self._shown.event("drain", worker=worker, **told)
                    # It leaves at the end of a step, and a step may be long.
                    self._feed(events.Drained(worker, deadline - 2 * self._step_s, now))

        self._soon(take)

    def at_risk(self, node: str, reason: str) -> None:
        """A node may be taken away before long: whoever works there now leaves as soon as another takes its place."""

        def take() -> None:
            if node in self._at_risk:
                return
            self._at_risk.add(node)
            now = time.monotonic()
            for worker in [w for w, p in self._peers.items() if p.node == node and w in self.membership.workers]:
                self._shown.event("at_risk", worker=worker, node_id=node, reason=reason)
                self._feed(events.Drained(worker, float("inf"), now))

        self._soon(take)

    def resize(
        self, least: int, most: int, by: str, request: str = "", at_once: int = 0, leave: tuple[str, ...] = ()
    ) -> None:
        """Let the run have from `least` to `most` workers.

        Args:
            by: who asks, for people; request: names what was asked.
            at_once: so many are asked for whether or not it pays; 0: the least.
            leave: see `headway.core.events.Resized`.

        Raises:
            ValueError: the lanes cannot carry that.
        """
        lanes = self.membership.policy.lanes
        if not 1 <= least <= most <= lanes:
            raise ValueError(f"{lanes} lanes cannot be carried by {least} to {most} workers")

        def take() -> None:
            if not self._begun:  # nobody is asked for before they can be told the port
                self._loop.call_later(TICK_S, self._soon, take)
                return
            if self._over or (request and request == self._request):  # it may come by two ways
                return
            self._request = request
            self._prospect.at_once = at_once or least
            if self._wishing is not None:
                self._wishing.resized(least, most)
            self._shown.event("resize", by=by, min=least, max=most, request=request, at_once=at_once or least)
            self._feed(events.Resized(least, most, by, time.monotonic(), leave))

        self._soon(take)

    def then(self, call: Callable[[], None]) -> None:
        """Call something once what was asked so far is decided."""
        self._soon(call)

    def came(self, seconds: float) -> None:
        """A place was there so long after it was asked for."""

        def take() -> None:
            self._prospect.came(seconds, bool(self._market) or time.monotonic() - self._refused_at < seconds)

        self._soon(take)

    def market(self, reason: str) -> None:
        """Why machines that are asked for cannot be had; empty where none is waited for."""

        def take() -> None:
            if self._market or reason:
                self._refused_at = time.monotonic()
            self._market = reason

        self._soon(take)

    def go_on(self, until: int) -> None:
        """Let the run go on to another gate."""

        def take() -> None:
            if not self._over and not self._leave and until > self._until:
                self._until = until
                self._say_all(wire.Until(until))

        self._soon(take)

    def leave(self, why: str) -> None:
        """Have the run end at its gate, or after the step that is under way, with a checkpoint. why: paused, stopped or
        finished."""

        def take() -> None:
            if self._over or self._leave:
                return
            self._leave = why
            if not self._peers:  # nobody has a place so far, nor has anything that could be lost
                self._end(events.End("nobody works for it"))
                return
            self._say_all(wire.Leave(why))

        self._soon(take)

    def returned(self, worker: str) -> None:
        """A worker's process does nothing for this run any more; of one that has spoken its line tells the same."""

        def take() -> None:
            peer = self._peers.get(worker)
            if peer is not None and peer.line is None:
                self._gone(worker, "start_failed")

        self._soon(take)

    @property
    def step(self) -> int:
        """Committed steps, as far as is known."""
        return max([peer.step for peer in list(self._peers.values())], default=0)

    # What the server hears

    def expects(self, worker: str) -> bool:
        return worker in self.membership.workers and worker in self._peers

    def awaited(self) -> int:
        return max(0, len(self._peers) - len(self._server.lines))

    def joined(self, hello: wire.Hello, line: Line) -> None:
        now = time.monotonic()
        self._peers[hello.worker].join(hello, line, self._clock.advance(now))
        self._books.begun(hello.worker, hello.age_s, now)
        self._changed = True
        running = self.membership.active is not None and self.membership.committed > 0
        line.say(wire.Welcome(running, self._keepers_told, self._until, self._leave))

    def heard(self, worker: str, message: wire.FromWorker) -> None:
        peer = self._peers.get(worker)
        if peer is None or self._over:
            return  # dismissed, and does not know yet
        now = time.monotonic()
        awake = self._clock.advance(now)
        match message:
            case wire.Beat():
                self._books.take(worker, message.ledger)
                peer.take(message, awake, self._period_s)
                # Among thousands who has answers by way of its heart needs no second one.
                if self._period_s <= PULSE_S or not peer.hears(awake, self._period_s):
                    self._say(worker, wire.Lease(message.number, awake, self._period_s))
            case wire.Put():
                if self._rendezvous.put(worker, message) and self._gathering is None:
                    self._gathering = self._loop.call_later(self._rendezvous.gather_s, self._gathered)
            case wire.Want():
                self._deliver(self._rendezvous.want(worker, message))
            case wire.Locate():
                self._locate(worker, message)
            case wire.Ready(rounding):
                self._ready(worker, rounding, now)
            case wire.Arrived(generation, step, exchanges, busy):
                self._feed(events.Arrived(worker, generation, step, exchanges, busy, now))
            case wire.Committed(generation, step, pause_s):
                self._feed(events.Committed(worker, generation, step, pause_s, now))
            case wire.Lost(generation, reason, peers):
                self._shown.lost(worker, generation, reason, peers)
                self._feed(events.Lost(worker, generation, self._examiner.credible(worker, peers), now))
            case wire.Diverged():
                if message.worker not in self.membership.workers:
                    return
                self._shown.event("replica", worker=message.worker, step=message.step, healed=True)
                self._feed(events.Diverged(message.worker, now))
            case wire.Evaluated(step, _, stands):
                if (step, stands) > self._evaluated:
                    self._evaluated = step, stands
                    self._effects.evaluated(message)
            case wire.Raised():
                peer.raised = True
                self._raised(worker, message, now)
            case wire.Finished():
                self._feed(events.Finished(worker, now))
            case wire.Keeper(host, port):
                before, self._keepers[peer.node] = self._keepers.get(peer.node), (host, port)
                if len(self._keepers_told) < KEEPERS_TOLD or before in self._keepers_told:
                    self._tell_keepers()
            case wire.Hello():
                raise ValueError("a second hello")
        peer.heard_at = awake

    def left(self, worker: str, line: Line) -> None:
        waits = self._seen_off.pop(worker, None)
        if waits is not None:
            waits.cancel()
            self._effects.dismiss(worker)
        peer = self._peers.get(worker)
        if peer is not None and peer.line is line:
            self._soon(lambda: self._gone(worker, "process_died"))

    def beat(self, said: Pulse) -> Answer:
        awake = self._clock.advance(time.monotonic())
        self._peers[said.worker].feel(said, awake)
        return Answer(said.number, awake, self._period_s)

    # The loop

    async def _start(self, host: str) -> None:
        await self._server.start(host)
        self._spawn(self._tick())

    async def _stop(self) -> None:
        self._over = True
        self._server.deafen()
        for _ in range(ROUNDS_TO_ENTER):
            await asyncio.sleep(0)
        self._server.close()
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await asyncio.sleep(0)  # connections that were cut close their sockets in the loop's next round
        self._loop.call_soon(self._loop.stop)

    def _soon(self, call: Callable[[], None]) -> None:
        """In the loop's thread."""

        def guarded() -> None:
            with self._leading():
                call()

        with contextlib.suppress(RuntimeError):  # it is closed, and nobody decides any more
            self._loop.call_soon_threadsafe(guarded)

    @contextlib.contextmanager
    def _leading(self) -> Any:
        """What goes wrong here ends the run with words: one that nobody leads must not look alive."""
        try:
            yield
        except Exception as error:
            logger.exception("the coordinator failed")
            if not self._over:
                self._over = True
                self._effects.ended(internal("in the coordinator", error))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _tick(self) -> None:
        with self._leading():
            looked = examined = 0.0
            while not self._over:
                await asyncio.sleep(TICK_S)
                now = time.monotonic()
                if now - examined >= examine_s(len(self._peers), self._patience.silence_s):
                    examined = now
                    self._server.hear_out()
                    self._examine(time.monotonic())
                if now - looked >= LOOK_S:
                    looked = now
                    self._look(now)
                self._feed(events.Tick(now))
                if self._changed:
                    self._changed = not self._shown.there(self.membership, self._peers, now)

    def _examine(self, now: float) -> None:
        """Whoever is silent or hangs is gone, unless it is this process that is deaf."""
        awake, active = self._clock.advance(now), self.membership.active
        self._period_s = period = period_s(len(self._server.lines), self._patience.silence_s)
        look = self._examiner.look(
            self._peers, self.membership, awake, lambda worker: self._say(worker, wire.Lease(0, awake, period)), period
        )
        self._shown.doubt(look.doubt)
        for verdict in look.condemned:
            self._gone(verdict.worker, verdict.cause, verdict.seconds)
        if look.stuck and active is not None:
            self._feed(events.Stuck(active.number, now))
        for worker, peer in list(self._peers.items()):
            mute_s = awake - peer.heard_at
            if peer.line is None and peer.spawned and mute_s > START_SILENCE_S:
                self._gone(worker, "start_failed", mute_s)

    def _look(self, now: float) -> None:
        """Paces, and the account so far."""
        active = self.membership.active
        members = active.members if active else ()
        lane_s = {w: p.lane_s for w in members if (p := self._peers.get(w)) is not None and p.lane_s > 0}
        for worker, factor in self._pace.look(lane_s).items():
            self._shown.event("slow", worker=worker, factor=factor)
            self._feed(events.Slow(worker, factor, now))
        step, (before, at) = max([p.step for p in self._peers.values()], default=-1), self._stepped
        if step > before:
            self._step_s, self._stepped = (now - at) / (step - before) if at else 0.0, (step, now)
        account = self._books.total(now)
        told = {"seconds": account, "goodput": ledger.goodput(account), "workers": len(members)}
        exchanged = (self._exchanged + sum(peer.exchanged for peer in self._peers.values())) // 2  # each said it
        self._effects.record({"kind": "ledger", **told, "lane_s": slowest(lane_s), "exchanged_bytes": exchanged})
        self._shown.waits(self.membership, self._market)
        worth = self._worth(step, lane_s, sum(account.values()), now)
        spares = self.membership.policy.spares if self.membership.committed else 0
        self._effects.order(worth.workers + spares + on_their_way_out(self.membership), worth)
        self._shown.refused(self.refused, now)
        places = tuple(self._keepers.values())
        if places != self._keepers_kept:
            self._keepers_kept = places
            self._effects.record({"kind": "keepers", "places": places})

    def _worth(self, step: int, lane_s: Mapping[str, float], worker_s: float, now: float) -> Worth:
        """How many workers to ask for; of a run that minds money or time those that are too many, or on machines of the
        wrong market, are let go."""
        wishing, prospect = self._wishing, self._prospect
        if wishing is None:
            return prospect.look(self.membership, step, now)
        found = prospect.look(self.membership, step, now, wishing.most)
        worth, told = wishing.look(self.membership, step, found, prospect.at_once, prospect.longest_s, lane_s, worker_s)
        for event in told:
            self._effects.record(event)
        policy = self.membership.policy
        if there(self.membership) > worth.workers + policy.spares or policy.max < worth.workers:
            self._feed(events.Resized(min(policy.min, worth.workers), worth.workers, "its policy", now))
        for worker, reason in wishing.astray(self.membership):
            self._shown.event("at_risk", worker=worker, node_id=self._peers[worker].node, reason=reason)
            self._feed(events.Drained(worker, float("inf"), now))
        return worth

    # What befalls workers

    def _gone(self, worker: str, cause: str, silent_s: float = 0.0) -> None:
        if self._over or any(e.worker == worker and isinstance(e, events.Gone) for e in self._at_once):
            return
        peer = self._peers.get(worker)
        if peer is not None and cause == "node_died":
            peer.died_with_node = True
        elif peer is not None and cause == "process_died" and peer.address is not None:
            self._spawn(self._probe(peer, peer.address))
        known = self.membership.workers.get(worker)
        if known is not None and known.phase in (membership.WARMING, membership.READY):
            self._shown.event("gone", worker=worker, cause=cause, node_id=known.node)
        now = time.monotonic()
        heard_s = self._clock.advance(now) - peer.heard_at if peer is not None else 0.0
        self._feed(events.Gone(worker, cause, now, silent_s, heard_s))

    async def _probe(self, peer: Peer, address: tuple[str, int]) -> None:
        """Whether the worker's whole node is gone: then nobody listens at its raylet's port any more."""
        try:
            _, writer = await asyncio.wait_for(asyncio.open_connection(*address), PROBE_S)
        except (TimeoutError, OSError):
            peer.died_with_node = True
        else:
            writer.close()

    def _ready(self, worker: str, rounding: str, now: float) -> None:
        """A machine that rounds otherwise than the first would look as if its memory were damaged: it is told apart."""
        self._rounding = self._rounding or rounding
        placed_at = self._placed_at.pop(worker, None)
        if placed_at is not None:
            self._prospect.warmed(now - placed_at)
        if rounding in ("", self._rounding):
            self._feed(events.Ready(worker, now))
            return
        self._shown.event("rounding", worker=worker, node_id=self._peers[worker].node, refused=self._alike)
        if not self._alike:
            self._feed(events.Ready(worker, now))
            return
        reason = "its results differ in their last bits from those of the machine that the run began on"
        self._failures[worker] = {
            "kind": "machine",
            "fact": f"{worker}'s machine rounds otherwise than the others",
            "reason": reason,
            "remedy": "Use machines of one kind, or `reproducible: order` with replica_check_every null.",
        }
        self._feed(events.Raised(worker, reason, "machine", now))

    def _raised(self, worker: str, said: wire.Raised, now: float) -> None:
        if said.fault not in ("user", "machine") or {"kind", "fact", "reason"} - set(said.failure):
            raise ValueError("not a failure")
        self._failures[worker] = said.failure
        known = self.membership.workers.get(worker)
        starting = known is None or not known.entered
        told = {"fault": said.fault, "fact": said.failure["fact"], "reason": said.failure["reason"]}
        node = self._peers[worker].node
        self._shown.event("raised", worker=worker, node_id=node, starting=starting, **told)
        self._feed(events.Raised(worker, f"{said.failure['fact']}: {said.failure['reason']}", said.fault, now))

    # The decisions

    def _feed(self, event: events.Event) -> None:
        if self._over:
            return
        if isinstance(event, events.Gone | events.Ready | events.Lost):
            self._at_once.append(event)
            self._undecided.add(event.worker)
            if self._deciding is None:
                self._deciding = self._loop.call_later(min(TICK_S, TOGETHER_S * len(self._peers)), self._decide)
            return
        if self._at_once:  # each worker's words keep their order
            goes_by = isinstance(event, events.Arrived | events.Committed) and event.worker not in self._undecided
            if not goes_by:
                self._decide()
        with self._leading():
            self._do(self.membership.step(event))
            self._changed = self._changed or not isinstance(event, events.Tick)

    def _decide(self) -> None:
        """About what happened at once."""
        if self._deciding is not None:
            self._deciding.cancel()
        found, self._at_once, self._undecided, self._deciding = self._at_once, [], set(), None
        if self._over or not found:
            return
        with self._leading():
            together = [event for event in found if not isinstance(event, events.Lost)]
            if together:
                self._do(self.membership.together(together))
            for event in found:  # where somebody is gone it is known by now why the exchange broke
                if isinstance(event, events.Lost):
                    self._do(self.membership.step(event))
            self._changed = True

    def _do(self, actions: list[events.Action]) -> None:
        for action in actions:
            match action:
                case events.Publish(generation):
                    self._telling.publish(generation, self._peers)
                case events.Go():
                    self._go(action)
                case events.Pause(number, urgent, save, reason):
                    self._shown.event("pause", number=number, reason=reason)
                    self._say_all(wire.Pause(number, urgent, save))
                    self._effects.changed([])
                case events.Launch():
                    self._effects.launch(action)
                case events.Dismiss():
                    self._dismiss(action)
                case events.Save(reason):
                    self._say_all(wire.Save(reason))
                case events.Recovered():
                    known = [p for w in action.workers if (p := self._went.get(w) or self._peers.get(w)) is not None]
                    self._shown.recovered(action, known)
                    self._went.clear()
                case events.End() | events.Fail():
                    self._end(action)

    def _end(self, action: events.End | events.Fail) -> None:
        self._over = True
        self._look(time.monotonic())
        if self._lasting:  # whoever has not finished is to come back
            for worker, peer in self._peers.items():
                known = self.membership.workers.get(worker)
                if not peer.raised and (known is None or known.phase != membership.FINISHED):
                    self._say(worker, wire.Dismiss(True, action.reason))
        self._effects.ended(self._failure(action) if isinstance(action, events.Fail) else None)

    def _failure(self, action: events.Fail) -> Failure:
        """In the worker's own words where it is one's, else in the machine's."""
        raised = self._failures.get(action.worker or "")
        if raised is not None:
            return raised
        return {
            "kind": "workers",
            "fact": action.reason,
            "reason": "the cause lies in the task or the machines (out of memory, a crash in native code)",
            "remedy": "Look for it in Ray's worker logs, or try a smaller lane_batch.",
        }

    def _go(self, action: events.Go) -> None:
        members = action.generation.members
        self._rendezvous.begin(action.generation.number, members)
        self._lease_s = action.lease_s
        self._telling.go(action, self._peers)
        self._tell_keepers()
        self._shown.generation(action)
        self._effects.changed(list(members))

    def _locate(self, worker: str, said: wire.Locate) -> None:
        active = self.membership.active
        found = self._telling.seats(said, active.members, self._peers) if active is not None else None
        if found is not None:
            self._say(worker, found)

    def _dismiss(self, action: events.Dismiss) -> None:
        worker = action.worker
        peer = self._peers.pop(worker, None)
        self._placed_at.pop(worker, None)
        if peer is None:
            self._effects.dismiss(worker)
            return
        if action.reason in LIVING:
            self.given_up.add(worker)
        self._books.close(worker, not action.graceful, time.monotonic())
        self._exchanged += peer.exchanged
        self._server.forget(worker)
        self._went[worker] = peer
        if peer.line is None:
            self._effects.dismiss(worker)
            return
        graceful = action.graceful or (self._lasting and action.reason not in AT_FAULT)
        if not peer.raised:  # else it ends by itself
            peer.line.say(wire.Dismiss(graceful, action.reason))
        if graceful:
            self._seen_off[worker] = self._loop.call_later(GRACE_S, self._see_off, worker)
            return
        peer.line.finish()  # not cut: the word must still reach one that is only slow
        self._effects.dismiss(worker)

    def _see_off(self, worker: str) -> None:
        """It had the time to finish what it writes."""
        del self._seen_off[worker]
        self._shown.event("lingered", worker=worker, seconds=GRACE_S)
        self._effects.dismiss(worker)

    # Telling

    def _gathered(self) -> None:
        self._gathering = None
        self._deliver(self._rendezvous.due())

    def _deliver(self, deliveries: Deliveries) -> None:
        for worker, lines in deliveries:
            self._write(worker, lines)

    def _tell_keepers(self) -> None:
        """Where there are keepers, where that has changed."""
        active = self.membership.active
        carrying = {self._peers[m].node for m in (active.members if active else ()) if m in self._peers}
        nodes = sorted(self._keepers, key=lambda node: node not in carrying)
        told = tuple(dict.fromkeys(self._keepers[node] for node in nodes))[:KEEPERS_TOLD]
        if told != self._keepers_told:
            self._keepers_told = told
            self._say_all(wire.Keepers(told))

    def _say(self, worker: str, message: wire.FromLead) -> None:
        self._write(worker, wire.encode(message))

    def _say_all(self, message: wire.FromLead) -> None:
        line = wire.encode(message)
        for worker in self._peers:
            self._write(worker, line)

    def _write(self, worker: str, line: bytes) -> None:
        peer = self._peers.get(worker)
        if peer is not None and peer.line is not None:
            peer.line.write(line)


def internal(where: str, error: Exception) -> Failure:
    """A fault of our own."""
    reason = f"{blame.reason(error)} ({blame.place(error)})"
    trace = blame.whole_traceback(error)
    return {"kind": "internal", "fact": where, "reason": reason, "remedy": "", "traceback": trace}
