"""What says that the exchange with the other workers broke off."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class PeerLost(RuntimeError):
    """The exchange with the other workers broke off."""


@contextmanager
def exchange() -> Iterator[None]:
    """Around calls of torch's process groups, which say that a peer is lost by a bare RuntimeError or DistError.

    Other errors keep their names: what a machine lacks (memory, a sound device) is not the peers' doing.

    Raises:
        PeerLost: in their place.
    """
    import torch

    try:
        yield
    except RuntimeError as error:
        lost = type(error) is RuntimeError or isinstance(error, torch.distributed.DistError)
        if not lost or any(words in str(error) for words in _OUT_OF_MEMORY):
            raise
        raise PeerLost(str(error)) from error


_OUT_OF_MEMORY = ("can't allocate memory", "not enough memory")
"""In what torch's allocator for the CPU says, by a bare RuntimeError."""
