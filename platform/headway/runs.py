"""Runs on disk: what is in a run's folder, who may write to it, and how one is found again.

runs/NAME/run.json        state and facts          runs/NAME/checkpoints/  durable state
          job.yaml        the job as it was run    runs/NAME/code/         the task's Python files
          steps.jsonl     a line per step          runs/NAME/spool.jsonl   for the tracking store
          events.jsonl    generations, recoveries  runs/NAME/members.json  who trains now
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from headway.errors import BadInput, nearest
from headway.job import Job, to_yaml

GLANCE_S = 0.5


@dataclass(frozen=True)
class RunFolder:
    """One run's folder."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def code(self) -> Path:
        return self.path / "code"

    @property
    def spool(self) -> Path:
        return self.path / "spool.jsonl"

    @property
    def events_file(self) -> Path:
        return self.path / "events.jsonl"

    @property
    def job_file(self) -> Path:
        return self.path / "job.yaml"

    def read(self) -> dict[str, Any]:
        """The facts of run.json."""
        try:
            facts: dict[str, Any] = json.loads((self.path / "run.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise BadInput(f"{self.path} is not a run", f"its run.json cannot be read ({error})", "") from None
        return facts

    def write(self, facts: dict[str, Any]) -> None:
        """Replace run.json at once."""
        temporary = self.path / f".run.json.{os.getpid()}"
        temporary.write_text(json.dumps(facts, indent=1), encoding="utf-8")
        temporary.replace(self.path / "run.json")

    def write_members(self, members: dict[str, Any]) -> None:
        """Replace members.json at once."""
        temporary = self.path / f".members.json.{os.getpid()}"
        temporary.write_text(json.dumps(members), encoding="utf-8")
        temporary.replace(self.path / "members.json")

    def events(self) -> Iterator[dict[str, Any]]:
        """What happened to the membership, in order; a torn line ends them."""
        yield from _lines(self.events_file)

    def open_steps(self, before: int | None = None) -> IO[str]:
        """steps.jsonl for appending; `before` first drops steps from that number on, and a torn last line."""
        path = self.path / "steps.jsonl"
        if before is not None and path.exists():
            kept = path.with_suffix(".kept")
            with kept.open("w", encoding="utf-8") as file:
                for step in self.steps():
                    if step["step"] < before:
                        self.append_step(file, step)
            kept.replace(path)
        return path.open("a", encoding="utf-8")

    @staticmethod
    def append_step(file: IO[str], step: dict[str, Any]) -> None:
        file.write(json.dumps(step) + "\n")

    def steps(self) -> Iterator[dict[str, Any]]:
        """The committed steps that were recorded, in order; a torn line ends them."""
        yield from _lines(self.path / "steps.jsonl")

    def hold_records(self, timeout_s: float = 60.0) -> IO[str]:
        """The right to write the run's records, for as long as the file that is returned stays open.

        After a driver was killed, its recorder lives on for moments; who goes on with the run waits for its end here.
        """
        lock = (self.path / ".records").open("w")
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return lock
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    @contextmanager
    def led(self) -> Iterator[None]:
        """Lead the run: only one process may at a time.

        Raises:
            BadInput: another process does.
        """
        with (self.path / ".lock").open("w") as lock:
            deadline = time.monotonic() + GLANCE_S
            while not _locked(lock, fcntl.LOCK_EX):
                if time.monotonic() > deadline:  # longer than `is_led` holds it
                    remedy = "Wait for its end, or stop that process."
                    raise BadInput(f"run {self.name} is running", "another process leads it", remedy)
                time.sleep(0.01)
            yield

    def is_led(self) -> bool:
        """Whether a process leads the run now."""
        path = self.path / ".lock"
        if not path.exists():
            return False
        with path.open() as lock:  # only read: the run may be somebody else's
            return not _locked(lock, fcntl.LOCK_SH)


def create(runs: Path, name: str | None, job: Job) -> RunFolder:
    """Make the folder of a new run.

    Raises:
        BadInput: the name is taken or not usable, or the folder cannot be written.
    """
    if name is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,120}", name):
        raise BadInput(f"--name {name!r}", "a run's name is letters, digits, '.', '_' and '-'", "Choose another.")
    chosen = name or _free(runs, f"{job.name}-{time.strftime('%Y%m%d-%H%M%S')}")
    folder = RunFolder(runs.resolve() / chosen)
    try:
        runs.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"runs cannot be kept in {runs}", str(error), "Give another folder: --runs.") from None
    try:
        folder.path.mkdir()
    except FileExistsError:
        reason = "a run of that name is there" if folder.path.is_dir() else "a file is in the way"
        remedy = f"Choose another --name, or go on with it: headway resume {chosen}"
        raise BadInput(f"{folder.path} is taken", reason, remedy) from None
    except OSError as error:
        raise BadInput(f"runs cannot be kept in {runs}", str(error), "Give another folder: --runs.") from None
    write_job(folder, job)
    folder.write({"run": chosen, "state": "running", "created": time.time()})
    return folder


def write_job(folder: RunFolder, job: Job) -> None:
    """Keep the job as it is run."""
    folder.job_file.write_text(to_yaml(job), encoding="utf-8")


def find(runs: Path, name: str) -> RunFolder:
    """The run called `name`, which may also be the path of its folder.

    Raises:
        BadInput: there is none; names the nearest.
    """
    for path in (runs / name, Path(name)):
        if (path / "run.json").is_file():
            return RunFolder(path.resolve())
    known = [run.name for run in every(runs)]
    remedy = nearest(name, known) if known else "Start one with `headway train JOB`."
    raise BadInput(f"no run {name!r} in {runs}", "" if known else "the folder holds no runs", remedy)


def every(runs: Path) -> list[RunFolder]:
    """All runs of a folder, oldest first; a folder whose run.json is damaged is none."""
    found = []
    for path in runs.glob("*/run.json"):
        run = RunFolder(path.parent.resolve())
        with suppress(BadInput):
            found.append((run.read().get("created", 0.0), run.name, run))
    return [run for *_, run in sorted(found, key=lambda entry: entry[:2])]


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    if not path.exists():
        return
    with path.open(encoding="utf-8") as file:
        for line in file:
            try:
                yield json.loads(line)
            except ValueError:
                return


def _locked(file: IO[str], kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _free(runs: Path, name: str) -> str:
    candidates = [name, *(f"{name}-{i}" for i in range(2, 1000))]
    return next(c for c in candidates if not (runs / c).exists())
