"""Where a queue lies: beside the runs of its jobs, in their folder or store.

    PLACE/.queue/head.json       the book, and the lease of who leads it; its newest decisions
                 records/        earlier decisions
                 wishes/         what somebody asks; taken away once the book has the answer
                 parcels/        what travels with jobs that wait, by digests

The head is written as a run's is (`headway.runs.lease`): whole, on the condition that nobody else did. So nothing that
a keeper decides counts unless it leads.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from headway.core import bookings
from headway.core.bookings import Book, Wish
from headway.errors import BadData
from headway.runs.epochs import Superseded
from headway.runs.head import Head
from headway.runs.lease import Lease, put_once
from headway.runs.place import Place
from headway.runs.refusals import NoRun, Taken
from headway.runs.remote import Clock, RemoteRun
from headway.runs.stream import unpack
from headway.storage.commit import nonce
from headway.storage.folder import FolderStorage
from headway.storage.protocol import Storage

NAME = ".queue"
WISHES, PARCELS = "wishes/", "parcels/"
LEASE_S = 9.0
"""Of the book: shorter than a run's, since nothing is lost where two keepers take it from each other."""
LIVES_S = 3 * LEASE_S
"""A keeper that was heard of since then is believed to be there; by two machines' clocks."""

YOUNG_S = 3600.0
"""So long parcels are kept that no entry names: a submission writes them first."""


def storage_of(place: Place) -> Storage:
    """The store that holds the runs of a place."""
    if place.url is None:
        return FolderStorage(place.folder.resolve())
    from headway.runs import far

    return far.storage_of(place.url, far.quick(far.settings()))


class QueuePlace:
    """A queue's folder. All methods may raise OutOfReach, and BadInput where the place refuses.

    Args:
        storage: that holds the runs.
        clock: of this process.
    """

    def __init__(self, storage: Storage, clock: Clock | None = None) -> None:
        self._run = RemoteRun(storage, NAME, clock)
        self.storage = self._run.storage

    # The book

    def lead(self, cluster: str) -> Lease:
        """Lead the queue from now on; made where there is none.

        Raises:
            Led: another keeper does.
        """
        try:
            return self._run.claim()
        except NoRun:
            pass
        with suppress(Taken):
            return self._run.create(bookings.to_tree(Book(cluster=cluster)), LEASE_S)
        return self._run.claim()

    def take_over(self, before: tuple[str, int]) -> Lease | None:
        """Lead at once, where the last who led was this process's own predecessor, which is known to be dead. None: it
        was not, or there is no queue.

        Args:
            before: its host and process.
        """
        try:
            head, version = self._run.look()
        except NoRun:
            return None
        if (head.owner.host, head.owner.pid) != before:
            return None
        try:
            return self._run.succeed(head, version)
        except Superseded:
            return None

    def read(self) -> tuple[Book, Head] | None:
        """The book, and who leads it; None where there is no queue.

        Raises:
            BadData: it is damaged.
        """
        try:
            head = self._run.head()
        except NoRun:
            return None
        return book_of(head), head

    def decisions(self) -> Iterator[dict[str, Any]]:
        """What was decided, oldest first: {"time", "run", "do", "workers", "why"}."""
        try:
            head = self._run.head()
        except NoRun:
            return
        for segment in head.segments:
            yield from _lines(b"".join(unpack([self.storage.get(segment.name)])))
        yield from _lines(head.tail)

    # Wishes

    def wish(self, do: str, by: str, what: dict[str, Any]) -> Wish:
        """Ask something of the queue."""
        made = Wish(nonce(), do, by, time.time(), what)
        self.storage.put(_wish(made.id, made.at), json.dumps(asdict(made)).encode())
        return made

    def withdraw(self, wish: Wish) -> None:
        """Nobody waits for it any more. It may have been taken."""
        self.storage.delete([_wish(wish.id, wish.at)])

    def wishes(self) -> list[tuple[str, Wish]]:
        """All that lie there, as they were made, with the names of their objects. One that cannot be read is one that
        cannot be granted."""
        found = []
        for entry in self.storage.list(WISHES):
            with suppress(FileNotFoundError):
                found.append((entry.name, _read(entry.name, self.storage.get(entry.name))))
        return found

    def forget(self, names: Iterable[str]) -> None:
        """The book has their answers."""
        names = list(names)
        if names:
            self.storage.delete(names)

    # What travels

    def keep(self, name: str, content: bytes) -> str:
        """Keep a parcel; returns its name here. One that is there and old is written anew: it might be cleared away
        before the book has who needs it."""
        whole = f"{PARCELS}{name}"
        if any(each.name == whole and each.age_s > YOUNG_S / 2 for each in self.storage.list(PARCELS)):
            self.storage.put(whole, content)
        else:
            put_once(self.storage, whole, content)
        return name

    def parcel(self, name: str) -> bytes:
        """Raises FileNotFoundError."""
        return self.storage.get(f"{PARCELS}{name}")

    def clear(self, kept: set[str], older_s: float) -> None:
        """Remove parcels that no entry needs, and that are as old as that: a submission may be on its way."""
        found = self.storage.list(PARCELS)
        gone = [each.name for each in found if each.name.removeprefix(PARCELS) not in kept and each.age_s > older_s]
        if gone:
            self.storage.delete(gone)


def book_of(head: Head) -> Book:
    """Raises BadData: it is damaged."""
    try:
        return bookings.from_tree(head.brief or {})
    except ValueError as error:
        remedy = "Nothing was guessed: put an older copy of it back, or move the folder away to begin another queue."
        raise BadData(f"the queue's book {NAME} cannot be read", str(error), remedy) from None


def lives(head: Head) -> bool:
    """Whether it looks as if somebody kept the queue."""
    return not head.released and abs(time.time() - head.at) < max(LIVES_S, head.lease_s)


def line(now: float, run: str, do: str, workers: int, why: str) -> bytes:
    """A decision, as it is kept."""
    return json.dumps({"time": round(now, 3), "run": run, "do": do, "workers": workers, "why": why}).encode() + b"\n"


def _lines(content: bytes) -> Iterator[dict[str, Any]]:
    for each in content.splitlines():
        with suppress(ValueError):
            yield json.loads(each)


def _wish(name: str, at: float) -> str:
    return f"{WISHES}{int(at * 1000):014d}-{name}.json"


def _read(name: str, content: bytes) -> Wish:
    try:
        tree = json.loads(content)
        return Wish(str(tree["id"]), str(tree["do"]), str(tree["by"]), float(tree["at"]), dict(tree["what"]))
    except (ValueError, KeyError, TypeError):
        return Wish(name, "read it", "somebody", 0.0, {})
