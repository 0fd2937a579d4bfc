"""Ways of turning the lanes' gradients into one update, by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, Protocol

from headway.strategies.lost import PeerLost as PeerLost

if TYPE_CHECKING:
    import torch
    from torch import nn

    from headway.strategies.group import Group
    from headway.strategies.kept import Kept
    from headway.strategies.options import Strategy as Options

Reproducible = Literal["order", "bitwise"]


class Strategy(Protocol):
    """What the session asks of a way of synchronising. One instance serves one generation of workers."""

    def begin(self, lanes: Sequence[int]) -> None:
        """Before the first lane of a step, also of one that is repeated: gradients are zero from here on.

        Args:
            lanes: those that this worker computes in this step, in this order (ascending); maybe none.
        """

    def before_backward(self, lane: int, last: bool, first: bool = True, whole: bool = True) -> None:
        """Before a backward pass of a lane, whose batch may come in several parts.

        Args:
            lane: its number.
            last: no other pass of this worker follows in the step.
            first: it is of the first part of the lane's batch.
            whole: it is of the last part.
        """

    def after_backward(self) -> None:
        """After a lane's backward pass: until the next one, gradients are not the user's to change."""

    def lane_done(self, change: torch.Tensor) -> None:
        """After a lane: its part of a sum over all lanes; float32, shape [changes], on the CPU. It is copied."""

    def finish(self, tail: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """After the last lane: parameters' `grad` hold the sum over all lanes of all workers.

        Args:
            tail: float32, shape [tail], on the CPU; rides on the same exchange.

        Returns:
            The sum of the tails over workers, shape [tail], and that of the lanes' changes, shape [changes]. Entries
            that one worker fills and the others leave at zero arrive exactly.

        Raises:
            PeerLost: a worker went away; nothing has been applied.
            BadInput: the user's loop changed gradients between the lanes.
        """

    def finite(self) -> bool:
        """After `finish`: whether all of those sums are known to be numbers. It costs less than their norm; False may
        also say that they are too large to be added up. Waits for a device."""

    def commit(self) -> None:
        """The step's update is applied, here or by those ahead: only now may what is kept from step to step change. A
        step that `finish` has summed may still be done again instead."""

    def close(self) -> None:
        """Let go of the model: hooks are removed. What is still under way is broken off, and the group with it."""


def create(
    options: Options | str,
    parameters: Sequence[nn.Parameter],
    *,
    reproducible: Reproducible = "order",
    lanes: int,
    tail: int,
    changes: int,
    group: Group | None = None,
    replicas: Sequence[Sequence[int]] = (),
    kept: Kept | None = None,
    update: str = "",
) -> Strategy:
    """The strategy for a set of parameters. Make another one when the set changes.

    Args:
        options: as in the job, or its kind.
        parameters: all that are trained, the model's and the optimiser's own, each once, in the same order on every
            worker; on their final device. Those without `requires_grad` are left out.
        reproducible: order sums gradients in whatever order is fastest; bitwise in one that does not depend on who
            carries which lanes.
        lanes: of the run.
        tail: elements of the tail.
        changes: elements of what `lane_done` is given.
        group: of the workers; None for a worker alone.
        replicas: numbers of those that each worker carries, by rank, where the strategy has some.
        kept: of the run, what the strategy keeps from step to step.
        update: whose parameters they are, where a step has several.

    Raises:
        BadInput: no such strategy; parameters on several devices.
    """
    from headway.errors import BadInput
    from headway.strategies.all_reduce import AllReduce
    from headway.strategies.compressed import Compressed
    from headway.strategies.kept import Kept
    from headway.strategies.tree import Tree

    if isinstance(options, str):
        options = named(options)
    each_once = list(dict.fromkeys(parameters))
    devices = sorted({str(parameter.device) for parameter in each_once})
    if len(devices) > 1:
        raise BadInput(
            f"the parameters live on several devices: {', '.join(devices)}",
            "a worker has one device, where all its gradients are summed",
            "Move the model, and parameters that only the optimiser holds, to session.device.",
        )
    if options.compresses and options.kind == "all_reduce":
        return Compressed(
            each_once,
            compression=options.compression,
            lanes=lanes,
            tail=tail,
            changes=changes,
            group=group,
            replicas=replicas or [(rank,) for rank in range(group.size if group is not None else 1)],
            kept=kept if kept is not None else Kept(),
            update=update,
        )
    ways: dict[Reproducible, type[AllReduce] | type[Tree]] = {"order": AllReduce, "bitwise": Tree}
    return ways[reproducible](each_once, lanes=lanes, tail=tail, changes=changes, group=group)


def named(kind: str) -> Options:
    """The options of a kind, as they are when a job names it alone.

    Raises:
        BadInput: there is no such kind.
    """
    from headway.errors import BadInput, nearest
    from headway.strategies.options import KINDS
    from headway.strategies.options import Strategy as Options

    if kind not in KINDS:
        raise BadInput(f"strategy={kind!r}", "there is no such strategy", nearest(kind, list(KINDS)))
    return Options(kind=kind)
