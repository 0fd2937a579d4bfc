"""The first step of a run in this process is the trial of its task: what fails in it is refused in the words of
`headway.tryout`, and no run is left."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from headway import plan, tryout
from headway.errors import BadInput, HeadwayError, RunFailed
from headway.faults import blame
from headway.job import Job
from headway.task import Task

_METHODS = ("model", "optimizer", "schedule", "transform", "loss", "metrics")
_OURS = {("elastic/worker/step.py", "backward"): "backward", ("elastic/worker/update.py", "step"): "update"}


@contextmanager
def looked_at(job: Job, found: Any) -> Iterator[None]:
    """While the loop runs: after the first update of all it is seen whether anything was trained, which would not show
    otherwise. (What else is looked at in a trial shows as it fails.)"""
    if job.check is None or not _is_task(found):
        yield
        return
    from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook

    from headway.tryout import words

    def seen(optimizer: Optimizer, *_: Any) -> None:
        handle.remove()
        words.check_trained(optimizer)

    handle = register_optimizer_step_post_hook(seen)
    try:
        yield
    finally:
        handle.remove()


def _is_task(found: Any) -> bool:
    return inspect.isclass(found) and issubclass(found, Task)


def refusal(error: BaseException, job: Job, checked: plan.Plan, found: Any, code: Path) -> BadInput | None:
    """What is to be said of a task that failed before a step was done; None where that says nothing of the task, or it
    is a loop of its own, of which nothing is tried anywhere.

    Args:
        error: that was raised.
        job: of the run.
        checked: what it comes to.
        found: the task's class or function; None where it could not be imported.
        code: where the task's code was carried to.
    """
    if isinstance(error, BadInput):
        return error
    if job.check is None or not _is_task(found):
        return None
    from headway.elastic.worker import failures
    from headway.tryout import words

    if failures.of_machine(error, starting=False):
        return None
    if not isinstance(error, HeadwayError) and blame.is_ours(error):
        return _tried(job, checked, code)
    if isinstance(error, HeadwayError) and not isinstance(error, RunFailed):
        return None
    names = {"name": found.__name__, "arguments": job.arguments, "optimizer": job.optimizer or "of the task"}
    return words.refusal(error, _place(error.__traceback__, found), names)


def _place(trace: TracebackType | None, found: type[Task]) -> str:
    """Where the task was, by the frames that the error came through: the innermost of its methods that is known."""
    codes = {method.__code__: name for name in _METHODS if inspect.isfunction(method := getattr(found, name))}
    place = "built"
    while trace is not None:
        code = trace.tb_frame.f_code
        ours = blame.within(code.co_filename)
        place = codes.get(code) or _OURS.get((ours or "", code.co_name)) or place
        trace = trace.tb_next
    return place


def _tried(job: Job, checked: plan.Plan, code: Path) -> BadInput | None:
    """What the trial that other runs begin with has to say: it looks at each thing that a task returns."""
    try:
        with _no_breakpoints(), tryout.begun(job) as trial:
            trial.ask(job, checked, code)
            trial.answer()
    except BadInput as refused:
        return refused
    return None


@contextmanager
def _no_breakpoints() -> Iterator[None]:
    """There is nobody to talk to in a child."""
    before = os.environ.get("PYTHONBREAKPOINT")
    os.environ["PYTHONBREAKPOINT"] = "0"
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONBREAKPOINT"]
        else:
            os.environ["PYTHONBREAKPOINT"] = before
