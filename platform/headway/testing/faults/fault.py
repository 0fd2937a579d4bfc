"""One fault, and scripts of them in the making."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Self

from headway.errors import BadInput
from headway.testing.faults.verbs import DEADLINE_S, VERBS


@dataclass(frozen=True)
class Fault:
    """One thing that happens.

    Args:
        verb: a key of VERBS.
        target: worker, node, all (every worker), driver, head, or "" for the run as a whole.
        step: it happens as soon as this step is known to be committed; -1: from the beginning.
        which: ranks of the workers, or numbers of the nodes; empty where the target says all.
        span_s: until it is taken back (None: never), of notice (drain, reclaim), or that something takes (compile,
            restore).
        by_s: seconds for which packets are held back.
        percent: of packets that are hit.
        kbit: a second, that get through.
        way: of WAYS, what is lost where a link is up one way only.
    """

    verb: str
    target: str
    step: int
    which: tuple[int, ...] = ()
    span_s: float | None = None
    by_s: float | None = None
    percent: float | None = None
    kbit: float | None = None
    way: str = ""

    def __str__(self) -> str:
        name = f"{self.target}s" if len(self.which) > 1 else self.target
        whom = f"{name}={','.join(map(str, self.which))}" if self.which else self.target
        step = "" if self.step < 0 else f"step={self.step}"
        by = "" if self.by_s is None else f"by={self.by_s:g}s"
        percent = "" if self.percent is None else f"percent={self.percent:g}"
        kbit = "" if self.kbit is None else f"kbit={self.kbit:g}"
        span = "" if self.span_s is None else f"{VERBS[self.verb].span}={self.span_s:g}s"
        return " ".join(filter(None, (self.verb, whom, self.way, step, by, percent, kbit, span)))


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

    def freeze(self, *, at_step: int, for_s: float, head: bool = False) -> Self:
        """SIGSTOP the driver and the run's actors beside it, or all that runs on the head, and SIGCONT after that."""
        return self._and(Fault("freeze", "head" if head else "driver", at_step, (), for_s))

    def cut(
        self, *, at_step: int, node: int | None = None, nodes: Sequence[int] = (), for_s: float | None = None
    ) -> Self:
        """Cut the link of a node, or of several at once, and mend it after `for_s` seconds (None: never)."""
        return self._and(Fault("cut", "node", at_step, tuple(nodes) or _one(node) or (), for_s))

    def blip(self, *, at_step: int, for_s: float) -> Self:
        """Cut the head's own link, and mend it; the nodes reach each other meanwhile."""
        return self._and(Fault("blip", "head", at_step, (), for_s))

    def part(self, *, at_step: int, workers: Sequence[int], for_s: float | None = None) -> Self:
        """Let the nodes of these workers not reach each other; all of them reach the head and the others."""
        return self._and(Fault("part", "worker", at_step, tuple(workers), for_s))

    def oneway(self, *, at_step: int, node: int, lost: str, for_s: float | None = None) -> Self:
        """Lose what a node sends to or gets from the head or all: `lost` is `to=head`, `from=head`, `to=all`, ..."""
        return self._and(Fault("oneway", "node", at_step, (node,), for_s, way=lost))

    def loss(self, *, at_step: int, node: int, percent: float, for_s: float | None = None) -> Self:
        """Lose that share of a node's packets, both ways."""
        return self._and(Fault("loss", "node", at_step, (node,), for_s, percent=percent))

    def delay(self, *, at_step: int, node: int, by_s: float, for_s: float | None = None) -> Self:
        """Hold a node's packets back for so long, each way."""
        return self._and(Fault("delay", "node", at_step, (node,), for_s, by_s=by_s))

    def drain(self, *, at_step: int, node: int, deadline_s: float = DEADLINE_S) -> Self:
        """Give notice that a node goes, and take it down at the deadline."""
        return self._and(Fault("drain", "node", at_step, (node,), deadline_s))

    def reclaim(self, *, at_step: int, node: int, notice_s: float = DEADLINE_S) -> Self:
        """Let the cloud say that it takes a machine back, and take it at the deadline; only on a cloud."""
        return self._and(Fault("reclaim", "node", at_step, (node,), notice_s))

    def empty(self, *, at_step: int, for_s: float) -> Self:
        """Let the cloud have no machine to sell for so long; only on a cloud."""
        return self._and(Fault("empty", "", at_step, (), for_s))

    def add_node(self, *, at_step: int) -> Self:
        """Start one more node."""
        return self._and(Fault("add", "node", at_step))

    def hang(self, *, at_step: int, worker: int) -> Self:
        """Block a worker's training thread for ever; its other threads go on."""
        return self._and(Fault("hang", "worker", at_step, (worker,)))

    def lock(self, *, at_step: int, worker: int, for_s: float) -> Self:
        """Hold the interpreter's lock in a worker's training thread: no other Python thread of it runs meanwhile."""
        return self._and(Fault("lock", "worker", at_step, (worker,), for_s))

    def slow_store(self, *, at_step: int, for_s: float) -> Self:
        """Let nothing that a worker writes of the run come to the disk for so long."""
        return self._and(Fault("slow-store", "", at_step, (), for_s))

    def full_disk(self, *, at_step: int, for_s: float) -> Self:
        """Fill the disk on which the runs are, and free it after that."""
        return self._and(Fault("full-disk", "", at_step, (), for_s))

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


def _one(number: int | None) -> tuple[int, ...] | None:
    return None if number is None else (number,)
