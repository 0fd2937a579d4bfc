"""What is between machines, and what goes wrong there and on them, by a virtual clock."""

from __future__ import annotations

import random
from dataclasses import dataclass

HEAD = "head"


@dataclass(frozen=True)
class Fault:
    """Something between two moments, in seconds.

    Args:
        kind: cut, out, in (a node's link, both ways or one), part (two nodes), loss, delay, freeze (the head), stop
            (a worker's process) or lock (its interpreter).
        nodes: or workers, whom it concerns; for freeze, `HEAD` if its whole machine stands still.
        amount: share of packets lost; seconds of delay; for freeze, 1.0: what comes meanwhile is lost.
    """

    kind: str
    start: float
    end: float
    nodes: tuple[str, ...] = ()
    amount: float = 0.0


class Air:
    """Which faults are under way, and what they do to packets.

    Args:
        faults: may grow.
        seed: of losses and delays.
    """

    def __init__(self, faults: list[Fault], seed: int) -> None:
        self.faults = faults
        self._under_way: list[Fault] = []
        self._chance = random.Random(seed)

    def advance(self, now: float) -> None:
        """Let it be `now`."""
        self._under_way = [f for f in self.faults if f.start <= now < f.end]

    def any(self, kind: str, name: str | None = None) -> Fault | None:
        """The first fault of a kind that is under way and concerns somebody."""
        for f in self._under_way:
            if f.kind == kind and (name is None or name in f.nodes):
                return f
        return None

    def reaches(self, a: str, b: str) -> bool:
        """Whether packets get from one node to another."""
        if a == b or not self._under_way:
            return True
        if any(self.any("cut", n) for n in (a, b)) or self.any("out", a) or self.any("in", b):
            return False
        return not any(f.kind == "part" and a in f.nodes and b in f.nodes for f in self._under_way)

    def loses(self, node: str) -> bool:
        """Whether one packet is lost, by chance."""
        return any(f.kind == "loss" and node in f.nodes and self._chance.random() < f.amount for f in self._under_way)

    def delay_s(self, node: str) -> float:
        """How long one packet is under way."""
        fault = self.any("delay", node)
        return self._chance.uniform(0.0, fault.amount) if fault else 0.0
