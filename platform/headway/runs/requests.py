"""What somebody asks of whoever leads a run, where no connection leads to it: an object beside the run, looked for now
and then.

    PLACE/.requests/RUN/stop-epoch-000003.json     in a folder
    PLACE/RUN/requests/stop-attempt-1f9a03c2.json  in a store

An end is asked for by `stop-…`, another size by `resize-…`; of each kind the last counts. Each is for one start: of an
epoch (see `headway.runs.epochs`), or of a submission, which may have no run yet. So what came too late to be heard
cannot stop the next start.
"""

from __future__ import annotations

import getpass
import json
import logging
import secrets
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from headway.errors import HeadwayError
from headway.runs.place import REQUESTS, Place, split
from headway.storage.folder import FolderStorage
from headway.storage.protocol import Storage

if TYPE_CHECKING:
    from headway.runs.folder import RunFolder

logger = logging.getLogger(__name__)

W = TypeVar("W", "Stop", "Resize")
FOLDER_EVERY_S, STORE_EVERY_S = 0.2, 2.0
AS_BEFORE = 0
"""As the least of a size: as few as its job, or its last size, says. Of a run that has not begun nobody else knows."""
_UNREADABLE = (ValueError, KeyError, TypeError, OverflowError, RecursionError)
_held: Counter[Path] = Counter()
"""Folders that this process looks into: how often each."""
_holding = threading.Lock()


@dataclass(frozen=True)
class Stop:
    """Somebody asks for the end of a start.

    Args:
        by: who, for people.
        at: Unix seconds, for people.
        now: whether no checkpoint is to be waited for.
    """

    by: str
    at: float
    now: bool = False

    @classmethod
    def mine(cls, now: bool = False) -> Stop:
        return cls(this_person(), time.time(), now)


@dataclass(frozen=True)
class Resize:
    """Somebody asks for another size of the run.

    Args:
        by: who, for people.
        at: Unix seconds, for people.
        min, max: so few and so many workers; of a run that has not begun min may be AS_BEFORE.
        id: names this request: the run's records say which was the last that was heard.
        at_once: so many are asked of a cluster that buys machines whether or not it pays.
        leave: Ray's ids of nodes that had best be left where the run is to be smaller, once for each worker there.
    """

    by: str
    at: float
    min: int
    max: int
    id: str
    at_once: int = 1
    leave: tuple[str, ...] = ()

    @classmethod
    def mine(cls, least: int, most: int, at_once: int) -> Resize:
        return cls(this_person(), time.time(), least, most, secrets.token_hex(8), at_once)


class Heard(KeyboardInterrupt):
    """An end was asked for before there was anything to be saved.

    Args:
        stop: what was asked.
    """

    def __init__(self, stop: Stop) -> None:
        super().__init__(f"stopped by {stop.by}")
        self.stop = stop


def this_person() -> str:
    """Who runs this process, for people: user and machine."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # as in containers, whose users may have no name
        user = "somebody"
    return f"{user}@{socket.gethostname()}"


def of_epoch(epoch: int) -> str:
    """The start of whoever leads, or led, in this epoch."""
    return f"epoch-{epoch:06d}"


def of_attempt(attempt: str) -> str:
    """The start that a submission asks for."""
    return f"attempt-{attempt}"


class Box:
    """Where requests for one run lie. Its methods raise OutOfReach, and BadInput where the place refuses.

    Args:
        storage: of these requests alone.
        every_s: how often it may well be looked at.
        folder: that this is, where it is one.
    """

    def __init__(self, storage: Storage, every_s: float = FOLDER_EVERY_S, folder: Path | None = None) -> None:
        self.storage, self.every_s, self._folder = storage, every_s, folder
        self._holds = False

    @classmethod
    def of(cls, place: Place, run: str) -> Box:
        """For a run of a place, or a name that no run has yet."""
        if place.url is None:
            top = place.folder.resolve()
            return cls(FolderStorage(top).at(f"{REQUESTS}/{run}/"), folder=top / REQUESTS / run)
        from headway.runs import far

        storage = far.storage_of(place.url, far.quick(far.settings()))
        return cls(storage.at(f"{run}/requests/"), STORE_EVERY_S)

    @classmethod
    def of_run(cls, run: RunFolder) -> Box:
        """For a run that is there."""
        url = run.far["url"] if run.far is not None else None
        return cls.of(Place.of(split(url)[0]) if url else Place(str(run.path.parent), run.path.parent), run.name)

    def ask(self, start: str, wish: Stop | Resize) -> None:
        """Let a start know; asked again, the last counts."""
        self.storage.put(_name(start, type(wish)), json.dumps(asdict(wish)).encode())

    def asked(self, start: str) -> Stop | None:
        """Whether a start was asked for its end, and how."""
        try:
            tree = json.loads(self.storage.get(_name(start)))
            return Stop(str(tree["by"]), float(tree["at"]), bool(tree["now"]))
        except FileNotFoundError:
            return None
        except _UNREADABLE:  # of another release: what it is asked for is clear
            return Stop("somebody", 0.0)

    def sized(self, start: str) -> Resize | None:
        """The size that a start was asked for; None also where it cannot be read."""
        try:
            tree = json.loads(self.storage.get(_name(start, Resize)))
            counts = {name: int(tree[name]) for name in ("min", "max", "at_once")}
            leave = tuple(str(node) for node in tree.get("leave", ()))
            return Resize(by=str(tree["by"]), at=float(tree["at"]), id=str(tree["id"]), leave=leave, **counts)
        except (FileNotFoundError, *_UNREADABLE):
            return None

    def waiting(self, starts: Iterable[str], kind: type[Stop | Resize] = Stop) -> list[str]:
        """Of these starts those that may be asked for something. A folder is listed for that: shared file systems
        remember for a while that a name was not there."""
        if self._folder is None:
            return list(starts)
        there = {found.name for found in self.storage.list()}
        return [start for start in starts if _name(start, kind) in there]

    def hold(self) -> None:
        """Somebody looks here from now on, if the place is there. (A folder that is there is seen to change soon.)"""
        if self._holds or self._folder is None or not self._folder.parents[1].is_dir():
            return
        with _holding:
            self._folder.mkdir(parents=True, exist_ok=True)
            _held[self._folder] += 1
            self._holds = True

    def let_go(self) -> None:
        """This one looks here no more; what waits stays."""
        if not self._holds or self._folder is None:
            return
        with _holding, suppress(OSError):  # somebody else's request is in it, or another run's beside it
            self._holds = False
            _held[self._folder] -= 1
            if not _held[self._folder]:
                del _held[self._folder]
                self._folder.rmdir()
                self._folder.parent.rmdir()

    def withdraw(self, starts: Iterable[str]) -> None:
        """Nobody asks any more: the starts have ended."""
        self.storage.delete([_name(start, kind) for start in starts for kind in (Stop, Resize)])


class Ear:
    """Looks for what is asked of a start, until it is closed; in a thread of its own, which a store that does not
    answer holds up and nobody else.

    Args:
        box: to look into.
        starts: the names of the start, of which there may be several.
        heard: told of each request for an end once, in the thread.
        sized: likewise of each for another size; None: nobody here can do anything about that.
    """

    def __init__(
        self,
        box: Box,
        starts: Iterable[str],
        heard: Callable[[Stop], None],
        sized: Callable[[Resize], None] | None = None,
    ) -> None:
        self._box, self._starts, self._heard, self._sized = box, tuple(starts), heard, sized
        self._known: dict[str, Stop] = {}
        self._sizes: dict[str, Resize] = {}
        self._errors: list[Exception] = []
        """Of the last look."""
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name="requests", daemon=True)

    @property
    def stop(self) -> Stop | None:
        """What was asked for so far: of several the one that is more urgent."""
        known = list(self._known.values())
        return max(known, key=lambda stop: stop.now, default=None)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Look no more; what was heard is answered by the end of the start, and goes."""
        self._closing.set()
        self._thread.join(self._box.every_s)
        if self._known or self._sizes:
            with suppress(HeadwayError, OSError):
                self._box.withdraw({**self._known, **self._sizes})
        self._box.let_go()

    def look(self) -> None:
        """Look once. Raises OutOfReach, BadInput: of one of the names; the others were looked for all the same (S3 says
        "forbidden" of what is not there, to those who may list a part of the bucket only)."""
        self._errors = []
        for start, stop in self._looked(Stop, self._box.asked):
            if stop != self._known.get(start):
                self._known[start] = stop
                self._heard(stop)
        if self._sized is not None:
            for start, size in self._looked(Resize, self._box.sized):
                if size != self._sizes.get(start):
                    self._sizes[start] = size
                    self._sized(size)
        if self._errors:
            raise self._errors[-1]

    def _looked(self, kind: type[W], asked: Callable[[str], W | None]) -> Iterator[tuple[str, W]]:
        for start in self._box.waiting(self._starts, kind):
            try:
                found = asked(start)
            except (HeadwayError, OSError) as failed:
                self._errors.append(failed)
                continue
            if found is not None:
                yield start, found

    def _work(self) -> None:
        while not self._closing.is_set():
            try:
                self._box.hold()
                self.look()
            except (HeadwayError, OSError):
                pass  # the records' own way to the place tells of that
            except Exception:  # whatever one request does to whoever is told of it: the next is heard
                logger.warning("a request could not be taken", exc_info=True)
            self._closing.wait(self._box.every_s)


@contextmanager
def heard(
    box: Box, starts: Iterable[str], then: Callable[[Stop], None], sized: Callable[[Resize], None] | None = None
) -> Iterator[Ear]:
    """While this lasts `then` and `sized` are told what is asked of a start."""
    ear = Ear(box, starts, then, sized)
    ear.start()
    try:
        yield ear
    finally:
        ear.close()


def _name(start: str, kind: type[Stop | Resize] = Stop) -> str:
    return f"{'stop' if kind is Stop else 'resize'}-{start}.json"
