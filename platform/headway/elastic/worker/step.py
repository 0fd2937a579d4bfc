"""One step of a session: its lanes in the user's loop, the exchange, the commit; once more if a worker is lost."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch

from headway.core.watch import At
from headway.elastic.worker import batches, transfer, update
from headway.elastic.worker.engine import now
from headway.elastic.worker.replica import seed
from headway.elastic.worker.standing import Standing
from headway.errors import BadInput, NonFiniteLoss
from headway.strategies import PeerLost, Strategy

if TYPE_CHECKING:
    from headway.data.read.reader import Batch
    from headway.elastic.worker.engine import Engine


class Step:
    """One optimiser update over one global batch. Fields: number, epoch, rows, last_of_epoch; loss after the lanes."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.loss = float("nan")
        self.begun = self.committed = False
        self._lane: int | None = None
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

    def lanes(self) -> Iterator[dict[str, torch.Tensor]]:
        """The batches of the lanes that this worker carries; when the loop over them ends, the step is committed.

        If a worker is lost meanwhile, nothing was applied: the loop goes on over all the lanes that this worker carries
        then, from the first. So its body may run more than once for a lane of a step.

        Yields:
            The lane's rows as tensors by name on the worker's device, first dimension = rows. Randomness inside the
            loop's body follows the lane; autocast is on where the job asks for mixed precision.
        """
        engine = self._engine
        if self.begun:
            raise BadInput(f"step.lanes() was called twice in step {self.number}", "a step has its lanes once", "")
        self.begun = True
        if engine.standing is Standing.REHEARSING:
            yield from self._rehearse()
            engine.context.trouble("join", engine.replica.model, engine.replica.step)
            engine.members.ready()
            engine.regroup()
        else:
            engine.boundary()
        if engine.replica.step >= engine.total_steps or engine.replica.outcome.stopping:
            self.committed = True  # it came after the last step
            return
        engine.standing = Standing.ABREAST
        self._aim()
        engine.context.at = f"step {self.number}"
        with engine.account("compute", engine.at_work):
            engine.context.trouble("compute", engine.replica.model, self.number)
        while not self.committed:
            try:
                with engine.account("compute", engine.at_work):
                    yield from self._attempt()
            except PeerLost as error:
                engine.context.ledger.abandon(now())
                engine.replica.buffers.rewind()
                start = engine.start
                engine.repair(error)
                anew = engine.start != start  # from a checkpoint, whose step may be before this one or after it
                if engine.replica.step > self.number and not anew:  # those ahead had committed it, and handed it on
                    self._tell()
                elif engine.replica.step >= engine.total_steps:
                    self.committed = True
                else:
                    self._aim()
        seed("after", engine.job.seed, self.number)

    def backward(self, loss: torch.Tensor) -> None:
        """Backpropagate a lane's loss, once per batch of `lanes()`.

        Args:
            loss: scalar, the mean over the batch's rows; it is weighed by the batch's share of the step's rows.
        """
        engine, lane = self._engine, self._lane
        if lane is None:
            raise BadInput(
                f"step.backward() was called twice for one batch in step {self.number}",
                "a lane has one loss",
                "Add the losses and call it once, inside the loop over step.lanes().",
            )
        if loss.dim() != 0:
            raise BadInput(
                f"step.backward() was given a loss of shape {tuple(loss.shape)}",
                "a loss is one number",
                "Take its mean.",
            )
        assert self._strategy is not None
        share = self._share(lane)
        engine.tail.loss(lane, loss.detach().float() * share)
        self._lane = None
        with engine.account("communication"), engine.pact.waiting():  # it may need word from the others
            self._strategy.before_backward(lane, last=lane == self._mine[-1])
        with torch.autocast(engine.replica.device.type, enabled=False):
            engine.replica.scaler.scale(loss * share).backward()
        self._strategy.after_backward()

    def _share(self, lane: int) -> float:
        """Of the step's rows that the lane has; of those that were asked for, where some may be set aside."""
        rows = len(self._found[lane].ids) if lane in self._found else self.sizes[lane]
        return rows / self.rows

    def _attempt(self) -> Iterator[dict[str, torch.Tensor]]:
        """All lanes once, and the commit; without it if a replica had to be healed.

        Raises:
            PeerLost: a worker is gone; nothing has been applied.
        """
        engine = self._engine
        pact, ledger, replica, tail = engine.pact, engine.context.ledger, engine.replica, engine.tail
        ledger.begin_step(now())
        self._leave_out_empty_lanes()
        engine.fit()
        self._strategy = strategy = pact.strategy
        strategy.begin(self._mine)
        tail.clear()
        replica.buffers.begin()
        every = engine.job.replica_check_every
        checked = every is not None and self.number % every == 0 and pact.size > 1
        if checked:
            tail.replica(pact.rank, engine.lineage, replica.words())
        for lane in self._mine:
            pact.check()
            begun = now()
            yield from self._do(lane)
            strategy.lane_done(replica.buffers.leave(self._share(lane), counters=lane == self._fullest))
            engine.members.moved(now() - begun)
        tail.flags(engine.context.journal.stop_requested, engine.members.news)
        engine.context.trouble("exchange", replica.model, self.number)
        with engine.account("communication"):
            summed, changes = pact.sum(tail.values)
        tail.take(summed)
        if checked and not engine.heal(tail.replicas(pact.size)):
            ledger.abandon(now())
            return  # nothing was applied: once more, from the healed state
        self._apply(changes)
        engine.commit()
        self._tell()

    def _apply(self, changes: torch.Tensor) -> None:
        """The update from the sums over all lanes.

        Raises:
            NonFiniteLoss: it is none; nothing was applied.
        """
        engine = self._engine
        replica, rows = engine.replica, engine.tail.rows()
        # Rows that were set aside weigh nothing: what is left is divided by what is left, once.
        whole = self.rows / rows if rows else 1.0
        losses = replica.outcome.losses = [part * whole for part in engine.tail.losses()]
        loss = sum(losses)
        if loss - loss != 0:
            bad = [lane for lane, part in enumerate(losses) if part - part != 0]
            raise NonFiniteLoss(
                f"loss={loss} at step {self.number}, from lane {', '.join(map(str, bad))}",
                "the update was not applied",
                "Lower the learning rate, set clip_norm, or look at the rows of that step.",
            )
        if whole != 1.0:
            update.scale(replica.trainable, whole)
            changes = replica.buffers.scaled(changes, whole)
        replica.apply(engine.job.clip_norm)
        replica.buffers.accept(changes)

    def _tell(self) -> None:
        """The step is committed, here or by those ahead."""
        engine, replica = self._engine, self._engine.replica
        self.loss, self.committed = sum(replica.outcome.losses), True
        rate = float(replica.optimizer.param_groups[0]["lr"])
        samples = replica.samples.hexdigest()
        engine.context.journal.step(self.number, self.epoch, self.loss, rate, self.rows, samples)

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
        seed("lane", engine.job.seed, self.epoch, self._at, lane)
        self._lane = lane
        with update.autocast(engine.job.precision, engine.replica.device):
            yield batch
        if self._lane is not None:
            raise BadInput(
                f"lane {lane} of step {self.number} gave no loss",
                "step.backward(loss) was not called in the loop over step.lanes()",
                "Call it once for each batch.",
            )

    def _rehearse(self) -> Iterator[dict[str, torch.Tensor]]:
        """One lane and one update for nothing, before this worker joins those that train: what is built, compiled and
        allocated at the first step is done here, where nobody waits for it."""
        engine, replica = self._engine, self._engine.replica
        before = transfer.copied(replica.snapshot())
        self._strategy = engine.strategy_for(None)
        self._mine = [self._fullest]
        with engine.account("start", At.FIRST_STEP):
            self._leave_out_empty_lanes()
            self._strategy.begin(self._mine)
            engine.tail.clear()
            replica.buffers.begin()
            for lane in self._mine:
                yield from self._do(lane)
            self._strategy.finish(engine.tail.values)
            replica.apply(engine.job.clip_norm)
        self._strategy.close()
        self._strategy = None
        replica.load(before)
