"""The coordinator and the workers' lines to it, over loopback, with everything else faked."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from headway.core.ledger import CAUSES, Ledger
from headway.core.membership import Policy
from headway.elastic.lead import coordinator as coordinators
from headway.elastic.lead.coordinator import Coordinator
from headway.elastic.wire import messages as wire
from headway.elastic.worker.line import LOST_EXIT, Control, Dismissed, Place, Start

HOST = "127.0.0.1"
DEADLINE_S = 20.0


def wait(condition: Callable[[], Any], deadline_s: float = DEADLINE_S) -> float:
    """Until it holds; returns the seconds that it took."""
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() < begun + deadline_s, "not in time"
        time.sleep(0.002)
    return time.monotonic() - begun


class Group:
    """Stands for a process group."""

    def __init__(self) -> None:
        self.severed = threading.Event()

    def sever(self) -> None:
        self.severed.set()


class Worker:
    """A control as a worker has it; its training thread is the test, or `arrive`'s thread."""

    def __init__(self, cluster: Cluster, name: str, token: str | None = None) -> None:
        place = Place(name, HOST, cluster.port, 0, token or cluster.coordinator.token)
        self.name, self.left = name, threading.Event()
        self.ledger = Ledger(time.monotonic())
        self.control = Control(place, self.ledger, cluster.silence_s, self._leave)
        self.started: list[Start] = []
        self.dismissed: list[str] = []
        self.pauses = 0
        self.group = Group()
        cluster.workers.append(self)

    def _leave(self, status: int) -> None:
        assert status == LOST_EXIT
        self.left.set()
        if threading.current_thread() is threading.main_thread():
            raise SystemExit

    def connect(self) -> Worker:
        self.control.connect({"pid": 1, "node_ip": HOST})
        return self

    def arrive(self, step: int = 0, exchanges: int = 0) -> None:
        """Wait for the next generation in a thread, and enter it."""

        def run() -> None:
            try:
                start = self.control.await_start(step, exchanges, self._pause, lambda cause: None)
            except Dismissed as word:
                self.dismissed.append(str(word))
                return
            self.control.hold(self.group, start.news.number)
            self.started.append(start)

        threading.Thread(target=run, daemon=True).start()

    def _pause(self) -> None:
        self.pauses += 1

    def commit(self, step: int) -> None:
        self.control.tell("committed", generation=self.started[-1].news.number, step=step, pause_s=0.1)

    def drop(self) -> None:
        """The connection ends as a killed process's does."""
        self.control._closing.set()
        assert self.control._connection is not None
        self.control._connection.shutdown(socket.SHUT_RDWR)


class Cluster:
    """A coordinator, and what it asked for."""

    def __init__(self, silence_s: float = 5.0, hang_s: float = 60.0, **policy: Any) -> None:
        self.silence_s = silence_s
        self.launched: list[str] = []
        self.dismissed: list[str] = []
        self.events: list[dict[str, Any]] = []
        self.members: list[str] = []
        self.over: list[str | None] = []
        self.coordinator = Coordinator(Policy(**{"lanes": 4, "max": 3, **policy}), silence_s, hang_s, self)
        self.port = self.coordinator.start(HOST)
        self.coordinator.begin()
        self.workers: list[Worker] = []

    def launch(self, worker: str, after_s: float) -> None:
        self.launched.append(worker)

    def dismiss(self, worker: str) -> None:
        self.dismissed.append(worker)

    def record(self, event: dict[str, Any]) -> None:
        json.dumps(event)
        self.events.append(event)

    def changed(self, members: list[str]) -> None:
        self.members = members

    def ended(self, failure: str | None) -> None:
        self.over.append(failure)

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [e for e in self.events if e["kind"] == kind]

    def start(self, *names: str) -> list[Worker]:
        """Workers that are placed, connected, ready and on their way to the next generation."""
        for name in names:
            self.coordinator.placed(name, f"node-{name}", None)
        found = [Worker(self, name).connect() for name in names]
        for worker in found:
            worker.control.tell("ready")
        return found

    def train(self, *names: str) -> list[Worker]:
        """Until these are the first generation's members and have committed a step."""
        found = self.start(*names)
        for worker in found:
            worker.arrive(-1)
        wait(lambda: all(w.started for w in found))
        for worker in found:
            worker.commit(1)
        wait(lambda: self.coordinator.membership.committed == 1)
        return found


@pytest.fixture
def cluster() -> Iterator[Callable[..., Cluster]]:
    made: list[Cluster] = []

    def make(**options: Any) -> Cluster:
        made.append(Cluster(**options))
        return made[-1]

    yield make
    for each in made:
        for worker in each.workers:
            worker.control.close()
        each.coordinator.close()


Make = Callable[..., Cluster]


def test_workers_join_and_all_are_told_to_go(cluster: Make) -> None:
    here = cluster()
    wait(lambda: here.launched == ["w0", "w1", "w2"])
    workers = here.train("w0", "w1", "w2")
    starts = [w.started[0] for w in workers]
    assert [s.rank for s in starts] == [0, 1, 2]
    assert sorted(lane for lanes in starts[0].news.lanes for lane in lanes) == [0, 1, 2, 3]
    assert {s.source for s in starts} == {None}
    assert starts[0].nodes == ("node-w0", "node-w1", "node-w2")
    assert here.members == ["w0", "w1", "w2"]
    (generation,) = here.of("generation")
    assert generation["generation"] == starts[0].news.number


def test_nobody_goes_before_the_last_has_arrived(cluster: Make) -> None:
    here = cluster()
    first, second, third = here.start("w0", "w1", "w2")
    for worker in (first, second):
        worker.arrive(-1)
    wait(lambda: len(here.coordinator.membership._arrived) == 2)
    assert not first.started
    third.arrive(-1)
    wait(lambda: first.started and second.started and third.started)


def test_a_death_is_told_within_a_tenth_of_a_second_and_severs(cluster: Make) -> None:
    here = cluster(silence_s=30.0)
    first, second, third = here.train("w0", "w1", "w2")
    begun = time.monotonic()
    third.drop()
    for worker in (first, second):
        assert worker.group.severed.wait(DEADLINE_S)
    took = time.monotonic() - begun
    assert first.control.broken
    for worker in (first, second):
        worker.arrive(1)
    wait(lambda: len(first.started) == 2 and len(second.started) == 2)
    start = first.started[1]
    assert (start.news.members, start.source) == (("w0", "w1"), 0)
    first.commit(2)
    wait(lambda: here.of("recovery"))
    (recovery,) = here.of("recovery")
    assert (recovery["cause"], recovery["workers"], recovery["step"]) == ("process_died", ("w2",), 2)
    assert "w2" in here.dismissed
    assert "w3" in here.launched, "another is asked for"
    assert took < 0.1


def test_who_is_ahead_is_the_source(cluster: Make) -> None:
    here = cluster()
    first, second, third = here.train("w0", "w1", "w2")
    third.drop()
    first.group.severed.wait(DEADLINE_S)
    first.arrive(4, 4)
    second.arrive(5, 5)
    wait(lambda: len(first.started) == 2)
    assert (first.started[1].source, first.started[1].positions) == (1, ((4, 4), (5, 5)))


def test_silence_is_a_stopped_process_where_its_machine_answers(cluster: Make) -> None:
    here = cluster(silence_s=0.5)
    first, second, _ = here.train("w0", "w1", "w2")
    second.control._closing.set()  # its beats end; its kernel still acknowledges
    wait(lambda: here.coordinator.membership.workers.get("w1") is None)
    first.group.severed.wait(DEADLINE_S)
    assert second.left.wait(DEADLINE_S) or second.control._closing.is_set()
    assert "w1" in here.dismissed
    incident = here.coordinator.membership._incident
    assert incident is not None
    assert (incident.cause, incident.workers) == ("stopped", ["w1"])
    assert incident.silent_s >= 1.0


def test_silence_is_a_cut_link_where_nothing_is_acknowledged(cluster: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    here = cluster(silence_s=0.5)
    _, second, _ = here.train("w0", "w1", "w2")
    monkeypatch.setattr(coordinators.wire, "answers", lambda connection, patience_s: False)
    second.control._closing.set()
    wait(lambda: here.coordinator.membership.workers.get("w1") is None)
    incident = here.coordinator.membership._incident
    assert incident is not None
    assert incident.cause == "link_cut"
    assert 0.5 <= incident.silent_s < 1.0 + 5 * coordinators.TICK_S


def test_a_member_that_stands_still_while_the_others_regroup_is_given_up(cluster: Make) -> None:
    here = cluster(silence_s=0.5)
    first, second, third = here.train("w0", "w1", "w2")
    third.drop()
    assert first.group.severed.wait(DEADLINE_S)
    second.control._closing.set()
    first.arrive(1)
    wait(lambda: len(first.started) == 2, 10.0)
    assert first.started[1].news.members == ("w0",)


def test_a_watermark_that_stands_while_others_wait_is_a_hang(cluster: Make) -> None:
    here = cluster(hang_s=1.0)
    workers = here.train("w0", "w1", "w2")
    for worker in workers:
        worker.control.waiting = worker.name != "w1"
    wait(lambda: here.coordinator.membership.workers.get("w1") is None)
    incident = here.coordinator.membership._incident
    assert incident is not None
    assert (incident.cause, incident.workers) == ("hung", ["w1"])
    assert {"w0", "w2"} <= set(here.coordinator.membership.workers), "who waits does not hang"


def test_an_evicted_worker_that_comes_back_is_dismissed(cluster: Make) -> None:
    here = cluster()
    _, second, _ = here.train("w0", "w1", "w2")
    here.coordinator.gone("w1", "stopped")
    assert second.left.wait(DEADLINE_S), "its line says so"
    again = Worker(here, "w1")
    with pytest.raises(SystemExit):
        again.connect()
    assert again.left.is_set()


def test_a_coordinator_that_ends_takes_its_workers_along(cluster: Make) -> None:
    here = cluster()
    (worker,) = here.start("w0")
    here.coordinator.close()
    assert worker.left.wait(DEADLINE_S)


def test_a_drained_worker_leaves_in_good_order(cluster: Make) -> None:
    here = cluster(leave_s=29.5)  # nobody takes its place: it works until half a second from now
    first, second, third = here.train("w0", "w1", "w2")
    here.coordinator.drained("node-w2", 30.0)
    wait(lambda: here.of("drain"))
    assert not first.control.changed
    wait(lambda: first.control.changed and second.control.changed and third.control.changed)
    assert not first.control.broken, "it waits for the end of the step"
    assert not first.group.severed.is_set()
    for worker in (first, second, third):
        worker.arrive(5)
    wait(lambda: third.dismissed and len(first.started) == 2)
    assert not third.left.is_set(), "it may finish what it writes"
    assert first.started[1].news.members == ("w0", "w1")
    assert "w2" not in here.dismissed
    third.control.close()
    wait(lambda: "w2" in here.dismissed)
    (drain,) = here.of("drain")
    assert (drain["worker"], drain["deadline_s"]) == ("w2", 30.0)


def test_where_all_are_taken_away_they_pause_and_save_first(cluster: Make) -> None:
    here = cluster(min=2, max=2, leave_s=29.0)  # due after a second
    first, second = here.train("w0", "w1")
    for node in ("node-w0", "node-w1"):
        here.coordinator.drained(node, 30.0)
    wait(lambda: first.control.changed and second.control.changed)
    for worker in (first, second):
        worker.arrive(7)
    wait(lambda: first.pauses and second.pauses)
    (pause, *_) = here.of("pause")
    assert pause["reason"]
    assert here.members == []


def test_a_checkpoint_is_asked_for_when_too_few_would_be_left(cluster: Make) -> None:
    here = cluster(min=2, max=2)
    first, _ = here.train("w0", "w1")
    here.coordinator.drained("node-w1", 30.0)
    wait(lambda: first.control.save_wanted is not None)
    assert "w1 is being taken away" in str(first.control.save_wanted)


def test_too_few_left_is_a_pause_until_another_comes(cluster: Make) -> None:
    here = cluster(min=2, max=2)
    first, second = here.train("w0", "w1")
    second.drop()
    assert first.group.severed.wait(DEADLINE_S)
    first.arrive(3)
    wait(lambda: here.of("pause"))
    assert first.pauses == 0, "its state is not in danger"
    (fresh,) = here.start("w2")
    fresh.arrive(-1)
    wait(lambda: len(first.started) == 2 and fresh.started)
    start = fresh.started[0]
    assert start.positions[start.source or 0] == (3, 0)


def say(port: int, line: bytes) -> bytes:
    """Send it and read until the other side hangs up."""
    with socket.create_connection((HOST, port), timeout=DEADLINE_S) as connection:
        connection.sendall(line)
        heard = b""
        try:
            while part := connection.recv(4096):
                heard += part
        except ConnectionResetError:
            pass
        return heard


@pytest.mark.parametrize(
    "line",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x00\xff\xfe garbage\n",
        b"[]\n",
        b"{}\n",
        b'{"kind": "hello"}\n',
        wire.encode("beat", token="x", worker="w0"),
        wire.encode("hello", token="wrong", worker="w0", age_s=0.0, pid=1, node_ip=HOST),
        wire.encode("hello", token=None, worker="w0", age_s=0.0),
        b"x" * (coordinators.LINE_BYTES + 10) + b"\n",
    ],
)
def test_strangers_are_not_heard(cluster: Make, line: bytes) -> None:
    here = cluster()
    here.coordinator.placed("w0", "node-w0", None)
    assert say(here.port, line) == b""
    (worker,) = here.start("w0")
    wait(lambda: here.coordinator.membership.workers["w0"].phase != "warming")
    assert not worker.left.is_set(), "it goes on"


def test_the_token_differs_with_each_run_and_names_are_not_enough(cluster: Make) -> None:
    one, other = cluster(), cluster()
    assert one.coordinator.token != other.coordinator.token
    one.coordinator.placed("w0", "node-w0", None)
    with pytest.raises((ValueError, OSError)):
        Worker(one, "w0", token=other.coordinator.token).connect()


def test_a_worker_alone_commits_nothing_without_word(cluster: Make) -> None:
    here = cluster(max=1, silence_s=0.5)
    (worker,) = here.train("w0")
    wait(worker.control.leased)
    worker.control._leased_at = time.monotonic() - 10.0
    assert not worker.control.leased()
    worker.control.await_lease()
    assert worker.control.leased()


def test_the_account_adds_up_to_the_time_that_places_were_held(cluster: Make) -> None:
    here = cluster()
    first, *_ = here.train("w0", "w1", "w2")
    begun = {name: peer.placed_at for name, peer in here.coordinator._peers.items()}
    first.ledger.switch("compute", time.monotonic())
    wait(lambda: here.coordinator.account()["compute"] > 0.3)
    ended = time.monotonic()
    here.coordinator.gone("w2", "process_died")
    wait(lambda: "w2" not in here.coordinator._peers)
    before = time.monotonic()
    account = here.coordinator.account()
    after = time.monotonic()
    held = sum(before - at for name, at in begun.items() if name != "w2") + ended - begun["w2"]
    assert set(account) == set(CAUSES)
    assert sum(account.values()) == pytest.approx(held, abs=3 * (after - before) + (before - ended) + 0.01)


def test_the_end_is_told_once_all_have_finished(cluster: Make) -> None:
    here = cluster()
    workers = here.train("w0", "w1", "w2")
    for worker in workers[:2]:
        worker.control.tell("finished")
    wait(lambda: sum(w.phase == "finished" for w in here.coordinator.membership.workers.values()) == 2)
    assert here.over == []
    workers[2].control.tell("finished")
    wait(lambda: here.over)
    assert here.over == [None]


def test_what_a_worker_raised_ends_the_run(cluster: Make) -> None:
    here = cluster()
    first, *_ = here.train("w0", "w1", "w2")
    first.control.tell("raised", reason="worker 0, at step 3: ValueError")
    wait(lambda: here.over)
    assert here.over == ["worker 0, at step 3: ValueError"]
