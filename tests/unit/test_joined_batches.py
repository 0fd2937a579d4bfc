"""Batches of several lanes as one, or why not; and what a worker knows of random numbers and memory."""

from __future__ import annotations

import random
import warnings
from collections import namedtuple
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from headway.elastic.worker import batches, draws
from headway.elastic.worker.footprint import Footprint, status
from headway.elastic.worker.headroom import LEAST_BYTES, Headroom
from headway.elastic.worker.memory import give_back

Pair = namedtuple("Pair", "image label")


def a_batch(first: int, rows: int) -> Any:
    numbers = torch.arange(first, first + rows)
    return {
        "x": numbers[:, None].float().expand(rows, 3).contiguous(),
        "nest": [numbers, {"text": [f"row {number}" for number in numbers.tolist()]}],
        "pair": Pair(numbers.double(), np.array([f"{number}" for number in numbers.tolist()], dtype=object)),
        "name": "the same",
        "scale": 0.5,
        "nothing": None,
    }


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4))
def test_batches_are_laid_end_to_end_and_cut_again(rows: list[int]) -> None:
    starts = [sum(rows[:at]) for at in range(len(rows))]
    found = batches.joined([a_batch(start, count) for start, count in zip(starts, rows, strict=True)], rows)
    wanted = a_batch(0, sum(rows))
    assert torch.equal(found["x"], wanted["x"])
    assert torch.equal(found["nest"][0], wanted["nest"][0])
    assert found["nest"][1] == wanted["nest"][1]
    assert torch.equal(found["pair"].image, wanted["pair"].image)
    assert found["pair"].label.tolist() == wanted["pair"].label.tolist()
    assert (found["name"], found["scale"], found["nothing"]) == ("the same", 0.5, None)


def ragged() -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is a prototype
        return torch.nested.nested_tensor([torch.ones(1), torch.ones(2)])


def masked() -> Any:
    return np.ma.masked_array(["a", "b"], [True, False])


def test_a_batch_alone_is_itself() -> None:
    one = object()
    assert batches.joined([one], [3]) is one


@pytest.mark.parametrize(
    ("one", "other", "said"),
    [
        ({"x": torch.ones(2, 3)}, {"x": torch.ones(2, 4)}, r"'x' has rows of shape \(3,\) in one lane, \(4,\)"),
        ({"x": torch.ones(2)}, {"x": torch.ones(2).double()}, "'x' has other types"),
        ({"x": torch.ones(2)}, {"y": torch.ones(2)}, "other names"),
        ({"x": torch.ones(2)}, {"x": [1, 2]}, "'x' is a Tensor in one lane, and something else"),
        ({"x": torch.ones(3, 2)}, {"x": torch.ones(3, 2)}, "'x' has not one entry per row"),
        ({"x": torch.tensor(1.0)}, {"x": torch.tensor(1.0)}, "'x' has not one entry per row"),
        ({"x": torch.ones(2, 2).to_sparse()}, {"x": torch.ones(2, 2).to_sparse()}, "'x' is no plain tensor"),
        ({"x": ragged()}, {"x": ragged()}, "'x' is no plain tensor"),
        ({"x": masked()}, {"x": masked()}, "'x' is no plain array"),
        ({"name": "a"}, {"name": "b"}, "'name' is a str"),
        (["a"], ["a", "b"], "other lengths"),
        (object(), object(), "the batch is a object, which cannot be laid end to end"),
    ],
)
def test_what_cannot_be_one_batch_says_why(one: Any, other: Any, said: str) -> None:
    with pytest.raises(batches.Unlike, match=said):
        batches.joined([one, other], [2, 2])


@pytest.mark.parametrize(
    ("draw", "seen"),
    [
        (lambda: None, False),
        (lambda: torch.ones(3) * 2, False),
        (lambda: torch.nn.functional.dropout(torch.ones(3), 0.0), False),
        (lambda: torch.randn(1, generator=torch.Generator().manual_seed(1)), False),
        (lambda: torch.nn.functional.dropout(torch.ones(3), 0.5), True),
        (lambda: torch.randperm(3), True),
        (lambda: torch.rand(624), True),
        (lambda: np.random.normal(), True),
        (lambda: np.random.random_sample(312), True),
        (lambda: random.random(), True),
        (lambda: random.gauss(0, 1), True),
    ],
)
def test_whether_random_numbers_were_drawn(draw: Callable[[], Any], seen: bool) -> None:
    chosen = draws.seed("lane", 1, 2, 3)
    draw()
    assert draws.drawn(chosen) is seen


def test_a_lane_that_takes_memory_is_seen_to_take_it() -> None:
    headroom = Headroom(torch.device("cpu"), None)
    headroom.begin()
    taken = torch.ones(64 << 20, dtype=torch.uint8)
    took = headroom.end()
    assert taken[-1] == 1
    assert 60 << 20 <= took < 200 << 20
    headroom.begin()
    assert headroom.end() == LEAST_BYTES, "the peak is that since it began"


def test_a_lane_that_takes_what_the_process_had_freed_and_kept_is_seen_to_take_it() -> None:
    small = [bytearray(64 << 10) for _ in range(2_000)]
    after = [bytearray(1_000) for _ in range(10)]
    del small
    headroom = Headroom(torch.device("cpu"), None)
    headroom.begin()
    taken = torch.ones(64 << 20, dtype=torch.uint8)
    took = headroom.end()
    assert taken[-1] == 1
    assert len(after) == 10
    assert 60 << 20 <= took < 200 << 20


def test_workers_of_a_machine_share_its_memory_but_not_what_each_was_given() -> None:
    host, own = Headroom(torch.device("cpu"), None), Headroom(torch.device("cpu"), 1)
    assert host.free(1) == 0, "nothing is known"
    host.begin()
    own.begin()
    assert host.free(1) > 0
    assert host.free(4) == host.free(1) // 4
    assert own.free(1) == own.free(4) == 0


def test_the_highest_is_told_once_though_its_count_begins_anew() -> None:
    told: list[dict[str, int]] = []
    give_back()
    footprint = Footprint(torch.device("cpu"), 0, told.append)
    headroom = Headroom(torch.device("cpu"), None, footprint.look)
    taken = torch.ones(64 << 20, dtype=torch.uint8)
    high = status("VmHWM")
    del taken
    headroom.begin()
    footprint.say()
    footprint.say()
    assert len(told) == 1
    near = 8 << 20  # the system counts in steps
    assert told[0]["host"] > high - near
    assert 0 < told[0]["base"] < high
    footprint.due(5.0)
    another = torch.ones(256 << 20, dtype=torch.uint8)
    assert another[-1] == 1
    footprint.due(6.0)
    assert len(told) == 1, "it was looked at just now"
    footprint.due(60.0)
    assert told[1]["host"] > told[0]["host"]


def test_a_worker_has_no_more_than_it_was_given() -> None:
    headroom = Headroom(torch.device("cpu"), 1)
    headroom.begin()
    assert headroom.end() == 0, "less than it has already: nothing is put together"
