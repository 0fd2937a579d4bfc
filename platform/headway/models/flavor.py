"""How MLflow loads a checkpoint: the `python_function` flavor that `headway.tracking.described` writes.

What is loaded says where its weights are (headway.json): of a pointer in the run, of a promoted model beside it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from headway.data.tensors import TensorType, column
from headway.errors import BadCheckpoint, BadInput
from headway.models import columns, kept, loading, predicting
from headway.models.kept import Trained
from headway.models.predicting import Predictor
from headway.runs.refusals import NoRun
from headway.task import Task

if TYPE_CHECKING:
    import pandas as pd

OWN = "run"
"""Folder of a promoted model in which its run lies, with this one checkpoint."""


def _load_pyfunc(path: str) -> Model:  # the name that MLflow calls
    return Model(Path(path))


class Model:
    """A model that MLflow holds.

    Args:
        about: headway.json of the model.
    """

    def __init__(self, about: Path) -> None:
        self.trained = trained(about)
        model, task = loading.built(self.trained)
        self._predictor = predictor_of(self.trained, model, task)

    def predict(self, data: Any, params: Mapping[str, Any] | None = None) -> pd.DataFrame:
        """Predictions, a column for each entry of what the task's `predict` gives.

        Args:
            data: a pandas frame, a mapping of columns, or an Arrow table.
            params: MLflow's; there are none.

        Raises:
            BadInput: columns are missing, or of other types.
            UserCodeFailed: the task raised.
        """
        table = table_of(data, self._predictor.columns.arrow)
        predicting.seeded(self.trained.job, 0)
        found = [self._predictor(batch, start) for batch, start in self._predictor.over([table])]
        for each in found:
            predicting.demand_alike(type(self._predictor.task).__name__, found[0].schema, each.schema)
        made = pa.concat_tables(found).to_pandas() if found else pa.table({}).to_pandas()
        for name in made.columns:
            if made[name].map(type).eq(np.ndarray).any():  # as JSON has them
                made[name] = made[name].map(lambda value: np.stack(value).tolist() if len(value) else [])
        return made


def predictor_of(trained: Trained, model: Any, task: Task | None, whence: str = "the input") -> Predictor:
    """What predicts. Raises BadInput: the run has a loop of its own, or its task no `predict`."""
    if task is None or type(task).predict is Task.predict:
        name = type(task).__name__ if task is not None else trained.job.task.rpartition(":")[2]
        raise BadInput(
            f"task {name} of run {trained.run.name} has no predict",
            "nothing says what the model's output means",
            "Write predict(self, model, batch) -> {name: tensor with one entry per row}.",
        )
    seen = columns.of_run(trained.run, trained.job)
    rows = predicting.batch_rows(trained.job, pa.schema(list(seen.arrow.items())))
    return Predictor(model, task, trained.job, seen, whence, rows)


def trained(path: Path) -> Trained:
    """The state that a model's headway.json names, verified.

    Raises:
        BadInput: the run, or its checkpoint, is gone.
        BadCheckpoint: it is another than it was, or damaged.
    """
    try:
        about: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        own, run, step, name = about.get("own", False), str(about["run"]), int(about["step"]), str(about["checkpoint"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{path} says of no model where it is", str(error), "Log or promote it again.") from None
    found = _run(path.parent / run if own else run, step)
    there = kept.there(found)
    if name not in {known.name for known in there}:
        steps = ", ".join(str(known.step) for known in there) or "none"
        raise BadInput(
            f"the checkpoint of step {step} of run {found.name} is gone",
            "the job's policy (checkpoint.keep_last, keep_best) let it go, or it was removed; this model is a pointer "
            f"to it (there are those of: {steps})",
            "Load another step. `headway promote` copies a model's weights, so that they stay.",
        )
    read = kept.read(found, step)
    if about.get("digest") not in (None, read.checkpoint.digest):
        raise BadCheckpoint(
            f"{read.checkpoint.where} is not the checkpoint that was logged", "its digest is another", ""
        )
    return replace(read, notes=[])


def _run(where: str | Path, step: int) -> Any:
    try:
        return kept.find(where)
    except NoRun:
        raise BadInput(
            f"the checkpoint of step {step} is gone, for its run is: {where}",
            "it was removed or moved, and this model is a pointer to it",
            "Bring the run back there. `headway promote` copies a model's weights, so that they stay.",
        ) from None


def table_of(data: Any, known: Mapping[str, pa.DataType]) -> pa.Table:
    """Rows as they come, in Arrow's types. Columns of arrays become tensors where training saw such.

    Args:
        data: a pandas frame, a mapping of columns, or an Arrow table.
        known: types by column, that training saw.

    Raises:
        BadInput: it is none of these, or a column cannot be taken for what training saw.
    """
    if isinstance(data, pa.Table):
        return data
    names = list(getattr(data, "columns", data if isinstance(data, Mapping) else ()))
    if not names:
        raise BadInput(f"the input is a {type(data).__name__}", "rows have named columns", "Give a pandas DataFrame.")
    return pa.table({str(name): _column(str(name), data[name], known.get(str(name))) for name in names})


def _column(name: str, values: Any, kind: pa.DataType | None) -> Any:
    try:
        if isinstance(kind, TensorType):
            rows = np.asarray([np.asarray(value) for value in values]).astype(kind.dtype)
            return column(rows.reshape(len(rows), *kind.shape))
        plain = [value.tolist() if isinstance(value, np.ndarray) else value for value in values]
        if kind is not None and (pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind)):
            return pa.array(plain, kind)
        return pa.array(plain, from_pandas=True)
    except (pa.ArrowException, ValueError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise BadInput(f"column {name!r} of the input cannot be used", reason, f"Training saw {kind}.") from None
