"""Which workers are asked for, how long after one that failed to start, and on which nodes not."""

from __future__ import annotations

from headway.core.events import Launch

LONGEST_DELAY_S = 60.0
STARTS_TO_AVOID = 2
FORGIVEN_S = 600.0
ATTEMPTS = 5
ATTEMPTS_EACH = 3
ATTEMPTS_S = 60.0


class Hiring:
    """Names, back-off and avoided nodes.

    Args:
        most: workers of the run; may change.
        slow_s: a start may take so long.
    """

    def __init__(self, most: int, slow_s: float) -> None:
        self.asked: set[str] = set()
        """Asked for, and without a place so far."""
        self.most, self._slow_s = most, slow_s
        self._names = 0
        self._failures = 0
        """In a row, with nobody seated in between."""
        self._by_node: dict[str, list[float]] = {}
        self._avoided: dict[str, float] = {}
        """Nodes, and since when."""
        self._known: set[str] = set()
        self._vain_since: float | None = None
        self._in_vain = 0

    def ask(self, number: int, reason: str, at: float, spares: int = 0, apart: tuple[str, ...] = ()) -> list[Launch]:
        """Ask for so many workers.

        Args:
            spares: so many of them, the last, will stand by.
            apart: nodes that these had better not share.
        """
        delay = min(LONGEST_DELAY_S, 2.0 ** min(self._failures - 1, 6)) if self._failures > 1 else 0.0
        avoid = self.avoided(at) if number > 0 else ()
        names = [f"w{self._names + i}" for i in range(number)]
        self._names += len(names)
        self.asked.update(names)
        seats = number - spares
        return [Launch(n, delay, reason, avoid, None if i < seats else apart) for i, n in enumerate(names)]

    @property
    def in_order(self) -> list[str]:
        """Those that have no place so far, as they were asked for."""
        return sorted(self.asked, key=lambda name: int(name[1:]))

    def placed(self, worker: str, node: str) -> bool:
        """A worker has a place; returns whether it was asked for."""
        wanted = worker in self.asked
        self.asked.discard(worker)
        self._known.add(node)
        return wanted

    def failed(self, node: str | None, at: float) -> None:
        """A worker ended before it was ever a member."""
        self._failures += 1
        if node is not None:
            recent = [t for t in self._by_node.get(node, []) if at - t < FORGIVEN_S]
            self._by_node[node] = [*recent[-STARTS_TO_AVOID:], at]
            if len(self._by_node[node]) >= STARTS_TO_AVOID:
                self.avoid(node, at)

    def avoid(self, node: str | None, at: float) -> None:
        """A node's hardware, or its links, are at fault."""
        if node is not None:
            self._avoided[node] = at

    def avoided(self, at: float) -> tuple[str, ...]:
        """Nodes to keep away from now; none if that would leave none of those known."""
        self._avoided = {node: since for node, since in self._avoided.items() if at - since < FORGIVEN_S}
        return tuple(sorted(self._avoided)) if self._known - self._avoided.keys() else ()

    def seated(self) -> None:
        """A new worker is a member, or was ready to be one for long: starts succeed."""
        self._failures = 0

    def stands(self) -> None:
        """Somebody has warmed up."""
        self._in_vain, self._vain_since = 0, None

    def hopeless(self, at: float, theirs: bool, warming: bool) -> bool:
        """Whether to give the run up after a start that failed with nobody standing: no member, and nobody ready.

        Args:
            theirs: it was an error of the user's code, which has no reason to pass next time.
            warming: others are still warming up.
        """
        self._in_vain += 1
        if self._vain_since is None:
            self._vain_since = at
        if theirs and (not warming or self._in_vain >= max(ATTEMPTS, self.most)):
            return True
        seconds = at - self._vain_since
        enough = self._in_vain >= max(ATTEMPTS, ATTEMPTS_EACH * self.most) and seconds >= ATTEMPTS_S
        return enough and (not warming or seconds >= self._slow_s)

    @property
    def in_vain(self) -> int:
        """Starts that failed since somebody stood."""
        return self._in_vain
