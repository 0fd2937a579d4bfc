"""The account of a worker's seconds: every one has a cause, so that they add up to the wall clock."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping

CAUSES = ("start", "compute", "communication", "data", "checkpoint", "regroup", "repeated", "spare", "idle")
"""start: until a worker can train. compute, communication, data: inside steps (and evaluation). checkpoint: held up by
one. regroup: finding the others again. repeated: work on steps that were not committed. spare: standing by, while
others train. idle: waiting with nothing to do."""
PRODUCTIVE = ("compute", "communication", "data")
BOOKED = (*CAUSES, "open")
"""What a snapshot has, in the order in which it is told."""


class Ledger:
    """One worker's account; for its training thread, `snapshot` for any.

    Args:
        at: seconds on any clock that does not go back; the same clock throughout.
    """

    def __init__(self, at: float) -> None:
        self._seconds = dict.fromkeys(CAUSES, 0.0)
        self._open = dict.fromkeys(PRODUCTIVE, 0.0)
        self._in_step = False
        self._cause, self._since, self._begun = "start", at, at
        self._lock = threading.Lock()

    def switch(self, cause: str, at: float) -> str:
        """From now on time goes to `cause`. Returns the cause until now."""
        with self._lock:
            before = self._cause
            self._book(at)
            self._cause = cause
            return before

    def begin_step(self, at: float) -> None:
        """What follows belongs to a step that is not committed yet."""
        with self._lock:
            self._book(at)
            self._settle()
            self._in_step = True

    def commit(self, at: float) -> None:
        """The step is committed: its time counts as what it was spent on."""
        with self._lock:
            self._book(at)
            self._settle()
            self._in_step = False

    def abandon(self, at: float) -> None:
        """The step's work is lost, and will be done again."""
        with self._lock:
            self._book(at)
            self._seconds["repeated"] += sum(self._open.values())
            self._open = dict.fromkeys(PRODUCTIVE, 0.0)
            self._in_step = False

    def age(self, at: float) -> float:
        """Seconds accounted for."""
        return at - self._begun

    def snapshot(self, at: float) -> dict[str, float]:
        """Seconds by cause up to now; those of the step under way are under `open` as well, should it be lost."""
        with self._lock:
            self._book(at)
            whole = dict(self._seconds)
            for cause, seconds in self._open.items():
                whole[cause] += seconds
            return whole | {"open": sum(self._open.values())}

    def _book(self, at: float) -> None:
        spent, self._since = at - self._since, at
        if self._in_step and self._cause in PRODUCTIVE:
            self._open[self._cause] += spent
        else:
            self._seconds[self._cause] += spent

    def _settle(self) -> None:
        for cause, seconds in self._open.items():
            self._seconds[cause] += seconds
        self._open = dict.fromkeys(PRODUCTIVE, 0.0)


def closed(snapshot: Mapping[str, float], lifetime: float, lost: bool) -> dict[str, float]:
    """A worker's last snapshot extended to its whole life as seen from outside.

    Args:
        snapshot: of `Ledger.snapshot`; empty for a worker that never said anything.
        lifetime: seconds for which it held its place.
        lost: it died: the step under way and the time since the snapshot went for nothing. Otherwise it was idle.
    """
    seconds = {cause: snapshot.get(cause, 0.0) for cause in CAUSES}
    rest = lifetime - sum(seconds.values())
    if not snapshot:
        seconds["start"] = lifetime
    elif lost:
        taken = snapshot.get("open", 0.0)
        for cause in PRODUCTIVE:
            share = min(seconds[cause], taken)
            seconds[cause] -= share
            seconds["repeated"] += share
            taken -= share
        seconds["repeated"] += rest
    else:
        seconds["idle"] += rest
    return seconds


def total(accounts: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """The sum of accounts, by cause."""
    whole = dict.fromkeys(CAUSES, 0.0)
    for account in accounts:
        for cause in CAUSES:
            whole[cause] += account.get(cause, 0.0)
    return whole


def goodput(account: Mapping[str, float]) -> float:
    """The share of worker-seconds that ended in committed steps; 0 for an empty account."""
    everything = sum(account.get(cause, 0.0) for cause in CAUSES)
    return sum(account.get(cause, 0.0) for cause in PRODUCTIVE) / everything if everything > 0 else 0.0


def pooled(runs: Iterable[Mapping[str, float]], starting_s: float, held_s: float) -> dict[str, float]:
    """The account of a pool of processes that runs take and give back.

    Args:
        runs: accounts of all runs, of the times that they had processes.
        starting_s: seconds of processes that no run had so far.
        held_s: seconds of all processes together; what is left of them was spent waiting for a run.
    """
    whole = total(runs)
    whole["start"] += starting_s
    whole["idle"] += max(0.0, held_s - sum(whole.values()))
    return whole
