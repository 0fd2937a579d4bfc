"""Keys of random generators, so that randomness follows the lane and never the worker."""

from __future__ import annotations

import hashlib
import struct


def key(purpose: str, *numbers: int) -> int:
    """A 63-bit key for one purpose and its coordinates, such as ("lane", seed, epoch, step, lane).

    BLAKE2b, so that neighbouring coordinates give unrelated keys on every machine and version.
    """
    message = purpose.encode() + b"\0" + struct.pack(f">{len(numbers)}q", *numbers)
    return int.from_bytes(hashlib.blake2b(message, digest_size=8).digest(), "big") >> 1
