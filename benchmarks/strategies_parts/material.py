"""What the benchmark trains on: real data that is there without a network."""

from __future__ import annotations

import sysconfig
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from headway.core.keys import key
from headway.core.order import permutation
from headway.data import tensors
from headway.data.manifest import load
from headway.data.prepare.sources import text
from headway.data.write.writer import write_dataset

SKIPPED = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"}


def digits(folder: Path) -> Path:
    """scikit-learn's 1,797 digits of 8 x 8, drawn on 28 x 28, split four to one into train and test."""
    from sklearn.datasets import load_digits

    found = load_digits()
    large = np.kron(found.images, np.ones((3, 3)))  # [rows, 24, 24], of 0 to 16
    images = np.pad(np.minimum(large * 16, 255).astype(np.uint8), ((0, 0), (2, 2), (2, 2)))
    rows = permutation(len(images), key("digits"))
    cut = len(rows) // 5
    for name, part in (("test", rows[:cut]), ("train", rows[cut:])):
        drawn = pa.table({"image": tensors.column(images[part]), "label": found.target[part].astype(np.int64)})
        write_dataset(folder / name, [drawn], name="digits", source="scikit-learn", label="label")
    return folder


def source(folder: Path, length: int, files: int | None = None) -> Path:
    """Python's own standard library as blocks of bytes, one file in ten in test; files: of them, the first when given,
    in an order that is drawn."""
    root = Path(sysconfig.get_paths()["stdlib"])
    found = sorted(p for p in root.rglob("*.py") if p.is_file() and not SKIPPED & set(p.relative_to(root).parts))
    found = [found[at] for at in permutation(len(found), key("python source"))][:files]
    for name, first in (("test", 0), ("train", 1)):
        chosen = [p for number, p in enumerate(found) if (number % 10 > 0) == bool(first)]
        blocks = text.blocks(chosen, length)
        blocks = blocks[permutation(len(blocks), key("blocks", len(blocks)))]
        cut = pa.table({"tokens": tensors.column(np.ascontiguousarray(blocks))})
        write_dataset(folder / name, [cut], name="python source", source="standard library")
    return folder


def read(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """All images, uint8 [rows, 28, 28], and labels, int64 [rows], of a dataset."""
    rows = table(folder)
    images = np.concatenate([chunk.to_numpy_ndarray() for chunk in rows["image"].chunks])
    return images, rows["label"].to_numpy()


def table(folder: Path) -> pa.Table:
    """All rows of a dataset."""
    return pa.concat_tables(pq.read_table(folder / shard.path) for shard in load(folder).shards)
