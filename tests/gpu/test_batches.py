"""Batches on their way to a GPU: through page-locked memory, copied while it computes; the rows that a CPU gets."""

from __future__ import annotations

from typing import Any

import torch
from tests.gpu.device import DEVICE, REHEARSAL, device, gpu_only, settled
from tests.gpu.loop import LANES, Play, job_of

from headway.data.read.streams import open_readers
from headway.elastic.worker.batches import tensors_of

pytestmark = device


def read(place: str, data: str, steps: int, busy: bool = False) -> list[tuple[Any, dict[str, torch.Tensor]]]:
    """Every lane's rows of some steps, as a worker that carries all of them gets them."""
    train, validation = open_readers(job_of(Play(place), data), device=place)
    assert validation is not None
    found = []
    try:
        train.carry(tuple(range(LANES)), 0)
        for step in range(steps):
            cursor = train.order.cursor(step)
            for lane in range(LANES):
                if busy:
                    torch.cuda._sleep(int(1e7))  # some milliseconds: the copy waits, and its batch is let go
                batch = train.batch(cursor.epoch, cursor.step, lane)
                found.append((batch.ids, tensors_of(batch, torch.device(place))))
    finally:
        train.close()
        validation.close()
    return found


def test_rows_are_those_that_a_cpu_gets(data: str) -> None:
    wanted = read("cpu", data, 8)
    found = read(DEVICE, data, 8)
    settled()
    for (ids, there), (wanted_ids, here) in zip(found, wanted, strict=True):
        assert list(ids) == list(wanted_ids)
        assert there.keys() == here.keys()
        for name, value in here.items():
            assert (there[name].device.type, there[name].dtype) == (DEVICE, value.dtype)
            assert torch.equal(there[name].cpu(), value), name


@gpu_only
def test_a_batch_is_page_locked_and_may_be_let_go_before_it_is_copied(data: str) -> None:
    assert not REHEARSAL
    train, _ = open_readers(job_of(Play(DEVICE), data), device=DEVICE)
    train.carry(tuple(range(LANES)), 0)
    batch = train.batch(0, 0, 0)
    train.close()
    pinned = [name for name, value in batch.arrays.items() if isinstance(value, torch.Tensor) and value.is_pinned()]
    assert sorted(pinned) == sorted(batch.arrays), "all columns are numbers"
    wanted = read("cpu", data, 24)
    found = read(DEVICE, data, 24, busy=True)
    settled()
    for (_, there), (_, here) in zip(found, wanted, strict=True):
        for name, value in here.items():
            assert torch.equal(there[name].cpu(), value), name
