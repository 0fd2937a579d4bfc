"""Metrics over the whole validation set, the same for every number of workers, and whoever is lost meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from headway.core.watch import At
from headway.elastic.worker import batches, update
from headway.elastic.worker.replica import seed
from headway.errors import BadInput
from headway.strategies import PeerLost

if TYPE_CHECKING:
    from headway.elastic.worker.engine import Engine

Metrics = Callable[[nn.Module, Any], dict[str, Any]]


@dataclass
class Lane:
    """What is known of a lane. step: of the walk, that it is to do next; sums: of the metrics, and of the rows."""

    step: int = 0
    sums: torch.Tensor | None = None


class Evaluation:
    """One walk over the validation set. Each lane's sums, and the rows that they are of, are kept in float64 and added
    in the lanes' order. Lanes that are done stay done when a member is lost.

    Args:
        engine: of this worker.
        metrics: called as metrics(model, batch), gives means over the batch's rows by name.
    """

    def __init__(self, engine: Engine, metrics: Metrics) -> None:
        assert engine.context.validation is not None
        self._engine, self._metrics = engine, metrics
        self._reader = engine.context.validation
        self._order = self._reader.order
        self._names: list[str] = []
        self._lanes: dict[int, Lane] = {}

    def run(self) -> None:
        """Evaluate, and leave the means in the replica's outcome; empty where no row is left.

        Raises:
            Dismissed: the run goes on without this worker.
        """
        engine, replica = self._engine, self._engine.replica
        exchanges = replica.exchanges
        engine.busy = True
        try:
            while replica.exchanges == exchanges:
                try:
                    with engine.account("compute", At.EVALUATION):
                        found = self.means()
                    replica.outcome.metrics = found
                    replica.exchanges += 1
                except PeerLost as error:  # then who is ahead hands its metrics on
                    engine.repair(error)
        finally:
            engine.busy = False
        replica.outcome.evaluated_step = replica.step
        seed("evaluated", engine.job.seed, replica.step)

    def means(self) -> dict[str, float]:
        """Raises PeerLost."""
        pact = self._engine.pact
        done = self._done(pact.gather(self._told()))
        self._do([lane for lane in pact.lanes if lane not in done])
        found = pact.gather(self._told())
        names = max((names for names, _ in found), key=len)
        if not names:
            return {}
        whole = torch.zeros(self._engine.job.lanes, len(names) + 1, dtype=torch.float64)
        for lane, rank in self._done(found).items():
            sums = self._lanes[lane].sums if rank == pact.rank else None
            if sums is not None:
                whole[lane] = sums
        total = torch.zeros(len(names) + 1, dtype=torch.float64)
        for lane_sum in pact.total(whole):
            total += lane_sum
        return dict(zip(names, (total[:-1] / total[-1]).tolist(), strict=True))

    def _told(self) -> list[Any]:
        """For the others: names of the metrics, and the lanes that are done here."""
        steps = self._order.steps_per_epoch
        return [self._names, sorted(lane for lane, found in self._lanes.items() if found.step == steps)]

    @staticmethod
    def _done(found: list[Any]) -> dict[int, int]:
        """Who speaks for each lane that is done: the first that has it."""
        return {lane: rank for rank, (_, lanes) in reversed(list(enumerate(found))) for lane in lanes}

    @torch.no_grad()
    def _do(self, lanes: list[int]) -> None:
        """Do what is left of these lanes. Raises PeerLost as soon as a member is known to be gone."""
        engine, model = self._engine, self._engine.replica.model
        training = {module: module.training for module in model.modules()}
        model.eval()
        mine = {lane: self._lanes.setdefault(lane, Lane()) for lane in lanes}
        first = min((lane.step for lane in mine.values()), default=0)
        self._reader.carry(lanes, first)
        try:
            for step in range(first, self._order.steps_per_epoch):
                sizes = self._order.sizes(step)
                for number, lane in mine.items():
                    if lane.step > step:
                        continue
                    engine.pact.check()
                    if sizes[number]:
                        self._batch(step, number, lane)
                    lane.step = step + 1
        finally:
            self._reader.carry((), 0)
            for module, mode in training.items():  # not train(): what the user froze stays frozen
                module.training = mode

    def _batch(self, step: int, number: int, lane: Lane) -> None:
        engine = self._engine
        batch = self._reader.batch(0, step, number)
        rows = len(batch.ids)
        if not rows:  # all set aside
            return
        seed("lane", engine.job.seed, -1, step, number)
        with update.autocast(engine.job.precision, engine.replica.device):
            found = self._metrics(engine.replica.model, batches.tensors_of(batch, engine.replica.device))
        names = sorted(found)
        if self._names and names != self._names:
            raise BadInput(
                f"metrics() gave {', '.join(names)} for one batch and {', '.join(self._names)} for another",
                "each is a mean over all rows",
                "Return the same names for every batch.",
            )
        self._names = names
        sums = rows * torch.tensor([*(float(found[name]) for name in names), 1.0], dtype=torch.float64)
        lane.sums = sums if lane.sums is None else lane.sums + sums
        engine.members.moved()
