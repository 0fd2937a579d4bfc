"""The lanes' walks over one dataset: windows of row groups in memory, their rows in the order they are taken in."""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections import Counter, OrderedDict
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from headway.core.order import Order, Rows, Window
from headway.data.arrays import Array
from headway.data.read.ahead import Once
from headway.data.read.gather import Gathering, Mask, Memory
from headway.data.read.groups import Group, Groups
from headway.data.read.lay import Lay

Place = tuple[int, int, int]
"""A window's lane, epoch and index."""

FIRST_GUESS = 4.0  # bytes in memory for each byte stored, until it is known


@dataclass(frozen=True)
class Opened:
    """A window in memory, without the rows that are set aside.

    Args:
        content: the rows in the order in which they are taken: an Arrow table, or arrays by name. None if none is left.
        ids: of the rows, shape [rows].
        kept: which of the rows taken are there, shape [window.rows]; None for all.
        before: how many rows are there before each place of the walk, shape [window.rows + 1]; None as above.
        bytes: of the content.
        lay: where the batches of arrays begin, each at an aligned address; None: row after row, wherever that is.
        pads: rows that are left free behind each batch, by column; empty where none are.
    """

    content: pa.Table | dict[str, Array] | None
    ids: Rows
    kept: Mask | None
    before: Rows | None
    bytes: int
    lay: Lay | None = None
    pads: Mapping[str, int] = field(default_factory=dict)


@dataclass
class Held:
    """A window that is in memory, or on its way there.

    Args:
        window: of the order.
        first: the lane's rows from the run's beginning up to the window.
        guess: at its bytes.
        opened: its rows.
        given: where slices begin whose memory was handed out.
    """

    window: Window
    first: int
    guess: int
    opened: Once[Opened]
    given: set[int] = field(default_factory=set)

    @property
    def end(self) -> int:
        return self.first + self.window.rows

    @property
    def bytes(self) -> int:
        opened = self.opened.value
        return self.guess if opened is None else opened.bytes


class Reach(NamedTuple):
    """Rows [low, high) that are taken from a window."""

    place: Place
    window: Window
    low: int
    high: int


class Slice(NamedTuple):
    """Rows [start, stop) of what is left of a window.

    Args:
        opened: the window.
        start, stop: as above.
        ids: of these rows.
        kept: which of the rows asked for they are; None for all.
    """

    opened: Opened
    start: int
    stop: int
    ids: Rows
    kept: Mask | None

    def arrays(self) -> dict[str, Array]:
        """The rows of a batch by name; views."""
        start, stop, content, lay = self.start, self.stop, self.opened.content, self.opened.lay
        assert isinstance(content, dict)
        if lay is None or not self.opened.pads:
            return {name: array[start:stop] for name, array in content.items()}
        pads, number = self.opened.pads, max((start - lay.first) // lay.batch, 0)
        rows = stop - start
        return {name: array[(at := start + number * pads[name]) : at + rows] for name, array in content.items()}

    def table(self) -> pa.Table:
        """The rows, without a copy."""
        assert isinstance(self.opened.content, pa.Table)
        return self.opened.content.slice(self.start, self.stop - self.start)


class Windows:
    """See the module. From any thread.

    Args:
        groups: reads the dataset.
        order: of its rows.
        share_bytes: the most that is kept of row groups which several windows need.
        help_with: is given what another thread may do of a window that is being opened.
    """

    def __init__(
        self, groups: Groups, order: Order, share_bytes: int, help_with: Callable[[Callable[[], object]], None]
    ) -> None:
        self.groups, self.order, self._help_with = groups, order, help_with
        self.as_arrays = True
        self._held: dict[Place, Held] = {}
        self._lock = threading.Lock()
        self._shared = Shared(groups, share_bytes)
        self._uses: dict[int, Counter[int]] = {}
        self._from: dict[int, int] = {}
        self._lists: dict[tuple[int, int], tuple[Sequence[Window], list[int]]] = {}
        self._stored = self._decoded = 0.0
        self._with_nulls: set[str] = set()
        self._memory = Memory()

    def length(self, lane: int) -> int:
        """Rows of a lane's walk through an epoch."""
        return self.order.length(lane)

    def reaches(self, lane: int, epoch: int, start: int, stop: int) -> list[Reach]:
        """Where rows [start, stop) of a lane's walk through an epoch lie, window by window."""
        windows, firsts = self._windows_of(lane, epoch)
        found = []
        at = bisect_right(firsts, start) - 1
        while at < len(windows) and firsts[at] < stop:
            window, first = windows[at], firsts[at]
            found.append(Reach((lane, epoch, at), window, max(start - first, 0), min(stop - first, window.rows)))
            at += 1
        return found

    def slices(self, reaches: Sequence[Reach], alone: bool) -> Iterator[Slice]:
        """The rows themselves.

        Args:
            reaches: where they are.
            alone: their memory will be given away: rows that were given away before are read anew.
        """
        for place, window, low, high in reaches:
            held = self._held.get(place) or self.hold(place, window)
            if alone:
                if low in held.given:
                    held = self.hold(place, window, anew=True)
                held.given.add(low)
            opened = held.opened.get()
            if opened.kept is None or opened.before is None:
                yield Slice(opened, low, high, opened.ids[low:high], None)
            else:
                start, stop = int(opened.before[low]), int(opened.before[high])
                yield Slice(opened, start, stop, opened.ids[start:stop], opened.kept[low:high])

    def hold(self, place: Place, window: Window, anew: bool = False) -> Held:
        """The window, to be opened by whoever needs it first."""
        with self._lock:
            held = self._held.get(place)
            if held is None or anew:
                lane, epoch, _ = place
                held = Held(
                    window,
                    epoch * self.length(lane) + window.first,
                    self.guess(window),
                    Once(lambda: self._open(lane, epoch, window)),
                )
                self._held[place] = held
            return held

    def holds(self, place: Place) -> bool:
        with self._lock:
            return place in self._held

    def coming(self, lane: int, position: int, again: bool) -> Iterator[tuple[Place, Window, int]]:
        """The windows that a lane needs from a position of its walk on, and how many rows from there.

        Args:
            position: rows from the run's beginning.
            again: epoch after epoch; False: to the epoch's end.
        """
        length = self.length(lane)
        if not length:
            return
        epoch, row = divmod(position, length)
        while True:
            windows, firsts = self._windows_of(lane, epoch)
            for window in windows[max(bisect_right(firsts, row) - 1, 0) :]:
                yield (lane, epoch, window.index), window, max(0, epoch * length + window.first - position)
            if not again:
                return
            epoch, row = epoch + 1, 0

    def passed(self, lane: int, position: int | None, needed: set[Place]) -> None:
        """A lane has come so far, and needs these windows now. No position: it needs no others later either."""
        with self._lock:
            mine = [(place, held) for place, held in self._held.items() if place[0] == lane and place not in needed]
            for place, held in mine:
                if position is None or held.end <= position:
                    del self._held[place]

    def lies_behind(self, place: Place, window: Window, position: int) -> bool:
        """Whether a lane at a position of its walk has left a window behind."""
        lane, epoch, _ = place
        return epoch * self.length(lane) + window.first + window.rows <= position

    def keep(self, lanes: Mapping[int, int]) -> None:
        """Only these lanes are needed from now on, from these positions on."""
        with self._lock:
            self._held = {
                place: held for place, held in self._held.items() if place[0] in lanes and held.end > lanes[place[0]]
            }
            self._uses.clear()
            self._from = dict(lanes)
            if not lanes:
                self._shared.clear()
                self._memory.clear()

    def ahead(self, positions: Mapping[int, int]) -> list[int]:
        """Bytes of each window that begins at or after its lane's position, of the lanes that have one."""
        with self._lock:
            mine = [(positions.get(place[0]), held) for place, held in self._held.items()]
            return [held.bytes for position, held in mine if position is not None and held.first >= position]

    def waiting(self) -> list[int]:
        """Row groups of the windows that are not open yet."""
        with self._lock:
            held = sorted((h for h in self._held.values() if h.opened.value is None), key=lambda h: h.first)
        return [piece.group for h in held for piece in h.window.pieces]

    def guess(self, window: Window) -> int:
        """At a window's bytes in memory."""
        return int(self._bytes_stored(window) * (self._decoded / self._stored if self._stored else FIRST_GUESS))

    def _windows_of(self, lane: int, epoch: int) -> tuple[Sequence[Window], list[int]]:
        """A lane's windows, and where they begin; the order's own look-up is too slow for every batch."""
        found = self._lists.get((lane, epoch))
        if found is None:
            windows = self.order.windows(epoch, lane)
            found = windows, [window.first for window in windows]
            for place in [p for p in list(self._lists) if p[0] == lane and abs(p[1] - epoch) > 1]:
                self._lists.pop(place, None)
            self._lists[lane, epoch] = found
        return found

    def _bytes_stored(self, window: Window) -> float:
        manifest, stored = self.groups.files.manifest, 0.0
        for piece in window.pieces:
            shard, index = manifest.locate(piece.group)
            group = shard.row_groups[index]
            stored += group.bytes / group.rows * (piece.stop - piece.start)
        return stored

    def _open(self, lane: int, epoch: int, window: Window) -> Opened:
        order = self.order.window_order(epoch, lane, window)
        ids = self.order.ids(window)[order]
        uses, batch = self._uses_of(epoch), self.order.lane_batch
        lay = Lay(-window.first % batch, batch) if self.as_arrays else None
        while True:
            opening = Opening(window, order, self._memory, self._with_nulls, lay)
            pieces = [
                Once(partial(opening.put, number, self._shared.begin(epoch, piece.group, uses)))
                for number, piece in enumerate(window.pieces)
            ]
            for piece in reversed(pieces[1:]):  # the last first, so that helpers meet this thread in the middle
                self._help_with(piece.help)
            with_nulls = {name for piece in pieces if (name := piece.get()) is not None}
            self._shared.trim()
            if not with_nulls:
                break
            self._with_nulls |= with_nulls
        kept = before = None
        if opening.bad.any():
            kept = ~opening.bad[order]
            before = np.concatenate([[0], np.cumsum(kept)])
            ids = ids[kept]
        gathering = opening.gathering
        if gathering is None or not len(ids):
            return Opened(None, ids, kept, before, 0)
        content = gathering.arrays(kept) if self.as_arrays else gathering.table(kept)
        with self._lock:
            self._decoded += gathering.bytes
            self._stored += self._bytes_stored(window)
        lay = gathering.lay if kept is None else None
        return Opened(content, ids, kept, before, gathering.bytes, lay, gathering.pads)

    def _uses_of(self, epoch: int) -> Counter[int]:
        """How many windows of an epoch need a row group and are yet to be opened, for the lanes that are kept.

        Row groups that one window needs, almost all of them, are left out.
        """
        with self._lock:
            known, lanes, held = self._uses.get(epoch), self._from, dict(self._held)
        if known is not None:
            return known
        counts: Counter[int] = Counter()
        for lane, position in lanes.items():
            first = epoch * self.length(lane)
            for window in self._windows_of(lane, epoch)[0]:
                there = held.get((lane, epoch, window.index))
                if first + window.first + window.rows > position and (there is None or there.opened.value is None):
                    counts.update(piece.group for piece in window.pieces)
        with self._lock:
            if lanes is self._from and epoch not in self._uses:
                self._shared.only(epoch, counts)
                self._uses = {e: c for e, c in self._uses.items() if e == epoch - 1}
                self._uses[epoch] = Counter({g: n for g, n in counts.items() if n > 1 or (epoch, g) in self._shared})
            return self._uses.get(epoch, Counter())


class Opening:
    """A window that is being opened: its pieces come in any order, from any threads.

    Args:
        window: of the order.
        order: of its rows.
        memory: for them.
        with_nulls: columns that are known to have nulls.
        lay: where batches begin.
    """

    def __init__(
        self, window: Window, order: Rows, memory: Memory, with_nulls: Container[str], lay: Lay | None
    ) -> None:
        self._window, self._order, self._memory, self._with_nulls = window, order, memory, with_nulls
        self._lay = lay
        self._sizes = [piece.stop - piece.start for piece in window.pieces]
        self._begins = [0, *accumulate(self._sizes)]
        self._lock = threading.Lock()
        self.gathering: Gathering | None = None
        """Of the rows that could be read; None as long as there are none."""
        self.bad: Mask = np.zeros(sum(self._sizes), np.bool_)
        """Which rows, as the pieces lie, are set aside."""

    def put(self, number: int, once: Once[Group]) -> str | None:
        """Take in a piece of its row group; returns the column that has nulls and was not known to."""
        group, piece = once.get(), self._window.pieces[number]
        if group.bad is not None:
            self.bad[self._begins[number] : self._begins[number + 1]] = group.bad[piece.start : piece.stop]
        if group.table is None:
            return None
        with self._lock:
            if self.gathering is None:
                rows = (group.table.schema, self._sizes, self._order)
                self.gathering = Gathering(*rows, self._memory, self._with_nulls, self._lay)
        return self.gathering.put(number, group.table.slice(piece.start, self._sizes[number]))


class Shared:
    """Row groups that several windows need are read once and kept for the others, within a limit of bytes.

    Args:
        groups: reads them.
        most: bytes kept.
    """

    def __init__(self, groups: Groups, most: int) -> None:
        self._groups, self._most = groups, most
        self._kept: OrderedDict[tuple[int, int], Once[Group]] = OrderedDict()
        self._lock = threading.Lock()

    def begin(self, epoch: int, group: int, uses: Counter[int]) -> Once[Group]:
        """A row group, to be read. uses: by row group, how many windows will ask for it; it is counted down here."""
        place = (epoch, group)
        with self._lock:
            once = self._kept.get(place)
            if once is None:
                once = Once(lambda: self._groups.load(group))
                if uses[group] > 1:
                    self._kept[place] = once
            uses[group] -= 1
            if uses[group] < 1:
                self._kept.pop(place, None)
            return once

    def __contains__(self, place: tuple[int, int]) -> bool:
        return place in self._kept

    def only(self, epoch: int, uses: Counter[int]) -> None:
        """Keep only what is still needed in an epoch, and nothing of those before."""
        with self._lock:
            for place in [p for p in self._kept if p[0] < epoch - 1 or (p[0] == epoch and not uses[p[1]])]:
                del self._kept[place]

    def clear(self) -> None:
        with self._lock:
            self._kept.clear()

    def trim(self) -> None:
        """Keep no more than the limit."""
        with self._lock:
            sizes = {place: _bytes(once.value) for place, once in self._kept.items()}
            total = sum(sizes.values())
            for place, size in sizes.items():
                if total <= self._most:
                    return
                del self._kept[place]
                total -= size


def _bytes(group: Group | None) -> int:
    return 0 if group is None or group.table is None else int(group.table.get_total_buffer_size())
