"""Headway's own child processes (who tries a task, who looks at a dataset, who reads rows), forked from the server of
`headway.testing.forks` instead of started: each would take seconds to import torch.

They are the same modules, with the same pipes, environment and arguments. That they can be started is held by tests of
commands, and by those of a module that do without the fixture `warm_children`.
"""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from collections.abc import Mapping, Sequence
from multiprocessing import reduction
from types import SimpleNamespace
from typing import Any

import pytest

from headway.data.own import beside, describing
from headway.testing.forks import forks
from headway.tryout import trial

PARENT = "its parent"
"""Stands for a process id that is known only there."""


class _Fd:
    """A descriptor on its way to the process."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __reduce__(self) -> Any:
        return _taken, (reduction.DupFd(self.fd),)


def _taken(given: Any) -> int:
    return int(given.detach())


def _become(words: Sequence[str], environment: Mapping[str, str], folder: str, session: bool, *fds: int) -> None:
    """Be `python -P -m words` there."""
    if session:
        os.setsid()
    for number, fd in enumerate(fds):
        os.dup2(fd, number)
        os.close(fd)
    sys.stdin, sys.stdout, sys.stderr = (
        os.fdopen(number, mode, closefd=False) for number, mode in ((0, "r"), (1, "w"), (2, "w"))
    )
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    installed = [entry for entry in sys.path if entry.startswith((sys.prefix, sys.base_prefix))]
    sys.path[:] = [*filter(None, environment.get("PYTHONPATH", "").split(os.pathsep)), *installed]
    sys.argv = [str(os.getppid()) if word == PARENT else word for word in words]
    runpy.run_module(words[0], run_name="__main__", alter_sys=True)


class Popen:
    """What is used here of `subprocess.Popen`; command: python -P -m MODULE ARGUMENTS."""

    def __init__(
        self,
        command: Sequence[str],
        stdin: Any = None,
        stdout: Any = None,
        stderr: Any = None,
        env: Mapping[str, str] | None = None,
        start_new_session: bool = False,
    ) -> None:
        python, *flags = command[:3]
        assert (python, flags) == (sys.executable, ["-P", "-m"])
        words = [PARENT if word == str(os.getpid()) else word for word in command[3:]]
        self.stdin: Any = None
        self.stdout: Any = None
        fds = [0, 1 if stdout is None else stdout, 2 if stderr is None else stderr]
        passed = []
        if stdin == subprocess.PIPE:
            fds[0], here = os.pipe()
            self.stdin = os.fdopen(here, "wb")
            passed.append(fds[0])
        if stdout == subprocess.PIPE:
            here, fds[1] = os.pipe()
            self.stdout = os.fdopen(here, "rb")
            passed.append(fds[1])
        fds = [fd if isinstance(fd, int) else fd.fileno() for fd in fds]
        arguments = (words, dict(os.environ if env is None else env), os.getcwd(), start_new_session)  # noqa: PTH109
        self._process = forks.Process(target=_become, args=(*arguments, *map(_Fd, fds)))
        self._process.start()
        for fd in passed:
            os.close(fd)
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(self._process.name, timeout or 0.0)
        return self.returncode

    def kill(self) -> None:
        self._process.kill()


def _run(command: Sequence[str], input: bytes, env: Mapping[str, str], check: bool) -> Any:
    assert not check
    process = Popen(command, stdin=subprocess.PIPE, env=env)
    process.stdin.write(input)
    process.stdin.close()
    return subprocess.CompletedProcess(command, process.wait())


def fork_children(patch: pytest.MonkeyPatch) -> None:
    """Have them forked until the patch is undone."""
    for module in (beside, describing, trial):
        theirs = SimpleNamespace(**{**vars(subprocess), "Popen": Popen, "run": _run})
        patch.setattr(module, "subprocess", theirs)
