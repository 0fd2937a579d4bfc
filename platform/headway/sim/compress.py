"""A recorded trace in small: fewer machines and less time, for what has to be lived through on real ones. Pure."""

from __future__ import annotations

from headway.errors import BadInput
from headway.sim.trace import Change, Trace


def compress(trace: Trace, seconds: float, nodes: int) -> Trace:
    """A trace of so many seconds with at most so many nodes at a time.

    Time is scaled evenly. Of the nodes a sample is kept, each with its own beginning and end, so that a node of the
    small trace has the fate of a real one: whenever one comes, it is kept if the sample is then below its share of the
    fleet. The number alive follows the recorded one as far as whole nodes can.

    Args:
        trace: as it was recorded.
        seconds: how long the small one lasts.
        nodes: most of it at one time, as the trace's peak is of the whole.

    Raises:
        BadInput: the trace has no time to be scaled, or fewer nodes than asked for.
    """
    if seconds <= 0 or trace.until <= 0:
        raise BadInput(f"{trace.name} cannot be compressed to {seconds:g} s", "", "A trace and its copy take time.")
    if not 1 <= nodes <= trace.peak:
        fact = f"{trace.name} cannot be compressed to {nodes} nodes"
        raise BadInput(fact, f"it has at most {trace.peak} at a time", "Ask for 1 or more, and no more than that.")
    scale, peak = seconds / trace.until, trace.peak
    alive: set[str] = set()
    kept: set[str] = set()
    changes = []
    for change in trace.changes:
        if change.up:
            alive.add(change.node)
            share = (2 * len(alive) * nodes + peak) // (2 * peak)  # rounded half up
            if len(kept) >= share:
                continue
            kept.add(change.node)
        else:
            alive.discard(change.node)
            if change.node not in kept:
                continue
            kept.discard(change.node)
        changes.append(Change(change.at * scale, change.node, change.up))
    return Trace(f"{trace.name}, {nodes} of {peak} nodes in {seconds:g} s", tuple(changes), seconds)


def mean_nodes(trace: Trace) -> float:
    """Nodes that are there, on average over the trace's time."""
    area, number, since = 0.0, 0, 0.0
    for change in trace.changes:
        area += number * (change.at - since)
        number, since = number + (1 if change.up else -1), change.at
    return (area + number * (trace.until - since)) / trace.until
