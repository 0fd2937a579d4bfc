"""One step of a session: its lanes in the user's loop, the exchange, the commit; once more if a worker is lost."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch

from headway.elastic.worker import batches, transfer, update, vote
from headway.elastic.worker.members import now
from headway.errors import BadInput
from headway.strategies import PeerLost

if TYPE_CHECKING:
    from headway.data.reader import Batch
    from headway.elastic.worker.session import Session


class Step:
    """One optimiser update over one global batch. Fields: number, epoch, rows, last_of_epoch; loss after the lanes."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.loss = float("nan")
        self.begun = self.committed = False
        self._lane: int | None = None
        self._found: dict[int, Batch] = {}
        self._aim()

    def _aim(self) -> None:
        """Be the session's next step, with the lanes that this worker carries now."""
        session = self._session
        cursor = session.order.cursor(session.step)
        self.number, self.epoch, self._at = session.step, cursor.epoch, cursor.step
        self.last_of_epoch = cursor.step + 1 == session.order.steps_per_epoch
        self.sizes = session.order.sizes(cursor.step)
        self.rows = sum(self.sizes)
        self._fullest = max(range(len(self.sizes)), key=self.sizes.__getitem__)
        self._mine = [lane for lane in session.members.lanes if self.sizes[lane]]
        self._found = {}

    def lanes(self) -> Iterator[dict[str, torch.Tensor]]:
        """The batches of the lanes that this worker carries; when the loop over them ends, the step is committed.

        If a worker is lost meanwhile, nothing was applied: the loop goes on over all the lanes that this worker carries
        then, from the first.

        Yields:
            The lane's rows as tensors by name on the worker's device, first dimension = rows. Randomness inside the
            loop's body follows the lane; autocast is on where the job asks for mixed precision.
        """
        session = self._session
        if self.begun:
            raise BadInput(f"step.lanes() was called twice in step {self.number}", "a step has its lanes once", "")
        self.begun = True
        if session._entered:
            session._boundary()
        else:
            yield from self._rehearse()
            session.context.trouble("join", session.model, session.step)
            session.members.ready()
            session._regroup()
        if session.step >= session.total_steps or session.stopping:
            self.committed = True  # it came after the last step
            return
        session._abreast = True
        self._aim()
        session.context.at = f"step {self.number}"
        session.context.trouble("compute", session.model, self.number)
        while not self.committed:
            try:
                yield from self._attempt()
            except PeerLost as error:
                session.context.ledger.abandon(now())
                session.buffers.rewind()
                session._repair(error)
                if session.step > self.number:  # those ahead had committed it, and handed the outcome on
                    session._tell(self)
                else:
                    self._aim()

    def backward(self, loss: torch.Tensor) -> None:
        """Backpropagate a lane's loss, once per batch of `lanes()`.

        Args:
            loss: scalar, the mean over the batch's rows; it is weighed by the batch's share of the step's rows.
        """
        session, lane = self._session, self._lane
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
        assert session.strategy is not None
        share = self.sizes[lane] / self.rows
        session.tail.loss(lane, loss.detach().float() * share)
        self._lane = None
        with session._account("communication"), session._waiting():  # it may need word from the others
            session.strategy.before_backward(lane, last=lane == self._mine[-1])
        with torch.autocast(session.device.type, enabled=False):
            session.scaler.scale(loss * share).backward()
        session.strategy.after_backward()

    def _attempt(self) -> Iterator[dict[str, torch.Tensor]]:
        """All lanes once, and the commit; without it if a replica had to be healed.

        Raises:
            PeerLost: a worker is gone; nothing has been applied.
        """
        session = self._session
        members, ledger, strategy = session.members, session.context.ledger, session.strategy
        assert strategy is not None
        ledger.begin_step(now())
        self._leave_out_empty_lanes()
        strategy.begin(self._mine)
        session.tail.clear()
        session.buffers.begin()
        every = session.job.replica_check_every
        checked = every is not None and self.number % every == 0 and members.size > 1
        if checked:
            session.tail.replica(members.rank, vote.words(session.model, session.optimizer))
        for lane in self._mine:
            if members.broken:
                raise PeerLost("a member is gone")
            begun = now()
            yield from self._do(lane)
            strategy.lane_done(session.buffers.leave(self.sizes[lane] / self.rows, counters=lane == self._fullest))
            members.moved(now() - begun)
        session.tail.flags(session.context.reporter.stop_requested, members.news)
        session.context.trouble("exchange", session.model, self.number)
        with session._account("communication"), session._waiting():
            summed, changes = strategy.finish(session.tail.values)
            members.may_commit()
        session.tail.take(summed)
        if checked and not vote.heal(session, self.number):
            ledger.abandon(now())
            return  # nothing was applied: once more, from the healed state
        session.buffers.accept(changes)
        session._commit(self)

    def _leave_out_empty_lanes(self) -> None:
        """Where rows may be set aside, it is only known with its batch whether a lane has any left."""
        session = self._session
        if session.job.data.on_bad_data == "quarantine":
            with session._account("data"):
                self._found = {lane: self._read(lane) for lane in self._mine}
            self._mine = [lane for lane in self._mine if len(self._found[lane].ids)]

    def _read(self, lane: int) -> Batch:
        found = self._found.pop(lane, None)
        return self._session.context.train.batch(self.epoch, self._at, lane) if found is None else found

    def _do(self, lane: int) -> Iterator[dict[str, torch.Tensor]]:
        """One lane, in the user's loop."""
        session = self._session
        session._spend("data")
        found = self._read(lane)
        batch = batches.tensors_of(found, session.device)
        session._spend("compute")
        session.tail.ids(lane, found.ids)
        session.buffers.enter()
        batches.seed(session.job.seed, self.epoch, self._at, lane)
        self._lane = lane
        with update.autocast(session.job.precision, session.device):
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
        session = self._session
        before = transfer.copied(session._snapshot())
        session.strategy = session._strategy_for(None)
        self._mine = [self._fullest]
        self._leave_out_empty_lanes()
        session.strategy.begin(self._mine)
        session.buffers.begin()
        for lane in self._mine:
            yield from self._do(lane)
        session.strategy.finish(session.tail.values)
        session._apply()
        session.strategy.close()
        session.strategy = None
        session._load(before)
