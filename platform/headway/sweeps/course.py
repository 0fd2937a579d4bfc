"""A sweep's way from what happens to what is to be done: put in order, written down, decided; and taken up again.

course = Course(loop, order.create("strict", loop, width), book)
before = course.resume(name, key, terms)        # what the book has, decided once more
for turn in course.hear([Reported(...)]):       # written down, and durable
    for action in turn.actions: ...
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from headway.sweeps.book import Book, Entry
from headway.sweeps.events import Action, Ask, Config, Event, Failed, Halt, Reported, Stop, Suggested, Tell
from headway.sweeps.loop import Loop, placing
from headway.sweeps.order import Order
from headway.sweeps.search.line import Line
from headway.sweeps.search.protocol import Searcher


@dataclass(frozen=True)
class Turn:
    """An event that the loop heard, and what it answered. number: the event's place in the book, from 1."""

    number: int
    at: float
    event: Event
    actions: list[Action]


class Course:
    """See the module. For one thread.

    Args:
        loop: new.
        order: of this loop.
        book: of this sweep.
    """

    def __init__(self, loop: Loop, order: Order, book: Book) -> None:
        self.loop, self.order, self.book = loop, order, book
        self._reports = False
        """Some trial has reported the metric."""

    def resume(self, sweep: str, key: str, terms: str) -> list[Turn]:
        """Be where the book ends; of a new sweep that is at the beginning. An end that left the sweep to be taken up
        again is behind it. What was decided under other limits than the loop has now stays as it was: the new ones
        are one more event. Raises as `Book.begin` and `hear` do."""
        wanted = self.loop.rules.limits
        entries = self.book.begin(sweep, key, terms, wanted)
        self.loop.rules = self.loop.rules.within(self.book.limits or wanted)
        turns = [self._turn(entry) for entry in entries if not _is_passing(entry.event)]
        if self.loop.rules.limits != wanted:
            turns.append(self._turn(self.book.append(wanted)))
            self.book.secure()
        return turns

    def open(self, turns: Sequence[Turn]) -> list[Action]:
        """What has to be done for all to be as the book says, whatever of it was done before: trials that run are
        placed, and what the last event asked for besides is asked again. (What the searcher was asked: see
        `restored`.)

        Args:
            turns: that `resume` gave.
        """
        last = turns[-1].actions if turns else []
        running = [trial for trial in self.loop.trials.values() if trial.state == "running"]
        return [*(action for action in last if isinstance(action, Stop)), *(placing(trial) for trial in running)]

    def hear(self, events: Iterable[Event]) -> list[Turn]:
        """Hear of what happened. What comes back is durable, and to be carried out in order; it may be of events that
        came earlier.

        Raises:
            BadInput: the metric is not among the first values that any trial reports; nothing of it is written down.
            Superseded: another process leads the sweep: nothing is to be done.
            RunFailed: the book cannot be written; likewise.
        """
        for event in events:
            self.order.arrived(self._sound(event) if isinstance(event, Reported) else event)
        turns = []
        while self.loop.over is None and (due := self.order.next()) is not None:
            turns.append(self._turn(self.book.append(due), due))
        if turns:
            self.book.secure()
        return turns

    def _sound(self, event: Reported) -> Reported | Failed:
        """A report of the metric. One without it is that trial's failure, where there is such a metric, or where the
        trial was never evaluated; else the sweep asks for one that the job has not, which ends it."""
        if self.loop.rules.metric in event.values:
            self._reports = True
            return event
        if event.values and not self._reports:
            self.loop.rules.value(event.values)
        there = f"its evaluation has {', '.join(sorted(event.values))}" if event.values else "it was never evaluated"
        reason = f"it reports no {self.loop.rules.metric} at step {event.step}: {there}"
        return Failed(event.trial, event.step, "task", reason)

    def _turn(self, entry: Entry, event: Event | None = None) -> Turn:
        self._reports = self._reports or isinstance(entry.event, Reported)
        actions = self.loop.feed(entry.event)
        self.order.fed(event or entry.event, actions)
        return Turn(entry.number, entry.at, entry.event, actions)


@dataclass(frozen=True)
class Restored:
    """A searcher that was told again what it was told.

    Args:
        pending: what it was asked for, and says now; to be heard.
        held: what it was asked for, and says nothing yet.
        differing: trials for which it would suggest something else than the book has: it is not what it was (another
            release, or without a seed). The book counts.
        whole: it was told all.
    """

    pending: list[Suggested]
    differing: list[int]
    held: list[int] = field(default_factory=list)
    whole: bool = True


def restored(
    searcher: Searcher, turns: Iterable[Turn], goes_on: Callable[[int, int], bool] = lambda done, of: True
) -> Restored:
    """Bring a new searcher to where the one was that was asked and told in these turns.

    Args:
        goes_on: told, before each suggestion, how many there were and will be; False: leave it at that.

    Raises what the searcher raises.
    """
    turns = list(turns)
    said = {turn.event.trial: turn.event.config for turn in turns if isinstance(turn.event, Suggested)}
    found = Restored([], [])
    asked, of = 0, sum(isinstance(action, Ask) for turn in turns for action in turn.actions)
    line = Line(searcher)
    for turn in turns:
        if isinstance(turn.event, Suggested) and turn.event.trial in line.held:  # it was not asked any longer
            line.give_up(turn.event.trial)
            if turn.event.config is not None:
                found.differing.append(turn.event.trial)
                _correct(searcher, turn.event.trial, turn.event.config)
        for action in turn.actions:
            if isinstance(action, Ask):
                if not goes_on(asked, of):
                    return replace(found, whole=False)
                asked += 1
            if isinstance(action, Ask | Tell):
                for each in line.do(action):
                    if each.trial not in said:
                        found.pending.append(each)
                    elif each.config != said[each.trial]:
                        found.differing.append(each.trial)
                        _correct(searcher, each.trial, said[each.trial])
    return replace(found, held=line.held)


def _correct(searcher: Searcher, trial: int, config: Config | None) -> None:
    """Let it know what is run in place of what it says, if it wants to."""
    correct = getattr(searcher, "correct", None)
    if correct is not None:
        correct(trial, config)


def _is_passing(event: Event) -> bool:
    return isinstance(event, Halt) and event.may_go_on
