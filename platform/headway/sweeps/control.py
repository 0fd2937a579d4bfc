"""What one does about a sweep from elsewhere: end it, have its best, let failed trials be tried again."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from headway.errors import BadInput
from headway.runs import epochs, requests
from headway.runs.place import Place
from headway.runs.requests import Box
from headway.sweeps import best as ready
from headway.sweeps import conclusion, file, folder
from headway.sweeps.book import Book, entries, read
from headway.sweeps.events import Again, Failed, Reported
from headway.sweeps.folder import FarSweep, NearSweep
from headway.sweeps.loop import TRIES

LOOK_S = 0.5
SAY_EVERY_S = 15.0
GONE = "the process that led the sweep is gone"
Say = Callable[[str], None]


@dataclass(frozen=True)
class Stopped:
    """What a sweep has come to.

    Args:
        state: running only where another process has taken the lead meanwhile.
        message: why.
        asked: False where it had ended before.
        path: of the sweep.
    """

    sweep: str
    state: str
    message: str
    asked: bool
    path: str


@dataclass(frozen=True)
class Best:
    """The best trial of a sweep.

    Args:
        run: its run, in the same place.
        step: after which it was that good.
        text: of a job with its settings, ready to train.
    """

    sweep: str
    trial: int
    run: str
    step: int
    metric: str
    value: float
    settings: dict[str, Any]
    text: str


def stop(name: str, *, runs: str | Path | None = None, now: bool = False, say: Say = lambda _: None) -> Stopped:
    """End a sweep, wherever it is led, and wait for that; it can be gone on with.

    Args:
        name: of the sweep, or its folder or URL.
        runs: as of `headway.train`.
        now: its trials take no checkpoints: what they did since the newest is done again by a resume.
        say: takes lines for people meanwhile.

    Raises:
        NoSweep: there is none.
        OutOfReach: the store does not answer.
    """
    found = folder.find(Place.of(runs), name)
    if not found.is_led():
        return _ended(found, asked=False)
    epoch = _epoch(found)
    Box.of_run(found).ask(requests.of_epoch(epoch), requests.Stop.mine(now))
    told = time.monotonic()
    while found.is_led() and _epoch(found) == epoch:
        if time.monotonic() - told > SAY_EVERY_S:
            told = time.monotonic()
            say(f"waiting for the end of {found.name}; its trials take checkpoints")
        time.sleep(LOOK_S)
    found.refresh()
    if found.is_led() and _epoch(found) != epoch:
        return Stopped(found.name, "running", "another process leads it since", True, found.where)
    return _ended(found, asked=True)


def best(name: str, *, runs: str | Path | None = None) -> Best:
    """The best trial so far, of a sweep that may be under way.

    Raises:
        NoSweep: there is none.
        BadInput: no trial was evaluated yet.
    """
    return _best(folder.find(Place.of(runs), name), ready.FILE)


def write_best(name: str, path: str | Path, *, runs: str | Path | None = None) -> Best:
    """Write the best trial's job into a new file, ready to train.

    Raises:
        BadInput: there is such a file; it is what it was. Or as `best`.
    """
    path = Path(path)
    if path.exists() or path.is_symlink():
        raise _there(path)
    found = _best(folder.find(Place.of(runs), name), str(path))
    try:
        with path.open("x", encoding="utf-8") as made:
            made.write(found.text)
    except FileExistsError:
        raise _there(path) from None
    except OSError as error:
        raise BadInput(f"{path} cannot be written", error.strerror or str(error), "Give another file.") from None
    return found


def retry(name: str, *, runs: str | Path | None = None) -> list[int]:
    """Let the trials that failed be tried again, each from its checkpoint, when the sweep is resumed; their failures do
    not count any more.

    Returns:
        Their numbers.

    Raises:
        NoSweep: there is none.
        BadInput: no trial failed, or a process leads the sweep.
    """
    found = folder.find(Place.of(runs), name)
    with found.led() as epoch:
        trials = failed(found.book)
        if not trials:
            raise BadInput(
                f"no trial of sweep {found.name} failed", "", f"headway sweep status {found.name} tells of all."
            )
        head, _ = read(found.book)
        book = Book(found.book, partial(found.secure, epoch))
        try:
            book.begin(found.name, str(head["key"]), str(head["terms"]))
            for trial in trials:
                book.append(Again(trial))
            book.secure()
        finally:
            book.close()
        found.tell(state="stopped", message=f"{len(trials)} trials are to be tried again")
    return trials


def failed(book: Path) -> list[int]:
    """Trials that failed last, and were not heard of since, by a sweep's book. (What the platform failed is tried again
    by itself, once.)"""
    found: dict[int, None] = {}
    tries: Counter[int] = Counter()
    for entry in entries(book):
        match entry.event:
            case Failed(trial, _, "platform", _) if tries[trial] < TRIES:
                tries[trial] += 1
            case Failed(trial, _, kind, _) if kind != "diverged":
                found[trial] = None
            case Reported(trial) | Again(trial):
                found.pop(trial, None)
                del tries[trial]
    return sorted(found)


def is_sweep(place: Place, name: str) -> bool:
    """Whether a sweep is called so there. Raises OutOfReach."""
    return folder.there(place, name)


def _best(found: NearSweep | FarSweep, written_to: str) -> Best:
    report = conclusion.load(found)
    trial = report.best
    if trial is None or trial.best is None or trial.best_step is None:
        reason = "no trial has been evaluated that went on well"
        raise BadInput(f"sweep {found.name} has no best trial", reason, "Let it go on first.")
    text = ready.written(report, file.load(found.file).job_of(trial.best_settings), written_to)
    return Best(
        found.name, trial.trial, trial.run, trial.best_step, report.metric, trial.best, dict(trial.best_settings), text
    )


def _there(path: Path) -> BadInput:
    return BadInput(f"{path} exists", "nothing is overwritten", "Give another name, or remove it.")


def _epoch(found: NearSweep | FarSweep) -> int:
    """Of whoever leads, or led last."""
    return found.remote.head().epoch if isinstance(found, FarSweep) else epochs.newest(found.path)


def _ended(found: NearSweep | FarSweep, asked: bool) -> Stopped:
    facts = found.read()
    state, message = str(facts.get("state", "")), str(facts.get("message", ""))
    if state == "running":
        state, message = "interrupted", GONE
    return Stopped(found.name, state, message, asked, found.where)
