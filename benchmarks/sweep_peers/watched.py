"""Run a command and look on: its wall time, its processes and their memory, Ray's own apart."""

from __future__ import annotations

import os
import re
import subprocess
import time
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headway.cluster.local.processes import kill_below, marked

LOOK_S = 0.5
RAYS_OWN = re.compile(
    r"gcs_server|raylet|dashboard|ray::DashboardAgent|ray::RuntimeEnvAgent|runtime_env|log_monitor|monitor\.py"
    r"|ray_process_reaper|client\.server"
)
"""What any Ray has, whatever runs on it."""


@dataclass
class Seen:
    """What a command took.

    Args:
        wall_s: from its start until nothing of it was left, or it ended.
        code: its exit code.
        output: the end of what it printed.
        processes: at most at once, without Ray's own.
        rays_own: likewise, Ray's own.
        bytes: of memory at most at once: proportional set sizes, all processes.
        kinds: the processes at their most, by kind.
    """

    wall_s: float = 0.0
    code: int | None = None
    output: str = ""
    processes: int = 0
    rays_own: int = 0
    bytes: int = 0
    kinds: dict[str, int] = field(default_factory=dict)

    def figures(self) -> dict[str, Any]:
        """For the results."""
        kept = {"wall_s": round(self.wall_s, 1), "processes": self.processes, "rays_own": self.rays_own}
        return {**kept, "kinds": self.kinds, "memory_mb": round(self.bytes / 1e6)}


def run(command: Sequence[str], folder: Path, env: Mapping[str, str] | None = None, limit_s: float = 3600) -> Seen:
    """Run a command to its end, in a session of its own.

    Args:
        command: and its arguments.
        folder: that it runs in; its output is kept there.
        env: beside this process's.
        limit_s: after which it is ended.

    Raises:
        RuntimeError: it failed, or took too long.
    """
    mark = f"HEADWAY_WATCHED={uuid.uuid4().hex}"
    name, _, value = mark.partition("=")
    output, seen, begun = folder / "output.txt", Seen(), time.monotonic()
    with output.open("ab") as file:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, **(env or {}), name: value},
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            while process.poll() is None:
                _look(seen, mark)
                if time.monotonic() - begun > limit_s:
                    raise RuntimeError(f"{' '.join(command)}: not within {limit_s:g} s")
                time.sleep(LOOK_S)
        finally:
            seen.wall_s = time.monotonic() - begun
            kill_below(process.pid)
            process.wait()
    seen.code, seen.output = process.returncode, output.read_text(errors="replace")
    if seen.code:
        raise RuntimeError(f"{' '.join(command)} ended with {seen.code}:\n{seen.output[-3000:]}")
    return seen


def _look(seen: Seen, mark: str) -> None:
    kinds: Counter[str] = Counter()
    rays_own = size = 0
    for pid in marked(mark):
        try:
            line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            size += _proportional(pid)
        except OSError:  # it has just ended
            continue
        if RAYS_OWN.search(line):
            rays_own += 1
        else:
            kinds[_kind(line)] += 1
    seen.rays_own, seen.bytes = max(seen.rays_own, rays_own), max(seen.bytes, size)
    if kinds.total() > seen.processes:
        seen.processes, seen.kinds = kinds.total(), dict(kinds)


def _proportional(pid: int) -> int:
    """Bytes of a process: what it shares counts by parts."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return 1024 * int(line.split()[1])
    return 0


def _kind(line: str) -> str:
    """ray::Actor.method as ray::Actor; of others the module that they run, or their program."""
    if line.startswith("ray::"):
        return line.split(".")[0].split("(")[0].split(" ")[0]
    if found := re.search(r"-m (\S+)", line):
        return found[1]
    words = line.split()
    return next((Path(word).name for word in words if word.endswith(".py")), Path(words[0]).name if words else "?")
