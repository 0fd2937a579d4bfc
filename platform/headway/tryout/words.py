"""What is refused of a task, by name, and how that is said."""

from __future__ import annotations

import math
from collections.abc import Container, Iterator, Mapping
from typing import Any

import torch
from torch import nn

from headway.errors import BadInput, HeadwayError
from headway.faults import blame
from headway.hooks import named
from headway.metrics.merging import is_measured

UNTRIED = "`check: false` in the job starts it untried"

PLACES = {
    "built": "{name} cannot be built with arguments {arguments}",
    "model": "{name}.model() failed",
    "optimizer": "{name}.optimizer() failed",
    "schedule": "{name}.schedule() failed",
    "hooks": "{name}.hooks() failed",
    "hook": "the hook {hook} of {name} failed",
    "updates": "{name}.updates() failed",
    "rows": "the datasets' own rows, or the task's collate, raised",
    "transform": "{name}.transform() failed on the first rows",
    "loss": "{name}.loss() failed on the first rows",
    "backward": "the loss of {name} cannot be differentiated",
    "update": "optimizer {optimizer} cannot be stepped",
    "rate": "the schedule of {name} cannot be stepped",
    "measures": "{name}.measures() failed",
    "metrics": "{name}.metrics() failed on the first rows",
    "save": "the state of {name} cannot be saved",
    "load": "the state of {name} cannot be loaded again",
}
"""Where the task may be when it fails, in the order in which it is tried."""

ROWS_MATTER = ("rows", "transform", "loss", "backward", "update", "rate", "hook", "metrics")
"""Places where a failure may come of how many rows there are."""

_NO_GPU = ("NVIDIA driver", "not compiled with CUDA", "No CUDA GPUs", "CUDA_HOME", "no NVIDIA")


def needs_gpu(error: BaseException) -> bool:
    """Whether an error says that a GPU was asked for where there is none."""
    return isinstance(error, RuntimeError | AssertionError) and any(text in str(error) for text in _NO_GPU)


def refusal(error: BaseException, place: str, names: Mapping[str, Any]) -> BadInput:
    """An error, in the user's words.

    Args:
        error: raised while the task was tried.
        place: one of PLACES.
        names: of the task and the optimiser, and the arguments.
    """
    if isinstance(error, BadInput):
        return error
    if isinstance(error, HeadwayError) and place != "load":
        bad = BadInput(error.fact, error.reason, error.remedy)
        bad.traceback = error.traceback
        return bad
    fact = f"task {PLACES[place]}" if PLACES[place].startswith("{") else PLACES[place]
    fact = fact.format(**names)
    if isinstance(error, SystemExit):
        reason = f"it called sys.exit({'' if error.code is None else repr(error.code)}), which would end the worker"
        bad = BadInput(fact, reason, "Raise an error there, or return.")
    else:
        bad = BadInput(fact, cause(error), _remedy(error, place))
    bad.traceback = blame.users_traceback(error)
    return bad


def cause(error: BaseException) -> str:
    """What was raised, in one line: what an error of ours was raised from, where it was."""
    if isinstance(error, HeadwayError):
        error = error.__cause__ or error
    return " ".join(f"{type(error).__name__}: {blame.text_of(error)}".split()).removesuffix(":")


def _remedy(error: BaseException, place: str) -> str:
    if needs_gpu(error):
        return "Set workers.gpus, or build it on the CPU: Headway moves the model and every batch to the worker's GPU."
    if isinstance(error, ImportError):
        return f"Install what it needs, or {UNTRIED}."
    if type(error).__name__ == "CheckpointError":
        return (
            "A block of the model keeps something between calls (a cache, a counter), and computes something else the "
            "second time: set activation_checkpointing: false, or name other blocks."
        )
    if place == "built":
        return "Mend the task, or the job's arguments."
    if place == "update":
        return "Choose another optimiser."
    if place in ("save", "load"):
        return "Let state_dict() give tensors, numbers and text, and load_state_dict() take them."
    if place == "metrics" and "does not require grad" in str(error):
        return "There are no gradients in metrics(): write one that needs none, or open `with torch.enable_grad():`."
    return f"Mend the task, or {UNTRIED}."


def sparse(names: set[str]) -> BadInput:
    """What is said of parameters that got sparse gradients."""
    shown = ", ".join(map(repr, sorted(names)))
    return BadInput(
        f"the gradient of parameter {shown} is sparse",
        "gradients of all lanes add up in dense memory",
        "Make its layer with sparse=False, and choose an optimiser for dense gradients.",
    )


def check_type(task: str, method: str, value: object, wanted: type) -> None:
    """Raises BadInput: a method returned something else."""
    if not isinstance(value, wanted):
        raise BadInput(
            f"task {task}.{method}() returned {type(value).__name__}",
            f"a torch {wanted.__name__} is needed",
            f"Return one from {method}().",
        )


def check_state(model: nn.Module) -> None:
    """Whether a model's tensors can be trained, kept and given to others.

    Raises:
        BadInput: naming one that cannot.
    """
    for kind, name, tensor in _tensors(model):
        if tensor.is_meta:
            raise BadInput(
                f"{kind} {name!r} of the model is on the meta device",
                "it has a shape and no values",
                "Give it values in model(): model.to_empty(device='cpu'), then initialise or load it.",
            )
        if tensor.layout is not torch.strided:
            raise BadInput(
                f"{kind} {name!r} of the model is sparse ({str(tensor.layout).removeprefix('torch.')})",
                "checkpoints and other workers take dense tensors",
                "Register its indices and values as buffers of their own, and build the sparse tensor in forward().",
            )
        if tensor.is_quantized:
            raise BadInput(
                f"{kind} {name!r} of the model is quantised ({str(tensor.dtype).removeprefix('torch.')})",
                "checkpoints and other workers take plain numbers",
                "Train the model in floating point, and quantise what comes of it.",
            )
        if tensor.is_complex() and tensor.requires_grad:
            raise BadInput(
                f"{kind} {name!r} of the model is complex ({str(tensor.dtype).removeprefix('torch.')})",
                "lanes and workers add up real numbers",
                "Keep torch.view_as_real(it) instead, and use torch.view_as_complex() of that in forward().",
            )


def _tensors(model: nn.Module) -> Iterator[tuple[str, str, torch.Tensor]]:
    yield from (("parameter", name, parameter) for name, parameter in model.named_parameters())
    yield from (("buffer", name, buffer) for name, buffer in model.named_buffers())


def check_loss(task: str, loss: Any) -> None:
    """Raises BadInput: what `loss()` returned is no scalar tensor that can be differentiated."""
    fact = f"task {task}.loss() returned {_named(loss)}"
    if not isinstance(loss, torch.Tensor):
        raise BadInput(fact, "a scalar tensor is needed", _loss_remedy(loss))
    if loss.dim() != 0:
        raise BadInput(
            f"task {task}.loss() returned a tensor of shape {tuple(loss.shape)}",
            "a loss is one number, the mean over the batch's rows",
            "Return loss.mean().",
        )
    if not loss.requires_grad:
        reason = "it does not hang on anything that is trained"
        if not loss.dtype.is_floating_point:
            reason = f"it is {str(loss.dtype).removeprefix('torch.')}, which has no gradient"
        raise BadInput(
            f"task {task}.loss() returned a tensor without a gradient",
            reason,
            "Compute it from the model's output, without detach(), item(), argmax() or torch.no_grad().",
        )
    if loss.is_complex():
        raise BadInput(fact, "a loss is a real number", "Return loss.abs() or loss.real.")
    value = float(loss.detach())
    if not math.isfinite(value):
        raise BadInput(
            f"task {task}.loss() returned {value} for the first rows",
            "nothing can be learnt from it",
            f"Look at those rows and at what the model makes of them, or {UNTRIED}.",
        )


def _loss_remedy(loss: Any) -> str:
    if isinstance(loss, Mapping):
        names = [repr(name) for name, value in loss.items() if "loss" in str(name).lower()]
        return f"Return its {names[0]} alone." if names else "Return the tensor of the loss alone."
    if isinstance(loss, tuple | list):
        return "Return the tensor of the loss alone; other numbers belong into metrics()."
    if loss is None:
        return "Return the loss: is a `return` missing?"
    if isinstance(loss, int | float):
        return "Return the tensor itself, not its item()."
    if isinstance(getattr(loss, "loss", None), torch.Tensor):
        return "Return its .loss."
    return "Return the mean over the batch's rows."


def _named(value: Any) -> str:
    return "None" if value is None else type(value).__name__


def check_metrics(task: str, found: Any, measures: Container[str] = ()) -> None:
    """Raises BadInput: what `metrics()` returned is no mapping of names to numbers; but for the arguments of measures,
    which are checked where they are used."""
    if not isinstance(found, Mapping):
        reason, remedy = "a dict of numbers by name is needed", 'Return it like {"accuracy": accuracy}.'
        raise BadInput(f"task {task}.metrics() returned {_named(found)}", reason, remedy)
    for name, value in found.items():
        if not isinstance(name, str):
            raise BadInput(f"task {task}.metrics() has the name {name!r}", "names are text", "Name it by a str.")
        if name in measures or is_measured(value):
            continue
        try:
            float(value)
        except (TypeError, ValueError, RuntimeError):
            shape = f" of shape {tuple(value.shape)}" if hasattr(value, "shape") else ""
            raise BadInput(
                f"task {task}.metrics() gave {name!r} as {_named(value)}{shape}",
                "each metric is one number, the mean over the batch's rows",
                "Return a float or a scalar tensor for it.",
            ) from None


def check_hooks(made: Any) -> None:
    """Raises BadInput: what `hooks()` returned are none."""
    named(made)


def check_schedule(task: str, made: Any) -> None:
    """Raises BadInput: what `schedule()` returned is no scheduler."""
    if isinstance(made, Mapping):
        for each in made.values():
            check_schedule(task, each)
        return
    if made is None or all(callable(getattr(made, verb, None)) for verb in ("step", "state_dict", "load_state_dict")):
        return
    raise BadInput(
        f"task {task}.schedule() returned {_named(made)}",
        "a torch LRScheduler, or None, is needed",
        "Return one; torch.optim.lr_scheduler.SequentialLR and ChainedScheduler make one of several.",
    )


def check_trained(optimizer: torch.optim.Optimizer) -> None:
    """Raises BadInput: after a step, none of the optimiser's parameters has a gradient."""
    held = [p for group in optimizer.param_groups for p in group["params"]]
    if all(p.grad is None for p in held):
        raise BadInput(
            f"none of the {len(held)} parameters of optimizer {type(optimizer).__name__} got a gradient",
            "the loss does not hang on them, so that nothing would be trained",
            "Give the optimiser the parameters of the model that it was called with.",
        )
