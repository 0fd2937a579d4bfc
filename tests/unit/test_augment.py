"""Augmentation: what is done to which rows, and that only the generator decides it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from headway.data.augment import Strength, augment, mixup
from headway.errors import BadInput


def random(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(seed))


def images(rows: int = 200, *shape: int, dtype: Any = np.uint8) -> np.ndarray:
    found = random(9).integers(1, 256, (rows, *(shape or (8, 6)))).astype(np.uint8)
    return found if dtype == np.uint8 else (found / 255).astype(dtype)


ALL = Strength(flip=0.5, crop=2, noise=0.1)


@pytest.mark.parametrize("shape", [(8, 6), (3, 8, 6)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_shape_and_type_stay_and_the_generator_alone_decides(shape: tuple[int, ...], dtype: Any) -> None:
    before = images(50, *shape, dtype=dtype)
    kept = before.copy()
    first, again, other = (augment(before, random(seed), ALL) for seed in (1, 1, 2))
    assert first.shape == before.shape
    assert first.dtype == before.dtype
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert np.array_equal(before, kept), "the images given are not written to"


def test_without_strength_nothing_changes() -> None:
    assert np.array_equal(augment(images(), random()), images())


def test_flips_mirror_so_many_rows() -> None:
    before = images(2000, 3, 8, 6)
    after = augment(before, random(), Strength(flip=0.3))
    mirrored = (after == before[..., ::-1]).all(axis=(1, 2, 3))
    same = (after == before).all(axis=(1, 2, 3))
    assert np.all(mirrored | same)
    assert abs(mirrored.mean() - 0.3) < 0.03


def test_crops_shift_by_up_to_so_many_pixels_each_way() -> None:
    before = images(3000)
    after = augment(before, random(), Strength(crop=2))
    padded = np.pad(before, ((0, 0), (2, 2), (2, 2)))
    seen = np.zeros((5, 5))
    for down in range(5):
        for right in range(5):
            seen[down, right] = (after == padded[:, down : down + 8, right : right + 6]).all(axis=(1, 2)).sum()
    assert seen.sum() == 3000
    assert np.all(np.abs(seen - 120) < 50)


def test_noise_has_its_deviation_and_stays_in_range() -> None:
    grey = np.full((50, 20, 20), 128, np.uint8)
    after = augment(grey, random(), Strength(noise=0.1))
    assert abs(after.std() / 255 - 0.1) < 0.005
    assert augment(np.full((9, 8, 8), 250, np.uint8), random(), Strength(noise=0.2)).max() == 255
    floats = augment(np.full((50, 20, 20), 0.5, np.float32), random(), Strength(noise=0.1))
    assert abs(floats.std() - 0.1) < 0.005


def test_strengths_by_class() -> None:
    before, labels = images(300), np.arange(300) % 3
    after = augment(before, random(), labels=labels, by_class={1: Strength(flip=1.0), 2: Strength(crop=3)})
    assert np.array_equal(after[labels == 0], before[labels == 0])
    assert np.array_equal(after[labels == 1], before[labels == 1][..., ::-1])
    assert not np.array_equal(after[labels == 2], before[labels == 2])


def test_one_class_does_not_change_what_another_gets() -> None:
    labels = np.arange(300) % 2
    first, second = (
        augment(images(300), random(), labels=labels, by_class={0: zero, 1: ALL})[labels == 1]
        for zero in (Strength(), Strength(crop=3, noise=0.2))
    )
    assert np.array_equal(first, second)


def test_mixup_is_what_its_shares_say() -> None:
    before, labels = images(500, 3, 8, 6), np.arange(500)
    mixed = mixup(before, labels, random(), alpha=0.4)
    share = mixed.share[:, None, None, None]
    assert np.allclose(mixed.images, (share * before + (1 - share) * before[mixed.others]) / 255, atol=1e-5)
    assert mixed.images.dtype == np.float32
    assert mixed.share.min() >= 0.5
    assert np.array_equal(mixed.labels, labels)
    assert sorted(mixed.others) == list(range(500))
    assert np.array_equal(mixed.images, mixup(before, labels, random(), alpha=0.4).images)
    assert mixup(before, labels, random(), alpha=4.0).share.mean() < mixed.share.mean()


def test_an_empty_batch() -> None:
    assert augment(images(0), random(), ALL).shape == (0, 8, 6)
    assert mixup(images(0), np.arange(0), random()).images.shape == (0, 8, 6)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: augment(np.zeros((5, 4), np.uint8), random()), r"images of shape \(5, 4\)"),
        (lambda: augment(np.zeros((5, 4, 4), np.int64), random()), "type int64"),
        (lambda: augment(images(), random(), by_class={1: ALL}), "no labels"),
        (lambda: augment(images(), random(), labels=np.zeros(3), by_class={1: ALL}), r"labels of shape \(3,\)"),
        (lambda: mixup(images(), np.zeros(200), random(), alpha=0.0), "alpha=0.0"),
    ],
)
def test_what_is_refused(call: Any, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        call()
