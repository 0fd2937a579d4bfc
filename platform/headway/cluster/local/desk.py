"""Where a local cluster's host takes orders: from the verbs of `headway cluster`, and from Ray's autoscaler."""

from __future__ import annotations

import json
import socket
import threading
from contextlib import suppress
from typing import Any

from headway.cluster.file import load
from headway.cluster.local import orders
from headway.cluster.local.owner import START_S, Owner
from headway.errors import BadInput

LAST_WORDS_S = 5.0
"""So long answers that are being written are waited for, at the end."""


class Desk:
    """Args:
    owner: of the cluster.
    """

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._answering = threading.Condition()
        self._unanswered = 0
        self._orders = {
            "launch": self._launch,
            "terminate": self._terminate,
            "tag": self._tag,
            "machines": self._machines,
            "status": self._status,
            "drain": self._drain,
            "add": self._add,
            "apply": self._apply,
            "end": self._end,
        }

    def open(self) -> None:
        """Take orders from now on. Raises OSError."""
        listening = orders.listen(self._owner.known.folder)
        threading.Thread(target=self._serve, args=(listening,), daemon=True).start()

    def close(self) -> None:
        """Wait for answers that are being written: whoever asked for the end is to hear of it."""
        with self._answering:
            self._answering.wait_for(lambda: not self._unanswered, LAST_WORDS_S)

    def obey(self, order: dict[str, Any]) -> dict[str, Any]:
        """Carry out one order. Raises HeadwayError."""
        do = self._orders.get(str(order.get("do")))
        if do is None:
            raise BadInput(f"the order {order.get('do')!r}", "this host knows no such order", "Is it of this release?")
        return do(order)

    def _serve(self, listening: socket.socket) -> None:
        while True:
            try:
                line, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=self._hear, args=(line,), daemon=True).start()

    def _hear(self, line: socket.socket) -> None:
        with line, suppress(OSError), line.makefile("rwb") as file:
            for text in file:
                with self._answering:
                    self._unanswered += 1
                try:
                    file.write(json.dumps(self._answer(text)).encode() + b"\n")
                    file.flush()
                finally:
                    with self._answering:
                        self._unanswered -= 1
                        self._answering.notify_all()

    def _answer(self, text: bytes) -> dict[str, Any]:
        try:
            return self.obey(json.loads(text))
        except Exception as error:  # whatever it is, the host lives on, and whoever asked is told
            return orders.refusal(error)

    # What Ray's autoscaler asks for, by way of the market.

    def _launch(self, order: dict[str, Any]) -> dict[str, Any]:
        if self._owner.ends:
            raise BadInput("no node can be started", "the cluster ends")
        fleet = self._owner.fleet
        return {"machine": fleet.launch(order["type"], order["option"], order["tags"], order["once"]).shown()}

    def _terminate(self, order: dict[str, Any]) -> dict[str, Any]:
        if self._owner.head()["id"] in order["machines"]:
            self._owner.end("its head was let go")
        self._owner.fleet.terminate(order["machines"])
        return {}

    def _tag(self, order: dict[str, Any]) -> dict[str, Any]:
        if order["machine"] == self._owner.head()["id"]:
            self._owner.tag_head(order["tags"])
        self._owner.fleet.tag(order["machine"], order["tags"])
        return {}

    def _machines(self, order: dict[str, Any]) -> dict[str, Any]:
        return {"machines": [self._owner.head(), *(each.shown() for each in self._owner.fleet.living())]}

    # What people ask for.

    def _status(self, order: dict[str, Any]) -> dict[str, Any]:
        owner = self._owner
        ray = owner.look()
        return {
            **self._machines(order),
            "gone": [each.shown() for each in owner.fleet.gone()],
            "up": owner.up,
            "since": owner.since,
            "ends_at": owner.ends_at,
            "ray": {each["id"]: each for each in ray.get("nodes", ())},
            "jobs": ray.get("jobs"),
            "error": ray.get("error", ""),
            "news": owner.news(),
        }

    def _drain(self, order: dict[str, Any]) -> dict[str, Any]:
        if order["node"] in ("head", self._owner.head()["id"]):
            remedy = f"`headway cluster down {self._owner.known.name}` ends all of it."
            raise BadInput("the head cannot be drained", "the cluster ends with it", remedy)
        machine = self._owner.fleet.named(order["node"])
        self._owner.fleet.drain(machine, order["deadline_s"], order["why"])
        return {"machine": machine.shown()}

    def _add(self, order: dict[str, Any]) -> dict[str, Any]:
        name, names = order["type"], list(self._owner.file.workers)
        if name is None and len(names) == 1:
            name = names[0]
        if name not in names:
            fact = "which type of node?" if name is None else f"--type {name}"
            raise BadInput(fact, f"the cluster's file has {', '.join(names) or 'none beside the head'}", "Give --type.")
        return {"said": self._owner.grow(name, order["count"])}

    def _apply(self, order: dict[str, Any]) -> dict[str, Any]:
        known = self._owner.known
        return {"said": self._owner.follow(load(known.file, known.name))}

    def _end(self, order: dict[str, Any]) -> dict[str, Any]:
        machines = self._owner.fleet.living()
        self._owner.end(str(order.get("why", "as asked")))
        self._owner.closed(START_S)
        return {"ended": ["the head", *(f"node {each.number} ({each.type})" for each in machines)]}
