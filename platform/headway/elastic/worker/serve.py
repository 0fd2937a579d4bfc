"""The train function of a pool's process: it works for one run after the other, for each as a new process would.

Whoever leads the pool says whose the process is (`enter`), gives it an `Assignment` at a time (`give`; both in the
process' main thread), and hears when it is back from it, with a word where it had better be replaced.
"""

from __future__ import annotations

import contextlib
import os
import queue
from typing import TYPE_CHECKING, Any

from headway.carried import code
from headway.elastic.wire import place
from headway.elastic.wire.place import Assignment
from headway.elastic.worker.warm import warm

if TYPE_CHECKING:
    from headway.elastic.worker.afresh import Afresh
    from headway.elastic.worker.attendant import Attendant

_given: queue.SimpleQueue[Assignment | None] = queue.SimpleQueue()
_house: Any = None
_process = ""


def enter(house: Any, process: str) -> None:
    """Called before the train function is.

    Args:
        house: an actor whose `back(process, number, remark)` is told of each assignment that is over.
        process: name of this one.
    """
    global _house, _process
    _house, _process = house, process


def give(assignment: Assignment | None) -> None:
    """Have the process work for a run when it is free; None: have it end."""
    _given.put(assignment)


def serve(config: dict[str, Any]) -> None:
    """The train function, until there is nothing more to do. config: of no use here."""
    import ray

    from headway.elastic.worker.afresh import Afresh
    from headway.elastic.worker.attendant import Attendant

    warm()
    attendant, afresh = Attendant(), Afresh()
    while (assignment := _given.get()) is not None:
        if not attendant.lives:
            attendant = Attendant()
            with contextlib.suppress(OSError):  # it works without one, as a run's own process does
                attendant.start()
        number, remark = assignment.number, work(assignment, afresh, attendant)
        del assignment
        try:
            ray.get(_house.back.remote(_process, number, remark))
        except ray.exceptions.RayError:
            os._exit(1)  # nobody leads it any more
    attendant.close()


def work(assignment: Assignment, afresh: Afresh, attendant: Attendant) -> str:
    """Work for a run. Returns why the process had better not work for another; empty: it may.

    Args:
        assignment: to it.
        afresh: of the process before it.
        attendant: beside the process.
    """
    from headway.elastic.worker import main

    place.enter(assignment.place, assignment.show)
    remark = main.work(assignment.config, attendant, afresh.runs > 0)
    source = code.here(assignment.config["source"])
    own = [] if source.inside is None else [source.folder, *source.paths]
    return afresh.again(own, source.module.partition(".")[0]) or remark
