"""Whose state is right when replicas differ: one vote per lineage."""

from __future__ import annotations

import pytest

from headway.elastic.worker.tail import LARGEST
from headway.elastic.worker.vote import lineage_of, verdict
from headway.errors import RunFailed

A, B, C = 1, 2, 3


def test_all_agree() -> None:
    assert verdict([(A, b"x"), (B, b"x")], 0) == (0, [])


def test_a_minority_is_ill() -> None:
    assert verdict([(A, b"y"), (B, b"x"), (C, b"x")], 0) == (1, [0])


def test_2_11_a_copy_of_an_ill_state_has_no_vote_of_its_own() -> None:
    """w1 is ill, and w2 took its state: two that agree, and know no more than one."""
    with pytest.raises(RunFailed, match="none has a majority"):
        verdict([(A, b"sound"), (B, b"ill"), (B, b"ill")], 7)


def test_2_11_within_a_lineage_the_majority_is_right() -> None:
    """All have one worker's state; who differs since was corrupted after it took it."""
    assert verdict([(A, b"x"), (A, b"y"), (A, b"x")], 0) == (0, [1])
    assert verdict([(A, b"y"), (A, b"x"), (A, b"x"), (B, b"x")], 0) == (1, [0])


def test_two_that_differ_have_no_majority() -> None:
    for votes in ([(A, b"x"), (B, b"y")], [(A, b"x"), (A, b"y")]):
        with pytest.raises(RunFailed, match="none has a majority"):
            verdict(votes, 0)


def test_a_lineage_crosses_a_float32_sum() -> None:
    found = {lineage_of(f"w{number}") for number in range(2000)}
    assert len(found) > 1990
    assert all(0 < lineage < LARGEST for lineage in found)
