"""One procedure for every peer: start it, let it train, do it harm at a random step, watch until it trains again."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from elastic_peers import records

BENCHMARKS = Path(__file__).parent.parent
FAULTS = ("worker killed", "node killed", "join", "stopped", "link cut")
OURS = (
    "last worker killed",
    "all workers killed",
    "last worker killed with spare",
    "worker killed with spare",
    "link one way",
    "pair parted",
    "all links away",
    "head away",
)
"""Faults that only our own cluster brings about, or that no peer goes on after by itself; no peer is measured."""
LIMIT_S = {"stopped": 60.0}
OTHER_LIMIT_S = 120.0
STEPS_AFTER = 40
START_S = 180.0


class Peer(Protocol):
    """A peer that trains; its workers write into the folder it was given (see `records`)."""

    def add_nodes(self, count: int) -> None:
        """Start nodes of one worker each, together."""

    def kill_node(self, node: str) -> None:
        """End a node and what runs on it, as a power cut would."""

    def cut_node(self, node: str) -> None:
        """Cut a node's link; only where links can be cut."""

    def close(self) -> None:
        """End everything that was started."""


def measured(
    start: Callable[[Path, int, int], Peer], fault: str, repeats: int, parameters: int, seed: int, **settings: Any
) -> dict[str, Any]:
    """Measure a fault `repeats` times, each in a run of its own.

    Args:
        start: given a folder for the records, the number of parameters and a seed, starts the peer without nodes.
        settings: what the peer was set to; kept beside the figures.
    """
    found = []
    for repeat in range(repeats):
        with tempfile.TemporaryDirectory(prefix="peer-") as folder:
            peer = start(Path(folder), parameters, seed + repeat)
            try:
                found.append(once(peer, Path(folder), fault, random.Random(f"{fault} {seed} {repeat}")))
            finally:
                peer.close()
        print(f"    {fault} {repeat + 1}/{repeats}: {found[-1]}", flush=True)
    return {"settings": settings, "repeats": found}


def unmeasured(reason: str) -> dict[str, Any]:
    return {"repeats": None, "reason": reason}


def load() -> float:
    """How busy the machine is: processes that run or want to, over the last minute."""
    return round(os.getloadavg()[0], 1)


def once(peer: Peer, folder: Path, fault: str, chance: random.Random) -> dict[str, Any]:
    """One run and one fault, somewhere between two checkpoints."""
    nodes = 1 if fault == "join" else 2
    peer.add_nodes(nodes)
    step = chance.randrange(41, 60)
    lines = _until(folder, lambda lines: _reached(lines, nodes, step), START_S)
    if not _reached(lines, nodes, step):
        return {"failed": f"{nodes} workers did not reach step {step} within {START_S:.0f} s", "said": _said(folder)}
    time.sleep(chance.uniform(0, 0.05))  # anywhere in a step
    members = {line["pid"]: line["node"] for line in lines if line["group"] == lines[-1]["group"]}
    victim = chance.choice(sorted(members))
    busy, fault_at = load(), time.time()
    if fault == "worker killed":
        os.kill(victim, signal.SIGKILL)
    elif fault == "stopped":
        os.kill(victim, signal.SIGSTOP)
    elif fault == "node killed":
        peer.kill_node(members[victim])
    elif fault == "link cut":
        peer.cut_node(members[victim])
    elif fault == "join":
        peer.add_nodes(1)
    limit = LIMIT_S.get(fault, OTHER_LIMIT_S)
    try:
        lines = _until(folder, lambda lines: _gone_on(lines, fault, fault_at), limit)
    finally:
        if fault == "stopped":
            _end(victim)
    if not records.fresh(records.commits(lines), fault_at):
        return {"failed": f"did not resume within {limit:.0f} s", "said": _said(folder)}
    return {**records.figures(records.commits(lines), fault, fault_at), "load": busy}


def python_path() -> str:
    """PYTHONPATH with which a process can import the peers."""
    return os.pathsep.join([str(BENCHMARKS), *filter(None, [os.environ.get("PYTHONPATH")])])


def spawn(command: list[str], folder: Path) -> subprocess.Popen[bytes]:
    """Start a process that can import the peers; what it prints goes to output.txt in the folder."""
    env = {**os.environ, "PYTHONPATH": python_path(), "OMP_NUM_THREADS": "1"}
    with (folder / "output.txt").open("ab") as output:
        return subprocess.Popen(command, env=env, cwd=folder, stdout=output, stderr=output)


def _said(folder: Path) -> list[str]:
    output = folder / "output.txt"
    return output.read_text(errors="replace").splitlines()[-10:] if output.exists() else []


def _until(folder: Path, condition: Callable[[list[dict[str, Any]]], bool], limit_s: float) -> list[dict[str, Any]]:
    deadline = time.monotonic() + limit_s
    while True:
        lines = records.read(folder)
        if condition(lines) or time.monotonic() > deadline:
            return lines
        time.sleep(0.1)


def _reached(lines: list[dict[str, Any]], nodes: int, step: int) -> bool:
    found = records.commits(lines)
    return bool(found) and found[-1].size == nodes and max(c.step for c in found) >= step


def _gone_on(lines: list[dict[str, Any]], fault: str, fault_at: float) -> bool:
    found = records.fresh(records.commits(lines), fault_at)
    if fault == "join":
        found = [c for c in found if c.size == 2]
    return len({c.step for c in found}) >= STEPS_AFTER


def _end(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
