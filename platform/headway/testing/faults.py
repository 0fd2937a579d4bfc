"""Faults by script: what happens to whom, once which step is committed. Pure; `headway.testing.injector` does them.

    kill worker=1 step=30; cut node=2 step=50 for=8s; stop worker=0 step=70 for=3s; add node step=90

The same as `Faults().kill(worker=1, at_step=30).cut(node=2, at_step=50, for_s=8)...`. A worker is named by its rank at
that moment, a node by its number in the cluster; both count from 0.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Self

from headway.errors import BadInput, nearest

TARGETS = {
    "kill": ("worker", "node", "all", "driver"),
    "stop": ("worker", "node"),
    "cut": ("node",),
    "drain": ("node",),
    "add": ("node",),
    "hang": ("worker",),
    "flip": ("worker",),
    "raise": ("worker",),
}
"""What may happen, and to whom: kill is SIGKILL, stop SIGSTOP; cut takes the link of a node away; drain gives notice of
a node's end; hang blocks the training thread; flip turns one bit of a parameter; raise raises in the user's code."""

SPANS = {"stop": "for", "cut": "for", "drain": "deadline"}
DEADLINE_S = 5.0
LASTING_S = 5.0
"""A node that is cut off for longer is dead to Ray, and its raylet ends when the link is back."""
RANDOM = ("kill worker", "kill workers", "kill node", "kill all", "stop worker", "drain node", "add node", "cut node")
"""Kinds of fault that `random_faults` draws from; cuts only where links can be cut."""

_WEIGHTS = {"kill worker": 4, "kill workers": 2, "kill node": 3, "kill all": 1, "add node": 3}
_SECONDS = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m)?$")
_UNITS = {"ms": 1e-3, "s": 1.0, None: 1.0, "m": 60.0}


@dataclass(frozen=True)
class Fault:
    """One thing that happens.

    Args:
        verb: a key of TARGETS.
        target: worker, node, all (every worker) or driver.
        step: it happens as soon as this step is known to be committed.
        which: ranks of the workers, or the node's number; empty for `add node`, `kill all` and `kill driver`.
        span_s: until it is taken back (stop, cut; None: never), or of notice (drain).
    """

    verb: str
    target: str
    step: int
    which: tuple[int, ...] = ()
    span_s: float | None = None

    def __str__(self) -> str:
        name = "workers" if len(self.which) > 1 else self.target
        whom = f"{name}={','.join(map(str, self.which))}" if self.which else self.target
        span = "" if self.span_s is None else f" {SPANS[self.verb]}={self.span_s:g}s"
        return f"{self.verb} {whom} step={self.step}{span}"


class Faults:
    """A script in the making; each method returns the script with one fault more. Iterates in order of steps."""

    def __init__(self, faults: Iterable[Fault] = ()) -> None:
        self._faults = tuple(faults)

    def kill(
        self,
        *,
        at_step: int,
        worker: int | None = None,
        workers: Sequence[int] = (),
        node: int | None = None,
        everyone: bool = False,
        driver: bool = False,
    ) -> Self:
        """SIGKILL a worker, several at once, all of them, everything on a node, or the driver."""
        chosen = {
            "worker": tuple(workers) or _one(worker),
            "node": _one(node),
            "all": () if everyone else None,
            "driver": () if driver else None,
        }
        named = [(target, which) for target, which in chosen.items() if which is not None]
        if len(named) != 1:
            raise BadInput("kill(...) names no single target", "", "Give worker, workers, node, everyone or driver.")
        return self._and(Fault("kill", named[0][0], at_step, named[0][1]))

    def stop(self, *, at_step: int, worker: int | None = None, node: int | None = None, for_s: float | None) -> Self:
        """SIGSTOP a worker's process, or all of a node's, and SIGCONT after `for_s` seconds (None: never)."""
        if (worker is None) == (node is None):
            raise BadInput("stop(...) names no single target", "", "Give worker or node.")
        target, which = ("worker", worker) if worker is not None else ("node", node)
        return self._and(Fault("stop", target, at_step, _one(which) or (), for_s))

    def cut(self, *, at_step: int, node: int, for_s: float | None = None) -> Self:
        """Cut a node's link, and mend it after `for_s` seconds (None: never)."""
        return self._and(Fault("cut", "node", at_step, (node,), for_s))

    def drain(self, *, at_step: int, node: int, deadline_s: float = DEADLINE_S) -> Self:
        """Give notice that a node goes, and take it down at the deadline."""
        return self._and(Fault("drain", "node", at_step, (node,), deadline_s))

    def add_node(self, *, at_step: int) -> Self:
        """Start one more node."""
        return self._and(Fault("add", "node", at_step))

    def hang(self, *, at_step: int, worker: int) -> Self:
        """Block a worker's training thread for ever; its other threads go on."""
        return self._and(Fault("hang", "worker", at_step, (worker,)))

    def flip(self, *, at_step: int, worker: int) -> Self:
        """Turn one bit of one parameter on one worker, as bad memory does."""
        return self._and(Fault("flip", "worker", at_step, (worker,)))

    def raise_error(self, *, at_step: int, worker: int) -> Self:
        """Raise an exception in the training loop of one worker."""
        return self._and(Fault("raise", "worker", at_step, (worker,)))

    def __iter__(self) -> Iterator[Fault]:
        return iter(in_order(self._faults))

    def __str__(self) -> str:
        return script(self)

    def _and(self, fault: Fault) -> Self:
        return type(self)((*self._faults, fault))


def in_order(faults: Iterable[Fault]) -> tuple[Fault, ...]:
    """By step; faults of one step in the order in which they were written."""
    return tuple(sorted(faults, key=lambda fault: fault.step))


def script(faults: Iterable[Fault]) -> str:
    """The faults as a script that `parse` reads back."""
    return "; ".join(map(str, faults))


def parse(text: str) -> tuple[Fault, ...]:
    """The faults of a script, by step.

    Raises:
        BadInput: naming the piece that is wrong, and what is allowed there.
    """
    pieces = [piece.strip() for piece in re.split(r"[;\n]", text)]
    return in_order(_parse(piece) for piece in pieces if piece and not piece.startswith("#"))


def _parse(piece: str) -> Fault:
    verb, *words = piece.split()
    if verb not in TARGETS:
        raise _bad(piece, f"nothing is called {verb!r}", nearest(verb, list(TARGETS)))
    if not words:
        raise _bad(piece, "it names no target", _form(verb))
    target, equals, which_text = words[0].partition("=")
    several, target = target == "workers", "worker" if target == "workers" else target
    if target not in TARGETS[verb]:
        raise _bad(piece, f"{verb} does not apply to {words[0].partition('=')[0]!r}", _form(verb))
    bare = verb == "add" or target in ("all", "driver")
    if bare == bool(equals) or (several and verb != "kill"):
        raise _bad(piece, f"{words[0]!r} is no target of {verb}", _form(verb))
    which = () if bare else tuple(_whole(piece, word) for word in which_text.split(","))
    if len(which) > 1 and not several:
        raise _bad(piece, f"{words[0]!r} names {len(which)} targets", _form(verb))
    if len(set(which)) < len(which):
        raise _bad(piece, f"{words[0]!r} names one twice", _form(verb))
    options = _options(piece, verb, words[1:])
    if "step" not in options:
        raise _bad(piece, "it does not say when", _form(verb))
    span = SPANS.get(verb)
    span_s = _seconds(piece, options[span]) if span in options else DEADLINE_S if verb == "drain" else None
    return Fault(verb, target, _whole(piece, options["step"]), which, span_s)


def _options(piece: str, verb: str, words: Iterable[str]) -> dict[str, str]:
    allowed = {"step", SPANS.get(verb)}
    options: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or name not in allowed or name in options:
            raise _bad(piece, f"{word!r} cannot stand there", _form(verb))
        options[name] = value
    return options


def _whole(piece: str, text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,12}", text):
        raise _bad(piece, f"{text!r} is no whole number", "Workers, nodes and steps are counted from 0.")
    return int(text)


def _seconds(piece: str, text: str) -> float:
    match = _SECONDS.match(text)
    if match is None:
        raise _bad(piece, f"{text!r} is no duration", "Write it like 8s, 500ms or 2m.")
    return float(match[1]) * _UNITS[match[2]]


def _form(verb: str) -> str:
    forms = []
    for target in TARGETS[verb]:
        named = {"worker": "worker=RANK", "node": "node" if verb == "add" else "node=NUMBER"}.get(target, target)
        span = {"for": " [for=8s]", "deadline": f" [deadline={DEADLINE_S:g}s]"}.get(SPANS.get(verb, ""), "")
        forms.append(f"{verb} {named} step=STEP{span}")
    if verb == "kill":
        forms.insert(1, "kill workers=RANK,RANK step=STEP")
    return f"Write it like: {'; '.join(forms)}."


def _bad(piece: str, reason: str, remedy: str) -> BadInput:
    return BadInput(f"the fault {piece!r} cannot be read", reason, remedy)


def _one(number: int | None) -> tuple[int, ...] | None:
    return None if number is None else (number,)


def random_faults(
    seed: int, steps: int, nodes: int, *, links: bool = False, kinds: Sequence[str] = RANDOM, count: int | None = None
) -> tuple[Fault, ...]:
    """A mixture of faults that a run must survive, the same for the same arguments.

    At least one node always stays untouched by what cannot be taken back, and none is hit that is gone already.

    Args:
        seed: of the choice.
        steps: of the run; faults fall between a tenth and seven tenths of them.
        nodes: in the cluster at the beginning, one worker on each.
        links: whether links can be cut.
        kinds: to choose from, of RANDOM, `flip worker` and `hang worker`.
        count: of faults; three to six when not given.

    Raises:
        BadInput: a kind is unknown.
    """
    for kind in kinds:
        if kind not in (*RANDOM, "flip worker", "hang worker"):
            raise BadInput(f"no random fault is of the kind {kind!r}", "", nearest(kind, list(RANDOM)))
    draw = random.Random(seed)
    first, last = steps // 10, max(steps // 10 + 1, steps * 7 // 10)
    count = count or draw.randint(3, 6)
    moments = sorted(draw.choices(range(first, last), k=count))
    up, number = list(range(nodes)), nodes
    faults = []
    for step in moments:
        possible = [k for k in kinds if _possible(k, len(up), links)]
        if not possible:
            break
        kind = draw.choices(possible, [_WEIGHTS.get(k, 2) for k in possible])[0]
        fault = _draw(draw, kind, step, up)
        faults.append(fault)
        if fault.verb == "add":
            up.append(number)
            number += 1
        elif fault.target == "node" and _lasts(fault):
            up.remove(fault.which[0])
    return tuple(faults)


def _lasts(fault: Fault) -> bool:
    return fault.verb in ("kill", "drain") or fault.span_s is None or (fault.verb == "cut" and fault.span_s > LASTING_S)


def _possible(kind: str, up: int, links: bool) -> bool:
    if kind == "cut node" and not links:
        return False
    return kind in ("kill worker", "kill all", "stop worker", "add node", "hang worker") or up >= 2


def _draw(draw: random.Random, kind: str, step: int, up: list[int]) -> Fault:
    verb, target = kind.split()
    if target == "workers":
        return Fault(verb, "worker", step, tuple(sorted(draw.sample(range(len(up)), 2))))
    if target == "worker":
        span_s = float(draw.choice((1, 3, 6))) if verb == "stop" else None
        return Fault(verb, "worker", step, (draw.randrange(len(up)),), span_s)
    if verb == "add" or target == "all":
        return Fault(verb, target, step)
    span_s = {"drain": float(draw.choice((1, 3, 5))), "cut": draw.choice((None, 4.0, 8.0))}.get(verb)
    return Fault(verb, target, step, (draw.choice(up),), span_s)
