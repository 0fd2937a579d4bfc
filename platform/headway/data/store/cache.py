"""`Files` of an object store: row groups brought to this node's disk, ahead of need, kept for later epochs and others.

A row group becomes a sparse file of the shard's size, with its own bytes and the shard's footer where the shard has
them, so that it is read like the shard itself, by memory map.
"""

from __future__ import annotations

import errno
import os
import threading
from collections import Counter, OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from xxhash import xxh3_128_hexdigest

from headway.core.eviction import UNANNOUNCED
from headway.data.manifest import Manifest, RowGroup, Shard
from headway.data.store.files import Files, LocalFiles
from headway.data.store.opener import open_store
from headway.data.store.protocol import OutOfReach, Store
from headway.data.store.shelf import Shelf, share, usual_folder
from headway.errors import BadData, BadInput, HeadwayError, RunFailed
from headway.storage.opener import is_url, local_folder

if TYPE_CHECKING:
    from headway.job import Data

AHEAD_THREADS = 8
FOOTERS = 16
TRIES = 3
"""Times a row group is brought whose bytes do not have their digest."""


def open_files(place: str | Path, manifest: Manifest, data: Data) -> Files:
    """The files of a dataset, as the job's `data` section wants them: a folder's own, or an object store's by a cache.

    Raises:
        BadInput: the URL or the cache's folder cannot be used.
    """
    if not is_url(place):
        return LocalFiles(local_folder(place), manifest)
    folder = Path(data.cache.folder) if data.cache.folder else usual_folder()
    shelf = Shelf(folder, data.cache.bytes, manifest.digest)
    store, patience_s = open_store(place, data.store), 2 * data.store.timeout_s
    files = CachedFiles(store, manifest, shelf, data.prefetch, patience_s, check=not data.check_digests)
    files.start()
    return files


@dataclass
class Counts:
    """What became of the row groups that were asked for or expected.

    Args:
        hits: they were on the disk already, sound or not.
        fetched: brought from the store, `bytes` in all.
        unkept: of these, those for which there was no room.
        damaged: files of the cache that did not have their digest, and were removed to be brought again.
        altered: answers of the store that did not have their digest.
        bytes: see above.
        waits: times a row group was not there yet when it was asked for.
    """

    hits: int = 0
    fetched: int = 0
    unkept: int = 0
    damaged: int = 0
    altered: int = 0
    bytes: int = 0
    waits: int = 0


@dataclass
class _Held:
    """A row group's file, locked so that it stays.

    Args:
        path, descriptor: of it.
        once: it is removed when it is no longer held.
        uses: by how many it is being read.
        spoiled: one of them said that it is not sound. It is given to nobody any more.
    """

    path: Path
    descriptor: int
    once: bool
    uses: int = 0
    spoiled: bool = False


class CachedFiles:
    """`Files` of an object store. Call `start` first, `close` at the end.

    What comes from the store is compared with its digest. What is kept is compared by who reads it, and so has it in
    memory anyway, and who tells `release`; or here, at the cost of reading it twice.

    Args:
        store: where the dataset is; closed with this.
        manifest: of the dataset.
        shelf: the node's shared folder.
        ahead: bytes of expected row groups that are brought before they are asked for; half of the shelf at most.
        patience_s: that a row group which another worker brings is waited for.
        check: whether what is kept is compared with its digest here.
    """

    def __init__(
        self,
        store: Store,
        manifest: Manifest,
        shelf: Shelf,
        ahead: int = 256 << 20,
        patience_s: float = 40.0,
        check: bool = True,
    ) -> None:
        self.store, self.manifest, self.counts = store, manifest, Counts()
        self._shelf, self._ahead = shelf, min(ahead, shelf.limit // 2)
        self._patience_s, self._check = patience_s, check
        footers = [(shard, shard.bytes - shard.footer_offset) for shard in manifest.shards]
        self._sizes = [group.bytes + footer for shard, footer in footers for group in shard.row_groups]
        self._change = threading.Condition()
        self._held: dict[int, _Held] = {}
        self._flights: dict[int, Future[_Held | None]] = {}
        self._expected: list[int] = []
        self._window: dict[int, None] = {}
        self._tried: set[int] = set()
        self._asked: Counter[int] = Counter()
        self._taken = 0
        self._footers: OrderedDict[str, bytes] = OrderedDict()
        self._threads: list[threading.Thread] = []
        self._full = self._closed = self._left = False

    def start(self) -> None:
        """Take part in the shared folder.

        Raises:
            BadInput: it cannot be used.
        """
        self._shelf.join()

    def path(self, group: int) -> Path:
        with self._change:
            self._pass(group)
            self._asked[group] += 1
            self.counts.waits += group not in self._held
        try:
            while True:
                with self._change:
                    while (held := self._held.get(group)) is not None and held.spoiled:
                        self._change.wait()
                    if held is not None:
                        held.uses += 1
                        return Path(f"/proc/self/fd/{held.descriptor}")  # there even if its name is removed meanwhile
                self._bring(group, wanted=True)
        finally:
            with self._change:
                self._asked[group] -= 1
                self._asked += Counter()  # forgets what nobody asks for

    def release(self, group: int, sound: bool = True) -> bool:
        with self._change:
            held = self._held[group]
            held.uses -= 1
            held.spoiled |= not sound
            if held.spoiled and held.uses == 0:
                del self._held[group]
                self.counts.damaged += 1
                try:
                    if not held.once:
                        self._shelf.give_back(held.path, self._sizes[group], held.descriptor)
                except OSError as error:
                    raise self._unwritable(error) from None
                finally:
                    self._drop(held)
                    self._change.notify_all()
            self._let_go()
        return not sound

    def expect(self, groups: Sequence[int]) -> None:
        with self._change:
            self._expected, self._taken = list(groups), 0
            self._shelf.announce(groups)
            self._tried.clear()
            self._full = False
            self._look_ahead()
            self._let_go()
            while self._expected and len(self._threads) < AHEAD_THREADS:
                name = f"fetch-ahead-{len(self._threads)}"
                self._threads.append(threading.Thread(target=self._fetch_ahead, name=name, daemon=True))
                self._threads[-1].start()
            self._change.notify_all()  # also for what was tried in vain

    def give_up(self) -> None:
        with self._change:
            self._closed = True
            self._change.notify_all()
        self.store.close()  # who waits for an answer is told so

    def close(self) -> None:
        if self._left:
            return
        self._left = True
        self.give_up()
        for thread in self._threads:
            thread.join()
        for held in self._held.values():
            self._drop(held)
        self._held.clear()
        self._shelf.leave()

    def _pass(self, group: int) -> None:
        """An expected row group is asked for now: what is ahead begins behind it."""
        with suppress(ValueError):
            self._expected.remove(group)
            self._taken += 1
            self._shelf.taken(self._taken)
            self._tried.discard(group)
            self._look_ahead()

    def _look_ahead(self) -> None:
        """Which row groups are to be here: the next ones, up to the bytes allowed, and one at least."""
        before, self._window, size = self._window, {}, 0
        for group in self._expected:
            if group in self._window:
                continue
            size += self._sizes[group]
            if self._window and size > self._ahead:
                break
            self._window[group] = None
        self._change.notify(sum(group not in before for group in self._window))

    def _let_go(self) -> None:
        """Free what nobody uses and is not about to be used."""
        for group, held in list(self._held.items()):
            if held.uses == 0 and group not in self._window and group not in self._asked:
                self._drop(self._held.pop(group))

    def _drop(self, held: _Held) -> None:
        if held.once:
            held.path.unlink(missing_ok=True)
        os.close(held.descriptor)

    def _fetch_ahead(self) -> None:
        """A thread's life: bring the soonest of the expected row groups that is not here."""
        while True:
            with self._change:
                while not self._closed and (group := self._missing()) is None:
                    self._change.wait()
                if self._closed or group is None:
                    return
                self._tried.add(group)
            with suppress(Exception):  # whoever asks for it will be told
                self._bring(group, wanted=False)

    def _missing(self) -> int | None:
        if self._full:
            return None
        busy = (self._held, self._flights, self._tried)
        return next((group for group in self._window if not any(group in places for places in busy)), None)

    def _bring(self, group: int, wanted: bool) -> None:
        """Have the row group held, by this thread or by another that is at it already.

        Raises:
            BadData, RunFailed: it cannot be had. That there is no room for what is not `wanted` now is no error.
        """
        with self._change:
            flight = self._flights.get(group)
            late = not wanted and group not in self._window  # it was read while this thread was on its way to it
            mine = flight is None and group not in self._held and not late
            if mine:
                flight = self._flights[group] = Future()
        if flight is None:
            return
        if not mine:
            with suppress(HeadwayError):  # then this thread tries itself
                flight.result()
            return
        held, error = None, None
        try:
            held = self._obtain(group, wanted)
        except BaseException as caught:
            error = caught
            raise
        finally:
            with self._change:
                del self._flights[group]
                if held is not None:
                    self._held[group] = held
            if error is None:
                flight.set_result(held)
            else:
                flight.set_exception(error)

    def _obtain(self, group: int, wanted: bool) -> _Held | None:
        kept = self._shelf.kept(group, self._sizes[group])
        try:
            held = self._take(kept, group)
            if held is None:
                with self._shelf.sole(group, self._patience_s, lambda: self._closed or kept.exists()):
                    held = self._take(kept, group) or self._fetch(group, wanted)
        except OSError as error:
            raise self._unwritable(error) from None
        return held

    def _take(self, path: Path, group: int) -> _Held | None:
        """The row group as it is kept, if it is; where it is known not to be sound it is removed."""
        descriptor = share(path)
        if descriptor is None:
            return None
        shard, index = self.manifest.locate(group)
        if self._check and not _whole(descriptor, shard, shard.row_groups[index]):
            self._shelf.give_back(path, self._sizes[group], descriptor)
            os.close(descriptor)
            self._add(damaged=1)
            return None
        os.utime(descriptor)
        self._add(hits=1)
        return _Held(path, descriptor, once=False)

    def _fetch(self, group: int, wanted: bool) -> _Held | None:
        shard, index = self.manifest.locate(group)
        size = self._sizes[group]
        part = self._shelf.make_room(group, size, self._next_use(group))
        if part is None and not wanted:
            self._full = True  # and so it is for all that is needed later
            return None
        path = part or self._shelf.unkept(group, size)
        try:
            pieces = [
                (shard.row_groups[index].offset, self._row_group(shard, index)),
                (shard.footer_offset, self._footer(shard)),
            ]
            descriptor = _written(path, shard.bytes, pieces)
            if part is not None:
                path = self._shelf.kept(group, size)
                part.rename(path)
        except BaseException:  # whatever it was, the room is given back
            if part is not None:
                self._shelf.give_back(part, size)
            else:
                path.unlink(missing_ok=True)
            raise
        self._add(fetched=1, bytes=size, unkept=int(part is None))
        return _Held(path, descriptor, once=part is None)

    def _next_use(self, group: int) -> float:
        """How many row groups come before this one is needed again."""
        with self._change:
            return float(self._expected.index(group)) if group in self._expected else UNANNOUNCED

    def _row_group(self, shard: Shard, index: int) -> bytes:
        group = shard.row_groups[index]
        what = f"row group {index} of {self.store.url}/{shard.path}"
        return self._read(what, shard, group.offset, group.bytes, group.xxh3)

    def _footer(self, shard: Shard) -> bytes:
        """All that follows the last row group; kept in memory for a few shards, and on the disk for all."""
        with self._change:
            footer = self._footers.get(shard.path)
        if footer is None:
            footer = self._kept_footer(shard)
            with self._change:
                self._footers[shard.path] = footer
                while len(self._footers) > FOOTERS:
                    self._footers.popitem(last=False)
        return footer

    def _kept_footer(self, shard: Shard) -> bytes:
        footer = self._shelf.footer(shard.path)
        if footer is None or xxh3_128_hexdigest(footer) != shard.footer:
            what = f"the footer of {self.store.url}/{shard.path}"
            footer = self._read(what, shard, shard.footer_offset, shard.bytes - shard.footer_offset, shard.footer)
            self._shelf.keep_footer(shard.path, footer)
        return footer

    def _read(self, what: str, shard: Shard, offset: int, length: int, digest: str) -> bytes:
        try:
            for _ in range(TRIES):
                content = self.store.read(shard.path, offset, length)
                if xxh3_128_hexdigest(content) == digest:
                    return content
                self._add(altered=1)
        except FileNotFoundError:
            url = f"{self.store.url}/{shard.path}"
            raise BadData(f"{url} is missing", "the manifest lists it", "Copy the dataset there again.") from None
        except OutOfReach as error:  # no fault of the data, which must not be set aside for it
            raise RunFailed(f"{what} cannot be had", f"{error.fact}: {error.reason}", error.remedy) from None
        reason = f"its XXH3-128 is {xxh3_128_hexdigest(content)[:12]}..., the manifest says {digest[:12]}..."
        raise BadData(f"{what} has been altered", reason, "Run `headway data check` on it, and copy it there again.")

    def _add(self, **counts: int) -> None:
        with self._change:
            for name, count in counts.items():
                setattr(self.counts, name, getattr(self.counts, name) + count)

    def _unwritable(self, error: OSError) -> BadInput:
        folder = self._shelf.folder
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            remedy = "Lower data.cache.bytes, or give another data.cache.folder."
            return BadInput(f"data.cache.folder={folder} cannot be written", "the disk is full", remedy)
        return BadInput(f"data.cache.folder={folder} cannot be written", str(error), "Give a folder on a local disk.")


def _written(path: Path, size: int, pieces: list[tuple[int, bytes]]) -> int:
    """Write a sparse file of a size with bytes at some places; a descriptor that is locked as by `share`."""
    import fcntl

    descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        os.ftruncate(descriptor, size)
        for offset, content in pieces:
            view = memoryview(content)
            while view:
                count = os.pwrite(descriptor, view, offset)
                view, offset = view[count:], offset + count
    except BaseException:  # whatever it was, the file is not left open
        os.close(descriptor)
        raise
    return descriptor


def _whole(descriptor: int, shard: Shard, group: RowGroup) -> bool:
    """Whether a file has the shard's size, and the row group's and the footer's bytes."""
    if os.fstat(descriptor).st_size != shard.bytes:
        return False
    footer = shard.bytes - shard.footer_offset
    spans = ((group.offset, group.bytes, group.xxh3), (shard.footer_offset, footer, shard.footer))
    try:  # read, not mapped: an error of the disk under a mapping kills the process
        return all(xxh3_128_hexdigest(os.pread(descriptor, size, offset)) == xxh3 for offset, size, xxh3 in spans)
    except OSError:
        return False
