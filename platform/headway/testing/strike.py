"""How each fault is done to a cluster, and taken back when its time is over."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from headway.errors import BadInput, HeadwayError
from headway.testing import disk, inside
from headway.testing.faults import Fault
from headway.testing.ground import Cloud, Ground
from headway.testing.network.switch import HEAD

Record = dict[str, Any]
Act = Callable[..., None]


class NotYet(Exception):
    """The fault's target is not there at this moment."""


class Strike:
    """Does faults to a run on a cluster; each call returns Unix time right before it was done, and the target.

    Args:
        run: the run's folder.
        cluster: where it is; workers outside it are never touched.
        kill_driver: ends the process that leads the run, and returns its id.
    """

    def __init__(self, run: Path, cluster: Ground, kill_driver: Callable[[], int] | None = None) -> None:
        self._run, self._cluster, self._kill_driver = run, cluster, kill_driver
        self._bad: set[int] = set()
        self._orders: dict[str, list[Path]] = {}

    def __call__(self, fault: Fault) -> Record:
        """Do it.

        Raises:
            NotYet: its target is not there; it may come back.
            HeadwayError: it can never be done.
        """
        if fault.target in ("driver", "head"):
            return self._on_head(fault)
        if fault.verb == "full-disk":
            return self._fill(fault)
        if fault.verb == "empty":
            now = time.time()
            self._sold(fault).empty(fault.span_s or 0.0)
            return _record(now, cloud=True)
        if fault.verb in inside.POINTS:
            return self._at_the_beginning(fault)
        if fault.verb == "part":
            return self._part(fault)
        if fault.target == "node":
            return self._add() if fault.verb == "add" else self._on_nodes(fault)
        return self._on_workers(fault)

    def waits(self, fault: Fault) -> bool:
        """Whether all that is done so far is an order that no worker has taken."""
        return str(fault) in self._orders and not any(map(inside.taken, self._orders[str(fault)]))

    def _on_head(self, fault: Fault) -> Record:
        cluster, now = self._cluster, time.time()
        if fault.verb == "kill":
            if self._kill_driver is None:
                raise NotYet
            return _record(now, driver=self._kill_driver())
        if fault.verb == "blip":
            cluster.switch.set_link(HEAD, up=False)
            self._later(fault, lambda: cluster.switch.set_link(HEAD, up=True))
        else:
            cluster.freeze(all_of_it=fault.target == "head")
            self._later(fault, cluster.thaw)
        return _record(now, head=True, workers=self._everybody())

    def _on_nodes(self, fault: Fault) -> Record:
        cluster, which = self._cluster, fault.which
        nodes = [cluster.nodes[number] for number in which if number < len(cluster.nodes)]
        if len(nodes) < len(which) or any(node.state != "up" or not node.node_id for node in nodes):
            raise NotYet
        doing: dict[str, Act] = {"kill": cluster.kill_node, "stop": cluster.stop_node, "cut": cluster.cut}
        mending: dict[str, Act] = {"stop": cluster.continue_node, "cut": cluster.restore}
        ids = [node.node_id for node in nodes]
        workers = [worker for worker in self._everybody() if worker["node_id"] in ids]
        up = sum(node.state == "up" and bool(node.node_id) for node in cluster.nodes)
        now = time.time()
        if fault.verb == "drain":
            cluster.drain_node(which[0], fault.span_s or 0.0)
        elif fault.verb == "reclaim":
            self._sold(fault).reclaim(which[0], fault.span_s or 0.0)
        elif fault.verb in doing:
            doing[fault.verb](*which)
            if fault.verb in mending:
                self._later(fault, lambda: mending[fault.verb](*which))
        else:
            self._spoil(fault, which[0])
        whole = {"node": which[0], "node_id": ids[0]} if len(which) == 1 else {"nodes": list(which), "node_ids": ids}
        return _record(now, **whole, workers=workers, up=up)

    def _sold(self, fault: Fault) -> Cloud:
        """The cluster, where a cloud has sold its machines."""
        if not isinstance(self._cluster, Cloud):
            raise BadInput(f"'{fault}' cannot be done", "the machines are nobody's to sell", "")
        return self._cluster

    def _spoil(self, fault: Fault, number: int) -> None:
        """Make a link bad without taking it away."""
        switch, key = self._cluster.switch, (fault, time.monotonic_ns())
        held = fault.verb in ("delay", "reorder", "rate")
        if held and number in self._bad:
            raise NotYet  # until the fault before it is over
        if fault.verb == "loss":
            switch.lose(key, number, fault.percent or 0.0)
        elif fault.verb == "oneway":
            way, _, far = fault.way.partition("=")
            other = HEAD if far == "head" else None
            switch.one_way(key, *((number, other) if way == "to" else (other, number)))
        elif fault.verb == "rate":
            switch.slow(number, fault.kbit)
        else:
            switch.delay(number, fault.by_s or 0.0, fault.percent or 100.0)
        if held:
            self._bad.add(number)

        def mend() -> None:
            switch.heal(key)
            if held:
                self._bad.discard(number)
                switch.slow(number, None) if fault.verb == "rate" else switch.hurry(number)

        self._later(fault, mend)

    def _part(self, fault: Fault) -> Record:
        workers, switch = self._workers(fault), self._cluster.switch
        nodes = [self._cluster.numbered(worker["node_id"]) for worker in workers]
        numbers = {node.number for node in nodes if node is not None}
        if len(numbers) < len(workers):
            raise BadInput(f"'{fault}' cannot be done", "the workers are on one node", "")
        key, now = (fault, time.monotonic_ns()), time.time()
        switch.part(key, *sorted(numbers))
        self._later(fault, lambda: switch.heal(key))
        return _record(now, workers=workers)

    def _on_workers(self, fault: Fault) -> Record:
        workers = self._workers(fault)
        now = time.time()
        if fault.verb in ("hang", "flip", "raise", "lock", "slow-store"):
            orders = [inside.Order(fault.verb, worker["id"], span_s=fault.span_s or 0.0) for worker in workers]
            self._orders[str(fault)] = [inside.give(self._run, order) for order in orders]
            return _record(now, workers=workers)
        sent = signal.SIGKILL if fault.verb == "kill" else signal.SIGSTOP
        _send(workers, sent)
        if fault.verb == "stop":
            self._later(fault, lambda: self._continue(workers))
        return _record(now, workers=workers)

    def _continue(self, workers: list[Record]) -> None:
        living = set(self._cluster.processes())
        _send([worker for worker in workers if worker["pid"] in living], signal.SIGCONT)

    def _at_the_beginning(self, fault: Fault) -> Record:
        """Left for the worker that has the rank next."""
        if not self._run.is_dir():
            raise NotYet
        now, point = time.time(), inside.POINTS[fault.verb]
        order = inside.Order(fault.verb, inside.ANY, point=point, span_s=fault.span_s or 0.0, rank=fault.which[0])
        self._orders[str(fault)] = [inside.give(self._run, order)]
        return _record(now, rank=fault.which[0])

    def _fill(self, fault: Fault) -> Record:
        found, now = disk.disk_of(self._run), time.time()
        if found is None:
            reason = "the run is not on a disk of the drill's own, and nobody else's is filled"
            raise BadInput(f"'{fault}' cannot be done", reason, "See headway.testing.disk.")
        disk.fill(found)
        self._later(fault, lambda: disk.free(found))
        return _record(now, disk=str(found), workers=self._everybody())

    def _add(self) -> Record:
        record = _record(time.time(), node=len(self._cluster.nodes))
        # A machine takes seconds to come up, and other faults do not wait for it.
        threading.Thread(target=self._start_node, args=(record["target"],), name="add-node", daemon=True).start()
        return record

    def _start_node(self, target: Record) -> None:
        with suppress(HeadwayError, OSError):  # the cluster may be closed by now
            node = self._cluster.add_node()
            target.update(node=node.number, node_id=node.node_id)

    def _later(self, fault: Fault, mend: Callable[[], Any]) -> None:
        if fault.span_s is not None:
            self._cluster.after(fault.span_s, mend)

    def _members(self) -> list[Record]:
        try:
            found = json.loads((self._run / "members.json").read_text(encoding="utf-8"))["workers"]
        except (OSError, ValueError):
            return []
        return list(found)

    def _everybody(self) -> list[Record]:
        """All workers, with their process ids as they are on their nodes; whether they live is not looked at."""
        return [_brief(member, member["pid"]) for member in self._members()]

    def _workers(self, fault: Fault) -> list[Record]:
        """The fault's workers as members.json has them, all of them alive on the cluster."""
        members = self._members()
        if fault.target == "worker":
            by_rank = {member["rank"]: member for member in members if member["phase"] == "member"}
            if not set(fault.which) <= set(by_rank):
                raise NotYet
            members = [by_rank[rank] for rank in fault.which]
        found = self._found(members)
        if not found or (fault.target == "worker" and len(found) < len(members)):
            raise NotYet
        return found

    def _found(self, members: Iterable[Record]) -> list[Record]:
        """Those of them that live on the cluster, with their process ids as they are here, not as on their nodes."""
        pids = [(member, self._cluster.process_of(member["node_id"], member["pid"])) for member in members]
        return [_brief(member, pid) for member, pid in pids if pid is not None]


def _send(workers: Iterable[Record], sent: signal.Signals) -> None:
    for worker in workers:
        with suppress(ProcessLookupError):
            os.kill(worker["pid"], sent)


def _brief(member: Record, pid: int) -> Record:
    return {"id": member["id"], "rank": member["rank"], "pid": pid, "node_id": member["node_id"]}


def _record(now: float, **target: Any) -> Record:
    return {"time": now, "target": target}
