"""Ways of turning the lanes' gradients into one update, by name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch
    from torch import nn


class Strategy(Protocol):
    """What the session asks of a way of synchronising. One instance serves one generation of workers."""

    def begin(self) -> None:
        """Before the first lane of a step: gradients are zero from here on."""

    def before_backward(self, last: bool) -> None:
        """Before a lane's backward pass; `last` says that no lane of this worker follows in the step."""

    def after_backward(self) -> None:
        """After a lane's backward pass: until the next one, gradients are not the user's to change."""

    def finish(self, tail: torch.Tensor) -> torch.Tensor:
        """After the last lane: parameters' `grad` hold the sum over all lanes of all workers.

        Args:
            tail: float32, shape [n], the same n on every worker; rides on the same message.

        Returns:
            The sum of the tails over workers, shape [n]. Entries that one worker fills and the others leave at zero
            arrive exactly.

        Raises:
            PeerLost: a worker went away; nothing has been applied.
            BadInput: the user's loop changed gradients between the lanes.
        """

    def close(self) -> None:
        """Let go of the model: hooks are removed."""


class PeerLost(RuntimeError):
    """The exchange with the other workers broke off."""


@contextmanager
def exchange() -> Iterator[None]:
    """Around calls of torch.distributed, whose errors of all kinds are RuntimeErrors.

    Raises:
        PeerLost: in their place.
    """
    try:
        yield
    except RuntimeError as error:
        raise PeerLost(str(error)) from error


def create(name: str, model: nn.Module, workers: int, tail: int, group: Any = None) -> Strategy:
    """The strategy called `name` for a model carried by so many workers, with a tail of so many elements.

    Args:
        group: torch's process group of the workers; None for the default one.

    Raises:
        BadInput: no such strategy.
    """
    from headway.errors import BadInput, nearest
    from headway.strategies.all_reduce import AllReduce

    known = {"all_reduce": AllReduce}
    if name not in known:
        raise BadInput(f"strategy={name!r}", "there is no such strategy", nearest(name, list(known)))
    return known[name](model, workers, tail, group)
