"""The engine: a training loop that still looks like PyTorch, over lanes that may be anywhere.

with headway.session(model, optimizer) as session:
    for step in session.steps():
        for batch in step.lanes():
            step.backward(loss_fn(model, batch))
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import nn

from headway.core.digest import Chain
from headway.core.lanes import carried
from headway.core.retention import due
from headway.elastic import batches, update
from headway.elastic.buffers import LaneBuffers
from headway.elastic.context import Context, current
from headway.elastic.evaluation import evaluate
from headway.elastic.tail import Tail
from headway.errors import BadCheckpoint, BadInput, NonFiniteLoss
from headway.strategies import create
from headway.strategies.group import Group

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler

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
    """See `session`. Fields a loop may read: step, epoch, total_steps, optimizer, schedule, device."""

    def __init__(self, context: Context, model: nn.Module, optimizer: Optimizer, schedule: Schedule | None) -> None:
        job, order = context.job, context.train.order
        self.context, self.job, self.order = context, job, order
        self.model, self.optimizer = model, optimizer
        self.schedule: LRScheduler | None = None
        self.device = torch.device(context.device)
        self.step = 0
        self.total_steps = job.steps or (job.epochs or 0) * order.steps_per_epoch
        self.lanes = carried(job.lanes, context.size)[context.rank]
        self.samples = Chain()
        self.stopping = False
        self.metrics: dict[str, float] = {}
        self._make_schedule = schedule
        self._state: dict[str, Any] = {}
        self._loaded_state: dict[str, Any] = {}
        self._evaluated_step = -1
        self._open_step: Step | None = None
        self._applying = False
        self._guards: list[Any] = []
        self._saved_step, self._saved_at = 0, 0.0

    @property
    def epoch(self) -> int:
        """Walks through the data that are complete before the next step."""
        return self.order.cursor(self.step).epoch

    def register(self, name: str, state: Any) -> None:
        """Let an object of the user's travel with checkpoints: anything with `state_dict` and `load_state_dict`.

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
            self.optimizer = update.named_optimizer(job.optimizer, self.model)
        self.schedule = update.schedule(job.schedule, self.optimizer, self.total_steps, self._make_schedule)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=job.precision == "fp16")
        if context.start is not None:
            self._restore(context.start.load(self.device))
        elif context.size > 1:
            update.broadcast(self.model, context.handle)
        self.buffers = LaneBuffers(self.model)
        self.tail = Tail(job.lanes, self.buffers.size)
        self.strategy = create(
            job.strategy,
            self.model,
            lanes=job.lanes,
            tail=self.tail.size,
            changes=0,
            group=Group(context.rank, context.size, context.handle) if context.size > 1 else None,
        )
        self._saved_step, self._saved_at = self.step, time.monotonic()
        self._guards = [o.register_step_pre_hook(self._refuse_step) for o in {theirs, self.optimizer}]
        context.reporter.began(self.step, context.size, self.total_steps, self.order.steps_per_epoch)
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
        self.metrics, self._evaluated_step = evaluate(self, metrics), self.step
        self.record(self.metrics)
        return self.metrics

    def record(self, values: dict[str, float]) -> None:
        """Record numbers of the user's own at this step, in the report and in MLflow. Call it on every worker."""
        self.context.reporter.metrics(self.step, {name: float(value) for name, value in values.items()})

    def save(self, reason: str) -> None:
        """Take a checkpoint of this moment; it is written in the background. Call it on every worker."""
        self._saved_step, self._saved_at = self.step, time.monotonic()
        if self.context.rank == 0:
            blocked = self.context.store.save(self.step, self._snapshot, self._facts(reason))
            self.context.reporter.checkpoint_begun(self.step, reason, blocked)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._end()
        finally:
            for guard in self._guards:
                guard.remove()
            self.strategy.close()

    def _end(self) -> None:
        if self._open_step is not None and self._open_step.begun:
            self._require_commit()  # left by break or return
        if self._saved_step != self.step:
            self.save("interrupted" if self.stopping and self.step < self.total_steps else "end of the run")
        self.context.reporter.ended(self.step, update.weights_sha256(self.model))

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

    def _checkpoint_if_due(self) -> None:
        rule = self.job.checkpoint
        now = time.monotonic()
        reason = due(self.step, now, self._saved_step, self._saved_at, rule.every_steps, rule.every_s)
        if reason is None and rule.keep_best and self._evaluated_step == self.step != self._saved_step:
            reason = "evaluation"  # the best by a metric are only known among those that were judged
        if reason is not None:
            self.save(reason)

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

    def _facts(self, reason: str) -> dict[str, Any]:
        cursor = self.order.cursor(self.step)
        return {
            "run": self.context.run,
            "reason": reason,
            "cursor": {"seed": cursor.seed, "epoch": cursor.epoch, "step": cursor.step},
            "samples_sha256": self.samples.hexdigest(),
            "metrics": self.metrics if self._evaluated_step == self.step else {},
            "workers": self.context.size,
        }

    def _restore(self, parts: dict[str, Any]) -> None:
        assert self.context.start is not None
        rest = parts["session"]
        try:
            self.model.load_state_dict(parts["model"])
            self.optimizer.load_state_dict(parts["optimizer"])
            if self.schedule and rest["schedule"]:
                self.schedule.load_state_dict(rest["schedule"])
        except (RuntimeError, ValueError, KeyError) as error:
            raise BadCheckpoint(
                f"checkpoint {self.context.start.folder} does not fit the task's model or optimiser",
                str(error).splitlines()[0],
                "Put the task back as it was when the run began, or start a new run.",
            ) from error
        if self.scaler.is_enabled():
            self.scaler.load_state_dict(rest["scaler"])
        self._loaded_state = rest["state"]
        for name, state in self._state.items():
            if name in self._loaded_state:
                state.load_state_dict(self._loaded_state[name])
        self.samples = Chain(rest["samples"])
        self.step = self.context.start.step
        self.metrics = dict(self.context.start.facts.get("metrics", {}))
        if self.metrics:
            self._evaluated_step = self.step


class Step:
    """One optimiser update over one global batch. Fields: number, epoch, rows, last_of_epoch; loss after the lanes."""

    def __init__(self, session: Session) -> None:
        cursor = session.order.cursor(session.step)
        self._session = session
        self.number, self.epoch, self._at = session.step, cursor.epoch, cursor.step
        self.last_of_epoch = cursor.step + 1 == session.order.steps_per_epoch
        self.sizes = session.order.sizes(cursor.step)
        self.rows = sum(self.sizes)
        self._fullest = max(range(len(self.sizes)), key=self.sizes.__getitem__)
        self.loss = float("nan")
        self.begun = self.committed = False
        self._lane: int | None = None
        self._mine = [lane for lane in session.lanes if self.sizes[lane]]

    def lanes(self) -> Iterator[dict[str, torch.Tensor]]:
        """The batches of the lanes that this worker carries; when the loop over them ends, the step is committed.

        Yields:
            The lane's rows as tensors by name on the worker's device, first dimension = rows. Randomness inside the
            loop's body follows the lane; autocast is on where the job asks for mixed precision.
        """
        session = self._session
        if self.begun:
            raise BadInput(f"step.lanes() was called twice in step {self.number}", "a step has its lanes once", "")
        self.begun = True
        session.strategy.begin(self._mine)
        session.tail.clear()
        session.buffers.begin()
        for lane in self._mine:
            batch, ids = batches.training(session.context, self.epoch, self._at, lane, session.device)
            session.tail.ids(lane, ids)
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
            session.buffers.leave(self.sizes[lane] / self.rows, counters=lane == self._fullest)
        self._commit()

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
        share = self.sizes[lane] / self.rows
        session.tail.loss(lane, loss.detach().float() * share)
        self._lane = None
        session.strategy.before_backward(lane, last=lane == self._mine[-1])
        with torch.autocast(session.device.type, enabled=False):
            session.scaler.scale(loss * share).backward()
        session.strategy.after_backward()

    def _commit(self) -> None:
        session = self._session
        session.tail.stop(session.context.reporter.stop_requested)
        session.tail.buffers(session.buffers.packed())
        session.tail.take(session.strategy.finish(session.tail.values)[0])
        losses = session.tail.losses()
        self.loss = sum(losses)
        if self.loss - self.loss != 0:
            bad = [lane for lane, loss in enumerate(losses) if loss - loss != 0]
            raise NonFiniteLoss(
                f"loss={self.loss} at step {self.number}, from lane {', '.join(map(str, bad))}",
                "the update was not applied",
                "Lower the learning rate, set clip_norm, or look at the rows of that step.",
            )
        session._applying = True
        update.apply(session.optimizer, session.schedule, session.scaler, session.model, session.job.clip_norm)
        session._applying = False
        session.buffers.accept(session.tail.buffer_values())
        session.samples.add(session.step, session.tail.digests())
        session.step += 1
        session.stopping = session.tail.stopping()
        self.committed = True
        rate = float(session.optimizer.param_groups[0]["lr"])
        digest = session.samples.hexdigest()
        session.context.reporter.step(self.number, self.epoch, self.loss, rate, self.rows, digest)
