"""NCCL, as far as one GPU goes: a group of one rank, what is broken off, and what is refused."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from tests.gpu.device import BACKEND, DEVICE, device, gpu_only, settled

from headway.strategies import PeerLost
from headway.strategies.backends import BACKENDS
from headway.strategies.connect import Limits, connect
from headway.strategies.flight import Flight
from headway.strategies.group import Group
from headway.testing import group as contract
from headway.testing import strategy as sums
from headway.testing.workers import run

pytestmark = device

LIMITS = Limits(30.0, 30.0)


def of_one(folder: str, name: str = "one") -> Group:
    """A group of one rank over the backend itself; `connect` would make one that needs none."""
    backend = BACKENDS[BACKEND]()
    store = dist.PrefixStore(name, dist.FileStore(f"{folder}/store-{name}", 1))  # type: ignore[attr-defined]
    handle = backend.start(store, 0, 1, timedelta(seconds=30), None)
    backend.connect(handle)
    return Group(0, 1, handle, backend, limit_s=30.0)


def verbs(_: Group, folder: str) -> str:
    group = of_one(folder)
    assert group.device.type == DEVICE
    contract.verbs_return_what_they_promise(group)
    contract.collectives_under_way(group)
    contract.a_closed_group_is_closed(group)
    again = of_one(folder, "again")  # on the same device, once the first is gone
    contract.collectives_under_way(again)
    again.close()
    return "done"


def test_a_group_of_one_keeps_the_contract(tmp_path: Path) -> None:
    (tmp_path / "crew").mkdir()
    assert run(verbs, 1, tmp_path / "crew", str(tmp_path)) == ["done"]


def exchanges(_: Group, folder: str, way: sums.Way) -> dict[str, list[float] | None]:
    """A strategy that sends its buckets over the backend in the midst of the backward pass, though nobody is there."""
    model = sums.Net().to(DEVICE)
    group = of_one(folder)
    made: Any = sums.made(way, model, group, tail=3)
    made._group, made._flight = group, Flight(group)  # it would not trouble a group of one
    for step in range(3):
        sums.do_lanes(made, model, sums.mine(group), step)
        summed, changes = made.finish(torch.tensor([1.0, 2.0, 3.0]))
        assert summed.tolist() == [1.0, 2.0, 3.0]
        wanted = sum(sums.change(lane, step) for lane in range(sums.LANES) if sums.ROWS[lane])
        assert torch.allclose(changes, wanted, atol=1e-5)
        sums.assert_sums(model, sums.expected(step))
    found = {n: None if p.grad is None else p.grad.flatten().tolist() for n, p in model.named_parameters()}
    made.close()
    return found


@pytest.mark.parametrize("mode", ["order", "bitwise"])
def test_strategies_sum_over_it(mode: Any, tmp_path: Path) -> None:
    (tmp_path / "crew").mkdir()
    found = run(exchanges, 1, tmp_path / "crew", str(tmp_path), ("all_reduce", mode))[0]
    assert found["never.weight"] is None
    assert found["first.weight"] is not None


def severed(_: Group, folder: str) -> dict[str, float]:
    """The device is busy when the group is broken off: who waits for it is freed, and so is who breaks it off."""
    group = of_one(folder)
    torch.cuda._sleep(int(8e9))  # some seconds, in front of the exchange
    work = group.all_reduce(torch.ones(1000, device=group.device))
    times: dict[str, float] = {}

    def sever() -> None:
        times["severed"] = time.monotonic()
        group.sever()
        times["abort_s"] = time.monotonic() - times["severed"]

    breaker = threading.Timer(0.3, sever)
    breaker.start()
    work.wait()
    with pytest.raises(PeerLost, match="broken off"):
        group.confirm()
    times["freed_s"] = time.monotonic() - times["severed"]
    breaker.join()
    for verb in (group.barrier, group.confirm, lambda: group.total(torch.ones(1))):
        with pytest.raises((PeerLost, RuntimeError)):
            verb()
    settled()
    times["device_s"] = time.monotonic() - times["severed"]
    other = of_one(folder, "other")
    assert other.total(torch.ones(2)).tolist() == [1.0, 1.0]
    other.close()
    return times


@gpu_only
def test_what_is_broken_off_frees_who_waits(tmp_path: Path) -> None:
    (tmp_path / "crew").mkdir()
    times = run(severed, 1, tmp_path / "crew", str(tmp_path))[0]
    print(times)
    assert times["freed_s"] < 1.0, times
    assert times["device_s"] > 1.5, f"the device was not busy: {times}"


def nobody_comes(_: Group, folder: str) -> dict[str, Any]:
    """One peer never comes; the attempt is over in its time, and the device is free for another group."""
    store = dist.FileStore(f"{folder}/nobody", 2)  # type: ignore[attr-defined]
    begun = time.monotonic()
    said = ""
    try:
        connect(store, 0, 2, backend=BACKEND, limits=Limits(3.0, 10.0))
    except PeerLost as error:
        said = str(error)
    took = time.monotonic() - begun
    group = of_one(folder)
    found = group.total(torch.ones(2)).tolist()
    group.close()
    return {"said": said, "took_s": took, "then": found}


def test_an_attempt_whose_peer_never_comes_is_given_up_in_time(tmp_path: Path) -> None:
    (tmp_path / "crew").mkdir()
    found = run(nobody_comes, 1, tmp_path / "crew", str(tmp_path))[0]
    assert found["then"] == [1.0, 1.0]
    assert found["said"]
    assert found["took_s"] < 5.0, found


def two_on_one(group: Group, folder: str) -> dict[str, Any]:
    """NCCL takes one rank of a device."""
    store = dist.FileStore(f"{folder}/two", 2)  # type: ignore[attr-defined]
    begun = time.monotonic()
    said = ""
    try:
        made = connect(store, group.rank, 2, backend="nccl", limits=Limits(15.0, 10.0))
        made.barrier()
        made.close()
    except PeerLost as error:
        said = str(error)
    took = time.monotonic() - begun
    with contextlib.suppress(PeerLost):
        group.barrier()
    return {"said": said, "took_s": took}


@gpu_only
def test_two_ranks_on_one_device_are_refused_in_bounded_time(tmp_path: Path) -> None:
    (tmp_path / "crew").mkdir()
    for found in run(two_on_one, 2, tmp_path / "crew", str(tmp_path)):
        print(found)
        assert found["said"], "NCCL took two ranks on one device"
        assert found["took_s"] < 20.0, found


def environment(_: Group, folder: str) -> dict[str, str | None]:
    group = of_one(folder)
    group.barrier()
    group.close()
    return {name: os.environ.get(name) for name in ("TORCH_NCCL_ASYNC_ERROR_HANDLING", "TORCH_NCCL_BLOCKING_WAIT")}


@gpu_only
def test_the_watchdog_is_told_to_leave_survivors_alone(tmp_path: Path) -> None:
    (tmp_path / "crew").mkdir()
    assert set(run(environment, 1, tmp_path / "crew", str(tmp_path))[0].values()) == {"0"}
