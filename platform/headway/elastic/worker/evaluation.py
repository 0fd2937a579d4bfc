"""Metrics over the whole validation set, the same for every number of workers, and whoever is lost meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from headway.core.watch import At
from headway.elastic.worker import batches, halting, hollow, records, update
from headway.elastic.worker import tail as tails
from headway.elastic.worker.draws import seed
from headway.errors import BadInput
from headway.metrics import merging
from headway.metrics.merging import Measures
from headway.strategies import PeerLost

if TYPE_CHECKING:
    from headway.elastic.worker.engine import Engine

Metrics = Callable[[nn.Module, Any], dict[str, Any]]


@dataclass
class Lane:
    """What is known of a lane. step: of the walk, that it is to do next; sums: by metric, of its values and of the rows
    that had it; measured: its copies of metrics that are no means; rows: that it had."""

    step: int = 0
    sums: dict[str, tuple[float, float]] = field(default_factory=dict)
    measured: dict[str, Any] = field(default_factory=dict)
    rows: int = 0

    def add(self, name: str, value: float, rows: int) -> None:
        total, weight = self.sums.get(name, (0.0, 0.0))
        self.sums[name] = (total + rows * value, weight + rows)


class Evaluation:
    """One walk over the validation set. Each lane's sums, and the rows that they are of, are kept in float64 and added
    in the lanes' order. A metric that only some batches have is the mean over their rows. Lanes that are done stay done
    when a member is lost.

    Args:
        engine: of this worker.
        metrics: called as metrics(model, batch), gives means over the batch's rows by name.
        weights: called as weights(model), gives a context in which the model has the weights to be measured.
        measures: metrics that are no means; those of their names in what metrics() gives are arguments for them.
    """

    def __init__(
        self,
        engine: Engine,
        metrics: Metrics,
        weights: Callable[[nn.Module], AbstractContextManager[None]] = lambda model: nullcontext(),
        measures: Measures | None = None,
    ) -> None:
        assert engine.context.validation is not None
        self._engine, self._metrics, self._weights = engine, metrics, weights
        self._measures = measures or Measures({})
        self._reader = engine.context.validation
        self._order = self._reader.order
        self._lanes: dict[int, Lane] = {}
        self._tables: dict[str, Any] = {}

    def run(self) -> bool:
        """Evaluate, and leave the means in the replica's outcome; empty where no row is left. Returns False where all
        leave instead, for somebody's loop is over.

        Raises:
            Dismissed: the run goes on without this worker.
        """
        engine, replica = self._engine, self._engine.replica
        exchanges = replica.exchanges
        engine.settle()
        engine.busy = True
        try:
            while replica.exchanges == exchanges:
                try:
                    with engine.account("compute", At.EVALUATION):
                        if halting.before_evaluation(engine):
                            break
                        found = self.means()
                    replica.outcome.metrics, replica.outcome.tables = found, self._tables
                    replica.judge(found)
                    replica.exchanges += 1
                    for name in [name for name, value in found.items() if value != value]:
                        engine.context.journal.note(
                            f"the metric {name} is NaN at step {replica.step}: some batch gave it"
                        )
                except PeerLost as error:  # then who is ahead hands its metrics on
                    engine.repair(error)
        finally:
            engine.busy = False
        engine.left |= replica.outcome.left
        if engine.left:
            return False
        replica.outcome.evaluated_step = replica.step
        seed("evaluated", engine.job.seed, replica.step)
        return True

    def means(self) -> dict[str, float]:
        """Raises PeerLost."""
        pact = self._engine.pact
        done = self._done(pact.gather(self._told()))
        with self._weights(self._engine.replica.model):  # put back before anybody is handed a state
            self._do([lane for lane in pact.lanes if lane not in done])
        found = pact.gather(self._told())
        done = self._done(found)
        names = sorted({name for names, _ in found for name in names})
        return {**self._means(names, done), **self._measured(done)}

    def _means(self, names: list[str], done: dict[int, int]) -> dict[str, float]:
        """done: who speaks for each lane. Raises PeerLost."""
        pact = self._engine.pact
        if not names:
            return {}
        whole = torch.zeros(self._engine.job.lanes, len(names), 2, dtype=torch.float64)
        for lane, rank in done.items():
            if rank == pact.rank:
                sums = self._lanes[lane].sums
                whole[lane] = torch.tensor([sums.get(name, (0.0, 0.0)) for name in names], dtype=torch.float64)
        total = torch.zeros(len(names), 2, dtype=torch.float64)
        for lane_sum in pact.total(whole):
            total += lane_sum
        return {name: values / rows for name, (values, rows) in zip(names, total.tolist(), strict=True) if rows}

    def _measured(self, done: dict[int, int]) -> dict[str, float]:
        """Those that are no means: the lanes' states are brought to the first worker, which merges them in the lanes'
        order and tells all what comes of it. done: who speaks for each lane. Raises PeerLost."""
        if not self._measures:
            return {}
        pact, measures = self._engine.pact, self._measures
        mine = {lane: self._lanes[lane] for lane, rank in done.items() if rank == pact.rank}
        states = {lane: measures.states(found.measured) for lane, found in mine.items()}
        hollow.pack(states)  # what cannot travel is refused on one worker as on several
        told = pact.gather([sum(found.rows for found in mine.values()), merging.sizes(list(states.values()))])
        totals: dict[str, int] = {}
        for _, sizes in told:
            for name, size in sizes.items():
                totals[name] = totals.get(name, 0) + size
        measures.check_size(totals)
        if not sum(rows for rows, _ in told):
            self._tables = {}
            return {}
        for source in sorted(set(done.values()) - {0}):
            if pact.rank == source:
                pact.give(states, [0])
            elif pact.rank == 0:
                states |= pact.take(source, [0], None)
        found = None
        if pact.rank == 0:
            results = measures.results([states[lane] for lane in sorted(states)])
            found = [results.values, results.tables]
        values, self._tables = pact.gather(found)[0]
        return dict(values)

    def _told(self) -> list[Any]:
        """For the others: names of the metrics, and the lanes that are done here."""
        steps = self._order.steps_per_epoch
        names = sorted({name for lane in self._lanes.values() for name in lane.sums})
        return [names, sorted(lane for lane, found in self._lanes.items() if found.step == steps)]

    @staticmethod
    def _done(found: list[Any]) -> dict[int, int]:
        """Who speaks for each lane that is done: the first that has it."""
        return {lane: rank for rank, (_, lanes) in reversed(list(enumerate(found))) for lane in lanes}

    @torch.no_grad()
    def _do(self, lanes: list[int]) -> None:
        """Do what is left of these lanes. Raises PeerLost as soon as a member is known to be gone."""
        engine, replica = self._engine, self._engine.replica
        wholes = (replica.model, *replica.modules.others.values())
        training = {module: module.training for whole in wholes for module in whole.modules()}
        for whole in wholes:
            whole.eval()
        replica.buffers.begin()
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
            replica.buffers.rewind()  # what some batches change must not depend on who has them
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
        if engine.held is not None and engine.held.tables is not None:
            engine.held.tables.require()
        lane.rows += rows
        values = {}
        for name, value in _items(found):
            if name in self._measures:
                self._measures.update(lane.measured, name, value)
            elif merging.is_measured(value):
                raise self._measures.unknown(name)
            else:
                values[name] = records.number("metrics", name, value)
        if self._measures and self._measures.due():
            mine = [self._measures.states(found.measured) for found in self._lanes.values()]
            self._measures.check_size(merging.sizes(mine))
        for name, value in zip(values, tails.floats(values.values()), strict=True):
            lane.add(name, value, rows)
        engine.members.moved()


def _items(found: Any) -> Any:
    if not isinstance(found, dict):
        kind = type(found).__name__
        raise BadInput(f"metrics() returned a {kind}", "metrics have names", "Return a dict of numbers by name.")
    return found.items()
