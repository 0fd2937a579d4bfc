"""What can be done to links on this machine. The network itself is in `headway.testing.network`.

Everything is tried in namespaces of its own, which are gone at once; nothing of the machine's network is touched.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys

from headway.errors import BadInput
from headway.testing.faults import VERBS

_CABLE = "ip link add name hw0 type bridge && ip link add name hw1 type veth peer name hw2"
_CHAIN = "type filter hook forward priority 0; iifname hw1 numgen random mod 9 < 1 drop;"
_FILTER = f"nft 'table bridge hw {{ chain forward {{ {_CHAIN} }}; }}'"
_SHAPE = f"{_CABLE} && tc qdisc add dev hw1 root tbf rate 100kbit burst 3200 latency 400ms"
_FRAMES = f"{sys.executable} -I -S -c 'import socket; socket.socket(17, 3).setsockopt(263, 15, 1)'"
_DISK = "mount -t tmpfs -o size=1m none /tmp"

_MEANS: dict[str, tuple[tuple[str, ...], str]] = {
    "filter": (("nft",), _FILTER),
    "shape": (("tc",), _SHAPE),
    "frames": ((), _FRAMES),
}
"""What a verb needs beside a network of its own: programs, and what must succeed in one."""


def cut_possible() -> str | None:
    """None where links can be cut, else the reason why not, in words."""
    missing = [tool for tool in ("ip", "unshare", "nsenter") if shutil.which(tool) is None]
    if missing:
        return f"{' and '.join(missing)} not found (iproute2 and util-linux have them)"
    if os.geteuid() != 0:
        return "network namespaces need root"
    said = _try("--net", _CABLE)
    return said and f"network namespaces cannot be made here: {said}"


def require_cut() -> None:
    """Refuse where links cannot be cut.

    Raises:
        BadInput: saying why, and what can be done without.
    """
    reason = cut_possible()
    if reason is not None:
        remedy = "Run as root on Linux with iproute2, or leave out `cut`: kill, stop, drain and add need neither."
        raise BadInput("links between nodes cannot be cut on this machine", reason, remedy)


def possible(verb: str) -> str | None:
    """None where a fault of that name can be done on this machine, else the reason why not, in words."""
    means = VERBS[verb].means
    if means == "":
        return None
    if means == "disk":
        return disk_possible()
    return cut_possible() or (None if means in ("cable", "cloud") else _beyond(means))


def lacking() -> tuple[str, ...]:
    """The faults that cannot be done on this machine."""
    return tuple(verb for verb in VERBS if possible(verb) is not None)


def require(verb: str) -> None:
    """Refuse a fault that cannot be done here.

    Raises:
        BadInput: saying why, and what can be done without.
    """
    reason = possible(verb)
    if reason is not None:
        able = ", ".join(verb for verb in VERBS if VERBS[verb].means == "")
        raise BadInput(f"`{verb}` cannot be done on this machine", reason, f"These need nothing: {able}.")


def disk_possible() -> str | None:
    """None where a file system can be mounted, else the reason why not."""
    if os.geteuid() != 0:
        return "mounting a small disk needs root"
    if shutil.which("unshare") is None or shutil.which("mount") is None:
        return "unshare or mount not found (util-linux has them)"
    said = _try("--mount", _DISK)
    return said and f"no file system can be mounted here: {said}"


def _beyond(means: str) -> str | None:
    tools, command = _MEANS[means]
    missing = [tool for tool in tools if shutil.which(tool) is None]
    if missing:
        return f"{missing[0]} not found ({'nftables' if missing == ['nft'] else 'iproute2'} has it)"
    said = _try("--net", command)
    return said and f"the kernel cannot do it: {said}"


def _try(space: str, command: str) -> str | None:
    """None when it succeeds in a namespace of its own, else what was said."""
    return _tried(space, command, os.environ.get("PATH", ""))


@functools.cache
def _tried(space: str, command: str, path: str) -> str | None:
    done = subprocess.run(["unshare", space, "sh", "-c", command], capture_output=True, text=True)
    return None if done.returncode == 0 else (done.stderr.strip().splitlines() or ["no reason given"])[0]
