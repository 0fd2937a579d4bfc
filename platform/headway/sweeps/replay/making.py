"""A table of curves of our own making: a network with one hidden layer learns scikit-learn's handwritten digits, by
stochastic gradient descent with momentum, in many settings. It takes some seconds."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headway.errors import BadInput

STRETCHES = 27
STEPS = 12
"""Of a stretch."""
BATCH = 32
Array = NDArray[np.float64]


def make(path: str | Path, rows: int = 300, seed: int = 0) -> None:
    """Write a table as Parquet: the settings of `rows` configurations, and lists of validation loss and accuracy before
    training and after each of 27 stretches of 12 steps; NaN from where it diverged.

    Raises:
        BadInput: it cannot be written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(images))
    images, labels = images[order] / 16.0, labels[order]
    chance = random.Random(seed)
    made = [_row(_drawn(chance), images, labels, seed) for _ in range(rows)]
    try:
        pq.write_table(pa.Table.from_pylist(made), path)
    except OSError as error:
        raise BadInput(f"{path} cannot be written", str(error.strerror or error), "") from None


def _drawn(chance: random.Random) -> dict[str, Any]:
    return {
        "lr": 10 ** chance.uniform(-3.5, 1.5),
        "momentum": chance.uniform(0.0, 0.99),
        "weight_decay": 10 ** chance.uniform(-6.0, -1.0),
        "scale": 10 ** chance.uniform(-2.0, 1.0),
        "width": int(2 ** chance.uniform(2.0, 6.0)),
        "activation": chance.choice(["relu", "tanh"]),
    }


def _row(settings: dict[str, Any], images: Array, labels: NDArray[np.int64], seed: int) -> dict[str, Any]:
    """A configuration and its curves."""
    rng = np.random.default_rng(seed)
    train, held = slice(0, 1200), slice(1200, None)
    width, scale = settings["width"], settings["scale"]
    weights = [
        rng.normal(0.0, scale / math.sqrt(images.shape[1]), (images.shape[1], width)),
        np.zeros(width),
        rng.normal(0.0, scale / math.sqrt(width), (width, 10)),
        np.zeros(10),
    ]
    speeds = [np.zeros_like(each) for each in weights]
    losses, accuracies = [], []
    with np.errstate(all="ignore"):
        for _ in range(STRETCHES + 1):
            loss, accuracy = _judged(weights, settings["activation"], images[held], labels[held])
            losses.append(loss if math.isfinite(loss) else math.nan)
            accuracies.append(accuracy if math.isfinite(loss) else math.nan)
            for _ in range(STEPS if math.isfinite(loss) else 0):
                batch = rng.integers(train.start, train.stop, BATCH)
                _learn(weights, speeds, settings, images[batch], labels[batch])
    return {**settings, "loss": losses, "accuracy": accuracies}


def _forward(weights: list[Array], activation: str, images: Array) -> tuple[Array, Array]:
    """Hidden values, shape (n, width), and log probabilities, shape (n, 10)."""
    before = images @ weights[0] + weights[1]
    hidden = np.maximum(before, 0.0) if activation == "relu" else np.tanh(before)
    scores = hidden @ weights[2] + weights[3]
    scores = scores - scores.max(axis=1, keepdims=True)
    return hidden, scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))


def _judged(weights: list[Array], activation: str, images: Array, labels: NDArray[np.int64]) -> tuple[float, float]:
    """Mean cross-entropy, and the part that is right."""
    _, logs = _forward(weights, activation, images)
    loss = -float(logs[np.arange(len(labels)), labels].mean())
    return loss, float((logs.argmax(axis=1) == labels).mean())


def _learn(
    weights: list[Array], speeds: list[Array], settings: dict[str, Any], images: Array, labels: NDArray[np.int64]
) -> None:
    """One step, in place."""
    hidden, logs = _forward(weights, settings["activation"], images)
    of_scores = np.exp(logs)
    of_scores[np.arange(len(labels)), labels] -= 1.0
    of_scores /= len(labels)
    slope = hidden > 0 if settings["activation"] == "relu" else 1.0 - hidden**2
    of_before = (of_scores @ weights[2].T) * slope
    gradients = [images.T @ of_before, of_before.sum(axis=0), hidden.T @ of_scores, of_scores.sum(axis=0)]
    for weight, speed, gradient in zip(weights, speeds, gradients, strict=True):
        speed *= settings["momentum"]
        speed += gradient + settings["weight_decay"] * weight
        weight -= settings["lr"] * speed
