"""What somebody asks of whoever leads a run, where no connection leads to it: an object beside the run, looked for now
and then.

    PLACE/.requests/RUN/stop-epoch-000003.json     in a folder
    PLACE/RUN/requests/stop-attempt-1f9a03c2.json  in a store

Each is for one start: of an epoch (see `headway.runs.epochs`), or of a submission, which may have no run yet. So what
came too late to be heard cannot stop the next start.
"""

from __future__ import annotations

import getpass
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from headway.errors import HeadwayError
from headway.runs.place import REQUESTS, Place, split
from headway.storage.folder import FolderStorage
from headway.storage.protocol import Storage

if TYPE_CHECKING:
    from headway.runs.folder import RunFolder

FOLDER_EVERY_S, STORE_EVERY_S = 0.2, 2.0
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

    def ask(self, start: str, stop: Stop) -> None:
        """Let a start know; asked again, the last counts."""
        self.storage.put(_name(start), json.dumps(asdict(stop)).encode())

    def asked(self, start: str) -> Stop | None:
        """What a start was asked for."""
        try:
            tree = json.loads(self.storage.get(_name(start)))
            return Stop(str(tree["by"]), float(tree["at"]), bool(tree["now"]))
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError):  # of another release: what it is asked for is clear
            return Stop("somebody", 0.0)

    def waiting(self, starts: Iterable[str]) -> list[str]:
        """Of these starts those that may be asked for something. A folder is listed for that: shared file systems
        remember for a while that a name was not there."""
        if self._folder is None:
            return list(starts)
        there = {found.name for found in self.storage.list()}
        return [start for start in starts if _name(start) in there]

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
        self.storage.delete([_name(start) for start in starts])


class Ear:
    """Looks for what is asked of a start, until it is closed; in a thread of its own, which a store that does not
    answer holds up and nobody else.

    Args:
        box: to look into.
        starts: the names of the start, of which there may be several.
        heard: told of each request once, in the thread.
    """

    def __init__(self, box: Box, starts: Iterable[str], heard: Callable[[Stop], None]) -> None:
        self._box, self._starts, self._heard = box, tuple(starts), heard
        self._known: dict[str, Stop] = {}
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
        if self._known:
            with suppress(HeadwayError, OSError):
                self._box.withdraw(self._known)
        self._box.let_go()

    def look(self) -> None:
        """Look once. Raises OutOfReach, BadInput: of one of the names; the others were looked for all the same (S3 says
        "forbidden" of what is not there, to those who may list a part of the bucket only)."""
        error: Exception | None = None
        for start in self._box.waiting(self._starts):
            try:
                found = self._box.asked(start)
            except (HeadwayError, OSError) as failed:
                error = failed
                continue
            if found is not None and found != self._known.get(start):
                self._known[start] = found
                self._heard(found)
        if error is not None:
            raise error

    def _work(self) -> None:
        while not self._closing.is_set():
            with suppress(HeadwayError, OSError):  # the records' own way to the place tells of that
                self._box.hold()
                self.look()
            self._closing.wait(self._box.every_s)


@contextmanager
def heard(box: Box, starts: Iterable[str], then: Callable[[Stop], None]) -> Iterator[Ear]:
    """While this lasts `then` is told what is asked of a start."""
    ear = Ear(box, starts, then)
    ear.start()
    try:
        yield ear
    finally:
        ear.close()


def _name(start: str) -> str:
    return f"stop-{start}.json"
