"""What sampling gains on a skewed set: Fashion-MNIST with a long tail of 100:1, five seeds, balanced accuracy.

    headway data get fashion-mnist && python benchmarks/imbalance.py [--seeds 5] [--epochs 10]

Class c keeps 6,000 x 100^(-c/9) of its images. The same small network is trained on the same images for as many steps
plainly, with the loss weighted by class, with balanced sampling, and with balanced sampling and augmentation: the same
for all classes, or the stronger the rarer a class is. The rows come in Headway's own order; the test set stays as it
is, and so balanced accuracy is accuracy.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from measure import keep
from torch import nn
from torch.nn.functional import cross_entropy

from headway.core.keys import key
from headway.core.mixture import Walk
from headway.data.augment import Strength, augment
from headway.data.manifest import load
from headway.data.read.streams import train_order
from headway.data.store.files import LocalFiles
from headway.data.tensors import column
from headway.data.write.writer import write_dataset
from headway.job import parse

CLASSES, RATIO = 10, 100
RARE = 3
"""The rarest classes, whose accuracy is told apart."""
WAYS: dict[str, dict[str, Any]] = {
    "plain": {},
    "class-weighted loss": {"weighted_loss": True},
    "balanced sampling": {"sampling": {"weights": "balanced"}},
    "balanced, augmented": {"sampling": {"weights": "balanced"}, "augmented": "all"},
    "balanced, the rare augmented": {"sampling": {"weights": "balanced"}, "augmented": "rare"},
}


def read(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """All images, uint8 [rows, 28, 28], and labels, int64 [rows], of a dataset."""
    table = pa.concat_tables(pq.read_table(folder / shard.path) for shard in load(folder).shards)
    images = np.concatenate([chunk.to_numpy_ndarray() for chunk in table["image"].chunks])
    return images, table["label"].to_numpy()


def long_tail(images: np.ndarray, labels: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The rows that a seed keeps, in a random order."""
    random = np.random.Generator(np.random.Philox(key("tail", seed)))
    kept = [
        random.permutation(np.flatnonzero(labels == c))[: round(6000 * RATIO ** (-c / (CLASSES - 1)))]
        for c in range(CLASSES)
    ]
    rows = random.permutation(np.concatenate(kept))
    return images[rows], labels[rows]


def walk(folder: Path, seed: int, sampling: dict[str, Any]) -> Walk:
    """The order in which Headway would train on the dataset."""
    data = {"train": str(folder), "sampling": sampling}
    job = parse({"name": "i", "task": "t:T", "data": data, "lanes": 8, "lane_batch": 16, "epochs": 1, "seed": seed})
    return train_order(job, [LocalFiles(folder, load(folder))])


def network() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU(), nn.Flatten()),
        *(nn.Linear(32 * 49, 64), nn.ReLU(), nn.Linear(64, CLASSES)),
    )


def strengths(counts: np.ndarray, which: str) -> dict[int, Strength]:
    """By class: alike, or nothing for the most frequent class and all of it for one that is a hundred times rarer."""
    rarity = np.log(counts.max() / counts) / np.log(RATIO) if which == "rare" else np.ones(len(counts))
    return {c: Strength(0.5 * float(r), round(2 * float(r)), 0.02 * float(r)) for c, r in enumerate(rarity)}


def batches(order: Walk, epoch: int) -> list[np.ndarray]:
    """Ids of the rows of every step of an epoch, lane after lane."""
    lanes = [order.lane_ids(epoch, lane) for lane in range(order.lanes)]
    size = order.lane_batch
    return [
        np.concatenate([ids[step * size : (step + 1) * size] for ids in lanes]) for step in range(order.steps_per_epoch)
    ]


def tensor(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(images[:, None].astype(np.float32) / 255)


def train(
    images: np.ndarray,
    labels: np.ndarray,
    order: Walk,
    epochs: int,
    seed: int,
    weighted_loss: bool = False,
    augmented: str = "",
) -> nn.Module:
    torch.manual_seed(seed)
    counts = np.bincount(labels, minlength=CLASSES)
    weight = torch.tensor(len(labels) / CLASSES / counts, dtype=torch.float32) if weighted_loss else None
    by_class = strengths(counts, augmented) if augmented else {}
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * order.steps_per_epoch)
    for epoch in range(epochs):
        for step, ids in enumerate(batches(order, epoch)):
            batch = images[ids]
            if augmented:
                random = np.random.Generator(np.random.Philox(key("augment", seed, epoch, step)))
                batch = augment(batch, random, labels=labels[ids], by_class=by_class)
            optimizer.zero_grad()
            cross_entropy(model(tensor(batch)), torch.from_numpy(labels[ids]), weight).backward()
            optimizer.step()
            schedule.step()
    return model


def accuracies(model: nn.Module, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Accuracy within every class; shape [classes]."""
    with torch.no_grad():
        found = torch.cat([model(tensor(part)).argmax(1) for part in np.array_split(images, 20)]).numpy()
    return np.array([(found[labels == c] == c).mean() for c in range(CLASSES)])


def spread(values: list[float]) -> dict[str, Any]:
    return {"mean": round(statistics.mean(values), 4), "sd": round(statistics.stdev(values), 4), "all": values}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, default=Path("data/fashion-mnist"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=10)
    options = parser.parse_args()
    torch.set_num_threads(1)
    images, labels = read(options.data / "train")
    test = read(options.data / "test")
    found: dict[str, dict[str, list[float]]] = {w: {"balanced": [], "rare": [], "seconds": []} for w in WAYS}
    for seed in range(options.seeds):
        kept, classes = long_tail(images, labels, seed)
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / "tail"
            table = pa.table({"image": column(kept), "label": classes})
            write_dataset(folder, [table], name="long tail", source="Fashion-MNIST", label="label")
            for way, settings in WAYS.items():
                settings = dict(settings)
                order = walk(folder, seed, settings.pop("sampling", {}))
                began = time.process_time()
                model = train(kept, classes, order, options.epochs, seed, **settings)
                seconds = time.process_time() - began
                right = accuracies(model, *test)
                found[way]["balanced"].append(round(float(right.mean()), 4))
                found[way]["rare"].append(round(float(right[-RARE:].mean()), 4))
                found[way]["seconds"].append(round(seconds, 1))
                print(f"seed {seed}: {way}: {right.mean():.4f}, rarest {RARE}: {right[-RARE:].mean():.4f}", flush=True)
    plain = found["plain"]["balanced"]
    table = {
        way: {
            "balanced_accuracy": spread(values["balanced"]),
            "gain": spread([round(a - b, 4) for a, b in zip(values["balanced"], plain, strict=True)]),
            "rarest_classes": spread(values["rare"]),
            "train_cpu_s": statistics.median(values["seconds"]),
        }
        for way, values in found.items()
    }
    rows = [round(6000 * RATIO ** (-c / (CLASSES - 1))) for c in range(CLASSES)]
    keep("imbalance", {"rows_by_class": rows, "seeds": options.seeds, "epochs": options.epochs, "ways": table})
    print(f"\n{'':34}{'balanced accuracy':>20}{'gain':>20}{'rarest 3 classes':>20}")
    for way, row in table.items():
        columns = (row[name] for name in ("balanced_accuracy", "gain", "rarest_classes"))
        print(f"{way:34}" + "".join(f"{c['mean']:>12.4f} ± {c['sd']:.4f}" for c in columns))


if __name__ == "__main__":
    main()
