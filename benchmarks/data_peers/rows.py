"""The rows that everybody reads: real 28x28 images, larger images, and a narrow table; as arrays on disk, one a column.

Everybody delivers them as shuffled batches of 256: a dict of one torch tensor per column.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

BATCH = 256
WINDOW_GROUPS = 16  # row groups, or as many rows, that are shuffled together: the memory that everybody may use
SHARDS = 8
Array = np.ndarray[Any, Any]
Batch = dict[str, torch.Tensor]
Column = tuple[str, tuple[int, ...]]


@dataclass(frozen=True)
class Kind:
    """Rows of one kind.

    Args:
        name: of it.
        rows: how many.
        columns: dtype and shape of a row, by column.
        group_rows: rows of a row group (as `headway.data.write.sizing` would choose them).
    """

    name: str
    rows: int
    columns: dict[str, Column]
    group_rows: int

    @property
    def window_rows(self) -> int:
        return WINDOW_GROUPS * self.group_rows


NARROW: dict[str, Column] = {f"x{i}": ("float32", ()) for i in range(8)}
NARROW |= {"code": ("int32", ()), "label": ("int64", ())}
KINDS = {
    kind.name: kind
    for kind in (
        Kind("images28", 180_000, {"image": ("uint8", (28, 28)), "label": ("int64", ())}, 2_648),
        Kind("images64", 12_000, {"image": ("uint8", (3, 64, 64)), "label": ("int64", ())}, 170),
        Kind("narrow", 320_000, NARROW, 8_192),
    )
}


def write(kind: Kind, folder: Path, images: Array, labels: Array) -> None:
    """Write a kind's columns, one .npy each, and what they add up to.

    Args:
        kind: of the rows.
        folder: to write into.
        images: real ones, uint8, shape [n, 28, 28]; repeated to give as many rows as are wanted.
        labels: of the images, shape [n].
    """
    source = folder / kind.name / "source"
    source.mkdir(parents=True)
    sums = {}
    for name, column in _columns(kind, images, labels).items():
        np.save(source / f"{name}.npy", column)
        sums[name] = float(column.sum(dtype=np.float64))
    (source / "sums.json").write_text(json.dumps(sums))


def _columns(kind: Kind, images: Array, labels: Array) -> dict[str, Array]:
    chance = np.random.default_rng(1)
    if kind.name == "narrow":
        floats = {f"x{i}": chance.random(kind.rows, np.float32) for i in range(8)}
        code = chance.integers(0, 1000, kind.rows, np.int32)
        return {**floats, "code": code, "label": chance.integers(0, 10, kind.rows, np.int64)}
    chosen = np.arange(kind.rows) % len(images)
    if kind.name == "images28":
        return {"image": images[chosen], "label": labels[chosen].astype(np.int64)}
    wide = np.arange(64) * 28 // 64
    three = np.stack([images[(chosen + shift) % len(images)] for shift in range(3)], axis=1)
    large = three[:, :, wide][:, :, :, wide] // 2
    large += chance.integers(0, 8, large.shape, np.uint8)  # a camera's noise: flat areas would compress to nothing
    return {"image": large, "label": labels[chosen].astype(np.int64)}


def load(kind: Kind, folder: Path) -> dict[str, Array]:
    """The source columns, mapped; shape [rows, ...] each."""
    source = folder / kind.name / "source"
    return {name: np.load(source / f"{name}.npy", mmap_mode="r") for name in kind.columns}


def check(kind: Kind, folder: Path, batches: Iterable[Batch]) -> None:
    """Walk an epoch and see that it is what everybody is to deliver: all rows once, shuffled, in the same tensors.

    Raises:
        ValueError: saying what is wrong.
    """
    sums = dict.fromkeys(kind.columns, 0.0)
    rows, first = 0, None
    for batch in batches:
        first = first if first is not None else batch["label"].clone()
        rows += len(batch["label"])
        for name, (dtype, shape) in kind.columns.items():
            tensor = batch[name]
            if tensor.dtype != getattr(torch, dtype) or tensor.shape[1:] != shape or len(tensor) > BATCH:
                raise ValueError(f"{name} is {tensor.dtype} of shape {tuple(tensor.shape)}, not {dtype} [256, {shape}]")
            sums[name] += float(tensor.numpy().sum(dtype=np.float64))
    wanted = json.loads((folder / kind.name / "source" / "sums.json").read_text())
    if rows != kind.rows or not all(np.isclose(sums[name], wanted[name], rtol=1e-9) for name in sums):
        raise ValueError(f"{rows} rows with sums {sums}, not {kind.rows} with {wanted}")
    if first is None or np.array_equal(first.numpy(), load(kind, folder)["label"][: len(first)]):
        raise ValueError("the first batch is as stored, not shuffled")


def stacked(kind: Kind, samples: list[dict[str, Any]]) -> Batch:
    """A batch of rows that come one by one, as dicts; the fastest way that was found for NumPy values."""
    batch = {}
    for name, (dtype, shape) in kind.columns.items():
        values = [sample[name] for sample in samples]
        array = np.stack(values).reshape(-1, *shape) if shape else np.array(values, dtype)
        batch[name] = torch.from_numpy(array)
    return batch
