"""A Ray Train controller whose workers' processes come and go while it runs. What they do is for subclasses to say.

- Every process has a placement group of its own; it is launched, and taken away, in a thread that may block.
- Ray Train's control loop only polls, keeps its worker group in step with those that count, and ends.

Touches `ray.train.v2._internal`, see `headway.elastic.lead.group`.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import ray
from ray.exceptions import RayError
from ray.experimental.internal_kv import _internal_kv_get
from ray.train.v2._internal.execution.controller import TrainController
from ray.train.v2._internal.execution.controller.controller import TrainControllerLoopIterationResult
from ray.train.v2._internal.execution.controller.state import FinishedState, RunningState, ShuttingDownState

from headway.core.events import Launch
from headway.core.news import KEY, NAMESPACE, News
from headway.driver.names import Names
from headway.elastic.lead import notices, room
from headway.elastic.lead.early import Early
from headway.elastic.lead.group import ElasticWorkerGroup
from headway.elastic.lead.places import Orders, Places, where

logger = logging.getLogger(__name__)

NODES_POLL_S = 0.5
RISKS_EVERY = 4
"""Every so many looks it is asked for nodes that are at risk."""
MARKET_S, MARKET_SEEN_S = 2.0, 10.0
"""Between two looks at what a cluster's provider tells; and at whether there is one."""

First = tuple[Callable[..., None] | None, tuple[Any, ...]]
"""What is called in a process before its train function is, and with what."""


class Processes(TrainController):
    """Runs as an actor on the driver's node. See the module.

    Args:
        names: of its actors.
        at_once: so many workers are asked of a cluster that buys machines whether or not it pays.
        early: those that are there before it, see `headway.elastic.lead.early`; standing: likewise of those that take
            nothing so far.
        rest: Ray Train's own arguments.
    """

    worker_group_cls = ElasticWorkerGroup
    minds = False
    """Whether what machines cost is looked at all the time."""

    def __init__(
        self,
        *,
        names: Names,
        at_once: int = 1,
        early: Early | None = None,
        standing: Sequence[tuple[str, Any]] = (),
        **rest: Any,
    ) -> None:
        self._names, self._early, self._standing = names, early or {}, list(standing)
        self._launched: dict[str, Any] = {}
        self._dismissed: set[str] = set()
        self._lock = threading.Lock()
        self._members: list[str] | None = None
        """Those that count, in order of rank; None before the first do."""
        self._settled: list[str] = []
        self._over = threading.Event()
        self._orders = Orders(room.has_autoscaler(), at_once)
        self._host = ray.util.get_node_ip_address()
        super().__init__(**rest)

    # For subclasses to say

    def _let_go(self) -> None:
        """Nobody needs the processes that stand by any more."""
        if self._standing and self._worker_group is not None:
            self._standing = []
            self._worker_group.let_go()

    @abstractmethod
    def _open(self) -> None:
        """The worker group is there: processes may be launched from now on."""

    @abstractmethod
    def _placed(self, name: str, node: str, address: tuple[str, int] | None) -> First:
        """A process has a place, and is about to be started. address: of the node's raylet."""

    @abstractmethod
    def _spawned(self, name: str) -> None:
        """A process has begun its train function."""

    @abstractmethod
    def _not_started(self, name: str) -> None:
        """A process that was launched could not be started."""

    @abstractmethod
    def _came(self, seconds: float) -> None:
        """A place was there so long after it was asked for."""

    @abstractmethod
    def _say_crowded(self, name: str) -> None:
        """There is no room for a spare."""

    @abstractmethod
    def _drained(self, node: str, deadline_s: float, reason: str) -> None:
        """Notice that a node will be taken away in so many seconds; told again and again."""

    @abstractmethod
    def _at_risk(self, node: str, reason: str) -> None:
        """A node may be taken away before long; told again and again."""

    @abstractmethod
    def _node_died(self, node: str) -> None:
        """Ray has given a node up; told again and again."""

    @abstractmethod
    def _market(self, reason: str) -> None:
        """Why machines that are asked for cannot be had; empty where none is waited for."""

    @abstractmethod
    def _close(self) -> None:
        """All processes are ended."""

    # Processes' places; in threads that may block

    def launch(self, wanted: Launch) -> None:
        """Find a place for a process and start it there; does not wait for that."""
        threading.Thread(target=self._launch, args=(wanted,), name=f"launch-{wanted.worker}", daemon=True).start()

    def dismiss(self, worker: str) -> None:
        """End a process, if it is there, and free its place; does not wait for that."""
        threading.Thread(target=self._free, args=(worker,), name=f"dismiss-{worker}", daemon=True).start()

    def _launch(self, wanted: Launch) -> None:
        name = wanted.worker
        try:
            if self._over.wait(wanted.after_s):
                return
            group = self._places.find(wanted)
            if group is None:
                return
            assert self._worker_group is not None
            first, told = self._placed(name, *where(group))
            worker = self._worker_group.spawn(name, group, first, *told)
            with self._lock:
                self._launched[name] = worker
            self._spawned(name)
            if self._is_dismissed(name):
                self._free(name)
        except Exception as error:  # a node that died while the process was started on it, of whatever kind
            logger.warning("worker %s could not be started: %s", name, error)
            self._not_started(name)
            self._free(name)  # of one that was dismissed meanwhile nobody else lets the place go

    def _is_unwanted(self, name: str) -> bool:
        return self._over.is_set() or self._is_dismissed(name)

    def _is_dismissed(self, name: str) -> bool:
        with self._lock:
            return name in self._dismissed

    def _free(self, name: str) -> None:
        with self._lock:
            self._dismissed.add(name)
            worker = self._launched.pop(name, None)
        self._orders.gone(name)
        try:
            if worker is not None:
                ray.kill(worker.actor)
            if self._worker_group is not None:
                self._worker_group.groups.free(name)
        except (RayError, ValueError) as error:
            logger.warning("worker %s could not be ended: %s", name, error)

    def _watch_nodes(self) -> None:
        """Hand on what Ray says of nodes: notices that they will be taken away, and that they are dead."""
        dead: set[str] = set()
        for look in itertools.count():
            if self._over.wait(NODES_POLL_S):
                return
            try:
                draining = ray._private.state.state.get_draining_nodes()
                reasons = {node: notices.reason(node, deadline) for node, deadline in draining.items()}
                risks = notices.at_risk() if look % RISKS_EVERY == 0 else {}
                dead |= {node["NodeID"] for node in ray.nodes() if not node["Alive"]}
            except Exception as error:  # the control store may be away for a moment
                logger.warning("the nodes' states are not known: %s", error)
                continue
            for node, deadline_ms in draining.items():
                left = deadline_ms / 1000 - time.time() if deadline_ms else 30.0
                self._drained(node, max(0.0, left), reasons[node])
            for node, reason in risks.items():
                self._at_risk(node, reason)
            for node in dead:
                self._node_died(node)

    def _watch_market(self) -> None:
        """Hand on why machines that are asked for cannot be had, as the cluster's provider tells it. A head that is
        new may not have said yet that there is one."""
        while not self._over.wait(MARKET_S if self._orders.buys or self.minds else MARKET_SEEN_S):
            try:
                self._orders.buys = self._orders.buys or room.has_autoscaler()
                told = News.decode(_internal_kv_get(KEY, namespace=NAMESPACE))
            except Exception as error:  # as above
                logger.warning("what the cluster waits for is not known: %s", error)
                continue
            self._market("; ".join(f"{kind}: {each.reason}" for kind, each in told.waiting.items()))

    # Ray Train's control loop

    def _start_worker_group(self, num_workers: int, resources_per_worker: dict[str, float]) -> None:
        super()._start_worker_group(num_workers, resources_per_worker)
        assert self._worker_group is not None
        self._worker_group.names = self._names
        self._worker_group.take(self._early)
        self._early = {}
        self._worker_group.stand_by(self._standing)
        self._places = Places(
            self._worker_group.groups,
            self._worker_group.get_resources_per_worker(),
            self._is_unwanted,
            self._over.wait,
            self._orders,
            self._say_crowded,
            self._came,
            self._names,
        )
        self._open()
        threading.Thread(target=self._watch_nodes, name="watch-nodes", daemon=True).start()
        threading.Thread(target=self._watch_market, name="watch-market", daemon=True).start()

    async def _step(self) -> TrainControllerLoopIterationResult:
        if not isinstance(self.get_state(), RunningState):
            return await super()._step()
        if self._over.is_set():
            next_state: Any = ShuttingDownState(next_state=FinishedState())
        else:
            next_state = RunningState()
            await self._keep_up()
        return TrainControllerLoopIterationResult(
            run_attempt_id=self._get_run_attempt_id(), previous_state=self.get_state(), next_state=next_state
        )

    async def _keep_up(self) -> None:
        """Bring the worker group up to those that count, and poll it."""
        group = self._worker_group
        assert group is not None
        try:
            members = self._members
            if members is not None and members != self._settled:
                with self._lock:
                    workers = [self._launched.get(m) for m in members]
                if all(workers):
                    attempt = self._generate_run_attempt_id()
                    await asyncio.to_thread(group.settle, workers, attempt)
                    self._settled = members
            await asyncio.sleep(self._health_check_interval_s)
            if group.get_workers() and self._members == self._settled:
                await asyncio.to_thread(group.poll_status, self._health_check_interval_s)
        except (RayError, AssertionError) as error:  # a worker died under a callback's hands; its end is seen elsewhere
            logger.info("Ray Train's view lags behind: %s", error)
            self._settled = []

    async def _shutdown(self) -> TrainControllerLoopIterationResult:
        self._over.set()
        await self._last_words()
        for name in list(self._launched):
            self._free(name)
        result = await super()._shutdown()
        self._close()
        return result

    async def _last_words(self) -> None:
        """What is still to be said before the driver sees that this is over."""
