"""The keeper of a queue: turn by turn it hears wishes, looks at the cluster, decides, writes that down, has it done.

In this order, so that whatever ends it, whoever comes after finds in the book what was to be done. What is to be done
is to bring about what the book says: it is asked for until it is seen, and each time by the same name.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from headway.core import bookings, enqueued
from headway.core.bookings import Answer, Book, Wish
from headway.core.enqueued import Entry, Seen
from headway.core.queue import decide
from headway.core.queue_orders import Lacking, lacking
from headway.core.queued import Decision, Node, Pause, Refuse, Resize, Resume, Rules, Start
from headway.errors import HeadwayError
from headway.queues.cluster import Cluster
from headway.queues.place import YOUNG_S, QueuePlace, line
from headway.runs.lease import Lease
from headway.storage.protocol import OutOfReach

logger = logging.getLogger(__name__)

AGAIN_S = 1.0
"""Between two times that the same is asked of a run that has not heard it."""
SMALL_S = 2.0
"""Between two writes of what only people look at: steps, and why somebody waits."""
DECIDE_S = 1.0
"""It is decided anew after so long, also where nothing seems to have changed."""
CLEAR_S = 600.0


@dataclass
class _Known:
    """What this process remembers; nobody after it needs that."""

    asked: dict[str, float] = field(default_factory=dict)
    """When what was asked for last, by its name."""
    decided: tuple[object, ...] = ()
    decided_at: float = float("-inf")
    again_at: float | None = None
    lacks: Lacking | None = None
    written_at: float = float("-inf")
    cleared_at: float = float("-inf")
    seen: dict[str, Seen] = field(default_factory=dict)
    odd: dict[str, str] = field(default_factory=dict)
    """Jobs with which nothing can be decided, and why."""


class Keeper:
    """See the module.

    Args:
        place: of the queue.
        lease: of its book, by which this process leads.
        book: as that was read.
        cluster: that has the workers.
        clock: Unix seconds; those of the book.
    """

    def __init__(
        self, place: QueuePlace, lease: Lease, book: Book, cluster: Cluster, clock: Callable[[], float] = time.time
    ) -> None:
        self._place, self._lease, self._cluster, self._clock = place, lease, cluster, clock
        self.book = book
        """What the store is known to have."""
        self._offered: Book | None = None
        """What was offered to the store, which has not said that it took it."""
        self._answered: list[str] = []
        """Wishes that the book has the answers of."""
        self._known = _Known()

    def turn(self) -> None:
        """Once all of it.

        Raises:
            Superseded: another keeper leads the queue: nothing may be done any more.
        """
        try:
            if not self._lease.settled:  # an answer was lost: nothing else before it is known
                self._settle()
            self._turn()
        except OutOfReach as error:
            logger.warning("the queue's place is out of reach: %s", error)

    def release(self) -> None:
        """Let another keep it."""
        with suppress(HeadwayError, OSError):
            self._lease.release()

    def _turn(self) -> None:
        now, lines = self._clock(), bytearray()
        wishes = self._place.wishes()
        book = self.book
        if wishes:  # by which it may be otherwise
            self._known.odd = {}
        for _, wish in wishes:
            book = bookings.apply(book, wish, now)
        book = self._looked(book, now, lines)
        try:
            book = self._decided(book, now, lines)
        except Exception:  # a fault of ours; what one wish or entry does to a decision must not stop the queue
            logger.exception("nothing could be decided: whose fault that is is looked for")
            lines = bytearray()
            book = self._looked(self._without_fault([wish for _, wish in wishes], now), now, lines)
        book = bookings.tidied(book, {wish.id for _, wish in wishes})
        self._write(book, bytes(lines), now)
        self._answered = [name for name, wish in wishes if wish.id in self.book.answers]
        self._place.forget(self._answered)
        if self._lease.sure():
            self._carry_out(now)
        self._clear(now)

    # Where nothing can be decided

    def _without_fault(self, wishes: list[Wish], now: float) -> Book:
        """The book with those wishes that can be decided with: the one at fault is refused. Entries at fault that were
        there before are left out of decisions. It is decided in the next turn."""
        book, known = self.book, self._known
        known.decided = ()
        nodes = self._cluster.nodes([entry.run for entry in book.alive]) or []
        sane = _error(now, self._taking_part(book), nodes, book.rules) is None
        for wish in wishes:
            after = bookings.apply(book, wish, now)
            error = _error(now, self._taking_part(after), nodes, after.rules) if sane else None
            book = after if error is None else bookings.refused(book, wish, error)
        if not sane and _error(now, [], nodes, Rules()) is None:
            known.odd |= _at_fault(now, self._taking_part(book), nodes)
        return book

    def _taking_part(self, book: Book) -> list[Entry]:
        """In decisions."""
        return [entry for entry in book.alive if entry.run not in self._known.odd]

    # To know

    def _looked(self, book: Book, now: float, lines: bytearray) -> Book:
        """With what became of those that hold workers."""
        self._known.seen = {}
        for entry in book.alive:
            if not entry.holds and not entry.prepared:
                continue
            seen = self._known.seen[entry.run] = self._cluster.seen(entry)
            after = enqueued.saw(entry, seen, now)
            if after is entry:
                continue
            book = book.put(after)
            if (after.state, after.workers) != (entry.state, entry.workers):
                lines += line(now, entry.run, after.state, after.workers, after.why or f"it is {after.state}")
        return book

    # To decide

    def _decided(self, book: Book, now: float, lines: bytearray) -> Book:
        nodes = self._cluster.nodes([entry.run for entry in book.alive])
        if nodes is None:  # nobody can be asked: what was decided stands
            return book
        alive = self._taking_part(book)
        still = tuple(entry.queued(entry.since) for entry in alive)
        asked = (still, tuple(nodes), book.rules)
        known = self._known
        due = known.again_at is not None and now >= known.again_at
        if asked == known.decided and not due and now - known.decided_at < DECIDE_S:
            return book
        known.decided, known.decided_at = asked, now
        grows = self._cluster.grows()
        rules = replace(book.rules, could_come=None if grows else ())
        jobs = [entry.queued(now) for entry in alive]
        found = decide(now, jobs, nodes, rules)
        known.again_at = found.again_at
        known.lacks = lacking(now, jobs, nodes, rules, found.waits) if grows else None
        return self._taken(book, found, now, lines)

    def _taken(self, book: Book, found: Decision, now: float, lines: bytearray) -> Book:
        """The book with a decision."""
        off, waits, never = dict[str, str](), dict(found.waits), set(self._known.odd)
        for action in found.actions:
            before = book.entries[action.job]
            if isinstance(action, Refuse):
                book = self._refused(book, before, action)
                if action.job in book.entries:
                    waits[action.job] = f"{action.reason}: {action.remedy}"
                    never.add(action.job)
                continue
            if not isinstance(action, Pause) and action.not_before:  # it is decided again until they have given up
                if before.state in enqueued.WAITS:
                    off[action.job] = action.reason
                continue
            if isinstance(action, Pause):
                after = enqueued.paused(before, now, action.reason)
                why = action.reason
            else:
                after = enqueued.granted(before, action.size, now, action.reason, _left(action))
                why = action.reason
            if after is None or after == before:
                continue
            book = book.put(after)
            lines += line(now, action.job, type(action).__name__.lower(), after.workers, why)
        return _prepared(replace(book, waits={**off, **waits, **self._known.odd}), never)

    def _refused(self, book: Book, entry: Entry, action: Refuse) -> Book:
        """One that can never run here, as things are. Whoever submits it now is told, and it never was in the queue;
        one that was taken before waits for what is lacking: a machine may have gone that comes again."""
        for name, answer in book.answers.items():
            if name not in self.book.answers and answer.run == entry.run:
                told = Answer("", action.fact, action.reason, action.remedy)
                rest = {run: each for run, each in book.entries.items() if run != entry.run}
                return replace(book, entries=rest, answers={**book.answers, name: told})
        return book

    # To write

    def _write(self, book: Book, lines: bytes, now: float) -> None:
        """Have the book in the store, where it is another one; else say now and then that this process leads."""
        if book != self.book and (
            lines or _large(book) != _large(self.book) or now - self._known.written_at >= SMALL_S
        ):
            self._lease.offer(lines, bookings.to_tree(book))
            self._offered = book
            self._settle()
            self._known.written_at = now
        elif self._lease.due():
            self._lease.renew()

    def _settle(self) -> None:
        self._lease.settle()
        self.book = self._offered or self.book
        self._offered = None

    # To do

    def _carry_out(self, now: float) -> None:
        """Bring about what the book says, where it is not seen to be so; and have ordered what somebody lacks."""
        lacks = self._known.lacks
        waits = self.book.entries.get(lacks.job) if lacks is not None else None
        with suppress(HeadwayError, OSError):
            self._cluster.order(waits, lacks.workers if lacks is not None and waits is not None else 0)
        for entry in sorted(self.book.alive, key=lambda entry: entry.state == "starting"):  # first who gives up
            seen = self._known.seen.get(entry.run)
            if not (entry.holds or entry.prepared) or (seen is not None and seen.phase in ("unknown", "over")):
                continue
            absent = seen is None or seen.phase == "absent"
            if entry.state == "pausing":
                self._ask(f"pause {entry.start}", now, lambda entry=entry: self._cluster.pause(entry))  # type: ignore[misc]
            elif absent:
                self._ask(f"start {entry.start}", now, lambda entry=entry: self._cluster.start(entry))  # type: ignore[misc]
            elif entry.holds and entry.orders and seen is not None and seen.request != entry.order:
                self._ask(f"resize {entry.order}", now, lambda entry=entry: self._cluster.resize(entry))  # type: ignore[misc]

    def _ask(self, name: str, now: float, act: Callable[[], None]) -> None:
        """Not again at once."""
        if now - self._known.asked.get(name, float("-inf")) < AGAIN_S:
            return
        self._known.asked[name] = now
        try:
            act()
        except (HeadwayError, OSError) as error:  # it is asked again
            logger.warning("could not %s: %s", name, error)

    def _clear(self, now: float) -> None:
        """Of what nobody needs any more."""
        if now - self._known.cleared_at < CLEAR_S:
            return
        self._known.cleared_at = now
        self._place.clear(self.book.parcels, YOUNG_S)
        alive = {entry.start for entry in self.book.alive}
        self._known.asked = {
            name: at for name, at in self._known.asked.items() if any(start in name for start in alive)
        }


def _error(now: float, entries: Sequence[Entry], nodes: Sequence[Node], rules: Rules) -> Exception | None:
    """What comes of deciding on these."""
    try:
        decide(now, [entry.queued(now) for entry in entries], nodes, rules)
    except Exception as error:  # whatever it is, it is told
        return error
    return None


def _at_fault(now: float, entries: Sequence[Entry], nodes: Sequence[Node]) -> dict[str, str]:
    """Those of these with which, whatever the rules, nothing can be decided, and why."""
    error = _error(now, entries, nodes, Rules())
    if error is None:
        return {}
    if len(entries) == 1:
        return {entries[0].run: f"nothing can be decided with it in the queue, a fault of Headway's: {error!r}"}
    half = len(entries) // 2
    return _at_fault(now, entries[:half], nodes) | _at_fault(now, entries[half:], nodes)


def _prepared(book: Book, never: set[str]) -> Book:
    """The next of those that wait have all ready but their workers; not those that can never run as things are."""
    many = book.prepared - sum(entry.prepared for entry in book.alive)
    for run in book.waits:
        entry = book.entries.get(run)
        waits = entry is not None and entry.state in enqueued.WAITS and not entry.prepared
        if many > 0 and entry is not None and waits and run not in never:
            book, many = book.put(enqueued.prepared(entry)), many - 1
    return book


def _left(action: Start | Resize | Resume) -> tuple[str, ...]:
    """Nodes that had best be left, once for each worker there."""
    if not isinstance(action, Resize):
        return ()
    return tuple(node for node, workers in action.leave for _ in range(workers))


def _large(book: Book) -> Book:
    """Without what changes all the time, and nobody's decisions hang on."""
    still = {run: replace(entry, steps=0, rest_s=None, done_s=None, held_s=0.0) for run, entry in book.entries.items()}
    return replace(book, entries=still, waits={})
