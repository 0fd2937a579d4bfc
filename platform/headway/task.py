"""What a user writes: a `Task` is the model, the optimiser, the loss on a batch. It knows nothing of workers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from torch import Tensor, nn
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler

    Batch = dict[str, Tensor]


class Task:
    """Subclass this, and name it in the job as `task: module.py:Class`. Its constructor takes the job's `arguments`.

    Only `model` and `loss` must be written. `loss` and `metrics` are *means over the rows of the batch*: Headway weighs
    them by the batch's true number of rows, so that no row counts more than another whatever the lanes and workers.

    Modules that are the task's attributes (a loss with parameters, a second network) are kept as the model is: those of
    their parameters that the optimiser holds, and their buffers.
    """

    def model(self) -> nn.Module:
        """Build the model. Torch's generator is seeded from the job before this is called."""
        raise TypeError(f"{type(self).__name__}.model() is missing: return a torch.nn.Module from it")

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """The loss on one lane's batch: a scalar, the mean over its rows.

        Args:
            model: the model that `model()` built, in training mode, on the worker's device.
            batch: what `transform` returned, as tensors on the same device; first dimension = rows.
        """
        raise TypeError(f"{type(self).__name__}.loss(model, batch) is missing: return a scalar tensor from it")

    def optimizer(self, model: nn.Module) -> Optimizer:
        """The optimiser, unless the job names one. Default: AdamW with torch's defaults."""
        import torch

        return torch.optim.AdamW(model.parameters())

    def schedule(self, optimizer: Optimizer, steps: int) -> LRScheduler | None:
        """The learning-rate schedule, stepped once per step, unless the job names one. Default: constant.

        A run that is resumed with another length has that of the new one. ReduceLROnPlateau is stepped after each
        evaluation, with the job's `schedule.metric`.
        """
        return None

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

    def metrics(self, model: nn.Module, batch: Batch) -> dict[str, Tensor | float]:
        """Metrics of one batch of the validation set, each the mean over its rows. Default: the loss.

        One that only some batches have is the mean over their rows.
        """
        return {"loss": self.loss(model, batch)}
