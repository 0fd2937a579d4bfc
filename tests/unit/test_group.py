"""Process groups that can be given up while they are made, and broken from any thread."""

from __future__ import annotations

import os
import signal
import socket
import statistics
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from tests.stalls import Stalls

from headway.errors import BadInput
from headway.strategies import PeerLost
from headway.strategies.backends import Alone, Gloo
from headway.strategies.connect import Limits, connect
from headway.strategies.group import LINGER_S, Group, _both_ways, _Pending
from headway.strategies.sockets import DESCRIPTORS, RTO_MAX_MS, TCP_RTO_MAX_MS, Sockets, State
from headway.testing.workers import die, launch, run

GONE = Sockets(frozenset({(-1, "socket:[0]")}))


def store(folder: str, name: str) -> Any:
    """As the rendezvous store of a generation: a prefix of its own."""
    return dist.PrefixStore(name, dist.FileStore(f"{folder}/store", -1))  # type: ignore[attr-defined]


def connected(folder: str, name: str, group: Group, timeout_s: float = 60.0, **options: Any) -> Group:
    """Another group of the same workers."""
    return connect(store(folder, name), group.rank, group.size, limits=Limits(20.0, timeout_s), **options)


def held() -> tuple[int, int]:
    """Open descriptors and threads of this process: to be counted in one of its own, for what other tests have left
    comes to its end at any time."""
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


def alone(_: Group) -> None:
    before = held()
    group = connect(None, 0, 1)
    assert held() == before
    group.barrier()


def test_a_worker_alone_opens_nothing(tmp_path: Path) -> None:
    run(alone, 1, tmp_path)


def with_an_address(group: Group, folder: str) -> None:
    connected(folder, "there", group, address="127.0.0.1").barrier()
    group.barrier()


def test_the_address_can_be_given(tmp_path: Path) -> None:
    run(with_an_address, 2, tmp_path, str(tmp_path))


def test_an_unknown_backend_is_named() -> None:
    with pytest.raises(BadInput, match="Choose one of gloo, nccl"):
        connect(None, 0, 2, backend="glue")


def time_limit(group: Group, folder: str) -> None:
    """A collective may take longer than making the group may."""
    other = connect(store(folder, "short"), group.rank, group.size, limits=Limits(3.0, 20.0))
    if group.rank == 1:
        time.sleep(3.2)  # a slow peer, not a wait for something
    other.barrier()
    brief = connected(folder, "brief", group, timeout_s=0.3)
    if group.rank == 0:
        with pytest.raises(PeerLost):
            brief.barrier()
    group.barrier()


def test_the_time_limit_of_collectives_is_their_own(tmp_path: Path) -> None:
    run(time_limit, 2, tmp_path, str(tmp_path))


class Glanced:
    """A collective that ends just after a look at it was in vain; `error`: by failing."""

    def __init__(self, error: str | None) -> None:
        self._error = error
        self._looks = 0

    def wait(self, *limit: timedelta) -> bool:
        self._looks += 1
        if limit and self._looks == 1:
            raise RuntimeError("Operation timed out!")  # as torch says it
        if self._error is not None:
            raise RuntimeError(self._error)
        return True

    def is_completed(self) -> bool:
        return True


def test_a_collective_that_ends_just_after_a_glance_is_no_lost_peer() -> None:
    """On a busy machine this broke sound groups off."""
    group = Group(0, 2, None, Alone(), GONE)
    _Pending(Glanced(None), group).wait()
    with pytest.raises(PeerLost, match="Connection closed by peer"):
        _Pending(Glanced("Connection closed by peer"), group).wait()


class Endless:
    """What is started in the moment in which its group is severed."""

    def __init__(self) -> None:
        self.given_up = threading.Event()

    def recv(self, *arguments: Any) -> Endless:
        return self

    send = recv

    def wait(self) -> None:
        self.given_up.wait()


@pytest.mark.parametrize("verb", ["send", "receive"])
def test_what_passes_between_two_is_left_behind_when_it_never_ends(verb: str) -> None:
    """It held a worker for as long as a collective may take, twenty minutes: 1 of 32 rounds on a busy machine."""
    endless = Endless()
    group = Group(0, 2, endless, Alone(), GONE)
    begun = time.monotonic()
    threading.Timer(0.2, group.sever).start()
    with pytest.raises(PeerLost, match="never ended"):
        getattr(group, verb)(torch.ones(3), 1)
    assert time.monotonic() - begun > LINGER_S
    endless.given_up.set()


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
        for counts in zip(*seen, strict=True):
            # A thread of a group may be on its way out when it is counted; what stays raises the least count too.
            assert min(counts[-20:]) <= min(counts[:20])


def never(_: Group, folder: str) -> None:
    before = held()
    begun = time.monotonic()
    with pytest.raises(PeerLost, match=r"more than 0\.3 s|no group of 2"):
        connect(store(folder, "never"), 0, 2, limits=Limits(0.3, 60.0))
    assert 0.2 < time.monotonic() - begun < 30.0, "far from the minute that a collective may take"
    threads = [t for t in threading.enumerate() if t.name == "headway-connect"]
    for thread in threads:
        thread.join(10.0)
        assert not thread.is_alive(), "the thread that was left behind ends by itself"
    assert held()[0] <= before[0]


def test_a_peer_that_never_comes(tmp_path: Path) -> None:
    run(never, 1, tmp_path, str(tmp_path))


def test_an_attempt_is_given_up_at_once(tmp_path: Path) -> None:
    given_up = threading.Event()
    threading.Timer(0.2, given_up.set).start()
    with pytest.raises(PeerLost, match="given up"):  # not that the limit is over
        connect(store(str(tmp_path), "given up"), 0, 2, limits=Limits(60.0, 60.0), given_up=given_up.is_set)


def peer_that_dies(group: Group, folder: str) -> float:
    """Rank 2 dies when it has begun to connect, so that the others may be half connected."""
    if group.rank == 2:
        threading.Timer(0.002 * (int(Path(folder).name) % 5), die).start()
    begun = time.monotonic()
    try:
        other = connect(store(folder, "dying"), group.rank, group.size, limits=Limits(1.0, 60.0))
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
        seconds = run(peer_that_dies, 3, folder, str(folder))
        assert all(s is None or s < 30.0 for s in seconds), "its death is seen: no limit is waited for"


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
        with Stalls() as stalls:
            with pytest.raises(RuntimeError):
                group.all_reduce(torch.ones(1000)).wait()
            return time.monotonic() - severed[0] - stalls.lost_s(severed[0])
    finally:
        os.kill(pid, signal.SIGCONT)


def test_severing_frees_who_waits_for_a_stopped_peer(tmp_path: Path) -> None:
    freed, _ = run(stopped_peer, 2, tmp_path, str(tmp_path))
    assert freed < 0.5


def cascade(group: Group, folder: str, trials: int) -> list[float]:
    """The third of each trial's group is killed in the middle; returns seconds from its death, by trial."""
    seconds = []
    for trial in range(trials):
        other = connect(store(folder, f"cascade-{trial}"), group.rank, 3, limits=Limits(20.0, 20.0))
        try:
            while True:
                other.all_reduce(torch.ones(1000)).wait()
        except RuntimeError:
            other.sever()
            seconds.append(time.time() - float(wait_for(Path(folder) / f"dead-{trial}")))
        other.close()
    return seconds


def doomed(folder: str, trial: int) -> None:
    group = connect(store(folder, f"cascade-{trial}"), 2, 3, limits=Limits(20.0, 60.0))
    for _ in range(20 + trial):
        group.all_reduce(torch.ones(1000)).wait()
    tell(Path(folder) / f"dead-{trial}", str(time.time()))
    die()


def test_one_death_frees_all_that_sever(tmp_path: Path) -> None:
    def die_in_each(trials: int) -> None:
        for trial in range(trials):  # a process each: what is forked beside a group's threads can hang
            process = launch(doomed, str(tmp_path), trial)
            process.join()
            assert process.exitcode == -signal.SIGKILL

    with ThreadPoolExecutor(1) as deaths:
        ended = deaths.submit(die_in_each, 20)
        first, second = run(cascade, 2, tmp_path, str(tmp_path), 20)
        ended.result()
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
    group = Group(0, 2, Stuck(), Gloo(), Sockets(frozenset({(-1, "socket:[0]")})))
    work = group.all_reduce(torch.ones(1))
    begun = time.monotonic()
    threading.Timer(0.3, group.sever).start()
    with pytest.raises(RuntimeError):
        work.wait()
    assert 0.3 + LINGER_S <= time.monotonic() - begun < 5.0, "it waits while the group holds, and no longer"


def watched(group: Group) -> tuple[int, int, int]:
    """Bytes before and after 4 MB were summed, and the longest pause between two attempts to send again, in ms."""
    before = group.bytes_moved()
    group.total(torch.ones(1_000_000))
    after = group.bytes_moved()
    deadline = time.monotonic() + 20.0
    while group.unanswered(0.0):  # a kernel may take 40 ms for its last acknowledgement
        assert time.monotonic() < deadline, "nobody owes an answer"
        time.sleep(0.01)
    pauses = []
    for _, connection in group._sockets._connections():
        try:
            pauses.append(connection.getsockopt(socket.IPPROTO_TCP, TCP_RTO_MAX_MS))
        except OSError:
            pauses.append(RTO_MAX_MS)  # a kernel that does not know it
    group.barrier()
    return before, after, max(pauses)


def test_2_7_bytes_move_while_an_exchange_does(tmp_path: Path) -> None:
    for before, after, pause_ms in run(watched, 2, tmp_path):
        assert after - before >= 4_000_000
        assert pause_ms == RTO_MAX_MS


def seen_and_reckoned(group: Group) -> list[tuple[int, int]]:
    """Bytes that the kernel saw of a collective, and those that are reckoned where none sees them."""
    whole, half = torch.ones(2_000_000), torch.ones(1_000_000)
    sizes, found = [500_000, 500_000], []
    verbs: list[tuple[str, tuple[Any, ...], Callable[[], Any]]] = [
        ("allreduce", ([whole],), lambda: group.all_reduce(whole)),
        ("alltoall_base", (half.clone(), half), lambda: group.all_to_all(half.clone(), half, sizes, sizes)),
        ("_allgather_base", (whole, half), lambda: group.all_gather(whole, half)),
    ]
    for verb, arguments, begin in verbs:
        group.barrier()
        before = group.bytes_moved()
        begin().wait()
        group.barrier()
        deadline = time.monotonic() + 20.0
        while group.unanswered(0.0):
            assert time.monotonic() < deadline, "nobody owes an answer"
            time.sleep(0.01)
        found.append((group.bytes_moved() - before, _both_ways(verb, arguments, group.size)))
    group.barrier()  # who leaves takes the connections along
    return found


def test_what_is_reckoned_of_collectives_is_what_goes_over_the_wire(tmp_path: Path) -> None:
    for found in run(seen_and_reckoned, 2, tmp_path):
        for seen, reckoned in found:
            assert seen == pytest.approx(reckoned, rel=0.05)


def test_where_connections_are_not_seen_bytes_are_reckoned_and_else_they_are_not() -> None:
    class Done:
        def allreduce(self, tensors: list[torch.Tensor]) -> None: ...

    nccl, gloo = Group(0, 4, Done(), Gloo()), Group(0, 4, Done(), Gloo(), GONE)
    for group in (nccl, gloo):
        group.all_reduce(torch.ones(100))
    assert (nccl.reckoned, gloo.reckoned) == (4 * 3 * 400 // 4, 0)


def stopped_and_owing(group: Group, folder: str) -> tuple[str, ...]:
    """Rank 1 is stopped: its kernel still answers, so nobody is accused."""
    there = Path(folder) / "pid"
    if group.rank == 1:
        tell(there, str(os.getpid()))
        os.kill(os.getpid(), signal.SIGSTOP)
        group.total(torch.ones(1_000_000))
        return ()
    pid = int(wait_for(there))
    work = group.all_reduce(torch.ones(1_000_000))
    found: tuple[str, ...] = ()
    until = time.monotonic() + 0.6
    while time.monotonic() < until:
        found += group.unanswered(0.2)
        time.sleep(0.02)
    os.kill(pid, signal.SIGCONT)
    work.wait()
    return found


def test_2_7_a_stopped_peer_still_answers(tmp_path: Path) -> None:
    assert run(stopped_and_owing, 2, tmp_path, str(tmp_path))[0] == ()


def test_2_7_who_does_not_answer_is_named_once_patience_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """From one look at the connections to the next."""
    now = 1000.0
    monkeypatch.setattr("headway.strategies.sockets.time.monotonic", lambda: now)
    sockets, seen = Sockets(), {}
    monkeypatch.setattr(sockets, "_states", lambda: seen.items())
    quiet, busy, cut = (1, "a"), (2, "b"), (3, "c")
    for tick in range(40):
        now = 1000.0 + tick / 10
        since = tick / 10
        seen = {
            quiet: State("10.0.0.1", pending=False, acked_s=500.0 + since, moved=1),
            busy: State("10.0.0.2", pending=True, acked_s=0.05, moved=tick),
            cut: State("10.0.0.3", pending=tick >= 5, acked_s=500.0 + since, moved=1),
        }
        assert sockets.unanswered(1.0) == (("10.0.0.3",) if tick >= 15 else ())
    seen[cut] = State("10.0.0.3", pending=True, acked_s=0.1, moved=2)
    assert sockets.unanswered(1.0) == (), "it has answered since"
