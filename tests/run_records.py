"""Folders of runs with records of any length and history, as a run that was led would leave them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from headway import runs
from headway.job import parse
from headway.runs import RunFolder

CREATED = 1_790_000_000.0
STEP_S = 0.1
JOB = {
    "name": "digits",
    "task": "/home/ada/secret-project/task.py:Digits",
    "data": {"train": "/home/ada/data/train", "validation": "/home/ada/data/test"},
    "steps": 100,
    "lanes": 4,
    "checkpoint": {"metric": "accuracy", "mode": "max"},
}
TASK = '''"""Digits, by a small net. And more words."""


class Digits:
    def model(self):
        return nn.Sequential()
'''
ENVIRONMENT = {
    "python": "3.11.7",
    "cpus": 2,
    "release": "6.1-ada-kernel",
    "packages": {"torch": "2.13.0", "headway": "0.1.0"},
    "git": {"commit": "ab" * 20, "changed": True},
}
ACCOUNT = {"start": 4.0, "compute": 30.0, "communication": 4.0, "data": 1.0, "repeated": 0.5, "idle": 0.5}


def at(step: int) -> float:
    """Unix seconds at which so many steps were committed."""
    return CREATED + 5.0 + step * STEP_S


def steps(count: int) -> list[dict[str, Any]]:
    return [
        {
            "step": step,
            "epoch": step // 50,
            "loss": 2.0 * math.exp(-step / count * 4),
            "lr": 0.1,
            "rows": 64,
            "time": at(step + 1),
            "samples": "5a" * 32,
        }
        for step in range(count)
    ]


def measured(count: int, every: int = 20) -> list[dict[str, Any]]:
    ends = range(every, count + 1, every)
    return [{"step": s, "time": at(s), "values": {"accuracy": 1 - 1 / (1 + s), "loss": 1 / s}} for s in ends]


def start(step: int = 0, host: str = "ada-desk") -> dict[str, Any]:
    return {"kind": "start", "time": at(step) - 5.0, "by": "", "submission": "", "host": host, "epoch": 1, "step": step}


def generation(number: int, step: int, members: list[str], reason: str) -> list[dict[str, Any]]:
    share = 4 // len(members)
    lanes = [list(range(i * share, (i + 1) * share)) for i in range(len(members))]
    told = {"kind": "generation", "generation": number, "members": members, "workers": len(members), "lanes": lanes}
    size = {"kind": "workers", "step": step, "workers": len(members), "time": at(step)}
    return [size, {**told, "step": step, "reason": reason, "time": at(step)}]


def recovery(cause: str, workers: list[str], step: int, pause_s: float = 0.5, **more: Any) -> dict[str, Any]:
    times = {"time": at(step) + pause_s, "detected_at": at(step), "resumed_at": at(step) + pause_s}
    told = {"kind": "recovery", "cause": cause, "workers": workers, "generation": 2, "step": step, **times}
    return {**told, "silent_s": 0.1, "pause_s": pause_s, "lost_steps": 0, **more}


def under_fire() -> list[dict[str, Any]]:
    """Two workers; one is killed before step 40, and another joins before step 60."""
    return [
        start(),
        *generation(1, 0, ["w0", "w1"], "2 workers are ready"),
        {"kind": "checkpoint", "time": at(20), "step": 20, "bytes": 1000},
        *generation(2, 40, ["w0"], "w1 is gone (process_died)"),
        recovery("process_died", ["w1"], 41),
        *generation(3, 60, ["w0", "w2"], "w2 joined"),
        recovery("joined", ["w2"], 61, 0.1),
        {"kind": "checkpoint", "time": at(80), "step": 80, "bytes": 1000},
        {"kind": "end", "time": at(100), "state": "finished", "message": "", "cause": None, "step": 100},
    ]


def made(
    folder: Path,
    name: str = "digits",
    *,
    count: int = 100,
    events: Iterable[dict[str, Any]] | None = None,
    metrics: list[dict[str, Any]] | None = None,
    job: dict[str, Any] | None = None,
    **facts: Any,
) -> RunFolder:
    """A run that has finished, unless the facts say otherwise."""
    run = runs.create(folder, name, parse(job or JOB))
    lines(run.path / "steps.jsonl", steps(count))
    lines(run.path / "metrics.jsonl", measured(count) if metrics is None else metrics)
    lines(run.path / "events.jsonl", under_fire() if events is None else events)
    accounts = [
        {"time": at(s), "step": s, "seconds": {c: v * s / 100 for c, v in ACCOUNT.items()}} for s in (10, 50, 100)
    ]
    lines(run.path / "ledger.jsonl", accounts)
    run.code.mkdir()
    (run.code / "task.py").write_text(TASK)
    told = {"created": CREATED, "started": CREATED + 1, "ended": at(100), "state": "finished", "total_steps": 100}
    told |= {"steps_per_epoch": 50, "ledger_s": ACCOUNT, "environment": ENVIRONMENT, "digest": "d1" * 32}
    told |= {"datasets": {"train": {"name": "digits/train", "rows": 3200, "version": 1, "digest": "aa" * 32}}}
    run.write({**run.read(), **told, **facts})
    return run


def lines(path: Path, found: Iterable[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in found))
