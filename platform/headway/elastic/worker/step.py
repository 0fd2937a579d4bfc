"""One step of a session: its lanes in the user's loop, the exchange, the commit; once more if a worker is lost."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch

from headway.core.watch import At
from headway.elastic.worker import batches, records, said, transfer, update
from headway.elastic.worker import tail as tails
from headway.elastic.worker.engine import now
from headway.elastic.worker.modules import NOWHERE
from headway.elastic.worker.replica import seed
from headway.elastic.worker.standing import Standing
from headway.errors import BadInput, NonFiniteLoss
from headway.strategies import PeerLost, Strategy

if TYPE_CHECKING:
    from headway.data.read.reader import Batch
    from headway.elastic.worker.engine import Engine

MOST_NAMES = 1000
"""Of records in a step's exchange."""
MOST_AGREED = 10
"""Rounds in which the buffers of one step may appear."""


class Step:
    """One optimiser update over one global batch. Fields: number, epoch, rows, last_of_epoch; loss after the lanes."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.loss = float("nan")
        self.begun = self.committed = False
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
            engine.context.train.carry((), 0)  # it may have to wait for long: nothing that was read stays
            engine.context.trouble("join", engine.replica.model, engine.replica.step)
            engine.members.ready()
            engine.regroup()
        else:
            engine.boundary()
        engine.stand()
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
                    continue
                engine.stand()  # where it begins anew, at a gate
                if engine.replica.step >= engine.total_steps or engine.replica.outcome.stopping:
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
        _require_loss(loss)
        assert self._strategy is not None
        share = self._share(lane)
        engine.tail.loss(lane, loss.detach().float() * share)
        self._lane = None
        with engine.account("communication"), engine.pact.waiting():  # it may need word from the others
            self._strategy.before_backward(lane, last=lane == self._mine[-1])
        with torch.autocast(engine.replica.device.type, enabled=False):
            engine.replica.scaler.scale(loss * share).backward()
        self._strategy.after_backward()

    @property
    def in_lane(self) -> bool:
        """Whether a lane's body runs."""
        return self._open is not None

    @property
    def place(self) -> tuple[int, int | None]:
        """The step, and the lane whose body runs."""
        return self.number, self._open

    def record(self, name: str, value: torch.Tensor | float) -> None:
        """Record a number of the user's own, in the report and in MLflow: the mean over the step's rows, of the lanes
        that record it. Call it in the loop over `lanes()`, once for a name and a batch, before or after `backward`. It
        rides on the step's exchange, so that it is the same for every number of workers.

        Args:
            name: under which it is kept, as it is.
            value: scalar, the mean over the batch's rows; a tensor is read when the step is done.

        Raises:
            BadInput: called outside the loop; twice; no text for a name; no scalar for a value.
        """
        if self._open is None:
            raise BadInput(
                f"step.record({name!r}, ...) was called outside the loop over step.lanes()",
                "it is the mean over a batch, and there is none",
                "Call it in the loop, or session.record({name: value}) outside of it.",
            )
        number = records.number("step.record", name, value)
        if len(self._engine.tail.names) + len(self._engine.tail.unnamed) > MOST_NAMES:
            raise BadInput(
                f"step.record() was given more than {MOST_NAMES} names",
                "every name takes room in every step's exchange",
                "Leave what changes from step to step out of the name.",
            )
        try:
            self._engine.tail.record(self._open, name, number)
        except ValueError:
            raise BadInput(
                f"step.record({name!r}, ...) was called twice for one batch in step {self.number}",
                "a batch has one value of a name",
                "Call it once, or choose another name.",
            ) from None

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
            replica.modules.used()
            strategy.lane_done(replica.buffers.leave(self._share(lane), counters=lane == self._fullest))
            engine.members.moved(now() - begun)
        engine.check_fit()
        stop = engine.context.journal.stop_requested or bool(engine.members.leaving)
        tail.flags(stop, engine.members.news, bool(replica.modules.found()))
        tail.said(pact.rank, engine.said.words)
        engine.context.trouble("exchange", replica.model, self.number)
        with engine.account("communication"):
            summed, changes = pact.sum(tail.values)
        tail.take(summed)
        if checked and not engine.heal(tail.replicas(pact.size)):
            ledger.abandon(now())
            return  # nothing was applied: once more, from the healed state
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
            return  # once more, by lane
        if not tail.said_alike(pact.size) and not self._compare():
            ledger.abandon(now())
            return
        more: list[tuple[str, int, float]] = []
        if tail.names_missing():
            with engine.account("communication"):
                more = self._exchange_names()
        self._apply(changes)
        replica.outcome.records = tail.records(more)
        replica.outcome.names += sorted({name for name, _, _ in more})
        engine.commit()
        self._tell()

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

    def _exchange_names(self) -> list[tuple[str, int, float]]:
        """The step's records of names that not all knew: (name, lane, value)."""
        unnamed = self._engine.tail.unnamed
        values = tails.floats(unnamed.values())
        mine = [[name, lane, value] for (name, lane), value in zip(unnamed, values, strict=True)]
        found = self._engine.pact.agree(mine)
        return sorted((name, lane, value) for each in found for name, lane, value in each)

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
            update.scale(replica.trained, whole)
            changes = replica.buffers.scaled(changes, whole)
        seed("update", engine.job.seed, self.number)  # an optimiser may draw: on all workers alike
        replica.buffers.accept(changes)  # first, as in plain PyTorch: a hook of the optimiser may change buffers
        replica.apply(engine.job.clip_norm)

    def _tell(self) -> None:
        """The step is committed, here or by those ahead."""
        engine, replica = self._engine, self._engine.replica
        self.loss, self.committed = sum(replica.outcome.losses), True
        rate = float(replica.optimizer.param_groups[0]["lr"])
        samples = replica.samples.hexdigest()
        if replica.outcome.records:
            engine.context.journal.recorded(self.number, replica.outcome.records)
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
        self._lane = self._open = engine.replica.modules.lane = lane
        try:
            with update.autocast(engine.job.precision, engine.replica.device):
                yield batch
        finally:
            self._open, engine.replica.modules.lane = None, NOWHERE
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
            replica.modules.used()
            self._strategy.finish(engine.tail.values)
            replica.apply(engine.job.clip_norm)
        self._strategy.close()
        self._strategy = None
        replica.load(before)


def _require_loss(loss: Any) -> None:
    """Raises BadInput for what cannot be backpropagated."""
    if not isinstance(loss, torch.Tensor):
        kind = type(loss).__name__
        parts = f" of {', '.join(map(str, loss))}" if isinstance(loss, dict) else ""
        remedy = "Give the loss alone, and record the rest with step.record(name, value) in a loop of your own."
        if isinstance(loss, dict) and "loss" in loss:
            remedy = "Give its 'loss' alone, and record the rest with step.record(name, value) in a loop of your own."
        if isinstance(loss, int | float):
            remedy = "Leave out .item() and float(): a number has no graph to go back through."
        raise BadInput(
            f"the loss is a {kind}{parts}, in step.backward(loss) or as loss() of the task returned it",
            "a loss is one scalar tensor, the mean over the batch's rows",
            remedy,
        )
    if loss.dim() != 0:
        raise BadInput(
            f"step.backward() was given a loss of shape {tuple(loss.shape)}",
            "a loss is one number",
            "Take its mean.",
        )
    if not loss.is_floating_point():
        raise BadInput(
            f"step.backward() was given a loss of {loss.dtype}",
            "a loss is a real number of floating point",
            "Take the real part, or its absolute value." if loss.is_complex() else "Compute it in floating point.",
        )
    if not loss.requires_grad:
        raise BadInput(
            "step.backward() was given a loss that no parameter has a part in",
            "it was detached, computed under no_grad(), or everything that it depends on is frozen",
            "Compute it from the model's output, and leave at least one parameter that requires_grad.",
        )
