"""Tensors in near-equal ranges."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.core.ranges import ALIGNMENT, Piece, Ranges, backed_up, carriers, of_whole, through

sizes_of = st.lists(st.integers(0, 5000), max_size=12)


def require_each_once(ranges: Ranges, sizes: list[int]) -> None:
    for tensor, size in enumerate(sizes):
        pieces = [piece for each in ranges for piece in each if piece.tensor == tensor]
        at = 0
        for piece in pieces:
            assert piece.start == at
            at = piece.stop
        assert at == size
        assert pieces, "a tensor without elements is somebody's too"


@given(sizes=sizes_of, ranges=st.integers(1, 9), alignment=st.sampled_from([1, 8, ALIGNMENT]))
def test_cuts_go_through_tensors_at_aligned_places(sizes: list[int], ranges: int, alignment: int) -> None:
    found = through(sizes, ranges, alignment)
    assert len(found) == ranges
    require_each_once(found, sizes)
    for pieces in found:
        assert [piece.tensor for piece in pieces] == sorted({piece.tensor for piece in pieces})
        assert abs(sum(piece.size for piece in pieces) - sum(sizes) / ranges) <= alignment + 1
        for piece in pieces:
            assert piece.start % alignment == 0
            assert piece.stop % alignment == 0 or piece.stop == sizes[piece.tensor]


@given(sizes=sizes_of, ranges=st.integers(1, 9))
def test_whole_tensors_are_dealt_evenly(sizes: list[int], ranges: int) -> None:
    found = of_whole(sizes, ranges)
    require_each_once(found, sizes)
    assert all(piece == Piece(piece.tensor, 0, sizes[piece.tensor]) for pieces in found for piece in pieces)
    filled = [sum(piece.size for piece in pieces) for pieces in found]
    assert max(filled) - min(filled) <= max(sizes, default=0)


def test_by_hand() -> None:
    assert through([10, 0, 10], 2, 1) == ((Piece(0, 0, 10),), (Piece(1, 0, 0), Piece(2, 0, 10)))
    assert through([200], 3) == ((Piece(0, 0, 64),), (Piece(0, 64, 128),), (Piece(0, 128, 200),))
    assert of_whole([5, 3, 3], 2) == ((Piece(0, 0, 5),), (Piece(1, 0, 3), Piece(2, 0, 3)))
    assert through([], 2) == ((), ())


@pytest.mark.parametrize("cut", [through, of_whole])
def test_no_range_is_refused(cut: type) -> None:
    with pytest.raises(ValueError, match="0 ranges"):
        cut([1], 0)


def test_who_has_what() -> None:
    carried = [(0, 3), (), (1, 2)]
    assert carriers(carried) == {0: 0, 3: 0, 1: 2, 2: 2}
    assert [backed_up(carried, rank) for rank in range(3)] == [(1, 2), (0, 3), ()]
    assert backed_up([(0, 1)], 0) == ()
    with pytest.raises(ValueError, match="not each carried once"):
        carriers([(0,), (0,)])
