"""Augmentation of image batches, by class: flip, crop, noise and mixup, for a task's `transform`.

    RARE = Strength(flip=0.5, crop=3, noise=0.05)

    def transform(self, table, random, training):
        batch = arrays(table)
        if training:
            batch["image"] = augment(batch["image"], random, labels=batch["label"], by_class={7: RARE, 8: RARE})
        return batch

All randomness comes from the generator that is given, which follows the lane: a batch is the same wherever it is made.
What is drawn for a row does not depend on the other rows' classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from headway.errors import BadInput

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Strength:
    """How much is done to a row's image.

    Args:
        flip: chance of a mirror image, left to right; 0 to 1.
        crop: pixels by which the image is shifted at most, each way; what comes in from outside is 0.
        noise: standard deviation of Gaussian noise, as a share of the brightest value (255 for uint8, 1 for floats).
    """

    flip: float = 0.0
    crop: int = 0
    noise: float = 0.0


NONE = Strength()


def augment(
    images: Array,
    random: np.random.Generator,
    strength: Strength = NONE,
    labels: Array | None = None,
    by_class: Mapping[int, Strength] | None = None,
) -> Array:
    """Images altered at random, row by row; a new array of the same shape and dtype.

    Args:
        images: [rows, height, width] or [rows, channels, height, width], uint8 or float32/64.
        random: the lane's generator.
        strength: for rows whose class is not in `by_class`.
        labels: class of every row, shape [rows]; needed with `by_class`.
        by_class: strengths by class.

    Raises:
        BadInput: images of another shape or dtype, or classes without labels.
    """
    _check(images)
    flip, crop, noise = _by_row(len(images), strength, labels, by_class)
    stack = images if images.ndim == 4 else images[:, None]
    # Every row has its draws whatever is done to it, so that one class's strength does not change another's images.
    draws = random.random((len(stack), 3))
    mirrored = draws[:, 0] < flip
    stack = np.where(mirrored[:, None, None, None], stack[..., ::-1], stack)
    shifts = np.floor(draws[:, 1:] * (2 * crop + 1)[:, None]).astype(np.int64) - crop[:, None]  # [rows, 2]
    stack = _shifted(stack, shifts, int(crop.max(initial=0)))
    if noise.any():
        stack = _noisy(stack, noise, random)
    return stack if images.ndim == 4 else stack[:, 0]


def _check(images: Array) -> None:
    if images.ndim not in (3, 4) or images.dtype not in (np.uint8, np.float32, np.float64):
        raise BadInput(
            f"images of shape {images.shape} and type {images.dtype}",
            "[rows, height, width] or [rows, channels, height, width] of uint8 or float is needed",
            "Bring them into that form before they are augmented.",
        )


def _by_row(
    rows: int, strength: Strength, labels: Array | None, by_class: Mapping[int, Strength] | None
) -> tuple[Array, Array, Array]:
    """Chance of a flip, pixels of crop, and noise of every row; each of shape [rows]."""
    strengths = [strength, *(by_class or {}).values()]
    chosen = np.zeros(rows, np.int64)
    if by_class:
        if labels is None or labels.shape != (rows,):
            found = "no labels" if labels is None else f"labels of shape {labels.shape}"
            raise BadInput(found, f"strengths by class need the class of each of {rows} rows", "Give labels=.")
        for number, value in enumerate(by_class, start=1):
            chosen[labels == value] = number
    flip, crop, noise = (np.array([getattr(s, name) for s in strengths])[chosen] for name in ("flip", "crop", "noise"))
    return flip, crop, noise


def _shifted(stack: Array, shifts: Array, most: int) -> Array:
    """Every image moved by its own (down, right), with 0 where nothing comes from; [rows, channels, height, width]."""
    if most == 0:
        return stack
    rows, _, height, width = stack.shape
    padded = np.pad(stack, ((0, 0), (0, 0), (most, most), (most, most)))
    down = most - shifts[:, 0, None] + np.arange(height)  # [rows, height]
    right = most - shifts[:, 1, None] + np.arange(width)  # [rows, width]
    moved = padded.transpose(0, 2, 3, 1)[np.arange(rows)[:, None, None], down[:, :, None], right[:, None, :]]
    return np.ascontiguousarray(moved.transpose(0, 3, 1, 2))


def _noisy(stack: Array, noise: Array, random: np.random.Generator) -> Array:
    brightest = 255.0 if stack.dtype == np.uint8 else 1.0
    added = (
        random.standard_normal(stack.shape, np.float32) * (noise * brightest).astype(np.float32)[:, None, None, None]
    )
    if stack.dtype == np.uint8:
        return np.clip(np.rint(stack + added), 0, 255).astype(np.uint8)
    return (stack + added).astype(stack.dtype)


@dataclass(frozen=True)
class Mixup:
    """A batch of which each row is mixed with another (Zhang et al. 2018): loss = share * loss(labels) + (1 - share)
    * loss(others).

    Args:
        images: float32, mixed; shape as given.
        labels: of the row itself, shape [rows].
        others: of the row mixed in, shape [rows].
        share: of the row itself, float32 from 0.5 to 1, shape [rows].
    """

    images: Array
    labels: Array
    others: Array
    share: Array


def mixup(images: Array, labels: Array, random: np.random.Generator, alpha: float = 0.2) -> Mixup:
    """Mix every row with another of the batch.

    Args:
        images: [rows, height, width] or [rows, channels, height, width]; uint8 is scaled to 0..1.
        labels: shape [rows].
        random: the lane's generator.
        alpha: of the Beta distribution of shares; the larger, the more is mixed.

    Raises:
        BadInput: images of another shape or dtype, or an alpha that is not above 0.
    """
    _check(images)
    if not alpha > 0:
        raise BadInput(f"mixup with alpha={alpha}", "a Beta distribution needs one above 0", "Leave mixup out instead.")
    scaled = images.astype(np.float32) / (np.float32(255) if images.dtype == np.uint8 else np.float32(1))
    share = random.beta(alpha, alpha, len(images)).astype(np.float32)
    share = np.maximum(share, 1 - share)  # a row stays the larger part of its own
    partner = random.permutation(len(images))
    own = share.reshape(-1, *[1] * (images.ndim - 1))
    return Mixup(own * scaled + (1 - own) * scaled[partner], labels, labels[partner], share)
