"""The task of a table: numbers and dates centred, categories embedded, a perceptron of two layers."""

from __future__ import annotations

import json
from string import Template

from headway.init.columns import Roles
from headway.init.written import listed, prose

HEAD = '''"""Predicts `$target` of $source from $count of its columns.

Made by `headway init`, to be changed at will.$notes
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import nn
from torch.nn import functional

import headway
$metrics_import
NUMBERS = $numbers
CATEGORIES = $categories
TARGET = $target_name


def number(column):
    """A column as float64, [rows]: dates as days since 1970, what is missing as NaN."""
    if pa.types.is_temporal(column.type):
        return column.cast(pa.timestamp("us")).cast(pa.int64()).to_numpy() / 86_400e6
    return column.cast(pa.float64()).to_numpy()


def place(column, words):
    """The place of each value among these, [rows]; of one that is not there, or missing, their count."""
    found = pc.index_in(column, value_set=pa.array(words, column.type))
    return pc.fill_null(found, len(words)).to_numpy().astype(np.int64)


class Net(nn.Module):
    """Two layers over the numbers and an embedding of each category."""

    def __init__(self, numbers, words, width, dropout, out):
        super().__init__()
        self.embeddings = nn.ModuleList(nn.Embedding(count + 1, min(16, 2 + count // 2)) for count in words)
        wide = 2 * numbers + sum(each.embedding_dim for each in self.embeddings)
        self.layers = nn.Sequential(
            nn.Linear(wide, width), nn.ReLU(), nn.Dropout(dropout),
            nn.Linear(width, width), nn.ReLU(), nn.Dropout(dropout), nn.Linear(width, out),
        )  # fmt: skip

    def forward(self, batch):
        known = [each(batch["words"][:, i]) for i, each in enumerate(self.embeddings)]
        return self.layers(torch.cat([batch["numbers"], batch["missing"], *known], 1))


class $name(headway.Task):
    def __init__(self, width=64, dropout=0.1):
        self.width, self.dropout = width, dropout

    def fit(self, dataset):
        """Once, over the training set. What it returns is self.fitted wherever the task is, also after training."""
        return {
            "numbers": [(dataset.mean(name) or 0.0, dataset.std(name) or 1.0) for name in NUMBERS],
            "words": [dataset.unique(name) for name in CATEGORIES],
            $fit
        }

    def transform(self, table, random, training):
        """Arrow's columns as arrays of a batch: [rows, columns]."""
        rows = table.num_rows
        raw = np.stack([number(table[name]) for name in NUMBERS], 1) if NUMBERS else np.zeros((rows, 0))
        mean, std = np.reshape(self.fitted["numbers"], (-1, 2)).T
        words = [place(table[name], known) for name, known in zip(CATEGORIES, self.fitted["words"])]
        batch = {
            "numbers": np.nan_to_num((raw - mean) / std).astype(np.float32),
            "missing": np.isnan(raw).astype(np.float32),
            "words": np.stack(words, 1) if words else np.zeros((rows, 0), np.int64),
        }
        if TARGET in table.column_names:  # not so where it is to be predicted
            batch["target"] = $transform
        return batch

    def model(self):
        words = [len(known) for known in self.fitted["words"]]
        return Net(len(NUMBERS), words, self.width, self.dropout, $out)
'''

CLASSES = '''
    def loss(self, model, batch):
        return functional.cross_entropy(model(batch), batch["target"])

    def metrics(self, model, batch):
        scores, unseen = model(batch), len(self.fitted["classes"])
        losses = functional.cross_entropy(scores, batch["target"], ignore_index=unseen, reduction="none")
        return {
            "loss": losses.mean(),  # a class that training had no row of adds nothing here, and counts as wrong below
            "accuracy": (scores.argmax(1) == batch["target"]).float().mean(),$auc
        }
$measures
    def predict(self, model, batch):
        """One entry for each row: what it is, and how probable each class."""
        shares, classes = model(batch).softmax(1), self.fitted["classes"]
        best = [classes[i] for i in shares.argmax(1).tolist()]
        return {TARGET: best, **{f"{TARGET}={name}": shares[:, i] for i, name in enumerate(classes[:20])}}
'''

NUMBER = '''
    def predicted(self, model, batch):
        mean, std = self.fitted["target"]
        return model(batch)[:, 0] * std + mean

    def loss(self, model, batch):
        _, std = self.fitted["target"]
        return functional.mse_loss(self.predicted(model, batch) / std, batch["target"] / std)

    def metrics(self, model, batch):
        error = self.predicted(model, batch) - batch["target"]
        return {"loss": (error / self.fitted["target"][1]).square().mean(), "absolute_error": error.abs().mean()}

    def predict(self, model, batch):
        """One entry for each row."""
        return {TARGET: self.predicted(model, batch)}
'''

MEASURES = '''
    def measures(self):
        """What is no mean over rows."""
        return {"auc": AUC()}
'''


def task(roles: Roles, name: str, source: str) -> str:
    """The task's file.

    Args:
        roles: of the columns.
        name: of the class.
        source: the file's name, for people.
    """
    is_class = roles.kind == "classes"
    two = is_class and len(roles.classes) == 2
    head = Template(HEAD).substitute(
        target=prose(roles.target),
        target_name=json.dumps(roles.target, ensure_ascii=False),
        source=prose(source),
        count=len(roles.used) - 1,
        notes="".join(f"\nTo be looked at: {prose(note)}" for note in roles.notes),
        metrics_import="from headway.metrics import AUC\n" if two else "",
        numbers=listed([*roles.numbers, *roles.dates]),
        categories=listed(roles.categories),
        name=name,
        fit='"classes": dataset.unique(TARGET),'
        if is_class
        else '"target": (dataset.mean(TARGET), dataset.std(TARGET) or 1.0),',
        transform='place(table[TARGET], self.fitted["classes"])'
        if is_class
        else "number(table[TARGET]).astype(np.float32)",
        out='len(self.fitted["classes"])' if is_class else "1",
    )
    if not is_class:
        return head + NUMBER
    auc = (
        '\n            "auc": (scores[:, 1] - scores[:, 0], batch["target"] == 1),  # what measures() is given'
        if two
        else ""
    )
    return head + Template(CLASSES).substitute(auc=auc, measures=MEASURES if two else "")
