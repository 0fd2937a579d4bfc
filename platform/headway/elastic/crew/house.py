"""The controller of a sweep: one pool of warm processes, and a coordinator for each run that works on it.

Processes are Ray Train's workers, as those of one run are (`headway.elastic.lead.processes`); which of them works for
whom is decided by `headway.core.pool`. It tells the driver by `news`, which is asked again and again.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError, RayError

from headway.core import ledger, pool
from headway.core.events import Launch
from headway.core.pool import Deed, Phase, Pool
from headway.driver.names import Names
from headway.elastic.crew import told
from headway.elastic.crew.running import Running
from headway.elastic.lead import room
from headway.elastic.lead.coordinator import internal
from headway.elastic.lead.processes import First, Processes
from headway.elastic.lead.view import show
from headway.elastic.wire.place import Assignment

logger = logging.getLogger(__name__)

TICK_S = 0.1
PING_S = 0.5
ACCOUNT_S = 1.0

Give = Callable[[Assignment | None], None]
Enter = Callable[[Any, str], None]


class House(Processes):
    """Runs as an actor on the driver's node. See the module.

    Args:
        names: of its actors.
        wanted: processes to begin with.
        slow_s: a start may take so long.
        enter: called in each process with this actor and the process's name, before its train function.
        give: called in a process with what it is to work for.
        rest: Ray Train's own arguments.
    """

    def __init__(self, *, names: Names, wanted: int, slow_s: float, enter: Enter, give: Give, **rest: Any) -> None:
        self._enter_process, self._give = enter, give
        self._me = ray.get_runtime_context().current_actor
        self._node = ray.get_runtime_context().get_node_id()
        self._pool, self._pool_lock = Pool(slow_s), threading.RLock()
        self._wanted = wanted
        self._opened = False
        self._runs: dict[int, Running] = {}
        self._past: list[dict[str, float]] = []
        """Accounts of runs that are over."""
        self._news: list[told.Told] = []
        self._news_lock = threading.Lock()
        self._heard: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._there = -1
        super().__init__(names=names, at_once=wanted, **rest)

    # What the driver asks for

    def want(self, workers: int) -> None:
        """Have so many processes in all, if the cluster has room for them."""
        self._wanted = workers
        self._orders.allow(workers)
        if self._opened:
            self._decide(lambda now: self._pool.want(workers, now))

    def begin(self, given: told.Given) -> None:
        """Do a leg of a run."""
        running = Running(given, self, self._node)
        self._runs[given.leg] = running
        threading.Thread(target=running.open, args=(self._host,), name=f"begin-{given.leg}", daemon=True).start()

    def go_on(self, leg: int, until: int) -> None:
        """Let one that stands at its gate go on to another."""
        if leg in self._runs:
            self._runs[leg].coordinator.go_on(until)

    def leave(self, leg: int, why: str) -> None:
        """Have one give its workers away."""
        if leg in self._runs:
            self._runs[leg].coordinator.leave(why)

    def resize(self, leg: int, workers: int) -> None:
        """Let one have so many workers."""
        if leg in self._runs:
            self._runs[leg].resize(workers)

    async def news(self, timeout_s: float) -> list[told.Told]:
        """What happened since, in order; waits so long for something to happen."""
        if self._heard is None:
            self._loop, self._heard = asyncio.get_running_loop(), asyncio.Event()
        if not self._news:
            try:
                await asyncio.wait_for(self._heard.wait(), timeout_s)
            except TimeoutError:
                return []
        with self._news_lock:
            self._heard.clear()
            found, self._news = self._news, []
        return found

    def back(self, process: str, number: int, remark: str) -> None:
        """A process has done with what it was given."""
        if remark:
            self.tell(told.Remark(None, f"process {process} is replaced: {remark}"))
        self._decide(lambda now: self._pool.back(process, number, remark, now))

    def end(self) -> None:
        """End all, without a word."""
        self._over.set()

    # What runs ask for; in their coordinators' threads

    def seat(self, leg: int, wanted: Launch) -> None:
        running = self._runs.get(leg)
        if running is None or running.over:
            return
        self._decide(lambda now: self._pool.ask((leg, wanted.worker), wanted.avoid, wanted.after_s, now))

    def unseat(self, leg: int, worker: str, given_up: bool) -> None:
        self._decide(lambda now: self._pool.dismiss((leg, worker), now, given_up))

    def moved_out(self, leg: int) -> None:
        self._decide(lambda now: self._pool.over(leg, now))

    def tell(self, news: told.Told) -> None:
        with self._news_lock:
            self._news.append(news)
        if self._loop is not None and self._heard is not None:
            self._loop.call_soon_threadsafe(self._heard.set)

    # The pool

    def _decide(self, ask: Callable[[float], list[Deed]]) -> None:
        """Feed the pool, and carry out what it decides, in its order."""
        with self._pool_lock:
            if self._over.is_set():
                return
            for deed in ask(time.monotonic()):
                self._do(deed)

    def _do(self, deed: Deed) -> None:
        match deed:
            case Launch():
                self.launch(deed)
            case pool.End(process, reason):
                logger.info("process %s is ended: %s", process, reason)
                self.dismiss(process)
            case pool.Give():
                self._hand_over(deed)
            case pool.Lost((leg, worker), cause):
                if leg in self._runs:
                    self._runs[leg].coordinator.gone(worker, cause)
            case pool.Returned((leg, worker)):
                if leg in self._runs:
                    self._runs[leg].coordinator.returned(worker)
            case pool.Hopeless(reason):
                remedy = "Look for the cause in Ray's worker logs."
                failure = {"kind": "workers", "fact": reason, "reason": "see the logs", "remedy": remedy}
                self.tell(told.Broken(failure))

    def _hand_over(self, given: pool.Give) -> None:
        leg, worker = given.seat
        running = self._runs.get(leg)
        if running is None or running.over:  # since a moment ago
            self.back(given.process, given.number, "")
            return
        running.coordinator.placed(worker, given.node, given.address)
        with self._lock:
            process = self._launched.get(given.process)
        if process is None:  # it is being ended
            return
        assignment = Assignment(given.number, running.place(worker), show, running.given.config)
        process.actor.execute.remote(self._give, assignment)
        running.coordinator.spawned(worker)

    def _mind(self) -> None:
        """Who does not come back, who is dead, whose run is closed, and the account; in a thread."""
        try:
            self._look_after()
        except Exception as error:  # what nobody looks after must not look alive
            logger.exception("the pool failed")
            self.tell(told.Broken(internal("in the pool of a sweep's processes", error)))

    def _look_after(self) -> None:
        asked: dict[str, Any] = {}
        pinged = accounted = 0.0
        while not self._over.wait(TICK_S):
            self._decide(self._pool.tick)
            self._close_those_that_are_empty()
            self._count()
            now = time.monotonic()
            if now - pinged >= PING_S:
                pinged = now
                self._ping(asked)
            if now - accounted >= ACCOUNT_S:
                accounted = now
                self.tell(self._account(now))

    def _count(self) -> None:
        """Say how many workers there are, or can be had at once."""
        wanted, there = self._pool.wanted, self._pool.there
        if there < wanted:
            try:
                there = min(wanted, there + room.fit(self._each))
            except Exception as error:  # the control store may be away for a moment
                logger.warning("the room of the cluster is not known: %s", error)
                return
        if there != self._there:
            self._there = there
            self.tell(told.There(there))

    def _ping(self, asked: dict[str, Any]) -> None:
        """Find out whose process is dead. asked: those that have not answered."""
        with self._lock:
            launched = dict(self._launched)
        for name, process in launched.items():
            if name not in asked:
                asked[name] = process.actor.execute.remote(_alive)
        if not asked:
            return
        refs = {ref: name for name, ref in asked.items()}
        answered, _ = ray.wait(list(refs), num_returns=len(refs), timeout=0.0)
        for ref in answered:
            name = refs[ref]
            del asked[name]
            try:
                ray.get(ref)
            except ActorUnavailableError:
                continue  # it may be there still, and is asked again
            except RayError as error:
                # Of one that has spoken to its run, the end of its connection has told more than this does.
                logger.info("process %s is dead: %s", name, error)
                self._decide(lambda now, name=name: self._pool.died(name, "unreachable", now))  # type: ignore[misc]

    def _close_those_that_are_empty(self) -> None:
        for leg, running in list(self._runs.items()):
            if running.over and not self._pool.holds(leg):
                del self._runs[leg]
                self._past.append(running.account())
                running.close()

    def _account(self, now: float) -> told.Account:
        runs = dict(self._runs)
        with self._pool_lock:
            spent = self._pool.spent(now)
        self._past = [ledger.total(self._past)]
        accounts = [*self._past, *(running.account() for running in runs.values())]
        seconds = ledger.pooled(accounts, spent[Phase.PLACED], sum(spent.values()))
        live = {leg: running for leg, running in runs.items() if not running.over}
        workers = {leg: running.workers for leg, running in live.items()}
        return told.Account(workers, {leg: running.coordinator.step for leg, running in live.items()}, seconds)

    # What becomes of processes and nodes

    def _open(self) -> None:
        self._opened = True
        assert self._worker_group is not None
        self._each = self._worker_group.get_resources_per_worker()
        self._pool.wanted = self._wanted
        self._count()  # before they take it
        self._decide(lambda now: self._pool.want(self._wanted, now))
        threading.Thread(target=self._mind, name="mind", daemon=True).start()

    def _placed(self, name: str, node: str, address: tuple[str, int] | None) -> First:
        self._decide(lambda now: self._pool.placed(name, node, address, now))
        return self._enter_process, (self._me, name)

    def _spawned(self, name: str) -> None:
        self._decide(lambda now: self._pool.up(name, now))
        self._follow()

    def _not_started(self, name: str) -> None:
        self._decide(lambda now: self._pool.not_started(name, now))

    def _free(self, name: str) -> None:
        super()._free(name)
        self._follow()

    def _follow(self) -> None:
        """Ray Train's view of its workers: all processes."""
        with self._lock:
            self._members = sorted(self._launched, key=lambda name: int(name[1:]))

    def _came(self, seconds: float) -> None:
        pass

    def _say_crowded(self, name: str) -> None:
        pass  # there are no spares

    def _drained(self, node: str, deadline_s: float, reason: str) -> None:
        for running in list(self._runs.values()):
            running.coordinator.drained(node, deadline_s, reason)
        self._decide(lambda now: self._pool.shun(node, now))

    def _at_risk(self, node: str, reason: str) -> None:
        for running in list(self._runs.values()):
            running.coordinator.at_risk(node, reason)
        self._decide(lambda now: self._pool.shun(node, now))

    def _node_died(self, node: str) -> None:
        for running in list(self._runs.values()):
            running.coordinator.node_died(node)
        self._decide(lambda now: self._pool.node_died(node, now))

    def _market(self, reason: str) -> None:
        for running in list(self._runs.values()):
            running.coordinator.market(reason)

    def _close(self) -> None:
        for running in list(self._runs.values()):
            running.coordinator.close()


def _alive() -> None:
    """Called in a process: it answers."""
