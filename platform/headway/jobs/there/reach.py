"""What one node of the cluster can reach: tried in a process like a worker's, on that node."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headway.jobs.there import needs


@dataclass(frozen=True)
class Tried:
    """What a node found.

    Args:
        host: its name.
        data: why a dataset cannot be read there, by use; only of those that cannot.
        runs: why the place of the runs cannot be written there; "" where it can.
        lacks: see `headway.jobs.there.needs.lacking`.
    """

    host: str
    data: dict[str, str] = field(default_factory=dict)
    runs: str = ""
    lacks: dict[str, list[str | None]] = field(default_factory=dict)

    @property
    def good(self) -> bool:
        """Whether a worker would find there all that it needs."""
        return not (self.data or self.runs or self.lacks)

    @property
    def why(self) -> str:
        """In words, what is amiss."""
        lacks = [f"{name} {wanted} is not there" for name, (wanted, _) in self.lacks.items()]
        data = [f"data.{use} cannot be read ({reason})" for use, reason in self.data.items()]
        return "; ".join([*lacks, *data, *([f"runs cannot be kept ({self.runs})"] if self.runs else [])])


def reach(
    data: Mapping[str, tuple[str, int | None]],
    options: Any,
    runs: Mapping[str, Any],
    packages: Mapping[str, str],
    mark: str,
    given: Mapping[str, str],
) -> Tried:
    """Try all of it on this machine. Nothing is raised, and nothing is left.

    Args:
        data: folder or URL and version of every dataset, by use.
        options: how they are spoken to.
        runs: `folder`, or `url` and `options`, of the place that holds them.
        packages: that the run needs.
        mark: of this attempt; a file of this name is in `folder` already, made by the driver.
        given: variables that the workers are given.
    """
    os.environ.update(given)
    return Tried(
        socket.gethostname(),
        {use: why for use, (place, version) in data.items() if (why := _unread(place, version, options))},
        _unwritten(runs, mark),
        needs.lacking(packages),
    )


def _unread(place: str, version: int | None, options: Any) -> str:
    from headway.data import manifest as manifests
    from headway.errors import HeadwayError

    try:
        manifests.load(place, version, options)
    except HeadwayError as error:
        return f"{error.fact}: {error.reason}" if error.reason else error.fact
    except Exception as error:  # of whatever library: what counts is that it is not to be had
        return f"{type(error).__name__}: {error}"
    return ""


def _unwritten(runs: Mapping[str, Any], mark: str) -> str:
    from headway.errors import HeadwayError
    from headway.storage.opener import open_storage
    from headway.storage.options import Options

    name = f"{mark}-{os.urandom(8).hex()}"
    try:
        if "folder" in runs:
            return _unshared(Path(runs["folder"]), mark, name)
        storage = open_storage(runs["url"], Options(**runs["options"]))
        storage.put(name, b"tried")
        try:
            return "" if storage.get(name) == b"tried" else "what was written is not what is read"
        finally:
            storage.delete([name])
    except HeadwayError as error:
        return str(error)
    except Exception as error:  # of whatever library: what counts is that it is not to be had
        return f"{type(error).__name__}: {error}"


def _unshared(folder: Path, mark: str, name: str) -> str:
    """Why a folder is not the driver's, or cannot be written. Raises OSError."""
    if not (folder / mark).exists():
        return f"{folder} there is another folder than the driver's, or none: they share no disk"
    try:
        (folder / name).write_bytes(b"tried")
    finally:
        (folder / name).unlink(missing_ok=True)
    return ""
