"""In which order a sweep's loop hears what happens to its trials.

async: as it comes. strict: by a virtual clock, on which every step of a trial costs one and `width` trials go at once;
so what is decided does not depend on who was faster, how many workers there were, or who was lost. The price is that
what came early waits for what is due before it.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol

from headway.sweeps.events import (
    Action,
    Again,
    Clone,
    Event,
    Failed,
    GoOn,
    Halt,
    Reported,
    Spent,
    Start,
    Suggested,
    Width,
)
from headway.sweeps.loop import TRIES, Loop, is_news


class Order(Protocol):
    """Takes what happens, and gives what is heard next."""

    def arrived(self, event: Event) -> None:
        """It happened."""

    def next(self) -> Event | None:
        """What the loop hears next; None: that did not happen yet. The same until `fed` is called."""

    def fed(self, event: Event, actions: list[Action]) -> None:
        """The loop has heard an event, from here or out of the book, and answered."""

    def wanted(self) -> list[int]:
        """Trials that run and have something to tell, the most urgent first: for who cannot have all of them go on at
        once."""


class AsItComes:
    """`order: async`.

    Args:
        loop: that hears.
    """

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._queue: deque[Event] = deque()

    def arrived(self, event: Event) -> None:
        self._queue.append(event)

    def next(self) -> Event | None:
        return self._queue[0] if self._queue else None

    def fed(self, event: Event, actions: list[Action]) -> None:
        if self._queue and self._queue[0] is event:
            self._queue.popleft()

    def wanted(self) -> list[int]:
        return [trial.number for trial in self._loop.trials.values() if trial.state == "running"]


class Strict:
    """`order: strict`.

    A trial that began a stretch at virtual time t after s steps is evaluated after step e at t + (e - s); of two at one
    time that of the lower number is first. A failure takes the place of the evaluation that it kept from happening.
    What the searcher is asked for is there at once. `Width` of the cluster is nobody's business; `Spent` and `Halt` are
    heard when they come: a budget of time or money ends the sweep where it ends.

    Args:
        loop: that hears; new.
        width: trials at once.
    """

    def __init__(self, loop: Loop, width: int) -> None:
        self._loop, self._width = loop, width
        self._time = 0
        self._due: dict[int, int] = {}
        """By trial that runs: the virtual time of its next evaluation."""
        self._told: dict[int, dict[tuple[int, bool], Reported]] = {}
        """By trial, by step and whether it stands there: what was reported and is not heard yet."""
        self._failed: dict[int, Failed] = {}
        self._suggested: dict[int, Suggested] = {}
        self._urgent: deque[Event] = deque()

    def arrived(self, event: Event) -> None:
        match event:
            case Reported():
                if event.trial not in self._failed:  # else it failed before that
                    self._told.setdefault(event.trial, {}).setdefault((event.step, event.waits), event)
            case Failed():
                if not self._is_of_no_account(event):
                    self._failed.setdefault(event.trial, event)
            case Suggested():
                self._suggested.setdefault(event.trial, event)
            case Spent() | Halt() | Again():
                self._urgent.append(event)
            case Width():
                pass

    def next(self) -> Event | None:
        if self._urgent:
            return self._urgent[0]
        if self._loop.width != self._width:
            return Width(self._width)
        if self._loop.asked:
            return self._suggested.get(self._loop.asked[0])
        again = next((failed for failed in self._failed.values() if self._is_tried_again(failed)), None)
        if again is not None:
            return again
        first = next(iter(self._in_order()), None)
        return None if first is None else self._of(first)

    def fed(self, event: Event, actions: list[Action]) -> None:
        match event:
            case Spent() | Halt() | Again():
                if self._urgent and self._urgent[0] is event:
                    self._urgent.popleft()
            case Suggested():
                self._suggested.pop(event.trial, None)
            case Failed():
                self._failed.pop(event.trial, None)
                if any(begins(action, event.trial) for action in actions):  # once more: by this clock nothing happened
                    return
                self._heard(event.trial)
            case Reported():
                self._told.get(event.trial, {}).pop((event.step, event.waits), None)
                self._heard(event.trial)
        for action in actions:
            if isinstance(action, Start | GoOn | Clone):
                self._begin(action)

    def wanted(self) -> list[int]:
        return [trial for trial in self._in_order() if self._of(trial) is None]

    def _in_order(self) -> list[int]:
        """Trials that run, by when they are heard next."""
        running = (trial for trial in self._due if self._loop.trials[trial].state == "running")
        return sorted(running, key=lambda trial: (self._due[trial], trial))

    def _of(self, number: int) -> Event | None:
        """What is heard next of a trial, if it happened."""
        trial, told = self._loop.trials[number], self._told.get(number, {})
        # One that went on from an earlier checkpoint says it again.
        for old in [at for at, said in told.items() if not is_news(trial, said)]:
            del told[old]
        return told[min(told)] if told else self._failed.get(number)

    def _heard(self, number: int) -> None:
        """The clock goes on to when this trial was due, and it is due again at its next evaluation."""
        if number not in self._due:
            return
        self._time = max(self._time, self._due[number])
        self._wait_for(number)

    def _begin(self, action: Start | GoOn | Clone) -> None:
        if isinstance(action, Clone):
            self._told.pop(action.trial, None)
        self._wait_for(action.trial)

    def _wait_for(self, number: int) -> None:
        trial = self._loop.trials[number]
        self._due[number] = self._time + trial.way.at(trial.step + 1) - trial.step

    def _is_of_no_account(self, failed: Failed) -> bool:
        """Whether one that was paused by then could not leave in order: it goes on from its last checkpoint."""
        trial = self._loop.trials.get(failed.trial)
        return failed.kind == "platform" and trial is not None and trial.state == "paused"

    def _is_tried_again(self, failed: Failed) -> bool:
        trial = self._loop.trials.get(failed.trial)
        return failed.kind == "platform" and trial is not None and trial.state == "running" and trial.tries < TRIES


def begins(action: Action, trial: int) -> bool:
    """Whether this lets a trial train."""
    return isinstance(action, Start | GoOn | Clone) and action.trial == trial


def create(name: str, loop: Loop, width: int) -> Order:
    """The order of that name. width: of a strict one."""
    return Strict(loop, width) if name == "strict" else AsItComes(loop)
