"""A run in a store: made, taken over, read, and who leads it.

RUN/head.json       see `headway.runs.head`
    records/        sealed segments of its records: LEVEL-eEPOCH-END-NONCE-DIGEST
    files/          large files of its folder: eEPOCH-NONCE-NUMBER-DIGEST
    checkpoints/    step-00000400/e000003-NONCE/…, the manifest last
    logs/           what workers wrote

A listing only proposes: what counts is what the head names. Nothing is read by anybody else's clock.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from headway.core.lease import LENGTH_S, Watch
from headway.errors import BadInput
from headway.runs import head as heads
from headway.runs.epochs import Superseded
from headway.runs.head import HEAD, Head, Owner
from headway.runs.lease import Lease, superseded, swap
from headway.runs.refusals import Led, NoRun, Taken
from headway.runs.replay import bring_up_to_date
from headway.storage.commit import nonce
from headway.storage.protocol import ABSENT, Absent, OutOfReach, Storage

GLANCES = 15
"""How often a lease is looked at within its length by who waits for it."""
PATIENCE_S = 30.0

T = TypeVar("T")


@dataclass(frozen=True)
class Clock:
    """By which is waited."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


def nobody(_: str) -> None:
    """Says nothing to anybody."""


class RemoteRun:
    """A run in a store, which may not be there yet. All methods may raise OutOfReach.

    Args:
        place: that holds the runs.
        name: of the run.
        clock: of this process.
    """

    def __init__(self, place: Storage, name: str, clock: Clock | None = None) -> None:
        self.name = name
        self.storage = place.at(f"{name}/")
        """Of this run alone."""
        self._place, self._clock = place, clock or Clock()

    @property
    def url(self) -> str:
        return self.storage.url

    def create(self, brief: Mapping[str, Any], lease_s: float = LENGTH_S) -> Lease:
        """Make the run, and lead it.

        Raises:
            Taken: the name is.
        """
        head = Head(self.name, nonce(), 1, nonce(), 1, Owner.this(), time.time(), lease_s, brief=dict(brief))
        try:
            return self._lead(head, ABSENT)
        except Superseded:
            remedy = f"Choose another --name, or go on with it: headway resume {self.name}"
            raise Taken(f"{self.url} is taken", "a run of that name is there", remedy) from None

    def claim(self, say: Callable[[str], None] = nobody) -> Lease:
        """Lead the run from now on. Where nobody released it, it is watched first, for as long as a lease is.

        Raises:
            Led: another process leads it.
            NoRun: there is no such run.
        """
        return self._claim(say, self.look)

    def _claim(self, say: Callable[[str], None], look: Callable[[], tuple[Head, str]]) -> Lease:
        watch, told = Watch(), False
        while True:
            asked = self._clock.now()
            head, version = look()
            watch.saw(self._clock.now(), version)
            if head.released or watch.lapsed(asked, head.lease_s):
                try:
                    return self._adopt(self._lead(self._next(head), version))
                except Superseded:  # it lives after all, or somebody else was faster: the next look tells
                    continue
            if watch.moved:
                remedy = "Wait for its end, or stop that process."
                raise Led(f"run {self.name} is led elsewhere", f"by {head.owner}", remedy)
            if not told:
                say(f"run {self.name} was led by {head.owner}; waiting up to {head.lease_s:.0f} s to see if it lives")
                told = True
            self._clock.sleep(head.lease_s / GLANCES)

    def succeed(self, head: Head, version: str) -> Lease:
        """Lead the run after a process that is known to be dead, as what it wrote last says: nobody is waited for.

        Raises:
            Superseded: somebody wrote it since.
        """
        return self._adopt(self._lead(self._next(head), version))

    def join(self, epoch: int) -> Lease:
        """Go on with the lead that another process of ours took and hands over; it must not write any more, and cannot
        from now on.

        Raises:
            Superseded: the run is led in another epoch by now, or released.
        """
        while True:
            head, version = self.look()
            if head.epoch != epoch or head.released:
                raise superseded(replace(head, epoch=epoch), head)
            taken = replace(
                head, nonce=nonce(), beat=head.beat + 1, owner=replace(Owner.this(), since=head.owner.since)
            )
            try:
                return self._lead(taken, version)
            except Superseded:  # a late write of the other's, most likely
                continue

    def head(self) -> Head:
        """What the run is now.

        Raises:
            BadInput: there is no such run, or it is of a newer layout.
            BadData: its head is damaged.
        """
        return self.look()[0]

    def look(self) -> tuple[Head, str]:
        """The head, and its version."""
        head, version = self._look()
        if head.removed:
            raise BadInput(
                f"run {self.name} is being removed", f"by {head.owner}", "headway runs prune goes on with it."
            )
        return head, version

    def _look(self) -> tuple[Head, str]:
        try:
            content, version = self.storage.look(HEAD)
        except FileNotFoundError:
            raise NoRun(f"no run {self.name!r} in {self._place.url}", "", "headway runs lists them.") from None
        return heads.read(content, f"{self.url}/{HEAD}"), version

    def pull(self, folder: Path, led: Callable[[], bool] = lambda: False) -> Head:
        """Make a working copy of the run's records in a folder, or bring one up to date: it is then what the store has,
        and whatever else was written to it is gone. A folder that a process of this machine writes to (`Mirror`) is
        left alone: it is ahead of the store.

        Args:
            folder: of the working copy.
            led: whether the run is led from this folder, which nobody may be shipping at the moment. Asked when no
                other process can be at it.

        Returns:
            The head that the copy is of.

        Raises:
            BadData: a part of the records is missing or damaged; it is named.
            OSError: the folder cannot be written.
        """
        return bring_up_to_date(self.storage, self.head, folder, led)

    def remove(self, say: Callable[[str], None] = nobody) -> None:
        """Remove the run with all that is in it; one whose removal was interrupted too. Its head goes last: until then
        the name is taken, and nobody reads what is half gone.

        Raises:
            BadInput: another process leads it, or there is no such run.
        """
        lease = self._claim(say, self._look)
        lease.offer(removed=True)
        lease.settle()
        names = [entry.name for entry in self.storage.list() if entry.name != HEAD]
        self.storage.delete(names)
        lease.renew()  # or somebody else did all this meanwhile, and the name may be another run's
        self.storage.delete([HEAD])

    def counts(self, checkpoint: str, head: Head) -> bool:
        """Whether a checkpoint may be gone on from, by its folder or manifest in this run."""
        return head.counts(checkpoint)

    def _next(self, head: Head) -> Head:
        """The head by which this process takes the lead."""
        return replace(
            head,
            epoch=head.epoch + 1,
            nonce=nonce(),
            beat=head.beat + 1,
            owner=Owner.this(),
            at=time.time(),
            released=False,
            open=(*head.open, head.epoch),
        )

    def _adopt(self, lease: Lease) -> Lease:
        """Say which checkpoints of earlier leaders count; by a listing that was made after they could commit no more.

        A leader commits a checkpoint, looks whether it leads still, and only then removes older ones: so this finds
        what it committed, or what it left. Until this is said all of them count, should this process be stopped now.
        """
        found = self._patiently(lambda: self.storage.list("checkpoints/"))
        names = [entry.name for entry in found if entry.name.endswith("/manifest.json")]
        lease.offer(adopted=tuple(name.removesuffix("/manifest.json") for name in names if lease.head.counts(name)))
        self._patiently(lease.settle)
        return lease

    def _lead(self, head: Head, only_if: Absent | str) -> Lease:
        """Write the head by which this process leads."""
        content = head.content()

        def write() -> Lease:
            asked = self._clock.now()
            return Lease(self.storage, head, swap(self.storage, head, content, only_if), asked, self._clock.now)

        return self._patiently(write)

    def _patiently(self, action: Callable[[], T]) -> T:
        """Insists for a while where no answer comes."""
        began = self._clock.now()
        while True:
            try:
                return action()
            except OutOfReach:
                if self._clock.now() - began > PATIENCE_S:
                    raise
                self._clock.sleep(1.0)
