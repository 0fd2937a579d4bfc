"""Whether all are at the same thing, or somebody's loop is over: told in the exchange with which it begins.

Code of the user's may leave its loop on one worker alone, where the others go on to a step or to an evaluation. Both
begin with the same exchange, so that they meet in it, and all leave.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headway.elastic.worker.engine import Engine

STEP, EVALUATION, OVER = "a step", "an evaluation", "nothing"
"""What a worker is at."""


def told(engine: Engine, mine: str) -> bool:
    """By a message of its own, as a step of several updates begins, whose first exchange is not the same for one that
    does not know it. Returns whether all leave.

    Raises:
        PeerLost: a worker is gone.
    """
    found = engine.pact.gather(OVER if engine.halting else mine)
    if all(each == mine for each in found):
        return False
    if engine.rounds is not None:
        engine.rounds.left(met=False)
    engine.halt()
    return True


def before_evaluation(engine: Engine) -> bool:
    """Returns whether all leave instead. Gradients are let go of.

    Raises:
        PeerLost: a worker is gone.
    """
    pact, replica, tail = engine.pact, engine.replica, engine.tail
    replica.buffers.begin()
    if replica.updates.several or engine.rounds is not None:
        return told(engine, EVALUATION)
    engine.fit()
    pact.strategy.begin([])  # as in a step, of no lanes
    tail.clear()
    tail.flags(stop=False, news=False, evaluates=True)
    with engine.account("communication"):
        summed, _ = pact.sum(tail.values)
    tail.take(summed)
    if not tail.halting() and tail.evaluating() == pact.size:
        return False
    engine.halt()
    return True
