"""Replicas that have drifted apart are found by their digests, and healed from the majority.

A worker that joined has a copy of somebody's state, which says nothing that the other's did not. So a lineage (all
whose state comes from one worker's since all last agreed) has one vote, which is its own majority's.
"""

from __future__ import annotations

import zlib
from collections import Counter, defaultdict
from collections.abc import Sequence

import xxhash

from headway.elastic.worker.tail import LARGEST
from headway.errors import RunFailed


class Equal:
    """Which parts of the replicas were equal, one after the other, since a worker's state came from another's."""

    def __init__(self) -> None:
        self._of = 0
        self._parts: dict[int, bytes] = {}

    def clear(self) -> None:
        """Its state is another's now."""
        self._parts = {}

    def add(self, part: int, of: int, digest: bytes) -> bool:
        """A part was; returns whether it ends a round in which all were."""
        if of != self._of or part in self._parts:
            self._of, self._parts = of, {}
        self._parts[part] = digest
        return len(self._parts) == of

    def told(self) -> str:
        """A digest of all parts, as hex: of one its own."""
        if self._of == 1:
            return self._parts[0].hex()
        return xxhash.xxh3_64(b"".join(self._parts[part] for part in sorted(self._parts))).hexdigest()


def lineage_of(worker: str) -> int:
    """The number that a worker's own state goes by, below 2^24."""
    return zlib.crc32(worker.encode()) % (LARGEST - 1) + 1


def verdict(votes: Sequence[tuple[int, bytes]], step: int) -> tuple[int, list[int]]:
    """Who is right.

    Args:
        votes: lineage and digest of each replica.
        step: that they are to do next.

    Returns:
        The first that is right, and all that are not, as places in `votes`.

    Raises:
        RunFailed: there is no majority of lineages.
    """
    copies: dict[int, Counter[bytes]] = defaultdict(Counter)
    for lineage, digest in votes:
        copies[lineage][digest] += 1
    ballot = Counter(chosen for found in copies.values() if (chosen := _majority(found)) is not None)
    right = _majority(ballot)
    if right is None:
        raise RunFailed(
            f"the replicas of {len(votes)} workers differ before step {step}, and none has a majority",
            "memory was corrupted on one of them, and nobody can tell on which",
            "Look at the machines' memory, then resume from the newest checkpoint.",
        )
    digests = [digest for _, digest in votes]
    return digests.index(right), [place for place, digest in enumerate(digests) if digest != right]


def _majority(counts: Counter[bytes]) -> bytes | None:
    """What more than half are for."""
    return next((digest for digest, count in counts.items() if 2 * count > counts.total()), None)
