"""From a sweep's file to its report: begin a sweep, or take one up again, on an embedded or an existing Ray cluster."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from headway import plan, runs
from headway.carried import code
from headway.core.ends import End
from headway.core.prefix import Course as Computed
from headway.driver import attach, equipment, rayjob, signals
from headway.driver.leading import place_of
from headway.durable import replace
from headway.elastic.crew.crew import crew as crewed
from headway.errors import BadInput, HeadwayError
from headway.job import Job
from headway.notify import webhook
from headway.runs import audit, closing, requests
from headway.runs.place import Place
from headway.runs.requests import Box, Ear
from headway.sweeps import admission, book, conclusion, earlier, file, folder, kept_code, order, prefixes
from headway.sweeps.book import Book
from headway.sweeps.course import Course
from headway.sweeps.crew import Said
from headway.sweeps.events import Config, Over, Spent
from headway.sweeps.file import Sweep
from headway.sweeps.folder import FarSweep, NearSweep
from headway.sweeps.looking import Looking
from headway.sweeps.loop import Loop
from headway.sweeps.report import SweepReport
from headway.sweeps.rules import SECONDS_PER_HOUR, Budget, Rules, Way
from headway.sweeps.running import INTERRUPTED, Running
from headway.sweeps.schedule import registry as schedulers
from headway.sweeps.search import registry as searchers
from headway.sweeps.seen import figures
from headway.sweeps.seen.keeping import Seen, Watch
from headway.sweeps.seen.telling import Telling
from headway.sweeps.seen.tracked import Tracking
from headway.sweeps.seen.view import Subject, View
from headway.sweeps.terms import Terms
from headway.sweeps.ways import Ways

FREE = ("workers", "allotment", "budget", "price_per_worker_hour", "memory", "max_failures", "stop", "name")
"""Keys of a sweep that may be others when it is taken up again: its decisions so far do not hang on them."""
ALOOF = ("workers", "tracking", "env", "prometheus", "budget", file.NOTIFY)
"""Keys of its job on which they do not hang either."""
CROWDS = ("hyperband", "pbt", "pb2")
"""Schedulers that decide by how many trials there are in all."""

BLIND = ("random", "grid", "sobol")
"""Searchers that learn nothing of results: what they suggest may as well be known before anything runs."""
AHEAD = 1000


def nobody(_: View) -> None:
    """Looks on."""


def sweep(
    given: Sweep | Mapping[str, Any] | str | Path,
    *,
    name: str | None = None,
    runs_folder: str | Path | None = None,
    address: str | None = None,
    watch: Watch = nobody,
) -> SweepReport:
    """Run a sweep from its beginning.

    Args:
        given: a Sweep, the same as a mapping, or the path of its YAML file.
        name: of the sweep; the file's name with the time when not given.
        runs_folder, address: as of `headway.train`.
        watch: called some times a second with what is to be seen.

    Returns:
        The report; its state is "finished", or "stopped" or "interrupted" (both can be resumed).

    Raises:
        BadInput: the sweep, its job, data or task cannot be used; nothing was started. Or, after the first report of
            a trial, the metric is none that the job has.
        RunFailed: the sweep could not go on.
    """
    code.refuse_on_import("headway.sweep")
    wanted = _taken(given)
    attach.admit(address)
    place, told = rayjob.place(runs_folder)
    checked = plan.check(wanted.example)
    admission.admit(wanted, Ways(wanted))
    text = file.to_yaml(_without_secrets(wanted))
    facts = {"metric": wanted.metric, "mode": wanted.mode, "trials": wanted.trials, "over": 0, "best": None}
    found = folder.create(place, name, wanted.name, text, facts)
    notes = [f"note: {note}" for note in (told, *checked.warnings) if note]
    with folder.leading(found) as epoch:
        lead = None
        try:
            folder.admit(place, found.name)
            lead = Lead(wanted, found, place, epoch, watch, notes)
            return lead.follow("sweep", address)
        except BaseException as error:  # raised again: as if nothing was started, where nothing was
            vain = lead is None or (isinstance(error, BadInput | KeyboardInterrupt) and not lead.loop.trials)
            if vain:
                found.discard()
            raise
    raise AssertionError("the sweep was led")


def resume(
    name: str,
    *,
    runs_folder: str | Path | None = None,
    address: str | None = None,
    watch: Watch = nobody,
    settings: list[str] | None = None,
) -> SweepReport:
    """Take a sweep up again, where its book ends: nothing is lost, and nothing done twice.

    Args:
        name: of the sweep, or its folder or URL.
        settings: `key=value` changes to its file; only what its decisions so far do not hang on may change. They
            are kept.

    The other arguments, results and errors are those of `sweep`.

    Raises:
        NoSweep: there is none of that name.
        BadInput: it is over, or led by another process; or it would be another sweep.
    """
    attach.admit(address)
    found = folder.find(rayjob.place(runs_folder)[0], name)
    wanted = file.load(found.file, settings)
    place = place_of(found)
    with folder.leading(found) as epoch:
        facts = found.read()
        if facts.get("state") == "finished" and not settings:
            remedy = f"See it: headway sweep status {found.name}. Or begin a new one with `from: {found.name}`."
            raise BadInput(f"sweep {found.name} has finished", str(facts.get("message", "")), remedy)
        notes: list[str] = []
        copy = kept_code.source(wanted.example, found.code, wanted.order == "strict", notes.append)
        lead = Lead(wanted, found, place, epoch, watch, notes, copy)
        if settings:
            lead.keep()
        return lead.follow("resume", address)
    raise AssertionError("the sweep was led")


class Lead:
    """Leads a sweep.

    Args:
        sweep: as it is run.
        found: its folder, led by this process.
        place: of its runs.
        epoch: of this lead.
        watch: looks on.
        notes: for people, to begin with.
        copy: the task as the sweep keeps it, where that is run.
    """

    def __init__(
        self,
        sweep: Sweep,
        found: NearSweep | FarSweep,
        place: Place,
        epoch: int,
        watch: Watch,
        notes: Iterable[str] = (),
        copy: code.Source | None = None,
    ) -> None:
        self._copy = copy
        self._sweep, self._found, self._place, self._epoch = sweep, found, place, epoch
        self._key = str(found.read()["key"])
        ways = self._ways = Ways(sweep, copy)
        first = began(sweep, found.book)
        self.loop = Loop(rules_of(sweep, ways), schedulers.create(first, ways.lengths))
        self._book = Book(found.book, partial(found.secure, epoch))
        self._course = Course(self.loop, order.create(sweep.order, self.loop, sweep.width or 1), self._book)
        self._searcher = searchers.create(first, earlier.kept(sweep.earlier, place, found.path))
        logarithmic = tuple(key for key, each in sweep.searched.distributions.items() if getattr(each, "log", False))
        subject = Subject(found.name, sweep.metric, sweep.mode, sweep.trials, sweep.order, sweep.price, logarithmic)
        self._watch = watch
        self._give: Callable[[View], None] = nobody
        budget, where = rules_of(sweep, ways).budget, found.where
        # Before anything is sent: an address may be none.
        self._telling = Telling(found.name, where, sweep.notify, budget, lambda text: self._seen.say(text))
        self._seen = Seen.begin(found.path, subject, self._tracking(), watch=self._look)
        for note in (*notes, *self._telling.unknown):
            self._say(note)

    def _look(self, view: View) -> None:
        self._watch(view)
        self._give(view)
        self._telling.look(view)

    def keep(self) -> None:
        """Keep the sweep's file as it is by now, for whoever takes it up next. Raises BadInput: it is another sweep."""
        if self._found.book.exists() and self._found.book.stat().st_size:
            self._book.admit(self._found.name, self._key, terms_of(self._sweep))
        try:
            replace(self._found.file, file.to_yaml(_without_secrets(self._sweep)))
        except OSError as error:
            reason = error.strerror or str(error)
            raise BadInput(f"{self._found.file} cannot be written", reason, "Free space, or mend the folder.") from None

    def follow(self, verb: str, address: str | None) -> SweepReport:
        """To its end, or until it is left. verb: by which it was begun, for the log of the place."""
        stop = threading.Event()
        heard = requests.heard(
            Box.of_run(self._found), [requests.of_epoch(self._epoch)], lambda _: stop.set(), lambda _: None
        )
        try:
            self._found.tell(state="running", message="", ended=None)
            self._telling.start()
            with heard as ear, signals.asking(stop):
                over = self._run(verb, address, stop, ear)
        except BaseException as error:  # raised again: the sweep does not stay in the state of running
            self._left(error)
            raise
        finally:
            self._book.close()
        state = "interrupted" if over.reason == INTERRUPTED else over.state
        self._found.tell(state=state, message=over.reason, **standing(self.loop), ended=time.time())
        return self._concluded(state, over.reason)

    def _run(self, verb: str, address: str | None, stop: threading.Event, ear: Ear) -> Over:
        sweep, found = self._sweep, self._found
        terms = Terms(
            found.name,
            self._key,
            terms_of(sweep),
            sweep.repeats,
            sweep.job_of,
            sweep.order == "strict",
            sweep.width,
            sweep.workers.max,
            sweep.allotment,
            sweep.scheduler.exploits,
            sweep.mode == "max",
            self._courses() if sweep.share_prefix else None,
            min(sweep.workers.min, sweep.workers.max),
        )
        with crewed(
            found.name,
            found.path,
            self._place,
            sweep.example,
            sweep.workers.max,
            address=address,
            tell=self._say,
            stopped=stop.is_set,
            source=self._copy,
            memory=sweep.memory,
        ) as crew:
            details = {
                "job": sweep.example.name,
                "trials": sweep.trials,
                "workers": [sweep.workers.min, sweep.workers.max],
            }
            audit.note(self._place, verb, found.name, details=details, say=self._say)
            self._give = figures.Given(crew.figures, self._used)
            looking = Looking(self._place, stop.wait, self._say)
            running = Running(
                terms,
                self._course,
                self._searcher,
                crew,
                self._seen,
                stop,
                lambda: ear.stop,
                looking.recorded,
                looking.saved,
                partial(close, self._place),
                looking.finished,
                self._say,
            )
            try:
                return running.run()
            finally:
                self._give = nobody  # a call to an actor of a Ray that was left would start another Ray

    def _used(self, view: View) -> float | None:
        """The share of the budget that is spent."""
        return self.loop.rules.budget.used(Spent(view.worker_s, view.seconds), self.loop.steps)

    def _courses(self) -> Callable[[Job], Computed]:
        """What jobs of trials compute, see `headway.core.prefix`."""
        own = prefixes.own_of(self._copy or code.locate(self._sweep.example.task))
        return lambda job: prefixes.course(job, self._ways.of(job).length, own)

    def _say(self, text: str) -> None:
        self._seen.news([Said(None, text)])

    def _tracking(self) -> Tracking | None:
        job = self._sweep.example
        if not job.tracking.enabled:
            return None
        told = _without_secrets(self._sweep).model_dump()
        return Tracking(equipment.tracked(job).tracking.uri, job.tracking.experiment, self._key, told)

    def _left(self, error: BaseException) -> None:
        state = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
        with suppress(HeadwayError, OSError):
            self._found.tell(state=state, message=str(error), **standing(self.loop), ended=time.time())
            self._concluded(state, str(error))

    def _concluded(self, state: str, reason: str) -> SweepReport:
        if self.loop.trials:
            self._telling.ended(state, reason, self._seen.view())
        try:
            where, job_of = self._found.where, self._sweep.job_of
            return conclusion.conclude(self._seen, self._found.path, state, reason, job_of, where)
        finally:
            self._telling.close()


def close(place: Place, names: Sequence[str]) -> None:
    """Close runs that were stopped and do not say so; beside what goes on, since the tracking store may be slow."""

    def closed() -> None:
        for name in names:
            with suppress(HeadwayError, OSError):
                closing.close(runs.find(place, name), End("stopped", "by its sweep"))

    if names:
        threading.Thread(target=closed, name="closing", daemon=True).start()


def rules_of(sweep: Sweep, way: Callable[[Config], Way]) -> Rules:
    """What the loop of a sweep keeps to."""
    budget, stop = sweep.budget, sweep.stop
    return Rules(
        sweep.metric,
        sweep.mode,
        sweep.trials,
        way,
        sweep.max_failures,
        Budget(
            worker_s=budget.worker_hours * SECONDS_PER_HOUR if budget.worker_hours is not None else None,
            seconds=budget.deadline,
            dollars=budget.dollars,
            price=sweep.price or 0.0,
            steps=budget.steps // sweep.repeats if budget.steps is not None else None,
        ),
        ahead=AHEAD if sweep.share_prefix and sweep.search.name in BLIND else searchers.ahead(sweep),
        patience=stop.patience if stop is not None else None,
        min_delta=stop.min_delta if stop is not None else 0.0,
    )


def began(sweep: Sweep, path: Path) -> Sweep:
    """A sweep with as many trials as it was begun with, for what was made by their number then and is made anew.

    Args:
        path: of its book.
    """
    limits = book.limits_of(book.read(path)[0]) if path.exists() and path.stat().st_size else None
    return sweep.model_copy(update={"trials": limits.trials}) if limits is not None else sweep


def terms_of(sweep: Sweep) -> str:
    """A digest of what the decisions of a sweep hang on."""
    free = set(FREE) if sweep.order == "strict" or sweep.scheduler.name in CROWDS else {*FREE, "trials"}
    tree = sweep.model_dump(exclude=free, mode="json")
    tree["job"] = {name: each for name, each in tree["job"].items() if name not in ALOOF}
    return hashlib.sha256(json.dumps(tree, sort_keys=True, default=str).encode()).hexdigest()


def _taken(given: Sweep | Mapping[str, Any] | str | Path) -> Sweep:
    if isinstance(given, Sweep):
        return given
    return file.load(given) if isinstance(given, str | Path) else file.taken(dict(given))


def _without_secrets(sweep: Sweep) -> Sweep:
    """As it may be written down."""
    kept = runs.kept(sweep.example)
    hidden = {name: value for name, value in (("tracking", kept.tracking), ("env", kept.env)) if name in sweep.job}
    shown = {name: kept.model_dump(include={name})[name] for name in hidden}
    if sweep.notify:
        shown[file.NOTIFY] = [each.model_dump() for each in webhook.kept(sweep.notify)]
    return sweep.model_copy(update={"job": {**sweep.job, **shown}})


def standing(loop: Loop) -> dict[str, Any]:
    """For sweep.json."""
    best = loop.best
    told = None
    if best is not None:
        told = {"trial": best.number, "value": best.best, "step": best.best_step, "settings": best.best_config}
    return {"over": sum(trial.over for trial in loop.trials.values()), "best": told}
