"""Digests that say whether two runs saw the same samples."""

from __future__ import annotations

import hashlib
import struct
from typing import Any

import numpy as np

from headway.core.order import Rows

WORDS = 4  # 16-bit words of a lane's digest: whole numbers below 2^16 cross a float32 sum unharmed


PART_BYTES = 32 * 2**20
"""Of a state that is larger so much is looked at in a step: some 5 ms of a core."""


def parts(size: int, every: int) -> int:
    """In how many parts a state of so many bytes is compared, when all of it is to be within `every` steps.

    Raises:
        ValueError: there are no steps.
    """
    if every < 1:
        raise ValueError(f"a comparison every {every} steps")
    return max(1, min(every, -(-size // PART_BYTES)))


def due(step: int, every: int, number: int) -> int | None:
    """Which of `number` parts is compared before a step, if one is: each once in `every` steps, evenly spread, and the
    first at those that `every` divides."""
    place = step % every * number
    return place // every if place % every < number else None


def of_ids(ids: Rows) -> np.ndarray[Any, np.dtype[np.uint16]]:
    """Digest of the sample ids that a lane took at a step, shape [WORDS]: BLAKE2b of them as little-endian int64."""
    digest = hashlib.blake2b(ids.astype("<i8").tobytes(), digest_size=2 * WORDS).digest()
    return np.frombuffer(digest, "<u2")


class Chain:
    """SHA-256 over the lane digests of all committed steps: D(s) = SHA-256(D(s-1), s, digests of lanes 0..L-1 at s).

    Args:
        state: hex digest to go on from.
    """

    def __init__(self, state: str = "00" * 32) -> None:
        self._state = bytes.fromhex(state)

    def add(self, step: int, lanes: np.ndarray[Any, np.dtype[np.uint16]]) -> None:
        """Add a committed step. lanes: shape [lanes, WORDS]; zeros for a lane that had no rows."""
        message = self._state + struct.pack(">q", step) + lanes.astype("<u2").tobytes()
        self._state = hashlib.sha256(message).digest()

    def hexdigest(self) -> str:
        return self._state.hex()
