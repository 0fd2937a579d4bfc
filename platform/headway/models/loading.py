"""A run's model in plain PyTorch: `headway.load_model`."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from pathlib import Path

import torch
from torch import nn

from headway import generators, hooks, weights
from headway.carried import code, fitted
from headway.elastic.worker.modules import Modules, of_task
from headway.errors import BadCheckpoint, BadInput
from headway.models import kept
from headway.models.calling import called
from headway.models.kept import Trained
from headway.runs import RunFolder
from headway.strategies.parameter_server.embedding import filled
from headway.task import Task


def load_model(
    run: str | Path | RunFolder,
    step: str | int = "best",
    *,
    model: nn.Module | None = None,
    device: str | torch.device = "cpu",
    runs_folder: str | Path | None = None,
    averaged: bool | None = None,
) -> tuple[nn.Module, Task | None]:
    """A trained model, and the task that it was trained by, ready to be used: in evaluation mode, on one device.

    Args:
        run: its name, folder or URL (s3://, gs://, az://).
        step: "best" by the job's `checkpoint.metric`, of the checkpoints that are there (the last, where none was
            evaluated); "last"; or the number of a step.
        model: to be filled, where the run's own loop made one that nobody else can build.
        device: for its parameters and buffers.
        runs_folder: where runs are kept, if `run` is a name; as of `headway.train`.
        averaged: whether the weights are those that a hook (`EMA`, `SWA`) has averaged; as the run's evaluations had
            them when not given.

    Returns:
        The model, and the task as it was built with the job's arguments; None for a run with a loop of its own.

    Raises:
        BadInput: there is no such run or checkpoint, the task cannot be imported, or `model` is needed.
        BadCheckpoint: the checkpoint is damaged, or does not fit the task's model.
        UserCodeFailed: the task raised.
    """
    trained = kept.read(kept.find(run, runs_folder), step)
    for note in trained.notes:
        warnings.warn(note, stacklevel=2)
    return built(trained, model, device, averaged)


def built(
    trained: Trained,
    model: nn.Module | None = None,
    device: str | torch.device = "cpu",
    averaged: bool | None = None,
) -> tuple[nn.Module, Task | None]:
    """The model with a run's state, and its task. Arguments and errors as of `load_model`."""
    task = None
    if model is None:
        task, model = _made(trained)
    others = of_task(task, model) if task is not None else {}
    modules = Modules(model, others)
    _fill(trained, modules)
    if averaged or (averaged is None and task is not None and _evaluates_averages(task)):
        _overlay(trained, model, demanded=bool(averaged))
    for module in (model, *others.values()):
        module.to(device)
        module.eval()
    return model, task


def task_of(trained: Trained) -> type[Task]:
    """The class of a run's task, from the code that the run has kept.

    Raises:
        BadInput: it cannot be imported, or the run has a loop of its own.
    """
    job, run = trained.job, trained.run
    found = code.load(source_of(trained))
    if not (inspect.isclass(found) and issubclass(found, Task)):
        raise BadInput(
            f"run {run.name} was trained by a loop of its own ({job.task.rpartition(':')[2]})",
            "nothing says how its model is built",
            "Give it one to fill: headway.load_model(run, model=...); or write a headway.Task.",
        )
    return found


def source_of(trained: Trained) -> code.Source:
    """The task's code, as the run has kept it. Raises BadInput: it is gone."""
    task, run = trained.job.task, trained.run
    found = code.delivered(task, run.code)
    file = found.folder / f"{found.module}.py"
    if task.rpartition(":")[0].endswith(".py") and not file.is_file():
        raise BadInput(
            f"the code of run {run.name} is gone: there is no {file}",
            "a model is built by its task's code, which the run keeps a copy of",
            "Bring it back there from a copy of the run. A promoted model (`headway promote`) has code of its own.",
        )
    return found


def _made(trained: Trained) -> tuple[Task, nn.Module]:
    """The task, and the model as it was before it was trained. The process's generator is left as it was."""
    found, job = task_of(trained), trained.job
    with at_home(trained), generators.put_back():
        torch.manual_seed(job.seed)
        with called(f"{found.__name__}, as it was built for run {trained.run.name}"):
            task: Task = fitted.make(found, job, source_of(trained))
            return task, weights.whole(task.model())


@contextmanager
def at_home(trained: Trained) -> Iterator[None]:
    """While this lasts files are found that the task names without a folder, as in a worker."""
    home = code.home(source_of(trained), trained.run.code)
    if not home.is_dir():
        yield
        return
    with chdir(home):
        yield


def _evaluates_averages(task: Task) -> bool:
    """Whether the run's evaluations were of averaged weights."""
    with called(f"{type(task).__name__}.hooks()"):
        return any(isinstance(hook, hooks.Average) and hook.evaluate for hook in task.hooks())


@torch.no_grad()
def _overlay(trained: Trained, model: nn.Module, demanded: bool) -> None:
    """Put averaged weights in place of the last ones, where there are some. Raises BadInput: there are none."""
    found = hooks.averaged(trained.parts["session"])
    if found is None:
        if demanded:
            step = trained.checkpoint.step
            reason = "no hook averaged them (headway.hooks.EMA, SWA), or it had not begun to"
            raise BadInput(f"step {step} of run {trained.run.name} has no averaged weights", reason, "Leave it out.")
        return
    model.load_state_dict(weights.state_for(model, found), strict=False)


@torch.no_grad()
def _fill(trained: Trained, modules: Modules) -> None:
    """Give modules a run's state: the model, and the parameters and buffers of modules beside it.

    Raises:
        BadCheckpoint: it does not fit.
    """
    rest = trained.parts["session"]
    own, beside = rest.get("own") or {}, rest.get("beside") or {}
    there = dict(modules.named_parameters())
    trees = ((rest.get("strategy") or {}).get("own") or {}).values()
    try:
        state = filled(trained.parts["model"], trees, modules.model)
        modules.load(state, rest.get("buffers", {}), rest.get("late", []))
        if isinstance(own, dict):  # an earlier release's has no names
            for name, value in {**own, **beside}.items():
                if name in there:
                    there[name].copy_(value)
    except (RuntimeError, ValueError, LookupError) as error:
        raise BadCheckpoint(
            f"checkpoint {trained.checkpoint.where} does not fit the task's model",
            " ".join(str(error).split())[:500],
            "Load it with the code that it was trained by: the run keeps a copy.",
        ) from error
