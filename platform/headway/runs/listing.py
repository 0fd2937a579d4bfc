"""All runs of a place at a glance: a line each, from the little that tells it."""

from __future__ import annotations

import json
import math
import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from headway.core.lease import LENGTH_S
from headway.durable import last_line
from headway.errors import BadInput
from headway.runs import epochs, now
from headway.runs.folder import RunFolder
from headway.runs.now import Now
from headway.runs.place import SWEEP, SWEEP_FACTS

METRICS_BYTES = 64 << 10
"""The end of metrics.jsonl that is looked at: names that were recorded only before it are not in a listing."""
LIVES_S = 2 * LENGTH_S
"""A run that was heard of since then is shown as running; by two machines' clocks, for people only."""
ALONE_S = 600.0
"""As a job's `checkpoint.fail_after` is by default."""
GONE = "the process that led the run is gone"


@dataclass(frozen=True)
class Brief:
    """A run in a line. What is None, or empty, is not known; releases of before did not tell all of it.

    Args:
        run: its name.
        state: running, finished, stopped, interrupted or failed; see `headway.core.ends`.
        message: why, where the state needs a reason.
        steps: committed.
        total_steps: that the job asks for.
        loss: of the newest step.
        metrics: the latest numbers by name.
        path: its folder or URL.
        created: Unix seconds.
        last: Unix seconds of the last that is known of it.
        unclosed: its own records say that it is running; it is called interrupted since nobody seems to lead it.
        unheard: of such a one, that nobody of it was heard since `last`; that is all that is known.
        cause: task or platform, of one that failed.
        by: who submitted it last, and `submission` is Ray's id of that.
        started: Unix seconds, when it was started last.
        workers: that train now; least, most: that are asked for, and request: by whose word, where it was somebody's.
        goodput: share of worker-seconds that ended in committed steps.
        recoveries: how often it went on after a loss.
        steps_per_s: lately.
        waits: why nobody trains now.
        since: Unix seconds, since when it waits, or trains, or has been at its end.
        trouble: what goes wrong while it trains on.
        lately: the newest that happened, oldest first: Unix seconds, and words.
        checkpoint: step of the newest one; checkpoint_at: Unix seconds, when it was written.
        alone_s: so long its leader goes on without reaching its place; infinite for ever.
        kind: run; or sweep, whose steps are trials that are over, and whose metrics the best of its metric.
        sweep: that it is a trial of.
        unsent: it ended, and the tracking store was not told of all of it by then.
    """

    run: str
    state: str
    message: str
    steps: int
    total_steps: int | None
    loss: float | None
    metrics: dict[str, float]
    path: str
    created: float
    last: float
    unclosed: bool = False
    unheard: bool = False
    cause: str = ""
    by: str = ""
    submission: str = ""
    started: float | None = None
    workers: int | None = None
    least: int | None = None
    most: int | None = None
    request: str = ""
    goodput: float | None = None
    recoveries: int | None = None
    steps_per_s: float | None = None
    waits: str = ""
    since: float | None = None
    trouble: str = ""
    lately: tuple[tuple[float, str], ...] = ()
    checkpoint: int | None = None
    checkpoint_at: float | None = None
    alone_s: float = ALONE_S
    kind: str = "run"
    sweep: str = ""
    unsent: bool = False

    @classmethod
    def of(cls, run: str, path: str, told: Mapping[str, Any], last: float = 0.0) -> Brief:
        """From what a run told of itself.

        Args:
            told: see `told`; it may come from another release, or be damaged.
            last: when that was, where it does not say so.

        Raises:
            ValueError, TypeError, AttributeError: it is damaged.
        """
        if told.get("kind") == SWEEP:
            told = _of_sweep(told)

        def number(name: str) -> float | None:
            return None if told.get(name) is None else float(told[name])

        def count(name: str) -> int | None:
            return None if told.get(name) is None else int(told[name])

        def text(name: str) -> str:
            return str(told.get(name) or "")

        return cls(
            run=run,
            state=text("state") or "running",
            message=text("message"),
            steps=count("steps") or 0,
            total_steps=count("total_steps"),
            loss=number("loss"),
            metrics={str(name): float(value) for name, value in told.get("metrics", {}).items()},
            path=path,
            created=number("created") or 0.0,
            last=float(told.get("last", last)),
            cause=text("cause"),
            by=text("by"),
            submission=text("submission"),
            started=number("started"),
            workers=count("workers"),
            least=count("least"),
            most=count("most"),
            request=text("request"),
            goodput=number("goodput"),
            recoveries=count("recoveries"),
            steps_per_s=number("steps_per_s"),
            waits=text("waits"),
            since=number("since"),
            trouble=text("trouble"),
            lately=tuple((float(at), str(said)) for at, said in told.get("lately", ())),
            checkpoint=count("checkpoint"),
            checkpoint_at=number("checkpoint_at"),
            alone_s=ALONE_S
            if "alone_s" not in told
            else math.inf
            if told["alone_s"] is None
            else float(told["alone_s"]),
            kind=text("kind") or "run",
            sweep=text("sweep"),
            unsent=bool(told.get("unsent")),
        )

    @property
    def left_s(self) -> float | None:
        """Seconds that the steps left will take, as it looks."""
        if self.state != "running" or self.waits or not self.steps_per_s or self.total_steps is None:
            return None
        return max(0, self.total_steps - self.steps) / self.steps_per_s


def in_folder(folder: Path) -> list[Brief]:
    """The runs and sweeps of a folder, oldest first; what is damaged is none."""
    folder = folder.resolve()
    try:
        names = sorted(entry.name for entry in os.scandir(folder) if not entry.name.startswith("."))
    except OSError:
        return []
    found = []
    for name in names:
        with suppress(BadInput):
            of = of_sweep if (folder / name / SWEEP_FACTS).is_file() else of_folder
            found.append(of(RunFolder(folder / name)))
    return sorted(found, key=lambda brief: (brief.created, brief.run))


def of_folder(run: RunFolder) -> Brief:
    """One of them. Raises BadInput where it is no run."""
    return _brief(run, told(run))


def of_sweep(sweep: RunFolder) -> Brief:
    """One of them that is a sweep. Raises BadInput where it is none."""
    try:
        facts = json.loads((sweep.path / SWEEP_FACTS).read_text(encoding="utf-8"))
        last = facts.get("ended") or (sweep.path / SWEEP_FACTS).stat().st_mtime
        return _brief(sweep, {**facts, "kind": SWEEP, "last": last})
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise BadInput(f"{sweep.path} is no sweep", f"its {SWEEP_FACTS} is damaged ({error})", "") from None


def _brief(run: RunFolder, found: Mapping[str, Any]) -> Brief:
    try:
        brief = Brief.of(run.name, run.where, found)
    except (ValueError, TypeError, AttributeError) as error:
        raise BadInput(f"{run.path} is no run", f"what it says of itself is damaged ({error})", "") from None
    if brief.state != "running" or run.is_led():
        return brief
    if epochs.host(run.path, epochs.newest(run.path)) in (None, socket.gethostname()):
        return replace(brief, state="interrupted", message=GONE, unclosed=True)
    silent = abs(time.time() - brief.last) >= LIVES_S  # its lock may not reach this machine
    return replace(brief, state="interrupted", message=GONE, unclosed=True, unheard=True) if silent else brief


def told(run: RunFolder) -> dict[str, Any]:
    """What the run's own files say. Raises BadInput where it is no run."""
    facts = run.read()
    target = facts.get("target") or {}
    last = _parsed(last_line(run.path / "steps.jsonl"))
    state, submission = facts.get("state", "running"), facts.get("submission") or {}
    ended = facts.get("ended") if state != "running" else None
    said = now.read(run.path) if state == "running" else None
    found = {
        "state": state,
        "message": facts.get("message", ""),
        "cause": facts.get("cause") or "",
        "steps": int(last.get("step", -1)) + 1,
        "total_steps": facts.get("total_steps"),
        "loss": last.get("loss"),
        "metrics": metrics_of(run.path, facts),
        "created": facts.get("created", 0.0),
        "started": facts.get("started"),
        "since": ended or facts.get("started"),
        "last": ended or (run.path / "run.json").stat().st_mtime,
        "goodput": facts.get("goodput"),
        "recoveries": facts.get("recoveries"),
        "least": target.get("min"),
        "most": target.get("max"),
        "request": target.get("request", ""),
        "by": submission.get("by", ""),
        "submission": submission.get("id", ""),
        "checkpoint": (facts.get("checkpoint") or {}).get("step"),
        "lately": facts.get("lately") or (),
        "alone_s": facts.get("fail_after", ALONE_S),
        "checkpoint_at": (facts.get("checkpoint") or {}).get("time"),
        "sweep": (facts.get("sweep") or {}).get("name", ""),
        "unsent": state != "running" and run.spool.exists() and _unsent(facts.get("tracking")),
    }
    return found if said is None else {**found, **_of_now(said, found)}


def _unsent(tracking: Mapping[str, Any] | None) -> bool:
    """What its leader noted of the tracking store at its end; nothing, where it was killed before that."""
    if tracking is None:
        return True
    return not tracking.get("whole", not (tracking.get("waiting") or tracking.get("error")))


def _of_sweep(facts: Mapping[str, Any]) -> dict[str, Any]:
    """What a sweep's sweep.json says, as a run would."""
    best = facts.get("best") or {}
    value, metric = best.get("value"), str(facts.get("metric") or "")
    named = ("state", "message", "cause", "created", "started", "last", "by", "submission")
    return {
        **{name: facts[name] for name in named if name in facts},
        "kind": SWEEP,
        "steps": facts.get("over"),
        "total_steps": facts.get("trials"),
        "metrics": {metric: value} if value is not None else {},
        "since": facts.get("ended") or facts.get("started"),
    }


def _of_now(said: Now, found: dict[str, Any]) -> dict[str, Any]:
    """What a run that is led says of itself."""
    own = {name: getattr(said, name) for name in ("workers", "steps_per_s", "waits", "trouble", "lately")}
    goodput = said.goodput if said.goodput is not None else found["goodput"]
    return {**own, "goodput": goodput, "since": said.since or found["since"], "last": max(said.at, found["last"])}


def metrics_of(folder: Path, facts: dict[str, Any]) -> dict[str, float]:
    """The latest numbers by name; earlier releases kept them with the facts."""
    found: dict[str, float] = {}
    for line in (*facts.get("metrics", []), *_ends(folder / "metrics.jsonl")):
        found.update(line["values"])
    return found


def _ends(path: Path) -> Iterator[dict[str, Any]]:
    """The last whole lines of a file."""
    try:
        with path.open("rb") as file:
            begin = max(0, os.fstat(file.fileno()).st_size - METRICS_BYTES)
            file.seek(begin)
            lines = file.read().split(b"\n")[1 if begin else 0 : -1]
    except FileNotFoundError:
        return
    for line in lines:
        found = _parsed(line)
        if not found:
            return
        yield found


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
