"""One pass over a step's lanes, as the engine does it: the walk, the exchange, the update."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from headway.elastic.worker import batches, closures, halting, hollow, said, update
from headway.elastic.worker import tail as tails
from headway.elastic.worker.engine import now
from headway.elastic.worker.modules import NOWHERE
from headway.elastic.worker.replica import seed
from headway.elastic.worker.updates import ONLY, wants_closure
from headway.errors import BadInput, NonFiniteLoss
from headway.metrics import merging
from headway.strategies import Strategy

if TYPE_CHECKING:
    from headway.data.read.reader import Batch
    from headway.elastic.worker.engine import Engine

MOST_AGREED = 10
"""Rounds in which the buffers of one step may appear."""


@dataclass(frozen=True)
class Recorded:
    """What the lanes of a pass recorded.

    Args:
        records: means by name.
        measured: states of metrics by name, of each lane that has some, in their order.
    """

    records: dict[str, float] = field(default_factory=dict)
    measured: list[dict[str, Any]] = field(default_factory=list)


class Pass:
    """The part of a `Step` that its user does not see; see there. ended: called with the step, when it is committed."""

    def __init__(self, engine: Engine, ended: Callable[[Any], None] = lambda step: None) -> None:
        self._engine, self._ended = engine, ended
        self.loss = float("nan")
        self.every_update = engine.replica.updates.names
        self.begun = self.committed = False
        self.counts = False
        """Whether it was committed by those that train, and not passed over."""
        self._updates: tuple[str, ...] = ()
        self._pass = 0
        """The number of the pass under way, in the step."""
        self._looped = self._anew = self._rehearsing = False
        self._part = self._part_rows = 0
        """The part of the lane's batch whose body runs, and its rows."""
        self._parts: dict[str, dict[int, tuple[torch.Tensor | float, int]]] = {}
        """What was recorded in parts of a lane's batch: values and rows, by name and part."""
        self._whole = True
        """Whether it is the lane's last."""
        self._lane: int | None = None
        self._open: int | None = None
        """The lane whose body runs."""
        self._agreed = 0
        self._found: dict[int, Batch] = {}
        self._strategy: Strategy | None = None
        self._aim()

    def _aim(self) -> None:
        """Be the next step, with the lanes that this worker carries now."""
        engine = self._engine
        cursor = engine.order.cursor(engine.replica.step)
        self.number, self.epoch, self._at = engine.replica.step, cursor.epoch, cursor.step
        self.last_of_epoch = cursor.step + 1 == engine.order.steps_per_epoch
        self.sizes = engine.order.sizes(cursor.step)
        self.rows = sum(self.sizes)
        self._fullest = max(range(len(self.sizes)), key=self.sizes.__getitem__)
        self._mine = [lane for lane in engine.pact.lanes if self.sizes[lane]]
        self._found = {}

    @property
    def update(self) -> str:
        """The name of the update whose pass is under way; empty where there is one without a name."""
        return self._updates[self._pass] if self._pass < len(self._updates) else ONLY

    def _share(self, lane: int) -> float:
        """Of the step's rows that the lane has; of those that were asked for, where some may be set aside."""
        rows = len(self._found[lane].ids) if lane in self._found else self.sizes[lane]
        return rows / self.rows

    def _attempt(self) -> Generator[dict[str, torch.Tensor], None, bool]:
        """All lanes once, and the update. Returns whether it was applied (or all have left): not if a replica had to be
        healed.

        Raises:
            PeerLost: a worker is gone; nothing has been applied.
        """
        engine = self._engine
        if self._halted():
            return True
        if wants_closure(engine.replica.updates.now.optimizer) and not engine.halting:
            raise closures.wanted(engine.replica.updates.now.optimizer)
        changes = yield from self._summed()
        if changes is None:
            return self.committed
        recorded = self._recorded()
        last = self._pass + 1 == len(self._updates)
        self._take_losses(changes)
        engine.replica.apply(engine.job.clip_norm, last)
        self._finish(recorded, last)
        return True

    def _halted(self) -> bool:
        """Before a step of several updates: whether somebody's loop is over.

        Raises:
            PeerLost: a worker is gone.
        """
        engine = self._engine
        engine.settle()
        engine.replica.buffers.begin()  # should it break off here, nothing is put back that was accepted
        if engine.replica.updates.several and not self._pass:
            self.committed = halting.told(engine, halting.STEP)
        return self.committed

    def _recorded(self) -> Recorded:
        """What the lanes recorded and measured, of the newest exchange. Raises PeerLost."""
        if not self._engine.tail.more():
            return Recorded(self._engine.tail.records())
        with self._engine.account("communication"):
            return self._exchange_more()

    def _finish(self, recorded: Recorded, last: bool) -> None:
        """The update is applied."""
        self._record(recorded.records)
        measured, outcome = self._engine.replica.measured, self._engine.replica.outcome
        outcome.record_tables = {}
        measured.add(recorded.measured)
        if last and self._recorded_now:
            found = measured.recorded()
            outcome.records, outcome.record_tables = {**outcome.records, **found.values}, found.tables
        if last:
            self._engine.commit()
        else:
            self._engine.advance()
        self._tell()

    def _summed(self, first: bool = True) -> Generator[dict[str, torch.Tensor], None, torch.Tensor | None]:
        """All lanes once, and the exchange. Returns what they changed in buffers; None where nothing may be applied: it
        is to be done again, or all have left.

        Args:
            first: evaluation of the pass.

        Raises:
            PeerLost: a worker is gone.
        """
        engine = self._engine
        pact, ledger, replica, tail = engine.pact, engine.context.ledger, engine.replica, engine.tail
        ledger.begin_step(now())
        if engine.halting:
            self._mine = []
        self._leave_out_empty_lanes()
        engine.fit()
        self._strategy = strategy = pact.strategy
        strategy.begin(self._mine)
        tail.clear()
        replica.buffers.begin()
        compared = engine.part_due(self.number) if first and not self._pass else None
        if compared is not None:
            tail.replica(pact.rank, engine.lineage, replica.words(*compared))
        for lane in self._mine:
            pact.check()
            begun = now()
            yield from self._do(lane)
            replica.modules.used()
            strategy.lane_done(replica.buffers.leave(self._share(lane), counters=lane == self._fullest))
            engine.members.moved(now() - begun)
        engine.check_fit()
        stop = engine.context.journal.stop_requested or bool(engine.members.leaving) or engine.stop_asked
        tail.flags(stop, engine.members.news, bool(replica.modules.found()), engine.halting, engine.stop_asked)
        tail.said(pact.rank, engine.said.words)
        engine.context.trouble("exchange", replica.model, self.number)
        with engine.account("communication"):
            summed, changes = pact.sum(tail.values)
        tail.take(summed)
        if tail.halting() or tail.evaluating():
            engine.halt()
            self.committed = True
            return None
        if compared is not None and not engine.heal(tail.replicas(pact.size), *compared):
            ledger.abandon(now())
            return None  # nothing was applied: once more, from the healed state
        if tail.late():
            self._agreed += 1
            if self._agreed > MOST_AGREED:
                raise BadInput(
                    f"buffers were made anew {MOST_AGREED} times in step {self.number}",
                    "workers must agree on a buffer before the step that made it is done",
                    "Make buffers once, under one name, or with persistent=False.",
                )
            with engine.account("communication"):
                engine.agree_on_buffers()
            ledger.abandon(now())
            return None  # once more, by lane
        if not tail.said_alike(pact.size) and not self._compare():
            ledger.abandon(now())
            return None
        return changes

    def _record(self, found: dict[str, float]) -> None:
        """What this pass's lanes recorded, beside that of the step's passes before it."""
        outcome = self._engine.replica.outcome
        outcome.names += sorted(found.keys() - set(outcome.names))
        if self.update:
            found = {f"loss/{self.update}": sum(outcome.losses), **found}
        outcome.records = {**outcome.records, **found} if self._pass else found

    def _compare(self) -> bool:
        """Workers recorded unlike things. Returns False where a replica was ill, and healed.

        Raises:
            BadInput: the user's code gave them.
            PeerLost: a worker went away meanwhile.
        """
        engine = self._engine
        engine.replica.buffers.rewind()
        found = engine.pact.gather([engine.lineage, engine.replica.words().tobytes().hex(), engine.said.told])
        if not engine.heal([(lineage, bytes.fromhex(words)) for lineage, words, _ in found]):
            return False
        unequal = said.difference([told for _, _, told in found])
        if unequal is not None:
            raise unequal
        return True

    @property
    def _recorded_now(self) -> bool:
        """Whether what was measured in training is recorded after this step: as evaluations are made."""
        engine, done = self._engine, self.number + 1
        every = engine.job.evaluate_every_steps
        return (done % every == 0 if every else self.last_of_epoch) or done == engine.total_steps

    def _exchange_more(self) -> Recorded:
        """With records of names that not all knew, and states of metrics, which do not ride on the exchange."""
        tail, measures = self._engine.tail, self._engine.replica.measured.measures
        values = tails.floats(tail.unnamed.values())
        mine = [[name, lane, value] for (name, lane), value in zip(tail.unnamed, values, strict=True)]
        states = {lane: measures.states(copies) for lane, copies in tail.measured.items()}
        measures.check_size(merging.sizes(list(states.values())))
        found = self._engine.pact.agree([mine, hollow.written(states)])
        by_lane = {lane: state for _, each in found for lane, state in hollow.read(each).items()}
        more = sorted((name, lane, value) for each, _ in found for name, lane, value in each)
        return Recorded(tail.records(more), [by_lane[lane] for lane in sorted(by_lane)])

    def _take_losses(self, changes: torch.Tensor, must: bool = True) -> None:
        """The losses, and what the lanes changed in buffers, from the sums over all lanes; must: be numbers.

        Raises:
            NonFiniteLoss: it is none; nothing was applied.
        """
        engine = self._engine
        replica, rows = engine.replica, engine.tail.rows()
        # Rows that were set aside weigh nothing: what is left is divided by what is left, once.
        whole = self.rows / rows if rows else 1.0
        losses = replica.outcome.losses = [part * whole for part in engine.tail.losses()]
        loss = sum(losses)
        if must and loss - loss != 0:
            bad = [lane for lane, part in enumerate(losses) if part - part != 0]
            of = f" in update {self.update}" if self.update else ""
            raise NonFiniteLoss(
                f"loss={loss} at step {self.number}{of}, from lane {', '.join(map(str, bad))}",
                "the update was not applied",
                "Lower the learning rate, set clip_norm, or look at the rows of that step.",
            )
        if whole != 1.0:
            update.scale(replica.trained, whole)
            changes = replica.buffers.scaled(changes, whole)
        seed("update", engine.job.seed, self.number, *self._keys)  # an optimiser may draw: on all workers alike
        replica.buffers.accept(changes)  # first, as in plain PyTorch: a hook of the optimiser may change buffers

    @property
    def _keys(self) -> tuple[int, ...]:
        """Of the pass in the step, and of the part of a lane's batch, for keys of randomness; nothing of the first."""
        return (self._pass, self._part) if self._part else (self._pass,) if self._pass else ()

    def _tell(self) -> None:
        """The pass, and with the last one the step, is applied here or by those ahead."""
        engine, replica = self._engine, self._engine.replica
        self.loss, self.committed = sum(replica.outcome.losses), replica.step > self.number
        if not self.committed:
            return
        self.counts = True
        rate = float(replica.optimizer.param_groups[0]["lr"])
        samples = replica.samples.hexdigest()
        if replica.outcome.records or replica.outcome.record_tables:
            tables = [replica.outcome.record_tables] if replica.outcome.record_tables else []
            engine.context.journal.recorded(self.number, replica.outcome.records, *tables)
        engine.context.journal.step(self.number, self.epoch, self.loss, rate, self.rows, samples)
        engine.logged.commit(self.number)

    def _leave_out_empty_lanes(self) -> None:
        """Where rows may be set aside, it is only known with its batch how many a lane has left."""
        engine = self._engine
        self._found = {}
        if engine.job.data.on_bad_data == "quarantine":
            with engine.account("data"):
                self._found = {lane: self._read(lane) for lane in self._mine}
            self._mine = [lane for lane in self._mine if len(self._found[lane].ids)]

    def _read(self, lane: int) -> Batch:
        return self._engine.context.train.batch(self.epoch, self._at, lane)

    def _do(self, lane: int) -> Iterator[dict[str, torch.Tensor]]:
        """One lane, in the user's loop."""
        engine = self._engine
        engine.spend("data")
        found = self._found[lane] if lane in self._found else self._read(lane)
        batch = batches.tensors_of(found, engine.replica.device)
        engine.spend("compute")
        engine.tail.ids(lane, found.ids)
        engine.replica.buffers.enter()
        self._parts = {}
        cut = batches.parts(batch, len(found.ids), engine.job.lane_batch // engine.job.accumulate)
        try:
            for self._part, (self._part_rows, part) in enumerate(cut):
                self._whole = self._part + 1 == len(cut)
                yield from self._body(lane, part)
        finally:
            self._part = 0
        for name, by_part in self._parts.items():
            weight = sum(rows for _, rows in by_part.values())
            engine.tail.record(lane, name, sum(value * rows for value, rows in by_part.values()) / weight)
        self._parts = {}

    def _body(self, lane: int, part: dict[str, torch.Tensor]) -> Iterator[dict[str, torch.Tensor]]:
        """One batch, in the user's loop: a lane's, or a part of it."""
        engine = self._engine
        seed("lane", engine.job.seed, self.epoch, self._at, lane, *self._keys)
        self._lane = self._open = engine.replica.modules.lane = lane
        try:
            with update.autocast(engine.job.precision, engine.replica.device):
                yield part
        finally:
            self._open, engine.replica.modules.lane = None, NOWHERE
        if self._lane is not None:
            raise BadInput(
                f"lane {lane} of step {self.number} gave no loss",
                "step.backward(loss) was not called in the loop over step.lanes()",
                "Call it once for each batch.",
            )
