"""Places for workers: a placement group each, found by a thread that may wait for as long as it takes.

A group that waits is an order to a cluster that buys machines. There only as many wait as are worth it
(`headway.core.demand`); other workers take room that is there, and wait without a word where there is none.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import ray
from ray._raylet import RAY_NODE_ID_KEY  # type: ignore[attr-defined]
from ray.util.placement_group import placement_group

from headway.core.events import Launch
from headway.driver.names import Names
from headway.elastic.lead import room

logger = logging.getLogger(__name__)

AVOID_S = 120.0
"""So long a worker waits for a place that is not on a node to be avoided; then any will do."""
APART_S = 2.0
"""So long a spare waits for a place on a node that carries no member."""
CROWDED_S = 20.0
"""After so long without a place for a spare it is said that there is no room."""
LOOK_S = 1.0
TRY_S = 10.0
"""Between two tries of those that may not order: a group that waits for a moment is no order yet."""
OPEN_S = 0.5
"""Between two looks at whether it is still wanted, of one for whom no place may be asked yet."""
AT_ONCE_S = 2.0
"""A place that took longer to come was waited for."""


class Orders:
    """Whose group may wait on a cluster that buys machines for it. Its methods are for several threads.

    Args:
        buys: whether the cluster buys machines; where not, everybody's may.
        number: so many workers may have a place, or order one, until `allow` says otherwise.
    """

    def __init__(self, buys: bool, number: int) -> None:
        self.buys = buys
        self._number = number
        self._waiting: dict[str, bool] = {}
        """Those without a place, and whether each is a spare."""
        self._placed: set[str] = set()
        self._lock = threading.Lock()
        self._tried = -math.inf
        self.open = threading.Event()
        """Whether anybody may have a place at all."""
        self.open.set()

    def join(self, worker: str, spare: bool) -> None:
        """It has no place."""
        with self._lock:
            self._waiting[worker] = spare

    def leave(self, worker: str, placed: bool) -> None:
        """It has one, or needs none."""
        with self._lock:
            self._waiting.pop(worker, None)
            if placed:
                self._placed.add(worker)

    def gone(self, worker: str) -> None:
        """Its place is free."""
        with self._lock:
            self._placed.discard(worker)

    def allow(self, number: int) -> bool:
        """Let so many have a place, or order one; returns whether that is news."""
        with self._lock:
            before, self._number = self._number, number
            return before != number

    def admit(self, worker: str) -> bool:
        """Whether this one's may: those that were asked for first, spares last."""
        with self._lock:
            if not self.buys:
                return True
            order = sorted(self._waiting, key=lambda each: (self._waiting[each], int(each[1:])))
            return worker in order[: self._free]

    @property
    def _free(self) -> int:
        return max(0, self._number - len(self._placed))

    def may_try(self, now: float) -> bool:
        """Whether one that may not wait may see now whether there is room: only one at a time, and not again at once,
        since what Ray says of free room is a moment old. What there is belongs first to those that may wait."""
        with self._lock:
            if now - self._tried < TRY_S or (self._free and self._waiting):
                return False
            self._tried = now
            return True

    def found(self) -> None:
        """There was room: there may be more."""
        with self._lock:
            self._tried = -math.inf


class Groups(Protocol):
    """Placement groups by worker."""

    by_worker: dict[str, Any]

    def free(self, worker: str) -> None:
        """Remove a worker's, if it has one."""


class Places:
    """See the module.

    Args:
        groups: where groups are kept.
        each: what a worker takes, by Ray's names.
        unwanted: whether a worker is not wanted any more, or the run is over.
        pause: waits so many seconds, or less if the run is over.
        orders: who may order.
        crowded: told of a spare for which there is no room, once.
        came: told the seconds that a place was waited for.
        names: of the run's actors, which its groups are called after.
    """

    def __init__(
        self,
        groups: Groups,
        each: Mapping[str, float],
        unwanted: Callable[[str], bool],
        pause: Callable[[float], object],
        orders: Orders,
        crowded: Callable[[str], None],
        came: Callable[[float], None],
        names: Names | None = None,
    ) -> None:
        self._groups, self._each, self._unwanted, self._pause = groups, dict(each), unwanted, pause
        self._orders, self._crowded, self._came = orders, crowded, came
        self._names = names
        self._said_crowded = threading.Lock()

    def find(self, wanted: Launch) -> Any:
        """A placement group that is ready, or None if the worker is not wanted any more; blocks."""
        wishes = [(wanted.avoid, AVOID_S), ((), math.inf)]  # such a node is better than none
        if wanted.apart:
            wishes.insert(0, ((*wanted.avoid, *wanted.apart), APART_S))
        while not self._orders.open.wait(OPEN_S):
            if self._unwanted(wanted.worker):
                return None
        begun = time.monotonic()
        self._orders.join(wanted.worker, wanted.spare)
        group = None
        try:
            for nodes, patience_s in wishes:
                elsewhere = _elsewhere(nodes)
                if elsewhere is None and patience_s < math.inf:
                    continue
                group = self._wait(wanted, elsewhere, time.monotonic() + patience_s, begun)
                if group is not None or self._unwanted(wanted.worker):
                    return group
        finally:
            self._orders.leave(wanted.worker, group is not None)
        return None

    def _wait(self, wanted: Launch, elsewhere: list[dict[str, str]] | None, until: float, begun: float) -> Any:
        """A group by such a selector, if there is one in time."""
        name, seen = wanted.worker, False
        while time.monotonic() < until and not self._unwanted(name):
            if not self._orders.admit(name):
                before, seen = seen, room.fits(self._each)
                if not (before and seen and self._orders.may_try(time.monotonic())):
                    self._pause(LOOK_S)
                    continue
            asked = time.monotonic()
            group = self._groups.by_worker.get(name) or self._group(name, elsewhere)
            self._groups.by_worker[name] = group
            while time.monotonic() < until and not self._unwanted(name):
                if group.wait(LOOK_S):
                    self._has_come(time.monotonic() - asked)
                    return group
                if wanted.spare and time.monotonic() - begun > CROWDED_S:
                    self._say_crowded(name)
                if not self._orders.admit(name):
                    break
            self._groups.free(name)
        return None

    def _group(self, worker: str, elsewhere: list[dict[str, str]] | None) -> Any:
        name = self._names.of(worker)["name"] if self._names is not None else ""  # who looks at the cluster finds it
        return placement_group([self._each], name=name, bundle_label_selector=elsewhere)

    def _has_come(self, seconds: float) -> None:
        self._orders.found()
        if seconds > AT_ONCE_S:
            self._came(seconds)

    def _say_crowded(self, name: str) -> None:
        """Once: the cluster has no room for spares, which is no reason not to train."""
        if self._said_crowded.acquire(blocking=False):
            self._crowded(name)


def _elsewhere(avoid: tuple[str, ...]) -> list[dict[str, str]] | None:
    """A selector for the only bundle of a group that keeps it off these nodes, if there is another."""
    alive = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
    avoided = sorted(alive & set(avoid))
    if not avoided or len(avoided) == len(alive):
        return None
    return [{RAY_NODE_ID_KEY: f"!in({','.join(avoided)})"}]


def where(group: Any) -> tuple[str, tuple[str, int] | None]:
    """The node of a ready placement group's only bundle, and the address of its raylet."""
    table = ray.util.placement_group_table(group)
    node = next(iter(table["bundles_to_node_id"].values()))
    for found in ray.nodes():
        if found["NodeID"] == node:
            return node, (found["NodeManagerAddress"], int(found["NodeManagerPort"]))
    return node, None
