"""The parent's side of a trial: a child is started early, told what to try, and its answer waited for late."""

from __future__ import annotations

import json
import math
import os
import pickle
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from headway import plan, variables
from headway.carried import code
from headway.errors import BadInput, RunFailed
from headway.fitting import work
from headway.job import Job

ANSWER, AT, SAID = "answer.json", "at", "said"
FITTING, FITTED, UNFITTED = "fitting", "fitted", "unfitted"
"""Files: that the task's `fit` has begun; what it gave; that the task has none."""
LOOK_S = 0.02
LINES = 30
"""Of what a process that ended by itself had printed last."""


@dataclass(frozen=True)
class Ask:
    """What the child is to try.

    Args:
        job: checked; its datasets' versions are pinned.
        source: of the task, as workers get it.
        total_steps: of the run.
        folder: to be in, as workers are; None: that of the parent.
        values: that the task is fitted to, packed; None: it is not yet.
        fits: whether it is fitted here then.
        tries: whether it is tried at all.
    """

    job: Job
    source: code.Source
    total_steps: int
    folder: Path | None
    values: bytes | None = None
    fits: bool = True
    tries: bool = True


@dataclass(frozen=True)
class Found:
    """What a trial gave.

    Args:
        parameters: trainable elements of the model; None where not known.
        checkpoint_bytes: of one checkpoint, about; None likewise.
        notes: what was not tried, and why.
        together, state_bytes, row_bytes, checkpointed: see `headway.plan.Plan`.
        values: that the task was fitted to now, packed; None: it was not.
    """

    parameters: int | None = None
    checkpoint_bytes: int | None = None
    notes: list[str] = field(default_factory=list)
    values: bytes | None = field(default=None, repr=False)
    together: str | None = None
    state_bytes: int | None = None
    row_bytes: int | None = None
    checkpointed: str | None = None

    def told(self, checked: plan.Plan) -> plan.Plan:
        """The plan with what was found."""
        names = ("parameters", "checkpoint_bytes", "together", "state_bytes", "row_bytes", "checkpointed")
        return replace(checked, **{name: getattr(self, name) for name in names})


@contextmanager
def begun(job: Job) -> Iterator[Trial]:
    """A trial whose child gets ready meanwhile; where the job wants none, one that finds nothing.

    Raises:
        BadInput: a variable of the job's `env` is not set.
    """
    trial = Trial(None, Path(), 0.0) if job.check is None else Trial(*_child(job), job.check.limit_s)
    try:
        yield trial
    finally:
        trial.close()


def _child(job: Job) -> tuple[subprocess.Popen[bytes], Path]:
    """The process, and the folder of its files. Raises BadInput: a variable of the job's `env` is not set."""
    environment = _environment(job)
    folder = Path(tempfile.mkdtemp(prefix="headway-check-"))
    with (folder / SAID).open("wb") as said:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "headway.tryout", str(folder), str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=said,
            stderr=said,
            env=environment,
            start_new_session=True,
        )
    return process, folder


def check(job: Job, space: Path | None = None) -> plan.Plan:
    """All that can be known of a job before it is run, its task tried where the job does not say otherwise.

    Args:
        job: parsed.
        space: folder on the disk that will hold the run; None looks at no disk.

    Raises:
        BadInput: naming the field, or carrying the user's traceback where their code raised.
    """
    with variables.in_force(job), begun(job) as trial:
        checked = plan.check(job)
        trial.ask(plan.pinned(job, checked), checked, fits=work.is_small(checked.datasets))
        found = trial.answer()
    if space is not None and found.checkpoint_bytes is not None:
        plan.check_space(job, found.checkpoint_bytes, space)
    warnings = [*checked.warnings, *found.notes]
    return replace(found.told(checked), warnings=warnings)


class Trial:
    """See `begun`.

    Args:
        process: the child; None: nothing is tried.
        folder: of its files.
        limit_s: seconds that it may take.
    """

    def __init__(self, process: subprocess.Popen[bytes] | None, folder: Path, limit_s: float) -> None:
        self._process, self._folder, self._limit_s = process, folder, limit_s
        self._asked_at = time.monotonic()
        self._paths: tuple[Path, Path] | None = None
        self._task = ""
        self._must_fit = False

    def ask(
        self,
        job: Job,
        checked: plan.Plan,
        copied: Path | None = None,
        inside: bool = False,
        values: bytes | None = None,
        fits: bool = True,
    ) -> None:
        """Say what to try.

        Args:
            job: pinned to the versions of its datasets.
            checked: what it comes to.
            copied: where the task's code was carried to; into a folder of the trial's own where not given.
            inside: workers will begin in that folder.
            values: that the task is fitted to, packed; None: it is not yet.
            fits: whether it is fitted by the child then, also where the job wants nothing tried.

        Raises:
            BadInput: it cannot be carried.
        """
        tries = self._process is not None
        if not tries and (copied is None or values is not None or not fits):
            return
        if copied is None:
            copied = self._folder / "code"
            code.carry(checked.source, copied, checked.cargo)
        self._must_fit = values is None and fits and work.may_have_fit(checked.source, copied)
        if not tries:
            if not self._must_fit:
                return
            (self._process, self._folder), self._limit_s = _child(job), math.inf
        self._task = job.task.rpartition(":")[2]
        source = code.carried(checked.source, copied)
        self._paths = None if checked.origin is None else (copied, checked.origin)
        home = code.home(source, copied)
        ask = Ask(job, source, checked.total_steps, home if inside else None, values, fits, tries)
        self._asked_at = time.monotonic()
        assert self._process is not None
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it could not even begin: told by its answer, which is not there
            self._process.stdin.write(pickle.dumps(ask))
            self._process.stdin.close()

    def answer(self, given_up: Callable[[], bool] = lambda: False) -> Found:
        """Wait for what was found.

        Args:
            given_up: asked now and then; True ends the trial.

        Raises:
            BadInput: the run would fail; carries the user's traceback where their code raised.
        """
        if self._process is None:
            return Found()
        left = self._asked_at + self._limit_s
        try:
            while self._process.poll() is None:
                if given_up():
                    return Found()
                if self._fits():
                    left = time.monotonic() + self._limit_s  # that belongs to the run, and takes as long as it takes
                elif time.monotonic() > left:
                    where = f" in {at}" if (at := self._at()) else ""
                    took = (
                        f"the task was not tried to its end: check.limit_s={self._limit_s:g} seconds were over{where}"
                    )
                    found = Found(notes=[f"{took}; the run starts all the same"])
                    break
                time.sleep(LOOK_S)
            else:
                found = self._read(self._process.returncode)
            if self._must_fit and not ((self._folder / UNFITTED).exists() or (self._folder / FITTED).exists()):
                raise RunFailed(f"task {self._task} could not be fitted", "; ".join(found.notes), "")
            return replace(found, values=self._values())
        finally:
            self.close()

    def close(self) -> None:
        """End the child, and what it started."""
        if self._process is None:
            return
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        if self._process.stdin is not None:
            with suppress(BrokenPipeError):
                self._process.stdin.close()
        self._process = None
        shutil.rmtree(self._folder, ignore_errors=True)

    def _read(self, status: int) -> Found:
        try:
            answer: dict[str, Any] = json.loads((self._folder / ANSWER).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return self._ended(status)
        if "refused" in answer:
            fact, reason, remedy = answer["refused"]
            reason, left = self._own(reason)
            if left:
                remedy = code.left_behind(left)
            error = BadInput(self._own(fact)[0], reason, remedy)
            error.traceback = self._own(answer["traceback"])[0]
            raise error
        notes = [self._own(note)[0] for note in answer["notes"]]
        known = ("parameters", "checkpoint_bytes", "together", "state_bytes", "row_bytes", "checkpointed")
        return Found(notes=notes, **{name: answer.get(name) for name in known})

    def _fits(self) -> bool:
        """Whether the task's `fit` has begun, and not come to its end."""
        return (self._folder / FITTING).exists() and not (self._folder / FITTED).exists()

    def _values(self) -> bytes | None:
        with suppress(FileNotFoundError):
            return (self._folder / FITTED).read_bytes()
        return None

    def _ended(self, status: int) -> Found:
        """The child ended without an answer.

        Raises:
            BadInput: by the task's doing.
        """
        at = self._at()
        name = signal.Signals(-status).name if status < 0 else f"exit code {status}"
        if status == -signal.SIGKILL or not at:
            why = " (was the memory full?)" if status == -signal.SIGKILL else ": " + " ".join(self._said()[-1:])
            where = f" in {at}" if at else ""
            return Found(notes=[f"the task could not be tried: its process was ended by {name}{where}{why}"])
        error = BadInput(
            f"task {self._task} ended its process with {name} in {at}",
            "it would end the workers too",
            "Look at what was called there (its last words are above), or set check: false to start it untried.",
        )
        error.traceback = self._own("\n".join(self._said()))[0]
        raise error

    def _at(self) -> str:
        try:
            return (self._folder / AT).read_text(encoding="utf-8", errors="replace").strip()
        except OSError:
            return ""

    def _said(self) -> list[str]:
        with suppress(OSError):
            return (self._folder / SAID).read_text(encoding="utf-8", errors="replace").splitlines()[-LINES:]
        return []

    def _own(self, text: str) -> tuple[str, list[Path]]:
        """With paths of the user's own files, not of the copies; and those that were not copied."""
        return code.own_paths(text, *self._paths) if self._paths else (text, [])


def _environment(job: Job) -> dict[str, str]:
    """What the workers are given; and where this Headway is, should the child have other means to find it."""
    found = {**os.environ, **variables.given(job)}
    ours = Path(__file__).parents[2]
    if ours.name not in ("site-packages", "dist-packages"):
        found["PYTHONPATH"] = os.pathsep.join([str(ours), *filter(None, [found.get("PYTHONPATH")])])
    return found
