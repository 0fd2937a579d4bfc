"""Replicas that have drifted apart are found by their digests, and healed from the majority.

The digests are of the state before the step and ride on its reduction. Nothing was applied when they are compared, so
the step is done again from the healed state.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from headway.core.digest import WORDS
from headway.elastic.worker import transfer
from headway.errors import RunFailed

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from headway.elastic.worker.session import Session


def words(model: nn.Module, optimizer: Optimizer) -> np.ndarray[tuple[int], np.dtype[np.uint16]]:
    """BLAKE2b of all parameters, buffers and optimiser state, in a fixed order; shape [WORDS]."""
    digest = hashlib.blake2b(digest_size=2 * WORDS)
    state = optimizer.state_dict()["state"]
    tensors: list[Any] = list(model.state_dict().values())
    tensors += [value for key in sorted(state) for _, value in sorted(state[key].items())]
    for tensor in tensors:
        if isinstance(tensor, torch.Tensor):
            plain = tensor.detach().to("cpu").contiguous()
            digest.update(plain.reshape(-1).view(torch.uint8).numpy().data)
    return np.frombuffer(digest.digest(), "<u2")


def heal(session: Session, step: int) -> bool:
    """Compare what the workers sent; whoever differs takes the majority's state. Returns whether all were equal.

    Raises:
        RunFailed: there is no majority.
        PeerLost: a worker went away meanwhile.
    """
    members = session.members
    digests = [row.tobytes() for row in session.tail.replicas(members.size)]
    if len(set(digests)) == 1:
        session.context.reporter.replicas(step, digests[0].hex())
        return True
    (right, count), *_ = Counter(digests).most_common()
    ill = [rank for rank, digest in enumerate(digests) if digest != right]
    if 2 * count <= members.size:
        raise RunFailed(
            f"the replicas of {members.size} workers differ before step {step}, and none has a majority",
            "memory was corrupted on one of them, and nobody can tell on which",
            "Look at the machines' memory, then resume from the newest checkpoint.",
        )
    source = digests.index(right)
    session.buffers.rewind()  # the state that was compared is that before the step
    assert members.group is not None
    if members.rank == source:
        transfer.send(members.group, session._whole())
    else:
        whole = transfer.receive(members.group, source, session.device)
        if members.rank in ill:
            session._take(whole)
    for rank in ill:
        members.diverged(rank, step)
    return False
