"""Carries out on a crew what a sweep's loop decides, and lets the loop hear what comes of it, until the sweep is over.

One thread decides and hears the crew; the searcher has a thread of its own.
"""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from headway.core.allotment import at_once
from headway.errors import BadInput, HeadwayError, RunFailed
from headway.runs.epochs import Superseded
from headway.runs.requests import Stop as StopRequest
from headway.sweeps.asking import Asking
from headway.sweeps.company import Company, Run
from headway.sweeps.course import Course, Turn, restored
from headway.sweeps.crew import Crew, Holds, Left, News, Origin, Passed, Said, Sized
from headway.sweeps.events import (
    Action,
    Ask,
    Clone,
    Config,
    Event,
    Failed,
    GoOn,
    Halt,
    Over,
    Pause,
    Spent,
    Start,
    Stop,
    Suggested,
    Tell,
    Width,
)
from headway.sweeps.following import Following
from headway.sweeps.loop import placing
from headway.sweeps.means import Means
from headway.sweeps.names import run_of
from headway.sweeps.search.protocol import Searcher, SearcherFailed
from headway.sweeps.takeover import Takeovers, in_order
from headway.sweeps.terms import Seen, Terms
from headway.sweeps.trial import Trial
from headway.sweeps.vetting import Vetting

NEWS_S, ASKED_S = 0.5, 0.05
"""So long it is waited for the crew; and while the searcher is to answer."""
SPENT_EVERY_S = 30.0
SIZE_S = 10.0
SAY_S = 10.0
"""So long it is waited in silence."""
SAY_EVERY_S = 60.0
"""A line about who waits is said so often, at most."""
LEAVE_S = 60.0
"""So long it is waited for those that leave at the sweep's end."""
LATE_S = 120.0
"""Within so long a run that leaves has left."""
INTERRUPTED = "interrupted"
DIVERGED = "NonFiniteLoss"


class Running:
    """See the module.

    Args:
        terms: of the sweep.
        course: at its beginning; see `headway.sweeps.course`.
        searcher: a new one.
        crew: that trains; it is closed by whoever made it.
        seen: looks on.
        stop: set when the sweep is to be left as it is.
        asked: gives who asked for that, if somebody did.
        evaluations: gives what a run has recorded, as (step, values) in order; nothing of one that is not there.
        saved: gives the steps of its checkpoints; likewise.
        close: takes runs that never go on, and may say that they are running: their driver was killed.
        finished: whether a run says that it has finished.
        say: takes a line for people.
        now: seconds on a clock that only goes on.
        asking: makes what asks the searcher.
    """

    def __init__(
        self,
        terms: Terms,
        course: Course,
        searcher: Searcher,
        crew: Crew,
        seen: Seen,
        stop: threading.Event,
        asked: Callable[[], StopRequest | None] = lambda: None,
        evaluations: Callable[[str], Iterable[tuple[int, dict[str, float]]]] = lambda run: (),
        saved: Callable[[str], Collection[int]] = lambda run: (),
        close: Callable[[Sequence[str]], None] = lambda runs: None,
        finished: Callable[[str], bool] = lambda run: True,
        say: Callable[[str], None] = lambda text: None,
        now: Callable[[], float] = time.monotonic,
        asking: Callable[..., Asking] = Asking,
    ) -> None:
        self._asking = asking
        self._terms, self._course, self._crew, self._seen = terms, course, crew, seen
        self._searcher, self._stop, self._asked, self._say, self._now = searcher, stop, asked, say, now
        self._evaluations, self._close, self._finished = evaluations, close, finished
        self._loop = course.loop
        self._said: queue.SimpleQueue[Suggested | BaseException] = queue.SimpleQueue()
        """By the searcher."""
        self._company = Company(crew, terms.rule, self._order, self._refused, now, self._delayed)
        self._vetting = Vetting(terms.job, self._loop.rules.way, say, now)
        self._following = Following(self._company, saved, self._say_passed) if terms.course is not None else None
        self._takeovers = Takeovers(self._company, saved) if terms.saves else None
        self._trials: dict[int, list[Run]] = {}
        self._means: dict[int, Means] = {}
        self._events: list[Event] = []
        """To be heard."""
        self._before = Spent(0.0, 0.0)
        """What earlier starts have spent."""
        self._begun, self._spent_at = now(), -math.inf
        self._asked_at = self._begun
        self._worker_s = 0.0
        self._wanted: int | None = None
        """Workers, as the crew was told last."""
        self._ending: set[str] = set()
        """Runs that are at their end, and have to be closed yet."""
        self._lost = False
        """The crew is."""
        self._told: set[tuple[str, str]] = set()
        """Failures whose trace was shown."""
        self._held_up_at: dict[str, float] = {}
        """Why runs are held up, and when that was said."""

    def run(self) -> Over:
        """Until the sweep is over, or is left.

        Raises:
            BadInput: what was asked for cannot be, as the first results show.
            HeadwayError: the platform failed; what is in the book may be gone on with.
            Exception: whatever the searcher raised.
        """
        terms = self._terms
        before = self._course.resume(terms.name, terms.key, terms.terms)
        for turn in before:
            self._seen.heard(turn.number, turn.event, turn.actions)
            if isinstance(turn.event, Spent):
                self._before = turn.event
        again = restored(self._searcher, before, self._is_patient)
        if not again.whole:
            return self._halted_before()
        if again.differing:
            trials = ", ".join(str(number) for number in again.differing[:5])
            self._say(f"the searcher would suggest other settings now for trials {trials}: those in the book count")
        asking = self._asking(self._searcher, self._said.put, self._said.put, again.held)
        self._want()
        try:
            self._first_size()
            self._take_up(before)
            self._close([run.name for run in self._left_open(before, "stopped")])
            self._finish(self._left_open(before, "finished"))
            for said in again.pending:
                self._vetting.take(said)
            self._hear([Width(self._width(self._company.size)), *self._vetting.looked()], asking)
            while self._loop.over is None:
                self._next(asking)
            self._leave()
            return self._loop.over
        except Exception as error:  # raised again: what they have since their checkpoints is not thrown away
            if not self._lost and not isinstance(error, Superseded):
                self._say("the sweep cannot go on: its trials keep what they have, and leave")
                with suppress(HeadwayError):
                    self._leave()
            raise
        finally:
            asking.close()

    def _is_patient(self, done: int, of: int) -> bool:
        """Whether the searcher is still waited for that is asked again what it was asked."""
        if self._now() - self._asked_at >= SAY_S:
            self._asked_at = self._now()
            self._say(f"the searcher is asked again what it was asked before: {done} of {of}")
        return not self._stop.is_set()

    def _halted_before(self) -> Over:
        """It is left before anything was done."""
        for turn in self._course.hear([self._halt()]):
            self._seen.heard(turn.number, turn.event, turn.actions)
        assert self._loop.over is not None
        return self._loop.over

    def _halt(self) -> Halt:
        asked = self._asked()
        return Halt(f"stopped by {asked.by}" if asked is not None else INTERRUPTED, True)

    # What happens

    def _next(self, asking: Asking) -> None:
        """Wait for something to happen, and do what follows."""
        soon = (self._loop.asked and not asking.waits) or (self._takeovers is not None and self._takeovers.waits)
        self._take(self._heard(ASKED_S if soon else NEWS_S))
        with suppress(queue.Empty):
            while True:
                said = self._said.get_nowait()
                if isinstance(said, BaseException):
                    raise said
                self._vetting.take(said)
        self._events += self._vetting.looked()
        if self._stop.is_set():
            self._events.append(self._halt())
        if self._following is not None:
            self._following.look()
        if self._takeovers is not None:
            self._catch(self._takeovers.due())
        self._count()
        self._unless_silent(asking)
        events, self._events = self._events, []
        self._hear(events, asking)

    def _unless_silent(self, asking: Asking) -> None:
        """A searcher that has nothing to say before it hears more, and will hear no more, has no more.

        Raises:
            SearcherFailed: it never said anything; or decisions wait for it that it waits for.
        """
        if not asking.waits or self._events or self._vetting.waits or not self._said.empty():
            return
        if self._terms.strict:
            reason = "in strict order what it is asked for is decided before anything else is"
            remedy = "Have it suggest `width` trials at once, or take order: async; then headway resume."
            raise SearcherFailed("the searcher waits for results before it suggests a trial", reason, remedy)
        if self._loop.width and not any(t.state in ("running", "waiting") for t in self._loop.trials.values()):
            if not self._loop.trials:
                raise SearcherFailed("the searcher suggests no trial", "it says that it has none for the moment", "")
            self._say("the searcher suggests nothing more, and no trial is under way: it is not asked any longer")
            for trial in self._loop.asked:
                asking.give_up(trial)
                self._events.append(Suggested(trial, None))

    def _first_size(self) -> None:
        """How many workers there are is said at once, and who begins before that has too many or too few."""
        until, least = self._now() + SIZE_S, self._terms.least
        while not self._stop.is_set():
            size, late = self._company.size, self._now() >= until
            if size >= least or (late and least <= 1):
                return
            if late:
                self._say_now_and_then(f"waits for {least} workers (workers.min); {size} can be had by now")
            self._take(self._heard(NEWS_S))

    def _heard(self, timeout_s: float) -> Sequence[News]:
        """Of the crew. Raises as `Crew.news`: nobody is there to be told anything then."""
        try:
            return self._crew.news(timeout_s)
        except RunFailed:
            self._lost = True
            raise

    def _delayed(self, run: Run, error: Exception) -> None:
        """A run cannot begin for now."""
        self._say_now_and_then(f"{run.name} cannot begin yet, and is tried again: {error}", about=str(error))

    def _say_now_and_then(self, text: str, about: str = "") -> None:
        about = about or text
        if self._now() - self._held_up_at.get(about, -math.inf) >= SAY_EVERY_S:
            self._held_up_at[about] = self._now()
            self._say(text)

    def _take(self, news: Sequence[News]) -> None:
        self._seen.news(news)
        for each in news:
            self._take_news(each)

    def _take_news(self, news: News) -> None:
        match news:
            case Passed(_, step, values, stands):
                run = self._company.passed(news)
                if run is not None and not (self._takeovers is not None and self._takeovers.is_early(run, news)):
                    self._passed(run, step, values, stands)
            case Left():
                run = self._company.left(news)
                if run is not None and self._takeovers is not None:
                    comes_again = news.failure is not None and not _is_theirs(news.failure)
                    self._catch(self._takeovers.left(run, comes_again))
                if run is not None and news.failure is not None:
                    self._failed(run, news.step, news.failure)
                elif run is not None and run.state == "over":
                    self._events += self._means[run.trial].ended(run.name)
                    self._unless_over(run.trial)
            case Sized(workers):
                self._company.size = workers
                width = self._width(workers)
                if not self._terms.strict and width != self._loop.width:
                    self._events.append(Width(width))
            case Holds(_, _, seconds):
                self._company.holds(news)
                self._worker_s = sum(seconds.values())
            case Said():
                pass  # for those who look on

    def _catch(self, due: Iterable[tuple[Run, Passed]]) -> None:
        for run, news in due:
            self._passed(run, news.step, news.values, news.stands)

    def _passed(self, run: Run, step: int, values: Mapping[str, float], stands: bool) -> None:
        if self._following is not None:
            self._following.evaluated(run, step, dict(values))
        self._say_passed(run, step, values, stands)

    def _say_passed(self, run: Run, step: int, values: Mapping[str, float], stands: bool) -> None:
        said = self._means[run.trial].passed(run.name, step, dict(values), stands)
        if said is not None:
            self._events.append(said)

    def _failed(self, run: Run, step: int, failure: Mapping[str, Any]) -> None:
        kind = str(failure.get("kind", ""))
        fact, reason = str(failure.get("fact", "")), str(failure.get("reason", ""))
        said = f"{fact}: {reason}" if reason else fact
        if kind == DIVERGED:
            self._events.append(Failed(run.trial, step, "diverged", said))
            return
        theirs = _is_theirs(failure)
        if (kind, said) not in self._told:
            self._told.add((kind, said))
            trace = str(failure.get("traceback") or "").rstrip()
            self._say(f"{run.name} failed: {said}" + (f"\n{trace}" if trace and theirs else ""))
        self._events.append(Failed(run.trial, step, "task" if theirs else "platform", said))

    def _refused(self, run: Run, error: Exception) -> None:
        """A run cannot begin."""
        if not isinstance(error, HeadwayError):
            raise error
        if not isinstance(error, BadInput):
            self._events.append(Failed(run.trial, run.step, "platform", str(error)))
            return
        failure = {"kind": "BadInput", "fact": error.fact, "reason": error.reason}
        self._failed(run, run.step, failure)

    def _count(self) -> None:
        """What was spent, now and then, and when it is enough."""
        at = self._now()
        spent = Spent(self._before.worker_s + self._worker_s, self._before.seconds + at - self._begun)
        budget = self._loop.rules.budget
        if budget.seconds is not None:
            self._company.left_s = max(0.0, budget.seconds - spent.seconds)
        if at - self._spent_at >= SPENT_EVERY_S or budget.gone(spent):
            self._spent_at = at
            self._events.append(spent)

    # What is decided

    def _hear(self, events: Iterable[Event], asking: Asking) -> None:
        """Have the loop hear of it, and do what it says; what fails at once is heard in its turn."""
        pending = list(events)
        while True:
            for turn in self._course.hear(pending):
                self._seen.heard(turn.number, turn.event, turn.actions)
                if isinstance(turn.event, Suggested) and turn.event.config is not None:
                    self._known(self._loop.trials[turn.event.trial])
                for action in turn.actions:
                    self._do(action, asking)
            if self._loop.over is None and not (self._following is not None and self._loop.asked and not asking.waits):
                self._company.allot()  # whoever may have a beginning in common with others begins when all are known
                self._want()
            if not self._events:
                return
            pending, self._events = self._events, []

    def _known(self, trial: Trial) -> None:
        """A trial was suggested: whoever may begin like it is to know; or it cannot be."""
        if not trial.way.length:
            self._say(f"trial {trial.number} failed: {trial.reason}")
        elif self._following is not None:
            self._runs(trial.number, trial.config)

    def _want(self) -> None:
        """Hold as many workers as may be of use: towards the end fewer and fewer are."""
        wanted = self._terms.workers
        if self._loop.closing:
            under_way = (trial.number for trial in self._loop.trials.values() if trial.state == "running")
            runs = [run for trial in under_way for run in self._trials.get(trial, [])]
            wanted = min(wanted, max(1, self._company.useful(runs)))
        if wanted != self._wanted:
            self._wanted = wanted
            self._crew.want(wanted)

    def _do(self, action: Action, asking: Asking | None) -> None:
        match action:
            case Ask() | Tell():
                assert asking is not None
                asking.do(action)
            case Start(trial, config, until):
                for run in self._runs(trial, config):
                    self._go(run, until)
            case GoOn(trial, until):
                for run in self._runs(trial, self._loop.trials[trial].config):
                    self._go(run, until)
                self._unless_over(trial)
            case Clone():
                self._clone(action)
            case Pause(trial, _):
                for run in self._trials.get(trial, []):
                    self._company.pause(run)
                    self._forget(run)
            case Stop(trial, state, _):
                for run in self._trials.get(trial, []):
                    self._company.end(run, state)
                    self._forget(run)
            case Over():
                pass

    def _go(self, run: Run, until: int) -> None:
        if self._following is not None:
            self._following.go(run, until)
            return
        if self._terms.saves:  # others may take over what it has at any gate, and it is told of them but once
            trial = self._loop.trials[run.trial]
            run.save_at = self._loop.gates(trial)
            if run.state == "stands" and until < trial.way.length and until not in run.keeps:
                self._company.pause(run)  # to begin anew, and keep its state there as well
        self._company.go(run, until)

    def _unless_over(self, number: int) -> None:
        """A trial that is to go on from a gate at which its task ended by its own account: that is its end."""
        trial = self._loop.trials[number]
        if trial.state != "running" or any(run.state != "over" for run in self._trials[number]):
            return
        said = self._means[number].newest()
        if said is not None and said.step == trial.step < trial.until:
            self._events.append(said)

    def _forget(self, run: Run) -> None:
        if self._following is not None:
            self._following.forget(run)

    def _clone(self, action: Clone) -> None:
        """Its runs leave, and go on with the source's state."""
        sources = self._trials[action.source]
        self._means[action.trial].again()
        for number, (run, source) in enumerate(zip(self._trials[action.trial], sources, strict=True), 1):
            run.job, run.facts = (
                self._terms.job(action.config, number),
                self._facts(action.trial, number, action.config),
            )
            # One of the source's runs that ended before the others has its last state, and none of that step.
            step = min(action.step, source.step) if source.state == "over" else action.step
            run.origin, run.step = Origin(source.name, step, exact=False), step
            if self._takeovers is not None:
                self._takeovers.decided(run)
            if run.state == "stands":
                self._company.pause(run)
            self._company.again(run)
            self._go(run, action.until)

    def _runs(self, trial: int, config: Config) -> list[Run]:
        if trial not in self._trials:
            terms = self._terms
            self._trials[trial] = [
                Run(
                    run_of(terms.name, trial, repeat),
                    trial,
                    terms.job(config, repeat),
                    self._facts(trial, repeat, config),
                )
                for repeat in range(1, terms.repeats + 1)
            ]
            self._means[trial] = Means(trial, [run.name for run in self._trials[trial]])
            if self._following is not None and terms.course is not None:
                for run in self._trials[trial]:
                    self._following.add(run, terms.course(run.job), dict(self._evaluations(run.name)))
        return self._trials[trial]

    def _facts(self, trial: int, repeat: int, config: Config) -> dict[str, object]:
        whose = {"name": self._terms.name, "key": self._terms.key}
        return {"sweep": {**whose, "trial": trial, "repeat": repeat, "settings": dict(config)}}

    def _width(self, workers: int) -> int:
        """Trials at once."""
        terms = self._terms
        if terms.strict:
            return terms.width or 1
        one = next((trial for trial in self._loop.trials.values() if trial.way.length), None)
        least = terms.job(one.config, 1).workers.min if one is not None else 1
        room = max(1, at_once(min(workers, terms.workers), least) // terms.repeats)
        return min(room, terms.width) if terms.width is not None else room

    def _order(self) -> list[int]:
        """Trials as they are given workers: in a strict sweep those that are waited for, else the best first."""
        if self._terms.strict:
            return self._course.order.wanted()
        known = [
            trial for trial in self._loop.trials.values() if trial.value is not None and trial.value == trial.value
        ]
        best = sorted(known, key=lambda trial: trial.value or 0.0, reverse=self._terms.maximize)
        return [trial.number for trial in best]

    # The beginning and the end

    def _take_up(self, before: Sequence[Turn]) -> None:
        """Bring everything to where the book says that it is."""
        for trial in self._loop.trials.values():
            if trial.begun or (self._following is not None and trial.way.length):
                for run in self._runs(trial.number, trial.config):
                    run.step = trial.step
                    run.state = "over" if trial.over else "away"
        placed = in_order(self._course.open(before), before)
        self._seen.placed(placed)
        for action in placed:
            self._do(action, None)
        for trial in self._loop.trials.values():
            if trial.state == "running":
                for run in self._trials[trial.number]:
                    self._catch_up(run, trial)

    def _left_open(self, before: Sequence[Turn], state: str) -> list[Run]:
        """Runs that were stopped, or finished, shortly before the driver was killed may not have come to be closed."""
        last = before[-1].at if before else 0.0
        late = [action for turn in before if turn.at > last - LATE_S for action in turn.actions]
        ended = dict.fromkeys(each.trial for each in late if isinstance(each, Stop) and each.state == state)
        return [
            run for trial in ended if self._loop.trials[trial].state == state for run in self._trials.get(trial, [])
        ]

    def _finish(self, runs: Iterable[Run]) -> None:
        """Have those that came to their end, and were not closed, begin once more: what they trained is kept then."""
        for run in runs:
            if not self._finished(run.name):
                self._ending.add(run.name)
                run.state = "away"
                self._company.go(run, self._loop.trials[run.trial].way.length)
        if self._ending and self._loop.over is not None:
            self._company.allot()

    def _catch_up(self, run: Run, trial: Trial) -> None:
        """What it has recorded and the book does not know. One that is through, and whose books are closed, has nothing
        left to say itself; else it is begun once more, at its end. (One that is to go on with another's weights begins
        with them once more: what it has may be of before that.)"""
        anew = isinstance(placing(trial), Clone)
        for at, values in self._evaluations(run.name):
            if not trial.step < at <= trial.until:
                continue
            through = at == trial.until == trial.way.length and self._finished(run.name)
            if through:
                run.state = "over"
            if through or (at < trial.until and not anew):
                self._passed(run, at, values, through)

    def _leave(self) -> None:
        """The sweep is over, or left: nobody trains any more, and what goes on later is safe; unless somebody wants it
        at once. (Who is at its end gets there.)"""
        asked = self._asked()
        if asked is not None and asked.now:
            return
        for run in self._company.there:
            if run.name not in self._ending:
                self._company.pause(run)
        until = self._now() + LEAVE_S
        while self._company.there and self._now() < until:
            news = self._heard(NEWS_S)
            self._seen.news(news)
            for each in news:
                if isinstance(each, Left):
                    self._company.left(each)
                elif isinstance(each, Holds):
                    self._worker_s = sum(each.seconds.values())


def _is_theirs(failure: Mapping[str, Any]) -> bool:
    """Whether it is the user's, and would come again; that of a loss that is no number included."""
    return str(failure.get("kind", "")) in ("task", "UserCodeFailed", "BadInput", "BadData", DIVERGED)
