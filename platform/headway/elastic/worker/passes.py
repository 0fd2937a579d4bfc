"""One pass over a step's lanes, as the engine does it: the walk, the exchange, the update."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from headway.core.lanes_together import Mismatch, Reason
from headway.core.watch import At
from headway.elastic.worker import closures, draws, halting, hollow, said, update
from headway.elastic.worker import tail as tails
from headway.elastic.worker.engine import now
from headway.elastic.worker.rounds import Rounds
from headway.elastic.worker.updates import ONLY
from headway.elastic.worker.walk import Walk
from headway.errors import BadInput, NonFiniteLoss
from headway.metrics import merging
from headway.strategies import PeerLost

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
        # Who is lost may have missed why all were to do it again by lane, and who has just joined does not know of it.
        # So all forget it: one that decided otherwise than the others would train on by itself.
        self._alone = False

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
        if isinstance(engine.rounds, Rounds):
            return (yield from self._go_on(engine.rounds))
        if engine.replica.updates.now.wants_closure and not engine.halting:
            raise closures.wanted(engine.replica.updates.now.optimizer)
        changes = yield from self._summed()
        if changes is None:
            return self.committed
        recorded = self._recorded()
        last = self._pass + 1 == len(self._updates)
        self._take_losses(changes)
        assert self._strategy is not None
        if engine.held is not None and engine.held.serves:
            self._strategy.commit()
            if engine.held.tables is not None:
                engine.held.tables.commit()
            engine.replica.updates.step_schedules(sometimes=True)
        else:
            engine.replica.apply(engine.job.clip_norm, last, self._strategy.finite)
            self._strategy.commit()
        self._finish(recorded, last)
        return True

    def _go_on(self, rounds: Rounds) -> Generator[dict[str, torch.Tensor], None, bool]:
        """The step of each replica that is carried here, and of those that are behind all until it; at a round's end
        all meet. Returns True.

        Raises:
            PeerLost: a worker is gone. What replicas have done they have done.
        """
        engine = self._engine
        number, loss, rows = self.number, 0.0, 0
        late = not engine.halting and rounds.late()
        if late:
            engine.replica.buffers.begin()
        elif not engine.halting:
            for replica, step in rounds.due(number):
                self._aim_at(rounds.lanes[replica], step)
                with rounds.carrying(replica, step):
                    try:
                        counts = yield from self._do_alone(rounds, replica)
                    except PeerLost:
                        engine.replica.buffers.rewind()  # while they are in their place
                        raise
                    loss += rounds.did(replica, engine.tail, self.rows, counts) * self.rows
                rows += self.rows
            self._aim()
            engine.replica.buffers.begin()
            if number + 1 == rounds.departs:
                rounds.depart()
        if engine.halting or late or number + 1 == rounds.end:
            with engine.account("communication", At.EXCHANGE):
                met = rounds.meet(number)
            if not met or engine.halting:
                rounds.left(met)
                engine.halt()
                self.committed = True
                return True
        else:
            engine.replica.outcome.losses = [loss / rows] if rows else [0.0]  # of the lanes that are carried here
        engine.commit_alone(rounds.met_at if late else number + 1)
        self._was_met()
        return True

    def _was_met(self) -> None:
        """The step is committed; a round's steps are told where it ends."""
        self.loss, self.committed, self.counts = sum(self._engine.replica.outcome.losses), True, True
        self._engine.logged.commit(self.number)

    def _aim_at(self, lanes: list[int], step: int) -> None:
        """Be a step with these lanes alone."""
        engine = self._engine
        cursor = engine.order.cursor(step)
        self.number, self.epoch, self._at = step, cursor.epoch, cursor.step
        self.sizes = engine.order.sizes(cursor.step)
        self.rows = max(1, sum(self.sizes[lane] for lane in lanes))
        self._fullest = max(lanes, key=self.sizes.__getitem__)
        self._mine = [lane for lane in lanes if self.sizes[lane]]
        self._found, self._may_join = {}, False

    def _do_alone(self, rounds: Rounds, number: int) -> Generator[dict[str, torch.Tensor], None, bool]:
        """The lanes of a replica, and its own update. Returns whether that counts: not where it comes too late."""
        engine = self._engine
        replica, tail = engine.replica, engine.tail
        if rounds.served is not None:
            rounds.served.pull(number, self.number)
        engine.context.ledger.begin_step(now())
        self._leave_out_empty_lanes()
        rounds.bodies.check()
        engine.fit()
        self._strategy = strategy = engine.pact.strategy
        strategy.begin(self._mine)
        tail.clear()
        replica.buffers.begin()
        yield from self._walk()
        engine.check_fit()
        if replica.modules.found():
            raise BadInput(
                f"buffers were made in the lanes of step {self.number}",
                "replicas go on by themselves, and their buffers are averaged when they meet: all must have the same",
                "Make buffers where the model is built.",
            )
        engine.context.trouble("exchange", replica.model, self.number)
        summed, changes = strategy.finish(tail.values)
        tail.take(summed)
        self._take_losses(changes)
        if rounds.served is None:
            replica.apply(engine.job.clip_norm, last=False, finite=strategy.finite)
            return True
        if not strategy.finite():
            replica.require_number(float(update.norm(replica.trained)))
        return rounds.served.push(number, self.rows / sum(self.sizes) if self._mine else 0.0)

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
        self._begin_anew()
        tail.clear()
        replica.buffers.begin()
        compared = engine.part_due(self.number) if first and not self._pass else None
        if compared is not None:
            tail.replica(pact.rank, engine.lineage, replica.words(*compared))
        yield from self._walk()
        engine.check_fit()
        stop = engine.context.journal.stop_requested or bool(engine.members.leaving) or engine.stop_asked
        late, save = bool(replica.modules.found()), engine.save_due()
        tail.flags(stop, engine.members.news, late, engine.halting, engine.stop_asked, save=save)
        tail.said(pact.rank, engine.said.words)
        tail.lanes(self._joined, self._spoilt, replica.apart)
        engine.context.trouble("exchange", replica.model, self.number)
        with engine.account("communication"):
            summed, changes = pact.sum(tail.values)
        tables = engine.held.tables if engine.held is not None else None
        if tables is not None:
            strategy.beside = tables.finish()  # type: ignore[attr-defined]  # it is one that serves
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
            update.scale(replica.trained, whole)  # of those that have gradients
            changes = replica.buffers.scaled(changes, whole)
        draws.seed("update", engine.job.seed, self.number, *self._keys)  # an optimiser may draw: on all workers alike
        self._serve(whole)
        replica.buffers.accept(changes)  # first, as in plain PyTorch: a hook of the optimiser may change buffers

    def _serve(self, whole: float) -> None:
        """Where the strategy makes the update: have it made, so that it can be applied.

        Raises:
            PeerLost: a worker is gone; nothing was applied.
            NonFiniteLoss: the gradient is no number.
        """
        engine = self._engine
        if engine.held is None or not engine.held.serves:
            return
        strategy = self._strategy
        assert strategy is not None
        if not strategy.finite():
            engine.replica.require_number(strategy.norm())  # type: ignore[attr-defined]  # it is one that serves
        clip = engine.job.clip_norm
        if engine.held.tables is not None:
            engine.held.tables.pend(strategy.factor(clip, 1 / whole))  # type: ignore[attr-defined]
        with engine.account("communication"), engine.pact.waiting():
            strategy.update(engine.replica.optimizer, clip, 1 / whole)  # type: ignore[attr-defined]

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
