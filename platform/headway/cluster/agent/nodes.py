"""Which Ray nodes are on this machine, as its list of processes tells."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

PROC = Path("/proc")
WANTED = ("RAY_AUTH_", "RAY_USE_TLS", "RAY_TLS_", "HOME")


@dataclass(frozen=True)
class RayNode:
    """A Ray node of this machine.

    Args:
        id: Ray's, in hexadecimal digits.
        gcs: HOST:PORT of its cluster's head.
        environment: of it what is needed to speak with that: tokens and certificates. Never shown.
        owner: the user whose process it is; None where it was not found by that.
    """

    id: str
    gcs: str
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    owner: int | None = None


def here(proc: Path = PROC) -> list[RayNode]:
    """All whose raylet runs on this machine, or in this PID namespace, as our user. For root: anybody's, since an agent
    may run as root beside a Ray that does not; what such a process says of itself is only its user's word."""
    return sorted(_raylets(proc), key=lambda node: node.id)


def _raylets(proc: Path) -> Iterator[RayNode]:
    for folder in proc.glob("[0-9]*"):
        with suppress(OSError):  # it ended meanwhile
            words = (folder / "cmdline").read_bytes().decode("utf-8", "replace").split("\0")
            if not words[0].endswith("/raylet"):
                continue
            owner = _owner(folder)
            if owner is None or os.geteuid() not in (0, owner):
                continue
            flags = dict(
                word.removeprefix("--").split("=", 1) for word in words if word.startswith("--") and "=" in word
            )
            node, gcs = flags.get("node_id", ""), flags.get("gcs-address", "")
            if node and gcs:
                yield RayNode(node, gcs, _environment(folder), owner)


def _owner(folder: Path) -> int | None:
    """Whose a process is; None where it has the rights of several. (Who owns its folder is no answer: that is root
    where a process is not to be looked into, which anybody may ask for.)"""
    lines = (folder / "status").read_text(encoding="utf-8", errors="replace").splitlines()
    users = {int(user) for line in lines if line.startswith("Uid:") for user in line.split()[1:]}
    return users.pop() if len(users) == 1 else None


def _environment(folder: Path) -> dict[str, str]:
    """Of a process of ours; nothing of another user's."""
    try:
        said = (folder / "environ").read_bytes().decode("utf-8", "replace").split("\0")
    except OSError:
        return {}
    pairs = (each.split("=", 1) for each in said if "=" in each)
    return {name: value for name, value in pairs if name.startswith(WANTED)}
