"""A model of `transformers` as a task: its own loss, lists of tokens padded to the longest of a batch.

    class Sentiment(HuggingFace):
        def model(self):
            return AutoModelForSequenceClassification.from_pretrained("prajjwal1/bert-tiny", num_labels=2)

The data are a dataset with the columns that `forward` takes (input_ids, attention_mask, labels), as Parquet or as a
`datasets.Dataset`. What training with `transformers.Trainer` does beside (callbacks, its arguments) is the job's here.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from headway.data.arrays import array_of
from headway.errors import BadInput
from headway.task import Task

if TYPE_CHECKING:
    import pyarrow as pa

Batch = dict[str, Tensor]
IGNORED = -100
"""The label that losses of `transformers` pass over."""


class HuggingFace(Task):
    """See the module. Write `model()`; all else may be left as it is.

    Attributes:
        padding: what a column's lists are filled up with; 0 for those that are not named. `input_ids` are filled with
            the model's own padding token where the attention mask is there.
        names: columns that `forward` calls otherwise.
    """

    padding: Mapping[str, int] = {"labels": IGNORED, "label": IGNORED}
    names: Mapping[str, str] = {"label": "labels", "label_ids": "labels"}

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """The model's own loss. (Of a language model it is the mean over tokens: rows of like length weigh alike.)"""
        return self._called(model, batch, training=True).loss  # type: ignore[no-any-return]

    def metrics(self, model: nn.Module, batch: Batch) -> dict[str, Any]:
        """The loss, and the accuracy of a model that puts rows into classes."""
        found = self._called(model, batch, training=True)
        labels, scores = self._named(batch).get("labels"), getattr(found, "logits", None)
        said = {"loss": found.loss}
        if scores is not None and labels is not None and scores.dim() == 2 and _are_classes(labels):
            said["accuracy"] = (scores.argmax(1) == labels).float().mean()
        return said

    def predict(self, model: nn.Module, batch: Batch) -> dict[str, Any]:
        """Of classes the best one, by its name where the model's configuration has one, and the probability of each;
        else what the model gives."""
        scores = self._called(model, batch, training=False).logits
        if scores.dim() != 2 or scores.shape[1] < 2:
            return {"prediction": scores[:, 0] if scores.dim() == 2 else scores}
        best = scores.argmax(1)
        names = getattr(getattr(model, "config", None), "id2label", None) or {}
        return {
            "label": best,
            "class": [str(names.get(number, number)) for number in best.tolist()],
            "probabilities": scores.softmax(1),
        }

    def transform(
        self, table: pa.Table, random: np.random.Generator, training: bool
    ) -> dict[str, np.ndarray[Any, Any]]:
        """Columns of numbers as they are, lists of numbers padded to the longest of the batch; others are left out."""
        found = {}
        for name, column in zip(table.column_names, table.columns, strict=True):
            kind = str(column.type)
            if kind.startswith(("list", "large_list")):
                found[name] = padded(column.to_pylist(), self._padding(name))
            elif not kind.startswith(("string", "large_string", "binary")):
                found[name] = array_of(name, column)
        return found

    def collate(self, rows: list[Any]) -> Any:
        """Rows of a `datasets.Dataset`: dicts of numbers, and of lists that are padded."""
        if not rows or not isinstance(rows[0], Mapping):
            raise BadInput(
                f"a row of the dataset is a {type(rows[0]).__name__ if rows else 'nothing'}",
                "a model of transformers is called with columns by their names",
                "Give rows as dicts, or write collate(self, rows).",
            )
        columns = {name: [row[name] for row in rows] for name in rows[0]}
        return {name: _tensor(each, self._padding(name)) for name, each in columns.items() if not _is_text(each[0])}

    def _padding(self, column: str) -> int:
        return self.padding.get(column, 0)

    def _named(self, batch: Batch) -> Batch:
        return {self.names.get(name, name): value for name, value in batch.items()}

    def _called(self, model: nn.Module, batch: Batch, training: bool) -> Any:
        """What the model gives for the columns that it takes.

        Raises:
            BadInput: it needs others, or is not to be trained here.
        """
        check(model)
        named, takes = self._named(batch), parameters(model)
        given = {name: value for name, value in named.items() if name in takes and (training or name != "labels")}
        if "labels" in given and not given["labels"].is_floating_point():
            given["labels"] = given["labels"].long()
        given |= {name: given[name].long() for name in ("input_ids", "token_type_ids") if name in given}
        found = model(**given, return_dict=True)
        if training and getattr(found, "loss", None) is None:
            raise BadInput(
                f"{type(model).__name__} gave no loss",
                f"it was called with {', '.join(given) or 'nothing'}, of the columns {', '.join(batch)}",
                "Have a column labels (or name yours in `names`), and a model with a head: AutoModelFor...",
            )
        return found


def check(model: nn.Module) -> None:
    """Raises BadInput: a model that is spread over devices, or quantised: it cannot be trained as it is."""
    name = type(model).__name__
    if getattr(model, "hf_device_map", None):
        remedy = "Leave device_map out: Headway moves the model to the worker's device."
        raise BadInput(f"{name} was loaded with a device_map", "each worker has the whole model on its device", remedy)
    if getattr(model, "is_quantized", False):
        remedy = "Load it in full, and quantise what comes of the training."
        raise BadInput(f"{name} is quantised", "its weights cannot be trained", remedy)


def parameters(model: nn.Module) -> set[str]:
    """Names that the model's `forward` takes."""
    forward = getattr(model, "_orig_mod", model).forward
    return set(inspect.signature(forward).parameters)


def padded(rows: Sequence[Sequence[Any] | None], value: int) -> np.ndarray[Any, Any]:
    """Rows of unlike length as an array, [rows, longest]; of integers int64, else float32."""
    longest = max((len(row) for row in rows if row is not None), default=0)
    whole = all(isinstance(each, int) for row in rows if row for each in row[:1])
    found = np.full((len(rows), longest), value, np.int64 if whole else np.float32)
    for number, row in enumerate(rows):
        if row:
            found[number, : len(row)] = row
    return found


def _tensor(values: list[Any], value: int) -> Tensor:
    """A column of a batch."""
    first = values[0]
    if isinstance(first, Tensor):
        if len({each.shape for each in values}) == 1:
            return torch.stack(values)
        return nn.utils.rnn.pad_sequence(values, batch_first=True, padding_value=value)
    if isinstance(first, list | tuple):
        return torch.from_numpy(padded(values, value))
    if isinstance(first, np.ndarray):
        return torch.from_numpy(np.stack(values))
    return torch.tensor(values)


def _is_text(value: Any) -> bool:
    return value is None or isinstance(value, str | bytes)


def _are_classes(labels: Tensor) -> bool:
    return labels.dim() == 1 and not labels.is_floating_point()
