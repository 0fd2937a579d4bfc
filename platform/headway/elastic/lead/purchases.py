"""What the machines of a run cost, on the lead's side: looked at now and then, kept as a bill, told as events.

The cluster's provider tells what it has bought (`headway.core.till`). Where there is none, and the job has a list of
prices, the machines are Ray's nodes, by their labels. Each lead writes down what its run holds where the leads of other
runs on the cluster read it, so that each pays its share (`headway.core.tenancy`).

Nobody waits for this; where it fails, it is tried again.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from headway.core.bill import PURCHASE, STAKE, Bill, Outlay, told
from headway.core.tenancy import HELD, Held, Tenancy
from headway.core.till import KEY, NAMESPACE, Sold, Till

logger = logging.getLogger(__name__)

EVERY_S = 1.0
STALE_S = 30.0
"""A run that has said nothing for so long holds nothing any more."""
SAY_S = 5.0
CLOSE_S = 5.0
GROUP, ZONE, MARKET, HEAD = (
    "ray.io/node-group",
    "ray.io/availability-zone",
    "ray.io/market-type",
    "node:__internal_head__",
)
"""Labels of a node: as what it was started; where; spot or on-demand. And what only the head gives out."""
PRICE = Callable[[str, str, bool], float | None]
"""Dollars per hour of a type, in a zone, as spot or not; None where nobody knows."""


@dataclass(frozen=True)
class Node:
    """A node of Ray's: its id, the machine's by the cloud ("" where it has none), what it gives out, and its labels."""

    id: str
    machine: str
    has: Mapping[str, float] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)


class Board(Protocol):
    """Where what was bought, and who holds what, is written down; each may raise anything."""

    def till(self) -> Till | None:
        """What the cluster has bought; None where nobody keeps account."""

    def nodes(self) -> Sequence[Node]:
        """Ray's living nodes."""

    def say(self, run: str, held: Held | None) -> None:
        """What a run holds; None: nothing, and it is over."""

    def heard(self, now: float) -> dict[str, Held]:
        """What runs hold, of those that have said so of late."""


class Purchases:
    """See the module. `placed` and `freed` may be called in any thread.

    Args:
        run: its name, like no other's on the cluster.
        began: gives the start's time (Unix seconds) and the dollars of the starts before; may block, or raise.
        record: takes an event.
        board: see there.
        each: what a worker takes, by Ray's names.
        price: of a machine for which the cluster has none; None where the job has no list of prices.
        per_worker: dollars for an hour of a worker on a machine that has no price; None where nobody said.
        clock: Unix seconds.
    """

    def __init__(
        self,
        run: str,
        began: Callable[[], tuple[float, float]],
        record: Callable[[dict[str, Any]], None],
        board: Board,
        each: Mapping[str, float],
        price: PRICE | None = None,
        clock: Callable[[], float] = time.time,
        per_worker: float | None = None,
    ) -> None:
        self._run, self._began, self._record, self._board = run, began, record, board
        self._each, self._price, self._per_worker, self._clock = dict(each), price, per_worker, clock
        self._till: Till | None = None
        self._tenancy = Tenancy(run)
        self._bill: Bill | None = None
        self._before = self._storage = 0.0
        self._known: dict[str, dict[str, Any]] = {}
        """By machine, what was told of it last."""
        self._where: dict[str, str] = {}
        """Nodes of workers."""
        self._moves: list[tuple[float, str, int]] = []
        """When workers came to nodes and left them, of those moves that are not told yet."""
        self._workers: Counter[str] = Counter()
        self._nodes: dict[str, Node] = {}
        self._said_at = float("-inf")
        self._said = Held()
        self._lock, self._billing = threading.Lock(), threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work, name="purchases", daemon=True)

    def start(self) -> None:
        """Begin to look, in a thread of its own."""
        self._thread.start()

    def close(self) -> None:
        """Look once more, and say that the run holds nothing."""
        self._over.set()
        if self._thread.ident is not None:
            self._thread.join(CLOSE_S)

    def placed(self, worker: str, node: str) -> None:
        """A worker has a place on a node."""
        self._move(worker, node)

    def freed(self, worker: str) -> None:
        """A worker's place is free."""
        self._move(worker, None)

    def outlay(self, now: float | None = None) -> Outlay | None:
        """How the run stands with its money; None while no machine has a price."""
        with self._billing:
            if not self._bill:
                return None
            now = self._clock() if now is None else now
            return Outlay(self._before + self._bill.dollars(now), self._bill.per_hour(now), now)

    def kinds(self) -> dict[str, tuple[str, bool]]:
        """Of Ray's nodes, by id, whose machines are known: the type, and whether it is a spot machine."""
        known = {id: self._known.get(node.machine or id) for id, node in list(self._nodes.items())}
        return {id: (each["type"], each["spot"]) for id, each in known.items() if each is not None}

    def head_per_hour(self) -> float:
        """Dollars per hour that the run pays of the head's machine."""
        with self._billing:
            parts = self._bill.parts(self._clock()) if self._bill else []
        return sum(part.per_hour for part in parts if part.machine.kind == "head")

    @property
    def unpriced(self) -> list[str]:
        """Kinds of machines that the run uses and that have no price, in words."""
        return sorted({each["words"] for each in self._known.values() if each.get("unpriced")})

    def look(self) -> None:
        """See what there is, and tell what is news. Raises whatever Ray does."""
        now = self._clock()
        if self._bill is None:
            at, self._before = self._began()
            self._bill = Bill(at)
        till = self._till = self._board.till() or self._till
        if till is None and self._price is None:
            return
        nodes = {node.id: node for node in self._board.nodes()}
        self._nodes.update(nodes)
        sold = till.machines if till is not None else self._of_nodes(nodes, now)
        if till is not None and till.storage != self._storage:
            self._storage = till.storage
            self._say(now, None, storage=till.storage)
        held = Held(self._holds(), self._tenancy.last())
        if now - self._said_at >= SAY_S or held != self._said:
            self._board.say(self._run, held)
            self._said, self._said_at = held, now
        head = next((each.id for each in sold.values() if each.head), "")
        met = {id: each for id, each in sold.items() if each.until is None or each.until > self._bill.began}
        heard = {**self._board.heard(now), self._run: held}
        holds, told = {run: each.slots for run, each in heard.items()}, [each.last for each in heard.values()]
        shares = self._tenancy.shares([id for id, each in met.items() if each.until is None], holds, head, now, told)
        for each in met.values():
            self._tell(each, shares.get(each.id), now)
        for id, known in self._known.items():
            if id not in sold and known["until"] is None:
                node = self._nodes.get(id)
                renamed = node is not None and node.machine in sold  # it is paid by that name, from the beginning
                self._ends(id, self._bill.began if renamed else now, now)
        self._tell_moves(now)

    def _work(self) -> None:
        while True:
            over = self._over.wait(EVERY_S)
            try:
                self.look()
                if over:
                    self._board.say(self._run, None)
            except Exception as error:  # the control store may be away for a moment
                logger.warning("what machines cost is not known: %s", error)
            if over:
                return

    def _move(self, worker: str, node: str | None) -> None:
        with self._lock:
            before = self._where.pop(worker, None)
            if node is not None:
                self._where[worker] = node
            for where, by in ((before, -1), (node, 1)):
                if where is not None:
                    self._moves.append((self._clock(), where, by))

    def _holds(self) -> dict[str, float]:
        """By machine, the largest share of what it gives out."""
        with self._lock:
            workers = Counter(self._where.values())
        found = {}
        for id, number in workers.items():
            node = self._nodes.get(id)
            if node is not None:
                parts = [number * amount / node.has[name] for name, amount in self._each.items() if node.has.get(name)]
                found[node.machine or node.id] = max(parts, default=float(number))
        return found

    def _of_nodes(self, nodes: Mapping[str, Node], now: float) -> dict[str, Sold]:
        """Ray's nodes as machines, by the job's list of prices: those that are there, and those that were."""
        assert self._price is not None
        assert self._bill is not None
        found = {}
        there = {node.machine or id: node for id, node in nodes.items()}
        for id, each in self._known.items():
            if id not in there:
                kind = (each["type"], each["zone"], each["spot"], each["since"], each["prices"], each["head"])
                found[id] = Sold(id, *kind, until=each["until"] or now)
        for id, node in there.items():
            type, zone = node.labels.get(GROUP, "node"), node.labels.get(ZONE, "")
            spot, since = node.labels.get(MARKET) == "spot", self._known.get(id, {}).get("since", now)
            if not self._known:
                since = self._bill.began
            price = self._price(type, zone, spot)
            prices = () if price is None else ((since, price),)
            found[id] = Sold(id, type, zone, spot, since, prices, HEAD in node.has)
        return found

    def _tell(self, sold: Sold, share: float | None, now: float) -> None:
        """What is new of a machine."""
        known = self._known.get(sold.id)
        prices = sold.prices
        if not prices and self._price is not None:
            price = self._price(sold.type, sold.zone, sold.spot)
            prices = () if price is None else ((sold.since, price),)
        if known is None or known["since"] != sold.since:  # else it was told by another account before
            about = {"type": sold.type, "zone": sold.zone, "spot": sold.spot, "head": sold.head, "since": sold.since}
            until = None if known is None else known["until"]
            known = {**about, "words": sold.words, "prices": (), "until": until, "share": share, "unpriced": not prices}
            self._known[sold.id] = known
            plain = {name: value for name, value in about.items() if value not in ("", False)}
            first: dict[str, Any] = {"per_hour": prices[0][1]} if prices else {"unpriced": True}
            if not prices and self._per_worker is not None:
                first["per_worker"] = self._per_worker
            self._say(now, sold.id, **plain, share=1.0 if share is None else share, **first)
            known["prices"] = prices[:1]
        known["unpriced"] = not prices and not known["prices"]
        for at, per_hour in prices:
            if (at, per_hour) not in known["prices"]:
                self._say(now, sold.id, at=at, per_hour=per_hour)
        known["prices"] = prices or known["prices"]
        if share is not None and (known["share"] is None or abs(share - known["share"]) > 1e-9):
            self._say(now, sold.id, share=round(share, 9))
            known["share"] = share
        self._ends(sold.id, sold.until, now)

    def _ends(self, id: str, until: float | None, now: float) -> None:
        """Since when a machine costs nothing, where that is news; None: it does."""
        if until != self._known[id]["until"]:
            self._say(now, id, until=until)
            self._known[id]["until"] = until

    def _tell_moves(self, now: float) -> None:
        """Since when machines carry workers, and since when they do not."""
        with self._lock:
            moves, self._moves = self._moves, []
        for at, id, by in moves:
            node = self._nodes.get(id)
            machine = (node.machine or id) if node is not None else id
            known = self._known.get(machine)
            if known is None or (node is None and by > 0):
                if now - at < STALE_S:  # Ray, or the provider, does not know it yet
                    with self._lock:
                        self._moves.append((at, id, by))
                continue
            before = self._workers[machine]
            self._workers[machine] += by
            by_worker = known["unpriced"] and self._per_worker is not None
            if by_worker or (before > 0) != (self._workers[machine] > 0):
                self._say(now, machine, at=at, workers=self._workers[machine])

    def _say(self, now: float, machine: str | None, **what: Any) -> None:
        kind = STAKE if {"share", "workers", "storage"} & set(what) and "since" not in what else PURCHASE
        line = {"kind": kind, "time": now, **({} if machine is None else {"machine": machine}), **what}
        with self._billing:
            assert self._bill is not None
            told(self._bill, line)
        self._record(line)


class RayBoard:
    """The cluster's own store, in the process of a controller."""

    def __init__(self) -> None:
        self._client: Any = None
        self._machines: dict[str, str] = {}

    def till(self) -> Till | None:
        from ray.experimental.internal_kv import _internal_kv_get

        return Till.decode(_internal_kv_get(KEY, namespace=NAMESPACE))

    def nodes(self) -> Sequence[Node]:
        import ray

        found = [node for node in ray.nodes() if node["Alive"]]
        if any(node["NodeID"] not in self._machines for node in found):
            self._machines = self._instances()
        return [
            Node(node["NodeID"], self._machines.get(node["NodeID"], ""), node["Resources"], node["Labels"])
            for node in found
        ]

    def say(self, run: str, held: Held | None) -> None:
        from ray.experimental.internal_kv import _internal_kv_del, _internal_kv_put

        key = HELD + run.encode()
        if held is None:
            _internal_kv_del(key, namespace=NAMESPACE)
        else:
            _internal_kv_put(key, held.encode(time.time()), overwrite=True, namespace=NAMESPACE)

    def heard(self, now: float) -> dict[str, Held]:
        from ray.experimental.internal_kv import _internal_kv_get, _internal_kv_list

        found: dict[str, Held] = {}
        for key in _internal_kv_list(HELD, namespace=NAMESPACE):
            held = Held.decode(_internal_kv_get(key, namespace=NAMESPACE), now - STALE_S)
            if held is not None:
                found[key.decode().removeprefix(HELD.decode())] = held
        return found

    def _instances(self) -> dict[str, str]:
        """The cloud's ids of machines, by Ray's of their nodes."""
        import ray
        from ray._raylet import GcsClient  # type: ignore[attr-defined]
        from ray.autoscaler.v2.sdk import get_cluster_resource_state

        if self._client is None:
            self._client = GcsClient(address=ray.get_runtime_context().gcs_address)
        return {each.node_id.hex(): each.instance_id for each in get_cluster_resource_state(self._client).node_states}
