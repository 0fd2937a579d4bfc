"""The account of all workers: seconds by cause, which add up to the times that places were held."""

from __future__ import annotations

from dataclasses import dataclass, field

from headway.core import ledger


@dataclass
class _Account:
    opened_at: float
    before_s: float = 0.0
    """Seconds between getting its place and the beginning of its own account."""
    said: dict[str, float] = field(default_factory=dict)

    def booked(self) -> dict[str, float]:
        """The worker's own account, from when it got its place."""
        return {**self.said, "start": self.said["start"] + self.before_s} if self.said else {}


class Books:
    """See the module. `now` is in seconds on one clock that does not go back."""

    def __init__(self) -> None:
        self._open: dict[str, _Account] = {}
        self._closed: dict[str, float] = {}

    def open(self, worker: str, now: float) -> None:
        """It has got its place."""
        self._open[worker] = _Account(now)

    def begun(self, worker: str, age_s: float, now: float) -> None:
        """Its own account is so old."""
        account = self._open[worker]
        account.before_s = max(0.0, now - account.opened_at - age_s)

    def take(self, worker: str, said: dict[str, float]) -> None:
        """Its own account so far. Raises ValueError for one that it cannot be."""
        if set(said) != {*ledger.CAUSES, "open"}:
            raise ValueError("not an account")
        self._open[worker].said = said

    def close(self, worker: str, lost: bool, now: float) -> None:
        """Its place is free again. lost: what it did since its last committed step is."""
        account = self._open.pop(worker, None)
        if account is not None:
            self._closed = ledger.total(
                [self._closed, ledger.closed(account.booked(), now - account.opened_at, lost=lost)]
            )

    def total(self, now: float) -> dict[str, float]:
        """Seconds by cause of all workers so far."""
        accounts = list(self._open.values())
        running = [ledger.closed(a.booked(), now - a.opened_at, lost=False) for a in accounts]
        return ledger.total([self._closed, *running])
