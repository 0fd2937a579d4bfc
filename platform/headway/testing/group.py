"""The contract of a group: what `headway.strategies.group.Group` promises over every backend, as checks.

Each runs in every worker of a group (`headway.testing.workers.crew`); AssertionError says that a promise is broken.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import numpy as np
import torch

from headway.strategies import PeerLost
from headway.strategies.group import Group
from headway.testing.workers import die, store

VALUES: list[Any] = [
    None,
    {"a": [1, 2.5, float("inf"), "text", b"bytes", (1, (2, None))], 3: {1, 2}, ("a", 1): np.float32(0.1)},
    [torch.float16, torch.Size([2, 3]), np.arange(6).reshape(2, 3).tolist(), True],
]


def verbs_return_what_they_promise(group: Group) -> None:
    """On tensors of the CPU, of the group's device, of several types, and in several pieces."""
    rank, size = group.rank, group.size
    for device in ("cpu", group.device):
        for dtype in (torch.float32, torch.float64, torch.int64, torch.bfloat16):
            given = torch.full((3, 2), rank + 1, dtype=dtype, device=device)
            found = group.total(given)
            assert found.tolist() == [[size * (size + 1) / 2] * 2] * 3
            assert (found.device, found.dtype) == (given.device, dtype)
            assert given.tolist() == [[rank + 1] * 2] * 3, "what was given stays as it was"
            turned = torch.zeros(2, 3, dtype=dtype, device=device).t()
            turned.fill_(rank)
            group.broadcast(turned, size - 1)
            assert turned.tolist() == [[size - 1] * 2] * 3
            if rank == 0 and size > 1:
                group.send(turned + 1, size - 1)
            elif rank == size - 1 and size > 1:
                group.receive(turned, 0)
                assert turned.tolist() == [[size] * 2] * 3
    for value in VALUES:
        assert group.gather((rank, value)) == [(each, value) for each in range(size)]
        assert group.share((rank, value) if rank == size - 1 else None, size - 1) == (size - 1, value)
    assert group.gather("x" * rank) == ["x" * each for each in range(size)]
    group.barrier()
    group.confirm()


def collectives_under_way(group: Group) -> None:
    """What strategies use: on the group's device, waited for and read, and only then confirmed."""
    rank, size, device = group.rank, group.size, group.device
    summed = torch.full((3,), float(rank), device=device)
    sent = torch.cat([torch.full((to + 1,), float(rank), device=device) for to in range(size)])
    got = torch.empty(size * (rank + 1), device=device)
    gathered = torch.empty(2 * size, device=device)
    works = [
        group.all_reduce(summed),
        group.all_to_all(got, sent, [rank + 1] * size, [to + 1 for to in range(size)]),
        group.all_gather(gathered, torch.full((2,), float(rank), device=device)),
    ]
    for work in works:
        work.wait()
    found = [each.cpu().tolist() for each in (summed, got, gathered)]
    group.confirm()
    assert found[0] == [sum(range(size))] * 3
    assert found[1] == [float(source) for source in range(size) for _ in range(rank + 1)]
    assert found[2] == [float(source) for source in range(size) for _ in range(2)]


def a_closed_group_is_closed(group: Group) -> None:
    group.barrier()
    group.close()
    group.close()
    group.sever()
    for verb in (group.barrier, group.confirm, lambda: group.gather(1), lambda: group.total(torch.ones(1))):
        try:
            verb()
        except PeerLost:
            continue
        raise AssertionError("a closed group answered")


def a_slow_peer_is_waited_for(group: Group) -> None:
    """Also by those that a single worker sends to."""
    if group.rank == 0:
        time.sleep(0.5)  # a slow peer, not a wait for something
    assert group.total(torch.ones(1)).item() == group.size
    value = torch.zeros(1)
    if group.rank == 0:
        time.sleep(0.5)
        group.send(torch.ones(1), 1)
    elif group.rank == 1:
        group.receive(value, 0)
        assert value.item() == 1
    group.barrier()


def _endless(group: Group) -> Any:
    """An exchange with a worker that never comes."""
    return group.total(torch.ones(1000))


LOSING: dict[str, Callable[[Group], Any]] = {
    "total": _endless,
    "total_far": lambda group: group.total(torch.ones(1000, device=group.device)),
    "gather": lambda group: group.gather({"rank": group.rank}),
    "share": lambda group: group.share("value", 1),
    "broadcast": lambda group: group.broadcast(torch.ones(10), 1),
    "receive": lambda group: group.receive(torch.ones(10), 1),
    "barrier": lambda group: group.barrier(),
}
"""Verbs that need rank 1."""


def nothing_is_returned_that_lacks_a_part(group: Group, verb: str) -> str:
    """Rank 1 dies while the others are in an exchange with it. They are told, and get no half of a sum."""
    group.barrier()
    if group.rank == 1:
        time.sleep(0.05)  # so that the others are in it
        die()
    try:
        found = LOSING[verb](group)
    except PeerLost:
        return "told"
    raise AssertionError(f"{verb} returned {found} without rank 1")


def severing_frees_who_waits(group: Group, folder: str) -> float:
    """Rank 0 waits for the others, which do nothing until it is freed by another of its threads; returns how long that
    took.

    Args:
        folder: shared; for processes' rendezvous.
    """
    said = store(folder)
    if group.rank:
        said.wait(["freed"], timedelta(seconds=60))
        return 0.0
    severed: list[float] = []

    def sever() -> None:
        severed.append(time.monotonic())
        group.sever()

    threading.Timer(0.2, sever).start()
    try:
        _endless(group)
    except PeerLost:
        return time.monotonic() - severed[0]
    finally:
        said.set("freed", "1")
    raise AssertionError("a sum was returned without rank 1")


CHECKS = [verbs_return_what_they_promise, collectives_under_way, a_slow_peer_is_waited_for, a_closed_group_is_closed]
"""One after another in one group."""
