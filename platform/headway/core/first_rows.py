"""First values of a table's rows, each drawn from the seed and its own number: nobody makes the whole table to have one
of them, and it is the same whoever asks, and when."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
_SPREAD = np.float32(3.0**0.5 / 65536.0)


def first_rows(ids: npt.NDArray[np.int64], dim: int, seed: int, std: float) -> npt.NDArray[np.float32]:
    """Nearly normal values: each is the sum of four uniform ones (no further from 0 than 3.46 x std), since what a
    logarithm's last digit is hangs on the machine.

    Args:
        ids: of the rows, shape [rows].
        dim: values of a row.
        seed: of the table.
        std: standard deviation; 0 gives zeros.

    Returns:
        Shape [rows, dim].
    """
    with np.errstate(over="ignore"):
        row = _mixed(ids.astype(np.uint64) * _GOLDEN + _mixed(np.uint64(seed % 2**64) + _GOLDEN))
        bits = _mixed(row[:, None] + np.arange(1, dim + 1, dtype=np.uint64)[None, :] * _GOLDEN)
    total = np.zeros(bits.shape, dtype=np.int64)
    for shift in (0, 16, 32, 48):
        total += ((bits >> np.uint64(shift)) & np.uint64(0xFFFF)).astype(np.int64)
    return ((total - 2 * 65535).astype(np.float32) * _SPREAD * np.float32(std)).astype(np.float32)


def _mixed(value: npt.NDArray[np.uint64] | np.uint64) -> npt.NDArray[np.uint64]:
    """Steele et al. 2014, SplitMix64's finaliser: a change of any bit changes half of all."""
    found = np.asarray(value, dtype=np.uint64)
    found = (found ^ (found >> np.uint64(30))) * _MIX[0]
    found = (found ^ (found >> np.uint64(27))) * _MIX[1]
    return found ^ (found >> np.uint64(31))
