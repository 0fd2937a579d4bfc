"""A sweep's own folder, in the place where its runs are: who may write to it, and how one is found again.

PLACE/SWEEP/sweep.json    state and facts      PLACE/SWEEP/book.jsonl    what its loop heard, see `headway.sweeps.book`
            sweep.yaml    as it is run                     leaders/      who led it (see `headway.runs.epochs`)

It is led as a run is: by a lock and an epoch, in a store by a lease, and from a working copy that is shipped.
"""

from __future__ import annotations

import json
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headway.core.allowance import Allowance
from headway.durable import replace
from headway.errors import BadInput, HeadwayError, RunFailed, nearest
from headway.runs import epochs, far
from headway.runs.far import FarRun
from headway.runs.folder import NAME, RunFolder, is_run, usable
from headway.runs.lease import Lease
from headway.runs.mirror import Mirror
from headway.runs.place import SWEEP, SWEEP_FACTS, Place, is_url, local_folder, split
from headway.runs.refusals import Taken
from headway.sweeps import book
from headway.sweeps.names import run_of, trial_of

FACTS, FILE, KIND = SWEEP_FACTS, "sweep.yaml", SWEEP
HURRY_S, HURRIES = 1.0, 30
"""Decisions that wait for a store: thirty in a row are written at once, then one a second. (Stores take about one write
a second of one object.)"""
MOST_TRIALS, MOST_REPEATS = 999_999, 999
"""That a sweep's name leaves room for."""
LONGEST = 121
"""Characters of a run's name."""
FLUSH_S, PATIENCE_S = 5.0, 600.0
Say = Callable[[str], None]


class NoSweep(BadInput):
    """There is no sweep of that name."""


class _Sweep(RunFolder):
    """What both kinds have."""

    @property
    def book(self) -> Path:
        return self.path / book.FILE

    @property
    def file(self) -> Path:
        return self.path / FILE

    def read(self) -> dict[str, Any]:
        """The facts of sweep.json."""
        try:
            facts: dict[str, Any] = json.loads((self.path / FACTS).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise BadInput(f"{self.path} is not a sweep", f"its {FACTS} cannot be read ({error})", "") from None
        return facts

    def write(self, facts: dict[str, Any]) -> None:
        """Replace sweep.json at once. Raises OSError."""
        replace(self.path / FACTS, json.dumps(facts, indent=1))

    def tell(self, **facts: Any) -> None:
        """Change some of the facts. Raises RunFailed where they cannot be written."""
        try:
            self.write({**self.read(), **facts})
        except OSError as error:
            reason = error.strerror or str(error)
            raise RunFailed(f"{self.path} cannot be written", reason, "Mend the folder, then resume.") from None

    def secure(self, epoch: int, say: Say = lambda _: None) -> None:
        """For who leads: what is in the folder will be found by whoever takes the sweep up, and nobody has yet.

        Args:
            epoch: of `led`.
            say: takes a line for people, where this takes a while.

        Raises:
            Superseded: another process leads.
            RunFailed: it cannot be kept.
        """
        try:
            epochs.verify(self.path, epoch)
        except OSError as error:
            raise RunFailed(f"{self.path} cannot be read", error.strerror or str(error), "Mend the folder.") from None


@dataclass(frozen=True)
class NearSweep(_Sweep):
    """A sweep in a folder."""


@dataclass(frozen=True)
class FarSweep(_Sweep, FarRun):
    """A sweep in a store."""

    def read(self) -> dict[str, Any]:
        """The facts; of one whose driver was killed before it shipped any, those of its head."""
        if (self.path / FACTS).exists():
            return super().read()
        return {"sweep": self.name, **dict(self.remote.head().brief or {})}

    def secure(self, epoch: int, say: Say = lambda _: None) -> None:
        mirror, deadline, told = self._led.mirror, time.monotonic() + PATIENCE_S, False
        while mirror is not None and not mirror.flush(FLUSH_S):
            try:
                far.fence(self.leading(), epoch)
            except RunFailed:
                raise
            except (HeadwayError, OSError):
                pass  # no answer: it is tried again
            if time.monotonic() > deadline:
                reason = mirror.error or "the store does not take them"
                raise RunFailed(
                    f"the decisions of {self.name} cannot be kept in {self.where}",
                    reason,
                    "Mend the store, then resume.",
                )
            if not told:
                say(f"{self.where} does not answer: nothing is decided until it does")
                told = True
        if mirror is None:
            raise RunFailed(f"the decisions of {self.name} cannot be kept", "this process does not lead it", "")

    def _mirror(self, lease: Lease) -> Mirror:
        return Mirror(self.path, lease, brief=self._brief, hurries=Allowance(HURRY_S, HURRIES))

    def _brief(self) -> Mapping[str, Any] | None:
        try:
            facts = _Sweep.read(self)
        except BadInput:
            return None
        return {"kind": KIND, **facts}


def create(place: Place, name: str | None, stem: str, text: str, facts: Mapping[str, Any]) -> NearSweep | FarSweep:
    """Make the folder of a new sweep.

    Args:
        name: None for one made of `stem` and the time.
        text: of its sweep.yaml.
        facts: further ones of its sweep.json.

    Raises:
        Taken: a run or a sweep has that name.
        BadInput: it is not usable, or nothing can be written there.
    """
    stem = f"{stem}-{time.strftime('%Y%m%d-%H%M%S')}"
    names = [_named(name)] if name is not None else [stem, *(f"{stem}-{i}" for i in range(2, 1000))]
    for chosen in names:
        now = time.time()
        first = {"sweep": chosen, "key": uuid.uuid4().hex, "state": "running", "message": "", "created": now}
        try:
            return _made(place, chosen, text, {**first, "started": now, "ended": None, **facts})
        except Taken:
            if chosen == names[-1]:
                raise
    raise AssertionError("there is a last name")


def _named(name: str) -> str:
    """The name, which a sweep can have. Raises BadInput."""
    usable(name)
    found = trial_of(name)
    if found is not None:
        reason = f"that is how trial {found[1]} of a sweep {found[0]} is called"
        raise BadInput(f"--name {name!r}", reason, "Choose another.")
    longest = run_of(name, MOST_TRIALS, MOST_REPEATS)
    if not NAME.fullmatch(longest):
        reason = f"its trials are called after it, like {run_of('NAME', 1)}, and such a name would be too long"
        raise BadInput(f"--name {name!r}", reason, f"Choose one that is {len(longest) - LONGEST} characters shorter.")
    return name


def _made(place: Place, name: str, text: str, facts: Mapping[str, Any]) -> NearSweep | FarSweep:
    path = place.folder.resolve() / name
    if place.url is None:
        folder: NearSweep | FarSweep = NearSweep(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.mkdir()
        except FileExistsError:
            remedy = f"Choose another --name, or go on with it: headway resume {name}"
            raise Taken(f"{path} is taken", "a run or a sweep of that name is there", remedy) from None
        except OSError as error:
            raise BadInput(f"sweeps cannot be kept in {place}", str(error), "Give another folder: --runs.") from None
    else:
        folder = sweep = FarSweep(path, place)
        sweep._led.lease = sweep.begin({"kind": KIND, **facts})
        shutil.rmtree(path, ignore_errors=True)  # a copy of what once had this name
    try:
        if place.url is not None:
            path.mkdir(parents=True)
            place.claim_folder()
        folder._forget(of_epochs=True)
        replace(folder.file, text)
        folder.write(dict(facts))
    except OSError as error:
        folder.discard()
        reason = error.strerror or str(error)
        raise BadInput(f"{path} cannot be written", reason, "Free space, or give another folder: --runs.") from None
    except BaseException:  # raised again: whatever it was, nothing is left that never began
        folder.discard()
        raise
    return folder


def admit(place: Place, name: str) -> None:
    """Of a new sweep: nobody's runs are called as its trials will be. Raises BadInput, OutOfReach."""
    if place.url is None:
        there = [path.name for path in place.folder.glob(f"{name}.*")]
    else:
        there = far.storage_of(place.url).folders()
    runs = sorted(each for each in there if (found := trial_of(each)) is not None and found[0] == name)
    if runs:
        reason = "they are another's, and its trials would go on from them"
        fact = f"there are runs that are called as those of a sweep {name}: {runs[0]}"
        raise BadInput(fact, reason, "Give the sweep another name: --name. Or remove them: headway runs prune.")


def find(place: Place, name: str) -> NearSweep | FarSweep:
    """The sweep of that name, which may also be its folder or URL.

    Raises:
        NoSweep: there is none; names the nearest.
        OutOfReach: the store does not answer.
    """
    if is_url(name):
        url, name = split(name)
        place = Place.of(url)
    elif name.lower().startswith("file:"):
        name = str(local_folder(name, "no sweep can be"))
    if place.url is None:
        for path in (place.folder / name, Path(name)):
            if is_sweep(path):
                return NearSweep(path.resolve())
    else:
        sweep = FarSweep(place.folder.resolve() / name, place)
        if NAME.fullmatch(name) and _kind(sweep) == KIND:
            place.claim_folder()
            sweep.pull()
            return sweep
    raise _none(place, name)


def look(place: Place, name: str) -> NearSweep | FarSweep | None:
    """The sweep of that name, folder or URL; None where there is none, which costs one question. Raises OutOfReach."""
    if is_url(name):
        url, name = split(name)
        place = Place.of(url)
    if place.url is None or "/" in name:
        return next((NearSweep(p.resolve()) for p in (place.folder / name, Path(name)) if is_sweep(p)), None)
    sweep = FarSweep(place.folder.resolve() / name, place)
    if not NAME.fullmatch(name) or _kind(sweep) != KIND:
        return None
    place.claim_folder()
    sweep.pull()
    return sweep


def is_sweep(path: Path) -> bool:
    """Whether a sweep is in that folder."""
    return (path / FACTS).is_file()


def there(place: Place, name: str) -> bool:
    """Whether a sweep of that name is in the place. Raises OutOfReach."""
    try:
        find(place, name)
    except NoSweep:
        return False
    return True


def every(place: Place) -> list[str]:
    """Names of the sweeps of a place. Raises OutOfReach."""
    if place.url is None:
        return sorted(path.parent.name for path in place.folder.glob(f"[!.]*/{FACTS}"))
    names = far.storage_of(place.url).folders()
    return [name for name in names if _kind(FarSweep(place.folder.resolve() / name, place)) == KIND]


@contextmanager
def leading(sweep: NearSweep | FarSweep, say: Say = lambda _: None) -> Iterator[int]:
    """Lead the sweep: one process may at a time. Gives the epoch.

    Raises:
        Led: another process does.
    """
    with sweep.led(say) as epoch:
        yield epoch


def _kind(sweep: FarSweep) -> str:
    try:
        return str((sweep.remote.head().brief or {}).get("kind", ""))
    except BadInput:  # there is none of that name, or it is damaged
        return ""


def _none(place: Place, name: str) -> NoSweep:
    if place.url is None and NAME.fullmatch(name) and is_run(place.folder / name):
        return NoSweep(f"{name} is no sweep", "it is a run", f"headway report {name} tells of it.")
    known = every(place)
    remedy = nearest(name, known) if known else "Start one with `headway sweep FILE`."
    return NoSweep(f"no sweep {name!r} in {place}", "" if known else "it holds no sweeps", remedy)
