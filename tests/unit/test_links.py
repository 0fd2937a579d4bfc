"""Bad links between bare machines, without Ray: what is to be lost is lost, and nothing else is."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from headway.errors import BadInput
from headway.testing import links
from headway.testing.faults import VERBS
from headway.testing.network import namespace
from headway.testing.network.namespace import inside, wait_for_namespace
from headway.testing.network.switch import HEAD, Switch

CALL = """
import json, socket, sys, time
line = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
line.bind(("", 7))
line.settimeout(5)
line.setsockopt(socket.SOL_SOCKET, 33, 2**23)  # SO_RCVBUFFORCE: what waits for a busy processor is not lost
for order in sys.stdin:
    host, count, every_s, wait_s = json.loads(order)
    if host is None:  # answer whoever calls
        line.settimeout(None)
        while True:
            text, caller = line.recvfrom(2048)
            line.sendto(text, caller)
    sent, came = {}, {}
    end = None
    line.settimeout(0.0005)
    number, due, refused = 0, time.monotonic(), 0
    order_of = []
    while end is None or time.monotonic() < end:
        now = time.monotonic()
        if number < count and now >= due:
            sent[number] = now
            try:
                line.sendto(b"%d" % number + b" " * 200, (host, 7))
            except OSError:
                refused += 1
            number, due = number + 1, due + every_s
            if number == count:
                end = now + wait_s
        try:
            got = int(line.recv(2048))
        except (TimeoutError, OSError):
            continue
        if got in sent and got not in came:
            came[got] = time.monotonic() - sent[got]
            order_of.append(got)
            if len(came) == count:
                break
    late = sorted(came.values())
    swaps = sum(a > b for a, b in zip(order_of, order_of[1:]))
    print(json.dumps({"came": len(came), "half_s": late[len(late) // 2] if late else None, "refused": refused,
                      "least_s": late[0] if late else None, "swaps": swaps}), flush=True)
"""


PATIENCE_S = 20.0
"""For packets that do come."""


class Town:
    """The head and three machines on a switch, each with one process that answers, and one that calls others."""

    def __init__(self, stack: ExitStack) -> None:
        self.switch = Switch()
        stack.callback(self.switch.close)
        self.switch.open()
        self.address: dict[int, str] = {}
        self.pid: dict[int, int] = {}
        for number in (HEAD, 0, 1, 2):
            process = stack.enter_context(
                subprocess.Popen(
                    ["unshare", "--net", sys.executable, "-I", "-S", "-c", CALL], stdin=subprocess.PIPE, text=True
                )
            )
            stack.callback(process.kill)
            wait_for_namespace(process.pid)
            self.pid[number] = process.pid
            self.address[number] = self.switch.plug_in(number, process.pid)
            assert process.stdin is not None
            process.stdin.write("[null, 0, 0, 0]\n")
            process.stdin.flush()

    def call(self, sender: int, receiver: int, count: int = 5, every_s: float = 0.002, wait_s: float = 0.4) -> dict:
        """Send packets that are sent back."""
        order = json.dumps([self.address[receiver], count, every_s, wait_s])
        program = CALL.replace('("", 7)', '("", 0)')
        command = [*inside(self.pid[sender]), sys.executable, "-I", "-S", "-c", program]
        done = subprocess.run(command, input=order, text=True, capture_output=True, check=True, timeout=60)
        return json.loads(done.stdout)

    def reaches(self, sender: int, receiver: int) -> bool:
        """Whether anything comes back within moments, which a busy machine may need longer for."""
        return self.call(sender, receiver)["came"] > 0

    def connects(self, sender: int, receiver: int) -> bool:
        """Whether all that is sent comes back, however long that takes."""
        return self.call(sender, receiver, wait_s=PATIENCE_S)["came"] == 5


@pytest.fixture(scope="module")
def town() -> Iterator[Town]:
    reason = links.cut_possible()
    if reason is not None:
        pytest.skip(f"no networks here: {reason}")
    with ExitStack() as stack:
        town = Town(stack)
        deadline = time.monotonic() + 10
        while not all(town.reaches(0, other) for other in (HEAD, 1, 2)):
            assert time.monotonic() < deadline, "the switch passes nothing on"
        yield town


def needs(verb: str) -> None:
    reason = links.possible(verb)
    if reason is not None:
        pytest.skip(f"`{verb}` cannot be done here: {reason}")


def test_the_heads_link_is_away_and_the_others_reach_each_other(town: Town) -> None:
    town.switch.set_link(HEAD, up=False)
    try:
        assert not town.reaches(0, HEAD)
        assert not town.reaches(HEAD, 1)
        assert town.connects(0, 1)
        assert town.connects(2, 0)
    finally:
        town.switch.set_link(HEAD, up=True)
    assert back(lambda: town.reaches(1, HEAD))


def test_2_7_a_pair_is_parted_while_both_reach_the_head_and_the_third(town: Town) -> None:
    needs("part")
    town.switch.part("p", 0, 1)
    try:
        found = town.call(0, 1)
        assert (found["came"], found["refused"]) == (0, 0)  # silence: the sender is not told
        assert not town.reaches(1, 0)
        assert all(town.connects(*pair) for pair in ((0, HEAD), (1, HEAD), (HEAD, 0), (0, 2), (2, 1)))
    finally:
        town.switch.heal("p")
    assert town.connects(0, 1)


def test_a_link_is_up_one_way_only(town: Town) -> None:
    needs("oneway")
    heard = socket_at(town, HEAD)
    try:
        town.switch.one_way("o", 1, HEAD)
        shout(town, 1, town.address[HEAD])
        assert heard() == b""
        town.switch.heal("o")
        town.switch.one_way("o", HEAD, 1)
        shout(town, 1, town.address[HEAD])  # this way is open
        assert heard() == b"x"
        assert not town.reaches(1, HEAD)  # its answers are lost
        assert town.connects(1, 0)
        town.switch.one_way("all", 1, None)
        assert not town.reaches(1, 0)
        assert town.connects(0, HEAD)
    finally:
        town.switch.heal("o")
        town.switch.heal("all")
        heard.close()
    assert town.connects(1, HEAD)


def test_packets_are_lost_at_the_rate_that_was_asked_for(town: Town) -> None:
    needs("loss")
    town.switch.lose("l", 1, 20)
    try:
        came = town.call(0, 1, count=1500, every_s=0.0004, wait_s=3.0)["came"] / 1500
        assert 0.58 < came < 0.70  # there and back: 0.8 ** 2
        assert town.call(0, 2, count=100, wait_s=PATIENCE_S)["came"] == 100
    finally:
        town.switch.heal("l")
    assert town.call(0, 1, count=100, wait_s=PATIENCE_S)["came"] == 100


def test_packets_are_held_back_each_way(town: Town) -> None:
    needs("delay")
    town.switch.delay(1, 0.05)
    try:
        found = town.call(0, 1, count=60, wait_s=PATIENCE_S)
        assert found["came"] == 60
        assert found["least_s"] >= 0.1
        assert found["swaps"] == 0
        assert bytes_pass(town, 0, 1)
        assert back(lambda: quick(town, 0, 2))
        needs("part")
        town.switch.part("p", 0, 1)  # one fault within another
        assert not town.reaches(0, 1)
        town.switch.heal("p")
    finally:
        town.switch.heal("p")
        town.switch.hurry(1)
    assert back(lambda: town.reaches(0, 1))
    assert back(lambda: quick(town, 0, 1))


def test_packets_overtake_each_other(town: Town) -> None:
    needs("reorder")
    town.switch.delay(1, 0.1, percent=10)  # each way: a fifth of what is asked and answered
    try:
        found = town.call(0, 1, count=200, wait_s=PATIENCE_S)
        assert found["came"] == 200
        assert found["swaps"] > 5
        assert back(lambda: town.call(0, 1, count=50, wait_s=PATIENCE_S)["half_s"] < 0.1), "most pass at once"
        assert bytes_pass(town, 0, 1)
    finally:
        town.switch.hurry(1)


def test_a_link_is_slow(town: Town) -> None:
    needs("rate")
    town.switch.slow(1, 800)  # 100 kB a second, and 0.4 s of queue
    try:
        began = time.monotonic()
        assert bytes_pass(town, 0, 1, 100_000)
        assert time.monotonic() - began > 0.5
    finally:
        town.switch.slow(1, None)
    assert bytes_pass(town, 0, 1)
    for pid in (town.switch.pid, town.pid[1]):
        assert "tbf" not in namespace.run(pid, ["tc", "qdisc", "show"])


def test_a_switch_ends_with_its_owner() -> None:
    if links.cut_possible() is not None:
        pytest.skip("no networks here")
    program = (
        "import sys\nfrom headway.testing.network.switch import Switch\nswitch = Switch()\nswitch.open()\n"
        "print(switch.pid, flush=True)\nsys.stdin.read()"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", program], **pipes) as owner:
        pid = int(owner.stdout.readline())
        assert Path(f"/proc/{pid}").exists()
        owner.kill()
    assert back(lambda: not Path(f"/proc/{pid}").exists())


def test_each_verb_says_why_it_cannot_be_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    unable = set(links.lacking())
    assert {"cut", "blip", "part", "oneway", "loss", "delay", "reorder", "rate"} <= unable
    assert not {"kill", "stop", "freeze", "drain", "add", "hang", "lock", "flip"} & unable
    for verb in unable:
        with pytest.raises(
            BadInput, match=f"`{verb}` cannot be done on this machine: .*These need nothing: kill, stop"
        ):
            links.require(verb)
    links.require("kill")


def test_without_nft_only_what_needs_it_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    found = links.shutil.which
    monkeypatch.setattr(links.shutil, "which", lambda tool: None if tool == "nft" else found(tool))
    if links.cut_possible() is not None:
        pytest.skip("no networks here")
    assert {verb for verb in links.lacking() if VERBS[verb].means == "filter"} == {"part", "oneway", "loss"}
    assert links.possible("loss") == "nft not found (nftables has it)"
    assert links.possible("cut") is None


def quick(town: Town, sender: int, receiver: int) -> bool:
    """Whether a packet comes back before one that was held back could."""
    return town.call(sender, receiver, wait_s=PATIENCE_S)["least_s"] < 0.1


def back(condition: Callable[[], bool]) -> bool:
    """Whether it is so within some seconds."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > deadline:
            return False
    return True


class socket_at:  # noqa: N801
    """What comes to a port of a machine: call it for the next packet, b"" where none comes."""

    def __init__(self, town: Town, number: int) -> None:
        program = (
            "import socket, sys\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\ns.bind(('', 9))\n"
            "print(flush=True)\ns.settimeout(0.4)\n"
            "for line in sys.stdin:\n"
            "    try:\n        print(s.recv(9).decode(), flush=True)\n"
            "    except TimeoutError:\n        print(flush=True)\n"
        )
        command = [*inside(town.pid[number]), sys.executable, "-I", "-S", "-c", program]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.process.stdout.readline()

    def __call__(self) -> bytes:
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip().encode()

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


def shout(town: Town, number: int, address: str) -> None:
    program = "import socket, sys; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', (sys.argv[1], 9))"
    subprocess.run([*inside(town.pid[number]), sys.executable, "-I", "-S", "-c", program, address], check=True)


def bytes_pass(town: Town, sender: int, receiver: int, size: int = 2_000_000) -> bool:
    """Whether TCP carries bytes whole, in segments as large as it likes."""
    take = (
        "import hashlib, socket\ns = socket.create_server(('', 8))\nprint(flush=True)\nc = s.accept()[0]\n"
        "h = hashlib.sha256()\nwhile d := c.recv(65536):\n    h.update(d)\nprint(h.hexdigest())"
    )
    give = (
        "import hashlib, os, socket, sys\nd = os.urandom(int(sys.argv[2]))\n"
        "s = socket.create_connection((sys.argv[1], 8), 10)\ns.sendall(d)\ns.close()\n"
        "print(hashlib.sha256(d).hexdigest())"
    )
    listener = subprocess.Popen(
        [*inside(town.pid[receiver]), sys.executable, "-I", "-S", "-c", take], stdout=subprocess.PIPE, text=True
    )
    with listener:
        assert listener.stdout is not None
        listener.stdout.readline()
        command = [*inside(town.pid[sender]), sys.executable, "-I", "-S", "-c", give, town.address[receiver], str(size)]
        given = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
        return listener.stdout.readline() == given
