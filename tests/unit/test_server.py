"""What strangers, broken workers and a hostile network do to the coordinator's ports: nothing."""

from __future__ import annotations

import os
import random
import socket
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from tests.unit.lead import DEADLINE_S, HOST, Cluster, Worker, frozen, wait

from headway.core import membership
from headway.core.ledger import BOOKED
from headway.core.watch import At
from headway.elastic.lead import server
from headway.elastic.lead.peer import Peer
from headway.elastic.wire import messages as wire
from headway.elastic.wire import pulse

MESSAGES = 10_000
WORKERS = ("w0", "w1", "w2")


def bad_line(draw: random.Random, token: str) -> bytes:
    """Random, cut, oversized, of another run, or out of order."""
    hello = wire.encode(wire.Hello("w0", token, 0.0, 1, HOST, 0))
    other = wire.encode(wire.Hello(draw.choice(WORKERS), f"{draw.getrandbits(128):032x}", 0.0, 1, HOST, 0))
    return draw.choice(
        [
            draw.randbytes(draw.randint(1, 300)).replace(b"\n", b"") + b"\n",
            hello[: draw.randint(0, len(hello) - 2)],
            hello[: draw.randint(0, len(hello) - 2)] + b"\n",
            hello,  # replayed: this worker is connected
            b"x" * draw.randint(wire.HELLO_BYTES + 1, 3 * wire.HELLO_BYTES),
            other,
            wire.encode(draw.choice([wire.Ready(), wire.Finished(), wire.Arrived(1, 5, 5, False)])),
            wire.encode(wire.Want(1, "x" * draw.randint(0, 100))),
            b'{"kind":' * draw.randint(1, 500) + b"\n",
        ]
    )


def test_bad_input_ten_thousand_messages_are_refused_and_nobody_notices() -> None:
    draw = random.Random(20261125)
    with Cluster() as here:
        workers = here.train(*WORKERS)
        token, took = here.coordinator.token, list[float]()
        pulses = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        real = pulse.pulse(pulse.Pulse("w0", 1, 0.0, 0, 0, 0, False, False, 0), pulse.key(token, "w0"))
        for number in range(MESSAGES):
            if number % 4 == 0:
                with socket.create_connection((HOST, here.port), timeout=DEADLINE_S) as connection:
                    connection.sendall(bad_line(draw, token))
            else:
                cut = real[: draw.randint(0, len(real))]
                said = draw.choice([draw.randbytes(draw.randint(0, 200)), cut, real, b"x" * 1400])
                pulses.sendto(said, (HOST, here.coordinator.pulse_port))
            if number % 50 == 0:  # and so that the kernel, which drops what finds no room, has some for the pulses
                took.append(round_trip(workers[1], number))
        pulses.close()
        wait(lambda: not here.coordinator._server.strangers)
        refused = here.coordinator.refused
        assert refused["bad hello"] > MESSAGES / 8
        assert refused["bad pulse"] > MESSAGES / 8
        assert not any(worker.left.is_set() for worker in workers)
        assert set(WORKERS) <= set(here.coordinator.membership.workers)
        assert here.over == []
        assert sorted(took)[len(took) * 9 // 10] < 1.0, "each is answered in time; a few met a machine that was busy"


def round_trip(worker: Worker, number: int) -> float:
    """Seconds until the coordinator has answered it something."""
    begun = time.monotonic()
    generation = worker.started[-1].news.number
    worker.line.put(generation, f"key-{number % 7}", b"value")
    del worker.line._values[generation, f"key-{number % 7}"]
    assert worker.line.fetch(generation, f"key-{number % 7}", DEADLINE_S) == b"value"
    return time.monotonic() - begun


def test_bad_input_a_thousand_connections_that_say_nothing() -> None:
    with Cluster() as here:
        first, *_ = here.train("w0", "w1")
        silent = [socket.create_connection((HOST, here.port), timeout=DEADLINE_S) for _ in range(1000)]
        try:
            assert min(round_trip(first, number) for number in range(5)) < 1.0
            wait(lambda: here.coordinator.refused["silent"] >= 1000 - server.STRANGERS)
            assert len(here.coordinator._server.strangers) <= server.STRANGERS
            (late,) = here.start("w2")
            wait(lambda: here.coordinator.membership.workers["w2"].phase != "warming")
            assert not late.left.is_set(), "it comes in all the same"
        finally:
            for connection in silent:
                connection.close()


def test_bad_input_one_that_says_nothing_is_shown_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "HELLO_S", 0.2)
    with Cluster() as here, socket.create_connection((HOST, here.port), timeout=DEADLINE_S) as silent:
        assert refused(silent)
        assert here.coordinator.refused["silent"] == 1


def refused(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


def test_bad_input_a_second_hello_of_one_that_is_connected_is_a_replay() -> None:
    with Cluster() as here:
        (worker,) = here.start("w0")
        with socket.create_connection((HOST, here.port), timeout=DEADLINE_S) as again:
            again.sendall(wire.encode(wire.Hello("w0", here.coordinator.token, 0.0, 1, HOST, 0)))
            assert refused(again)
        assert "w0" in here.coordinator._server.lines
        assert not worker.left.is_set()


def test_bad_input_a_workers_messages_out_of_order_never_end_the_coordinator() -> None:
    draw = random.Random(3)
    ledger = tuple(1.0 for _ in BOOKED)
    for _ in range(12):
        with Cluster(max=2, min=1) as here:
            first, _ = here.train("w0", "w1")
            generation = first.started[0].news.number
            for _ in range(50):
                number = generation + draw.randint(-2, 2)
                said: list[Any] = [
                    wire.Ready(),
                    wire.Finished(),
                    wire.Arrived(number, draw.randint(-1, 9), draw.randint(0, 9), draw.random() < 0.5),
                    wire.Committed(number, draw.randint(-5, 99), 0.1),
                    wire.Lost(number, "", ("w1", "nobody")),
                    wire.Diverged(draw.choice(["w0", "w1", "nobody"]), 3),
                    wire.Put(number, "k", "AA"),
                    wire.Want(number, "k"),
                    wire.Beat(draw.randint(0, 99), 1e9, -5, draw.choice([3, 200]), True, 2**62, 1.0, ledger),
                    wire.Hello("w0", "", 0.0, 1, HOST, 0),
                ]
                try:
                    first.line.tell(draw.choice(said))
                except OSError:
                    break  # it is shown out
            here.coordinator.gone("w1", "process_died")
            wait(lambda here=here: here.over or "w1" not in here.coordinator.membership.workers)  # type: ignore[misc]
            for failure in here.over:
                assert failure is None or failure["kind"] != "internal", failure


def test_2_21_the_ports_are_bound_to_the_nodes_address_only() -> None:
    with Cluster() as here:
        (worker,) = here.start("w0")
        ports = {here.port, here.coordinator.pulse_port}
        assert worker.line._heart is not None
        probe, own = worker.line._heart.probe_port, {os.getpid(), worker.line._heart._process.pid}
        assert probe
        bound = [each for kind in ("tcp", "udp", "tcp6", "udp6") for each in _bound(kind, own)]
        assert {address for address, port in bound if port in {*ports, probe}} == {"0100007F"}, "127.0.0.1"
        assert ports <= {port for _, port in bound}


def _bound(kind: str, of: set[int]) -> list[tuple[str, int]]:
    """Of these processes: others may have the same port at another address."""
    lines = [line.split() for line in Path(f"/proc/net/{kind}").read_text().splitlines()[1:]]
    files = [path for pid in of for path in Path(f"/proc/{pid}/fd").iterdir() if path.is_symlink()]
    held = {os.readlink(path) for path in files if path.is_symlink()}  # noqa: PTH115
    places = [line[1].split(":") for line in lines if f"socket:[{line[9]}]" in held]
    return [(address, int(port, 16)) for address, port in places]


def test_2_21_the_rendezvous_is_for_members_and_goes_with_its_generation() -> None:
    with Cluster() as here:
        first, second, third = here.train("w0", "w1", "w2")
        before = first.started[0].news.number
        first.line.put(before, "key", b"\x00\xff")
        assert second.line.fetch(before, "key", DEADLINE_S) == b"\x00\xff"
        with pytest.raises(RuntimeError, match="did not come within"):
            second.line.fetch(before, "nothing", 0.1)
        third.drop()
        for worker in (first, second):
            worker.group.severed.wait(DEADLINE_S)
        with pytest.raises(RuntimeError, match="is over"):
            second.line.fetch(before, "nothing", DEADLINE_S)
        for worker in (first, second):
            worker.arrive(1)
        wait(lambda: len(first.started) == 2 and len(second.started) == 2)
        assert here.coordinator._rendezvous.keys == (), "what belonged to the generation before is gone"
        with pytest.raises(RuntimeError):
            second.line.fetch(first.started[1].news.number, "key", 0.1)


def test_2_21_a_group_is_made_over_the_workers_own_lines() -> None:
    from headway.strategies.connect import Limits, connect

    with Cluster() as here:
        workers = here.train("w0", "w1", "w2")
        number = workers[0].started[0].news.number
        groups: dict[int, Any] = {}

        def make(rank: int) -> None:
            groups[rank] = connect(
                workers[rank].line.store(number), rank, 3, address=HOST, limits=Limits(DEADLINE_S, DEADLINE_S)
            )

        make_all = [threading.Thread(target=make, args=(rank,)) for rank in range(3)]
        for thread in make_all:
            thread.start()
        for thread in make_all:
            thread.join(DEADLINE_S)
        reduce_all = [threading.Thread(target=lambda r=r: groups[r].barrier()) for r in range(3)]  # type: ignore[misc]
        for thread in reduce_all:
            thread.start()
        for thread in reduce_all:
            thread.join(DEADLINE_S)
            assert not thread.is_alive()
        for group in groups.values():
            group.close()


@pytest.mark.parametrize("workers", [500, 4000])
def test_scale_a_look_at_thousands_of_workers_takes_time_in_proportion(workers: int) -> None:
    """It was 387 ms for 4,000, ten times a second: each was compared with each."""
    here = Cluster(lanes=workers, max=workers)
    lead = here.coordinator
    left = ExitStack()
    try:
        left.enter_context(frozen(here))  # it would look by itself too, and speak to whom it finds silent
        names = [f"w{i}" for i in range(workers)]
        now = time.monotonic()
        awake = lead._clock.advance(now)
        for name in names:
            lead.membership.workers[name] = membership.Worker(phase=membership.MEMBER, node=name, entered=True)
            lead._peers[name] = Peer(node=name, line=server.Line(lead._server), at=At.STEP)
            lead._peers[name].heard_at = lead._peers[name].understood_at = lead._peers[name].moved_at = awake
        took = []
        for _ in range(5):
            begun = time.thread_time()
            lead._examine(now)
            took.append(time.thread_time() - begun)
        assert min(took) < 20e-6 * workers + 0.01
        assert set(names) == set(lead.membership.workers)
    finally:
        lead._peers.clear()
        left.close()
        here.close()


def test_2_8_a_worker_whose_heart_was_lost_while_it_stood_still_is_not_stopped_for_ever() -> None:
    peer = Peer()
    peer.feel(pulse.Pulse("w0", 1, 0.0, 1, 0, 3, False, True, 0), 1.0)
    beat = {"heard": 0.0, "mark": 1, "at": 3, "waiting": False, "step": 0, "lane_s": 1.0, "ledger": ()}
    peer.take(wire.Beat(number=1, **beat), 1.1)
    assert peer.stopped, "it was on its way before"
    peer.take(wire.Beat(number=2, **beat), 2.5)
    assert not peer.stopped, "only one that runs says something"


def test_whose_pulse_has_come_and_was_not_read_yet_is_not_silent() -> None:
    with Cluster(silence_s=2.0) as here:
        here.train("w0", "w1")
        lead = here.coordinator
        secret = pulse.key(lead.token, "w1")
        with frozen(here), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as late:
            lead._peers["w1"].heard_at -= 100.0
            for number in range(3 * server.PULSES):
                said = pulse.Pulse("w1", 10**6 + number, 0.0, 0, 1, 3, False, False, 0)
                late.sendto(pulse.pulse(said, secret), (HOST, lead.pulse_port))
            lead._server.hear_out()
            assert lead._peers["w1"].heard_at > 0.0
            assert lead._peers["w1"]._pulse == 10**6 + 3 * server.PULSES - 1, "the last of all"


def test_bad_input_a_bundle_of_pulses_is_answered_for_whom_it_is_and_no_other() -> None:
    with Cluster() as here:
        here.train("w0", "w1")
        lead = here.coordinator
        parts = [
            pulse.pulse(pulse.Pulse(name, 10**6, 0.0, 0, 1, 3, False, False, 0), pulse.key(token, name))
            for name, token in (("w0", lead.token), ("w1", "another"), ("nobody", lead.token))
        ]
        before = lead.refused["bad pulse"]
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as hub:
            hub.settimeout(DEADLINE_S)
            hub.sendto(pulse.bundle(7, [*parts, b"", b"x" * 100]), (HOST, lead.pulse_port))
            number, answers = pulse.unbundled(hub.recv(2048))
            assert number == 7
            assert pulse.opened_answer(answers[0], pulse.key(lead.token, "w0")).number == 10**6
            assert answers[1:] == [b""] * 4
            wait(lambda: lead.refused["bad pulse"] == before + 4)
            hub.sendto(pulse.bundle(8, parts)[:-3], (HOST, lead.pulse_port))
            wait(lambda: lead.refused["bad pulse"] == before + 5)


@pytest.mark.parametrize("rounds", range(6))
def test_who_is_let_in_as_all_ends_is_shown_out(rounds: int) -> None:
    """It was accepted in the very round of the loop in which the end begins: it has no protocol yet."""
    with Cluster() as here, ExitStack() as stack:
        loop, stands, goes_on = here.coordinator._loop, threading.Event(), threading.Event()

        def end(left: int) -> None:
            if left:
                loop.call_soon(end, left - 1)
            else:
                loop.create_task(here.coordinator._stop())

        def stand() -> None:
            stands.set()
            goes_on.wait(DEADLINE_S)
            loop.call_soon(end, rounds)

        loop.call_soon_threadsafe(stand)
        assert stands.wait(DEADLINE_S)
        late = [stack.enter_context(socket.create_connection((HOST, here.port), DEADLINE_S)) for _ in range(5)]
        goes_on.set()
        here.coordinator._thread.join(DEADLINE_S)
        here.coordinator.close()
        for each in late:
            with suppress(ConnectionResetError):
                assert each.recv(1) == b""
