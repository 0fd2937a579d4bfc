"""Machines with links that can be cut: a network namespace per node, joined by a bridge in the head's.

Nothing is named outside: a namespace lives as long as the processes in it, and takes its end of the cable along, so
there is nothing to clean up, even after SIGKILL. In every namespace the interface is called eth0, as on a real machine.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

from headway.errors import BadInput

NETWORK = "10.77.0"
START_S = 10.0
_PROBE = "ip link add name hw0 type bridge && ip link add name hw1 type veth peer name hw2"


def cut_possible() -> str | None:
    """None where links can be cut, else the reason why not, in words."""
    missing = [tool for tool in ("ip", "unshare", "nsenter") if shutil.which(tool) is None]
    if missing:
        return f"{' and '.join(missing)} not found (iproute2 and util-linux have them)"
    if os.geteuid() != 0:
        return "network namespaces need root"
    tried = subprocess.run(["unshare", "--net", "sh", "-c", _PROBE], capture_output=True, text=True)
    if tried.returncode:
        return f"network namespaces cannot be made here: {tried.stderr.strip() or 'no reason given'}"
    return None


def require_cut() -> None:
    """Refuse where links cannot be cut.

    Raises:
        BadInput: saying why, and what can be done without.
    """
    reason = cut_possible()
    if reason is not None:
        remedy = "Run as root on Linux with iproute2, or leave out `cut`: kill, stop, drain and add need neither."
        raise BadInput("links between nodes cannot be cut on this machine", reason, remedy)


def inside(pid: int) -> list[str]:
    """What a command line begins with to run in the network of a process."""
    return ["nsenter", f"--net=/proc/{pid}/ns/net", "--"]


def wait_for_namespace(pid: int) -> None:
    """Wait until a process begun by `unshare --net` has a network of its own."""
    ours, deadline = Path("/proc/self/ns/net").readlink(), time.monotonic() + START_S
    while Path(f"/proc/{pid}/ns/net").readlink() == ours:
        if time.monotonic() > deadline:
            raise BadInput(f"process {pid} got no network namespace", f"not within {START_S:.0f} s", "Try again.")
        time.sleep(0.002)


def make_bridge(head: int) -> str:
    """Lay the bridge in the head's namespace; returns the head's address."""
    address = f"{NETWORK}.1"
    ip(
        head,
        "link set lo up",
        "link add name eth0 type bridge forward_delay 0",
        f"address add {address}/24 dev eth0",
        "link set eth0 up",
    )
    return address


def plug_in(head: int, node: int, number: int) -> str:
    """Connect a node's namespace to the bridge; returns its address."""
    address = f"{NETWORK}.{number + 2}"
    ip(head, f"link add name {port(number)} type veth peer name eth0 netns {node}")
    ip(head, f"link set {port(number)} master eth0 up")
    ip(node, "link set lo up", f"address add {address}/24 dev eth0", "link set eth0 up")
    return address


def port(number: int) -> str:
    """The bridge's end of a node's cable."""
    return f"port{number}"


def set_link(head: int, number: int, up: bool) -> None:
    """Take a node's link down, so that packets vanish without a FIN or RST, or up again."""
    ip(head, f"link set {port(number)} {'up' if up else 'down'}")


def ip(pid: int, *orders: str) -> None:
    """Run `ip` orders in the network of a process.

    Raises:
        BadInput: one was refused.
    """
    command = [*inside(pid), "ip", "-batch", "-"]
    done = subprocess.run(command, input="\n".join(orders) + "\n", capture_output=True, text=True)
    if done.returncode:
        raise BadInput("the drill's network cannot be set up", done.stderr.strip(), "See headway.testing.links.")
