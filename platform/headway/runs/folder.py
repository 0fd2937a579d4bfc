"""A run in a folder: what is in it, who may write to it, and how one is found again.

runs/NAME/run.json        state and facts          runs/NAME/checkpoints/  durable state
          job.yaml        the job as it was run    runs/NAME/code/         the task's Python files
          steps.jsonl     a line per step          runs/NAME/spool.jsonl   for the tracking store
          metrics.jsonl   a line per record        runs/NAME/members.json  who trains now
          events.jsonl    generations, recoveries  runs/NAME/leaders/      who led it (see headway.runs.epochs)
          logs/           what workers wrote       runs/NAME/fault-1.txt   of Headway's own, to be sent
          logged/         figures, texts, tables   runs/NAME/logged.jsonl  their index (see headway.logged)

Runs of earlier releases keep their metrics and workers over time in run.json; they are read from there too.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import secrets
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from headway import variables
from headway.durable import last_line, replace, sync_folder
from headway.errors import BadInput, nearest
from headway.locks import taken
from headway.logged import index
from headway.notify import webhook
from headway.runs import epochs
from headway.runs.place import REQUESTS, SWEEP_FACTS
from headway.runs.refusals import Led, NoRun, Taken, no_run_but_a_sweep

if TYPE_CHECKING:
    from headway.job import Job
    from headway.storage.protocol import Storage

GLANCE_S = 0.5
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,120}")
GONE = ".gone-"
"""Begins the names of what is being removed."""
NEW = ".new-"
"""Begins the names of runs that are being made, which takes moments."""


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
    def logs(self) -> Path:
        """What was printed, see `headway.logs`."""
        return self.path / "logs"

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

    def first_facts(self) -> dict[str, Any]:
        """What was said of the run as it was made, while its run.json is not there yet."""
        return {}

    def write(self, facts: dict[str, Any]) -> None:
        """Replace run.json at once. Raises OSError."""
        replace(self.path / "run.json", json.dumps(facts, indent=1))

    def keeper(self) -> dict[str, str]:
        """By what keepers of the run's newest state and its workers know each other: made once, and told to nobody."""
        path = self.path / "keeper.json"
        try:
            found: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
            if {"run", "token"} <= found.keys():
                return found
        except (OSError, ValueError):
            pass  # there is none yet, or it is damaged: keepers of before are not found then
        made = {"run": secrets.token_hex(16), "token": secrets.token_hex(16)}
        replace(path, json.dumps(made), 0o600)
        return made

    def events(self) -> Iterator[dict[str, Any]]:
        """What happened to the membership, in order; a torn line ends them."""
        yield from _lines(self.events_file)

    def cut(self, name: str, last: int) -> None:
        """Drop the lines of steps after `last` from steps.jsonl or metrics.jsonl, and a torn last one.

        Raises:
            OSError: the disk is full or gone; the file is what it was.
        """
        path = self.path / f"{name}.jsonl"
        if not path.exists() or _step(last_line(path)) <= last:
            return
        kept = path.with_suffix(".kept")
        with kept.open("w", encoding="utf-8") as file:
            for line in _lines(path):
                if line["step"] <= last:
                    file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())
        kept.replace(path)
        sync_folder(self.path)

    def last_step(self) -> int:
        """The newest step that was recorded, -1 before the first."""
        return _step(last_line(self.path / "steps.jsonl"))

    def latest_metrics(self) -> dict[str, float]:
        """What was recorded last."""
        line = last_line(self.path / "metrics.jsonl")
        return dict(json.loads(line)["values"]) if line else {}

    def evaluations(self) -> list[dict[str, Any]]:
        """Steps in order, with the numbers that were recorded of each by name, and tables where there are some."""
        found: dict[int, dict[str, Any]] = {}
        for line in (*self.read().get("metrics", []), *_lines(self.path / "metrics.jsonl")):
            step = found.setdefault(line["step"], {"step": line["step"], "values": {}})
            step["values"].update(line["values"])
            if line.get("tables"):
                step.setdefault("tables", {}).update(line["tables"])
        return [found[step] for step in sorted(found)]

    def workers(self) -> list[dict[str, Any]]:
        """Workers over time: from which step on, how many, when."""
        found: list[dict[str, Any]] = []
        for entry in (*self.read().get("workers", []), *(e for e in self.events() if e["kind"] == "workers")):
            entry = {name: entry[name] for name in ("step", "workers", "time")}
            while found and found[-1]["step"] >= entry["step"]:
                found.pop()
            found.append(entry)
        return found

    def measurements(self) -> Iterator[dict[str, Any]]:
        """The lines of metrics.jsonl, in order; a torn line ends them."""
        yield from _lines(self.path / "metrics.jsonl")

    def samples(self) -> str | None:
        """Digest of the sample ids by committed step, up to the newest; None where there is none."""
        try:
            return str(json.loads(last_line(self.path / "steps.jsonl"))["samples"])
        except (ValueError, KeyError, TypeError):
            return None

    def logged(self) -> list[dict[str, Any]]:
        """Figures, texts, tables and files that were logged, by step; see `headway.logged.index.entries`."""
        return index.entries(self.path)

    def steps(self) -> Iterator[dict[str, Any]]:
        """The committed steps that were recorded, in order; a torn line ends them."""
        yield from _lines(self.path / "steps.jsonl")

    def hold_records(self, timeout_s: float = 60.0) -> IO[str]:
        """The right to write the run's records, for as long as the file that is returned stays open.

        After a driver was killed, its recorder lives on for moments; who goes on with the run waits for its end here.
        """
        lock = (self.path / ".records").open("w")
        if taken(lock, timeout_s):
            return lock
        lock.close()
        raise BlockingIOError(errno.EWOULDBLOCK, "another process writes the run's records")

    @contextmanager
    def led(self, say: Callable[[str], None] = lambda _: None) -> Iterator[int]:
        """Lead the run: only one process may at a time. Gives the epoch, by which others know where no lock reaches.

        Args:
            say: takes a line for people, where this takes a while.

        Raises:
            Led: another process does.
        """
        with self._sole():
            yield self._claimed()

    @contextmanager
    def _sole(self) -> Iterator[None]:
        """While this lasts no other process of this machine (or of those that share the folder) leads the run."""
        with (self.path / ".lock").open("w") as lock:
            if not taken(lock, GLANCE_S):  # longer than `is_led` holds it
                remedy = "Wait for its end, or stop that process."
                raise Led(f"run {self.name} is running", f"another process leads it{self._by()}", remedy)
            yield

    def _claimed(self) -> int:
        try:
            return epochs.claim(self.path)
        except OSError as error:
            raise _unwritable(self, error) from None

    def leader(self) -> str:
        """Who leads the run, or led it last, and since when, for people; empty where that is not known."""
        epoch = epochs.newest(self.path)
        who, since = epochs.leader(self.path, epoch), epochs.since(self.path, epoch)
        when = time.strftime(", since %Y-%m-%d %H:%M:%S", time.localtime(since)) if since else ""
        return f"{who}{when}" if who else ""

    def _by(self) -> str:
        return f" ({who})" if (who := self.leader()) else ""

    @property
    def far(self) -> dict[str, Any] | None:
        """Of a run in a store: what another process needs to open it (`url`, `options`)."""
        return None

    @property
    def checkpoint_root(self) -> Path | Storage:
        """Where its checkpoints are."""
        return self.checkpoints

    def counting(self, manifests: list[str]) -> list[str]:
        """Of checkpoints, by the names of their manifests in the run, those that may be gone on from."""
        return manifests

    @contextmanager
    def handed_over(self) -> Iterator[None]:
        """While this lasts another process of ours keeps the run's records."""
        yield

    @property
    def printed(self) -> Storage:
        """What holds `logs/`: the folder, or the store."""
        from headway.storage.folder import FolderStorage

        return FolderStorage(self.path)

    def refresh(self) -> None:
        """Bring what is here up to date, where the run is elsewhere."""

    def discard(self) -> None:
        """Let it be as if the run had not been made; by the process that leads it."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._forget()

    def _forget(self, of_epochs: bool = False) -> None:
        """Take away what was asked of those who led the run: another one of its name begins with the same epochs.
        of_epochs: only that; what a submission is asked that has no run yet stays."""
        asked = self.path.parent / REQUESTS / self.name
        for path in asked.glob("*-epoch-*" if of_epochs else "*"):
            path.unlink(missing_ok=True)
        with suppress(OSError):
            asked.rmdir()
            asked.parent.rmdir()

    @property
    def where(self) -> str:
        """For people: the folder, or the URL."""
        return str(self.path)

    @contextmanager
    def still(self) -> Iterator[Callable[[], None]]:
        """While this lasts nobody leads the run, and nobody of this machine begins to. Gives what raises BadInput where
        somebody did.

        Raises:
            BadInput: a process leads it.
        """
        try:
            lock = (self.path / ".lock").open("a")
        except OSError:  # somebody else's, only read
            lock = (self.path / ("run.json" if not (self.path / ".lock").exists() else ".lock")).open()
        with lock:
            if not taken(lock, kind=fcntl.LOCK_SH):
                raise BadInput(
                    f"run {self.name} is running",
                    f"another process leads it{self._by()}",
                    "Wait for its end, or stop that process.",
                )
            yield lambda: None

    def size(self, checkpoints_only: bool = False) -> int:
        """Bytes on the disk."""
        top = self.checkpoints if checkpoints_only else self.path
        return sum(path.stat().st_size for path in top.rglob("*") if path.is_file() and not path.is_symlink())

    def remove(self, checkpoints_only: bool = False) -> None:
        """Remove the run, or its checkpoints: at once, whoever is killed in the middle.

        Raises:
            BadInput: a process leads it, or it cannot be removed.
        """
        gone = self.path.with_name(f"{GONE}{self.name}-{uuid.uuid4().hex[:8]}")
        try:
            with self.still():
                (self.checkpoints if checkpoints_only else self.path).rename(gone)
            shutil.rmtree(gone)
            if not checkpoints_only:
                self._forget()
        except FileNotFoundError:
            if not checkpoints_only:
                raise
        except OSError as error:
            reason = error.strerror or str(error)
            raise BadInput(f"{self.path} cannot be removed", reason, "Ask its owner, or mend the folder.") from None

    def is_led(self) -> bool:
        """Whether a process leads the run now."""
        path = self.path / ".lock"
        if not path.exists():
            return False
        with path.open() as lock:  # only read: the run may be somebody else's
            return not taken(lock, kind=fcntl.LOCK_SH)


def usable(name: str) -> str:
    """The name, which a run can have. Raises BadInput."""
    if not NAME.fullmatch(name):
        raise BadInput(f"--name {name!r}", "a run's name is letters, digits, '.', '_' and '-'", "Choose another.")
    return name


def is_run(path: Path) -> bool:
    """Whether a run is in that folder; in none whose name no disk can have."""
    return os.path.isfile(path / "run.json")  # noqa: PTH113 - which raises nothing


def create(runs: Path, name: str | None, job: Job, facts: Mapping[str, Any] | None = None) -> RunFolder:
    """Make the folder of a new run: whole, or not at all, whenever this is killed.

    Args:
        facts: further ones of its run.json.

    Raises:
        Taken: the name is.
        BadInput: it is not usable, or the folder cannot be written.
    """
    chosen = usable(name) if name is not None else _free(runs, f"{job.name}-{time.strftime('%Y%m%d-%H%M%S')}")
    folder = RunFolder(runs.resolve() / chosen)
    made = RunFolder(folder.path.with_name(f"{NEW}{chosen}-{uuid.uuid4().hex[:8]}"))
    try:
        runs.mkdir(parents=True, exist_ok=True)
        if os.path.lexists(folder.path):
            raise _taken(folder)
        made.path.mkdir()
    except OSError as error:
        raise BadInput(f"runs cannot be kept in {runs}", str(error), "Give another folder: --runs.") from None
    try:
        folder._forget(of_epochs=True)
        write_job(made, job)
        made.write({"run": chosen, "state": "running", "created": time.time(), **(facts or {})})
        _name(made, folder)
    except BaseException:  # raised again: whatever it was, no run is left that never began
        shutil.rmtree(made.path, ignore_errors=True)
        raise
    return folder


def _name(made: RunFolder, folder: RunFolder) -> None:
    try:
        made.path.rename(folder.path)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):  # somebody else was faster
            raise _taken(folder) from None
        raise _unwritable(folder, error) from None


def _taken(folder: RunFolder) -> Taken:
    reason = "a run of that name is there" if folder.path.is_dir() else "a file is in the way"
    remedy = f"Choose another --name, or go on with it: headway resume {folder.name}"
    return Taken(f"{folder.path} is taken", reason, remedy)


def kept(job: Job) -> Job:
    """The job as it may be written down: without the password of its tracking URI, secrets of its `env`, and addresses
    that are told of it."""
    job = variables.kept(job)
    job = job.model_copy(update={"notify": webhook.kept(job.notify)}) if job.notify else job
    if job.tracking.uri is None:
        return job
    from headway.tracking.store import redact

    return job.model_copy(update={"tracking": job.tracking.model_copy(update={"uri": redact(job.tracking.uri)})})


def write_job(folder: RunFolder, job: Job) -> None:
    """Keep the job as it is run.

    Raises:
        BadInput: the folder cannot be written; what was kept before is there still.
    """
    from headway.job import to_yaml

    try:
        replace(folder.job_file, to_yaml(kept(job)))
    except OSError as error:
        raise _unwritable(folder, error) from None


def find(runs: Path, name: str) -> RunFolder:
    """The run called `name`, which may also be the path of its folder.

    Raises:
        NoRun: there is none; names the nearest.
    """
    for path in (runs / name, Path(name)):
        if is_run(path):
            return RunFolder(path.resolve())
        if os.path.isfile(path / SWEEP_FACTS):  # noqa: PTH113 - as above
            raise no_run_but_a_sweep(path.name)
    known = [run.name for run in every(runs)]
    remedy = nearest(name, known) if known else "Start one with `headway train JOB`."
    raise NoRun(f"no run {name!r} in {runs}", "" if known else "the folder holds no runs", remedy)


def every(runs: Path) -> list[RunFolder]:
    """All runs of a folder, oldest first; a folder whose run.json is damaged is none."""
    found = []
    for path in runs.glob("[!.]*/run.json"):
        run = RunFolder(path.parent.resolve())
        with suppress(BadInput):
            found.append((run.read().get("created", 0.0), run.name, run))
    return [run for *_, run in sorted(found, key=lambda entry: entry[:2])]


def _unwritable(folder: RunFolder, error: OSError) -> BadInput:
    reason = f"{error.strerror or error}; nothing in it was changed"
    return BadInput(f"{folder.path} cannot be written", reason, "Free space or mend the folder, then try again.")


def _step(line: bytes) -> int:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return -1


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    if not path.exists():
        return
    with path.open(encoding="utf-8") as file:
        for line in file:
            try:
                yield json.loads(line)
            except ValueError:
                return


def _free(runs: Path, name: str) -> str:
    candidates = [name, *(f"{name}-{i}" for i in range(2, 1000))]
    return next(c for c in candidates if not (runs / c).exists())
