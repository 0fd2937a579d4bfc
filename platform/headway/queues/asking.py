"""What people ask of a queue: it lies in the queue's place until the keeper has answered, and where there is no keeper,
who asks begins one."""

from __future__ import annotations

import hashlib
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from headway.carried import code
from headway.core import bookings, enqueued
from headway.core.bookings import Answer, Book
from headway.core.enqueued import Entry
from headway.driver import means
from headway.errors import BadInput, HeadwayError
from headway.job import Job
from headway.jobs import entry as begins
from headway.jobs import secrets
from headway.jobs.api.client import RayJobs
from headway.jobs.look.asking import cluster as address_of
from headway.jobs.send import naming, parcel, sending, submitting
from headway.jobs.send.sending import Packed, Say
from headway.jobs.spec import FILE, Spec, to_json
from headway.notation.plain import write
from headway.queues.actor import ANEW
from headway.queues.place import QueuePlace, lives, storage_of
from headway.queues.rays import plain
from headway.runs import Place, audit
from headway.runs.folder import usable
from headway.runs.refusals import Away
from headway.runs.requests import this_person

HEARD_S = 1.5
"""So long an answer is waited for before it is looked whether there is a keeper at all."""
ANSWER_S = 90.0
LOOK_S, FAR_LOOK_S = 0.05, 0.3


@dataclass(frozen=True)
class Enqueued:
    """A job that is in the queue.

    Args:
        run: its name.
        state: see `headway.core.enqueued.State`.
        position: among those that wait, from 1; 0: it does not.
        why: it waits.
    """

    run: str
    state: str
    position: int
    why: str
    runs: str

    def shown(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


@dataclass(frozen=True)
class Listed:
    """The queue at one moment.

    Args:
        entries: as they will be looked at, those that hold workers first.
        kept: whether somebody keeps it.
        keeper: who does, or did last; "" where there is no queue.
    """

    book: Book
    entries: tuple[Entry, ...]
    kept: bool
    keeper: str


def submit(
    job: Job | dict[str, Any] | str | Path,
    *,
    address: str | None = None,
    name: str | None = None,
    runs: str | Path | None = None,
    settings: Sequence[str] = (),
    priority: int = 0,
    user: str | None = None,
    team: str = "",
    say: Say = submitting.quiet,
) -> Enqueued:
    """Put a job into the queue of a cluster. Returns once its keeper has taken it.

    Args:
        job, address, name, runs, settings: as for `headway.jobs.submit`; a place for runs must be known here.
        priority: the higher goes first.
        user, team: whose quotas and shares it counts against; the user of this process, and none.
        say: takes what the user should know.

    Raises:
        BadInput: it cannot be run, or no size of the cluster can hold it; it is not in the queue.
        Away: nobody answered.
    """
    code.refuse_on_import("headway.jobs.submit")
    found = submitting._job(job, settings)
    run = usable(name) if name is not None else submitting._timed(found.name)
    place, queue = _placed(runs)
    found = found.model_copy(update={"strategy": found.strategy.pinned(found)})  # whatever size it begins with
    tree, literal = secrets.stripped(found)
    if literal:
        secrets.allowed(literal, False)
    with tempfile.TemporaryDirectory(prefix="headway-submit-") as scratch:
        source = code.locate(found.task)
        for note in submitting._folders(found, place):
            say(note)
        files = submitting.code_of(found, source, Path(scratch), say)
        wanted = submitting._packages(found, place, None)
        spec = submitting._spec("train", run, place, job=write(tree), packages=wanted)
        _free(place, run)
        parcels = _kept(queue, spec, files)
    person = this_person()
    entry = Entry(
        run,
        spec.attempt,
        person,
        user if user is not None else person.partition("@")[0],
        team,
        priority,
        least=found.workers.min,
        most=found.workers.max,
        sizes=tuple(getattr(found.workers, "sizes", None) or ()),
        each=found.workers.each,
        warm=found.workers.spares,
        minds=means.minds(found),
        parcels=parcels,
    )
    audit.note(Place.of(place), "submit", run, details={"queue": True, "priority": priority, "team": team}, say=say)
    ask(place, "submit", {"entry": enqueued.to_tree(entry)}, address=address, say=say)
    listed = ls(place)
    now = listed.book.entries.get(run, entry)
    waiting = [each.run for each in listed.entries if each.state in enqueued.WAITS]
    position = waiting.index(run) + 1 if run in waiting else 0
    return Enqueued(run, now.state, position, listed.book.waits.get(run, "") if position else "", place)


def ask(
    runs: str | Path | None, do: str, what: dict[str, Any], *, address: str | None = None, say: Say = submitting.quiet
) -> Answer:
    """Ask something of the queue, and wait for what is answered.

    Args:
        do, what: see `headway.core.bookings.Wish`.
        address: of the cluster on which a keeper is begun where there is none.

    Raises:
        BadInput: it is refused; or there is no keeper, and no cluster is known.
        Away: nobody answered; nothing is asked any more.
    """
    place, queue = _placed(runs)
    wish = queue.wish(do, this_person(), what)
    begun = time.monotonic()
    keeper: _Beginning | None = None
    try:
        while time.monotonic() - begun < ANSWER_S:
            found = queue.read()
            answer = found[0].answers.get(wish.id) if found is not None else None
            if answer is not None:
                if answer.refused:
                    raise BadInput(answer.fact, answer.reason, answer.remedy)
                return answer
            none = found is None or (not lives(found[1]) and time.monotonic() - begun > HEARD_S)
            silent = time.monotonic() - begun > 2 * ANSWER_S / 9  # it looks alive, and does not answer
            if keeper is None and (none or silent):
                keeper = _Beginning(address, place, say)
            if keeper is not None and keeper.error is not None:
                raise keeper.error
            time.sleep(LOOK_S if Place.of(place).url is None else FAR_LOOK_S)
    except BaseException:  # raised again
        with suppress(HeadwayError, OSError):
            queue.withdraw(wish)
        raise
    with suppress(HeadwayError, OSError):
        queue.withdraw(wish)
    raise Away(
        f"the queue of {place} did not answer within {ANSWER_S:.0f} s",
        "its keeper is there, and does not hear, or it could not be begun",
        "Look at Ray's log of the actor headway-queue on the head; `headway queue restart` begins another.",
    )


def ls(runs: str | Path | None) -> Listed:
    """The queue, as its place has it: no cluster is asked. Empty where there is none."""
    _, queue = _placed(runs)
    found = queue.read()
    if found is None:
        return Listed(Book(), (), False, "")
    book, head = found
    order = {run: place for place, run in enumerate(book.waits)}

    def place_of(entry: Entry) -> tuple[Any, ...]:
        kind = 0 if entry.holds else 1 if entry.state in enqueued.WAITS else 2
        return kind, order.get(entry.run, len(order)) if kind == 1 else 0, -entry.priority, entry.rank

    return Listed(book, tuple(sorted(book.entries.values(), key=place_of)), lives(head), str(head.owner))


def log(runs: str | Path | None) -> Iterator[dict[str, Any]]:
    """What was decided, oldest first, and why."""
    return _placed(runs)[1].decisions()


class _Beginning:
    """A keeper being begun on a cluster, meanwhile."""

    def __init__(self, address: str | None, place: str, say: Say) -> None:
        self.error: HeadwayError | None = None
        where = address_of(address) or "http://127.0.0.1:8265"
        say(f"nobody keeps the queue of {place}: a keeper is begun on {where}")
        self._thread = threading.Thread(target=self._begin, args=(where, place, say), name="keeper", daemon=True)
        self._thread.start()

    def _begin(self, where: str, place: str, say: Callable[[str], None]) -> None:
        try:
            begin(where, place, say)
        except HeadwayError as error:
            self.error = error


def begin(address: str, place: str, say: Say = submitting.quiet, anew: bool = False) -> None:
    """See to it that the cluster keeps the queue of a place.

    Args:
        anew: by a new keeper; one that is there is ended first, whatever it does.

    Raises:
        HeadwayError: it could not; another cluster keeps it, say.
    """
    api = RayJobs.at(address)
    api.admit()
    packages = submitting._packages(None, place, None)
    spec = submitting._spec("queue", "queue", place, packages=packages, settings=(ANEW,) if anew else ())
    own = {FILE: to_json(spec).encode(), begins.FILE: begins.script().encode()}
    sending.ask(api, spec, Packed(parcel.packed(own), (parcel.headway(),)), say)


def _placed(runs: str | Path | None) -> tuple[str, QueuePlace]:
    """Where the runs are, as every machine knows it, and the queue beside them."""
    place = submitting.runs_of(runs)
    if place is None:
        raise BadInput(
            "it is not known where runs are kept",
            "the queue lies beside them, and is asked there",
            "Give --runs, or set HEADWAY_RUNS: a URL like s3://BUCKET/FOLDER, or a folder that every machine sees.",
        )
    return place, QueuePlace(storage_of(Place.of(place)))


def _free(place: str, run: str) -> None:
    """Raises BadInput: a run of that name is there, as far as that can be seen from here."""
    brief = naming.Look(place, run).found()
    if brief is not None:
        reason = f"a run of that name is there; it is {brief.state}"
        raise BadInput(f"{brief.path} is taken", reason, "Choose another --name.")


def _kept(queue: QueuePlace, spec: Spec, files: dict[str, Path | bytes]) -> tuple[str, ...]:
    """What travels, in the queue's store; its names there."""
    given = plain(spec), parcel.packed(files).content, parcel.headway().content
    return tuple(queue.keep(hashlib.sha256(content).hexdigest(), content) for content in given)


def rules_tree(book: Book) -> dict[str, Any]:
    """Of a book, as plain values."""
    return {**bookings.rules_tree(book.rules), "prepared": book.prepared}
