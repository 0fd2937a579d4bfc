"""The engine's face: a training loop that still looks like PyTorch, over lanes that may be anywhere.

with headway.session(model, optimizer) as session:
    for step in session.steps():
        for batch in step.lanes():
            step.backward(loss_fn(model, batch))
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import nn

from headway import optim
from headway.core.watch import At
from headway.elastic.worker import update
from headway.elastic.worker.context import Context, current
from headway.elastic.worker.engine import Engine
from headway.elastic.worker.evaluation import Evaluation
from headway.elastic.worker.replica import Replica
from headway.elastic.worker.standing import Standing
from headway.elastic.worker.step import Step
from headway.errors import BadInput
from headway.strategies import PeerLost

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler

    Schedule = Callable[[Optimizer, int], LRScheduler | None]


def session(model: nn.Module, optimizer: Optimizer, schedule: Schedule | None = None) -> Session:
    """The session of the run that this worker belongs to; use it as a context manager.

    Args:
        model: on any device; it is moved to the worker's. Rank 0's weights are given to all.
        optimizer: over the model's parameters, and others of yours that are trained with it. The job's `optimizer`, if
            given, takes its place.
        schedule: called as schedule(optimizer, steps), gives a torch scheduler that is stepped once per step. The
            job's `schedule`, if given, takes its place.

    Raises:
        BadInput: called outside a Headway run.
    """
    return Session(current(), model, optimizer, schedule)


class Session:
    """See `session`. A loop may read step, epoch, total_steps, model, optimizer, schedule, device, rank, workers."""

    def __init__(self, context: Context, model: nn.Module, optimizer: Optimizer, schedule: Schedule | None) -> None:
        job, device = context.job, torch.device(context.device)
        model.to(device)
        self._theirs = optimizer
        if job.optimizer is not None:
            optimizer = optim.named_optimizer(job.optimizer, model)
        made = optim.schedule(job.schedule, optimizer, context.total_steps, schedule)
        self.context, self.device = context, device
        self.replica = Replica(model, optimizer, made, job.precision, device)
        self.engine = Engine(context, self.replica)
        self._open_step: Step | None = None
        self._guards: list[Any] = []

    @property
    def model(self) -> nn.Module:
        return self.replica.model

    @property
    def optimizer(self) -> Optimizer:
        """The job's, or the loop's own."""
        return self.replica.optimizer

    @property
    def total_steps(self) -> int:
        """Of the whole run."""
        return self.engine.total_steps

    @property
    def schedule(self) -> LRScheduler | None:
        return self.replica.schedule

    @schedule.setter
    def schedule(self, schedule: LRScheduler | None) -> None:
        self.replica.schedule = schedule

    @property
    def step(self) -> int:
        """Committed steps."""
        return self.replica.step

    @property
    def epoch(self) -> int:
        """Walks through the data that are complete before the next step."""
        return self.engine.order.cursor(self.step).epoch

    @property
    def rank(self) -> int:
        """Of this worker at present, 0 to workers - 1."""
        return self.engine.pact.rank

    @property
    def workers(self) -> int:
        """Workers at present."""
        return self.engine.pact.size

    @property
    def metrics(self) -> dict[str, float]:
        """Of the newest evaluation."""
        return self.replica.outcome.metrics

    def register(self, name: str, state: Any) -> None:
        """Let an object of the user's travel with checkpoints, and to workers that join: anything with `state_dict` and
        `load_state_dict`.

        Call it before the loop; when the run is resumed, its state is loaded at once (or as the session is entered).

        Raises:
            BadInput: two objects of one name.
        """
        self.replica.register(name, state)

    def stop(self) -> None:
        """End the loop after the step that is under way. Call it on every worker."""
        self.replica.outcome.stopping = True

    def __enter__(self) -> Self:
        engine = self.engine
        optimizers = {self._theirs, self.optimizer}
        self._guards = [o.register_step_pre_hook(self.replica.refuse_step) for o in optimizers]
        engine.spend("idle")
        if engine.members.running:  # it first warms up, in its first step's lanes
            engine.standing = Standing.REHEARSING
        else:
            engine.members.ready()
            engine.regroup()
        return self

    def steps(self) -> Iterator[Step]:
        """The steps that remain, one optimiser update each. Ends early when the run is asked to stop.

        The model is put into training mode once, at the beginning, so that parts which the loop then sets to `eval()`
        stay as they are.
        """
        self.model.train()
        while self.step < self.total_steps and not self.replica.outcome.stopping:
            self.context.at = f"step {self.step}"
            self.engine.begin_step()
            self._open_step = Step(self.engine)
            yield self._open_step
            self._require_commit()
            self.engine.save_if_due()

    def evaluate(self, metrics: Callable[[nn.Module, Any], dict[str, Any]]) -> dict[str, float]:
        """Metrics over the whole validation set, the same on every worker and for every number of workers.

        Args:
            metrics: called as metrics(model, batch), gives means over the batch's rows by name.

        Returns:
            The means over all rows; empty where the job has no validation set.

        Raises:
            BadInput: metrics of other names for one batch than for another.
        """
        if self.context.validation is None:
            return {}
        if self.engine.standing >= Standing.ABREAST:  # a worker that joins takes part from its first step on
            Evaluation(self.engine, metrics).run()
            self.record(self.metrics)
        return dict(self.metrics)

    def record(self, values: dict[str, float]) -> None:
        """Record numbers of the user's own at this step, in the report and in MLflow. Call it on every worker."""
        if self.engine.standing >= Standing.ABREAST:
            self.context.journal.metrics(self.step, {name: float(value) for name, value in values.items()})

    def save(self, reason: str) -> None:
        """Take a checkpoint of this moment; it is written in the background. Call it on every worker.

        One that comes while another is being written is left out, and counted.
        """
        if self.engine.standing >= Standing.ABREAST:
            self.engine.save(reason)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._end()
        finally:
            for guard in self._guards:
                guard.remove()
            self.engine.pact.close()

    def _end(self) -> None:
        if self._open_step is not None and self._open_step.begun:
            self._require_commit()  # left by break or return
        engine = self.engine
        if engine.standing is Standing.REHEARSING:  # it came without a step to do
            engine.members.ready()
            engine.regroup()
        engine.standing = Standing.ENDING
        self.context.journal.ended(self.step, update.weights_sha256(self.model))
        while True:
            try:
                # Nobody goes before all is safe: else the leader's death could lose the end.
                stopped = self.replica.outcome.stopping and self.step < self.total_steps
                engine.make_safe("interrupted" if stopped else "end of the run")
                with engine.account("communication", At.EXCHANGE):
                    engine.pact.barrier()
                return
            except PeerLost as lost:
                engine.repair(lost)

    def _require_commit(self) -> None:
        step, self._open_step = self._open_step, None
        if step is not None and not step.committed:
            raise BadInput(
                f"step {step.number} was left before its lanes were done",
                "the loop over step.lanes() was broken off or never begun",
                "Let the loop over step.lanes() run to its end.",
            )
