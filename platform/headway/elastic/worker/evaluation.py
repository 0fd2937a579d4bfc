"""Metrics over the whole validation set, the same for every number of workers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from headway.elastic.worker import batches, update
from headway.strategies import PeerLost, exchange

if TYPE_CHECKING:
    from headway.elastic.worker.session import Session
    from headway.strategies.group import Group


@torch.no_grad()
def evaluate(
    session: Session, metrics: Callable[[nn.Module, Any], dict[str, Any]], everything: bool = False
) -> dict[str, float]:
    """See `Session.evaluate`. Sums, and the rows that they are of, are kept per lane in float64 and added in the
    lanes' order.

    Args:
        everything: do all lanes here, and exchange nothing.

    Raises:
        PeerLost: a worker went away.
    """
    context, members = session.context, session.members
    assert context.validation is not None
    reader, order = context.validation, context.validation.order
    training = {module: module.training for module in session.model.modules()}
    session.model.eval()
    names: list[str] = []
    sums: torch.Tensor | None = None
    lanes = range(session.job.lanes) if everything else members.lanes
    reader.carry(lanes, 0)
    try:
        for step in range(order.steps_per_epoch):
            sizes = order.sizes(step)
            for lane in lanes:
                if not sizes[lane]:
                    continue
                if members.broken:
                    raise PeerLost("a member is gone")
                batch = reader.batch(0, step, lane)
                rows = len(batch.ids)
                if not rows:  # all set aside
                    continue
                batches.seed(session.job.seed, -1, step, lane)
                with update.autocast(session.job.precision, session.device):
                    found = metrics(session.model, batches.tensors_of(batch, session.device))
                if sums is None:
                    names = sorted(found)
                    sums = torch.zeros(session.job.lanes, len(names) + 1, dtype=torch.float64)
                means = [float(found[name]) for name in names]
                sums[lane] += rows * torch.tensor([*means, 1.0], dtype=torch.float64)
                members.moved()
    finally:
        reader.carry((), 0)
        for module, mode in training.items():  # not train(): what the user froze stays frozen
            module.training = mode
    if members.group is not None and members.size > 1 and not everything:
        with session._waiting():
            sums, names = _gather(sums, names, session.job.lanes, members.group)
    if sums is None:
        return {}
    total = torch.zeros(len(names) + 1, dtype=torch.float64)
    for lane_sum in sums:
        total += lane_sum
    return dict(zip(names, (total[:-1] / total[-1]).tolist(), strict=True))


def _gather(
    sums: torch.Tensor | None, names: list[str], lanes: int, group: Group
) -> tuple[torch.Tensor | None, list[str]]:
    names = max(group.all_gather_object(names), key=len)
    if not names:
        return None, []
    whole = torch.zeros(lanes, len(names) + 1, dtype=torch.float64) if sums is None else sums
    with exchange():
        group.all_reduce(whole).wait()
    return whole, names
