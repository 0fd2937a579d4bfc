"""The ready-made loop that runs a Task, written on the same session that a user's own loop uses."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from headway import weights
from headway.elastic.worker import lazy, modules
from headway.elastic.worker.context import current
from headway.elastic.worker.session import Session, session
from headway.elastic.worker.step import Step
from headway.elastic.worker.tables import building
from headway.job import Job
from headway.metrics.merging import Measures
from headway.task import Task

if TYPE_CHECKING:
    from torch import Tensor


def session_of(task: Task) -> Session:
    """The session that a task is trained in: of its model, its optimiser and its schedule."""
    with building(current().job):
        model = weights.whole(task.model())
    model = lazy.shaped(model, task, current())
    optimizer = task.optimizer(model)
    clip = task.clip if type(task).clip is not Task.clip else None
    others, measures = modules.of_task(task, model), task.measures()
    Measures(measures)
    made = session(model, optimizer, task.schedule, others, clip, task.hooks(), measures)
    task.measuring, task.showing = made.measure, made.log
    return made


def train_task(task: Task, job: Job) -> None:
    """Train a task as its job says; evaluates at each epoch's end, or every so many steps, and at the end."""
    with session_of(task) as training:
        for step in training.steps():
            run_step(task, training, step)
            every = job.evaluate_every_steps
            due = training.step % every == 0 if every else step.last_of_epoch
            if due or training.step == training.total_steps:
                training.evaluate(task.metrics, task.measures())


def run_step(task: Task, training: Session, step: Step) -> None:
    """One step of a task, with all its updates."""
    updates, loss = training.replica.updates, _loss_of(task, training)
    for update in step.updates(task.updates if updates.several else None):
        if updates.named(update).wants_closure:
            step.minimize(partial(loss, update))
            continue
        for batch in step.lanes(together=True):
            try:
                step.backward(loss(update, batch))
            except Exception as error:
                if not step.takes(error):
                    raise


def _loss_of(task: Task, training: Session) -> Callable[[str, Any], Tensor]:
    """Called as loss(update, batch)."""
    of_task: Callable[..., Tensor] = task.loss
    if training.replica.updates.several:
        return lambda update, batch: of_task(training.model, batch, update)
    return lambda _, batch: of_task(training.model, batch)
