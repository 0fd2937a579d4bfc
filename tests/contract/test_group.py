"""Every backend keeps a group's contract: gloo between processes, and its like and NCCL's like between threads."""

from __future__ import annotations

import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch

from headway.errors import BadInput
from headway.strategies import PeerLost, all_reduce, create, tree
from headway.strategies.connect import Limits, connect, limits
from headway.strategies.group import Group
from headway.testing import far, meeting, nccl_like
from headway.testing import group as contract
from headway.testing import strategy as sums
from headway.testing.workers import CREWS, TIMEOUT_S, Crew, crew, die


@pytest.fixture(params=CREWS, name="crew")
def _crew(request: pytest.FixtureRequest, tmp_path: Path) -> Crew:
    return crew(request.param, tmp_path)


@pytest.fixture(name="nccl")
def _nccl(tmp_path: Path) -> Crew:
    return crew("nccl_like", tmp_path)


def all_checks(group: Group) -> None:
    for check in contract.CHECKS:
        check(group)


@pytest.mark.parametrize("workers", [2, 3])
def test_contract(crew: Crew, workers: int) -> None:
    crew(all_checks, workers)


def test_a_worker_alone() -> None:
    group = connect(None, 0, 1)
    contract.verbs_return_what_they_promise(group)
    contract.collectives_under_way(group)
    contract.a_closed_group_is_closed(group)


@pytest.mark.parametrize("verb", contract.LOSING)
def test_2_1_nothing_is_returned_that_lacks_a_part(nccl: Crew, verb: str) -> None:
    """After an abort NCCL raises no error, and leaves garbage."""
    assert nccl(contract.nothing_is_returned_that_lacks_a_part, 3, verb) == ["told", None, "told"]


def test_2_1_nothing_is_returned_that_lacks_a_part_over_gloo(tmp_path: Path) -> None:
    told = crew("gloo", tmp_path)(contract.nothing_is_returned_that_lacks_a_part, 3, "total")
    assert told == ["told", None, "told"]


def dies_in_a_step(group: Group, way: sums.Way) -> str:
    """Rank 1 computes its lanes, and is gone before the sums are whole."""
    model = sums.Net().to(group.device)
    strategy = sums.made(way, model, group, 1)
    sums.do_lanes(strategy, model, sums.mine(group))
    if group.rank == 1:
        time.sleep(0.05)  # so that the others wait for the rest
        die()
    with pytest.raises(PeerLost):
        strategy.finish(torch.ones(1))
    strategy.close()
    return "told"


def dies_in_a_step_unchecked(group: Group, way: Any) -> str:
    Group.confirm = Group.settle  # type: ignore[method-assign]  # in a process of its own
    return dies_in_a_step(group, way)


@pytest.mark.parametrize("mode", ["order", "bitwise"])
def test_2_1_half_a_step_is_never_finished(nccl: Crew, mode: Any) -> None:
    assert nccl(dies_in_a_step, 3, ("all_reduce", mode)) == ["told", None, "told"]


@pytest.mark.parametrize("mode", ["order", "bitwise"])
def test_2_1_the_check_after_the_last_read_is_what_finds_it(nccl: Crew, mode: Any) -> None:
    """Without it, half a sum is handed out without a word: the double shows the fault that it is there for."""
    with pytest.raises(AssertionError, match="DID NOT RAISE"):
        nccl(dies_in_a_step_unchecked, 3, ("all_reduce", mode))


def limit(group: Group) -> None:
    group._limit_s = 0.2
    if group.rank == 0:
        with pytest.raises(PeerLost, match=r"more than 0\.2 s"):
            group.total(torch.ones(1))


def test_2_1_a_device_that_never_ends_is_not_waited_for_for_ever(nccl: Crew) -> None:
    nccl(limit, 2)


def too_early(group: Group) -> None:
    """What the double is for: `wait` alone proves nothing."""
    tensor = torch.full((1000,), 1.0, device=group.device)
    work = group.all_reduce(tensor)
    work.wait()
    near = tensor.near.clone()  # type: ignore[attr-defined]
    group.gather(None)
    group.confirm()
    assert tensor.tolist() == [float(group.size)] * 1000
    assert near.tolist() != tensor.tolist()
    with pytest.raises(ValueError, match="on the device"):
        group.all_reduce(torch.ones(3))
    with pytest.raises(ValueError, match="contiguous"):
        group.all_reduce(torch.ones(3, 2, device=group.device).t())


def test_the_double_behaves_as_nccl(nccl: Crew) -> None:
    nccl(too_early, 2)


def test_2_23_a_device_has_one_group_at_a_time() -> None:
    meeting.install()
    nccl_like.install()
    store, found, groups = meeting.store(), [], {}
    closed = threading.Barrier(2)

    def worker(rank: int) -> None:
        far.work_on(far.Line())
        groups[rank] = connect(store, rank, 2, backend="nccl_like", limits=Limits(10.0, 10.0))
        try:
            connect(store.clone(), rank, 2, backend="nccl_like", limits=Limits(10.0, 10.0))
        except PeerLost as error:
            found.append(str(error))
        groups[rank].close()
        closed.wait(10.0)
        store.delete_key("meeting")
        closed.wait(10.0)
        connect(store, rank, 2, backend="nccl_like", limits=Limits(10.0, 10.0)).barrier()

    threads = [threading.Thread(target=worker, args=(rank,), daemon=True) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20.0)
        assert not thread.is_alive()
    assert len(found) == 2
    assert all("another group is on this device" in each for each in found)


def test_2_23_an_attempt_that_is_left_behind_holds_no_device() -> None:
    """Its peers never come; the next generation connects on the same device."""
    meeting.install()
    nccl_like.install()
    far.work_on(line := far.Line())
    store = meeting.store()
    with pytest.raises(PeerLost, match=r"more than 0\.2 s"):
        connect(store, 0, 2, backend="nccl_like", limits=Limits(0.2, 10.0))
    backend = nccl_like.NcclLike()
    assert backend._line is line
    backend.abort(backend.start(meeting.store(), 0, 2, timedelta(seconds=1), None))


def test_severing_frees_who_waits(crew: Crew, tmp_path: Path) -> None:
    assert crew(contract.severing_frees_who_waits, 2, str(tmp_path))[0] < TIMEOUT_S / 2, "it is not the time limit"


class OutOfMemory(RuntimeError):
    """As torch.OutOfMemoryError, which is a RuntimeError too."""


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("device"), OutOfMemory("mine")], ids=["torch", "other"])
def test_2_12_what_a_machine_lacks_is_no_lost_peer(error: RuntimeError) -> None:
    class Handle:
        def allreduce(self, tensors: list[torch.Tensor]) -> Any:
            raise error

    from headway.strategies.backends import Gloo

    group = Group(0, 2, Handle(), Gloo())
    with pytest.raises(type(error)):
        group.total(torch.ones(1))
    model = sums.Net()
    strategy = sums.made(("all_reduce", "order"), model, group)
    sums.do_lanes(strategy, model, [0, 1])
    with pytest.raises(type(error)):
        strategy.finish(torch.zeros(0))


def test_2_7_limits_follow_from_the_job_and_the_size() -> None:
    few, many = limits(2), limits(2000)
    assert few.connect_s < many.connect_s
    assert few.collective_s < many.collective_s
    assert limits(2, backend="nccl").connect_s > 30
    assert limits(2, longest_s=7200).collective_s > 7200, "who may take two hours is waited for so long"
    assert limits(2, longest_s=60).collective_s < 600


@pytest.mark.parametrize("mode", ["order", "bitwise"])
def test_2_14_e_parameters_of_the_optimisers_own_are_summed(mode: Any) -> None:
    """Strategies take parameters, whoever owns them; given twice, they count once."""
    model, head = torch.nn.Linear(2, 2), torch.nn.Parameter(torch.ones(2))
    given = [*model.parameters(), head, *model.parameters()]
    strategy = create("all_reduce", given, reproducible=mode, lanes=1, tail=0, changes=0)
    strategy.begin([0])
    strategy.before_backward(0, last=True)
    (model(torch.ones(1, 2)) * head).sum().backward()
    strategy.after_backward()
    strategy.lane_done(torch.zeros(0))
    strategy.finish(torch.zeros(0))
    assert head.grad is not None
    assert torch.equal(head.grad, model(torch.ones(1, 2))[0])


@pytest.mark.parametrize("made", [all_reduce.AllReduce, tree.Tree])
def test_sparse_gradients_and_several_devices_are_refused_in_words(made: Any) -> None:
    embedding = torch.nn.Embedding(4, 2, sparse=True)
    strategy = made(list(embedding.parameters()), lanes=1, tail=0, changes=0, group=None)
    strategy.begin([0])
    strategy.before_backward(0, last=True)
    with pytest.raises(BadInput, match="sparse"):
        embedding(torch.tensor([1])).sum().backward()
    far.install()
    here, there = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1).to(far.NAME)
    with pytest.raises(BadInput, match="several devices"):
        create("all_reduce", [*here.parameters(), *there.parameters()], lanes=1, tail=0, changes=0)
