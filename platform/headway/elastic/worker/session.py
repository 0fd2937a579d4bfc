"""The engine's face: a training loop that still looks like PyTorch, over lanes that may be anywhere.

with headway.session(model, optimizer) as session:
    for step in session.steps():
        for batch in step.lanes():
            step.backward(loss_fn(model, batch))
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from threading import get_ident
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from weakref import WeakKeyDictionary

import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from headway import weights
from headway.core.watch import At
from headway.elastic.worker import blocks, compiling, lazy, recompute, records, said, update
from headway.elastic.worker.chosen import chosen
from headway.elastic.worker.context import Context, current
from headway.elastic.worker.engine import Engine
from headway.elastic.worker.evaluation import Evaluation
from headway.elastic.worker.held import Held
from headway.elastic.worker.hooking import Hooks
from headway.elastic.worker.replica import Replica
from headway.elastic.worker.rounds import Rounds
from headway.elastic.worker.standing import Standing
from headway.elastic.worker.step import Step
from headway.errors import BadInput
from headway.logged.verbs import Logging
from headway.metrics.merging import Measures
from headway.metrics.running import Running
from headway.strategies import PeerLost

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler

    from headway.hooks import Hook

    Clip = Callable[[list[nn.Parameter]], Any]
    Schedule = Callable[[Any, int], LRScheduler | Mapping[str, LRScheduler] | None]


def session(
    model: nn.Module | Mapping[str, nn.Module],
    optimizer: Optimizer | Mapping[str, Optimizer],
    schedule: Schedule | None = None,
    modules: nn.Module | Mapping[str, nn.Module] | Sequence[nn.Module] = (),
    clip: Clip | None = None,
    hooks: Sequence[Hook] = (),
    measures: Mapping[str, Any] | None = None,
) -> Session:
    """The session of the run that this worker belongs to; use it as a context manager.

    Args:
        model: on any device; it is moved to the worker's. Rank 0's weights are given to all. Several by name become an
            `nn.ModuleDict`: session.model["critic"].
        optimizer: over the model's parameters, and others of yours that are trained with it. The job's `optimizer`, if
            given, takes its place. Several by name, each over parameters of its own, take turns: see `Step.updates`.
        schedule: called as schedule(optimizer, steps), gives a torch scheduler that is stepped once per step;
            ReduceLROnPlateau after each evaluation, with the job's `schedule.metric`. The job's `schedule`, if given,
            takes its place. Of several optimisers it is given the dict, and gives one of schedulers by the same names,
            those that have one.
        modules: others of yours beside the model (a loss with parameters or buffers, a second network), one, several,
            or by name: they are moved to the worker's device, their buffers are averaged over lanes as the model's are,
            and kept in checkpoints, as are those of their parameters that the optimiser holds.
        clip: called as clip(parameters) before each update, when their gradients are summed over all lanes: limits them
            in place, as `torch.nn.utils.clip_grad_value_` does. The job's `clip_norm`, if given, takes its place.
        hooks: called after steps, epochs and evaluations, see `headway.Hook`.
        measures: metrics of training that are no means, by name, for `Step.measure`; as of `Session.evaluate`.

    Raises:
        BadInput: called outside a Headway run; layers whose shape is not known yet; a schedule that cannot be used; a
            hook or a metric that is none.
    """
    return Session(current(), model, optimizer, schedule, modules, clip, hooks, measures)


class Session(Logging):
    """See `session`. A loop may read step, epoch, total_steps, model, optimizer, schedule, device, rank, workers."""

    def __init__(
        self,
        context: Context,
        model: nn.Module | Mapping[str, nn.Module],
        optimizer: Optimizer | Mapping[str, Optimizer],
        schedule: Schedule | None,
        modules: nn.Module | Mapping[str, nn.Module] | Sequence[nn.Module] = (),
        clip: Clip | None = None,
        hooks: Sequence[Hook] = (),
        measures: Mapping[str, Any] | None = None,
    ) -> None:
        job, device = context.job, torch.device(context.device)
        model, others = weights.whole(model), _by_name(modules)
        for each in (model, *others.values()):
            lazy.refuse(each)
            each.to(device)
        self.checkpointed = recompute.use(job.activation_checkpointing, model, others)
        """Blocks that keep no activations."""
        self._theirs = list(optimizer.values()) if isinstance(optimizer, Mapping) else [optimizer]
        found, made = chosen(job, model, optimizer, schedule, context.total_steps, clip is not None)
        metric = job.schedule.metric if job.schedule else None
        self.context, self.device = context, device
        self.replica = Replica(model, found, made, job.precision, device, others, metric, clip)
        self.replica.measured = Running(Measures(measures or {}))
        self.engine = engine = Engine(context, self.replica)
        if job.strategy.is_local:
            engine.rounds = Rounds(engine)
        elif job.strategy.keeps:
            engine.held = Held(engine)
        self.hooks = Hooks(self.engine, self, hooks)
        self.engine.begun, self.engine.saved = self.hooks.begun, self.hooks.saved
        self._open_step: Step | None = None
        self._reason = ""
        """For the end that the loop asked for."""
        self._guards: list[Any] = []
        self._others: WeakKeyDictionary[Optimizer, tuple[int, int | None]] = WeakKeyDictionary()
        """Optimisers of the user's own that were stepped in a lane, and in which first."""
        self._thread = get_ident()
        self._watch = ExitStack()

    @property
    def model(self) -> nn.Module:
        return self.replica.model

    @property
    def optimizer(self) -> Optimizer:
        """The job's, or the loop's own; of several the first."""
        return self.replica.optimizer

    @property
    def optimizers(self) -> dict[str, Optimizer]:
        """All by name; the only one under ''."""
        return {each.name: each.optimizer for each in self.replica.updates}

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

    @property
    def tables(self) -> dict[str, Any]:
        """Of the newest evaluation, what is more than a number: vectors and matrices by name, as lists."""
        return dict(self.replica.outcome.tables)

    def register(self, name: str, state: Any) -> None:
        """Let an object of the user's travel with checkpoints, and to workers that join: anything with `state_dict` and
        `load_state_dict`.

        Call it before the loop; when the run is resumed, its state is loaded at once (or as the session is entered).

        Raises:
            BadInput: two objects of one name.
        """
        self.replica.register(name, state)

    def stop(self, reason: str = "") -> None:
        """End the run after the step that is under way, or that was the last; one worker that asks is enough.

        Args:
            reason: for people: the report has it; of one worker that asks alone, as a note.
        """
        self.engine.stop_asked = True
        self._reason = reason
        if reason:
            self.context.journal.note(f"the loop asked for the end at step {self.step}: {reason}", ends=reason)

    def __enter__(self) -> Self:
        engine = self.engine
        self.replica.settle()
        self._watch.enter_context(self.replica.modules.watched())
        self._watch.enter_context(compiling.booked(engine))
        optimizers = {*self._theirs, *self.optimizers.values()}
        self._guards = [o.register_step_pre_hook(self.replica.refuse_step) for o in optimizers]
        self._guards.append(register_optimizer_step_pre_hook(self._refuse_other))
        engine.spend("idle")
        if engine.members.running:  # it first warms up, in its first step's lanes
            engine.standing = Standing.REHEARSING
        else:
            engine.members.ready()
            engine.regroup()
            if engine.job.activation_checkpointing and not self.checkpointed and self.rank == 0:
                self.context.journal.note(blocks.NONE)
        return self

    def steps(self) -> Iterator[Step]:
        """The steps that remain, one optimiser update each. Ends early when the run is asked to stop.

        The model is put into training mode once, at the beginning, so that parts which the loop then sets to `eval()`
        stay as they are.
        """
        self.model.train()
        self._stand()
        while self.step < self.total_steps and not self.replica.outcome.stopping:
            self.context.at = f"step {self.step}"
            if self.engine.stop_asked and self._abreast and self.engine.may_halt:
                Step(self.engine).halt()
                continue
            self.engine.begin_step()
            self.replica.check_schedules()
            self._open_step = step = Step(self.engine, self.hooks.step_ended)
            yield step
            self._require_commit()
            if step.counts and step.last_of_epoch:
                self.hooks.epoch_ended()
            self.engine.save_if_due()
            self.engine.keep_if_due()
            self._stand()

    @property
    def _abreast(self) -> bool:
        """Whether what this worker's code does now is of the step that all are at."""
        return self.engine.standing >= Standing.ABREAST and not self.engine.left

    def _stand(self) -> None:
        """At the gate, where this state is evaluated; else it may be yet, before the next step's lanes."""
        if self.engine.standing > Standing.REHEARSING and self.replica.outcome.evaluated_step == self.step:
            self.engine.stand()

    def evaluate(
        self, metrics: Callable[[nn.Module, Any], dict[str, Any]], measures: Mapping[str, Any] | None = None
    ) -> dict[str, float]:
        """Metrics over the whole validation set, the same on every worker and for every number of workers.

        Args:
            metrics: called as metrics(model, batch), gives means over the batch's rows by name.
            measures: metrics that are no means, by name: of torchmetrics, of `headway.metrics`, or with `update`,
                `merge` and `compute`. For such a name metrics() gives the tuple of the arguments of its `update`.

        Returns:
            The means over all rows, and what the measures give; empty where the job has no validation set.

        A metric that only some batches have is the mean over their rows.

        Raises:
            BadInput: metrics() gives something else than one number for a name; a measure that is none, whose states
                cannot be merged, or that is not updated.
        """
        if self.context.validation is None:
            return {}
        self._between_steps("evaluate")
        if self._abreast:  # a worker that joins takes part from its first step on
            evaluation = Evaluation(self.engine, metrics, self.hooks.weights, Measures(measures or {}))
            if not evaluation.run():
                return dict(self.metrics)
            tables = [self.tables] if self.tables else []
            self.context.journal.metrics(self.step, dict(self.metrics), *tables)
            self.hooks.evaluated(self.metrics)
            self.engine.evaluated(self.engine.at_gate)
        return dict(self.metrics)

    def record(self, values: Mapping[str, Any], per_worker: bool = False) -> None:
        """Record numbers of the user's own at this step, in the report and in MLflow, under these names. Call it on
        every worker, outside the loop over step.lanes().

        Args:
            values: scalars by name. They must be the same on all workers (what follows from the weights, `step.loss`
                or `metrics`), which is compared in the next exchange. For means over the step's rows there is
                `step.record`.
            per_worker: keep each worker's own values instead, as NAME/WORKER (w0, w1, ...).

        Raises:
            BadInput: called in the loop over step.lanes(); no scalars. In the step that follows, or at the end: workers
                gave different values.
        """
        if self._open_step is not None and self._open_step.in_lane:
            raise BadInput(
                "session.record() was called in the loop over step.lanes()",
                "a lane's value depends on which lanes this worker carries",
                "Call step.record(name, value) there: it is the mean over the step's rows.",
            )
        engine, found = self.engine, records.numbers("session.record", values)
        if not self._abreast or not found:
            return
        if per_worker:
            worker = engine.pact.names[engine.pact.rank]
            self.context.journal.own(self.step, {f"{name}/{worker}": value for name, value in found.items()})
        else:
            if engine.rounds is None or engine.rounds.between:  # else a step's loss is that of the lanes carried here
                engine.said.add(self.step, found)
            self.context.journal.recorded(self.step, found)

    def measure(self, name: str, /, *arguments: Any, **named: Any) -> None:
        """As `Step.measure` of the step whose lane runs; where there is none, as in an evaluation, nothing is done."""
        if self._open_step is not None and self._open_step.in_lane:
            self._open_step.measure(name, *arguments, **named)

    def log(self, kind: str, name: str, thing: Any, caption: str = "") -> None:
        """What the four of `Logging` do: kind is figure, text, table or artifact."""
        step = self._open_step
        in_lane = step is not None and step.in_lane
        self.engine.logged.add(kind, name, thing, caption, step.number if step is not None and in_lane else None)

    _take_logged = log

    def save(self, reason: str) -> None:
        """Take a checkpoint of this moment; it is written in the background. Call it on every worker.

        One that comes while another is being written is left out, and counted.
        """
        self._between_steps("save")
        if self._abreast:
            self.engine.save(reason)

    def _between_steps(self, verb: str) -> None:
        """Raises BadInput: it is called between two passes of a step."""
        if self.replica.passes:
            raise BadInput(
                f"session.{verb}() was called between two updates of step {self.step}",
                "a state is kept, and judged, at a step's end",
                "Call it after the loop over step.updates().",
            )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._end()
        finally:
            for guard in self._guards:
                guard.remove()
            self._watch.close()
            if isinstance(self.engine.rounds, Rounds):
                self.engine.rounds.close()
            self.engine.pact.close()
            if self.engine.held is not None:
                self.engine.held.close()

    def _refuse_other(self, optimizer: Optimizer, *_: Any) -> None:
        """A hook of every optimiser. One that is made and used up in a lane (an attack, an inner loop) is the lane's.

        Raises:
            BadInput: another than the session's is stepped in lane after lane, or with parameters that are known.
        """
        step, applying = self._open_step, self.replica.applying
        ours = applying or optimizer in (*self._theirs, *self.optimizers.values())
        if ours or step is None or not step.in_lane or self.context.job.lanes == 1 or get_ident() != self._thread:
            return
        first = self._others.setdefault(optimizer, step.place)
        if first == step.place and not self.replica.knows(optimizer):
            return
        raise BadInput(
            f"a second optimiser ({type(optimizer).__name__}) was stepped in a lane of step {step.number}",
            "it moves its parameters by the rows of one lane: on other workers they would be others, and no checkpoint "
            "has them",
            "Give both to the session by name, {'critic': ..., 'generator': ...}, and loop over step.updates(). Or set "
            "lanes: 1.",
        )

    def _end(self) -> None:
        if self._open_step is not None and self._open_step.begun:
            self._require_commit()  # left by break or return
        engine = self.engine
        if engine.standing is Standing.REHEARSING:  # it came without a step to do
            engine.members.ready()
            engine.regroup()
        own = bool(self.replica.outcome.finished) or engine.stop_asked
        if self.step < self.total_steps and not self.replica.outcome.stopping:
            own = True
            Step(engine).halt()  # its loop ended by itself; the others' may not have
        if engine.rounds is not None and not engine.rounds.between:  # all leave in the middle of a round, at a gate
            engine.rounds.left(met=False)
        engine.standing = Standing.ENDING
        if not engine.members.leaving:  # by its own account
            engine.evaluated(stands=True)
        reason = self.replica.outcome.finished or self._reason
        self.context.journal.ended(self.step, update.weights_sha256(self.model), reason)
        while True:
            try:
                # Nobody goes before all is safe: else the leader's death could lose the end.
                outcome = self.replica.outcome
                stopped = outcome.stopping and not (own or outcome.early) and self.step < self.total_steps
                if engine.carried is not None:
                    engine.carried.gather()
                engine.make_safe("interrupted" if stopped else "end of the run")
                engine.hold()
                with engine.account("communication", At.EXCHANGE):
                    self._compare()
                    engine.pact.barrier()
                return
            except PeerLost as lost:
                engine.repair(lost)

    def _compare(self) -> None:
        """What was recorded since the last step; again where that broke off, so nobody forgets it meanwhile.

        Raises:
            PeerLost: a member is gone.
            BadInput: workers gave different values.
        """
        engine = self.engine
        unequal = said.difference(engine.pact.gather(engine.said.told))
        if unequal is not None:
            raise unequal

    def _require_commit(self) -> None:
        step, self._open_step = self._open_step, None
        if step is not None and not step.committed:
            raise BadInput(
                f"step {step.number} was left before its lanes were done",
                "the loop over step.lanes() was broken off or never begun",
                "Let the loop over step.lanes() run to its end.",
            )


def _by_name(modules: nn.Module | Mapping[str, nn.Module] | Sequence[nn.Module]) -> dict[str, nn.Module]:
    if isinstance(modules, Mapping):
        return dict(modules)
    several = [modules] if isinstance(modules, nn.Module) and not isinstance(modules, nn.ModuleList) else modules
    return {f"module{number}": module for number, module in enumerate(several)}
