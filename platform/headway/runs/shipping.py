"""What is written to a run's working copy, on its way to the store: what is told next, and when.

There is no thread here, and no waiting: `turn` does what is due and says when it wants to be called again.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from headway.core.allowance import Allowance
from headway.core.outage import Outage
from headway.errors import BadInput, HeadwayError
from headway.runs import working_copy
from headway.runs.changes import Changes
from headway.runs.epochs import Superseded
from headway.runs.head import Segment, epoch_of, segment_name
from headway.runs.lease import Lease
from headway.runs.stream import Append, Operation, Replace, Stored, encode
from headway.runs.working_copy import Copy
from headway.storage.commit import nonce
from headway.storage.protocol import Storage

EVERY_S = 5.0
BATCH_BYTES = 2 << 20
HURRY_S, HURRIES = 3.0, 10
"""Who waits is served at once, ten times in a row, and then once in so many seconds: 1,200 an hour at most."""
GARBAGE = 32
"""Objects that nobody names are removed so many at a time."""
LATER_S = 60.0
"""What is only tidied up, and cannot be, is tried again after so long."""
BLOCK_BYTES = 1 << 20


def in_a_thread(action: Callable[[], None]) -> None:
    threading.Thread(target=action, name="merge", daemon=True).start()


class Changed(Exception):
    """A file changed while it was uploaded."""


class Shipping:
    """Ships one working copy. One thread calls all methods but `mark`, `want` and `want_end`.

    Args:
        lease: by which this process leads.
        folder: the working copy; it must be one of what the lease's head tells (see `RemoteRun.pull`), or the run new.
        brief: gives what a listing of runs shows, newest; None to leave it.
        every_s: how often changes are looked for.
        say: takes a line for people.
        fail: takes the failure that ends the run.
        fail_after: seconds without the store after which the run fails; None for never.
        now: seconds on a clock that only goes on.
        spawn: runs something beside the caller.
        hurries: how often who waits is served at once.
    """

    def __init__(
        self,
        lease: Lease,
        folder: Path,
        brief: Callable[[], Mapping[str, Any] | None],
        every_s: float,
        say: Callable[[str], None],
        fail: Callable[[dict[str, Any]], None],
        fail_after: float | None,
        now: Callable[[], float] = time.monotonic,
        spawn: Callable[[Callable[[], None]], None] = in_a_thread,
        hurries: Allowance | None = None,
    ) -> None:
        self.lease = lease
        self._folder, self._brief, self._every_s = folder, brief, every_s
        self._say, self._fail, self._now, self._spawn = say, fail, now, spawn
        self._outage, self._failed = Outage(fail_after), False
        self._changes: Changes | None = None
        self._lock: int | None = None
        self._marked = 0
        self.shipped = 0
        """The newest mark of which all that was written before it is in the store."""
        self.wanted = self.fenced = 0
        """Flushes that were wanted; those that are done."""
        self.closing = False
        """Whether this is the end: nothing waits for its turn."""
        self._hurries = hurries or Allowance(HURRY_S, HURRIES)
        self.superseded: Superseded | None = None
        self._round: Iterator[Operation] | None = None
        self._round_is: tuple[int, int, int | None] = (0, 0, None)
        self._batch: list[Operation] | None = None
        self._begun_at = -every_s
        self._merging: tuple[Segment, ...] = ()
        self._merged: Segment | None = None
        self._merge_at = self._tidy_at = 0.0
        self._untidy = False
        self._garbage: set[str] = set()
        self._held: set[str] = set()
        self._looked = False

    @property
    def error(self) -> str:
        return self._outage.reason if self._outage.since is not None else ""

    def mark(self) -> int:
        """A number for what is written to the working copy so far; see `shipped`."""
        self._marked += 1  # by one thread, that of the scribe
        return self._marked

    def want(self) -> int:
        """Ship what is written so far soon; done when `fenced` has reached the number that is returned."""
        self.wanted += 1
        return self.wanted

    def open(self) -> None:
        """Take the working copy.

        Raises:
            BadInput: another process has it, or it is not of what the store has.
            OSError: it cannot be read or written.
        """
        self._lock = working_copy.hold(self._folder, 10.0)
        if self._lock is None:
            raise BadInput(f"{self._folder} is in use", "another process of this machine ships it", "Wait for its end.")
        head, copy = self.lease.head, working_copy.read(self._folder) or Copy("")
        if head.position and (copy.id, copy.position) != (head.id, head.position):
            os.close(self._lock)
            raise BadInput(f"{self._folder} is no copy of run {head.run}", "it is behind or ahead of it", "Pull it.")
        working_copy.forget(self._folder)
        files = copy.files if head.position else {}
        prefix = f"files/e{head.epoch:06d}-{head.nonce}"
        numbers = itertools.count(1)
        self._changes = Changes(self._folder, files, lambda sha256: f"{prefix}-{next(numbers)}-{sha256}")
        self._held = self._changes.objects()

    def turn(self) -> float:
        """Do what is due; returns the seconds until there is more."""
        if self.superseded is not None:
            return self._every_s
        try:
            self._work()
        except Superseded as error:
            self.superseded = error
            told = {"fact": error.fact, "reason": error.reason, "remedy": error.remedy}
            self._fail({"kind": "superseded", **told})
            return self._every_s
        except (HeadwayError, OSError) as error:
            return self._tried_in_vain(error)
        lasted = self._outage.worked(self._now())
        if lasted is not None:
            self._say(f"the records are in the store again after {lasted:.0f} s; none was lost")
        return self._wait()

    def finished(self) -> bool:
        """Whether nothing waits."""
        return self.lease.settled and self._round is None and self._batch is None and self.fenced == self.wanted

    def end(self, released: bool) -> bool:
        """Tidy up, and release the lease if told so: the working copy is then one of what the store has, and says so.
        Returns whether it is, which it cannot be where something waits still. May be tried again where it raises."""
        if self.superseded is not None or not self.finished() or self._changes is None:
            return False
        self._sweep(0)
        if released:
            self.lease.release()
        Copy(self.lease.head.id, self.lease.head.position, self._changes.files()).write(self._folder)
        return True

    def free(self) -> None:
        """Give the working copy back."""
        if self._changes is not None:
            self._changes.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _wait(self) -> float:
        now = self._now()
        due = max(0.0, min(self._begun_at + self._every_s, self.lease.tenure.due_at) - now)
        return due if self.finished() else min(due, self._patience(now))

    def _patience(self, now: float) -> float:
        """Seconds for which somebody who waits is to wait on."""
        return 0.0 if self.closing else self._hurries.wait_s(now)

    def _work(self) -> None:
        assert self._changes is not None
        self._look_for_strays()
        self._go_on()
        now, wanted = self._now(), self.fenced < self.wanted
        if (wanted and not self._patience(now)) or now >= self._begun_at + self._every_s:
            self._begun_at = now
            self._hurries.took(now)
            fence = self.lease.head.beat if wanted else None
            self._round, self._round_is = self._changes.round(), (self._marked, self.wanted, fence)
            self._go_on()
        if self.lease.tenure.due(self._now()):
            self._offer(b"")
            self._go_on()
        self._merge()
        self._sweep(GARBAGE)

    def _go_on(self) -> None:
        """With the round that is under way, if one is; where somebody waits for it, it ends with a write."""
        assert self._changes is not None
        while True:
            self.lease.settle()
            if self._batch is None and self._round is not None:
                self._batch = self._gather()
            if self._batch is None:
                break
            for operation in [o for o in self._batch if isinstance(o, Stored)]:
                self._upload(operation)
            if self._batch:
                self._offer(encode(self._batch))
            self._batch = None
        marked, wanted, fence = self._round_is
        if fence == self.lease.head.beat:
            self._offer(b"")
            self.lease.settle()
        self.shipped, self.fenced = max(self.shipped, marked), max(self.fenced, wanted)

    def _gather(self) -> list[Operation] | None:
        """The next operations of the round, at most some MiB of them."""
        assert self._round is not None
        assert self._changes is not None
        batch: list[Operation] = []
        size = 0
        try:
            for operation in self._round:
                batch.append(operation)
                size += len(operation.content) if isinstance(operation, Append | Replace) else 0
                if size >= BATCH_BYTES:
                    return batch
        except OSError:
            self._round = self._changes.round()  # from the beginning; but what was given is told
            if not batch:
                raise
            return batch
        self._round = None
        return batch or None

    def _offer(self, records: bytes) -> None:
        merged = None
        if self._merged is not None:
            merged = (self._merging, self._merged)
            self._garbage |= {segment.name for segment in self._merging}
            self._merging, self._merged = (), None
        self.lease.offer(records, self._brief(), merged)

    def _upload(self, stored: Stored) -> None:
        assert self._batch is not None
        assert self._changes is not None
        if stored.object not in self._held:
            try:
                self.lease.storage.upload(stored.object, _blocks(self._folder / stored.name, stored.sha256))
            except Changed:
                self._changes.again(stored.name)
                self._batch.remove(stored)
                return
            self._held.add(stored.object)

    def _tried_in_vain(self, error: Exception) -> float:
        if isinstance(error, HeadwayError):
            reason = error.reason or error.fact
        else:
            reason = getattr(error, "strerror", None) or str(error)
        first = self._outage.since is None
        pause = self._outage.failed(self._now(), reason)
        if first:
            self._say(
                f"the records cannot be written to {self.lease.storage.url}: {reason}; training goes on, they wait"
            )
        if self._outage.too_long(self._now()) and not self._failed:
            self._failed = True
            fact = f"the records could not be written to the store for {self._outage.limit_s:g} s"
            remedy = "Mend the store, then resume; checkpoint.fail_after says how long to go on without."
            self._fail({"kind": "records", "fact": fact, "reason": reason, "remedy": remedy})
        return pause

    # What becomes too much is merged, and what nobody names is removed

    def _merge(self) -> None:
        if self._merging or self._now() < self._merge_at:
            return
        self._merging = self.lease.head.mergeable()
        if self._merging:
            self._spawn(self._merge_now)

    def _merge_now(self) -> None:
        try:
            self._merged = merge(self.lease.storage, self.lease.epoch, self._merging)
        except (HeadwayError, OSError):  # it is only tidied up: later, then
            self._merge_at = self._now() + LATER_S
            self._merging = ()

    def _sweep(self, least: int) -> None:
        """Remove what nobody names any more, once it is so many objects."""
        assert self._changes is not None
        unused = self._held - self._changes.objects()
        garbage = sorted(self._garbage | unused)
        if not garbage or len(garbage) < least or not self.finished() or (least and self._now() < self._tidy_at):
            return
        try:
            self.lease.storage.delete(garbage)
        except (HeadwayError, OSError) as error:  # nobody reads it: no record waits for that, and no run fails
            if not self._untidy:
                self._say(f"what the run needs no more cannot be removed from {self.lease.storage.url}: {error}")
            self._untidy, self._tidy_at = True, self._now() + LATER_S
            return
        self._garbage.clear()
        self._held -= unused

    def _look_for_strays(self) -> None:
        """Once, before this process makes any object: what stopped leaders left, and nobody will name."""
        if self._looked:
            return
        named = {segment.name for segment in self.lease.head.segments} | self._held
        found = [entry.name for place in ("records/", "files/") for entry in self.lease.storage.list(place)]
        self._garbage |= {n for n in found if n not in named and (epoch_of(n) or 0) <= self.lease.epoch}
        self._looked = True


def merge(storage: Storage, epoch: int, old: tuple[Segment, ...]) -> Segment:
    """One segment for several neighbours: their contents behind each other."""
    digest, size = hashlib.sha256(), 0
    for segment in old:
        content = storage.get(segment.name)
        if hashlib.sha256(content).hexdigest() != segment.sha256:
            raise BadInput(f"{storage.url}/{segment.name} is damaged", "", "")
        digest.update(content)
        size += len(content)
    level, end = old[0].level + 1, old[-1].end
    name = segment_name(level, epoch, end, nonce(), digest.hexdigest())
    storage.upload(name, (storage.get(segment.name) for segment in old))
    return Segment(name, size, end, level)


def _blocks(path: Path, sha256: str) -> Iterator[bytes]:
    """A file's content; raises Changed, before the last block, where it is not what it was, or cannot be read."""
    digest, held = hashlib.sha256(), b""
    try:
        with path.open("rb") as file:
            while block := file.read(BLOCK_BYTES):
                digest.update(block)
                if held:
                    yield held
                held = block
    except OSError as error:
        raise Changed(str(error)) from error
    if digest.hexdigest() != sha256:
        raise Changed(str(path))
    if held:
        yield held
