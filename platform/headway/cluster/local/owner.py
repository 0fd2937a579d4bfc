"""Who owns a local cluster: its head and its nodes, from their start to their end."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from headway import durable
from headway.cluster.autoscaling import environment as of_autoscaler
from headway.cluster.changes import differences
from headway.cluster.file import ClusterFile
from headway.cluster.known import Known
from headway.cluster.local.cluster import ADDRESSES, LocalCluster, Shape
from headway.cluster.local.fleet import CLUSTER, KIND, STATUS, TYPE, Fleet, Owned, shape
from headway.cluster.local.orders import ENDED, FOR_RAY, MARK, SOCKET, TLS
from headway.core import news
from headway.core.lifetime import Lifetime
from headway.errors import BadInput, HeadwayError, RunFailed
from headway.notation.plain import write

LOOK_S = 2.0
"""Seconds between two looks at the cluster; a shorter idle time is looked at more often."""
LOOK_AGAIN_S = 2
"""Seconds between two looks of Ray's autoscaler: a node here is up in seconds, not in minutes."""
START_S = 120.0
"""So long nodes may take to come up."""
SHOWN_NEWS = 10
TLS_DAYS = 365.0
STORE_LEAST, STORE_MOST, STORE_SHARE = 80 << 20, 1 << 30, 0.4
"""Bytes of shared memory for a node's objects, and the share of what is free that all nodes together may take."""


class _Local(LocalCluster):
    """One whose folder is known on disk before anything is in it."""

    def __init__(self, made: Callable[[str], None], **options: Any) -> None:
        super().__init__([], **options)
        self._made = made

    def _prepare(self) -> None:
        self._made(str(self.folder))


class Owner:
    """One local cluster.

    Args:
        known: what is kept of it; its folder holds the file and the token.
        file: of the cluster.
        clock: Unix seconds.
    """

    def __init__(self, known: Known, file: ClusterFile, clock: Callable[[], float] = time.time) -> None:
        self.known, self.file = known, file
        self._clock = clock
        self.since = self._worked = clock()
        self._ending, self._ended = threading.Event(), threading.Event()
        self._why = ""
        self._floor: dict[str, int] = {}
        self._for_shells: dict[str, str] = {}
        headway = file.headway
        idle_s = None if headway.stop_when_idle_minutes is None else 60.0 * headway.stop_when_idle_minutes
        whole_s = None if headway.stop_after_hours is None else 3600.0 * headway.stop_after_hours
        self._lifetime = Lifetime(idle_s, whole_s)
        self._cluster = self._to_be()
        self.fleet = Fleet(known.name, self._cluster, _shapes(file), clock)
        self._head_tags = {
            KIND: "head",
            TYPE: file.head,
            CLUSTER: known.name,
            STATUS: "up-to-date",
            "ray-node-name": f"ray-{known.name}-head",
            "headway-cluster": known.id,
        }

    # From the start to the end.

    def start(self, say: Callable[[str], None]) -> None:
        """Bring the head up, and the nodes that are to be there from the start.

        Raises:
            HeadwayError: one of them did not start.
        """
        if self.file.grows:
            self._write_for_ray()
        say("starting the head")
        self._cluster.start()
        if not self.file.grows:
            self._first(say)
        self.since = self._worked = self._clock()
        found = {"address": self._cluster.address, "jobs": self._cluster.jobs}
        self.known = self.known.saved(**found, variables={"RAY_ADDRESS": found["address"], **self._for_shells})

    def run(self) -> str:
        """Look after the cluster until it is to end; returns why it ends."""
        limits = [limit for limit in (self._lifetime.idle_s, self._lifetime.whole_s) if limit is not None]
        every_s = min([LOOK_S, *(limit / 4.0 for limit in limits)])
        while not self._ending.wait(every_s):
            if any(machine.leaves_at is not None for machine in self.fleet.living()):
                dead = [each["id"] for each in self.look().get("nodes", ()) if each["status"] == "dead"]
                self.fleet.release(dead)
            if self._cluster.head.process.poll() is not None:
                self.end("its head is gone")
            elif limits:
                self._look_at_time()
        return self._why

    def end(self, why: str) -> None:
        """Let the cluster end, for a reason; the first one counts."""
        self._why = self._why or why
        self._ending.set()

    def close(self) -> None:
        """End everything, and keep why."""
        self._ending.set()
        self._cluster.close()
        with suppress(OSError):
            durable.replace(self.known.folder / ENDED, json.dumps({"at": self._clock(), "why": self._why}), 0o600)
        with suppress(OSError):
            (self.known.folder / SOCKET).unlink()
        self._ended.set()

    def closed(self, within_s: float) -> bool:
        """Wait until everything has ended; returns whether it has."""
        return self._ended.wait(within_s)

    @property
    def ends(self) -> bool:
        """Whether it is to end."""
        return self._ending.is_set()

    @property
    def up(self) -> bool:
        """Whether there is a head."""
        return bool(self._cluster.address)

    # Its size.

    def grow(self, name: str, count: int) -> list[str]:
        """Have so many more nodes of a type. Returns what was done, in words.

        Raises:
            BadInput: there may not be so many.
        """
        here = [each for each in self.fleet.living() if each.type == name]
        most = self.file.most(name) if self.file.grows else self.file.spec.max_workers
        if most is not None and len(here) + count > most:
            key = f"available_node_types.{name}.max_workers" if self.file.grows else "max_workers"
            remedy = "Raise it in the file, and `headway cluster up` it again."
            raise BadInput(f"{count} more of {name}", f"there are {len(here)}, and {key} is {most}", remedy)
        if not self.file.grows:
            return self._started(name, count)
        self._floor[name] = max(len(here), self._least(name)) + count
        self._write_for_ray()
        return [f"there are at least {self._floor[name]} of {name} now; the autoscaler starts them"]

    def follow(self, file: ClusterFile) -> list[str]:
        """Be as a changed file says. Returns what has changed, in words.

        Raises:
            BadInput: that cannot be done without a new start.
        """
        if file.grows != self.file.grows or file.head != self.file.head:
            what = "whether it grows by itself" if file.grows != self.file.grows else "its head's type"
            remedy = f"End it with `headway cluster down {self.known.name}`, and start it again."
            raise BadInput(f"cluster {self.known.name} cannot follow the changed file", f"{what} is another", remedy)
        changed = differences(self.file, file)
        self.file, self._floor = file, {}
        self.fleet.shapes.update(_shapes(file))
        if not file.grows:
            return [*changed, *(said for name in file.workers for said in self._evened(name))]
        self._write_for_ray()
        return changed

    def _evened(self, name: str) -> list[str]:
        """Start what the file wants from the start and is not there; of what is too much it is only told."""
        here = [each for each in self.fleet.living() if each.type == name]
        missing = self._least(name) - len(here)
        if missing >= 0:
            return self._started(name, missing)
        nodes = ", ".join(str(each.number) for each in here)
        return [f"there are {len(here)} of {name} (nodes {nodes}): `headway cluster drain` lets one go"]

    def _started(self, name: str, count: int) -> list[str]:
        machines = [self.fleet.launch(name, {"type": name}, {}) for _ in range(count)]
        self.fleet.wait(machines, START_S)
        return [_said(machine) for machine in machines]

    # What is seen of it.

    def head(self) -> dict[str, Any]:
        """The head, as plain values, as the fleet tells of the others."""
        node = self._cluster.head if self.up else None
        return {
            "id": self._head_id,
            "number": -1,
            "type": self.file.head,
            "tags": dict(self._head_tags),
            "option": {"type": self.file.head},
            "since": self.since,
            "state": "running" if node else "booting",
            "why": "",
            "leaves_at": None,
            "ip": node.ip if node else "",
            "node_id": node.node_id if node else "",
        }

    def tag_head(self, tags: Mapping[str, str]) -> None:
        """Put tags on it."""
        self._head_tags |= tags

    def look(self) -> dict[str, Any]:
        """What Ray says of its nodes and jobs; `error` where it says nothing."""
        if not self.up:
            return {}
        try:
            return self._cluster.head.ask({"look": True})
        except HeadwayError as error:
            return {"error": str(error)}

    def news(self) -> list[str]:
        """What the provider has learnt, and what is waited for."""
        if not self.file.grows or not self.up:
            return []
        try:
            text = self._cluster.head.ask({"read": [news.NAMESPACE.decode(), news.KEY.decode()]}).get("text")
        except HeadwayError:
            return []
        told = news.News.decode(text.encode() if text else None)
        waits = [f"{each.machines} of {name} are waited for: {each.reason}" for name, each in told.waiting.items()]
        return [*(each.text for each in told.events[-SHOWN_NEWS:]), *waits]

    @property
    def ends_at(self) -> float | None:
        """Unix seconds at which it ends at the latest."""
        return self._lifetime.ends_at(self.since)

    def _look_at_time(self) -> None:
        now = self._clock()
        if self.look().get("jobs", 1):  # where Ray does not say, nothing is held to be idle
            self._worked = now
        if why := self._lifetime.over(self.since, self._worked, now):
            self.end(why)

    # What it is made of.

    def _to_be(self) -> LocalCluster:
        file = self.file
        growing = of_autoscaler(file.headway.boot_limit_minutes, LOOK_AGAIN_S) if file.grows else {}
        certificates = certified(self.known, file)
        self._for_shells = certificates
        own = {**growing, "RAY_CLOUD_INSTANCE_ID": self._head_id, "RAY_NODE_TYPE_NAME": file.head}
        runs = file.headway.runs
        return _Local(
            self._made,
            head=shape(file.spec.available_node_types[file.head]).having(own),
            own={
                "RAY_AUTH_MODE": "token",
                "RAY_AUTH_TOKEN_PATH": str(self.known.token_file),
                MARK: self.known.id,
                **({"HEADWAY_RUNS": runs} if runs else {}),
                **certificates,
            },
            jobs=True,
            autoscaler=self._for_ray if file.grows else None,
            store_bytes=store_bytes(1 + sum(map(file.most, file.workers))),
        )

    def _first(self, say: Callable[[str], None]) -> None:
        wanted = [name for name in self.file.workers for _ in range(self._least(name))]
        say(f"starting {len(wanted)} nodes")
        machines = [self.fleet.launch(name, {"type": name}, {}) for name in wanted]
        self.fleet.wait(machines, START_S)
        for machine in machines:
            if machine.state != "running":
                reason = machine.why or f"it was not up after {START_S:g} s"
                raise RunFailed(f"node {machine.number} of cluster {self.known.name} did not come up", reason)

    @property
    def _for_ray(self) -> Path:
        return self.known.folder / FOR_RAY

    @property
    def _head_id(self) -> str:
        return f"{self.known.name}-head"

    def _least(self, name: str) -> int:
        return self._floor.get(name, self.file.least(name))

    def _made(self, folder: str) -> None:
        self.known = self.known.saved(place=folder)

    def _write_for_ray(self) -> None:
        tree = self.file.for_ray(self.known.id, folder=str(self.known.folder))
        for name, least in self._floor.items():
            tree["available_node_types"][name]["min_workers"] = least
        durable.replace(self._for_ray, write(tree), 0o600)


def certified(known: Known, file: ClusterFile) -> dict[str, str]:
    """Variables for mutual TLS, with certificates of the cluster's own authority; none where the file wants none.

    Raises:
        BadInput: they cannot be made.
    """
    if not file.headway.tls:
        return {}
    from headway.cluster.certs import Authority

    found = Authority.begin(known.folder / TLS, known.name)
    return found.issue("node", [ADDRESSES], days=TLS_DAYS).environment


def store_bytes(nodes: int) -> int:
    """Bytes of shared memory for each of so many nodes."""
    try:
        free = os.statvfs("/dev/shm")
    except OSError:
        return STORE_LEAST
    return int(min(STORE_MOST, max(STORE_LEAST, STORE_SHARE * free.f_bavail * free.f_frsize / max(1, nodes))))


def _shapes(file: ClusterFile) -> dict[str, Shape]:
    return {name: shape(each) for name, each in file.workers.items()}


def _said(machine: Owned) -> str:
    state = "is up" if machine.state == "running" else machine.why or f"is {machine.state}"
    return f"node {machine.number} ({machine.type}) {state}"
