"""What rides on the reduction arrives as it was sent."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from headway.core.digest import of_ids
from headway.core.lanes_together import Mismatch, Reason
from headway.elastic.worker.tail import Tail


@given(st.integers(1, 8), st.integers(1, 8), st.integers(0, 3), st.integers(0, 2**40))
def test_workers_tails_add_up_to_the_whole(lanes: int, workers: int, spare: int, first: int) -> None:
    tails = [Tail(lanes, workers + spare) for _ in range(workers)]
    replicas = [of_ids(np.arange(first + rank, first + rank + 7)) for rank in range(workers)]
    for lane in range(lanes):
        tail = tails[lane % workers]
        tail.ids(lane, np.arange(first + lane, first + lane + 3))
        tail.loss(lane, torch.tensor(float(lane) / 7))
    for rank, tail in enumerate(tails):
        tail.replica(rank, 2**24 - 1 - rank, replicas[rank])
    assert all(tail.values.shape == (tail.size,) for tail in tails)
    whole = torch.stack([tail.values for tail in tails]).sum(0)
    tails[-1].take(whole)
    wanted = [of_ids(np.arange(first + lane, first + lane + 3)) for lane in range(lanes)]
    assert np.array_equal(tails[-1].digests(), np.stack(wanted))
    assert tails[-1].losses() == [torch.tensor(lane / 7).item() for lane in range(lanes)]
    assert tails[-1].replicas(workers) == [(2**24 - 1 - rank, words.tobytes()) for rank, words in enumerate(replicas)]
    assert tails[-1].rows() == 3 * lanes
    assert not tails[-1].stopping()
    assert not tails[-1].news()


@pytest.mark.parametrize(("stop", "news"), [(True, False), (False, True), (True, True)])
def test_one_worker_that_raises_a_flag_is_enough(stop: bool, news: bool) -> None:
    """So that all stop, or enter another generation, after the same step."""
    tails = [Tail(2, 3) for _ in range(3)]
    tails[1].flags(stop, news)
    tails[2].flags(False, news)
    tails[0].take(sum(tail.values for tail in tails))  # type: ignore[arg-type]
    assert (tails[0].stopping(), tails[0].news()) == (stop, news)


def test_one_worker_that_sees_why_lanes_must_be_apart_is_enough() -> None:
    tails = [Tail(2, 3) for _ in range(3)]
    for tail in tails:
        tail.flags(False, False)
    tails[0].lanes(together=True, spoilt=False, apart=None)
    tails[1].lanes(together=False, spoilt=False, apart=Mismatch(Reason.LOSS, 0.25))
    tails[2].lanes(together=True, spoilt=False, apart=Mismatch(Reason.LOSS, 0.75))
    tails[0].take(sum(tail.values for tail in tails))  # type: ignore[arg-type]
    assert tails[0].apart() == Mismatch(Reason.LOSS, 0.5)
    assert (tails[0].together(), tails[0].spoilt()) == (True, False)
    assert [tails[0].stopping(), tails[0].news(), tails[0].evaluating()] == [False, False, 0]
    tails[1].clear()
    tails[1].lanes(together=False, spoilt=True, apart=None)
    tails[0].take(tails[1].values)
    assert (tails[0].apart(), tails[0].together(), tails[0].spoilt()) == (None, False, True)


def test_clearing_forgets_the_step_before() -> None:
    tail = Tail(2, 2)
    tail.ids(0, np.arange(3))
    tail.loss(1, torch.tensor(2.0))
    tail.flags(True, True)
    tail.replica(1, 7, of_ids(np.arange(3)))
    tail.clear()
    assert tail.values.count_nonzero() == 0


def test_a_loss_that_is_no_number_spoils_only_its_place() -> None:
    tail, other = Tail(3, 1), Tail(3, 1)
    tail.loss(1, torch.tensor(float("nan")))
    other.ids(2, np.arange(5))
    tail.take(tail.values + other.values)
    assert [loss == loss for loss in tail.losses()] == [True, False, True]
    assert np.array_equal(tail.digests()[2], of_ids(np.arange(5)))


def test_an_empty_lane_has_a_digest_of_zeros() -> None:
    tail = Tail(2, 0)
    tail.ids(0, np.arange(5))
    tail.take(tail.values.clone())
    assert tail.digests()[1].tolist() == [0, 0, 0, 0]
