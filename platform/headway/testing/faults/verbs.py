"""What may happen, and to whom."""

from __future__ import annotations

from dataclasses import dataclass

DEADLINE_S = 5.0


@dataclass(frozen=True)
class Verb:
    """One kind of fault.

    Args:
        targets: worker, workers (several at once), node, nodes, all (every worker), driver, head; "" where the fault
            strikes the run as a whole.
        span: the option that says how long it lasts, or how much notice it gives; None where it has no end.
        needs: options that must be given.
        allows: options that may be given; `step` and the span may be given with every verb that has them.
        means: of the machine, beside root: "" none, "cable" a network of its own for each node, "filter" nft, "shape"
            tc, "frames" raw sockets, "disk" a file system that is mounted for the drill, "cloud" one that sells
            machines.
        fewest: targets that must be named at least.
        early: it may come before the first step, and does when no step is given.
    """

    targets: tuple[str, ...]
    span: str | None = None
    needs: tuple[str, ...] = ()
    allows: tuple[str, ...] = ()
    means: str = ""
    fewest: int = 1
    early: bool = False


VERBS = {
    "kill": Verb(("worker", "workers", "node", "all", "driver")),
    "stop": Verb(("worker", "node"), "for"),
    "freeze": Verb(("driver", "head"), "for", ("for",)),
    "cut": Verb(("node", "nodes"), "for", means="cable"),
    "blip": Verb(("head",), "for", ("for",), means="cable"),
    "part": Verb(("workers",), "for", means="filter", fewest=2),
    "oneway": Verb(("node",), "for", ("way",), means="filter"),
    "loss": Verb(("node",), "for", ("percent",), means="filter"),
    "delay": Verb(("node",), "for", ("by",), means="frames"),
    "reorder": Verb(("node",), "for", ("by",), ("percent",), means="frames"),
    "rate": Verb(("node",), "for", ("kbit",), means="shape"),
    "drain": Verb(("node",), "deadline"),
    "reclaim": Verb(("node",), "notice", means="cloud"),
    "empty": Verb(("",), "for", ("for",), means="cloud"),
    "add": Verb(("node",)),
    "hang": Verb(("worker",)),
    "lock": Verb(("worker",), "for", ("for",)),
    "compile": Verb(("worker",), "for", ("for",), early=True),
    "restore": Verb(("worker",), "for", ("for",), early=True),
    "slow-store": Verb(("",), "for", ("for",)),
    "full-disk": Verb(("",), "for", ("for",), means="disk"),
    "flip": Verb(("worker",)),
    "raise": Verb(("worker",)),
}
"""kill is SIGKILL, stop SIGSTOP; freeze stops the head's side: the driver with the actors beside it, or all of it.
cut takes the link of a node away, blip that of the head; part keeps nodes of workers from each other; oneway loses
what goes one way; loss, delay, reorder and rate make a link bad. drain gives notice of a node's end to Ray; reclaim
lets a cloud's own service give it, and takes the machine at the deadline; empty has the cloud sell nothing. hang blocks
the training thread for ever, lock holds the interpreter's lock in it; compile and restore make a worker's next first
step and next restoring slow. slow-store makes writes slow, full-disk makes them fail. flip turns one bit of a
parameter; raise raises in the user's code."""

WAYS = ("to=head", "from=head", "to=all", "from=all")
"""What is lost of a node's packets where a link is up one way only."""
_NAMED = {
    "worker": "worker=RANK",
    "workers": "workers=RANK,RANK",
    "node": "node=NUMBER",
    "nodes": "nodes=NUMBER,NUMBER",
}
_SHOWN = {"for": "for=8s", "by": "by=200ms", "percent": "percent=20", "kbit": "kbit=1000", "way": "to=head|from=head"}


def form(name: str) -> str:
    """How faults of a verb are written, in words."""
    verb = VERBS[name]
    forms = []
    for target in verb.targets:
        named = "node" if name == "add" else _NAMED.get(target, target)
        words = [name, named, "[step=STEP]" if verb.early else "step=STEP"]
        words += [_SHOWN[option] for option in verb.needs]
        words += [f"[{_SHOWN[option]}]" for option in verb.allows]
        if verb.span is not None and verb.span not in verb.needs:
            words.append(f"[{_SHOWN.get(verb.span, f'deadline={DEADLINE_S:g}s')}]")
        forms.append(" ".join(word for word in words if word))
    return f"Write it like: {'; '.join(forms)}."
