"""What is set aside because it cannot be used: counted, reported, and limited."""

from __future__ import annotations

import threading

from headway.data.read.reader import OnQuarantine
from headway.errors import BadData


class Quarantine:
    """The rows of one dataset that this process has set aside. From any thread.

    Args:
        source: the dataset, as the job names it.
        rows: of the dataset.
        limit: share of the rows that may be set aside.
        report: is told of every row group, once.
    """

    def __init__(self, source: str, rows: int, limit: float, report: OnQuarantine) -> None:
        self._source, self._rows, self._limit, self._report = source, rows, limit, report
        self._aside: dict[tuple[str, int], int] = {}
        self._lock = threading.Lock()

    @property
    def rows(self) -> int:
        """Set aside so far."""
        return sum(self._aside.values())

    def add(self, shard: str, group: int, rows: int, reason: str) -> None:
        """Set rows of a row group aside.

        Raises:
            BadData: they are too many by now.
        """
        with self._lock:
            fresh = (shard, group) not in self._aside
            self._aside[shard, group] = rows
            total = self.rows
        if fresh:
            self._report(self._source, shard, group, rows, reason)
        refuse_too_many(self._source, total, self._rows, self._limit, reason)


def refuse_too_many(source: str, aside: int, rows: int, limit: float, reason: str) -> None:
    """Raise if more rows are set aside than a share of all.

    Raises:
        BadData: saying how many, and why the latest were.
    """
    if aside > limit * rows:
        raise BadData(
            f"{aside} of the {rows} rows of {source} are set aside, more than data.quarantine_limit={limit:g}",
            f"the latest: {reason}",
            "Run `headway data check` on it and make it again, or raise the limit.",
        )


def report_nothing(source: str, shard: str, group: int, rows: int, reason: str) -> None:
    """An `OnQuarantine` for where nobody listens but the rows are counted all the same."""
