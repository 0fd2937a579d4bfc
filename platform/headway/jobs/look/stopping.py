"""`headway stop`: ask whoever leads a run to end it after a checkpoint, wait for that, and say where it can be gone on
from.

The request lies in the run's place (`headway.runs.requests`), so it reaches a driver that no connection leads to, and
one that has not begun. Where that place cannot be reached from here, Ray is asked to end the job.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from headway import runs as kept
from headway.core.ends import STATES
from headway.errors import BadInput, HeadwayError
from headway.jobs import told
from headway.jobs.look import asking
from headway.jobs.look.asking import tried
from headway.jobs.look.sight import BROKEN, Say, Sight, Wait, look, pending, seen_place
from headway.runs import Place, RunFolder, audit, swept
from headway.runs.closing import close, nobody
from headway.runs.requests import Box, Stop, of_attempt

if TYPE_CHECKING:
    from headway.jobs.api.client import RayJob, RayJobs

CLOSING_S = 150.0
"""So long it is waited for that a leader goes who has closed the run: its tracking store may be slow."""
LOOK_S = 1.0
RAY_TOO_S = 20.0
"""After so long Ray is asked too, where a request lies in a folder: the one of that path here may be another one."""


@dataclass(frozen=True)
class Stopped:
    """What a run has come to.

    Args:
        run: its name.
        state: that it is in; running only where another process has taken the lead meanwhile.
        message: why.
        step: committed; None where that is not known.
        checkpoint: step of the newest one, which `headway resume` goes on from; None where there is none, or it cannot
            be seen from here.
        checkpoint_path: its folder or URL.
        path: of the run; "" where only the cluster knows.
        asked: False where it had ended before.
    """

    run: str
    state: str
    message: str = ""
    step: int | None = None
    checkpoint: int | None = None
    checkpoint_path: str = ""
    path: str = ""
    asked: bool = True


def stop(
    run: str,
    *,
    runs: str | Path | None = None,
    address: str | None = None,
    now: bool = False,
    say: Say = nobody,
) -> Stopped:
    """End a run, wherever it is led, and wait for it; one that was submitted and has not begun, too.

    Args:
        run: its name, or its folder or URL.
        runs: where runs are kept: a folder or URL; HEADWAY_RUNS, the user's config file, else "runs" when not given.
        address: of a cluster, http://HOST:PORT, that is asked for submissions; RAY_API_SERVER_ADDRESS, or RAY_ADDRESS
            where it is such a one, when not given; without any no cluster is asked.
        now: without a checkpoint: what came after the newest one is done again by a resume.
        say: takes lines for people meanwhile.

    Raises:
        BadInput: there is no such run and no such submission, or nothing could be asked.
    """
    place, name = asking.place_of(run, runs)
    asked = Stop.mine(now)
    off = _off_queue(place, name, address, asked, say)
    sight, unread = tried(str(place), lambda: look(place, name))
    if sight is not None and sight.state == BROKEN:
        remedy = f"headway runs prune {name} --runs {place} removes what there is."
        raise BadInput(f"{place.place_of(name)} is no whole run", sight.message, remedy)
    if sight is not None:
        swept.admit(place, sight.brief, "stop")
    if sight is not None and (sight.led or not (sight.over or sight.gone)):
        return _end_led(place, name, asked, say)
    listed, unasked = asking.jobs(address)
    job = pending(listed or (), name, sight)
    if job is not None:
        return _end_submitted(place, name, job, address, asked, say)
    if sight is not None and sight.gone:
        return _end_led(place, name, asked, say)
    if sight is not None:
        return replace(_found(place, name, sight), asked=off is not None)
    if off is not None:
        return Stopped(name, "stopped", off)
    if unread is not None:
        raise asking.nothing(unread, unasked)
    reason = f"{unasked.what} could not be asked ({unasked.reason})" if unasked is not None else ""
    raise asking.nowhere(place, name, address, unasked, reason)


def _off_queue(place: Place, name: str, address: str | None, asked: Stop, say: Say) -> str | None:
    """Take it off the queue of its place: a queue begins again what it has paused, and what waits it begins. Returns
    what the queue said; None where it has no such job.

    Raises:
        HeadwayError: it is in the queue, holds no workers, and nobody who keeps that could be asked.
    """
    from headway.core import enqueued
    from headway.queues import asking as queue

    where = place.url or str(place.folder.resolve())
    listed, _ = tried(str(place), lambda: queue.ls(where))
    entry = listed.book.entries.get(name) if listed is not None else None
    if listed is None or entry is None or entry.over:
        return None
    trains = entry.state in ("starting", "running")
    if trains and not listed.kept:  # whoever will keep it finds it stopped
        return None
    try:
        answer = queue.ask(where, "rm", {"run": name}, address=address, say=say)
    except HeadwayError as error:
        again, _ = tried(str(place), lambda: queue.ls(where))
        still = again.book.entries.get(name) if again is not None else entry
        if trains or still is None or still.over:
            return None
        raise error
    held = "" if entry.state in enqueued.WAITS and not entry.prepared else ", and is ended"
    audit.note(place, "queue rm", name, by=asked.by, say=say)
    say(f"{name} is taken off the queue{held}")
    return answer.said


def _end_led(place: Place, name: str, asked: Stop, say: Say) -> Stopped:
    """Ask the one that leads it, and wait until nobody does."""
    box, start = Box.of(place, name), ""
    wait = Wait(f"the end of {name}", say)
    try:
        while True:
            sight = wait.tried(str(place), lambda: look(place, name))
            if sight is None:
                if wait.answered:
                    raise BadInput(f"run {name} was removed meanwhile", "", "")
            elif sight.over and (not sight.led or wait.lasted(CLOSING_S)):
                return _found(place, name, sight)
            elif start and sight.start != start and not sight.over:
                found = _found(place, name, sight)
                return replace(found, state="running", message="another process leads it since")
            elif not start:  # of one that seems gone too: that is by two machines' clocks
                box.ask(sight.start, asked)
                start = sight.start
                say(f"{name} is asked to end{' at once' if asked.now else ' after a checkpoint'}")
                audit.note(place, "stop", name, by=asked.by, details={"now": asked.now}, say=say)
            elif sight.gone and not sight.led:
                wait.tried(str(place), lambda: close(kept.find(place, name), say=say))  # if it lives, it is waited for
            wait.a_while(box.every_s, sight)
    finally:
        if start:
            _forget(box, start, place, name)


def _forget(box: Box, start: str, place: Place, name: str) -> None:
    """Take a request away that nobody needs to hear any more; one that is to be heard yet stays, after Ctrl-C too."""
    sight, _ = tried(str(place), lambda: look(place, name))
    if sight is not None and (sight.over or sight.start != start):
        tried(str(place), lambda: box.withdraw([start]))


def _end_submitted(place: Place, name: str, job: RayJob, address: str | None, asked: Stop, say: Say) -> Stopped:
    """Ask a submission that has not begun, or whose run cannot be seen from here, and wait until it is over."""
    from headway.jobs.api.client import RayJobs

    api, start = RayJobs.at(address), of_attempt(job.attempt)
    there = seen_place(job, place)
    if there is not None and there != place:
        sight, _ = tried(str(there), lambda: look(there, name))
        if sight is not None and sight.led:
            return _end_led(there, name, asked, say)
    box = _asked(there, name, start, asked)
    if box is None:
        say(f"the run's place cannot be reached from here; {api.address} is asked to end {job.id}, after a checkpoint")
    elif there is not None:
        say(f"{name} is asked to end")
        audit.note(there, "stop", name, by=asked.by, details={"now": asked.now, "submission": job.id}, say=say)
    after_s = 0.0 if box is None else RAY_TOO_S if there is not None and there.url is None else None
    over, wait = _over(api, job, after_s, name, say), Wait(f"the end of {name}", say)
    while True:
        sight = wait.tried(str(there), lambda: look(there, name)) if there is not None else None
        if sight is not None and sight.submission == job.id and sight.over and not sight.led:
            break
        if over():
            break
        wait.a_while(LOOK_S, sight)
    if box is not None:
        tried(str(there), lambda: box.withdraw([start]))
    found, _ = tried(str(there), lambda: look(there, name)) if there is not None else (None, None)
    if there is not None and found is not None and found.gone:
        return _end_led(there, name, asked, say)  # it was not gone on with
    if there is not None and found is not None:
        return _found(there, name, found)
    return _told(api, job, name)


def _told(api: RayJobs, job: RayJob, name: str) -> Stopped:
    """What a driver told of its end, where its run cannot be seen from here, or was none."""
    text, _ = tried(api.address, lambda: api.logs(job.id))
    content = told.read((text or "").splitlines())
    began = next((each for each in content if each["told"] == "began"), {})
    last = next((each for each in reversed(content) if each["told"] in ("ended", "refused")), None)
    if last is not None and last["told"] == "ended":
        return Stopped(name, str(last["state"]), str(last["message"]), path=str(began.get("where", "")))
    ended, _ = tried(api.address, lambda: api.job(job.id))
    said = f"all that is known of {job.id}: {ended.status if ended is not None else 'it is in no list'}"
    code = ended.exit_code if ended is not None else None
    return Stopped(name, "stopped" if code is None else STATES.get(code, "failed"), said)


def _asked(place: Place | None, name: str, start: str, asked: Stop) -> Box | None:
    """Where a request lies now; None where it could not be put."""
    if place is None:
        return None
    box = Box.of(place, name)
    _, unread = tried(str(place), lambda: box.ask(start, asked))
    return box if unread is None else None


def _over(api: RayJobs, job: RayJob, after_s: float | None, name: str, say: Say) -> Callable[[], bool]:
    """Gives what tells whether a job has ended, as far as Ray knows. after_s: when Ray is to end it; None for never.
    (Not while it is PENDING: Ray would say that it did, and leave it so for ever.)"""
    wait, asked = Wait(f"the end of {name}", say), [False]

    def ask() -> bool:
        found = wait.tried(api.address, lambda: api.job(job.id))
        if found is None or not found.alive:
            return wait.answered
        late = after_s is not None and wait.lasted(after_s)
        if late and found.status == "RUNNING" and not asked[0]:
            asked[0] = tried(api.address, lambda: api.stop(job.id))[1] is None
        return False

    return ask


def _found(place: Place, name: str, sight: Sight) -> Stopped:
    """What a run has come to, and its newest checkpoint."""
    run = kept.named(place, name)
    newest, _ = tried(str(place), lambda: _newest(run))
    step, path = newest if newest is not None else (None, "")
    return Stopped(name, sight.state, sight.message, sight.step, step, path, run.where)


def _newest(run: RunFolder) -> tuple[int, str] | None:
    from headway.checkpoint.store import committed_last

    found = committed_last(run.checkpoint_root, run.counting)
    return None if found is None else (found.step, found.where)
