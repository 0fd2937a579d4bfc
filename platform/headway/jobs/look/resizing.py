"""`headway resize`: ask whoever leads a run to have more workers, or fewer, while it runs, and say what is there.

The request lies in the run's place (`headway.runs.requests`), as one for its end does. The run's own records say which
request was the last that was heard, so who asks knows whether theirs was, or somebody else's after it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from headway import runs as kept
from headway.errors import BadInput
from headway.job import Job, load
from headway.jobs.look import asking
from headway.jobs.look.asking import tried
from headway.jobs.look.sight import BROKEN, Say, Sight, Wait, look, pending, seen_place
from headway.runs import Place, audit, swept
from headway.runs.closing import nobody
from headway.runs.requests import AS_BEFORE, Box, Resize, of_attempt

HEARD_S = 60.0
"""So long it is waited for that a leader hears: one that starts Ray, or tries the task, does not yet."""
SIZE = re.compile(r"(?:(\d+)\.\.)?(\d+)")


@dataclass(frozen=True)
class Resized:
    """What a run is asked for, and what it has.

    Args:
        run: its name.
        min, max: workers that are asked for. Of a run that has not begun min is 0 where as few as before will do, and
            it begins with no more than its lanes can carry.
        heard: whether its leader knows. False: it will, once it listens.
        workers: that train now; None where that is not known.
        waits: why there are not as many; empty where there are, or that is not known yet.
        by_other: who asked for this size after all, where it was not us.
    """

    run: str
    min: int
    max: int
    heard: bool
    workers: int | None = None
    waits: str = ""
    by_other: bool = False


def resize(
    run: str,
    workers: int | str,
    *,
    runs: str | Path | None = None,
    address: str | None = None,
    say: Say = nobody,
    heard_s: float = HEARD_S,
) -> Resized:
    """Let a run have another number of workers while it runs; nothing that it computes hangs on that.

    Args:
        run: its name, or its folder or URL.
        workers: how many: 4, or "2..4" for at least two and at most four. By 4 alone as few as before will do, so that
            nobody stops until the others have come.
        runs, address: as for `headway.jobs.stop`.
        say: takes lines for people meanwhile.
        heard_s: for so long it is waited for that the leader hears.

    Raises:
        BadInput: it is no size, or none that the run's lanes can carry; there is no such run, or it has ended.
    """
    least, most = size(workers)
    place, name = asking.place_of(run, runs)
    sight, unread = tried(str(place), lambda: look(place, name))
    if sight is not None and sight.state == BROKEN:
        raise BadInput(f"{place.place_of(name)} is no whole run", sight.message, "")
    if sight is not None:
        swept.admit(place, sight.brief, "resize")
    if sight is not None and (sight.led or not (sight.over or sight.gone)):
        return _of_led(place, name, least, most, say, heard_s)
    listed, unasked = asking.jobs(address)
    job = pending(listed or (), name, sight)
    there = seen_place(job, place) if job is not None else None
    if job is not None and there is not None:
        if there != place and tried(str(there), lambda: look(there, name))[0] is not None:
            return _of_led(there, name, least, most, say, heard_s)
        wish = Resize.mine(least or AS_BEFORE, most, least or most)
        Box.of(there, name).ask(of_attempt(job.attempt), wish)
        _note(there, name, wish, say)
        return Resized(name, wish.min, wish.max, False, waits="it has not begun")
    if job is not None:
        remedy = f"Ask from a machine that reaches {job.runs or 'where its runs are kept'}."
        raise BadInput(f"run {name} cannot be reached", "where it is kept is not seen from here", remedy)
    if sight is not None:
        raise _ended(name, sight, least, most)
    if unread is not None:
        raise asking.nothing(unread, unasked)
    raise asking.nowhere(place, name, address, unasked, "")


def size(workers: int | str) -> tuple[int | None, int]:
    """Fewest (None: as before) and most workers. Raises BadInput: it is no size."""
    found = SIZE.fullmatch(str(workers).strip())
    least = int(found[1]) if found is not None and found[1] else None
    most = int(found[2]) if found is not None else 0
    if most < 1 or least == 0:
        raise BadInput(f"--workers {workers}", "it is no number of workers", "Write it like --workers 4, or 2..4.")
    if least is not None and least > most:
        raise BadInput(f"--workers {workers}", f"{least} is more than {most}", f"Write --workers {most}..{least}.")
    return least, most


def _of_led(place: Place, name: str, least: int | None, most: int, say: Say, heard_s: float) -> Resized:
    """Ask the one that leads it, and wait until it has heard."""
    wish, box = _checked(place, name, least, most), Box.of(place, name)
    start = before = ""
    wait = Wait(f"the one that leads {name} to hear", say)
    while True:
        sight = wait.tried(str(place), lambda: look(place, name))
        if sight is None:
            if wait.answered:
                raise BadInput(f"run {name} was removed meanwhile", "", "")
        elif sight.over or sight.gone or (start and sight.start != start):
            _withdraw(box, start, wish)
            raise _ended(name, sight, least, most)
        elif not start:
            box.ask(sight.start, wish)
            _note(place, name, wish, say)
            start, before = sight.start, sight.brief.request
            say(f"{name} is asked to have {words(wish.min, wish.max)}")
        elif sight.brief.request == wish.id:
            return _now(name, wish, sight)
        elif sight.brief.request != before and box.sized(start) != wish:
            return _now(name, wish, sight, by_other=True)
        if wait.lasted(heard_s):
            return Resized(name, wish.min, wish.max, False, waits="whoever leads it has not heard yet")
        wait.a_while(box.every_s, sight)


def _note(place: Place, name: str, wish: Resize, say: Say) -> None:
    audit.note(place, "resize", name, by=wish.by, details={"min": wish.min, "max": wish.max}, say=say)


def _withdraw(box: Box, start: str, wish: Resize) -> None:
    """Nobody will hear it any more."""
    if start:
        tried("the run's place", lambda: box.withdraw([start]) if box.sized(start) == wish else None)


def _checked(place: Place, name: str, least: int | None, most: int) -> Resize:
    """The request. Raises BadInput: the run's job cannot be carried so."""
    run = kept.find(place, name)
    target = run.read().get("target") or {}
    job = load(run.job_file)
    at_once = least or most
    least = least or min(most, int(target.get("min", job.workers.min)))
    _admit(job, least, most)
    load(run.job_file, [f"workers.min={least}", f"workers.max={most}"])
    return Resize.mine(least, most, at_once)


def _admit(job: Job, least: int, most: int) -> None:
    if most > job.lanes:
        reason = f"its {job.lanes} lanes cannot be carried by more than {job.lanes} workers"
        raise BadInput(f"--workers {most}", reason, f"Take {job.lanes} or fewer; lanes are fixed for a run.")


def _ended(name: str, sight: Sight, least: int | None, most: int) -> BadInput:
    state = "the process that led it is gone" if sight.gone else sight.message
    sizes = " ".join(f"--set workers.{key}={value}" for key, value in (("min", least), ("max", most)) if value)
    remedy = f"headway resume {name} {sizes} goes on with it at that size."
    if sight.state == "finished":
        remedy = "Only a run that is running can have another size."
    return BadInput(f"run {name} is {'interrupted' if sight.gone else sight.state}", state, remedy)


def _now(name: str, wish: Resize, sight: Sight, by_other: bool = False) -> Resized:
    brief = sight.brief
    least, most = (brief.least or wish.min, brief.most or wish.max) if by_other else (wish.min, wish.max)
    return Resized(name, least, most, True, brief.workers, brief.waits or brief.trouble, by_other)


def words(least: int, most: int) -> str:
    """A size, for people."""
    told = f"{most} workers" if most > 1 else "1 worker"
    if least == AS_BEFORE:
        return f"{told}, at least as many as before"
    return f"{told}, at least {least}" if least < most else told
