"""Packing of token sequences: several short ones share a row of fixed length, so that little of a batch is padding."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from headway.errors import BadInput

Tokens = np.ndarray[Any, Any]
Int32 = np.ndarray[Any, np.dtype[np.int32]]


@dataclass(frozen=True)
class Packed:
    """Sequences in rows of one length.

    Args:
        tokens: as given, `pad` where there is none; shape [rows, length].
        segments: 1, 2, ... for the sequences of a row, in their order, 0 where there is none; shape [rows, length].
            Attention is allowed where segments are equal and not 0.
        positions: of a token within its sequence, 0 where there is none; shape [rows, length].
        placed: (row, start) of every sequence that was given; shape [sequences, 2].
    """

    tokens: Tokens
    segments: Int32
    positions: Int32
    placed: Int32

    @property
    def fill(self) -> float:
        """Share of the places that hold a token."""
        return float((self.segments > 0).mean()) if self.segments.size else 0.0


def pack(sequences: Sequence[Tokens], length: int, pad: int = 0, rows: int | None = None) -> Packed:
    """Pack sequences into rows: the longest first, each into the first row that has room (first-fit decreasing).

    The same sequences give the same rows on every machine; equal lengths keep their order. No more than 11/9 of the
    fewest possible rows are used, plus one (Johnson 1973).

    Args:
        sequences: of tokens, each of shape [n], 1 <= n <= length.
        length: of a row.
        pad: token where there is none.
        rows: of the result, empty ones behind the others; as many as are needed when not given.

    Raises:
        BadInput: a sequence is empty or longer than a row, or `rows` are too few.
    """
    sizes = [len(sequence) for sequence in sequences]
    for number, size in enumerate(sizes):
        if not 1 <= size <= length:
            fact = f"sequence {number} has {size} tokens"
            raise BadInput(fact, f"a row holds 1 to {length}", "Cut it, leave it out, or pack into longer rows.")
    placed = first_fit_decreasing(sizes, length)
    needed = int(placed[:, 0].max(initial=-1)) + 1
    if rows is not None and rows < needed:
        raise BadInput(f"rows={rows}", f"{len(sizes)} sequences take {needed} rows of {length}", "Give more rows.")
    shape = (needed if rows is None else rows, length)
    dtype = np.result_type(*{sequence.dtype for sequence in sequences}) if sequences else np.dtype(np.int64)
    found = Packed(np.full(shape, pad, dtype), np.zeros(shape, np.int32), np.zeros(shape, np.int32), placed)
    segments = np.zeros(shape[0], np.int32)
    for number in np.lexsort((placed[:, 1], placed[:, 0])):
        (row, start), size = placed[number], sizes[number]
        segments[row] += 1
        found.tokens[row, start : start + size] = sequences[number]
        found.segments[row, start : start + size] = segments[row]
        found.positions[row, start : start + size] = np.arange(size)
    return found


def first_fit_decreasing(sizes: Sequence[int], length: int) -> Int32:
    """(row, start) of every size, shape [sizes, 2]; every size is 1 to `length`."""
    placed = np.zeros((len(sizes), 2), np.int32)
    room: list[int] = []
    by_room: dict[int, list[int]] = {}  # rows that have exactly so much room, ascending
    rooms: list[int] = []  # the keys of it, ascending
    for number in sorted(range(len(sizes)), key=lambda i: (-sizes[i], i)):
        size = sizes[number]
        fitting = rooms[bisect_left(rooms, size) :]
        row = min((by_room[free][0] for free in fitting), default=len(room))
        if row == len(room):
            room.append(length)
        else:
            by_room[room[row]].pop(0)
            if not by_room[room[row]]:
                rooms.remove(room[row])
                del by_room[room[row]]
        placed[number] = row, length - room[row]
        room[row] -= size
        if room[row] not in by_room:
            insort(rooms, room[row])
            by_room[room[row]] = []
        insort(by_room[room[row]], row)
    return placed
