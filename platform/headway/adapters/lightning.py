"""A LightningModule as a task.

    class Digits(Lightning):
        module = LitDigits              # is built with the job's arguments
        columns = "image", "label"      # the batch is this tuple; without it, a dict by column

Taken from it: `training_step`, `validation_step`, `configure_optimizers`, `predict_step`, `forward`, and what
`self.log` is told in `validation_step`. There is no Trainer: what a module has that only a Trainer would call (hooks,
data loaders, manual optimisation) is refused by name, so that nothing is left out in silence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from headway.adapters.frameworks import imported
from headway.errors import BadInput, nearest
from headway.task import Task

TAKEN = frozenset(
    ("training_step", "validation_step", "test_step", "predict_step", "configure_optimizers", "forward", "setup")
)
"""Methods of a LightningModule that are called here (`test_step`: where it is evaluated by hand)."""
_KNOWN = frozenset(("max_epochs", "max_steps", "estimated_stepping_batches", "num_training_batches"))


class Lightning(Task):
    """See the module.

    Attributes:
        module: class of the LightningModule.
        columns: that make up the batch, a tuple in this order; None: it is a dict by column. Of data of one's own the
            batch is what their `__getitem__` gives.
    """

    module: type[Any]
    columns: Sequence[str] | None = None

    def __init__(self, **arguments: Any) -> None:
        self.arguments = arguments
        self._schedule: Any = None

    def model(self) -> nn.Module:
        """The LightningModule, without a Trainer."""
        theirs = imported("lightning.pytorch", "lightning").LightningModule
        kind = getattr(type(self), "module", None)
        if not (isinstance(kind, type) and issubclass(kind, theirs)):
            reason = "it names the LightningModule that is trained"
            raise BadInput(f"{type(self).__name__}.module is {kind!r}", reason, "Write: module = YourModule")
        check(kind, theirs)
        made: nn.Module = kind(**self.arguments)
        if not made.automatic_optimization:
            raise BadInput(
                f"{kind.__name__} has automatic_optimization = False",
                "its training_step steps its optimisers itself, with a Trainer's help",
                "Write a headway.Task whose optimizer() gives them by name (docs/own-loop.md).",
            )
        vars(made)["_trainer"] = _NoTrainer(kind.__name__)
        return made

    def optimizer(self, model: nn.Module) -> Optimizer:
        """That of `configure_optimizers`; the schedule that comes with it is kept for `schedule`."""
        optimizer, self._schedule = configured(_plain(model))
        return optimizer

    def schedule(self, optimizer: Any, steps: int) -> Any:
        """That of `configure_optimizers`, stepped by epochs or steps as it says."""
        if self._schedule is None:
            return None
        made, every_epoch, frequency = self._schedule
        if isinstance(made, torch.optim.lr_scheduler.ReduceLROnPlateau):
            return made  # stepped after each evaluation, by the job's schedule.metric
        from headway.elastic.worker.context import current

        every = frequency * (current().train.order.steps_per_epoch if every_epoch else 1)
        return made if every == 1 else Every(made, every)

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        """What `training_step` returns, or its `loss`. What it logs is not kept: Headway records the loss itself."""
        with _Logged(model):
            found = _plain(model).training_step(self._batch(batch), 0)
        if isinstance(found, Mapping):
            found = found.get("loss")
        if not isinstance(found, Tensor):
            raise BadInput(
                f"{type(_plain(model)).__name__}.training_step returned {type(found).__name__}",
                "each lane's batch has a loss",
                "Return the loss, or a dict with it at 'loss'; batches cannot be skipped.",
            )
        return found

    def metrics(self, model: nn.Module, batch: Any) -> dict[str, Any]:
        """What `validation_step` logs, or returns; without one, the loss."""
        module = _plain(model)
        if type(module).validation_step is imported("lightning.pytorch", "lightning").LightningModule.validation_step:
            return {"loss": self.loss(model, batch)}
        with _Logged(model) as logged:
            found = module.validation_step(self._batch(batch), 0)
        if isinstance(found, Tensor) and found.dim() == 0:
            logged.values.setdefault("loss", found)
        if isinstance(found, Mapping):
            logged.values.update({name: value for name, value in found.items() if name not in logged.values})
        return logged.values

    def predict(self, model: nn.Module, batch: Any) -> dict[str, Any]:
        """What `predict_step` gives, which is `forward` of the batch by default: of a tuple its first part."""
        module, given = _plain(model), self._batch(batch)
        theirs = imported("lightning.pytorch", "lightning").LightningModule.predict_step
        if type(module).predict_step is not theirs:
            found = module.predict_step(given, 0)
        else:
            found = module(given[0] if isinstance(given, tuple | list) else given)
        return dict(found) if isinstance(found, Mapping) else {"prediction": found}

    def _batch(self, batch: Any) -> Any:
        if self.columns is None or not isinstance(batch, Mapping):
            return batch
        there = [name for name in self.columns if name in batch]
        if not there or self.columns[0] != there[0]:
            missing = self.columns[0]
            raise BadInput(
                f"columns={tuple(self.columns)}", f"the batch has no {missing!r}", nearest(missing, list(batch))
            )
        return tuple(batch[name] for name in there)  # the label may lack where it is to be predicted


class Every:
    """A schedule that is stepped once in so many steps.

    Args:
        inner: torch's.
        every: steps.
    """

    def __init__(self, inner: Any, every: int) -> None:
        self.optimizer, self.inner, self.every, self.steps = inner.optimizer, inner, every, 0

    def step(self) -> None:
        self.steps += 1
        if self.steps % self.every == 0:
            self.inner.step()

    def get_last_lr(self) -> list[Any]:
        return list(self.inner.get_last_lr())

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps, "inner": self.inner.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps = state["steps"]
        self.inner.load_state_dict(state["inner"])


def check(kind: type[Any], theirs: type[Any]) -> None:
    """Whether a module has nothing that only a Trainer would call.

    Raises:
        BadInput: naming what it has.
    """
    above = [each for each in kind.__mro__ if each not in theirs.__mro__]
    known = {name for name in dir(theirs) if not name.startswith("_") and callable(getattr(theirs, name, None))}
    known -= TAKEN | set(vars(nn.Module))
    own = sorted({name for each in above for name in vars(each)} & known)
    if own:
        raise BadInput(
            f"{kind.__name__} has {', '.join(own)}",
            "a Trainer calls that, and there is none",
            "Take it out: data are the job's (data:), clipping clip_norm, what goes on between steps task.hooks().",
        )


def configured(module: Any) -> tuple[Optimizer, tuple[Any, bool, int] | None]:
    """The optimiser of `configure_optimizers`; its schedule, whether that goes by epochs, and how often.

    Raises:
        BadInput: there are several, or none.
    """
    name, found = type(module).__name__, module.configure_optimizers()
    optimizers, schedules = _pair(found)
    if len(optimizers) != 1 or not isinstance(optimizers[0], Optimizer) or len(schedules) > 1:
        many = f"{len(optimizers)} optimisers and {len(schedules)} schedules"
        raise BadInput(
            f"{name}.configure_optimizers returned {many if optimizers else 'no optimiser'}",
            "a LightningModule is trained by one optimiser here",
            "Several are given by name in a headway.Task: see docs/own-loop.md.",
        )
    if not schedules:
        return optimizers[0], None
    section = schedules[0] if isinstance(schedules[0], Mapping) else {"scheduler": schedules[0]}
    interval = section.get("interval", "epoch")
    return optimizers[0], (section["scheduler"], interval != "step", int(section.get("frequency", 1)))


def _pair(found: Any) -> tuple[list[Any], list[Any]]:
    """What Lightning lets people return, as optimisers and schedules."""
    if isinstance(found, Mapping):
        return [found["optimizer"]], [found["lr_scheduler"]] if found.get("lr_scheduler") is not None else []
    if isinstance(found, tuple | list) and len(found) == 2 and all(isinstance(each, tuple | list) for each in found):
        return list(found[0]), list(found[1])
    if isinstance(found, tuple | list):
        pairs = [_pair(each) for each in found]
        return [one for each, _ in pairs for one in each], [one for _, each in pairs for one in each]
    return ([] if found is None else [found]), []


def _plain(model: nn.Module) -> Any:
    """Beneath torch.compile."""
    return getattr(model, "_orig_mod", model)


class _Logged:
    """While this lasts `self.log` of a module keeps what it is told."""

    def __init__(self, model: nn.Module) -> None:
        self._model = _plain(model)
        self.values: dict[str, Any] = {}

    def __enter__(self) -> _Logged:
        vars(self._model)["log"] = self._log
        vars(self._model)["log_dict"] = self._log_dict
        return self

    def __exit__(self, *_: object) -> None:
        del vars(self._model)["log"], vars(self._model)["log_dict"]

    def _log(self, name: str, value: Any, *_: Any, **__: Any) -> None:
        if callable(getattr(value, "compute", None)):
            raise BadInput(
                f"{type(self._model).__name__} logs {name!r} as a {type(value).__name__}",
                "metrics that are no means are the task's",
                "Give it from measures(self) of the task, and its arguments from metrics().",
            )
        self.values[name] = value.detach() if isinstance(value, Tensor) else value

    def _log_dict(self, values: Mapping[str, Any], *_: Any, **__: Any) -> None:
        for name, value in values.items():
            self._log(name, value)


class _NoTrainer:
    """In a Trainer's place: the run's length, and an error for all else.

    Args:
        module: name of the LightningModule.
    """

    def __init__(self, module: str) -> None:
        self._module = module

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name not in _KNOWN:
            raise BadInput(
                f"{self._module} asks for trainer.{name}",
                "there is no Trainer",
                f"Known are {', '.join(sorted(_KNOWN))}; give other numbers as the job's arguments.",
            )
        from headway.elastic.worker.context import current

        context = current()
        an_epoch = context.train.order.steps_per_epoch
        if name == "num_training_batches":
            return an_epoch
        return -(-context.total_steps // an_epoch) if name == "max_epochs" else context.total_steps
