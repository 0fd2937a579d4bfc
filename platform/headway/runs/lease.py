"""To lead a run in a store: the head is written again and again, each time only if nobody else did.

A write whose answer is lost may have been done. So what was offered once is written until the store has told whether it
is there, unchanged, before anything else is; and a write that is refused is read back: what is there may be our own.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from headway.core.lease import Tenure
from headway.runs import head as heads
from headway.runs.epochs import Superseded
from headway.runs.head import HEAD, Head, Segment
from headway.storage.commit import commit
from headway.storage.protocol import ABSENT, Absent, Conflict, OutOfReach, Storage


@dataclass(frozen=True)
class _Attempt:
    """A write of the head, and the segment that must be there before."""

    head: Head
    content: bytes
    sealed: tuple[Segment, bytes] | None


class Lease:
    """The lead of a run, for as long as nobody else takes it. Its methods may be called from many threads.

    All of them raise OutOfReach (and BadInput, where the store refuses): then what was offered is not settled, and
    `settle` is to be called again before anything else is. They raise Superseded once another process leads: nothing of
    this one is taken any more.

    Args:
        storage: of the run.
        head: as this process wrote it.
        version: of the head.
        asked: when the write of it was begun, by the clock `now`.
    """

    def __init__(
        self, storage: Storage, head: Head, version: str, asked: float, now: Callable[[], float] = time.monotonic
    ) -> None:
        self.storage = storage
        self.head, self.version = head, version
        self.tenure = Tenure(head.lease_s, asked)
        self._now = now
        self._lock = threading.RLock()
        self._attempt: _Attempt | None = None
        self._more: tuple[str, ...] = ()

    @property
    def epoch(self) -> int:
        return self.head.epoch

    @property
    def settled(self) -> bool:
        """Whether it is known what the store has."""
        return self._attempt is None

    def commit(self, records: bytes = b"", brief: Mapping[str, Any] | None = None) -> None:
        """Add records to the run's, in one write; without any this renews the lease. brief: None for the one it has."""
        self.offer(records, brief)
        self.settle()

    def offer(
        self,
        records: bytes = b"",
        brief: Mapping[str, Any] | None = None,
        merged: tuple[tuple[Segment, ...], Segment] | None = None,
        released: bool = False,
        removed: bool = False,
        adopted: tuple[str, ...] | None = None,
    ) -> None:
        """Say what is to be written next; `settle` writes it.

        Args:
            records, brief: as for `commit`.
            merged: neighbouring segments, and the one that takes their place.
            released: whether nobody leads then.
            removed: whether nothing of the run is to be left: its records go with this.
            adopted: checkpoints of earlier epochs that count from now on, and no others.
        """
        with self._lock:
            if self._attempt is not None:
                raise RuntimeError("what was offered before is not settled")
            head, sealed = self.head.with_records(records)
            if merged is not None:
                head = head.merged(*merged)
            brief = head.brief if brief is None else brief
            head = replace(head, beat=head.beat + 1, at=time.time(), released=released, brief=brief)
            if adopted is not None:
                head = replace(head, adopted=adopted, open=())
            head, self._more = replace(head, adopted=(*head.adopted, *self._more)), ()
            if removed:
                head, sealed = replace(head, removed=True, segments=(), tail=b"", adopted=(), open=()), None
            self._attempt = _Attempt(head, head.content(), sealed)

    def settle(self) -> None:
        """Write what was offered, if anything was."""
        with self._lock:
            attempt = self._attempt
            if attempt is None:
                return
            if attempt.sealed is not None:
                put_once(self.storage, attempt.sealed[0].name, attempt.sealed[1])
            asked = self._now()
            self.version = swap(self.storage, attempt.head, attempt.content, self.version)
            self.head, self._attempt = attempt.head, None
            self.tenure.renewed(asked)

    def adopt(self, checkpoints: tuple[str, ...]) -> None:
        """Let these count too, by their folders in the run, from the next write on that is not offered yet."""
        with self._lock:
            self._more = (*self._more, *checkpoints)

    def renew(self) -> None:
        """Say that this process leads still."""
        self.commit()

    def release(self) -> None:
        """Lead no more: anybody may at once."""
        with self._lock:
            self.settle()
            if not self.head.released:
                self.offer(released=True)
                self.settle()

    def due(self) -> bool:
        """Whether it is to be written, even where there is nothing to tell."""
        return self.tenure.due(self._now())

    def sure(self) -> bool:
        """Whether nobody can have taken the lead who keeps to the rules."""
        return self.tenure.sure(self._now())


def put_once(storage: Storage, name: str, content: bytes) -> None:
    """Write an object whose name is made of its content; what is there already is the same."""
    try:
        storage.put(name, content, only_if=ABSENT)
    except Conflict:
        return


def swap(storage: Storage, head: Head, content: bytes, only_if: Absent | str) -> str:
    """Let this be the head if it is still the version that is known; returns the new one.

    Raises:
        Superseded: another process wrote it.
    """
    where = f"{storage.url}/{HEAD}"
    try:
        return commit(storage, HEAD, content, only_if)
    except Conflict:
        pass
    try:
        found, version = storage.look(HEAD)
    except FileNotFoundError:
        raise Superseded(f"run {head.run} was removed", f"{where} is not there any more", "") from None
    if found == content:  # a late answer's
        return version
    if version == only_if:
        raise OutOfReach(f"{where} was not written", "the store refused, though nobody had changed it", "")
    raise superseded(head, heads.read(found, where))


def superseded(head: Head, other: Head) -> Superseded:
    whose = f"its epoch is {other.epoch}, this one's {head.epoch}"
    remedy = "Follow the run there; nothing of this process is kept any more."
    return Superseded(f"another process leads run {head.run} ({other.owner})", whose, remedy)
