"""The ready-made loop that runs a Task, written on the same session that a user's own loop uses."""

from __future__ import annotations

from headway.elastic.worker.session import session
from headway.job import Job
from headway.task import Task


def train_task(task: Task, job: Job) -> None:
    """Train a task as its job says; evaluates at each epoch's end, or every so many steps, and at the end."""
    model = task.model()
    with session(model, task.optimizer(model), task.schedule) as training:
        for step in training.steps():
            for batch in step.lanes():
                step.backward(task.loss(model, batch))
            every = job.evaluate_every_steps
            due = training.step % every == 0 if every else step.last_of_epoch
            if due or training.step == training.total_steps:
                training.evaluate(task.metrics)
