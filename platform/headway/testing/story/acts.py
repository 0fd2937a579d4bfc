"""What happens to a run on a cloud, and when: a story, or faults at random. Pure.

Machines of a cloud come when they come. So an act waits for its step, for its machine, and where the stage must be set
until as many workers train as may.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from headway.errors import BadInput
from headway.testing.faults import CLOUD, VERBS, Fault, random_faults

NOTICE_S = 5.0
EMPTY_S = 20.0
"""For so long nothing is to be had in the story: longer than a machine takes to come."""
LASTING_CUT_S = 60.0
"""A link that is away for longer than Ray's patience: its machine is dead to the cluster, and is replaced."""
FEWEST = 2
"""Machines of a story at least: with one, there is nobody to go on."""
_NOT_THERE = {
    "add": "machines come when Ray's autoscaler asks for them",
    "full-disk": "its runs are on no disk of their own",
}


@dataclass(frozen=True)
class Act:
    """A fault, and what it waits for beside its step and its machine.

    Args:
        fault: what happens.
        after: all acts before it have happened.
        whole: and as many workers train as may, those that took the place of lost ones among them.
    """

    fault: Fault
    after: bool = False
    whole: bool = False


def scripted(steps: int, most: int) -> tuple[Act, ...]:
    """The story: a notice, a death without one, a link that is cut, and capacity that ends and comes back.

    A machine that is lost is replaced by one with the next number; the victims come one after another. While nothing
    is to be had one more dies, and cannot be replaced until something is.

    Args:
        steps: of the run.
        most: workers, one a machine.

    Raises:
        BadInput: too few of either for a story.
    """
    if most < FEWEST:
        fact = f"a drill on a cloud with at most {most} worker" + ("" if most == 1 else "s")
        raise BadInput(fact, "when its machine goes nobody is left to go on", f"Ask for --nodes {FEWEST} or more.")
    if steps < 20:
        remedy = "Run for 100 or more: --steps 100."
        raise BadInput(f"a drill on a cloud of {steps} steps", "no story fits into them", remedy)
    at = [steps * part // 20 for part in range(2, 7)]
    return (
        Act(Fault("reclaim", "node", at[0], (0,), NOTICE_S), after=True, whole=True),
        Act(Fault("kill", "node", at[1], (1,)), after=True, whole=True),
        Act(Fault("cut", "node", at[2], (2,), LASTING_CUT_S), after=True, whole=True),
        Act(Fault("empty", "", at[3], (), EMPTY_S), after=True, whole=True),
        Act(Fault("kill", "node", at[4], (3,)), after=True),
    )


def drawn(seed: int, steps: int, most: int, without: Iterable[str] = ()) -> tuple[Act, ...]:
    """Faults at random, each as soon as its step is committed and its machine is there.

    Args:
        seed: of the choice.
        steps: of the run.
        most: workers, one a machine.
        without: verbs that cannot be done here.
    """
    first = max(1, steps // 2)  # the later a fault, the less of the run is left for a machine to come
    faults = random_faults(seed, first, most, without=tuple(without), kinds=CLOUD, replaced=True)
    return tuple(map(Act, faults))


def refuse_foreign(faults: Iterable[Fault], cloud: bool) -> None:
    """Refuse what a drill has no means for.

    Raises:
        BadInput: machines come by themselves on a cloud, and nobody takes them back elsewhere.
    """
    for fault in faults:
        if cloud and fault.verb in _NOT_THERE:
            fact = f"the fault '{fault}' has no place in a drill on a cloud"
            raise BadInput(fact, _NOT_THERE[fault.verb], "Leave it out.")
        if not cloud and VERBS[fault.verb].means == "cloud":
            remedy = "Drill with --cloud; `drain` gives notice without one."
            raise BadInput(f"the fault '{fault}' needs a cloud", "this drill's machines are nobody's to sell", remedy)
