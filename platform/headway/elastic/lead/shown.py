"""What the records are told of the membership: who is there, who leads, what befell."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from headway.core import events, waits
from headway.core.membership import Membership
from headway.elastic.lead.peer import Peer

Record = Callable[[dict[str, Any]], None]
REFUSED_S = 10.0
LOST = 64
"""So many that lost one generation are told one by one."""
THERE_EACH_S = 5e-4
"""Who is there is told no more often than this for each: ten thousand take five seconds."""


class Shown:
    """See the module.

    Args:
        record: keeps an event.
    """

    def __init__(self, record: Record) -> None:
        self._record = record
        self._there: Any = None
        self._there_at = float("-inf")
        self._lost = (0, 0)
        """The newest generation that was lost, and how many have said so."""
        self._doubt: str | None = None
        self._waits = self._seeks = ""
        self._refused = 0
        self._refused_at = -REFUSED_S

    def event(self, kind: str, **fields: Any) -> None:
        """One thing that happened now."""
        self._record({"kind": kind, "time": time.time(), **fields})

    def generation(self, action: events.Go) -> None:
        """It begins."""
        generation = action.generation
        self.event(
            "generation",
            generation=generation.number,
            members=generation.members,
            workers=len(generation.members),
            lanes=generation.lanes,
            step=max(step for step, _ in action.positions),
            reason=generation.reason,
        )

    def lost(self, worker: str, generation: int, reason: str, peers: tuple[str, ...]) -> None:
        """A member's exchange broke. Where all of thousands say so, the first of them are told, and then that there are
        more."""
        newest, said = self._lost
        self._lost = (generation, said + 1 if generation == newest else 1)
        if self._lost[1] <= LOST:
            self.event("lost", worker=worker, generation=generation, reason=reason, peers=peers)
        elif self._lost[1] == LOST + 1:
            self.event("lost", worker=worker, generation=generation, reason="and others say the same", peers=())

    def recovered(self, action: events.Recovered, peers: list[Peer]) -> None:
        """Training goes on. peers: what was known of the workers that it is about."""
        cause = action.cause
        if cause == "process_died" and peers and all(p.died_with_node for p in peers):
            cause = "node_died"
        offset = time.time() - time.monotonic()
        self.event(
            "recovery",
            cause=cause,
            workers=action.workers,
            node_id=peers[0].node if peers else None,
            generation=action.generation,
            step=action.step,
            detected_at=action.detected_at + offset,
            resumed_at=action.resumed_at + offset,
            silent_s=round(action.silent_s, 4),
            pause_s=round(action.pause_s, 4),
        )

    def doubt(self, reason: str | None) -> None:
        """The coordinator doubts itself, or does so no more."""
        if (reason is None) != (self._doubt is None):
            self.event("doubt", reason=reason)
        self._doubt = reason

    def refused(self, counts: dict[str, int], now: float) -> None:
        """What strangers sent, once in a while."""
        if sum(counts.values()) != self._refused and now - self._refused_at >= REFUSED_S:
            self._refused, self._refused_at = sum(counts.values()), now
            self.event("refused", counts=dict(counts))

    def waits(self, membership: Membership, market: str = "") -> None:
        """Why nobody trains, or why no more do, when that has changed. market: why machines cannot be had."""
        reason, more = waits.why(membership, market), waits.more(membership, market)
        if (reason, more) != (self._waits, self._seeks):
            self._waits, self._seeks = reason, more
            self.event("waits", reason=reason, more=more)

    def there(self, membership: Membership, peers: dict[str, Peer], now: float) -> bool:
        """Who is there, when it has changed. Returns False where it is to be asked for again: it was told just now."""
        if now - self._there_at < THERE_EACH_S * len(peers):
            return False
        self._there_at = now
        active = membership.active or membership.published
        lanes = active.carries() if active else {}
        rank = {w: i for i, w in enumerate(active.members)} if active else {}
        shown = [
            {
                "id": worker,
                "rank": rank.get(worker),
                "phase": known.phase,
                "pid": peer.hello.pid,
                "node_id": peer.node,
                "node_ip": peer.hello.node_ip,
                "lanes": lanes.get(worker, ()),
            }
            for worker, known in membership.workers.items()
            if (peer := peers.get(worker)) is not None and peer.hello is not None
        ]
        number = active.number if active else 0
        if (number, shown) != self._there:
            self._there = (number, shown)
            self.event("members", generation=number, workers=shown)
        return True
