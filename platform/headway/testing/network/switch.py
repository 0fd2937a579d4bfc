"""The switch that joins a drill's machines: a bridge in a namespace of its own, held by a process that does nothing.

The head is plugged in like any other, so its link can fail while the others still reach each other. What is to be lost
is lost in the switch, while it is passed on: a sender's own system would be told (EPERM) by a filter on its way out.
In every machine the interface is called eth0, as on a real one.
"""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Hashable

from headway.errors import BadInput
from headway.testing.network import namespace
from headway.testing.network.forwarder import Forwarder

NETWORK = "10.77.0"
HEAD = -1
"""Its number; nodes count from 0."""

Key = Hashable


def port(number: int) -> str:
    """The switch's end of a machine's cable."""
    return "head" if number == HEAD else f"port{number}"


class Switch:
    """Open it first, close it last; it ends with its owner too."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._machines: dict[int, int] = {}
        self._rules: dict[Key, tuple[str, ...]] = {}
        self._slowed: dict[int, Forwarder] = {}
        self._lock = threading.Lock()

    def open(self) -> None:
        """Lay the bridge."""
        command = ["unshare", "--net", "cat"]  # until its input ends, which it does with the owner
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
        namespace.wait_for_namespace(self.pid)
        namespace.ip(self.pid, "link add name switch type bridge forward_delay 0", "link set switch up")

    @property
    def pid(self) -> int:
        """Of the process that holds the namespace.

        Raises:
            BadInput: the switch is not open.
        """
        if self._process is None:
            raise BadInput("the drill's network is not there", "its switch is not open", "")
        return self._process.pid

    def plug_in(self, number: int, pid: int) -> str:
        """Connect the namespace of a machine's process; returns the machine's address."""
        address = f"{NETWORK}.{number + 2}"
        namespace.ip(self.pid, f"link add name {port(number)} type veth peer name eth0 netns {pid}")
        namespace.ip(self.pid, f"link set {port(number)} master switch up")
        namespace.ip(pid, "link set lo up", f"address add {address}/24 dev eth0", "link set eth0 up")
        self._machines[number] = pid
        return address

    def set_link(self, number: int, up: bool) -> None:
        """Take a machine's link down, so that packets vanish without a FIN or RST, or up again."""
        namespace.ip(self.pid, f"link set {port(number)} {'up' if up else 'down'}")

    # What is lost on the way. Each under a key, and undone by `heal`.

    def lose(self, key: Key, number: int, percent: float) -> None:
        """Lose that share of the packets to and from a machine, at random."""
        chance = f"numgen random mod 10000 < {round(percent * 100)} drop"
        self._lay(key, f"iifname {_ends(number)} {chance}", f"oifname {_ends(number)} {chance}")

    def one_way(self, key: Key, sender: int | None, receiver: int | None) -> None:
        """Lose whatever goes from one machine to the other; None: from or to any."""
        ends = [f"iifname {_ends(sender)}"] if sender is not None else []
        ends += [f"oifname {_ends(receiver)}"] if receiver is not None else []
        self._lay(key, f"{' '.join(ends)} drop")

    def part(self, key: Key, *numbers: int) -> None:
        """Let none of these machines reach another of them; all reach the rest."""
        ends = "{ " + ", ".join(_ends(number).strip("{} ") for number in numbers) + " }"
        self._lay(key, f"iifname {ends} oifname {ends} drop")

    def heal(self, key: Key) -> None:
        """Lose nothing more for what is known by that key."""
        with self._lock:
            if self._rules.pop(key, None) is not None:
                self._write()

    # What is slow on the way.

    def delay(self, number: int, by_s: float, percent: float = 100.0) -> None:
        """Hold back the packets to and from a machine for so long each way, or only a share, which others overtake.

        Packets on their way in the moment in which it begins or ends are lost.
        """
        with self._lock:
            self._straighten(number)
            near, far = _detour(number), f"wire-{port(number)}"
            namespace.ip(
                self.pid,
                f"link add name {near} type veth peer name {far}",
                f"link set {far} up",
                f"link set {near} master switch up",
            )
            try:
                self._slowed[number] = Forwarder(self.pid, port(number), far, by_s, percent)
            except BaseException:  # raised again: no half-laid detour stays
                namespace.ip(self.pid, f"link del {near}")
                raise
            namespace.ip(self.pid, f"link set {port(number)} nomaster")

    def hurry(self, number: int) -> None:
        """Hold no packet of a machine back any more."""
        with self._lock:
            self._straighten(number)

    def slow(self, number: int, kbit: float | None) -> None:
        """Let no more than so many kilobits a second to and from a machine; None: as many as can be."""
        burst = max(3200, round((kbit or 0) * 1000 / 8 / 50))  # bytes of 20 ms, and at least two packets
        shape = f"tbf rate {kbit}kbit burst {burst} latency 400ms".split() if kbit else []
        for pid, device in ((self.pid, port(number)), (self._machines[number], "eth0")):
            namespace.run(pid, ["tc", "qdisc", "replace" if kbit else "del", "dev", device, "root", *shape])

    def close(self) -> None:
        """Take everything down."""
        for forwarder in self._slowed.values():
            forwarder.close()
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def _straighten(self, number: int) -> None:
        forwarder = self._slowed.pop(number, None)
        if forwarder is not None:
            forwarder.close()
            namespace.ip(self.pid, f"link del {_detour(number)}", f"link set {port(number)} master switch")

    def _lay(self, key: Key, *rules: str) -> None:
        with self._lock:
            self._rules[key] = rules
            try:
                self._write()
            except BaseException:  # raised again: the rules are what they were
                del self._rules[key]
                raise

    def _write(self) -> None:
        """All rules at once. Only IP is lost: without answers to ARP a sender would be told that nobody is there."""
        rules = "\n".join(f"meta protocol ip {rule}" for rules in self._rules.values() for rule in rules)
        chain = f"chain forward {{ type filter hook forward priority 0; policy accept;\n{rules}\n}}"
        text = f"table bridge drill {{ }}\ndelete table bridge drill\ntable bridge drill {{\n{chain}\n}}\n"
        namespace.run(self.pid, ["nft", "-f", "-"], text)


def _ends(number: int) -> str:
    """The names under which packets of a machine come in and go out; the second while they are held back."""
    return f'{{ "{port(number)}", "{_detour(number)}" }}'


def _detour(number: int) -> str:
    return f"slow-{port(number)}"
