"""Looks at all workers at each tick, and closely at the few of whom something is not well."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping

from headway.core import membership
from headway.core.membership import Membership
from headway.core.watch import PULSE_S, At, Look, Patience, Rest, Watch, is_well
from headway.elastic.lead.peer import Peer

CALL_S = 0.2
"""After so long without a word from a worker it is spoken to at each tick."""
CALL_PULSES = 1.5
"""The same in the time between two signs of life, where that is longer."""


class Examiner:
    """See the module.

    Args:
        patience: of the job.
    """

    def __init__(self, patience: Patience) -> None:
        self._patience, self._watch = patience, Watch(patience)
        self._moves = -1
        self._members: frozenset[str] = frozenset()

    def credible(self, worker: str, peers: Iterable[str]) -> tuple[str, ...]:
        """See `Watch.credible`."""
        return self._watch.credible(worker, peers)

    def look(
        self,
        peers: Mapping[str, Peer],
        known: Membership,
        awake: float,
        call: Callable[[str], None],
        period_s: float = PULSE_S,
    ) -> Look:
        """What the watch makes of the workers that are connected.

        Args:
            peers: all workers that have a place.
            awake: now, on the coordinator's awake clock.
            call: speaks to one that was not heard lately. What is not acknowledged tells a cut link from a worker that
                stands still.
            period_s: that workers leave between two signs of life.
        """
        patience, workers, members = self._patience, known.workers, self._entered(known)
        call_s, signs = max(CALL_S, CALL_PULSES * period_s), {}
        well = waiting = 0
        for worker, peer in peers.items():
            if peer.line is None or worker not in workers:
                continue
            silent_s, deaf_s, still_s = awake - peer.heard_at, awake - peer.understood_at, awake - peer.moved_at
            if silent_s > call_s and deaf_s > call_s:
                call(worker)
            member = worker in members
            if not is_well(patience, silent_s, deaf_s, still_s, peer.at, peer.waiting, peer.stopped):
                standing = workers[worker].phase == membership.READY
                signs[worker] = peer.sign(awake, patience.silence_s, member, standing, period_s)
            elif member:
                well += 1
                waiting += peer.waiting

        def rest(of: Collection[str] | None = None) -> list[Peer]:
            found = ((w, p) for w, p in peers.items() if p.line is not None and w not in signs)
            return [p for w, p in found if w in workers and (of is None or w in of)]

        def stands() -> tuple[float, set[At]]:
            found = rest(members)
            return awake - max(p.moved_at for p in found), {p.at for p in found}

        there = Rest(peers.keys(), well, waiting, lambda: {p.node for p in rest()}, stands)
        return self._watch.look(signs, there)

    def _entered(self, known: Membership) -> frozenset[str]:
        """Members; while their generation is broken, they look for each other."""
        if self._moves != known.moves:
            active, entered = known.active, (membership.MEMBER, membership.LEAVING)
            found = frozenset(w for w, k in known.workers.items() if k.phase in entered)
            self._moves, self._members = known.moves, found | (active.seated if active else frozenset())
        return self._members
