"""The task of a folder of images by class: a small convolutional network."""

from __future__ import annotations

from string import Template

from headway.init.written import prose

TASK = '''"""Tells the classes of the images of $source. Made by `headway init`, to be changed at will."""

import numpy as np
from torch import nn
from torch.nn import functional

import headway
from headway.data.arrays import arrays

CLASSES = $classes
CHANNELS = $channels


class $name(headway.Task):
    def __init__(self, width=32, dropout=0.1, shift=2):
        self.width, self.dropout, self.shift = width, dropout, shift

    def fit(self, dataset):
        """Once, over the training set: brightness and contrast. It is self.fitted wherever the task is."""
        total = squares = count = 0.0
        for batch in dataset.iter_batches(batch_size=256, columns=["image"]):
            pixels = batch["image"].astype(np.float64)
            total, squares, count = total + pixels.sum(), squares + np.square(pixels).sum(), count + pixels.size
        mean = total / count
        return {"mean": float(mean), "std": float(max(1.0, squares / count - mean**2) ** 0.5)}

    def transform(self, table, random, training):
        """Images as float32 [rows, channels, height, width]; in training moved by up to `shift` pixels."""
        columns = arrays(table)
        images = columns["image"].reshape(table.num_rows, *columns["image"].shape[1:3], CHANNELS)
        images = (images.transpose(0, 3, 1, 2) - self.fitted["mean"]) / self.fitted["std"]
        if training and self.shift:
            images = np.roll(images, random.integers(-self.shift, self.shift + 1, 2), (2, 3))
        batch = {"image": images.astype(np.float32)}
        if "label" in columns:  # not so where it is to be predicted
            batch["label"] = columns["label"].astype(np.int64)
        return batch

    def model(self):
        def block(channels, out):
            return [nn.Conv2d(channels, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU(), nn.MaxPool2d(2)]

        width = self.width
        return nn.Sequential(
            *block(CHANNELS, width), *block(width, 2 * width), *block(2 * width, 4 * width),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(self.dropout), nn.Linear(4 * width, len(CLASSES)),
        )  # fmt: skip

    def loss(self, model, batch):
        return functional.cross_entropy(model(batch["image"]), batch["label"])

    def metrics(self, model, batch):
        scores = model(batch["image"])
        right = (scores.argmax(1) == batch["label"]).float().mean()
        return {"loss": functional.cross_entropy(scores, batch["label"]), "accuracy": right}

    def predict(self, model, batch):
        """One entry for each row: the class, and how probable that is."""
        probability, best = model(batch["image"]).softmax(1).max(1)
        return {"label": best, "class": [CLASSES[i] for i in best.tolist()], "probability": probability}
'''


def task(name: str, source: str, classes: str, channels: int) -> str:
    """The task's file.

    Args:
        name: of the class.
        source: the folder's name, for people.
        classes: their names, as a list in Python.
        channels: 1 of grey images, 3 of coloured ones.
    """
    return Template(TASK).substitute(name=name, source=prose(source), classes=classes, channels=channels)
