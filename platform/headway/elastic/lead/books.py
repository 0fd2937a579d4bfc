"""The account of all workers: seconds by cause, which add up to the times that places were held.

It is kept as sums, so that a look at it costs the same whatever the number of workers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from headway.core import ledger
from headway.core.ledger import BOOKED, CAUSES


@dataclass
class _Account:
    opened_s: float
    before_s: float = 0.0
    """Seconds between getting its place and the beginning of its own account."""
    said: tuple[float, ...] = ()

    def booked(self) -> dict[str, float]:
        """The worker's own account, from when it got its place."""
        found = dict(zip(BOOKED, self.said, strict=False))
        return {**found, "start": found["start"] + self.before_s} if found else {}


class Books:
    """See the module. `now` is in seconds on one clock that does not go back."""

    def __init__(self) -> None:
        self._open: dict[str, _Account] = {}
        self._closed: dict[str, float] = {}
        self._since: float | None = None
        """When the first was opened; others count from there, so that sums stay exact."""
        self._said = [0.0] * len(BOOKED)
        """The sum of the open accounts."""
        self._before_s = 0.0
        """Of those of them of whom anything is said; their number, and when they were opened, likewise."""
        self._speaking, self._opened_s = 0, 0.0
        self._all_opened_s = 0.0

    def open(self, worker: str, now: float) -> None:
        """It has got its place."""
        self._since = now if self._since is None else self._since
        self._drop(worker)
        self._open[worker] = _Account(now - self._since)
        self._all_opened_s += now - self._since

    def begun(self, worker: str, age_s: float, now: float) -> None:
        """Its own account is so old."""
        account = self._open[worker]
        before_s = max(0.0, now - (self._since or 0.0) - account.opened_s - age_s)
        if account.said:
            self._before_s += before_s - account.before_s
        account.before_s = before_s

    def take(self, worker: str, said: Sequence[float]) -> None:
        """Its own account so far, as of `ledger.BOOKED`. Raises ValueError for one that it cannot be."""
        if len(said) != len(BOOKED):
            raise ValueError("not an account")
        account = self._open[worker]
        if account.said:
            self._said = [whole + new - old for whole, new, old in zip(self._said, said, account.said, strict=True)]
        else:
            self._add(account, said, 1)
        account.said = tuple(said)

    def close(self, worker: str, lost: bool, now: float) -> None:
        """Its place is free again. lost: what it did since its last committed step is."""
        account = self._drop(worker)
        if account is not None:
            lifetime_s = now - (self._since or 0.0) - account.opened_s
            self._closed = ledger.total([self._closed, ledger.closed(account.booked(), lifetime_s, lost=lost)])

    def total(self, now: float) -> dict[str, float]:
        """Seconds by cause of all workers so far."""
        at = now - (self._since if self._since is not None else now)
        running = dict(zip(CAUSES, self._said, strict=False))
        running["start"] += self._before_s
        running["idle"] += self._speaking * at - self._opened_s - sum(running.values())
        mute = len(self._open) - self._speaking
        running["start"] += mute * at - (self._all_opened_s - self._opened_s)
        return ledger.total([self._closed, running])

    def _drop(self, worker: str) -> _Account | None:
        account = self._open.pop(worker, None)
        if account is not None:
            self._all_opened_s -= account.opened_s
            if account.said:
                self._add(account, account.said, -1)
        return account

    def _add(self, account: _Account, said: Sequence[float], sign: int) -> None:
        self._said = [whole + sign * seconds for whole, seconds in zip(self._said, said, strict=True)]
        self._before_s += sign * account.before_s
        self._opened_s += sign * account.opened_s
        self._speaking += sign
