"""One pass over a step's lanes, as the engine does it: the walk, the exchange, the update."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from headway.core.lanes_together import Mismatch, Reason
from headway.elastic.worker import closures, draws, halting, hollow, said, update
from headway.elastic.worker import tail as tails
from headway.elastic.worker.engine import now
from headway.elastic.worker.updates import ONLY, wants_closure
from headway.elastic.worker.walk import Walk
from headway.errors import BadInput, NonFiniteLoss
from headway.metrics import merging

if TYPE_CHECKING:
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


class Pass(Walk):
    """The part of a `Step` that its user does not see; see there. ended: called with the step, when it is committed."""

    def __init__(self, engine: Engine, ended: Callable[[Any], None] = lambda step: None) -> None:
        super().__init__(engine)
        self._ended = ended
        self.loss = float("nan")
        self.every_update = engine.replica.updates.names
        self.begun = self.committed = False
        self.counts = False
        """Whether it was committed by those that train, and not passed over."""
        self._updates: tuple[str, ...] = ()
        self._looped = self._anew = self._rehearsing = False
        self._agreed = 0
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
        self._alone = False
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
        yield from self._walk()
        engine.check_fit()
        stop = engine.context.journal.stop_requested or bool(engine.members.leaving) or engine.stop_asked
        tail.flags(stop, engine.members.news, bool(replica.modules.found()), engine.halting, engine.stop_asked)
        tail.said(pact.rank, engine.said.words)
        tail.lanes(self._joined, self._spoilt, replica.apart)
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
        if self._is_undone():
            replica.buffers.rewind()
            ledger.abandon(now())
            return None  # once more, with lanes apart, or fewer of them together
        if not tail.said_alike(pact.size) and not self._compare():
            ledger.abandon(now())
            return None
        return changes

    def _is_undone(self) -> bool:
        """Whether the pass is to be done again, for the way in which lanes went together. All decide alike."""
        engine, tail = self._engine, self._engine.tail
        why = tail.apart()
        finite = not (self._alone or tail.together()) or math.isfinite(sum(tail.losses()))
        if self._alone and finite and why is None:
            why = Mismatch(Reason.LOSS)
        if why is not None:
            engine.together.part(why, self.number, engine.pact.rank == 0)
        if not tail.spoilt() and tail.together() and why is None and not finite:
            self._alone = True
            return True
        return tail.spoilt() or (tail.together() and why is not None)

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
        draws.seed("update", engine.job.seed, self.number, *self._keys)  # an optimiser may draw: on all workers alike
        replica.buffers.accept(changes)  # first, as in plain PyTorch: a hook of the optimiser may change buffers

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
