"""What the workers of a peer write down, and the figures that follow from it.

Each process appends lines to a file of its own: `began` (a step, with the numbers of its rows) and `committed` (the
optimizer has stepped). A *group* is one set of workers between two changes. A step that a group committed trained on
every row that a member of that group began it with; so a worker that dies right after the sum is not miscounted.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elastic_peers.workload import GLOBAL_BATCH


class Log:
    """One process's lines. Written by a single system call each, so that a kill leaves whole lines."""

    def __init__(self, folder: str | Path, node: str) -> None:
        # By node too: two machines may each have a process of that number.
        name = f"{node[:8]}-{os.getpid()}.jsonl"
        self._file = os.open(Path(folder) / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._node = node

    def began(self, group: str, size: int, step: int, rows: Sequence[int]) -> None:
        self._write(kind="began", group=group, size=size, step=step, rows=list(rows))

    def committed(self, group: str, size: int, step: int) -> None:
        self._write(kind="committed", group=group, size=size, step=step)

    def _write(self, **line: Any) -> None:
        line = {"time": time.time(), "pid": os.getpid(), "node": self._node, **line}
        os.write(self._file, (json.dumps(line) + "\n").encode())


def read(folder: Path) -> list[dict[str, Any]]:
    """All lines of all processes, by time. A line being written is left for the next look."""
    texts = [path.read_text() for path in folder.glob("*.jsonl")]
    lines = [line for text in texts for line in text.splitlines(keepends=True) if line.endswith("\n")]
    return sorted((json.loads(line) for line in lines), key=lambda line: float(line["time"]))


@dataclass(frozen=True)
class Commit:
    """A step that a group committed."""

    time: float
    group: str
    size: int
    step: int
    rows: frozenset[int]


def commits(lines: Iterable[dict[str, Any]]) -> list[Commit]:
    """Each group's committed steps once, at the time of the first worker to commit it."""
    rows: dict[tuple[str, int], dict[tuple[str, int], list[int]]] = {}
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for line in lines:
        key = (line["group"], line["step"])
        if line["kind"] == "began":
            rows.setdefault(key, {})[line["node"], line["pid"]] = line["rows"]
        else:
            found.setdefault(key, line)
    return [
        Commit(line["time"], line["group"], line["size"], line["step"], frozenset().union(*rows.get(key, {}).values()))
        for key, line in found.items()
    ]


def changed(found: Sequence[Commit], fault_at: float) -> list[Commit]:
    """The commits of groups that formed after the fault."""
    before = {c.group for c in found if c.time <= fault_at}
    return [c for c in found if c.group not in before]


def fresh(found: Sequence[Commit], fault_at: float) -> list[Commit]:
    """Those among them that go beyond what had been committed."""
    after = changed(found, fault_at)
    groups = {c.group for c in after}
    highest = max(c.step for c in found if c.group not in groups)
    return [c for c in after if c.step > highest]


def figures(found: Sequence[Commit], fault: str, fault_at: float) -> dict[str, Any]:
    """Seconds, steps and samples of one fault.

    `resume_s`: from the fault to the first step that had not been committed before it; for a join, how long the
    workers that were there paused. `first_step_s`: to the first step of any number. `samples_missed`: of the rows that
    an undisturbed run trains on in as many steps, those that were not trained on.
    """
    steps: set[int] = set()
    rows: set[int] = set()
    again = {"steps_repeated": 0, "samples_repeated": 0}
    for commit in sorted(found, key=lambda c: c.time):
        if commit.time > fault_at:  # what was repeated while the peer started is not the fault's doing
            again["steps_repeated"] += commit.step in steps
            again["samples_repeated"] += len(commit.rows & rows)
        steps.add(commit.step)
        rows |= commit.rows
    wanted = range(min(steps) * GLOBAL_BATCH, (max(steps) + 1) * GLOBAL_BATCH)
    result = {
        "resume_s": fresh(found, fault_at)[0].time - fault_at,
        "first_step_s": changed(found, fault_at)[0].time - fault_at,
        **again,
        "samples_missed": sum(number not in rows for number in wanted),
        "steps": len(steps),
    }
    if fault == "join":
        result["joined_s"] = result["resume_s"]
        result["resume_s"] = longest_pause(found, fault_at)
    return result


def longest_pause(found: Sequence[Commit], since: float) -> float:
    """The longest time, from the last step before `since` on, in which nothing new was committed."""
    highest, at, longest = -1, 0.0, 0.0
    for commit in sorted(found, key=lambda c: c.time):
        if commit.step > highest:
            if commit.time > since:
                longest = max(longest, commit.time - at)
            highest, at = commit.step, commit.time
    return longest
