"""The Ray job's own process: looks at packages, starts the driver, keeps what it prints, and closes what it left.

It begins with Python's own library alone: on a machine that lacks Headway's packages, it is what says so.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, BinaryIO

from headway.jobs import told
from headway.jobs.spec import FILE, Spec, from_json
from headway.jobs.there import needs
from headway.jobs.there.telling import WAY, Out

BAD_INPUT = 2
PLATFORM_FAILED = 3
LATE_S = 2.0
"""So long the rest of what a driver printed is waited for, after its end: a process of the task's may hold the pipe."""
DRIVER = "headway.jobs.there.driver"
OTHERS = {"doctor": "headway.jobs.there.examine", "queue": "headway.queues.actor"}
"""What is begun, by the kind of submission."""
HERE = "the cluster's head"


def main() -> int:
    """Returns the exit code of the job."""
    out = Out()
    spec = from_json(Path(FILE).read_text(encoding="utf-8"))
    refusal = needs.python_refusal(HERE)
    lacks = needs.lacking(spec.packages)
    if lacks:
        out.tell("lacks", packages=lacks)
        refusal = refusal or needs.refusal(lacks, HERE)
    if refusal is not None:
        out.tell("refused", **refusal)
        return BAD_INPUT
    note = needs.python_note(spec.python)
    if note:
        out.tell("note", text=note)
    return Parent(spec, out).run()


class Parent:
    """The driver's process, as its parent sees it.

    Args:
        spec: of the submission.
        out: where all goes that is told and printed.
    """

    def __init__(self, spec: Spec, out: Out) -> None:
        self._spec, self._out = spec, out
        self._began: dict[str, Any] | None = None
        self._ended: dict[str, Any] | None = None
        self._log: Any = None
        self._kept = False
        self._child: subprocess.Popen[bytes] | None = None

    def run(self) -> int:
        """Follow the driver to its end; returns the exit code of the job."""
        from headway.logs.writer import Writer

        self._log = Writer("driver")
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: self._ask_to_stop())
        hears, tells = os.pipe()
        child = self._child = subprocess.Popen(
            [sys.executable, "-u", "-m", OTHERS.get(self._spec.kind, DRIVER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=[tells],
            env={**os.environ, WAY: str(tells)},
        )
        os.close(tells)
        assert child.stdout is not None
        readers = [
            threading.Thread(target=self._hear, args=(open(hears, "rb"),), name="told", daemon=True),  # noqa: SIM115, PTH123
            threading.Thread(target=self._copy, args=(child.stdout,), name="printed", daemon=True),
        ]
        for reader in readers:
            reader.start()
        code = child.wait()
        for reader in readers:
            reader.join(LATE_S)
        code = int(self._ended.get("exit_code", code)) if self._ended is not None else self._closed(code)
        if not self._log.close() and self._kept:
            self._out.write(b"note: the end of this log could not be kept with the run\n")
        return code

    def _copy(self, output: BinaryIO) -> None:
        """Pass on what the driver prints, line by line as it comes."""
        for line in iter(output.readline, b""):
            self._out.write(line)
            self._log.write(line)

    def _hear(self, pipe: BinaryIO) -> None:
        """Pass on what it tells."""
        with pipe:
            for line in iter(pipe.readline, b""):
                self._out.write_told(line)
                self._heard(line.decode(errors="replace"))

    def _heard(self, line: str) -> None:
        for content in told.read([line]):
            if content["told"] == "began":
                self._began = content
                self._open(content)
            elif content["told"] in ("ended", "refused"):
                self._ended = content

    def _open(self, began: dict[str, Any]) -> None:
        """Keep the driver's log with its run from now on."""
        if began.get("elsewhere"):
            return
        self._kept = True
        self._log.open(began["where"], (began.get("far") or {}).get("options"))

    def _closed(self, code: int) -> int:
        """Say why a driver ended that could say nothing itself, and close its run; returns the exit code."""
        name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        why = f"what leads the run was ended by {name}"
        if code == -signal.SIGKILL:
            why += " (was the memory of the cluster's head full?)"
        if self._began is None or self._began.get("elsewhere"):
            if self._began is None:
                self._left("undo", why)
            remedy = "Its last words are above; submit it again when that is mended."
            self._out.tell("refused", fact=why, reason="before the run began", remedy=remedy, traceback="", exit_code=3)
            return PLATFORM_FAILED
        state = self._left("close", self._began, why) or "failed"
        self._out.tell("ended", state=state, message=why, exit_code=PLATFORM_FAILED)
        return PLATFORM_FAILED

    def _left(self, verb: str, *arguments: Any) -> Any:
        """Do what `headway.jobs.there.leaving` has a verb for; a package that is broken may be why the driver ended."""
        try:
            from headway.jobs.there import leaving

            return getattr(leaving, verb)(self._spec, *arguments)
        except Exception as error:
            self._out.write(f"note: its run could not be closed: {type(error).__name__}: {error}\n".encode())
            return None

    def _ask_to_stop(self) -> None:
        """Not by a signal: Ray's own stop sends one to the driver too, and a second one would end it at once."""
        if self._child is None or self._child.stdin is None:
            return
        try:
            self._child.stdin.write(b"stop\n")
            self._child.stdin.flush()
        except OSError:  # it has ended
            pass


if __name__ == "__main__":
    sys.exit(main())
