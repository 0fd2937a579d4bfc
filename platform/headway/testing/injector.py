"""Does to a run what a script of faults says, each as soon as its step is known to be committed."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from headway.errors import HeadwayError
from headway.testing import inside
from headway.testing.cluster import Cluster
from headway.testing.faults import Fault, in_order
from headway.testing.follower import Follower

LOOK_S = 0.02


class NotYet(Exception):
    """The fault's target is not there at this moment."""


class Injector:
    """Follows a run from a thread of its own; use it as a context manager around the run.

    Args:
        run: the run's folder; it may come into being later.
        faults: what to do.
        cluster: where the run is; workers outside it are never touched.
        kill_driver: ends the process that leads the run, and returns its id; needed for `kill driver` only.

    `done` holds a record for each fault that was injected: the fault as text, the step after which it was due, the
    newest step known to be committed, Unix time right before the injection, and the target. `refused` says why a fault
    could not be injected.
    """

    def __init__(
        self, run: Path, faults: Iterable[Fault], cluster: Cluster, kill_driver: Callable[[], int] | None = None
    ) -> None:
        self.done: list[dict[str, Any]] = []
        self.refused: dict[str, str] = {}
        self._run, self._cluster, self._kill_driver = run, cluster, kill_driver
        self._faults = in_order(faults)
        self._waiting = list(self._faults)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="injector", daemon=True)
        self._steps = Follower(run / "steps.jsonl")

    @property
    def repeated(self) -> Counter[int]:
        """How often each step was seen to be committed again."""
        return self._steps.repeated

    @property
    def left(self) -> list[Fault]:
        """Faults that have not been injected."""
        return [fault for fault in self._faults if str(fault) in self.refused or fault in self._waiting]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        self._steps.look()

    def _follow(self) -> None:
        while not self._ended.wait(LOOK_S):
            committed = self._steps.look()
            for fault in [fault for fault in self._waiting if fault.step <= committed]:
                try:
                    record = self._inject(fault)
                except NotYet:
                    continue  # its target may come back
                except (HeadwayError, OSError) as error:
                    self.refused[str(fault)] = str(error)
                    self._waiting.remove(fault)
                    continue
                self.done.append({"fault": str(fault), "step": fault.step, "committed": committed, **record})
                self._waiting.remove(fault)

    def _inject(self, fault: Fault) -> dict[str, Any]:
        if fault.target == "driver":
            return self._on_driver()
        if fault.target == "node":
            return self._on_node(fault)
        workers = self._workers(fault)
        now = time.time()
        if fault.verb in ("hang", "flip", "raise"):
            for worker in workers:
                inside.give(self._run, inside.Order(fault.verb, worker["id"]))
            return _record(now, workers=workers)
        sent = signal.SIGKILL if fault.verb == "kill" else signal.SIGSTOP
        for worker in workers:
            with suppress(ProcessLookupError):
                os.kill(worker["pid"], sent)
        if fault.verb == "stop" and fault.span_s is not None:
            self._cluster.after(fault.span_s, lambda: self._continue(workers))
        return _record(now, workers=workers)

    def _on_driver(self) -> dict[str, Any]:
        if self._kill_driver is None:
            raise NotYet
        now = time.time()
        return _record(now, driver=self._kill_driver())

    def _on_node(self, fault: Fault) -> dict[str, Any]:
        cluster, now = self._cluster, time.time()
        if fault.verb == "add":
            record = _record(now, node=len(cluster.nodes))
            # A machine takes seconds to come up, and other faults do not wait for it.
            threading.Thread(target=self._add, args=(record["target"],), name="add-node", daemon=True).start()
            return record
        number = fault.which[0]
        if number >= len(cluster.nodes) or cluster.nodes[number].state != "up" or not cluster.nodes[number].node_id:
            raise NotYet
        back = {"cut": cluster.restore, "stop": cluster.continue_node}.get(fault.verb)
        act = {"kill": cluster.kill_node, "cut": cluster.cut, "stop": cluster.stop_node}.get(fault.verb)
        node_id = cluster.nodes[number].node_id
        if act is None:
            cluster.drain_node(number, fault.span_s or 0.0)
        else:
            act(number)
        if back is not None and fault.span_s is not None:
            cluster.after(fault.span_s, lambda: back(number))
        return _record(now, node=number, node_id=node_id)

    def _add(self, target: dict[str, Any]) -> None:
        with suppress(HeadwayError, OSError):  # the cluster may be closed by now
            node = self._cluster.add_node()
            target.update(node=node.number, node_id=node.node_id)

    def _workers(self, fault: Fault) -> list[dict[str, Any]]:
        """The fault's workers as members.json has them, all of them alive on the cluster."""
        try:
            members = json.loads((self._run / "members.json").read_text(encoding="utf-8"))["workers"]
        except (OSError, ValueError):
            raise NotYet from None
        if fault.target != "all":
            by_rank = {member["rank"]: member for member in members if member["phase"] == "member"}
            if not set(fault.which) <= set(by_rank):
                raise NotYet
            members = [by_rank[rank] for rank in fault.which]
        ours = set(self._cluster.processes())
        if fault.target == "all":
            members = [member for member in members if member["pid"] in ours]
        if not members or not {member["pid"] for member in members} <= ours:
            raise NotYet
        return [{name: member.get(name) for name in ("id", "rank", "pid", "node_id")} for member in members]

    def _continue(self, workers: list[dict[str, Any]]) -> None:
        ours = set(self._cluster.processes())
        for worker in workers:
            if worker["pid"] in ours:
                os.kill(worker["pid"], signal.SIGCONT)


def _record(now: float, **target: Any) -> dict[str, Any]:
    return {"time": now, "target": target}
