"""The coordinator and the workers' lines to it, over loopback, with everything else faked."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest
from tests.unit.lead import DEADLINE_S, HOST, Cluster, Worker, frozen, wait

from headway.core.demand import Worth
from headway.core.ledger import CAUSES
from headway.core.membership import Membership
from headway.core.prospect import WARM_S
from headway.core.spots import Spot
from headway.elastic.lead import coordinator
from headway.elastic.lead.wishing import Wishing
from headway.elastic.wire import link
from headway.elastic.wire import messages as wire


@pytest.fixture
def cluster() -> Iterator[Callable[..., Cluster]]:
    made: list[Cluster] = []

    def make(**options: Any) -> Cluster:
        made.append(Cluster(**options))
        return made[-1]

    yield make
    for each in made:
        each.close()


Make = Callable[..., Cluster]


def test_workers_join_and_all_are_told_to_go(cluster: Make) -> None:
    here = cluster()
    wait(lambda: here.launched == ["w0", "w1", "w2"])
    workers = here.train("w0", "w1", "w2")
    starts = [w.started[0] for w in workers]
    assert [s.rank for s in starts] == [0, 1, 2]
    assert sorted(lane for start in starts for lane in start.news.lanes) == [0, 1, 2, 3]
    assert {s.source for s in starts} == {None}
    assert [s.spot for s in starts] == [Spot(rank, 3, 0, 1, rank, 3) for rank in range(3)]
    assert here.members == ["w0", "w1", "w2"]
    (generation,) = here.of("generation")
    assert generation["generation"] == starts[0].news.number


def test_nobody_goes_before_the_last_has_arrived(cluster: Make) -> None:
    here = cluster()
    first, second, third = here.start("w0", "w1", "w2")
    for worker in (first, second):
        worker.arrive(-1)
    wait(lambda: len(getattr(here.coordinator.membership._state, "arrived", ())) == 2)
    assert not first.started
    third.arrive(-1)
    wait(lambda: first.started and second.started and third.started)


def test_a_death_is_told_at_once_and_severs(cluster: Make) -> None:
    here = cluster(silence_s=30.0)
    first, second, third = here.train("w0", "w1", "w2")
    third.drop()
    for worker in (first, second):
        assert worker.group.severed.wait(DEADLINE_S), "long before its silence would count"
    assert first.line.broken
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
    here = cluster(silence_s=1.0)
    first, second, _ = here.train("w0", "w1", "w2")
    second.mute()  # its kernel still acknowledges
    wait(lambda: here.coordinator.membership.workers.get("w1") is None)
    first.group.severed.wait(DEADLINE_S)
    assert second.left.wait(DEADLINE_S) or second.line._closing.is_set()
    assert "w1" in here.dismissed
    incident = here.coordinator.membership._incidents._open
    assert incident is not None
    assert (incident.cause, incident.workers) == ("stopped", ["w1"])
    assert incident.silent_s >= 2.0


def test_silence_is_a_cut_link_where_nothing_is_acknowledged(cluster: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    here = cluster(silence_s=2.0)
    _, second, _ = here.train("w0", "w1", "w2")
    monkeypatch.setattr(link, "answers", lambda connection, patience_s: False)
    second.mute()
    wait(lambda: here.coordinator.membership.workers.get("w1") is None)
    incident = here.coordinator.membership._incidents._open
    assert incident is not None
    assert incident.cause == "link_cut"
    assert 2.0 <= incident.silent_s < 4.0, "a stopped process is waited for longer"


def test_a_member_that_stands_still_while_the_others_regroup_is_given_up(cluster: Make) -> None:
    here = cluster(silence_s=1.0, hang_s=2.1)
    first, second, third = here.train("w0", "w1", "w2")
    third.drop()
    assert first.group.severed.wait(DEADLINE_S)
    second.mute()
    first.arrive(1)
    wait(lambda: len(first.started) == 2)
    assert first.started[1].news.members == ("w0",)


def test_a_watermark_that_stands_while_others_wait_is_a_hang(cluster: Make) -> None:
    here = cluster(hang_s=1.0)
    workers = here.train("w0", "w1", "w2")
    for worker in workers:
        worker.line.waiting = worker.name != "w1"
    wait(lambda: here.coordinator.membership.workers.get("w1") is None)
    incident = here.coordinator.membership._incidents._open
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
    told = time.monotonic()
    here.coordinator.drained("node-w2", 30.0)
    wait(lambda: here.of("drain"))
    wait(lambda: first.line.changed and second.line.changed and third.line.changed)
    assert time.monotonic() - told >= 0.5, "not at once"
    assert not first.line.broken, "it waits for the end of the step"
    assert not first.group.severed.is_set()
    for worker in (first, second, third):
        worker.arrive(5)
    wait(lambda: third.dismissed and len(first.started) == 2)
    assert not third.left.is_set(), "it may finish what it writes"
    assert first.started[1].news.members == ("w0", "w1")
    assert "w2" not in here.dismissed
    third.line.close()
    wait(lambda: "w2" in here.dismissed)
    assert here.of("lingered") == []
    (drain,) = here.of("drain")
    assert (drain["worker"], drain["deadline_s"]) == ("w2", 30.0)


def test_a_worker_that_was_let_go_and_does_not_end_is_ended(cluster: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coordinator, "GRACE_S", 0.2)
    here = cluster(leave_s=29.9)
    first, second = here.train("w0", "w1")
    here.coordinator.drained("node-w1", 30.0)
    wait(lambda: first.line.changed and second.line.changed)
    for worker in (first, second):
        worker.arrive(5)
    wait(lambda: "w1" in here.dismissed)
    assert [each["worker"] for each in here.of("lingered")] == ["w1"]


def test_why_a_node_is_taken_away_is_kept(cluster: Make) -> None:
    here = cluster()
    here.train("w0", "w1")
    here.coordinator.drained("node-w1", 30.0, "AWS takes it")
    wait(lambda: here.of("drain"))
    assert here.of("drain")[0]["reason"] == "AWS takes it"


def test_who_works_on_a_node_at_risk_is_to_be_replaced_once(cluster: Make) -> None:
    here = cluster()
    here.train("w0", "w1")
    for _ in range(3):
        here.coordinator.at_risk("node-w1", "AWS says so")
    here.coordinator.drained("node-w1", 30.0, "AWS takes it")
    wait(lambda: here.of("drain"))
    assert [(each["worker"], each["reason"]) for each in here.of("at_risk")] == [("w1", "AWS says so")]


def test_where_all_are_taken_away_they_pause_and_save_first(cluster: Make) -> None:
    here = cluster(min=2, max=2, leave_s=29.0)  # due after a second
    first, second = here.train("w0", "w1")
    for node in ("node-w0", "node-w1"):
        here.coordinator.drained(node, 30.0)
    wait(lambda: first.line.changed and second.line.changed)
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
    wait(lambda: first.line.save_wanted is not None)
    assert "w1 is being taken away" in str(first.line.save_wanted)


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
        wire.encode(wire.Ready()),
        wire.encode(wire.Hello("w0", "wrong", 0.0, 1, HOST, 0)),
        wire.encode(wire.Hello("w0", "", 0.0, 1, HOST, 0)),
        b"x" * (wire.HELLO_BYTES + 10) + b"\n",
        b"x" * (wire.HELLO_BYTES + 10),
        b"[" * (wire.HELLO_BYTES - 10) + b"\n",
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
    here = cluster(max=1, silence_s=2.0)
    (worker,) = here.train("w0")
    wait(lambda: worker.line.leased)
    with frozen(here):
        wait(lambda: not worker.line.leased)
        done = threading.Event()
        threading.Thread(target=lambda: (worker.line.may_commit(), done.set()), daemon=True).start()
        assert not done.wait(0.5)
    assert done.wait(DEADLINE_S)


def test_the_account_adds_up_to_the_time_that_places_were_held(cluster: Make) -> None:
    here = cluster()
    first, *_ = here.train("w0", "w1", "w2")
    books = here.coordinator._books
    begun = {name: (books._since or 0.0) + account.opened_s for name, account in books._open.items()}
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


def test_another_size_is_recorded_and_asked_for(cluster: Make) -> None:
    c = cluster(max=2)
    c.train("w0", "w1")
    c.coordinator.resize(2, 3, "mary@laptop", "a1")
    wait(lambda: c.launched == ["w0", "w1", "w2"])
    (told,) = c.of("resize")
    assert {key: told[key] for key in ("by", "min", "max", "request")} == {
        "by": "mary@laptop",
        "min": 2,
        "max": 3,
        "request": "a1",
    }
    for least, most in ((0, 1), (3, 2), (1, 5)):
        with pytest.raises(ValueError, match="4 lanes cannot be carried"):
            c.coordinator.resize(least, most, "mary@laptop")


def test_a_size_that_comes_by_two_ways_is_taken_once(cluster: Make) -> None:
    c = cluster(max=2)
    c.train("w0", "w1")
    for _ in range(2):
        c.coordinator.resize(2, 3, "the queue", "a1", 3)
    c.coordinator.resize(2, 4, "the queue", "a2", 4)
    wait(lambda: len(c.of("resize")) == 2)
    assert [told["request"] for told in c.of("resize")] == ["a1", "a2"]
    wait(lambda: c.launched == ["w0", "w1", "w2", "w3"])


def test_a_size_that_is_asked_for_before_it_began_counts_from_then_on(cluster: Make) -> None:
    c = cluster(begins=False)
    c.coordinator.resize(1, 2, "mary", "a")
    c.coordinator.begin()
    wait(lambda: c.coordinator.membership.policy.max == 2)
    wait(lambda: set(c.launched) - set(c.dismissed) == {"w0", "w1"})


class Steps:
    """Stands where a run's wishes are, and keeps the step that it is told."""

    most = 3

    def __init__(self) -> None:
        self.seen: list[int] = []

    def look(self, membership: Membership, step: int, worth: Worth, *_: object) -> tuple[Worth, list[dict[str, Any]]]:
        self.seen.append(step)
        return worth, []

    def astray(self, membership: Membership) -> list[tuple[str, str]]:
        return []


def test_where_nobody_holds_a_state_it_is_not_said_that_no_step_is_done(
    cluster: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coordinator, "LOOK_S", 0.05)
    run, steps = cluster(min=1, max=1), Steps()
    run.coordinator._wishing = cast(Wishing, steps)
    (worker,) = run.train("w0")
    worker.line.step = 7
    wait(lambda: 7 in steps.seen)
    run.coordinator.gone("w0", "process_died")
    wait(lambda: steps.seen[-1] == -1)
    (other,) = run.start("w1")
    other.line.step = 5  # of the checkpoint
    wait(lambda: steps.seen[-1] == 5)
    assert 0 not in steps.seen[steps.seen.index(7) :]


def test_a_machine_that_was_waited_for_shows_no_way(cluster: Make) -> None:
    lead = cluster(begins=False).coordinator
    lead.came(100.0)
    lead.market("worker: no spot machines")
    lead.market("")
    lead.came(3600.0)
    said = threading.Event()
    lead.then(said.set)
    assert said.wait(DEADLINE_S)
    assert lead._prospect.longest_s == 100.0 + WARM_S


def test_the_end_is_told_once_all_have_finished(cluster: Make) -> None:
    here = cluster()
    workers = here.train("w0", "w1", "w2")
    for worker in workers[:2]:
        worker.line.tell(wire.Finished())
    wait(lambda: sum(w.phase == "finished" for w in here.coordinator.membership.workers.values()) == 2)
    assert here.over == []
    workers[2].line.tell(wire.Finished())
    wait(lambda: here.over)
    assert here.over == [None]


def failure(reason: str) -> dict[str, str]:
    return {"kind": "task", "fact": "worker 0, at step 3", "reason": reason, "remedy": "", "traceback": "File x.py"}


def test_what_a_worker_raised_ends_the_run(cluster: Make) -> None:
    here = cluster()
    first, *_ = here.train("w0", "w1", "w2")
    first.line.tell(wire.Raised("user", failure("ValueError")))
    wait(lambda: here.over)
    assert here.over == [failure("ValueError")], "with its traceback"


def test_2_14f_a_machine_that_rounds_otherwise_is_told_apart_and_not_taken(cluster: Make) -> None:
    here = cluster(alike=True, max=2)
    for name in ("w0", "w1"):
        here.coordinator.placed(name, f"node-{name}", None)
    first, second = (Worker(here, name).connect() for name in ("w0", "w1"))
    first.line.tell(wire.Ready("abc"))
    wait(lambda: here.coordinator.membership.workers["w0"].phase != "warming")
    second.line.tell(wire.Ready("abd"))
    wait(lambda: "w1" in here.dismissed)
    (event,) = here.of("rounding")
    assert (event["worker"], event["node_id"], event["refused"]) == ("w1", "node-w1", True)
    assert not here.over, "one bad machine ends no run"


def test_2_14f_where_replicas_are_not_compared_it_is_taken(cluster: Make) -> None:
    here = cluster(max=2)
    for name in ("w0", "w1"):
        here.coordinator.placed(name, f"node-{name}", None)
    for worker, rounding in zip([Worker(here, name).connect() for name in ("w0", "w1")], ("abc", "abd"), strict=True):
        worker.line.tell(wire.Ready(rounding))
        worker.arrive(-1)
    wait(lambda: here.members == ["w0", "w1"])
    assert [event["refused"] for event in here.of("rounding")] == [False]


def test_who_is_gone_before_it_trained_is_told_and_a_member_by_its_recovery() -> None:
    with Cluster(max=2) as cluster:
        cluster.coordinator.placed("w0", "node-w0", None)
        wait(lambda: "w0" in cluster.coordinator.membership.workers)
        cluster.coordinator.gone("w0", "start_failed")
        wait(lambda: cluster.of("gone"))
        (told,) = cluster.of("gone")
        assert (told["worker"], told["cause"], told["node_id"]) == ("w0", "start_failed", "node-w0")
        first, _ = cluster.train("w1", "w2")
        first.drop()
        wait(lambda: "w1" not in cluster.coordinator.membership.workers)
        assert cluster.of("gone") == [told]


def test_it_is_told_why_nobody_trains() -> None:
    with Cluster(max=1) as cluster:
        wait(lambda: cluster.of("waits"))
        assert cluster.of("waits")[0]["reason"] == "for workers: 0 of 1 are ready, 1 has no place on the cluster yet"
        cluster.train("w0")
        wait(lambda: cluster.of("waits")[-1]["reason"] == "")
