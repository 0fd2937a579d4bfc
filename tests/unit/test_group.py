"""Process groups that can be given up while they are made, and broken from any thread."""

from __future__ import annotations

import os
import signal
import socket
import statistics
import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from headway.errors import BadInput
from headway.strategies import PeerLost
from headway.strategies.group import DESCRIPTORS, LINGER_S, Group, connect
from headway.testing.workers import die, run


def store(folder: str, name: str) -> Any:
    """As the rendezvous store of a generation: a prefix of its own."""
    return dist.PrefixStore(name, dist.FileStore(f"{folder}/store", -1))  # type: ignore[attr-defined]


def connected(folder: str, name: str, group: Group, **options: Any) -> Group:
    """Another group of the same workers."""
    return connect(store(folder, name), group.rank, group.size, connect_s=20.0, **options)


def held() -> tuple[int, int]:
    """Open descriptors and threads."""
    return len(os.listdir(DESCRIPTORS)), len(os.listdir("/proc/self/task"))  # noqa: PTH208


def wait_for(path: Path, limit_s: float = 20.0) -> str:
    deadline = time.monotonic() + limit_s
    while not (path.exists() and path.read_text()):
        assert time.monotonic() < deadline, f"{path.name} did not come"
        time.sleep(0.001)
    return path.read_text()


def tell(path: Path, text: str = "x") -> None:
    draft = path.with_suffix(".draft")
    draft.write_text(text)
    draft.rename(path)


def all_collectives(group: Group) -> None:
    rank, size = group.rank, group.size
    tensor = torch.full((3,), float(rank))
    group.all_reduce(tensor).wait()
    assert tensor.tolist() == [sum(range(size))] * 3
    group.broadcast(tensor.fill_(rank), size - 1)
    assert tensor.tolist() == [size - 1] * 3
    sent = torch.cat([torch.full((to + 1,), float(rank)) for to in range(size)])
    got = torch.empty(size * (rank + 1))
    group.all_to_all(got, sent, [rank + 1] * size, [to + 1 for to in range(size)]).wait()
    assert got.tolist() == [float(source) for source in range(size) for _ in range(rank + 1)]
    gathered = torch.empty(2 * size)
    group.all_gather(gathered, torch.full((2,), float(rank))).wait()
    assert gathered.tolist() == [float(source) for source in range(size) for _ in range(2)]
    assert group.all_gather_object({"rank": "x" * rank}) == [{"rank": "x" * source} for source in range(size)]
    assert group.broadcast_object(f"from {rank}" * (rank + 1), size - 1) == f"from {size - 1}" * size
    group.barrier()


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_collectives(workers: int, tmp_path: Path) -> None:
    run(all_collectives, workers, tmp_path)


def test_a_worker_alone_opens_nothing() -> None:
    before = held()
    group = connect(None, 0, 1)
    assert held() == before
    all_collectives(group)


def with_an_address(group: Group, folder: str) -> None:
    all_collectives(connected(folder, "there", group, address="127.0.0.1"))


def test_the_address_can_be_given(tmp_path: Path) -> None:
    run(with_an_address, 2, tmp_path, str(tmp_path))


def test_an_unknown_backend_is_named() -> None:
    with pytest.raises(BadInput, match="Choose one of gloo, nccl"):
        connect(None, 0, 2, backend="glue")


def closed_group(group: Group) -> None:
    group.close()
    group.close()
    group.sever()
    with pytest.raises(PeerLost):
        group.barrier()
    with pytest.raises(PeerLost):
        group.all_reduce(torch.zeros(1))


@pytest.mark.parametrize("workers", [1, 2])
def test_a_closed_group_is_closed(workers: int, tmp_path: Path) -> None:
    run(closed_group, workers, tmp_path)


def time_limit(group: Group, folder: str) -> None:
    """A collective may take longer than making the group may."""
    other = connect(store(folder, "short"), group.rank, group.size, connect_s=1.0, timeout_s=20.0)
    if group.rank == 1:
        time.sleep(1.5)  # a slow peer, not a wait for something
    other.barrier()
    brief = connected(folder, "brief", group, timeout_s=0.3)
    if group.rank == 0:
        with pytest.raises(PeerLost):
            brief.barrier()
    group.barrier()


def test_the_time_limit_of_collectives_is_their_own(tmp_path: Path) -> None:
    run(time_limit, 2, tmp_path, str(tmp_path))


def hundred_groups(group: Group, folder: str) -> list[tuple[int, int]]:
    seen = []
    for number in range(100):
        other = connected(folder, str(number), group)
        other.all_reduce(torch.ones(10)).wait()
        if number % 2:
            other.sever()
        other.close()
        seen.append(held())
    return seen


def test_a_hundred_groups_in_a_row_leave_nothing_open(tmp_path: Path) -> None:
    for seen in run(hundred_groups, 3, tmp_path, str(tmp_path)):
        # The very last thread of a group may be on its way out when it is counted.
        assert max(seen[-20:]) <= max(seen[:20])


def test_a_peer_that_never_comes(tmp_path: Path) -> None:
    before = held()
    begun = time.monotonic()
    with pytest.raises(PeerLost, match=r"more than 0\.3 s|no group of 2"):
        connect(store(str(tmp_path), "never"), 0, 2, connect_s=0.3)
    assert 0.2 < time.monotonic() - begun < 1.0
    threads = [t for t in threading.enumerate() if t.name == "headway-connect"]
    for thread in threads:
        thread.join(10.0)
        assert not thread.is_alive(), "the thread that was left behind ends by itself"
    assert held()[0] <= before[0]


def test_an_attempt_is_given_up_at_once(tmp_path: Path) -> None:
    given_up = threading.Event()
    timer = threading.Timer(0.2, given_up.set)
    timer.start()
    begun = time.monotonic()
    with pytest.raises(PeerLost, match="given up"):
        connect(store(str(tmp_path), "given up"), 0, 2, connect_s=3.0, given_up=given_up.is_set)
    assert time.monotonic() - begun < 0.5


def peer_that_dies(group: Group, folder: str) -> float:
    """Rank 2 dies when it has begun to connect, so that the others may be half connected."""
    if group.rank == 2:
        threading.Timer(0.002 * (int(Path(folder).name) % 5), die).start()
    begun = time.monotonic()
    try:
        other = connect(store(folder, "dying"), group.rank, group.size, connect_s=1.0, timeout_s=5.0)
        other.barrier()
        while group.rank == 2:
            signal.pause()
        other.barrier()
    except PeerLost:
        return time.monotonic() - begun
    raise AssertionError("the barrier was passed without rank 2")


def test_a_peer_that_dies_while_it_connects(tmp_path: Path) -> None:
    for number in range(5):
        (folder := tmp_path / str(number)).mkdir()
        assert all(s is None or s < 6.0 for s in run(peer_that_dies, 3, folder, str(folder)))


def stopped_peer(group: Group, folder: str) -> float:
    """Rank 1 is stopped; rank 0 waits for it in a collective, and is freed by another of its threads."""
    there = Path(folder) / "pid"
    if group.rank == 1:
        tell(there, str(os.getpid()))
        os.kill(os.getpid(), signal.SIGSTOP)
        return 0.0
    pid = int(wait_for(there))
    deadline = time.monotonic() + 20.0
    while Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "T":
        assert time.monotonic() < deadline
        time.sleep(0.001)
    severed: list[float] = []

    def sever() -> None:
        severed.append(time.monotonic())
        group.sever()

    threading.Timer(0.3, sever).start()
    try:
        with pytest.raises(RuntimeError):
            group.all_reduce(torch.ones(1000)).wait()
        return time.monotonic() - severed[0]
    finally:
        os.kill(pid, signal.SIGCONT)


def test_severing_frees_who_waits_for_a_stopped_peer(tmp_path: Path) -> None:
    freed, _ = run(stopped_peer, 2, tmp_path, str(tmp_path))
    assert freed < 0.5


def cascade(group: Group, folder: str, trials: int) -> list[float]:
    """Rank 2's place is taken by a child that is killed in the middle; returns seconds from its death, by trial."""
    seconds = []
    for trial in range(trials):
        dead = Path(folder) / f"dead-{trial}"
        if group.rank == 2:
            child = os.fork()
            if child == 0:
                doomed(folder, trial)
            os.waitpid(child, 0)
            continue
        other = connected(folder, f"cascade-{trial}", group, timeout_s=20.0)
        try:
            while True:
                other.all_reduce(torch.ones(1000)).wait()
        except RuntimeError:
            other.sever()
            seconds.append(time.time() - float(wait_for(dead)))
        other.close()
    return seconds


def doomed(folder: str, trial: int) -> None:
    group = connect(store(folder, f"cascade-{trial}"), 2, 3, connect_s=20.0)
    for _ in range(20 + trial):
        group.all_reduce(torch.ones(1000)).wait()
    tell(Path(folder) / f"dead-{trial}", str(time.time()))
    die()


def test_one_death_frees_all_that_sever(tmp_path: Path) -> None:
    first, second, _ = run(cascade, 3, tmp_path, str(tmp_path), 20)
    assert len(first) == len(second) == 20
    assert statistics.median(first + second) < 0.1
    assert max(first + second) < 5.0, "none waited for the time limit"


def others_sockets(group: Group, folder: str) -> None:
    """What another thread opens while the group is made is not the group's."""
    listener = socket.create_server(("127.0.0.1", 0))
    found: list[socket.socket] = []
    stop = threading.Event()

    def open_many() -> None:
        while not stop.is_set() and len(found) < 200:
            found.append(socket.create_connection(listener.getsockname()))
            found.append(listener.accept()[0])

    thread = threading.Thread(target=open_many)
    thread.start()
    other = connected(folder, "beside", group)
    stop.set()
    thread.join()
    assert found
    other.barrier()  # whoever severs at once breaks off the other's connecting
    group.barrier()
    other.sever()
    for connection, accepted in zip(found[::2], found[1::2], strict=True):
        connection.sendall(b"x")
        assert accepted.recv(1) == b"x"
    with pytest.raises(PeerLost):
        other.barrier()
    group.barrier()


def test_other_sockets_are_left_alone(tmp_path: Path) -> None:
    run(others_sockets, 2, tmp_path, str(tmp_path))


class Unending:
    """A collective as gloo sometimes leaves it behind: it neither ends nor fails."""

    def wait(self, limit: timedelta) -> None:
        time.sleep(limit.total_seconds() / 10)
        raise RuntimeError("Wait timeout")

    def is_completed(self) -> bool:
        return False


class Stuck:
    """Stands for torch's process group."""

    def allreduce(self, tensors: list[torch.Tensor]) -> Unending:
        return Unending()


def test_a_collective_that_never_ends_holds_nobody_up_once_its_group_is_severed() -> None:
    group = Group(0, 2, Stuck(), frozenset({(-1, "socket:[0]")}))
    work = group.all_reduce(torch.ones(1))
    threading.Timer(0.3, group.sever).start()
    begun = time.monotonic()
    with pytest.raises(RuntimeError):
        work.wait()
    assert 0.3 + LINGER_S <= time.monotonic() - begun < 5.0, "it waits while the group holds, and no longer"
