"""How well windows shuffle, against a full permutation, on the worst case: a set stored sorted by label.

    headway data get fashion-mnist && python benchmarks/shuffle_quality.py [--seeds 5]

20,000 images of Fashion-MNIST, sorted by label, in 100 row groups, walked by 8 lanes in windows of several sizes.
Measured over the epoch as the steps take it:

- Spearman's rank correlation of a row's place in the epoch with its place on disk;
- the Kolmogorov-Smirnov distance of the distances on disk between rows that follow each other in a lane from those of a
  full permutation, which are triangular;
- the classes' entropy within a step, as a share of what equal classes have;
- the test loss of a small network after two epochs.

A window reaches the full permutation in a figure when its mean lies within the range that twice the standard deviation
over the seeds of the full permutation spans (and on its good side of it).
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import torch
from imbalance import CLASSES, accuracies, batches, network, read, tensor
from measure import keep
from torch.nn.functional import cross_entropy

from headway.core.order import Order, permutation

GROUPS, ROWS, LANES, LANE_BATCH, EPOCHS = 100, 200, 8, 16, 2
WINDOWS = (8, 16, 32, 48, 64, 80, 104)
FIGURES = ("spearman", "neighbours_ks", "step_entropy", "test_loss")


def sorted_by_label(images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """As many rows of each class as go into the row groups, class after class."""
    each = GROUPS * ROWS // CLASSES
    rows = np.concatenate([np.flatnonzero(labels == c)[:each] for c in range(CLASSES)])
    return images[rows], labels[rows]


def spearman(order: Order, epoch: int) -> float:
    """Of place in the epoch and place on disk; both are permutations, so ranks are the places themselves."""
    ids = np.concatenate(batches(order, epoch))
    return float(abs(np.corrcoef(ids, np.arange(len(ids)))[0, 1]))


def neighbours_ks(order: Order, epoch: int) -> float:
    """Distance from the triangular distribution P(D <= d) = 1 - (1 - d / n) ** 2, nearly, of a full permutation."""
    walks = [order.lane_ids(epoch, lane) for lane in range(order.lanes)]
    found = np.sort(np.concatenate([np.abs(np.diff(walk)) for walk in walks]))
    places = np.arange(1, order.rows)
    expected = np.cumsum(2 * (order.rows - places) / (order.rows * (order.rows - 1)))
    return float(np.abs(np.searchsorted(found, places, side="right") / len(found) - expected).max())


def step_entropy(order: Order, epoch: int, labels: np.ndarray) -> float:
    """Mean over the full steps."""
    shares = np.array([np.bincount(labels[ids], minlength=CLASSES) / len(ids) for ids in batches(order, epoch)[:-1]])
    logs = np.log(np.where(shares > 0, shares, 1.0))
    return float(-(shares * logs).sum(1).mean() / np.log(CLASSES))


def test_loss(order: Order, seed: int, train: tuple[Any, Any], test: tuple[Any, Any]) -> tuple[float, float]:
    """Loss and accuracy on the test set after training in that order."""
    images, labels = train
    torch.manual_seed(seed)
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for epoch in range(EPOCHS):
        for ids in batches(order, epoch):
            optimizer.zero_grad()
            cross_entropy(model(tensor(images[ids])), torch.from_numpy(labels[ids])).backward()
            optimizer.step()
    with torch.no_grad():
        loss = cross_entropy(model(tensor(test[0])), torch.from_numpy(test[1])).item()
    return loss, float(accuracies(model, *test).mean())


def measured(name: str, orders: list[Order], train: tuple[Any, Any], test: tuple[Any, Any]) -> dict[str, Any]:
    """All figures, by seed."""
    found: dict[str, list[float]] = {figure: [] for figure in (*FIGURES, "test_accuracy")}
    for seed, order in enumerate(orders):
        found["spearman"].append(statistics.mean(spearman(order, e) for e in range(10)))
        found["neighbours_ks"].append(statistics.mean(neighbours_ks(order, e) for e in range(3)))
        found["step_entropy"].append(step_entropy(order, 0, train[1]))
        loss, accuracy = test_loss(order, seed, train, test)
        found["test_loss"].append(loss)
        found["test_accuracy"].append(accuracy)
    told = {
        figure: {
            "mean": round(statistics.mean(values), 5),
            "sd": round(statistics.stdev(values), 5),
            "all": [round(v, 5) for v in values],
        }
        for figure, values in found.items()
    }
    print(f"{name:28}" + "".join(f"{f['mean']:>12.4f} ± {f['sd']:.4f}" for f in told.values()), flush=True)
    return told


def reaches(window: dict[str, Any], full: dict[str, Any], figure: str) -> bool:
    off = window[figure]["mean"] - full[figure]["mean"]
    return bool((-off if figure == "step_entropy" else off) <= 2 * full[figure]["sd"])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, default=Path("data/fashion-mnist"))
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    train = sorted_by_label(*read(options.data / "train"))
    test = read(options.data / "test")
    seeds = range(options.seeds)
    print(f"{'':28}" + "".join(f"{figure:>21}" for figure in (*FIGURES, "test_accuracy")))
    cut = {"lanes": LANES, "lane_batch": LANE_BATCH}
    # Row groups of one row, permuted, are a full permutation.
    full = measured(
        "full permutation", [Order((1,) * (GROUPS * ROWS), s, window=GROUPS * ROWS, **cut) for s in seeds], train, test
    )

    def walks(window: int) -> list[Order]:
        return [Order((ROWS,) * GROUPS, seed, window=window, **cut) for seed in seeds]

    windows = {window: measured(f"window {window}", walks(window), train, test) for window in WINDOWS}
    once = permutation(GROUPS * ROWS, 1)
    shuffled = (train[0][once], train[1][once])
    stored = measured("window 16, shuffled on disk", walks(16), shuffled, test)
    needed = {
        figure: next((w for w in WINDOWS if all(reaches(windows[v], full, figure) for v in WINDOWS if v >= w)), None)
        for figure in FIGURES
    }
    setting = {"groups": GROUPS, "rows_per_group": ROWS, **cut, "epochs": EPOCHS, "seeds": options.seeds}
    figures = {"sorted_by_label": {str(w): f for w, f in windows.items()}, "full_permutation": full}
    keep("shuffle_quality", {"setting": setting, **figures, "shuffled_on_disk_16": stored, "window_needed": needed})


if __name__ == "__main__":
    main()
