"""Has people told of a sweep: of its end, that nothing gets done, and that its budget is nearly spent."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Mapping
from typing import Any

from headway.core.alarms import Seen
from headway.notify.addresses import addresses
from headway.notify.forms import About
from headway.notify.lookout import EVERY_S, Lookout
from headway.notify.webhook import Webhook
from headway.sweeps.events import Spent
from headway.sweeps.rules import Budget
from headway.sweeps.seen.view import View


class Telling:
    """For the thread that leads the sweep; how it is sent is nothing to that.

    Args:
        name, path: of the sweep.
        hooks: addresses that are told.
        budget: of the sweep.
        say: takes a line for people; called from other threads.

    Raises:
        BadInput: a file or a variable that is named holds no address.

    Attributes:
        unknown: what is to be noted of addresses that are not known any more.
    """

    def __init__(self, name: str, path: str, hooks: list[Webhook], budget: Budget, say: Callable[[str], None]) -> None:
        found, self.unknown = addresses(hooks)
        self._budget = budget
        self._newest: tuple[Seen, Mapping[str, Any]] = Seen(), {}
        self._looked_at = float("-inf")
        self._lookout = Lookout(About(name, path, socket.gethostname(), "sweep"), found, lambda: self._newest, say)

    def start(self) -> None:
        """Somebody leads the sweep from now on."""
        self._lookout.start()

    def look(self, view: View) -> None:
        """This is to be seen now."""
        now = time.monotonic()
        if now - self._looked_at >= EVERY_S:
            self._looked_at, self._newest = now, seen(view, self._budget)

    def ended(self, state: str, message: str, view: View) -> None:
        """It is at its end."""
        self._newest = seen(view, self._budget)
        self._lookout.ended(state, message)

    def close(self) -> list[str]:
        """Wait for what is being sent, for some seconds at most; returns what was never sent, in words."""
        return self._lookout.close()


def seen(view: View, budget: Budget) -> tuple[Seen, dict[str, Any]]:
    """A sweep for who tells people, and what they are told of it."""
    steps = sum(trial.step for trial in view.trials.values())
    done = steps + sum(len(trial.points) for trial in view.trials.values())
    used = budget.used(Spent(view.worker_s, view.seconds), steps)
    best = view.best
    facts = {
        "trials": len(view.trials),
        "over": view.over,
        "steps": steps,
        "best": {"trial": best.number, "step": best.best_step, "value": best.best} if best is not None else None,
        "metric": view.subject.metric,
        "workers": view.workers,
        "worker_seconds": view.worker_s,
        "dollars": view.dollars,
        "budget_used": used,
    }
    return Seen(steps, 0, done, 0, "", used), facts
