"""Who leads a run, where locks do not reach: a number made by exclusive creation, in the run's folder.

    runs/NAME/leaders/epoch-000001    made by the first process that led the run; says which

The one of the highest number leads. Whoever sees a higher one than its own stops: it writes no more records, and
commits no checkpoint. (A lock tells sooner; but `flock` does not reach across machines on many shared file systems.)
"""

from __future__ import annotations

import json
import os
import re
import socket
import time
from pathlib import Path

from headway.errors import RunFailed

FOLDER = "leaders"
_NAME = re.compile(r"epoch-(\d{6,})")


class Superseded(RunFailed):
    """Another process leads the run now."""


def claim(run: Path) -> int:
    """Lead the run from now on; returns the epoch, higher than any before.

    Raises:
        OSError: the folder cannot be written.
    """
    folder = run / FOLDER
    folder.mkdir(exist_ok=True)
    who = json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "time": time.time()}).encode()
    while True:
        epoch = newest(run) + 1
        try:
            file = os.open(_path(run, epoch), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        except FileExistsError:  # another process took it between the two calls
            continue
        try:
            os.write(file, who)
            os.fsync(file)
        finally:
            os.close(file)
        return epoch


def note(run: Path, epoch: int) -> None:
    """Keep that this process leads in an epoch that was claimed elsewhere. Raises OSError.

    Whoever claimed it knows that there is none higher: those that are here are of another run, which once had its name.
    """
    folder = run / FOLDER
    folder.mkdir(exist_ok=True)
    for path in list(folder.iterdir()):
        found = _NAME.fullmatch(path.name)
        if found is not None and int(found[1]) > epoch:
            path.unlink(missing_ok=True)
    who = {"host": socket.gethostname(), "pid": os.getpid(), "time": time.time()}
    _path(run, epoch).write_text(json.dumps(who))


def newest(run: Path) -> int:
    """The epoch of whoever leads the run, or led it last; 0 before the first.

    The folder is listed anew each time: shared file systems remember for a while that a name was not there.
    """
    try:
        names = [path.name for path in (run / FOLDER).iterdir()]
    except FileNotFoundError:
        return 0
    return max((int(found[1]) for found in map(_NAME.fullmatch, names) if found), default=0)


def verify(run: Path, epoch: int) -> None:
    """Raises Superseded where a process of a higher epoch leads the run; OSError where that cannot be seen."""
    other = newest(run)
    if other <= epoch:
        return
    who = leader(run, other)
    raise Superseded(
        f"another process leads run {run.name} since then{f' ({who})' if who else ''}",
        f"its epoch is {other}, this one's {epoch}",
        "Follow the run there; nothing of this process is kept any more.",
    )


def leader(run: Path, epoch: int) -> str:
    """The process of an epoch, in words; empty where that is not known."""
    try:
        who = json.loads(_path(run, epoch).read_text())
        return f"process {who['pid']} on {who['host']}"
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def host(run: Path, epoch: int) -> str | None:
    """The machine of that process, by its own name."""
    try:
        return str(json.loads(_path(run, epoch).read_text())["host"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def since(run: Path, epoch: int) -> float | None:
    """When that process began to lead, by its clock."""
    try:
        return float(json.loads(_path(run, epoch).read_text())["time"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _path(run: Path, epoch: int) -> Path:
    return run / FOLDER / f"epoch-{epoch:06d}"
