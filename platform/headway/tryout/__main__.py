"""The child process. It imports what takes long, is told on standard input what to try, and leaves its answer in files.

Its standard output and error go to a file: the task may do with them what it likes. Whatever ends it, the file `at`
says where the task was, and `said` what was printed.
"""

from __future__ import annotations

import ctypes
import faulthandler
import json
import os
import pickle
import signal
import sys
import traceback
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from headway.durable import replace
from headway.elastic.worker.warm import uncollected
from headway.errors import BadInput
from headway.tryout.trial import ANSWER, AT, FITTED, FITTING, UNFITTED, Ask

NICE = 10
"""Ray starts meanwhile, and is waited for."""
_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Try what standard input names (a pickled `Ask`), in the folder of the first argument."""
    folder, parent = Path(sys.argv[1]), int(sys.argv[2])
    _end_with(parent)
    os.nice(NICE)
    faulthandler.enable()
    with uncollected():
        import torch

        from headway.elastic.worker import dynamo
        from headway.tryout import small

    dynamo.leave_for_later()
    asked = sys.stdin.buffer.read()
    if not asked:
        return
    ask: Ask = pickle.loads(asked)
    if ask.folder is not None:
        os.chdir(ask.folder)
    with open(os.devnull) as nothing:  # noqa: PTH123  as a worker has it
        os.dup2(nothing.fileno(), 0)
    if os.getcwd() not in sys.path:  # noqa: PTH109  Ray's workers find modules there too
        sys.path.append(os.getcwd())  # noqa: PTH109
    torch.set_num_threads(ask.job.workers.cpus)
    me = os.getpid()
    at = os.open(folder / AT, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC)

    def tell(place: str) -> None:
        if os.getpid() == me:
            with suppress(OSError):  # a task that closes what it does not know: then it is not known where it ended
                os.pwrite(at, place.encode()[:200].ljust(200), 0)

    answer = _answer(small, ask, folder, tell)
    if os.getpid() == me:  # not a process that the task forked, and let run on
        part = folder / f"{ANSWER}.part"
        part.write_text(json.dumps(answer), encoding="utf-8")
        part.replace(folder / ANSWER)
    os._exit(0)  # threads and exit handlers of the task's are not waited for


def _answer(small: Any, ask: Ask, folder: Path, tell: Any) -> dict[str, Any]:
    try:
        values = _fitted(ask, folder, tell) if ask.values is None else ask.values
        if not ask.tries:
            return {"notes": []}
        found = small.try_out(ask.job, ask.source, ask.total_steps, folder, tell, values)
        return asdict(found)
    except _Later as later:
        return {"notes": [str(later)]}
    except BadInput as error:
        return {"refused": [error.fact, error.reason, error.remedy], "traceback": error.traceback}
    except BaseException:  # ours: a fault in the trial must not keep a good job from running
        last = traceback.format_exc()
        return {"notes": [f"the task could not be tried out, through a fault of Headway's:\n{last}"]}


class _Later(Exception):
    """The task cannot be tried before it is fitted, which is not for here. Args: that, in words."""


def _fitted(ask: Ask, folder: Path, tell: Any) -> bytes | None:
    """Fit the task, and leave what it gave in a file; None where it has nothing to fit. Raises BadInput: it fails."""
    from headway.carried import code, fitted
    from headway.fitting import work

    kept = fitted.beside(ask.source)
    if kept is not None:
        (folder / UNFITTED).touch()
        return kept
    tell("the task's file")
    found = code.load(ask.source)
    if not work.has_fit(found):
        (folder / UNFITTED).touch()
        return None
    if not ask.fits:
        raise _Later(f"{found.__name__} is tried once {found.__name__}.fit() has run, which it does as the run begins")
    (folder / FITTING).touch()
    values = work.run(ask.job, found, tell=tell)
    if values is not None:
        replace(folder / FITTED, values)
    return values


def _end_with(parent: int) -> None:
    """Have this process killed when its parent ends, however that ends."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)


if __name__ == "__main__":
    main()
