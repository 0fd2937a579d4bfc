"""The ready-made loop that runs a Task, written on the same session that a user's own loop uses."""

from __future__ import annotations

from headway.elastic.worker import lazy, modules
from headway.elastic.worker.context import current
from headway.elastic.worker.session import Session, session
from headway.job import Job
from headway.task import Task


def session_of(task: Task) -> Session:
    """The session that a task is trained in: of its model, its optimiser and its schedule."""
    model = lazy.shaped(task.model(), task, current())
    optimizer = task.optimizer(model)
    return session(model, optimizer, task.schedule, modules.of_task(task, model))


def train_task(task: Task, job: Job) -> None:
    """Train a task as its job says; evaluates at each epoch's end, or every so many steps, and at the end."""
    with session_of(task) as training:
        for step in training.steps():
            for batch in step.lanes():
                step.backward(task.loss(training.model, batch))
            every = job.evaluate_every_steps
            due = training.step % every == 0 if every else step.last_of_epoch
            if due or training.step == training.total_steps:
                training.evaluate(task.metrics)
