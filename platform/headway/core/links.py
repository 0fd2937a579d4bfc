"""Who cannot reach whom, and who must go for that."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


class Links:
    """Accusations since the last committed step. A link has two ends, and each accusation counts against both."""

    def __init__(self) -> None:
        self._broken: set[frozenset[str]] = set()

    def accuse(self, worker: str, peers: Iterable[str]) -> None:
        """A worker says that it cannot reach these."""
        self._broken.update(frozenset((worker, peer)) for peer in peers if peer != worker)

    def blamed(self, heard: Sequence[str]) -> str | None:
        """Who has the most broken links to others that are heard, if anybody has one.

        Args:
            heard: workers that the lead itself hears, in order of rank: of those blamed as often the last goes. Links
                to anybody else are left to the watch.
        """
        rank = {worker: i for i, worker in enumerate(heard)}
        blame: dict[str, int] = {}
        for pair in self._broken:
            if all(worker in rank for worker in pair):
                for worker in pair:
                    blame[worker] = blame.get(worker, 0) + 1
        return max(blame, key=lambda w: (blame[w], rank[w]), default=None)

    def forget(self) -> None:
        """All reach each other: a step is committed."""
        self._broken.clear()
