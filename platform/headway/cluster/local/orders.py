"""How the host of a local cluster is spoken to: JSON lines over a Unix socket in the cluster's folder, which is 0600.

{"do": "launch", "type": "worker", "option": {...}, "tags": {...}, "once": "..."}
{"machine": {...}}                                    or {"refused": [kind, fact, reason, remedy]}
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from headway.errors import BadInput, HeadwayError, RunFailed

SOCKET, ENDED, FOR_RAY, LOG, TLS = "host.sock", "ended.json", "ray.yaml", "host.log", "tls"
"""In the cluster's folder: the socket, why it ended, what Ray's autoscaler reads, what the host says, certificates."""
MARK = "HEADWAY_CLUSTER_ID"
"""The variable by which a process of a cluster is known."""
ANSWER_S = 60.0
_KINDS: dict[str, type[HeadwayError]] = {"bad input": BadInput, "failed": RunFailed}


class Gone(OSError):
    """There is no host that answers: the cluster has ended, or its host was killed and all ends with it."""


def ask(folder: Path, order: dict[str, Any], within_s: float = ANSWER_S) -> dict[str, Any]:
    """Give the host an order, and wait for the answer.

    Raises:
        Gone: nobody is there, or whoever was there went away.
        TimeoutError: it is there, and has not answered in time.
        HeadwayError: what it was asked for cannot be done, in its words.
    """
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(within_s)
        try:
            with short_path(folder) as path:
                line.connect(path)
            line.sendall(json.dumps(order).encode() + b"\n")
            with line.makefile("rb") as answers:
                answer = answers.readline()
        except TimeoutError:
            raise
        except OSError as error:
            raise Gone(f"the host of {folder.name} does not answer: {error.strerror or error}") from None
    if not answer.endswith(b"\n"):
        raise Gone(f"the host of {folder.name} went away")
    found: dict[str, Any] = json.loads(answer)
    if "refused" in found:
        kind, fact, reason, remedy = found["refused"]
        raise _KINDS.get(kind, RunFailed)(fact, reason, remedy)
    return found


def refusal(error: Exception) -> dict[str, Any]:
    """An answer that raises the same where `ask` was called."""
    if isinstance(error, HeadwayError):
        kind = "bad input" if isinstance(error, BadInput) else "failed"
        return {"refused": [kind, error.fact, error.reason, error.remedy]}
    return {"refused": ["failed", "the host could not do it", f"{type(error).__name__}: {error}", ""]}


def listen(folder: Path) -> socket.socket:
    """A socket in the folder that only this user may speak to. Raises OSError."""
    with suppress(FileNotFoundError):
        (folder / SOCKET).unlink()  # of a host that was killed
    listening = socket.socket(socket.AF_UNIX)
    before = os.umask(0o177)
    try:
        with short_path(folder) as path:
            listening.bind(path)
        listening.listen(64)
    except BaseException:  # raised again
        listening.close()
        raise
    finally:
        os.umask(before)
    return listening


@contextmanager
def short_path(folder: Path) -> Iterator[str]:
    """A name of the socket of any folder: the names of Unix sockets end at 107 characters."""
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{opened}/{SOCKET}"
    finally:
        os.close(opened)
