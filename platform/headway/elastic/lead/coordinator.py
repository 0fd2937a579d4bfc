"""The shell of `core.membership`: hears the workers, feeds the state machine, carries out what it decides.

It runs in a thread of its own with its own event loop, in the controller's process: a worker's end is a broken
connection and is known at once, and nothing that Ray does can hold a decision up.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import socket
import threading
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Protocol

from headway.core import events, ledger, membership
from headway.core.membership import Membership, Policy
from headway.core.pace import Pace
from headway.core.watch import START_SILENCE_S, Sign, verdict
from headway.elastic.wire import messages as wire

logger = logging.getLogger(__name__)

TICK_S = 0.1
LEASE_S = 0.25
LOOK_S = 1.0
PROBE_S = 0.5
STALL_S = 0.5
GRACE_S = 30.0
LINE_BYTES = 2**22


class Effects(Protocol):
    """What the coordinator asks of the controller; nothing here may block."""

    def launch(self, worker: str, after_s: float) -> None:
        """Find a place for a worker and start it there; answers by `Coordinator.placed` or `gone`."""

    def dismiss(self, worker: str) -> None:
        """End the worker's process, if it is there, and free its place."""

    def record(self, event: dict[str, Any]) -> None:
        """Keep an event."""

    def changed(self, members: list[str]) -> None:
        """These train now, in order of rank."""

    def ended(self, failure: str | None) -> None:
        """The run is over."""


@dataclass
class _Peer:
    """What is known of a worker's process."""

    node: str = ""
    address: tuple[str, int] | None = None
    placed_at: float = 0.0
    writer: asyncio.StreamWriter | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    heard_at: float = 0.0
    moved_at: float = 0.0
    mark: int = -1
    waiting: bool = True
    step: int = -1
    lane_s: float = 0.0
    ledger: dict[str, float] = field(default_factory=dict)
    before_s: float = 0.0
    """Seconds between getting its place and the beginning of its own account."""
    node_died: bool = False
    spawned: bool = False


class Coordinator:
    """See the module.

    Args:
        policy: of the job.
        silence_s: longest silence of a member whose link may be cut.
        hang_s: longest time that a member may keep the others waiting without progress.
        effects: carries out what concerns Ray and the records.
    """

    def __init__(self, policy: Policy, silence_s: float, hang_s: float, effects: Effects) -> None:
        self.membership = Membership(policy)
        self.token = secrets.token_hex(16)
        self._silence_s, self._hang_s, self._effects = silence_s, hang_s, effects
        self._peers: dict[str, _Peer] = {}
        self._closed: dict[str, float] = {}
        """The account of all workers that went."""
        self._went: dict[str, _Peer] = {}
        self._pace = Pace()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="coordinator", daemon=True)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._shown: Any = None
        self._step_s = 0.0
        self._stepped = (0, 0.0)
        self._over = False
        self._server: asyncio.Server | None = None

    def start(self, host: str) -> int:
        """Begin to listen; returns the port."""
        self._thread.start()
        return asyncio.run_coroutine_threadsafe(self._start(host), self._loop).result()

    def begin(self) -> None:
        """Ask for the first workers; not before they can be told the port."""
        self._loop.call_soon_threadsafe(lambda: self._do(self.membership.begin()))

    def close(self) -> None:
        """Stop; connections are closed."""
        if self._thread.is_alive():
            asyncio.run_coroutine_threadsafe(self._stop(), self._loop)
            self._thread.join(timeout=5)
        if not self._thread.is_alive():
            self._loop.close()

    # From other threads

    def placed(self, worker: str, node: str, address: tuple[str, int] | None) -> None:
        """A worker's process starts on a node; address: its raylet's, to ask whether the node is alive."""

        def take() -> None:
            now = time.monotonic()
            peer = self._peers.setdefault(worker, _Peer())
            peer.node, peer.address, peer.placed_at, peer.heard_at, peer.moved_at = node, address, now, now, now
            self._feed(events.Placed(worker, node, now))

        self._soon(take)

    def spawned(self, worker: str) -> None:
        """A worker's process has begun; from now on it must say hello before long."""

        def take() -> None:
            if worker in self._peers:
                self._peers[worker].spawned, self._peers[worker].heard_at = True, time.monotonic()

        self._soon(take)

    def gone(self, worker: str, cause: str) -> None:
        """A worker could not be started, or Ray says that it is dead."""
        self._soon(self._gone, worker, cause)

    def drained(self, node: str, deadline_s: float) -> None:
        """Notice that a node will be taken away in so many seconds."""

        def take() -> None:
            now = time.monotonic()
            for worker in [w for w, p in self._peers.items() if p.node == node]:
                known = self.membership.workers.get(worker)
                if known is not None and known.deadline is None:
                    self._record("drain", worker=worker, node_id=node, deadline_s=round(deadline_s, 3))
                    # It leaves at the end of a step, and a step may be long.
                    self._feed(events.Drained(worker, now + deadline_s - 2 * self._step_s, now))

        self._soon(take)

    # The loop

    async def _start(self, host: str) -> int:
        self._server = server = await asyncio.start_server(self._serve, host, 0, limit=LINE_BYTES)
        self._spawn(self._tick())
        port: int = server.sockets[0].getsockname()[1]
        return port

    async def _stop(self) -> None:
        self._over = True
        if self._server is not None:
            self._server.close()
        for peer in self._peers.values():
            if peer.writer is not None:
                peer.writer.transport.abort()
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        self._loop.call_soon(self._loop.stop)

    def _soon(self, call: Callable[..., None], *arguments: Any) -> None:
        with contextlib.suppress(RuntimeError):  # it is closed, and nobody decides any more
            self._loop.call_soon_threadsafe(call, *arguments)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        worker = None
        try:
            hello = wire.decode(await asyncio.wait_for(reader.readline(), 10))
            if hello["kind"] != "hello" or not secrets.compare_digest(str(hello.get("token")), self.token):
                writer.transport.abort()
                return
            name = str(hello["worker"])
            if name not in self.membership.workers:
                writer.write(wire.encode("dismiss", graceful=False, reason="it is no longer part of the run"))
                await writer.drain()
                writer.close()
                return
            worker = name
            _make_quick(writer)
            peer = self._peers[worker]
            peer.writer, peer.facts, peer.heard_at = writer, hello, time.monotonic()
            peer.before_s = max(0.0, peer.heard_at - peer.placed_at - hello["age_s"])
            running = self.membership.active is not None and self.membership.committed > 0
            writer.write(wire.encode("welcome", running=running))
            while line := await reader.readline():
                self._take(worker, peer, wire.decode(line))
        except (TimeoutError, OSError, ValueError, KeyError, asyncio.CancelledError):
            pass  # the last as all is closed; asyncio would print it
        finally:
            writer.transport.abort()
            if worker is not None:
                self._gone(worker, "process_died")

    def _take(self, worker: str, peer: _Peer, message: dict[str, Any]) -> None:
        now = time.monotonic()
        peer.heard_at = now
        kind = message["kind"]
        if kind == "beat":
            if message["mark"] != peer.mark:
                peer.mark, peer.moved_at = message["mark"], now
            peer.waiting, peer.step = message["waiting"], message["step"]
            peer.lane_s, peer.ledger = message["lane_s"], message["ledger"]
        elif kind == "ready":
            self._feed(events.Ready(worker, now))
        elif kind == "arrived":
            position = (message["step"], message["exchanges"])
            self._feed(events.Arrived(worker, message["generation"], *position, now))
        elif kind == "committed":
            self._feed(events.Committed(worker, message["generation"], message["step"], message["pause_s"], now))
        elif kind == "lost":
            self._record("lost", worker=worker, generation=message["generation"], reason=message["reason"])
            self._feed(events.Lost(worker, message["generation"], now))
        elif kind == "diverged":
            self._record("replica", worker=message["worker"], step=message["step"], healed=True)
            self._feed(events.Diverged(message["worker"], now))
        elif kind == "raised":
            self._feed(events.Raised(worker, message["reason"], now))
        elif kind == "finished":
            self._feed(events.Finished(worker, now))

    def _gone(self, worker: str, cause: str, silent_s: float = 0.0) -> None:
        peer = self._peers.get(worker)
        if self._over:
            return
        if peer is not None and cause == "process_died" and peer.address is not None:
            self._spawn(self._probe(peer))
        self._feed(events.Gone(worker, cause, time.monotonic(), silent_s))

    async def _probe(self, peer: _Peer) -> None:
        """Whether the worker's whole node is gone: then nobody listens at its raylet's port any more."""
        assert peer.address is not None
        try:
            _, writer = await asyncio.wait_for(asyncio.open_connection(*peer.address), PROBE_S)
        except (TimeoutError, OSError):
            peer.node_died = True
        else:
            writer.close()

    async def _tick(self) -> None:
        leased = looked = 0.0
        stalled = False
        while not self._over:
            slept = time.monotonic()
            await asyncio.sleep(TICK_S)
            now = time.monotonic()
            # After a stall of this process the workers' beats wait in the sockets: they must be read before anybody is
            # judged by them.
            stalled = now - slept > STALL_S and not stalled
            if now - leased >= LEASE_S:
                leased = now
                self._send_all("lease")
            if not stalled:
                self._examine(now)
            if now - looked >= LOOK_S:
                looked = now
                self._look(now)
            self._feed(events.Tick(now))
            self._show()

    def _examine(self, now: float) -> None:
        """Whoever is silent or hangs is gone."""
        active = self.membership.active
        known = self.membership.workers
        entered = {w for w, k in known.items() if k.phase in (membership.MEMBER, membership.LEAVING)}
        members = set(active.members) if active else entered  # while it is broken, they look for each other
        waits = {w: p.waiting for w, p in self._peers.items() if w in members}
        for worker, peer in list(self._peers.items()):
            if worker not in known:
                continue
            silent_s = now - peer.heard_at
            if peer.writer is None:
                if peer.spawned and silent_s > START_SILENCE_S:
                    self._gone(worker, "start_failed", silent_s)
                continue
            connection = peer.writer.get_extra_info("socket")
            sign = Sign(
                silent_s,
                silent_s < self._silence_s or wire.answers(connection, self._silence_s / 2),
                now - peer.moved_at,
                peer.waiting,
                worker in members or worker in entered,
            )
            others = any(waiting for other, waiting in waits.items() if other != worker)
            cause = verdict(sign, others, len(members) == 1, self._silence_s, self._hang_s)
            if cause is not None:
                self._gone(worker, cause, sign.still_s if cause == "hung" else silent_s)

    def _look(self, now: float) -> None:
        """Paces, and the account so far."""
        active = self.membership.active
        lane_s = {w: p.lane_s for w, p in self._peers.items() if active and w in active.members and p.lane_s > 0}
        for worker, factor in self._pace.look(lane_s).items():
            self._record("slow", worker=worker, factor=factor)
            self._feed(events.Slow(worker, factor, now))
        step, (before, at) = max([p.step for p in self._peers.values()], default=0), self._stepped
        if step > before:
            self._step_s, self._stepped = (now - at) / (step - before) if at else 0.0, (step, now)
        account = self.account()
        self._effects.record(
            {"kind": "ledger", "seconds": account, "goodput": ledger.goodput(account), "workers": self._num_members()}
        )

    def account(self) -> dict[str, float]:
        """Seconds by cause of all workers so far; they add up to the sum of the times that they held a place."""
        now = time.monotonic()
        running = [ledger.closed(_booked(p), now - p.placed_at, lost=False) for p in self._peers.values()]
        return ledger.total([self._closed, *running])

    # The decisions

    def _feed(self, event: events.Event) -> None:
        try:
            self._do(self.membership.step(event))
        except Exception as error:  # a run that nobody leads must not look alive
            logger.exception("the coordinator failed at %s", event)
            self._over = True
            self._effects.ended(f"the coordinator failed at {type(event).__name__}: {error!r}")

    def _do(self, actions: list[events.Action]) -> None:
        for action in actions:
            if isinstance(action, events.Publish):
                self._publish(action.generation)
            elif isinstance(action, events.Go):
                self._go(action)
            elif isinstance(action, events.Pause):
                self._record("pause", number=action.number, reason=action.reason)
                self._send_all("pause", number=action.number, urgent=action.urgent, save=action.save)
                self._effects.changed([])
            elif isinstance(action, events.Launch):
                self._effects.launch(action.worker, action.after_s)
            elif isinstance(action, events.Dismiss):
                self._dismiss(action)
            elif isinstance(action, events.Save):
                self._send_all("save", reason=action.reason)
            elif isinstance(action, events.Recovered):
                self._recovered(action)
            else:
                failure = action.reason if isinstance(action, events.Fail) else None
                self._over = True
                self._look(time.monotonic())
                self._effects.ended(failure)

    def _publish(self, generation: events.Generation) -> None:
        self._send_all(
            "publish",
            number=generation.number,
            members=generation.members,
            lanes=generation.lanes,
            urgent=generation.urgent,
            reason=generation.reason,
        )

    def _go(self, action: events.Go) -> None:
        generation = action.generation
        nodes = [self._peers[w].node for w in generation.members]
        line = wire.encode(
            "go",
            number=generation.number,
            source=generation.members.index(action.source) if action.source else None,
            positions=action.positions,
            nodes=nodes,
        )
        for worker in generation.members:
            _write(self._peers[worker], line)
        self._record(
            "generation",
            generation=generation.number,
            members=generation.members,
            workers=len(generation.members),
            lanes=generation.lanes,
            step=max(step for step, _ in action.positions),
            reason=generation.reason,
        )
        self._effects.changed(list(generation.members))

    def _dismiss(self, action: events.Dismiss) -> None:
        peer = self._peers.pop(action.worker, None)
        if peer is None:
            self._effects.dismiss(action.worker)
            return
        account = ledger.closed(_booked(peer), time.monotonic() - peer.placed_at, lost=not action.graceful)
        self._closed = ledger.total([self._closed, account])
        self._went[action.worker] = peer
        _write(peer, wire.encode("dismiss", graceful=action.graceful, reason=action.reason))
        if action.graceful and peer.writer is not None:
            self._spawn(self._see_off(action.worker, peer))
            return
        if peer.writer is not None:
            peer.writer.close()  # not abort: the word must still reach one that is only slow
        self._effects.dismiss(action.worker)

    async def _see_off(self, worker: str, peer: _Peer) -> None:
        """Give a worker that leaves in good order the time to finish what it writes."""
        assert peer.writer is not None
        with contextlib.suppress(OSError, asyncio.TimeoutError):
            await asyncio.wait_for(peer.writer.wait_closed(), GRACE_S)
        self._effects.dismiss(worker)

    def _recovered(self, action: events.Recovered) -> None:
        cause = action.cause
        known = [self._went[w] for w in action.workers if w in self._went]
        if cause == "process_died" and known and all(p.node_died for p in known):
            cause = "node_died"
        offset = time.time() - time.monotonic()
        self._record(
            "recovery",
            cause=cause,
            workers=action.workers,
            node_id=known[0].node if known else self._node(action.workers),
            generation=action.generation,
            step=action.step,
            detected_at=action.detected_at + offset,
            resumed_at=action.resumed_at + offset,
            silent_s=round(action.silent_s, 4),
            pause_s=round(action.pause_s, 4),
        )
        self._went.clear()

    def _node(self, workers: tuple[str, ...]) -> str | None:
        nodes = [self._peers[w].node for w in workers if w in self._peers]
        return nodes[0] if nodes else None

    # Telling

    def _send_all(self, kind: str, **fields: Any) -> None:
        line = wire.encode(kind, **fields)
        for peer in self._peers.values():
            _write(peer, line)

    def _record(self, kind: str, **fields: Any) -> None:
        self._effects.record({"kind": kind, "time": time.time(), **fields})

    def _num_members(self) -> int:
        return len(self.membership.active.members) if self.membership.active else 0

    def _show(self) -> None:
        """Who is there, when it has changed."""
        active = self.membership.active or self.membership.published
        lanes = active.carries() if active else {}
        rank = {w: i for i, w in enumerate(active.members)} if active else {}
        shown = [
            {
                "id": worker,
                "rank": rank.get(worker),
                "phase": known.phase,
                "pid": peer.facts.get("pid"),
                "node_id": peer.node,
                "node_ip": peer.facts.get("node_ip"),
                "lanes": lanes.get(worker, ()),
            }
            for worker, known in self.membership.workers.items()
            if (peer := self._peers.get(worker)) is not None and peer.facts
        ]
        number = active.number if active else 0
        if (number, shown) != self._shown:
            self._shown = (number, shown)
            self._effects.record({"kind": "members", "time": time.time(), "generation": number, "workers": shown})


def _booked(peer: _Peer) -> dict[str, float]:
    """The worker's own account, from when it got its place."""
    if not peer.ledger:
        return {}
    return {**peer.ledger, "start": peer.ledger["start"] + peer.before_s}


def _write(peer: _Peer, line: bytes) -> None:
    if peer.writer is not None and not peer.writer.is_closing():
        peer.writer.write(line)


def _make_quick(writer: asyncio.StreamWriter) -> None:
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
