"""Packing of token sequences: every token once, nothing mixed up, and few rows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.data.packing import first_fit_decreasing, pack
from headway.errors import BadInput

SIZES = st.lists(st.integers(1, 32), max_size=60)


def sequences(sizes: list[int]) -> list[np.ndarray]:
    first = np.cumsum([1, *sizes])
    return [np.arange(start, start + size) for start, size in zip(first, sizes, strict=False)]


@given(SIZES)
def test_every_sequence_is_found_whole_where_it_was_placed(sizes: list[int]) -> None:
    given_ = sequences(sizes)
    packed = pack(given_, 32)
    for sequence, (row, start) in zip(given_, packed.placed, strict=True):
        place = (row, slice(start, start + len(sequence)))
        assert np.array_equal(packed.tokens[place], sequence)
        assert np.array_equal(packed.positions[place], np.arange(len(sequence)))
        assert len(set(packed.segments[place].tolist())) == 1
    assert np.count_nonzero(packed.tokens) == sum(sizes), "every token once"
    assert np.array_equal(packed.segments > 0, packed.tokens > 0)


@given(SIZES)
def test_segments_of_a_row_are_numbered_from_left_to_right(sizes: list[int]) -> None:
    packed = pack(sequences(sizes), 32)
    for segments in packed.segments:
        held = segments[segments > 0]
        assert np.all(np.diff(held) >= 0)
        assert sorted(set(held.tolist())) == list(range(1, int(held.max()) + 1))
        assert not segments[len(held) :].any(), "what is left over lies at the end"


@given(SIZES)
def test_each_goes_into_the_first_row_that_has_room(sizes: list[int]) -> None:
    room: list[int] = []
    expected = {}
    for number in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
        row = next((r for r, free in enumerate(room) if free >= sizes[number]), len(room))
        if row == len(room):
            room.append(32)
        expected[number] = (row, 32 - room[row])
        room[row] -= sizes[number]
    found = first_fit_decreasing(sizes, 32)
    assert [tuple(place) for place in found.tolist()] == [expected[i] for i in range(len(sizes))]


def test_little_is_padding() -> None:
    sizes = np.random.Generator(np.random.Philox(1)).integers(10, 400, 500).tolist()
    assert pack(sequences(sizes), 512).fill > 0.95


def test_types_padding_and_number_of_rows() -> None:
    packed = pack([np.array([1, 2], np.uint16), np.array([3], np.uint16)], 4, pad=9, rows=3)
    assert packed.tokens.dtype == np.uint16
    assert packed.tokens.tolist() == [[1, 2, 3, 9], [9] * 4, [9] * 4]
    assert packed.segments.tolist() == [[1, 1, 2, 0], [0] * 4, [0] * 4]
    assert packed.positions.tolist() == [[0, 1, 0, 0], [0] * 4, [0] * 4]
    assert packed.fill == 0.25
    assert pack([], 4).tokens.shape == (0, 4)


@pytest.mark.parametrize(
    ("sizes", "rows", "said"),
    [([3, 0], None, "sequence 1 has 0 tokens"), ([33], None, "sequence 0 has 33 tokens"), ([20, 20], 1, "take 2 rows")],
)
def test_what_is_refused(sizes: list[int], rows: int | None, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        pack(sequences(sizes), 32, rows=rows)
