"""Metrics over the whole validation set, the same for every number of workers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import nn

from headway.elastic import batches, update
from headway.strategies import exchange

if TYPE_CHECKING:
    from headway.elastic.context import Context
    from headway.elastic.session import Session


@torch.no_grad()
def evaluate(session: Session, metrics: Callable[[nn.Module, Any], dict[str, Any]]) -> dict[str, float]:
    """See `Session.evaluate`. Sums are kept per lane in float64 and added in the lanes' order."""
    context = session.context
    assert context.validation is not None
    order = context.validation.order
    training = {module: module.training for module in session.model.modules()}
    session.model.eval()
    names: list[str] = []
    sums: torch.Tensor | None = None
    for lane in session.lanes:
        for step in range(order.steps_per_epoch):
            rows = order.sizes(step)[lane]
            if not rows:
                continue
            batch = batches.validation(context, step, lane, session.device)
            batches.seed(session.job.seed, -1, step, lane)
            with update.autocast(session.job.precision, session.device):
                found = metrics(session.model, batch)
            if sums is None:
                names = sorted(found)
                sums = torch.zeros(session.job.lanes, len(names), dtype=torch.float64)
            sums[lane] += rows * torch.tensor([float(found[name]) for name in names], dtype=torch.float64)
    for module, mode in training.items():  # not train(): what the user froze stays frozen
        module.training = mode
    if context.size > 1:
        sums, names = _gather(sums, names, session.job.lanes, context)
    if sums is None:
        return {}
    total = torch.zeros(len(names), dtype=torch.float64)
    for lane_sum in sums:
        total += lane_sum
    return dict(zip(names, (total / order.rows).tolist(), strict=True))


def _gather(
    sums: torch.Tensor | None, names: list[str], lanes: int, context: Context
) -> tuple[torch.Tensor | None, list[str]]:
    known: list[Any] = [None] * context.size
    with exchange():
        dist.all_gather_object(known, names, group=context.handle)
    names = max(known, key=len)
    if not names:
        return None, []
    whole = torch.zeros(lanes, len(names), dtype=torch.float64) if sums is None else sums
    with exchange():
        dist.all_reduce(whole, group=context.handle)
    return whole, names
