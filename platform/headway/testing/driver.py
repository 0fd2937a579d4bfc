"""The driver of a drill's run, as a user would start it: a process of its own, which can be killed and resumed."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from headway.errors import BadInput, RunFailed
from headway.job import Job, to_yaml
from headway.report import Report
from headway.report import load as load_report
from headway.runs import RunFolder
from headway.testing.ground import Ground

RUNS = "runs"
LOOK_S = 0.1
STALL_S = 300.0
"""After so long without a step, the run is given up."""


class Driver:
    """`headway train` on the cluster's head, as a process of its own; `headway resume` after it was killed."""

    def __init__(self, cluster: Ground, folder: Path, name: str, job: Job) -> None:
        self.run = RunFolder(folder / RUNS / name)
        self._cluster, self._log = cluster, folder / f"{name}.log"
        self._killed = False
        file = folder / f"{name}.yaml"
        file.write_text(to_yaml(job), encoding="utf-8")
        self._process = self._start("train", file, "--name", name)

    def _start(self, *arguments: str | Path) -> subprocess.Popen[Any]:
        program = [sys.executable, "-m", "headway.cli.app", *arguments]
        where: list[str | Path] = ["--runs", self.run.path.parent, "--address", self._cluster.address, "--json"]
        with self._log.open("a") as log:
            return self._cluster.run(
                [*program, *where], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def kill(self) -> int:
        """SIGKILL; `follow` resumes the run."""
        self._killed = True
        self._process.send_signal(signal.SIGKILL)
        return self._process.pid

    def follow(self, look: Callable[[], None] = lambda: None) -> None:
        """Wait for the run's end, looking around now and then.

        Raises:
            RunFailed: no step was committed for long.
        """
        steps = self.run.path / "steps.jsonl"
        try:
            seen, moved = -1, time.monotonic()
            while True:
                with suppress(subprocess.TimeoutExpired):
                    self._process.wait(LOOK_S)
                    if not self._killed:
                        return
                    self._killed = False
                    self._process = self._start("resume", self.run.path)
                look()
                size = steps.stat().st_size if steps.exists() else -1
                if size != seen:
                    seen, moved = size, time.monotonic()
                elif time.monotonic() - moved > STALL_S:
                    reason = f"no step was committed for {STALL_S:.0f} s"
                    raise RunFailed(f"the drill's run '{self.run.name}' stands still", reason, self._said())
        finally:
            if self._process.poll() is None:
                self._process.kill()
                self._process.wait()

    def report(self) -> Report:
        """What the run came to.

        Raises:
            RunFailed: it never began.
        """
        try:
            return load_report(self.run)
        except BadInput:
            raise RunFailed("the drill's run could not be started", self._said(), "") from None

    def _said(self) -> str:
        lines = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return lines[-1] if lines else "its driver said nothing"
