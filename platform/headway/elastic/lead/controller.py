"""Live membership on Ray Train, for one run: its workers' processes are those that the coordinator asks for.

Decisions are made in the coordinator's thread; see `headway.elastic.lead.coordinator`. What is done with Ray Train is
in `headway.elastic.lead.processes`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import ray

from headway.cluster.prices.book import Book, of_rows
from headway.core.demand import Worth
from headway.core.membership import Policy
from headway.core.prospect import Prospect
from headway.driver.names import Names
from headway.elastic.lead import learning
from headway.elastic.lead.coordinator import Coordinator, Failure
from headway.elastic.lead.processes import First, Processes
from headway.elastic.lead.purchases import Purchases, RayBoard
from headway.elastic.lead.view import show
from headway.elastic.lead.wishing import Wishing
from headway.elastic.wire import place
from headway.elastic.wire.messages import Evaluated
from headway.elastic.wire.place import Place

logger = logging.getLogger(__name__)

RECORD_S = 30.0


class ElasticController(Processes):
    """Runs as an actor on the driver's node. See the module.

    Args:
        policy: of membership.
        recorder: actor handle of `headway.elastic.lead.recorder.Recorder`.
        alike: see `Coordinator`.
        names: of the run's actors.
        total_steps: of the run; 0 where that is not known.
        at_once: so many workers are asked of a cluster that buys machines whether or not it pays.
        wishing: of a run that minds money or time: makes what it decides by.
        each: what a worker takes, by Ray's names.
        prices: the job's list of prices, as rows; None where it has none.
        per_worker: dollars for an hour of a worker, on a machine that has no price; None where the job does not say.
        held: whether no place is asked for before somebody says of what size the run is to be.
    """

    def __init__(
        self,
        *,
        policy: Policy,
        recorder: Any,
        alike: bool,
        names: Names,
        total_steps: int = 0,
        at_once: int = 1,
        wishing: Callable[[], Wishing] | None = None,
        each: Mapping[str, float] | None = None,
        prices: list[dict[str, Any]] | None = None,
        per_worker: float | None = None,
        held: bool = False,
        **rest: Any,
    ) -> None:
        self._recorder = recorder
        self._failed: Any = None
        """The recorder's word that it knows why the run failed."""
        here = ray.get_runtime_context().get_node_id()
        prospect = Prospect(at_once, total_steps)
        self._wishing, self.minds = wishing() if wishing is not None else None, wishing is not None
        self._coordinator = Coordinator(policy, self, here, alike, prospect, wishing=self._wishing)
        price = None if prices is None else Book(of_rows(prices, "prices")).per_hour
        began = partial(_began, recorder)
        self._purchases = Purchases(names.run, began, self.record, RayBoard(), each or {}, price, per_worker=per_worker)
        super().__init__(names=names, at_once=at_once, **rest)
        if held:
            self._orders.open.clear()

    def resize(self, least: int, most: int, by: str, request: str, at_once: int, leave: tuple[str, ...] = ()) -> None:
        """Called by the driver, see `Coordinator.resize`."""
        self._coordinator.resize(least, most, by, request, at_once, leave)
        self._coordinator.then(self._orders.open.set)

    # What the coordinator asks for beside `launch` and `dismiss`; called in its thread

    def record(self, event: dict[str, Any]) -> None:
        self._recorder.event.remote(event)

    def changed(self, members: list[str]) -> None:
        self._members = members
        if members:
            self._let_go()

    def order(self, number: int, worth: Worth) -> None:
        if self._orders.allow(number) and self._orders.buys:
            self.record({"kind": "demand", "time": time.time(), "workers": worth.workers, "reason": worth.reason})

    def evaluated(self, said: Evaluated) -> None:
        pass  # the journal tells

    def ended(self, failure: Failure | None) -> None:
        if failure is not None:
            self._failed = self._recorder.fail.remote(failure)
        self._over.set()

    # What becomes of processes and nodes

    def _open(self) -> None:
        self._port = self._coordinator.start(self._host)
        self._coordinator.begin()
        self._purchases.start()

    def _placed(self, name: str, node: str, address: tuple[str, int] | None) -> First:
        self._purchases.placed(name, node)
        self._coordinator.placed(name, node, address)
        here = Place(name, self._host, self._port, self._coordinator.pulse_port, self._coordinator.token)
        return place.enter, (here, show)

    def _free(self, name: str) -> None:
        self._purchases.freed(name)
        super()._free(name)

    def _spawned(self, name: str) -> None:
        self._coordinator.spawned(name)

    def _not_started(self, name: str) -> None:
        self._coordinator.gone(name, "start_failed")

    def _came(self, seconds: float) -> None:
        self._coordinator.came(seconds)

    def _say_crowded(self, name: str) -> None:
        self.record({"kind": "crowded", "time": time.time(), "worker": name})

    def _drained(self, node: str, deadline_s: float, reason: str) -> None:
        self._coordinator.drained(node, deadline_s, reason)

    def _at_risk(self, node: str, reason: str) -> None:
        self._coordinator.at_risk(node, reason)

    def _node_died(self, node: str) -> None:
        self._coordinator.node_died(node)

    def _market(self, reason: str) -> None:
        self._coordinator.market(reason)
        if self._wishing is not None:
            try:
                learning.look(self._wishing, self._purchases)
            except Exception as error:  # the control store may be away for a moment
                logger.warning("what is sold is not known: %s", error)

    async def _last_words(self) -> None:
        if self._failed is not None:
            await asyncio.to_thread(ray.wait, [self._failed], timeout=RECORD_S)

    def _close(self) -> None:
        self._purchases.close()
        self._coordinator.close()


def _began(recorder: Any) -> tuple[float, float]:
    """When the recorder's start began, and the dollars of those before. Raises RayError."""
    began, before = ray.get(recorder.began.remote(), timeout=RECORD_S)
    return began, before
