"""How Prometheus finds runs: an entry for each process that serves figures, as a file of its file_sd.

    RUNS/.prometheus/NAME.json      [{"targets": ["127.0.0.1:40123"], "labels": {"instance": "NAME", "job": "headway"}}]

Whoever serves holds a lock on its entry. So one whose process was killed is known on its machine, and is cleared away
by whoever looks next.
"""

from __future__ import annotations

import json
import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from headway.locks import taken

FOLDER = ".prometheus"
"""In a folder of runs, or of their working copies."""
LOCK_S = 2.0
HOST = "__meta_headway_host"
"""A label of entries, which Prometheus drops: the machine that serves."""


class Entry:
    """One of this process's."""

    def __init__(self, path: Path, lock: int) -> None:
        self.path, self._lock = path, lock

    def withdraw(self) -> None:
        """Take it away, unless another stands in its place by now."""
        with suppress(OSError):
            if os.fstat(self._lock).st_ino == self.path.stat().st_ino:
                self.path.unlink()
        os.close(self._lock)


def announce(runs: Path, name: str, target: str) -> Entry:
    """Let the process that serves at `target` (host:port) be found, and clear away entries of those that are gone.

    Args:
        runs: the folder of runs.
        name: of the run, or the sweep; the label `instance` of its series, so that a run that is resumed goes on with
            the same ones.

    Raises:
        OSError: the folder cannot be written.
    """
    folder = runs / FOLDER
    folder.mkdir(exist_ok=True)
    with _sole(folder):
        _clear(folder)
        return _announce(folder, name, target)


def clear(runs: Path) -> list[str]:
    """Remove entries of this machine whose process is gone; returns their names. What cannot be removed is left."""
    folder = runs / FOLDER
    try:
        with _sole(folder):
            return _clear(folder)
    except OSError:  # there is none, or it is somebody else's
        return []


@contextmanager
def _sole(folder: Path) -> Iterator[None]:
    """While nobody else of this machine changes entries; they do so in no time. Raises OSError."""
    with (folder / ".lock").open("a") as lock:
        taken(lock, LOCK_S)
        yield


def _announce(folder: Path, name: str, target: str) -> Entry:
    labels = {"instance": name, "job": "headway", HOST: socket.gethostname()}
    descriptor, made = tempfile.mkstemp(prefix=".", dir=folder)
    try:
        taken(descriptor)
        os.write(descriptor, (json.dumps([{"targets": [target], "labels": labels}]) + "\n").encode())
        os.fchmod(descriptor, 0o644)
        path = folder / f"{name}.json"
        Path(made).replace(path)
    except BaseException:  # raised again
        Path(made).unlink(missing_ok=True)
        os.close(descriptor)
        raise
    return Entry(path, descriptor)


def _clear(folder: Path) -> list[str]:
    gone = []
    for path in sorted(folder.glob("[!.]*.json")):
        with suppress(OSError), path.open("rb") as file:
            if _is_here(file.read()) and taken(file.fileno()) and os.fstat(file.fileno()).st_ino == path.stat().st_ino:
                path.unlink()
                gone.append(path.stem)
    return gone


def _is_here(content: bytes) -> bool:
    """Whether an entry is of this machine, or of nobody's: a lock may not reach from machine to machine."""
    try:
        return bool(json.loads(content)[0]["labels"].get(HOST, socket.gethostname()) == socket.gethostname())
    except (ValueError, LookupError, TypeError, AttributeError):
        return True
