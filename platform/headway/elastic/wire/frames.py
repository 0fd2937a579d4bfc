"""What a worker's line carries again and again, in binary: beats, and their answers.

A beat in JSON cost the coordinator 25 microseconds to read, and thousands of workers send several a second; a frame
costs two. Each begins with a byte with which no line of JSON begins, from which its size follows.
"""

from __future__ import annotations

import struct
from typing import Any

from headway.core.ledger import BOOKED
from headway.core.watch import At

BEAT, LEASE = b"\x01", b"\x02"
_BEAT = struct.Struct(f"!cQdqBBqdq{len(BOOKED)}d")
_LEASE = struct.Struct("!cQdf")
SIZES = {BEAT[0]: _BEAT.size, LEASE[0]: _LEASE.size}
"""Bytes of a frame, by its first."""
LONGEST_S = 60.0
_LARGEST = 2.0**36
"""Seconds, two thousand years: beside them a sum of floats still knows a hundred thousandth of one."""
_KINDS = len(At)


def beat(fields: tuple[Any, ...]) -> bytes:
    """A `messages.Beat`'s. Raises ValueError: it cannot be told."""
    number, heard, mark, at, waiting, step, lane_s, ledger, exchanged = fields
    try:
        return _BEAT.pack(BEAT, number, heard, mark, at, waiting, step, lane_s, exchanged, *ledger)
    except struct.error as error:
        raise ValueError(f"no beat: {error}") from None


def read_beat(frame: bytes) -> tuple[Any, ...]:
    """The fields of a `messages.Beat`, in order. Raises ValueError for what is none."""
    if len(frame) != _BEAT.size:
        raise ValueError(f"{len(frame)} bytes are no beat")
    kind, number, heard, mark, at, waiting, step, lane_s, exchanged, *ledger = _BEAT.unpack(frame)
    seconds = (heard, lane_s, *ledger)
    # What is not a number is in no order, but spoils the sum; an account that is too large spoils all the others.
    if kind != BEAT or at >= _KINDS or waiting > 1 or not 0.0 <= sum(seconds) < _LARGEST or min(seconds) < 0.0:
        raise ValueError("a beat that says what there is not")
    return number, heard, mark, at, bool(waiting), step, lane_s, tuple(ledger), exchanged


def lease(number: int, at: float, period_s: float) -> bytes:
    """A `messages.Lease`'s."""
    return _LEASE.pack(LEASE, number, at, period_s)


def read_lease(frame: bytes) -> tuple[int, float, float]:
    """The fields of a `messages.Lease`, in order. Raises ValueError for what is none."""
    if len(frame) != _LEASE.size:
        raise ValueError(f"{len(frame)} bytes are no lease")
    kind, number, at, period_s = _LEASE.unpack(frame)
    if kind != LEASE or not 0.0 <= at < _LARGEST or not 0.0 < period_s <= LONGEST_S:
        raise ValueError("a lease that says what there is not")
    return number, at, round(period_s, 6)  # as it was before it was a float of four bytes
