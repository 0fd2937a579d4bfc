"""A process beside a worker that reads rows for it, ahead of the training; and that process's own side.

What a dataset draws at random comes from generators that belong to the process: a thread that reads beside the training
would change what the training draws. So rows that take long are read in processes, as torch's DataLoader does.
"""

from __future__ import annotations

import ctypes
import os
import pickle
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from headway.data.own import passing
from headway.data.own.making import Key, Making, Part

_PR_SET_PDEATHSIG = 1


class Failed(Exception):
    """The batch could not be made there: it is tried again here, where its error is the user's own."""


class Beside:
    """Such a process. It ends with this one. To be used by one thread at a time."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "headway.data.own.beside", str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=_environment(),
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._in, self._out = self._process.stdin, self._process.stdout

    def open(self, content: bytes, there: dict[str, Any]) -> None:
        """Have it ready; returns when it is.

        Args:
            content: a `Making`, packed.
            there: of torch there, see `setting`.

        Raises:
            OSError, EOFError: the process has ended.
        """
        passing.send(self._in, (sys.path, there))
        passing.send_bytes(self._in, content)
        passing.receive(self._out)

    def ask(self, key: Key) -> Part:
        """A batch.

        Raises:
            Failed: it could not be made there.
            OSError, EOFError: the process has ended.
        """
        passing.send(self._in, key)
        answer = passing.receive(self._out)
        if answer is None:
            raise Failed
        part: Part = answer
        return part

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._in, self._out):
            with suppress(OSError):
                pipe.close()


def setting() -> dict[str, Any]:
    """What the bits of torch's operations hang on, as it is here."""
    import torch

    return {"threads": torch.get_num_threads(), "deterministic": torch.are_deterministic_algorithms_enabled()}


def _environment() -> dict[str, str]:
    ours = str(Path(__file__).parents[3])
    return {**os.environ, "PYTHONPATH": os.pathsep.join([ours, *filter(None, [os.environ.get("PYTHONPATH")])])}


def main() -> None:
    """Make the batches that standard input asks for. Whatever the dataset prints goes to standard error."""
    parent = int(sys.argv[1])
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the worker's, which ends this process when it is done
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    asking = os.fdopen(os.dup(0), "rb")
    with open(os.devnull) as nothing:  # noqa: PTH123
        os.dup2(nothing.fileno(), 0)
    with suppress(EOFError, OSError):
        sys.path[:], there = passing.receive(asking)
        _set(there)
        making: Making = passing.receive(asking)
        passing.send(out, True)
        while True:
            passing.send(out, _made(making, passing.receive(asking)))


def _made(making: Making, key: Key) -> Part | None:
    try:
        return making(key)
    except BaseException:  # tried again by the worker, which tells it
        return None


def _set(there: dict[str, Any]) -> None:
    import torch

    torch.set_num_threads(there["threads"])
    torch.use_deterministic_algorithms(there["deterministic"])


def packed(making: Making) -> bytes:
    """What such a process is handed. Raises whatever cannot be pickled raises."""
    import cloudpickle  # classes of a notebook or a script have no module that another process could import

    content: bytes = cloudpickle.dumps(making, protocol=pickle.HIGHEST_PROTOCOL)
    return content


if __name__ == "__main__":
    main()
