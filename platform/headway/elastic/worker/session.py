"""The engine: a training loop that still looks like PyTorch, over lanes that may be anywhere.

with headway.session(model, optimizer) as session:
    for step in session.steps():
        for batch in step.lanes():
            step.backward(loss_fn(model, batch))
"""

from __future__ import annotations

import gc
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from torch import nn

from headway import optim
from headway.core.digest import Chain
from headway.core.retention import due
from headway.elastic.worker import transfer, update
from headway.elastic.worker.buffers import LaneBuffers
from headway.elastic.worker.context import Context, current
from headway.elastic.worker.evaluation import evaluate
from headway.elastic.worker.line import Start
from headway.elastic.worker.members import now
from headway.elastic.worker.step import Step
from headway.elastic.worker.tail import Tail
from headway.errors import BadCheckpoint, BadInput, NonFiniteLoss
from headway.strategies import PeerLost, Strategy, create, exchange

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler

    from headway.checkpoint.folder import Checkpoint
    from headway.strategies.group import Group

    Schedule = Callable[[Optimizer, int], LRScheduler | None]


def session(model: nn.Module, optimizer: Optimizer, schedule: Schedule | None = None) -> Session:
    """The session of the run that this worker belongs to; use it as a context manager.

    Args:
        model: on any device; it is moved to the worker's. Rank 0's weights are given to all.
        optimizer: over the model's parameters. The job's `optimizer`, if given, takes its place.
        schedule: called as schedule(optimizer, steps), gives a torch scheduler that is stepped once per step. The
            job's `schedule`, if given, takes its place.

    Raises:
        BadInput: called outside a Headway run.
    """
    return Session(current(), model, optimizer, schedule)


class Session:
    """See `session`. Fields a loop may read: step, epoch, total_steps, optimizer, schedule, device, rank, workers."""

    def __init__(self, context: Context, model: nn.Module, optimizer: Optimizer, schedule: Schedule | None) -> None:
        job, order = context.job, context.train.order
        self.context, self.job, self.order, self.members = context, job, order, context.members
        self.model, self.optimizer = model, optimizer
        self.schedule: LRScheduler | None = None
        self.strategy: Strategy | None = None
        self.device = torch.device(context.device)
        self.step = 0
        self.exchanges = 0
        """Exchanges completed with the others, which tell apart survivors of one step."""
        self.total_steps = job.steps or (job.epochs or 0) * order.steps_per_epoch
        self.samples = Chain()
        self.stopping = False
        self.metrics: dict[str, float] = {}
        self.losses: list[float] = []
        """Of the newest step, each lane's share."""
        self._make_schedule = schedule
        self._state: dict[str, Any] = {}
        self._loaded_state: dict[str, Any] = {}
        self._evaluated_step = -1
        self._open_step: Step | None = None
        self._applying = False
        self._guards: list[Any] = []
        self._saved_step, self._saved_at = 0, 0.0
        self._entered = False
        self._abreast = False
        """Whether the user's code here is where the others' is: not so in one that joined, before its first step."""
        self._evaluating = self._ending = False
        self._sitters = False
        """Whether some joined in mid-evaluation, and wait for the next step to be given the state."""
        self._source = 0
        self._news = False
        self._first = True
        self._committed_at = now()
        self._swept = False

    @property
    def epoch(self) -> int:
        """Walks through the data that are complete before the next step."""
        return self.order.cursor(self.step).epoch

    @property
    def rank(self) -> int:
        """Of this worker at present, 0 to workers - 1."""
        return self.members.rank

    @property
    def workers(self) -> int:
        """Workers at present."""
        return self.members.size

    def register(self, name: str, state: Any) -> None:
        """Let an object of the user's travel with checkpoints, and to workers that join: anything with `state_dict` and
        `load_state_dict`.

        Call it before the loop; when the run is resumed, its state is loaded at once (or as the session is entered).

        Raises:
            BadInput: two objects of one name.
        """
        if name in self._state:
            raise BadInput(f"session.register({name!r}) was called twice", "names tell states apart", "Choose another.")
        self._state[name] = state
        if name in self._loaded_state:
            state.load_state_dict(self._loaded_state[name])

    def __enter__(self) -> Self:
        context, job = self.context, self.job
        self.model.to(self.device)
        theirs = self.optimizer
        if job.optimizer is not None:
            self.optimizer = optim.named_optimizer(job.optimizer, self.model)
        self.schedule = optim.schedule(job.schedule, self.optimizer, self.total_steps, self._make_schedule)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=job.precision == "fp16")
        self.buffers = LaneBuffers(self.model)
        self.tail = Tail(job.lanes, min(job.lanes, job.workers.max + 1))
        self._guards = [o.register_step_pre_hook(self._refuse_step) for o in {theirs, self.optimizer}]
        context.ledger.switch("idle", now())
        if not self.members.running:  # one that joins a running group first warms up, in its first step's lanes
            self.members.ready()
            self._regroup()
        return self

    def steps(self) -> Iterator[Step]:
        """The steps that remain, one optimiser update each. Ends early when the run is asked to stop.

        The model is put into training mode once, at the beginning, so that parts which the loop then sets to `eval()`
        stay as they are.
        """
        self.model.train()
        while self.step < self.total_steps and not self.stopping:
            self.context.at = f"step {self.step}"
            self._open_step = Step(self)
            yield self._open_step
            self._require_commit()
            self._checkpoint_if_due()

    def evaluate(self, metrics: Callable[[nn.Module, Any], dict[str, Any]]) -> dict[str, float]:
        """Metrics over the whole validation set, the same on every worker and for every number of workers.

        Args:
            metrics: called as metrics(model, batch), gives means over the batch's rows by name.

        Returns:
            The means over all rows; empty where the job has no validation set.
        """
        if self.context.validation is None:
            return {}
        if not self._abreast:  # a worker that joins takes part from its first step on
            return dict(self.metrics)
        exchanges, self._evaluating = self.exchanges, True
        while self.exchanges == exchanges:
            try:
                with self._account("compute"):
                    self.metrics = evaluate(self, metrics, everything=self._sitters)
                self.exchanges += 1
            except PeerLost as error:  # then who is ahead hands its metrics on
                self._repair(error)
        self._evaluating = False
        self._evaluated_step = self.step
        self.record(self.metrics)
        return self.metrics

    def record(self, values: dict[str, float]) -> None:
        """Record numbers of the user's own at this step, in the report and in MLflow. Call it on every worker."""
        if self._abreast:
            self.context.reporter.metrics(self.step, {name: float(value) for name, value in values.items()})

    def save(self, reason: str) -> None:
        """Take a checkpoint of this moment; it is written in the background. Call it on every worker."""
        if not self._abreast:
            return
        self._saved_step, self._saved_at = self.step, now()
        if self.members.rank == 0:
            with self._account("checkpoint"):
                blocked = self.context.store.save(self.step, self._snapshot, self._facts(reason))
            self.context.reporter.checkpoint_begun(self.step, reason, blocked)
            self.context.trouble("checkpoint", self.model, self.step)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._end()
        finally:
            for guard in self._guards:
                guard.remove()
            if self.strategy is not None:
                self.strategy.close()
            self.members.let_go()

    def _end(self) -> None:
        if self._open_step is not None and self._open_step.begun:
            self._require_commit()  # left by break or return
        self._ending = True
        if not self._entered:
            self._regroup()
        self._abreast = True
        self.context.reporter.ended(self.step, update.weights_sha256(self.model))
        while True:
            try:
                self._seat()
                if self._saved_step != self.step:
                    self.save("interrupted" if self.stopping and self.step < self.total_steps else "end of the run")
                if self.members.rank == 0:  # nobody goes before all is safe: else the leader's death could lose the end
                    with self._account("checkpoint"), self._waiting():
                        self.context.store.wait()
                        self.context.reporter.settle()
                if self.members.group is not None:
                    with self._account("communication"), self._waiting(), exchange():
                        self.members.group.barrier()
                break
            except PeerLost as error:
                self._repair(error)

    # Changing generations

    def _boundary(self) -> None:
        """Between two steps: into the next generation, if all have agreed to it, or one has broken."""
        try:
            self._seat()
        except PeerLost as error:
            self._repair(error)
        if self._news or self.members.broken or (self.members.size == 1 and self.members.news):
            self._regroup()

    def _repair(self, error: PeerLost) -> None:
        """The exchange broke: find the others again."""
        self.members.lost(error)
        self._regroup()

    def _regroup(self) -> None:
        """Enter the next generation: meet its members, build the group, and be level with whoever is ahead.

        Raises:
            Dismissed: it does not include this worker.
        """
        context, members = self.context, self.members
        before = context.ledger.switch("regroup", now())
        if self.strategy is not None:
            self.strategy.close()
            self.strategy = None
        aim: tuple[tuple[int, ...], int] | None = None
        while True:
            members.let_go()
            start = members.meet(self.step if self._entered else -1, self.exchanges, self._pause, self._spend)
            context.ledger.switch("regroup", now())
            led = self._entered and members.rank == 0
            if self._entered or start.source is not None or not context.store.committed():
                # Where it will go on is known before it is level with the others: it reads while the group is built.
                aim = (
                    start.news.lanes[start.rank],
                    self.step if start.source is None else start.positions[start.source][0],
                )
                context.train.carry(*aim)
            context.trouble("regroup", self.model, self.step)
            try:
                members.join(start)
                self._level(start)
                break
            except PeerLost as error:
                members.lost(error)
        self.strategy = self._strategy_for(members.group)
        if aim != (members.lanes, self.step):
            context.train.carry(members.lanes, self.step)
        self._news, self._first = False, True
        context.reporter.enter(leads=members.rank == 0)
        if members.rank == 0 and not led:
            self._lead()
        self._sweep()
        context.ledger.switch(before if before != "idle" else "compute", now())

    def _strategy_for(self, group: Group | None) -> Strategy:
        return create(
            self.job.strategy,
            self.model,
            reproducible=self.job.reproducible,
            lanes=self.job.lanes,
            tail=self.tail.size,
            changes=self.buffers.size,
            group=group,
        )

    def _sweep(self) -> None:
        """Let go of the group before at once: an exception's traceback may hold its sockets and threads in a cycle.

        What was there when the session began is left out of the search, which then takes a millisecond.
        """
        if not self._swept:
            gc.freeze()
        self._swept = True
        gc.collect()

    def _level(self, start: Start) -> None:
        """Have the newest state of all."""
        group, positions = self.members.group, start.positions
        self._sitters = False
        if start.source is None:
            self._begin_from_checkpoint()
            self._abreast = True
        elif group is not None and any(position != positions[start.source] for position in positions):
            if start.rank == start.source:
                whole = self._whole()
                transfer.send(group, whole)
            else:
                whole = transfer.receive(group, start.source, self.device)
            if self._entered:
                self._sitters = whole["evaluating"] and any(step < 0 for step, _ in positions)
                if positions[start.rank] != positions[start.source]:
                    self._catch_up(whole)
            else:
                with self._waiting():
                    while whole["evaluating"]:  # user's code has yet to act on the outcome, so this is not the state
                        whole = transfer.receive(group, start.source, self.device)
                self._take(whole)
        self._source = start.source or 0
        self._entered = True

    def _seat(self) -> None:
        """The others joined while these evaluated, and have waited for them to get here.

        Raises:
            PeerLost: a member went away.
        """
        group = self.members.group
        if not self._sitters or group is None:
            return
        with self._waiting():
            if self.members.rank == self._source:
                transfer.send(group, self._whole())
            else:
                transfer.receive(group, self._source, self.device)
        self._sitters = False

    def _begin_from_checkpoint(self) -> None:
        """From the newest sound checkpoint, or the weights that rank 0 made."""
        context, group = self.context, self.members.group
        chosen: Checkpoint | None = None
        if self.members.rank == 0:
            context.store.clean()
            chosen, passed_over = context.store.newest()
            for reason in passed_over:
                context.reporter.note(f"passed over a damaged checkpoint: {reason}")
        if group is not None:
            with exchange():
                chosen = group.broadcast_object(chosen, 0)
        if chosen is not None:
            self._restore(chosen)
        elif group is not None:
            update.broadcast(self.model, group)
        self._saved_step, self._saved_at = self.step, now()
        context.reporter.restart(self.members.generation)
        context.reporter.began(self.step, self.total_steps, self.order.steps_per_epoch)

    def _lead(self) -> None:
        """This worker is rank 0 now: what the one before it began to write may never be committed."""
        self.context.store.clean()
        committed = self.context.store.committed()
        newest = committed[-1].step if committed else 0
        if newest < self._saved_step:
            self._saved_step = newest

    def _pause(self) -> None:
        """All are about to be taken away: nothing may be lost with them."""
        if self._entered and self.members.rank == 0:
            if self._saved_step != self.step:
                self.save("all workers are being taken away")
            with self._account("checkpoint"):
                self.context.store.wait()

    @contextmanager
    def _account(self, cause: str) -> Iterator[None]:
        before = self.context.ledger.switch(cause, now())
        try:
            yield
        finally:
            self.context.ledger.switch(before, now())

    def _spend(self, cause: str) -> None:
        self.context.ledger.switch(cause, now())

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        self.members.waits(True)
        try:
            yield
        finally:
            self.members.waits(False)

    # Steps

    def _require_commit(self) -> None:
        step, self._open_step = self._open_step, None
        if step is not None and not step.committed:
            raise BadInput(
                f"step {step.number} was left before its lanes were done",
                "the loop over step.lanes() was broken off or never begun",
                "Let the loop over step.lanes() run to its end.",
            )

    def _refuse_step(self, *_: Any) -> None:
        if not self._applying:
            raise BadInput(
                "optimizer.step() was called in the loop",
                "Headway calls it when all lanes of the step are done",
                "Leave it out, and zero_grad() too.",
            )

    def _apply(self) -> None:
        self._applying = True
        try:
            update.apply(self.optimizer, self.schedule, self.scaler, self.model, self.job.clip_norm)
        finally:
            self._applying = False

    def _commit(self, step: Step) -> None:
        """The step's update is to be applied: its sums are in the gradients and the tail."""
        self.losses = self.tail.losses()
        loss = sum(self.losses)
        if loss - loss != 0:
            bad = [lane for lane, part in enumerate(self.losses) if part - part != 0]
            raise NonFiniteLoss(
                f"loss={loss} at step {step.number}, from lane {', '.join(map(str, bad))}",
                "the update was not applied",
                "Lower the learning rate, set clip_norm, or look at the rows of that step.",
            )
        self._apply()
        self.samples.add(self.step, self.tail.digests())
        self.step += 1
        self.exchanges += 1
        self.stopping, self._news = self.tail.stopping(), self.tail.news()
        at = now()
        self.context.ledger.commit(at)
        self.members.committed(self.step, at - self._committed_at, self._first)
        self._first, self._committed_at = False, at
        self._tell(step)

    def _tell(self, step: Step) -> None:
        """The step is committed, here or by those ahead."""
        step.loss, step.committed = sum(self.losses), True
        rate = float(self.optimizer.param_groups[0]["lr"])
        self.context.reporter.step(step.number, step.epoch, step.loss, rate, step.rows, self.samples.hexdigest())

    def _checkpoint_if_due(self) -> None:
        rule = self.job.checkpoint
        reason = due(self.step, now(), self._saved_step, self._saved_at, rule.every_steps, rule.every_s)
        if reason is None and rule.keep_best and self._evaluated_step == self.step != self._saved_step:
            reason = "evaluation"  # the best by a metric are only known among those that were judged
        wanted = self.members.save_wanted
        if reason is None and wanted is not None and self._saved_step != self.step:
            reason = wanted
        if reason is not None:
            self.save(reason)

    # State

    def _snapshot(self) -> dict[str, Any]:
        """Model, optimiser and the rest as a tree of tensors and plain values, not copied."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "session": {
                "schedule": self.schedule.state_dict() if self.schedule else None,
                "scaler": self.scaler.state_dict(),
                "samples": self.samples.hexdigest(),
                "state": {name: state.state_dict() for name, state in self._state.items()},
            },
        }

    def _whole(self) -> dict[str, Any]:
        """All that another worker needs to go on in this one's place."""
        return {
            "parts": self._snapshot(),
            "step": self.step,
            "exchanges": self.exchanges,
            "stopping": self.stopping or self._ending,
            "metrics": self.metrics,
            "losses": self.losses,
            "evaluated_step": self._evaluated_step,
            "saved_step": self._saved_step,
            "evaluating": self._evaluating,
            "journal": self.context.reporter.journal(),
            "random": (torch.get_rng_state(), np.random.get_state(), random.getstate()),
        }

    def _catch_up(self, whole: dict[str, Any]) -> None:
        """Be level with one that completed an exchange which broke here.

        What the user's code does after it is still to be done here: it has its own state and says its own things.
        """
        self._load(whole["parts"], registered=False)
        self.step, self.exchanges, self.stopping = whole["step"], whole["exchanges"], whole["stopping"]
        self.metrics, self.losses = whole["metrics"], whole["losses"]

    def _take(self, whole: dict[str, Any]) -> None:
        """Take another worker's state and place."""
        self._load(whole["parts"])
        self.step, self.exchanges, self.stopping = whole["step"], whole["exchanges"], whole["stopping"]
        self.metrics, self.losses = whole["metrics"], whole["losses"]
        self._evaluated_step, self._saved_step = whole["evaluated_step"], whole["saved_step"]
        self._saved_at = now()
        self.context.reporter.take(whole["journal"])
        tensor, array, plain = whole["random"]
        torch.set_rng_state(tensor.cpu())
        np.random.set_state(array)
        random.setstate(plain)

    def _load(self, parts: dict[str, Any], registered: bool = True) -> None:
        rest = parts["session"]
        self.model.load_state_dict(parts["model"])
        self.optimizer.load_state_dict(parts["optimizer"])
        if self.schedule and rest["schedule"]:
            self.schedule.load_state_dict(rest["schedule"])
        if self.scaler.is_enabled():
            self.scaler.load_state_dict(rest["scaler"])
        self.samples = Chain(rest["samples"])
        if not registered:
            return
        self._loaded_state = rest["state"]
        for name, state in self._state.items():
            if name in self._loaded_state:
                state.load_state_dict(self._loaded_state[name])

    def _facts(self, reason: str) -> dict[str, Any]:
        cursor = self.order.cursor(self.step)
        return {
            "run": self.context.run,
            "reason": reason,
            "cursor": {"seed": cursor.seed, "epoch": cursor.epoch, "step": cursor.step},
            "samples_sha256": self.samples.hexdigest(),
            "metrics": self.metrics if self._evaluated_step == self.step else {},
            "workers": self.members.size,
        }

    def _restore(self, checkpoint: Checkpoint) -> None:
        try:
            self._load(checkpoint.load(self.device))
        except (RuntimeError, ValueError, KeyError) as error:
            raise BadCheckpoint(
                f"checkpoint {checkpoint.folder} does not fit the task's model or optimiser",
                str(error).splitlines()[0],
                "Put the task back as it was when the run began, or start a new run.",
            ) from error
        self.step = checkpoint.step
        self.metrics = dict(checkpoint.facts.get("metrics", {}))
        self._evaluated_step = self.step if self.metrics else -1
