"""How many bytes a strategy sends, reckoned before a run: of its exchanges alone, as their algorithms have it."""

from __future__ import annotations

from dataclasses import dataclass

from headway.core import graphs
from headway.core.lanes import carried
from headway.strategies.options import Strategy

WIDTH = {"none": 4.0, "fp16": 2.0, "bf16": 2.0, "int8": 1.0}
"""Bytes of an element on its way."""
PLACED = 6.0
"""Of one that is sent with its place (`compress.top_k`)."""


@dataclass(frozen=True)
class Size:
    """What is exchanged, and between whom.

    Args:
        workers: that train; each carries as many of the replicas.
        replicas: of the run.
        parameters: trainable elements of the model.
        state: elements of the optimiser's state; None where not known.
    """

    workers: int
    replicas: int
    parameters: int
    state: int | None = None

    def ring(self, size: float) -> float:
        """What a worker sends for a sum over all of them: each shard is sent once to be summed, and its sum once."""
        return 2 * self.others * size

    @property
    def others(self) -> float:
        """The share of anything that other workers have."""
        return (self.workers - 1) / self.workers

    @property
    def each(self) -> float:
        """Replicas of a worker."""
        return self.replicas / self.workers


def dense(size: Size) -> float:
    """Bytes that each worker sends for a step of all_reduce without compression."""
    return size.ring(4.0 * size.parameters)


def per_step(options: Strategy, size: Size) -> float | None:
    """Bytes that each worker sends for a step, on average over a round; None where that is not known beforehand: it
    hangs on the rows (sparse), on the shapes of tensors (power_sgd), or on a state that is not known.

    Small tensors that go as they are, scales, and copies for fail-over are left out.
    """
    if options.kind == "all_reduce":
        return _sum(options, size, size.parameters)
    if options.kind == "parameter_server":
        return _server(options, size)
    if options.kind == "gossip":
        return _gossip(options, size)
    averages_state = options.kind == "local_sgd" and options.average == "all"
    if averages_state and size.state is None:
        return None
    elements = size.parameters + (size.state or 0 if averages_state else 0)
    exchanged = _sum(options, size, elements)
    return None if exchanged is None else exchanged / options.round_steps


def copies_per_step(options: Strategy, size: Size) -> float | None:
    """Bytes that each worker sends for a step so that a lost replica's own state is with another; likewise."""
    averages = options.kind == "local_sgd" and options.average == "all"  # then nothing is a replica's alone
    if not options.is_local or options.is_asynchronous or averages or options.inner_state == "own":
        return 0.0
    if size.workers < 2:
        return 0.0
    if size.state is None:
        return None
    alone = size.state + (size.parameters if options.kind == "gossip" else 0)
    return 4.0 * alone * size.each / options.round_steps


def _sum(options: Strategy, size: Size, elements: float) -> float | None:
    """A sum, or a mean, over replicas."""
    kind = options.compression.kind
    if kind == "none":
        return size.ring(WIDTH[kind] * elements)
    if kind in WIDTH:  # what each replica says goes to whoever sums it, see `compress.sharded`
        return (size.each + 1) * size.others * WIDTH[kind] * elements
    if kind == "top_k":  # each replica's choice goes to all other workers
        return size.each * (size.workers - 1) * PLACED * options.compression.ratio * elements
    return None


def _server(options: Strategy, size: Size) -> float | None:
    """Gradients go to whoever carries their range, and weights come back."""
    if options.sparse:
        return None
    pushes = size.each if options.is_asynchronous else 1.0
    return pushes * size.ring(4.0 * size.parameters)


def _gossip(options: Strategy, size: Size) -> float:
    """Weights go to the neighbours, and are averaged over all now and then."""
    if size.workers == 1:
        return 0.0
    whole = 4.0 * size.parameters
    by_rank = tuple(tuple(replicas) for replicas in carried(size.replicas, size.workers))
    passed = len(graphs.needs(options.graph, size.replicas, by_rank)) / size.workers
    averages = 1 / options.average_every  # of the rounds, in which nothing passes to neighbours
    return ((1 - averages) * passed * whole + averages * size.ring(whole)) / options.round_steps
