"""What a user writes: a `Task` is the model, the optimiser, the loss on a batch. It knows nothing of workers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from headway.logged.verbs import Logging

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np
    import pyarrow as pa
    from torch import Tensor, nn
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler

    from headway.fitting.dataset import Dataset
    from headway.hooks import Hook

    Batch = dict[str, Tensor]


class Task(Logging):
    """Subclass this, and name it in the job as `task: module.py:Class`. Its constructor takes the job's `arguments`.

    Only `model` and `loss` must be written. `loss` and `metrics` are *means over the rows of the batch*: Headway weighs
    them by the batch's true number of rows, so that no row counts more than another whatever the lanes and workers.

    Modules that are the task's attributes (a loss with parameters, a second network) are kept as the model is: those of
    their parameters that the optimiser holds, and their buffers.

    Attributes:
        fitted: what `fit` returned, in every process of the run, from before `model` and `transform` are called; None
            where there is no `fit`. A resumed run has that of its beginning, and so has a model that is loaded.
    """

    fitted: Any = None
    measuring: Callable[..., None] | None = None
    """Headway's: what `measure` calls in training."""
    showing: Callable[[str, str, Any, str], None] | None = None
    """Likewise, what `log_figure` and the others call."""

    def fit(self, dataset: Dataset) -> Any:
        """Learn from the whole training set what training needs to know of it: vocabularies, means, class weights.

        Called once, before the run begins; what it returns is kept with the run. What it sets on `self` is lost.

        Args:
            dataset: the training set, see `headway.fitting.Dataset`: `mean`, `std`, `min`, `max`, `unique`,
                `value_counts`, `count`, `schema`, `iter_batches`. They give the same bits wherever they are computed.

        Returns:
            None, numbers, text, lists, tuples, sets, dicts, NumPy arrays, tensors.
        """

    def model(self) -> nn.Module | Mapping[str, nn.Module]:
        """Build the model. Torch's generator is seeded from the job before this is called.

        Several by name become an `nn.ModuleDict`, which the other methods are given: `model["critic"]`.
        """
        raise TypeError(f"{type(self).__name__}.model() is missing: return a torch.nn.Module from it")

    def loss(self, model: Any, batch: Batch) -> Tensor:
        """The loss on one lane's batch: a scalar, the mean over its rows.

        Args:
            model: the model that `model()` built, in training mode, on the worker's device.
            batch: what `transform` returned, as tensors on the same device; first dimension = rows.

        Where `optimizer()` returns several, write `loss(self, model, batch, update)`: it is given the name of the one
        whose loss is wanted.
        """
        raise TypeError(f"{type(self).__name__}.loss(model, batch) is missing: return a scalar tensor from it")

    def optimizer(self, model: Any) -> Optimizer | Mapping[str, Optimizer]:
        """The optimiser, unless the job names one. Default: AdamW with torch's defaults.

        Several by name, each over parameters of its own, take turns in each step: see `updates`.
        """
        import torch

        return torch.optim.AdamW(model.parameters())

    def updates(self, step: Place) -> Sequence[str]:
        """Where `optimizer()` returns several: which of them are to update in a step, in order, each as often as it is
        to. Default: each once, in the order of the dict.

        Every update has a pass over all of the step's rows, in which its optimiser's parameters alone are trained.

        Args:
            step: its `number` and `epoch` say which it is. What follows from them is the same on every worker.
        """
        return step.every_update

    def schedule(self, optimizer: Any, steps: int) -> LRScheduler | Mapping[str, LRScheduler] | None:
        """The learning-rate schedule, stepped once per step, unless the job names one. Default: constant.

        A run that is resumed with another length has that of the new one. ReduceLROnPlateau is stepped after each
        evaluation, with the job's `schedule.metric`.

        Args:
            optimizer: what `optimizer()` returned. For several by name, return a dict of those that have a schedule.
            steps: of the whole run.
        """
        return None

    def clip(self, parameters: list[nn.Parameter]) -> None:
        """Limit the gradients, summed over all lanes, in place before each update. Default: nothing is limited.

        The job's `clip_norm`, if given, takes its place.

        Args:
            parameters: of the optimiser that is about to step, with their gradients.
        """

    def hooks(self) -> Sequence[Hook]:
        """What is called after steps, epochs and evaluations, see `headway.Hook`. Default: nothing.

        Ready-made are `headway.hooks.EMA`, `SWA` and `EarlyStopping`.
        """
        return ()

    def transform(
        self, table: pa.Table, random: np.random.Generator, training: bool
    ) -> dict[str, np.ndarray[Any, Any]]:
        """Turn the Arrow rows of one lane's batch into arrays. Default: every column, by name, as it is.

        Args:
            table: the rows, in order.
            random: the lane's own generator, keyed by (seed, epoch, step, lane): use it for augmentation.
            training: False when the rows are for evaluation.
        """
        from headway.data.arrays import arrays

        return arrays(table)

    def collate(self, rows: list[Any]) -> Any:
        """Put rows together to a batch. Default: torch's `default_collate`. Only for Datasets of your own, of which
        `data` names one by its code; nothing else calls it.

        Args:
            rows: of one lane's batch, as the Dataset's `__getitem__` gave them.

        Returns:
            The batch: any nest of tensors by name or place, and other things; `loss` is given it with its tensors on
            the worker's device. What is drawn at random here follows the lane.
        """
        from torch.utils.data import default_collate

        return default_collate(rows)

    def metrics(self, model: Any, batch: Batch) -> dict[str, Any]:
        """Metrics of one batch of the validation set, each the mean over its rows. Default: the loss, if there is one.

        One that only some batches have is the mean over their rows. For a name of `measures()` it gives the tuple of
        the arguments of that one's `update`.
        """
        return {} if loss_by_update(self) else {"loss": self.loss(model, batch)}

    def measures(self) -> dict[str, Any]:
        """Metrics of an evaluation that are no means over rows (AUC, F1, perplexity), by name. Default: none.

        Each is an object of torchmetrics, one of `headway.metrics`, or has `update(...)`, `merge(other)` and
        `compute()`. It is copied for every lane, and the lanes' states are merged in their order, so that the bits are
        the same on any number of workers.
        """
        return {}

    def measure(self, name: str, /, *arguments: Any, **named: Any) -> None:
        """Update a metric of `measures()` in training too: to be called in `loss`, with the arguments of its `update`:
        `self.measure("auc", scores, batch["y"])`.

        What comes of the rows of an epoch (of `evaluate_every_steps`, if the job says so) is recorded as train/NAME.
        Where `loss` is called for something else than training, nothing is done.
        """
        if self.measuring is not None:
            self.measuring(name, *arguments, **named)

    def predict(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """What the model says of each row of a batch, by name: the columns that `headway predict` writes.

        Only needed to predict. Each entry has one value per row: a tensor or array of shape [rows, ...], or a list of
        text.

        Args:
            model: in evaluation mode; no gradients are kept.
            batch: what `transform` returned with training=False. Where the rows have no label, one is made up for it.
        """
        raise TypeError(f"{type(self).__name__}.predict(model, batch) is missing: return a dict of tensors from it")

    def _take_logged(self, kind: str, name: str, thing: Any, caption: str) -> None:
        """In `loss`, `metrics` and hooks of a run; elsewhere (in `fit`, in `predict`) nothing is done."""
        if self.showing is not None:
            self.showing(kind, name, thing, caption)


class Place(Protocol):
    """Of a step in the run."""

    number: int
    """Steps before it."""
    epoch: int
    """Walks through the data that were complete before it."""
    every_update: tuple[str, ...]
    """Names of all optimisers."""


def loss_by_update(task: Task) -> bool:
    """Whether a task has several losses, one for each update."""
    import inspect

    try:
        return "update" in inspect.signature(task.loss).parameters
    except (TypeError, ValueError):  # a signature that nobody knows
        return False
