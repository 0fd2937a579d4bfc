"""What the agent does with a machine's Ray nodes once the machine will go."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from headway.cluster.agent.gcs import Away, Gcs
from headway.cluster.agent.nodes import RayNode
from headway.core.notices import DRAIN

LATER_S = 2.0
EVERY_S = 0.2


@dataclass
class Leaving:
    """Says of nodes that they will go, until their cluster knows.

    Args:
        nodes: those of this machine, at present.
        say: takes what people should know.
        clock: Unix seconds.
        over: set when nobody waits for it any more.
    """

    nodes: Callable[[], list[RayNode]]
    say: Callable[[str], None]
    clock: Callable[[], float] = time.time
    over: threading.Event = field(default_factory=threading.Event)
    told: dict[str, float] = field(default_factory=dict)

    def drain(self, deadline: float, why: str) -> bool:
        """Have all nodes of this machine drained; tried until their cluster takes it, or the time is over; blocks.

        Args:
            deadline: Unix seconds: when the machine goes.
            why: for people.

        Returns:
            Whether it was taken for all of them.
        """
        trouble, wait_s = "", EVERY_S
        while True:
            nodes = self.nodes()
            for node in nodes:
                if self._knows(node, deadline):
                    continue
                said = self._drain_one(node, deadline, why)
                if said and said != trouble:
                    self.say(f"not drained yet: {said}")
                trouble = said or trouble
            if nodes and all(self._knows(node, deadline) for node in nodes):
                return True
            if self.clock() >= deadline:
                self.say("the time is over" if nodes else "the time is over, and no Ray node was found on this machine")
                return False
            if self.over.wait(wait_s):
                return False
            wait_s = min(2 * wait_s, LATER_S)

    def _knows(self, node: RayNode, deadline: float) -> bool:
        """Whether its cluster was told of this end of the node, or of one before it: an end is never put off."""
        return self.told.get(node.id, float("inf")) <= deadline

    def _drain_one(self, node: RayNode, deadline: float, why: str) -> str:
        """Returns why it was not taken; "" if it was."""
        word = json.dumps({"why": why, "deadline": deadline, "at": self.clock()}).encode()
        try:
            with Gcs(node.gcs, node.environment, node.owner) as gcs:
                gcs.put(DRAIN + node.id, word)  # before, for whoever sees the drain looks for the reason
                gcs.drain(node.id, deadline, why)
                if node.id not in gcs.draining() and gcs.alive(node.id):
                    return "Ray took it, and does not show it"  # it takes drains of nodes that it does not know
        except Away as away:
            return str(away)
        self.told[node.id] = deadline
        self.say(f"node {node.id[:8]} is drained, {max(0.0, deadline - self.clock()):.0f} s before its end: {why}")
        return ""

    def wait(self, until: float) -> bool:
        """Wait until nothing of Ray is left on this machine: Ray ends a drained node as soon as nothing runs there.

        Returns:
            Whether that was before the time (Unix seconds) was over.
        """
        while self.nodes():
            if self.clock() >= until or self.over.wait(EVERY_S):
                return False
        return True
