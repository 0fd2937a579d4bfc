"""Hearts of one node whose pulses go together: all are answered, and none is silent for another's sake."""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Iterator

import pytest

from headway.elastic.wire import pulse
from headway.elastic.worker import neighbours
from headway.elastic.worker.heart import Beating, Page, start_page

HOST, TOKEN, PERIOD_S = "127.0.0.1", "token", 0.5


class Node:
    """Hearts in this process, and a lead that wants few pulses. Time is the test's."""

    def __init__(self) -> None:
        self.lead = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.lead.bind((HOST, 0))
        self.lead.settimeout(5.0)
        self.now = time.monotonic() + 1.0
        self.hearts: dict[str, Beating] = {}
        self.heard: list[tuple[str, ...]] = []
        """Whose pulses came, by datagram."""

    def add(self, *names: str) -> None:
        for name in names:
            told = {"worker": name, "lead": list(self.lead.getsockname()), "address": HOST, "parent": 1}
            key = pulse.key(TOKEN, name).hex()
            self.hearts[name] = heart = Beating.of({**told, "key": key}, Page(start_page()))
            heart.tick(self.now)
            self.answer()
            self.listen(name)
            assert heart.period_s == PERIOD_S

    def answer(self) -> None:
        """One datagram."""
        data, sender = self.lead.recvfrom(2048)
        parts = pulse.unbundled(data)[1] if pulse.is_bundle(data) else [data]
        answers = []
        for part in parts:
            name = pulse.claimed(part)
            secret = pulse.key(TOKEN, name)
            said = pulse.opened(part, secret)
            answers.append(pulse.answer(pulse.Answer(said.number, self.now, PERIOD_S), secret))
        self.heard.append(tuple(pulse.claimed(part) for part in parts))
        bundled = pulse.is_bundle(data)
        self.lead.sendto(pulse.bundle(pulse.unbundled(data)[0], answers) if bundled else answers[0], sender)

    def listen(self, *names: str) -> None:
        """Take what is there."""
        for name in names or self.hearts:
            heart = self.hearts[name]
            heart.take(heart.sources)

    def beat(self, *names: str) -> None:
        """A period passes, and these beat."""
        self.now += PERIOD_S
        for name in names or self.hearts:
            self.hearts[name].beat(self.now)

    def flush(self, name: str) -> None:
        self.listen(name)
        self.hearts[name]._neighbours.flush(self.now + 1.0)

    def leased(self) -> set[str]:
        """Whose newest pulse is answered."""
        return {name for name, heart in self.hearts.items() if heart._page.leased_at == self.now}

    def close(self) -> None:
        for heart in self.hearts.values():
            heart.close()
        self.lead.close()


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> Iterator[Node]:
    made = Node()
    monkeypatch.setattr(time, "monotonic", lambda: made.now)
    yield made
    made.close()


def test_pulses_of_a_node_come_in_one_datagram_and_all_are_answered(node: Node) -> None:
    node.add("w0", "w1", "w2")
    assert node.heard == [("w0",), ("w1",), ("w2",)], "the first is sent alone"
    for _ in range(3):
        node.beat()
        node.flush("w0")
        node.answer()
        node.listen()
        node.listen()
        assert node.heard[-1] == ("w0", "w1", "w2")
        assert node.leased() == {"w0", "w1", "w2"}


def test_more_than_fit_come_in_several(node: Node) -> None:
    names = [f"w{i}" for i in range(pulse.BUNDLED + 3)]
    node.add(*names)
    node.beat()
    node.flush("w0")
    node.answer()
    node.answer()
    node.listen()
    node.listen()
    assert [len(each) for each in node.heard[-2:]] == [pulse.BUNDLED, 3]
    assert node.leased() == set(names)


def test_a_hub_that_is_gone_is_replaced_with_no_pulse_lost(node: Node) -> None:
    node.add("w0", "w1", "w2")
    node.beat()
    node.flush("w0")
    node.answer()
    node.listen()
    node.hearts.pop("w0").close()
    node.beat()
    node.flush("w1")
    node.answer()
    node.listen()
    node.listen()
    assert node.heard[-1] == ("w1", "w2")
    assert node.leased() == {"w1", "w2"}


def test_a_hub_that_stands_still_costs_the_others_one_pulse(node: Node) -> None:
    node.add("w0", "w1", "w2")
    node.beat()
    node.flush("w0")
    node.answer()
    node.listen()
    node.beat("w1", "w2")  # and w0 is stopped
    node.beat("w1", "w2")
    node.answer()
    node.answer()
    node.listen("w1", "w2")
    assert sorted(node.heard[-2:]) == [("w1",), ("w2",)], "round it"
    assert node.leased() == {"w1", "w2"}
    node.now += neighbours.ROUND_S
    node.beat()
    node.flush("w0")
    node.answer()
    node.listen()
    node.listen()
    assert set(node.heard[-1]) == {"w0", "w1", "w2"}, "and by way of it again, later"


def test_bad_input_what_comes_to_a_hub_is_bounded_and_changes_nothing(node: Node) -> None:
    node.add("w0", "w1")
    node.beat("w0")
    draw = random.Random(0)
    hub = node.hearts["w0"]._neighbours
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stranger:
        stranger.setblocking(False)
        stranger.bind(b"")
        for _ in range(500):
            try:
                stranger.sendto(draw.randbytes(draw.randint(0, 300)), hub._name)
            except BlockingIOError:
                node.listen("w0")
        node.listen("w0")
        assert len(hub._held) <= neighbours.HELD
    for bad in (b"", b"HWB1", pulse.bundle(7, [b"x"]), pulse.bundle(1, [b"x" * 100] * 3)):
        assert hub.answered(bad) == []
    assert node.hearts["w0"].period_s == PERIOD_S


def test_bad_input_a_bundle_is_whole_or_none() -> None:
    parts = [b"one", b"", b"x" * 100]
    whole = pulse.bundle(9, parts)
    assert pulse.unbundled(whole) == (9, parts)
    bad = [whole[:at] for at in range(len(whole))] + [whole + b"x", pulse.bundle(1, [b"x"] * (pulse.BUNDLED + 1))]
    for each in bad:
        with pytest.raises(ValueError, match="not a bundle"):
            pulse.unbundled(each)
