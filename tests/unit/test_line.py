"""A worker's line: leases, parted pairs, and what the coordinator makes of both."""

from __future__ import annotations

import contextlib
import time
from dataclasses import replace

import pytest
from tests.unit.lead import DEADLINE_S, HOST, Cluster, Group, Worker, frozen, wait

from headway.core import events
from headway.core.lanes import moved
from headway.core.watch import At
from headway.elastic.lead import coordinator
from headway.elastic.lead.peer import Peer
from headway.elastic.lead.telling import Telling
from headway.elastic.wire import link, pulse
from headway.elastic.wire import messages as wire
from headway.elastic.worker import line as lines


class Stuck(Group):
    """A group some of whose peers do not acknowledge what they are sent."""

    def __init__(self, *late: str) -> None:
        super().__init__()
        self.late, self.moved = late, 0

    def unanswered(self, patience_s: float) -> tuple[str, ...]:
        return self.late

    def bytes_moved(self) -> int:
        return self.moved


def test_bytes_that_were_exchanged_ride_on_beats_and_add_up_over_groups_and_workers() -> None:
    with Cluster(max=2) as here:
        first, second = here.train("w0", "w1")
        lead, one, other = here.coordinator, Stuck(), Stuck()
        number = hold(first, one)
        one.moved = 1000
        wait(lambda: lead._peers["w0"].exchanged == 1000)
        one.moved = 3000
        wait(lambda: lead._peers["w0"].exchanged == 3000)
        first.line.hold(other, number)  # its counts begin anew
        other.moved = 500
        wait(lambda: lead._peers["w0"].exchanged == 3500)
        mine = Stuck()
        hold(second, mine)
        mine.moved = 3500
        wait(lambda: lead._peers["w1"].exchanged == 3500)
        wait(lambda: here.of("ledger")[-1]["exchanged_bytes"] == 3500)  # each told of what both saw


def hold(worker: Worker, group: Group) -> int:
    """Be in an exchange of the present generation."""
    number = worker.started[-1].news.number
    worker.line.hold(group, number)
    worker.line.at, worker.line.waiting = At.EXCHANGE, True
    return number


@pytest.mark.parametrize("names", [("w0",), ("w0", "w1"), ("w0", "w1", "w2")])
def test_2_19_a_lease_holds_for_every_size(names: tuple[str, ...]) -> None:
    with Cluster(max=len(names)) as here:
        workers = here.train(*names)
        for worker in workers:
            worker.line.may_commit()
            worker.line._lease_s = 0.4  # as on one node
        with frozen(here):
            wait(lambda: not any(worker.line.leased for worker in workers))
        for worker in workers:
            worker.line.may_commit()  # returns, though the lease may be over again by the time that one looks
            wait(lambda worker=worker: worker.line.leased)  # type: ignore[misc]


def test_2_19_its_length_comes_with_the_word_to_go() -> None:
    with Cluster(silence_s=4.0) as here:
        first, *_ = here.train("w0", "w1")  # two nodes: one silence condemns nobody but the silent
        assert first.line._lease_s == pytest.approx(0.8 * 40.0)
    with Cluster(silence_s=4.0, max=1) as here:
        (alone,) = here.train("w0")
        assert alone.line._lease_s == pytest.approx(0.8 * 4.0)


def test_2_19_an_answer_that_comes_late_grants_what_was_left_when_the_beat_was_sent() -> None:
    with Cluster() as here:
        (worker,) = here.start("w0")
        with frozen(here):  # nobody answers a beat that is on its way
            line = worker.line
            line._closing.set()
            line._leased_at, line._sent = 0.0, {1: time.monotonic() - 100.0}
            line._heart.page.lease(0.0)  # type: ignore[union-attr]
            line._heart.close()  # type: ignore[union-attr]
            line._take(wire.Lease(1, 5.0))
            assert not line.leased
            line._take(wire.Lease(7, 6.0))  # of a beat that was never sent
            assert line._leased_at == pytest.approx(time.monotonic() - 100.0, abs=5.0)


def test_2_7_whoever_cannot_be_reached_is_named_and_the_exchange_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "reachable", lambda host, port: False)
    with Cluster() as here:
        first, second, third = here.train("w0", "w1", "w2")
        number = first.started[0].news.number
        for i, peer in enumerate(here.coordinator._peers.values()):
            peer.hello = replace(peer.hello, node_ip=f"10.0.0.{i}", probe_port=4000 + i)  # type: ignore[type-var]
        group = Stuck("10.0.0.2")
        hold(first, group)
        assert group.severed.wait(DEADLINE_S)
        wait(lambda: here.of("lost"))
        (lost,) = here.of("lost")
        assert (lost["worker"], lost["generation"], lost["peers"]) == ("w0", number, ("w2",))
        for worker in (first, second):
            worker.arrive(1)
        wait(lambda: len(first.started) == 2 and len(second.started) == 2)
        assert first.started[1].news.members == ("w0", "w1")
        assert third.left.wait(DEADLINE_S)


def test_2_7_one_that_can_be_reached_again_is_not_blamed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "reachable", lambda host, port: True)
    monkeypatch.setattr(lines, "WITHIN_S", 0.2)
    with Cluster() as here:
        first, second, third = workers = here.train("w0", "w1", "w2")
        group = Stuck(HOST)
        hold(first, group)
        assert group.severed.wait(DEADLINE_S)
        for worker in workers:
            worker.arrive(1)
        wait(lambda: all(len(worker.started) == 2 for worker in workers))
        assert first.started[1].news.members == ("w0", "w1", "w2"), "nobody goes"
        assert here.of("lost")[0]["peers"] == ()
        assert not second.left.is_set()
        assert not third.left.is_set()


def test_2_7_the_loss_of_one_exchange_is_told_once() -> None:
    with Cluster() as here:
        first, *_ = here.train("w0", "w1")
        number = first.started[0].news.number
        for _ in range(3):
            first.line.lost(number, "it broke")
        first.arrive(1)
        wait(lambda: first.line.changed)
        first.line.lost(number, "it broke")
        first.line.tell(wire.Ready())
        wait(lambda: here.of("lost"))
        assert len(here.of("lost")) == 1


def test_a_group_is_made_though_a_planned_change_is_known_already() -> None:
    """Of two that join one after the other the second is ready before the first one's group is there."""
    with Cluster() as here:
        first, second, *_ = here.train("w0", "w1")
        news = first.started[-1].news
        lines = [first.line, second.line]
        for line in lines:
            line._take(wire.Publish(news.number + 1, ("w0", "w1", "w2"), False, ()))
        assert not any(line.superseded(news.number) for line in lines)
        second.line.put(news.number, "where", b"here")
        assert first.line.fetch(news.number, "where", DEADLINE_S) == b"here"
        first.line._take(wire.Publish(news.number + 2, ("w0",), True, ()))
        assert first.line.superseded(news.number)
        with pytest.raises(RuntimeError, match="is over"):
            first.line.fetch(news.number, "whither", DEADLINE_S)


@pytest.mark.parametrize("urgent", [False, True])
def test_whoever_hears_of_the_next_change_with_the_word_to_go_goes_first(urgent: bool) -> None:
    """Its thread may wake only then; the others, who were quicker, wait for it in the group that they make."""
    with Cluster() as here:
        (first,) = here.train("w0")
        number = first.started[-1].news.number
        first.arrive(1)
        with frozen(here):
            with first.line._changed:
                first.line._take(wire.Publish(number + 1, ("w0", "w1"), False, (0, 1)))
                first.line._take(wire.Go(number + 1, 0, (1, 0), (), 5.0, (0, 0, 2, 0, 1)))
                first.line._take(wire.Publish(number + 2, ("w0", "w1", "w2"), urgent, (0,)))
            if urgent:
                assert first.line._start is None, "what it was to enter is over"
            else:
                wait(lambda: len(first.started) == 2)
                assert (first.started[1].news.number, first.started[1].news.lanes) == (number + 1, (0, 1))


def test_among_thousands_hearts_tell_most_of_it_and_beats_come_when_one_is_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The lead asks for few signs of life; all three are on one node, and send theirs together."""
    monkeypatch.setattr(coordinator, "period_s", lambda workers, silence_s: 0.4)
    with Cluster(silence_s=2.0) as here:
        workers = here.train("w0", "w1", "w2")
        peers = here.coordinator._peers
        wait(lambda: all(w.line._heart.page.period_s == pytest.approx(0.4) for w in workers))  # type: ignore[union-attr]
        bundles: list[int] = []
        unbundled = pulse.unbundled
        monkeypatch.setattr(pulse, "unbundled", lambda data: bundles.append(1) or unbundled(data))  # type: ignore[func-returns-value]
        wait(lambda: len(bundles) > 3)
        before = {name: peers[name]._beat for name in peers}
        begun, number = time.monotonic(), peers["w0"]._pulse
        wait(lambda: peers["w0"]._pulse >= number + 6)
        lasted = time.monotonic() - begun
        assert all(peers[name]._beat - before[name] <= 1 + lasted / 5 for name in before), "beats are rare"
        assert all(w.line.leased for w in workers)
        assert workers[0].line._heart is not None
        workers[0].line._heart._process.kill()  # type: ignore[attr-defined]
        before_w0 = peers["w0"]._beat
        wait(lambda: peers["w0"]._beat > before_w0 + 5)
        assert {"w0", "w1", "w2"} <= set(here.coordinator.membership.workers)
        assert workers[0].line.leased
        assert not any(w.left.is_set() for w in workers)


def test_an_exchange_that_gets_on_is_no_hang() -> None:
    """2.8: bytes that move are progress, though the training thread waits."""
    with Cluster() as here:
        first, *_ = here.train("w0", "w1")
        group = Stuck()
        hold(first, group)
        peer = here.coordinator._peers["w0"]
        before = peer.mark
        for _ in range(3):
            group.moved += 10**6
            wait(lambda before=before: peer.mark > before)  # type: ignore[misc]
            before = peer.mark


def test_2_8_what_a_worker_is_at_is_known_by_either_way() -> None:
    with Cluster() as here:
        first, *_ = here.train("w0", "w1")
        peer = here.coordinator._peers["w0"]
        for at in At:
            first.line.at = at
            wait(lambda at=at: peer.at is at)  # type: ignore[misc]
        first.line._closing.set()  # no beats any more: the heart says it
        for at in At:
            first.line.at = at
            wait(lambda at=at: peer.at is at)  # type: ignore[misc]


def test_2_4_a_silence_of_most_is_the_coordinators_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it reads is lost for four times silence_s, and nothing is acknowledged; then it comes through again."""
    with Cluster(silence_s=1.0) as here:
        workers = here.train("w0", "w1", "w2")
        lead = here.coordinator
        heard, beat = lead.heard, lead.beat
        monkeypatch.setattr(link, "answers", lambda connection, patience_s: False)
        monkeypatch.setattr(lead, "heard", lambda worker, message: None)
        monkeypatch.setattr(lead, "beat", lambda said: None)
        wait(lambda: here.of("doubt"))
        begun = time.monotonic()
        wait(lambda: time.monotonic() > begun + 3.0)
        monkeypatch.setattr(lead, "heard", heard)
        monkeypatch.setattr(lead, "beat", beat)
        wait(lambda: here.of("doubt")[-1]["reason"] is None)
        begun = time.monotonic()
        wait(lambda: time.monotonic() > begun + 1.5)
        assert set(lead.membership.workers) >= {"w0", "w1", "w2"}
        assert not any(worker.left.is_set() or worker.group.severed.is_set() for worker in workers)
        assert all(worker.line.leased for worker in workers)


def test_2_4_a_coordinator_that_stood_still_blames_nobody() -> None:
    with Cluster(silence_s=1.0) as here:
        workers = here.train("w0", "w1", "w2")
        with frozen(here):
            begun = time.monotonic()
            wait(lambda: time.monotonic() > begun + 3.0)
        begun = time.monotonic()
        wait(lambda: time.monotonic() > begun + 1.5)
        assert set(here.coordinator.membership.workers) >= {"w0", "w1", "w2"}
        assert not any(worker.left.is_set() or worker.group.severed.is_set() for worker in workers)


def test_2_4_one_that_is_silent_is_spoken_to_so_that_its_machine_may_answer() -> None:
    """Nothing would be unacknowledged on a cut link over which nothing is sent."""
    with Cluster(silence_s=2.0) as here:
        _, second, _ = here.train("w0", "w1", "w2")
        heard: list[wire.Lease] = []
        second.line._renew = heard.append  # type: ignore[method-assign]
        second.mute()
        before = second.line._leased_at
        wait(lambda: sum(lease.number == 0 for lease in heard) > 3)
        assert second.line._leased_at == before, "which is no lease"


def test_2_4_one_that_is_silent_alone_is_still_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    with Cluster(silence_s=2.0) as here:
        _, second, _ = here.train("w0", "w1", "w2")
        monkeypatch.setattr(link, "answers", lambda connection, patience_s: False)
        second.mute()
        wait(lambda: "w1" not in here.coordinator.membership.workers)  # the silence of most lasts longer than that
        assert {"w0", "w2"} <= here.coordinator.membership.workers.keys()
        assert here.of("doubt") == []


def test_2_4_rays_word_on_a_dead_node_counts_unless_its_worker_still_speaks() -> None:
    with Cluster(silence_s=15.0) as here:
        _, second, _ = here.train("w0", "w1", "w2")
        here.coordinator.node_died("node-w0")
        second.mute()
        begun = time.monotonic()
        while "w1" in here.coordinator.membership.workers:
            here.coordinator.node_died("node-w1")
            assert time.monotonic() < begun + 14.0, "before its silence alone would count"
            time.sleep(0.1)  # as often as Ray is asked
        assert "w0" in here.coordinator.membership.workers
        incident = here.coordinator.membership._incidents._open
        assert incident is not None
        assert (incident.cause, incident.workers) == ("node_died", ["w1"])


def test_2_22_an_error_in_the_coordinators_timer_ends_the_run_with_words(monkeypatch: pytest.MonkeyPatch) -> None:
    with Cluster() as here:
        here.train("w0", "w1")
        monkeypatch.setattr(here.coordinator, "_examine", lambda now: 1 / 0)
        wait(lambda: here.over)
        (failure,) = here.over
        assert failure is not None
        assert failure["kind"] == "internal"
        assert "ZeroDivisionError" in failure["reason"]
        assert "_examine" in failure["traceback"], "kept, to be sent; who leads the run says where"


def test_2_22_an_error_at_a_message_ends_the_run_with_words(monkeypatch: pytest.MonkeyPatch) -> None:
    with Cluster() as here:
        first, *_ = here.train("w0", "w1")
        monkeypatch.setattr(here.coordinator.membership, "step", lambda event: [].pop())
        first.line.tell(wire.Ready())
        wait(lambda: here.over)
        assert here.over[0] is not None
        assert here.over[0]["kind"] == "internal"


def test_2_18_a_second_and_shorter_notice_counts() -> None:
    with Cluster() as here:
        here.train("w0", "w1", "w2")
        for deadline_s in (100.0, 99.9, 20.0, 60.0):
            here.coordinator.drained("node-w1", deadline_s)
        wait(lambda: len(here.of("drain")) >= 2)
        assert [e["deadline_s"] for e in here.of("drain")] == [100.0, 20.0], "not what is the same, or longer"
        deadline = here.coordinator.membership.workers["w1"].deadline
        assert deadline is not None
        assert deadline - time.monotonic() < 20.0


def test_2_18_notice_for_the_leads_own_machine_saves() -> None:
    with Cluster() as here:
        first, *_ = here.train("w0", "w1")
        here.coordinator.drained("head", 30.0)
        wait(lambda: first.line.save_wanted is not None)
        assert "the machine that leads the run" in str(first.line.save_wanted)
        assert len(here.of("head_drain")) == 1


FAILURE = {"kind": "machine", "fact": "worker 1, at set-up", "reason": "OSError: gone", "remedy": "", "traceback": "T"}


def test_2_3_what_a_joiner_raises_is_a_failed_start() -> None:
    with Cluster() as here:
        first, second = here.train("w0", "w1")
        (third,) = here.start("w2")
        third.line.tell(wire.Raised("machine", FAILURE))
        assert third.left.wait(DEADLINE_S)
        assert here.over == []
        assert not first.left.is_set()
        assert not second.group.severed.is_set()
        assert here.of("raised")[0]["starting"]
        wait(lambda: "w3" in here.launched)


def test_2_3_a_members_broken_hardware_takes_it_out_alone() -> None:
    with Cluster() as here:
        first, second, third = here.train("w0", "w1", "w2")
        third.line.tell(wire.Raised("machine", FAILURE))
        for worker in (first, second):
            assert worker.group.severed.wait(DEADLINE_S)
            worker.arrive(1)
        wait(lambda: len(first.started) == 2)
        assert first.started[1].news.members == ("w0", "w1")
        assert here.over == []


def test_2_3_one_that_was_evicted_cannot_fail_the_run() -> None:
    with Cluster() as here:
        _, second, _ = here.train("w0", "w1", "w2")
        here.coordinator.gone("w1", "stopped")
        with contextlib.suppress(OSError):
            second.line.tell(wire.Raised("user", {**FAILURE, "kind": "task"}))
        assert second.left.wait(DEADLINE_S)
        assert here.over == []


def test_what_became_of_a_generation_is_all_that_is_said_to_who_knows_it() -> None:
    """And who comes later is told all; both have the same members in the same order."""
    with Cluster(max=4, lanes=8, silence_s=30.0) as here:
        first, second, third = here.train("w0", "w1", "w2")
        said: list[wire.Publish] = []
        for worker in (first, second):
            published = worker.line._published
            worker.line._published = (  # type: ignore[method-assign]
                lambda message, before=published: said.append(message) or before(message)  # type: ignore[func-returns-value]
            )
        third.drop()
        wait(lambda: len(said) == 2)
        assert all((message.base, message.gone, message.members) == (1, ((2, 1),), ()) for message in said)
        for worker in (first, second):
            worker.arrive(1)
        wait(lambda: len(first.started) == 2 and len(second.started) == 2)
        said.clear()
        (late,) = here.start("w3")
        late.arrive(-1)
        wait(lambda: len(said) == 2)
        assert all(message.members == ("w3",) and not message.gone for message in said)
        for worker in (first, second):
            worker.arrive(1)
        wait(lambda: bool(late.started))
        assert late.started[0].news.members == first.started[2].news.members == ("w0", "w1", "w3")
        assert late.started[0].positions == ((1, 0), (1, 0), (-1, 0))


def test_a_line_that_is_new_is_told_all_whatever_its_worker_was_told_before() -> None:
    """What became of a generation says nothing where that one was never said."""

    class Kept:
        def __init__(self) -> None:
            self.said: list[wire.Publish] = []

        def write(self, line: bytes) -> None:
            message = wire.from_lead(line)
            assert isinstance(message, wire.Publish)
            self.said.append(message)

    def generation(number: int, *members: str) -> events.Generation:
        return events.Generation(number, members, moved(8, members, {}), True, "why")

    telling, peers = Telling(), {name: Peer(node=name) for name in ("w0", "w1")}
    hello = wire.Hello("w0", "token", 0.0, 1, HOST, 0)
    firsts = {name: Kept() for name in peers}
    for name, peer in peers.items():
        peer.join(replace(hello, worker=name), firsts[name], 0.0)  # type: ignore[arg-type]
    telling.publish(generation(1, "w0", "w1"), peers)
    anew = Kept()
    peers["w1"].join(replace(hello, worker="w1"), anew, 1.0)  # type: ignore[arg-type]
    telling.publish(generation(2, "w1"), peers)
    assert [(said.base, said.members) for said in firsts["w0"].said] == [(0, ("w0*2",)), (1, ())]
    assert [(said.base, said.members, said.lanes) for said in anew.said] == [(0, ("w1",), tuple(range(8)))]


def test_a_change_of_a_generation_that_was_never_said_ends_the_line() -> None:
    with Cluster() as here:
        first, *_ = here.train("w0", "w1")
        number = first.started[-1].news.number
        for bad in (
            wire.Publish(number + 1, (), True, (), number - 7),
            wire.Publish(9, (), True, (), number, ((5, 1),)),
        ):
            with pytest.raises(ValueError, match=r"was the last|cannot be gone"):
                first.line._take(bad)
        with pytest.raises(ValueError, match="another is rank"):
            first.line._take(wire.Go(number, 0, (1, 0), (), 5.0, (1, 0, 2, 0, 1)))
        with pytest.raises(ValueError, match="are behind"):
            first.line._take(wire.Go(number, 0, (1, 0), ((1, 2, 0, 0),), 5.0, (0, 0, 2, 0, 1)))


def test_2_7_where_a_member_is_is_known_from_the_lead_or_not_at_all() -> None:
    with Cluster() as here:
        first, *_ = here.train("w0", "w1", "w2")
        number = first.started[-1].news.number
        found = first.line._located(number, (HOST, "10.9.9.9"))
        assert {seat.worker for seat in found[HOST]} == {"w0", "w1", "w2"}
        assert found["10.9.9.9"] == ()
        assert {seat.probe_port for seat in found[HOST]} == {w.line._heart.probe_port for w in here.workers}  # type: ignore[union-attr]
        assert first.line._located(number - 1, ("10.9.9.8",)) == found, "of another generation nothing is said"
