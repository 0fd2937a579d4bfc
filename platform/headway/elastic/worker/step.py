"""One step of a session: its lanes in the user's loop, the exchange, the commit; once more if a worker is lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from headway.core.watch import At
from headway.elastic.worker import closures, transfer
from headway.elastic.worker.draws import seed
from headway.elastic.worker.engine import now
from headway.elastic.worker.losses import require_loss
from headway.elastic.worker.passes import Recorded
from headway.elastic.worker.recording import Recording
from headway.elastic.worker.standing import Standing
from headway.errors import BadInput
from headway.logged.verbs import Logging
from headway.strategies import PeerLost

Names = Sequence[str] | Callable[["Step"], Sequence[str]]
"""Of a step's updates in order, or what gives them for a step."""


class Step(Recording, Logging):
    """One global batch, and one update from it; or several, each in a pass of its own over the same lanes.

    Fields: number, epoch, rows, last_of_epoch; loss after the lanes (of several passes, the newest's).
    """

    @property
    def done_updates(self) -> tuple[str, ...]:
        """Names of the updates that the step has, each once; the only one without a name is ''."""
        return tuple(dict.fromkeys(self._updates))

    def updates(self, names: Names | None = None) -> Iterator[str]:
        """The updates of this step, one after another, each with a pass over its lanes of its own:

            for update in step.updates(["critic", "critic", "generator"]):
                for batch in step.lanes():
                    step.backward(loss_fn(models, batch, update))

        In a pass the parameters of its optimiser alone are trained; all others are frozen meanwhile. The step is
        committed with the last one. A worker that is lost takes nothing with it that was applied: the others go on with
        the pass that was under way; and begin the step anew where all of them begin anew from a checkpoint.

        Args:
            names: of optimisers, each as often as it is to be; or called as names(step), which gives them, the same on
                every worker. Each once, in their order, when not given.

        Raises:
            BadInput: there is no such update; lanes() was not looped over to its end in one.
        """
        engine = self._engine
        if self.begun:
            raise self._twice("updates")
        self.begun = True
        if engine.standing is Standing.REHEARSING:
            yield from self._rehearsed(names)
            engine.context.train.carry((), 0)  # it may have to wait for long: nothing that was read stays
            engine.context.trouble("join", engine.replica.model, engine.replica.step)
            engine.members.ready()
            engine.regroup()
        else:
            engine.boundary()
        begun = False
        while self._may_begin():
            if not begun:
                with engine.account("compute", engine.at_work):
                    engine.context.trouble("compute", engine.replica.model, self.number)
            begun, self._anew = True, False
            self._updates = self._wanted(names)
            while not self.committed and not self._anew:
                self._pass, self._looped = engine.replica.passes, False
                self._seed_pass()
                yield self.update
                self._require_pass()
        if begun:
            seed("after", engine.job.seed, self.number)
        if self.counts:
            self._ended(self)

    def _seed_pass(self) -> None:
        """What is drawn before the pass's lanes is the same on every worker: also on one that has just joined, or that
        was behind and did not make the update before."""
        engine = self._engine
        if engine.replica.updates.several:
            seed("pass", engine.job.seed, self.number, self._pass)

    def _may_begin(self) -> bool:
        """Whether a step is to be done, once those are level that stand at a gate."""
        engine = self._engine
        if self.committed:
            return False
        if not engine.replica.passes:
            engine.stand()
            if engine.replica.step >= engine.total_steps or engine.replica.outcome.stopping:
                self.committed = True  # it came after the last step
                engine.left |= engine.replica.outcome.stopping and engine.standing is Standing.ABREAST
                return False
        engine.standing = Standing.ABREAST
        self._aim()
        engine.context.at = f"step {self.number}"
        return True

    def _wanted(self, names: Names | None) -> tuple[str, ...]:
        """Raises BadInput."""
        updates = self._engine.replica.updates
        found = tuple(updates.names if names is None else names(self) if callable(names) else names)
        if not found:
            raise BadInput(
                f"step {self.number} has no updates", "nothing would be trained in it", "Name one update at least."
            )
        for name in found:
            updates.named(name)
        return found

    def _require_pass(self) -> None:
        """Raises BadInput: the body of the loop over updates() did not do its pass."""
        done = self.committed or self._anew or self._rehearsing or self._engine.replica.passes != self._pass
        if not self._looped or not done:
            of = f" for update {self.update!r}" if self.update else ""
            raise BadInput(
                f"step {self.number} was left before its lanes were done{of}",
                "the loop over step.lanes() was broken off or never begun",
                "Let the loop over step.lanes() run to its end.",
            )

    def lanes(self, update: str | None = None, together: bool = False) -> Iterator[dict[str, torch.Tensor]]:
        """The batches of the lanes that this worker carries; when the loop over them ends, the update is applied, and
        the step is committed if it was its only one, or its last.

        If a worker is lost meanwhile, nothing was applied: the loop goes on over all the lanes that this worker carries
        then, from the first. So its body may run more than once for a lane of a step.

        Args:
            update: its name where the session has several optimisers; not needed in a loop over `updates()`. Outside of
                one the step has this update alone.
            together: several lanes may come as one batch, as long as that gives what they give one by one: it is tried
                both ways now and then, for which the body runs for them one by one as well. What it does beside
                `step.backward` must not count batches, nor know of their size.

        Yields:
            The lane's rows as tensors by name on the worker's device, first dimension = rows. Randomness inside the
            loop's body follows the lane; autocast is on where the job asks for mixed precision.
        """
        self._may_join = together
        if self.begun and not self._looped:
            self._require_name("lanes", update)
            yield from self._lanes()
            return
        if self.begun:
            raise self._twice("lanes")
        if update is None and self._engine.replica.updates.several:
            raise BadInput(
                f"step.lanes() was called in step {self.number}, and the session has several optimisers",
                "each has a pass of its own",
                "Loop over step.updates(), and over step.lanes() in it.",
            )
        for _ in self.updates(None if update is None else [update]):
            yield from self._lanes()

    def _twice(self, verb: str) -> BadInput:
        several = self._engine.replica.updates.several
        return BadInput(
            f"step.{verb}() was called twice in step {self.number}",
            "a step has its lanes once, or once in each of its updates",
            "Name all updates in one loop over step.updates([...])." if several else "",
        )

    def minimize(self, loss: Callable[[dict[str, torch.Tensor]], torch.Tensor], update: str | None = None) -> None:
        """In place of the loop over `lanes()`, for an optimiser that evaluates the loss again and again (LBFGS):

            step.minimize(lambda batch: loss_fn(model(batch["x"]), batch["y"]))

        Each evaluation is a walk over the step's lanes, with the same rows and the same randomness, and an exchange. If
        a worker is lost in one, all go back to the step's beginning, and do it again.

        What is recorded is that of the first.

        Args:
            loss: called as loss(batch) for each lane, gives the mean over its rows; it does not call backward.
            update: as of `lanes`.

        Raises:
            BadInput: as of `lanes`; the loss is none; the optimiser evaluates without end.
        """
        if self.begun and not self._looped:
            self._require_name("minimize", update)
            self._minimize(loss)
            return
        if self.begun:
            raise self._twice("minimize")
        for _ in self.updates(None if update is None else [update]):
            self._minimize(loss)

    def _require_name(self, verb: str, update: str | None) -> None:
        if update is not None and update != self.update:
            raise BadInput(
                f"step.{verb}({update!r}) was called in the pass of update {self.update!r}",
                "the loop over step.updates() says which update it is",
                "Leave the name out.",
            )

    def halt(self) -> None:
        """This worker's loop is over before this step, and the others may be at it: all leave."""
        engine = self._engine
        engine.halting = self.begun = True
        engine.boundary()
        while self._may_begin():
            self._updates, self._pass, self._may_join = (engine.replica.updates.names[0],), 0, False
            for _ in self._lanes():
                pass

    def _lanes(self) -> Iterator[dict[str, torch.Tensor]]:
        """One pass: until it is applied, here or by those ahead, or all begin anew."""
        engine, self._looped = self._engine, True
        if self._rehearsing:
            yield from self._rehearse()
            return
        done = False
        while not done:
            try:
                with engine.account("compute", engine.at_work), engine.replica.only(self.update):
                    done = yield from self._attempt()
            except PeerLost as error:
                if not self._goes_on(error):
                    return

    def _minimize(self, loss: Callable[[dict[str, torch.Tensor]], torch.Tensor]) -> None:
        """As `_lanes`."""
        engine, self._looped, self._may_join = self._engine, True, False
        if self._rehearsing:
            closures.walk(self._rehearse(), loss, self.backward)
            return
        done = False
        while not done:
            try:
                with engine.account("compute", engine.at_work), engine.replica.only(self.update):
                    done = self._attempt_to_minimize(loss)
            except PeerLost as error:
                if not self._goes_on(error):
                    return

    def _goes_on(self, error: PeerLost) -> bool:
        """A worker was lost: find the others. Returns whether this pass is to be done again, here."""
        engine = self._engine
        engine.context.ledger.abandon(now())
        if engine.rounds is None:
            engine.replica.buffers.rewind()
        start = engine.start
        engine.repair(error)
        if engine.start != start:  # from a checkpoint, whose step may be before this one or after it
            self._anew = True
            return False
        if (engine.replica.step, engine.replica.passes) > (self.number, self._pass):  # those ahead had applied it
            if engine.rounds is None:
                self._tell()
            else:
                self._was_met()
            return False
        return self._may_begin()

    def _attempt_to_minimize(self, loss: Callable[[dict[str, torch.Tensor]], torch.Tensor]) -> bool:
        """As `_attempt`, with as many evaluations as the optimiser likes.

        Raises:
            PeerLost: a worker is gone; all is as at the pass's beginning.
        """
        engine = self._engine
        replica = engine.replica
        if self._halted():
            return True
        before = transfer.copied(replica.snapshot())
        evaluations, first, recorded = 0, replica.outcome.losses, Recorded()

        def evaluate() -> float:
            nonlocal evaluations, first, recorded
            if evaluations == closures.MOST:
                raise closures.endless(self.number, replica.updates.now.optimizer)
            engine.context.at = f"step {self.number}, evaluation {evaluations} of its loss"
            changes = closures.walk(self._summed(first=not evaluations), loss, self.backward)
            if changes is None:
                raise closures.Again
            if not evaluations:
                recorded = self._recorded()
            self._take_losses(changes, must=not evaluations)
            first = replica.outcome.losses if not evaluations else first
            evaluations += 1
            return sum(replica.outcome.losses)

        last = self._pass + 1 == len(self._updates)
        try:
            replica.minimize(evaluate, last)
        except closures.Again:
            if self.committed or not evaluations:
                return self.committed
            self._put_back(before)
            return False
        except BaseException:  # raised again: whatever it was, the optimiser stopped in its middle
            self._put_back(before)
            raise
        finally:
            engine.context.at = f"step {self.number}"
        replica.outcome.losses = first  # where the step began, as of other optimisers; and so what it recorded
        self._finish(recorded, last)
        return True

    def _put_back(self, before: dict[str, Any]) -> None:
        """All as it was at the pass's beginning."""
        replica = self._engine.replica
        passes = replica.passes
        replica.load(before)
        replica.passes = passes
        replica.buffers.begin()

    def backward(self, loss: torch.Tensor) -> None:
        """Backpropagate a lane's loss, once per batch of `lanes()`.

        Args:
            loss: scalar, the mean over the batch's rows; it is weighed by the batch's share of the step's rows.
        """
        engine, lane = self._engine, self._lane
        if self._open is None:
            raise BadInput(
                f"step.backward() was called outside the loop over step.lanes() in step {self.number}",
                "a loss is that of one batch",
                "Call it in the loop; what step.minimize() is given returns the loss, and Headway calls backward.",
            )
        if lane is None:
            raise BadInput(
                f"step.backward() was called twice for one batch in step {self.number}",
                "a lane has one loss",
                "Add the losses and call it once, inside the loop over step.lanes().",
            )
        require_loss(loss)
        assert self._strategy is not None
        share = self._part_rows / self.rows
        weighed = loss.detach().float() * share
        if self._trial is not None:
            self._trial.losses.append(weighed)
        else:
            engine.tail.loss(lane, weighed)
        self._lane = None
        with engine.account("communication"), engine.pact.waiting():  # it may need word from the others
            last = self._whole and self._last
            self._strategy.before_backward(lane, last, first=not self._part, whole=self._whole)
        try:
            with torch.autocast(engine.replica.device.type, enabled=False):
                engine.replica.scaler.scale(loss * share).backward()
        except Exception as error:
            if not self.takes(error):
                raise
            return
        self._strategy.after_backward()

    @property
    def in_lane(self) -> bool:
        """Whether a lane's body runs."""
        return self._open is not None

    @property
    def place(self) -> tuple[int, int | None]:
        """The step, and the lane whose body runs."""
        return self.number, self._open

    def _take_logged(self, kind: str, name: str, thing: Any, caption: str) -> None:
        self._engine.logged.add(kind, name, thing, caption, self.number if self.in_lane else None)

    def _rehearsed(self, names: Names | None) -> Iterator[str]:
        """One lane and one update for nothing, of each kind, before this worker joins those that train: what is built,
        compiled and allocated at the first step is done here, where nobody waits for it."""
        replica = self._engine.replica
        before = transfer.copied(replica.snapshot())
        self._rehearsing, self._updates = True, tuple(dict.fromkeys(self._wanted(names)))
        for number in range(len(self._updates)):
            self._pass, self._looped = number, False
            yield self.update
            self._require_pass()
        self._rehearsing, self._pass = False, 0
        replica.load(before)

    def _rehearse(self) -> Iterator[dict[str, torch.Tensor]]:
        engine, replica = self._engine, self._engine.replica
        self._mine = [self._fullest]
        with engine.account("start", At.FIRST_STEP), replica.only(self.update):
            self._strategy = engine.plain_strategy(None)
            self._leave_out_empty_lanes()
            self._strategy.begin(self._mine)
            engine.tail.clear()
            replica.buffers.begin()
            self._joined = self._spoilt = False
            engine.together.measure()
            yield from self._one_by_one(self._mine, True)
            if self._mine:
                engine.together.measure_done(self._rows_of(self._mine[0]))
            self._strategy.finish(engine.tail.values)
            if not replica.updates.now.wants_closure:
                replica.apply(engine.job.clip_norm, finite=self._strategy.finite)
            self._strategy.close()
        self._strategy = None
