"""A run in an object store, as its driver sees it: a working copy on this machine, and the run itself in the store.

The working copy is an ordinary folder of a run, with all that is in one but the checkpoints and the workers' logs.
While this process leads the run, what is written to the copy is shipped; who only reads brings the copy up to date.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from headway.errors import BadInput, HeadwayError, RunFailed, nearest
from headway.job import Job
from headway.runs import epochs, listing
from headway.runs import head as heads
from headway.runs.folder import NAME, RunFolder, usable, write_job
from headway.runs.head import Head
from headway.runs.lease import Lease, superseded
from headway.runs.listing import LIVES_S, Brief
from headway.runs.mirror import Mirror
from headway.runs.place import SWEEP, Place, split
from headway.runs.refusals import Away, NoRun, no_run_but_a_sweep
from headway.runs.remote import RemoteRun, nobody
from headway.storage.conditions import demand_conditions
from headway.storage.options import Options
from headway.storage.protocol import OutOfReach, Storage

CLOSE_S = 60.0
COPYING = "copying"
"""State of a run that is being copied to the store, and is not whole yet."""
CHECKPOINTS = "checkpoints/"
AT_ONCE = 64
METRICS = 50
"""That are shown in a listing."""


@lru_cache(maxsize=16)
def storage_of(url: str, options: Options | None = None) -> Storage:
    """The store at a URL, opened once in this process; with the user's settings where none are given."""
    from headway.storage.opener import open_storage

    return open_storage(url, options if options is not None else settings())


def quick(options: Options) -> Options:
    """For who leads: one that waits long for an answer could not renew its lease meanwhile."""
    return options.model_copy(update={"retries": min(options.retries, 2), "timeout_s": min(options.timeout_s, 8.0)})


def settings() -> Options:
    """How the user's config file, and variables, want stores to be spoken to."""
    from headway import config

    return config.load().store


@dataclass
class _Led:
    """What this process holds of a run that it leads."""

    lease: Lease | None = None
    mirror: Mirror | None = None
    epoch: int = 0


@dataclass(frozen=True)
class FarRun(RunFolder):
    """A run in a store.

    Args:
        path: of the working copy.
        place: that holds the run.
    """

    place: Place
    _led: _Led = field(default_factory=_Led, compare=False, repr=False)

    @property
    def remote(self) -> RemoteRun:
        return RemoteRun(storage_of(str(self.place.url)), self.name)

    def leading(self) -> RemoteRun:
        """The run, for who leads it."""
        return RemoteRun(storage_of(str(self.place.url), quick(settings())), self.name)

    def begin(self, brief: Mapping[str, Any]) -> Lease:
        """Make the run in the store, and lead it. Raises BadInput: the name is taken, or it is no place for runs."""
        run = self.leading()
        try:
            demand_conditions(storage_of(str(self.place.url)))
            return run.create(brief)
        except OutOfReach as error:
            raise Away(f"no run can be begun in {self.place}", str(error), "Or give another place: --runs.") from None

    def first_facts(self) -> dict[str, Any]:
        brief = dict(self.remote.head().brief or {})
        return {**brief, "submission": {"id": brief.get("submission", ""), "by": brief.get("by", "")}}

    @property
    def where(self) -> str:
        return self.place.place_of(self.name)

    @property
    def far(self) -> dict[str, Any]:
        """What another process needs to open it."""
        return {"url": self.where, "options": settings().model_dump()}

    def read(self) -> dict[str, Any]:
        """The facts of run.json; of a run whose leader was killed before it shipped any records, those of its head."""
        if (self.path / "run.json").exists():
            return super().read()
        brief = self.remote.head().brief or {}
        known = {name: brief[name] for name in ("state", "created") if name in brief}
        return {"run": self.name, "created": 0.0, **known}

    def leader(self) -> str:
        return str(self.remote.head().owner)

    @property
    def checkpoint_root(self) -> Path | Storage:
        return self.remote.storage.at(CHECKPOINTS)

    def counting(self, manifests: list[str]) -> list[str]:
        return counting(self.remote, manifests)

    def is_led(self) -> bool:
        """Whether a process seems to lead the run now, of this machine or another."""
        return super().is_led() or lives(self.remote.head())

    def pull(self, leads: bool = False) -> Head:
        """Bring the working copy up to date; nothing is left of one that cannot be.

        Args:
            leads: whether this process leads the run. From where another one leads it, it is left alone: what is
                written there is shipped by and by, and while it is handed over nobody ships it.
        """
        return _pulled(self.remote, self.path, lambda: not leads and RunFolder.is_led(self))

    @contextmanager
    def led(self, say: Callable[[str], None] = nobody) -> Iterator[int]:
        """Lead the run: what is written to the working copy is shipped from now on.

        Raises:
            Led: another process does, here or elsewhere.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with self._sole():
            begun = self._led.lease is not None
            lease = self._led.lease = self._led.lease or self.leading().claim(say)
            try:
                if not begun:
                    self.pull(leads=True)
                self._led.epoch = lease.epoch
                epochs.note(self.path, lease.epoch)
                self._led.mirror = self._mirror(lease)
                yield lease.epoch
            finally:
                self._release()

    @contextmanager
    def handed_over(self) -> Iterator[None]:
        """While this lasts another process of ours ships what is written (see `Recorder`).

        Raises:
            RunFailed: what was written so far could not be shipped.
        """
        mirror, self._led.mirror = self._led.mirror, None
        if mirror is None or not mirror.close(CLOSE_S):
            reason = mirror.error if mirror is not None else "it is not led"
            raise RunFailed(f"run {self.name} cannot be kept in {self.where}", reason, "Mend the store, then resume.")
        try:
            yield
        finally:
            with suppress(HeadwayError, OSError):  # where that cannot be, the lease runs out by itself
                self._led.lease = None
                self._led.lease = self.leading().join(self._led.epoch)
                self._led.mirror = self._mirror(self._led.lease)

    @property
    def printed(self) -> Storage:
        return self.remote.storage

    def refresh(self) -> None:
        self.pull()

    def size(self, checkpoints_only: bool = False) -> int:
        return sum(found.bytes for found in self.remote.storage.list(CHECKPOINTS if checkpoints_only else ""))

    @contextmanager
    def still(self) -> Iterator[Callable[[], None]]:
        with self._sole() if self.path.exists() else nullcontext():
            head, version = self.remote.look()
            lease = None if head.released else self.remote.claim()
            version = version if lease is None else lease.version

            def is_still() -> None:
                if self.remote.look()[1] != version:
                    reason = "another process began to lead it meanwhile"
                    raise BadInput(f"run {self.name} is running", reason, "Wait for its end, then try again.")

            try:
                yield is_still
            finally:
                if lease is not None:
                    _released(lease)

    def remove(self, checkpoints_only: bool = False) -> None:
        with self._sole() if self.path.exists() else nullcontext():
            if not checkpoints_only:
                self.remote.remove()
                shutil.rmtree(self.path, ignore_errors=True)
                return
            lease, storage = self.remote.claim(), self.remote.storage
            try:
                names = [found.name for found in storage.list(CHECKPOINTS)]
                storage.delete([name for name in names if name.endswith("/manifest.json")])
                storage.delete(names)
            finally:
                _released(lease)

    def discard(self) -> None:
        """Let it be as if the run had not been made; by the process that leads it."""
        self._release()
        with suppress(HeadwayError, OSError):
            self.remote.remove()
        shutil.rmtree(self.path, ignore_errors=True)

    def _mirror(self, lease: Lease) -> Mirror:
        return mirror_of(self.path, lease, lambda: brief_of(self.path))

    def _release(self) -> None:
        mirror, lease = self._led.mirror, self._led.lease
        self._led.mirror = self._led.lease = None
        if mirror is not None:
            mirror.close(CLOSE_S, release=True)
        elif lease is not None:  # nothing was shipped yet, or another process of ours could not hand it back
            _released(lease)


def _released(lease: Lease) -> None:
    """Let anybody lead; where the store does not take that, the lease runs out by itself."""
    with suppress(HeadwayError, OSError):
        lease.release()


def mirror_of(folder: Path, lease: Lease, brief: Callable[[], Mapping[str, Any] | None]) -> Mirror:
    """Ships a working copy from now on."""
    return Mirror(folder, lease, brief=brief)


def brief_of(folder: Path) -> Mapping[str, Any] | None:
    """What a listing shows of a run, from its working copy; None where that cannot be read now."""
    try:
        found = listing.told(RunFolder(folder))
    except (HeadwayError, OSError, ValueError):
        return None
    found["metrics"] = dict(list(found["metrics"].items())[:METRICS])
    return found


def lives(head: Head) -> bool:
    """Whether a head looks as if somebody led the run."""
    return not head.released and abs(time.time() - head.at) < LIVES_S


def create(place: Place, name: str | None, job: Job, more: Mapping[str, Any] | None = None) -> FarRun:
    """See `headway.runs.create`. The run is led from here on, until `led` ends."""
    chosen = usable(name) if name is not None else None
    if chosen is None:
        there = set(storage_of(str(place.url)).folders())
        timed = f"{job.name}-{time.strftime('%Y%m%d-%H%M%S')}"
        chosen = next(name for name in (timed, *(f"{timed}-{i}" for i in range(2, 1000))) if name not in there)
    run = FarRun(place.folder.resolve() / chosen, place)
    created = time.time()
    first = {"state": "running", "created": created}
    whose = (more or {}).get("submission") or {}
    run._led.lease = run.begin({**first, "submission": whose.get("id", ""), "by": whose.get("by", "")})
    try:
        shutil.rmtree(run.path, ignore_errors=True)  # a copy of a run that once had this name
        run.path.mkdir(parents=True)
        place.claim_folder()
        write_job(run, job)
        run.write({"run": chosen, **first, **(more or {})})
    except OSError as error:
        run.discard()
        reason = error.strerror or str(error)
        remedy = "Free space, or set HEADWAY_CACHE to a folder that can be written."
        raise BadInput(f"no working copy of the run can be kept in {run.path}", reason, remedy) from None
    except BaseException:  # raised again: whatever it was, no run is left that never began
        run.discard()
        raise
    return run


def find(place: Place, name: str) -> FarRun:
    """See `headway.runs.find`; the working copy is brought up to date."""
    run = FarRun(place.folder.resolve() / name, place)
    try:
        if not NAME.fullmatch(name):  # it may lead elsewhere
            raise NoRun(f"no run {name!r}")
        head = run.remote.head()
    except BadInput as error:
        known = storage_of(str(place.url)).folders() if error.reason == "" else [name]
        known = [each for each in known if NAME.fullmatch(each)]  # `.audit` is none
        if name in known and NAME.fullmatch(name):
            raise
        remedy = nearest(name, known) if known else "Start one with `headway train JOB`."
        raise NoRun(f"no run {name!r} in {place}", "" if known else "it holds no runs", remedy) from None
    if (head.brief or {}).get("kind") == SWEEP:
        raise no_run_but_a_sweep(name)
    if (head.brief or {}).get("state") == COPYING:
        remedy = f"Remove it with `headway runs prune {name} --runs {place}`, and copy it again."
        raise BadInput(f"{run.where} is no whole run", "it was being copied there, and that was broken off", remedy)
    place.claim_folder()
    run.pull()
    return run


def _pulled(remote: RemoteRun, folder: Path, led: Callable[[], bool]) -> Head:
    was_there = folder.exists()
    try:
        return remote.pull(folder, led)
    except OutOfReach:
        raise
    except OSError as error:
        if not was_there:
            shutil.rmtree(folder, ignore_errors=True)
        reason = error.strerror or str(error)
        remedy = "Free space, or set HEADWAY_CACHE to a folder that can be written."
        raise BadInput(f"no working copy of the run can be made in {folder}", reason, remedy) from None
    except HeadwayError:
        if not was_there:
            shutil.rmtree(folder, ignore_errors=True)
        raise


def briefs(place: Place) -> list[Brief]:
    """The runs of a store, oldest first: one listing, and one read of each run, many at once."""
    storage = _looked_into(place)
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="listing") as pool:
        found = [brief for brief in pool.map(lambda name: _brief(place, storage, name), storage.folders()) if brief]
    return sorted(found, key=lambda brief: (brief.created, brief.run))


def _brief(place: Place, storage: Storage, name: str) -> Brief | None:
    """None where it is no run, as what a removal left. Of the head only that is read which a listing shows."""
    try:
        tree = json.loads(storage.get(f"{name}/{heads.HEAD}"))
        head = tree["head"]
        told, since = head["brief"], float(head["at"])
        led = not head["released"] and abs(time.time() - since) < LIVES_S
        removed = head.get("removed", False)
        brief = Brief.of(name, place.place_of(name), told, since)
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return None
    if removed or brief.state == COPYING:
        message = "its removal was broken off" if removed else "the copying was broken off"
        return replace(brief, state="broken", message=message)
    if brief.state != "running":
        return brief
    brief = replace(brief, last=max(brief.last, since))
    if led:
        return brief
    return replace(brief, state="interrupted", message=listing.GONE, unclosed=True, unheard=not head["released"])


def glance(place: Place, name: str) -> Brief | None:
    """One run of a store, by one read; None where there is none of that name. Raises OutOfReach."""
    return _brief(place, _looked_into(place), name) if NAME.fullmatch(name) else None


def _looked_into(place: Place) -> Storage:
    """The store, for somebody who waits for the answer: whether it comes is soon known."""
    return storage_of(str(place.url), quick(settings()))


def leader(place: Place, name: str) -> str:
    """The process that leads a run, or led it last, in words."""
    try:
        return str(RemoteRun(_looked_into(place), name).head().owner)
    except BadInput:  # there is no such run, or it is damaged
        return ""


def counting(run: RemoteRun, manifests: list[str]) -> list[str]:
    """Of checkpoints, by the names of their manifests in the run, those that count; the head is asked once."""
    head = run.head()
    return [name for name in manifests if head.counts(name)]


def fence(run: RemoteRun, epoch: int) -> None:
    """Raises Superseded where the run is led in another epoch."""
    head = run.head()
    if head.epoch != epoch or head.removed:
        raise superseded(replace(head, epoch=epoch), head)


def open_run(far: Mapping[str, Any], leads: bool = False) -> RemoteRun:
    """The run that `FarRun.far` of another process tells of."""
    url, name = split(far["url"])
    options = Options(**far["options"])
    return RemoteRun(storage_of(url, quick(options) if leads else options), name)
