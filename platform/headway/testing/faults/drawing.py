"""Faults at random, of which a run must survive every mixture."""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence

from headway.errors import BadInput, nearest
from headway.testing.faults.fault import Fault
from headway.testing.faults.reading import SHARE

LASTING_S = 5.0
"""A node that is cut off for longer is dead to Ray, and its raylet ends when the link is back."""

_WEIGHTS = {
    "kill worker": 4,
    "kill workers": 2,
    "kill node": 3,
    "kill all": 1,
    "stop worker": 2,
    "drain node": 2,
    "add node": 3,
    "cut node": 2,
    "cut nodes": 1,
    "blip head": 2,
    "freeze driver": 1,
    "freeze head": 1,
    "part workers": 2,
    "oneway node": 1,
    "loss node": 2,
    "delay node": 1,
    "reorder node": 1,
    "rate node": 1,
    "lock worker": 2,
    "slow-store": 1,
    "full-disk": 1,
}
RANDOM = tuple(_WEIGHTS)
"""Kinds of fault that `random_faults` draws from; of them only what can be done on the machine."""
BENIGN = (
    "cut nodes",
    "blip head",
    "freeze driver",
    "freeze head",
    "loss node",
    "delay node",
    "reorder node",
    "rate node",
    "lock worker",
    "slow-store",
    "full-disk",
)
"""Of these, those that end within a run's patience: nobody may be given up for any of them."""
CLOUD = (
    "reclaim node",
    "kill node",
    "cut node",
    "empty",
    "kill worker",
    "stop worker",
    "blip head",
    "loss node",
    "rate node",
)
"""What is drawn from on a cloud, whose machines are replaced when they are lost."""
_ALONE = {"kill worker", "kill all", "stop worker", "add node", "hang worker", "flip worker", "empty", *BENIGN} - {
    "cut nodes"
}
"""What leaves a cluster of one node with a node; others need two."""
_SPANS: dict[str, tuple[float | None, ...]] = {
    "stop": (1, 3, 6),
    "drain": (1, 3, 5),
    "reclaim": (2, 5, 8),
    "empty": (8, 15),
    "cut": (None, 4, 8),
    "blip": (1, 3),
    "freeze": (1, 3),
    "part": (4, 8),
    "oneway": (1, 2, 4),
    "loss": (4, 8),
    "delay": (4, 8),
    "reorder": (4, 8),
    "rate": (4, 8),
    "lock": (1, 3),
    "slow-store": (2, 5),
    "full-disk": (2, 5),
}
_TOGETHER_S = (1.0, 3.0)
"""Several links that are away at once come back soon: their nodes are not lost for it."""


def random_faults(
    seed: int,
    steps: int,
    nodes: int,
    *,
    without: Collection[str] = (),
    kinds: Sequence[str] = RANDOM,
    count: int | None = None,
    replaced: bool = False,
) -> tuple[Fault, ...]:
    """A mixture of faults that a run must survive, the same for the same arguments.

    At least one node always stays untouched by what cannot be taken back, and none is hit that is gone already.

    Args:
        seed: of the choice.
        steps: of the run; faults fall between a tenth and seven tenths of them.
        nodes: in the cluster at the beginning, one worker on each.
        without: verbs that cannot be done, as `headway.testing.links.lacking` tells.
        kinds: to choose from, of RANDOM, CLOUD, `flip worker` and `hang worker`.
        count: of faults; three to six when not given.
        replaced: for a node that is lost another comes, with the next number.

    Raises:
        BadInput: a kind is unknown.
    """
    for kind in kinds:
        if kind not in (*RANDOM, *CLOUD, "flip worker", "hang worker"):
            raise BadInput(f"no random fault is of the kind {kind!r}", "", nearest(kind, list(RANDOM)))
    draw = random.Random(seed)
    first, last = steps // 10, max(steps // 10 + 1, steps * 7 // 10)
    count = count or draw.randint(3, 6)
    moments = sorted(draw.choices(range(first, last), k=count))
    up, number = list(range(nodes)), nodes
    faults = []
    for step in moments:
        possible = [k for k in kinds if k.split()[0] not in without and (k in _ALONE or len(up) >= 2)]
        if not possible:
            break
        kind = draw.choices(possible, [_WEIGHTS.get(k, 2) for k in possible])[0]
        fault = _draw(draw, kind, step, up)
        faults.append(fault)
        if fault.verb == "add":
            up.append(number)
            number += 1
        elif lasts(fault):
            up.remove(fault.which[0])
            if replaced:
                up.append(number)
                number += 1
    return tuple(faults)


def lasts(fault: Fault) -> bool:
    """Whether a fault takes a node away for good."""
    if fault.target != "node" or fault.verb == "add":
        return False
    beyond = fault.span_s is None or fault.span_s > LASTING_S
    return fault.verb in ("kill", "drain", "reclaim") or (fault.verb in ("cut", "oneway", "stop") and beyond)


def _draw(draw: random.Random, kind: str, step: int, up: list[int]) -> Fault:
    verb, _, target = kind.partition(" ")
    span_s = draw.choice(_SPANS.get(verb, (None,)))
    which: tuple[int, ...] = ()
    if target == "workers":
        which = tuple(sorted(draw.sample(range(len(up)), 2)))
    elif target == "worker":
        which = (draw.randrange(len(up)),)
    elif target == "nodes":
        which, span_s = tuple(up), draw.choice(_TOGETHER_S)
    elif target == "node" and verb != "add":
        which = (draw.choice(up),)
    return Fault(
        verb,
        target.removesuffix("s"),
        step,
        which,
        None if span_s is None else float(span_s),
        by_s=draw.choice((0.02, 0.1)) if verb in ("delay", "reorder") else None,
        percent=draw.choice((5.0, 10.0, 20.0)) if verb == "loss" else SHARE if verb == "reorder" else None,
        kbit=draw.choice((5000.0, 20000.0)) if verb == "rate" else None,
        way=draw.choice(("to=head", "from=head")) if verb == "oneway" else "",
    )
