"""Ways of turning the lanes' gradients into one update, by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, Protocol

from headway.strategies.lost import PeerLost as PeerLost

if TYPE_CHECKING:
    import torch
    from torch import nn

    from headway.strategies.group import Group

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

    def close(self) -> None:
        """Let go of the model: hooks are removed. What is still under way is broken off, and the group with it."""


def create(
    name: str,
    parameters: Sequence[nn.Parameter],
    *,
    reproducible: Reproducible = "order",
    lanes: int,
    tail: int,
    changes: int,
    group: Group | None = None,
) -> Strategy:
    """The strategy called `name` for a set of parameters. Make another one when the set changes.

    Args:
        name: as in the job.
        parameters: all that are trained, the model's and the optimiser's own, each once, in the same order on every
            worker; on their final device. Those without `requires_grad` are left out.
        reproducible: order sums gradients in whatever order is fastest; bitwise in one that does not depend on who
            carries which lanes.
        lanes: of the run.
        tail: elements of the tail.
        changes: elements of what `lane_done` is given.
        group: of the workers; None for a worker alone.

    Raises:
        BadInput: no such strategy; parameters on several devices.
    """
    from headway.errors import BadInput, nearest
    from headway.strategies.all_reduce import AllReduce
    from headway.strategies.tree import Tree

    known: dict[str, dict[Reproducible, type[AllReduce | Tree]]] = {"all_reduce": {"order": AllReduce, "bitwise": Tree}}
    if name not in known:
        raise BadInput(f"strategy={name!r}", "there is no such strategy", nearest(name, list(known)))
    each_once = list(dict.fromkeys(parameters))
    devices = sorted({str(parameter.device) for parameter in each_once})
    if len(devices) > 1:
        raise BadInput(
            f"the parameters live on several devices: {', '.join(devices)}",
            "a worker has one device, where all its gradients are summed",
            "Move the model, and parameters that only the optimiser holds, to session.device.",
        )
    return known[name][reproducible](each_once, lanes=lanes, tail=tail, changes=changes, group=group)
