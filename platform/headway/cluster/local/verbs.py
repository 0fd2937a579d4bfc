"""What `headway cluster` does with a cluster of this machine: the host does it, and is asked for it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from headway.cluster import known as kept
from headway.cluster.file import ClusterFile
from headway.cluster.known import Known, StillThere
from headway.cluster.local import orders
from headway.cluster.local.orders import ENDED, LOG, MARK
from headway.cluster.local.owner import START_S
from headway.cluster.local.processes import marked
from headway.cluster.shown import Down, Node, Status
from headway.errors import BadInput, RunFailed

Say = Callable[[str], None]
GONE_S = 10.0
"""So long processes that have been killed may take to be gone."""
END_S = 60.0


def up(file: ClusterFile, known: Known, say: Say) -> Known:
    """Start the host, and wait until the cluster is up.

    Raises:
        StillThere: it did not, and ending it was interrupted.
        HeadwayError: it did not come up; nothing of it is left.
    """
    with suppress(FileNotFoundError):
        (known.folder / ENDED).unlink()
    hears, tells = os.pipe()
    try:
        with (known.folder / LOG).open("w") as log:
            host = subprocess.Popen(
                [sys.executable, "-P", "-m", "headway.cluster.local.host", str(known.folder), str(tells)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[tells],
                start_new_session=True,
                env={**os.environ, MARK: known.id, "PYTHONPATH": _path()},
            )
    except BaseException:  # an interruption too: nobody else closes it
        os.close(hears)
        raise
    finally:
        os.close(tells)
    return _waited(host, hears, known, say)


def _waited(host: subprocess.Popen[bytes], hears: int, known: Known, say: Say) -> Known:
    """The cluster once it is up. Closing the pipe before lets the host end it."""
    try:
        with os.fdopen(hears) as told:
            for line in told:
                news: dict[str, Any] = json.loads(line)
                if "up" in news:
                    return kept.get(known.name)
                if "refused" in news:
                    kind, fact, reason, remedy = news["refused"]
                    raise (BadInput if kind == "bad input" else RunFailed)(fact, reason, remedy)
                say(news["say"])
        raise RunFailed(f"cluster {known.name} did not come up", _last_words(known), "")
    except BaseException:  # an interruption too: nothing is left
        try:
            say("ending what has been started")
            with suppress(subprocess.TimeoutExpired):
                host.wait(END_S)
            left = end_marked(known.id)
        except BaseException as error:
            fact, reason = f"cluster {known.name} may still be there", "ending it was interrupted"
            raise StillThere(fact, reason, f"`headway cluster down {known.name}` ends it.") from error
        if left:
            reason = ", ".join(f"process {pid}" for pid in left)
            raise StillThere(f"of cluster {known.name} something is still there", reason, "") from None
        raise


def apply(file: ClusterFile, known: Known, say: Say) -> list[str]:
    """Let a cluster that is up follow its changed file."""
    said: list[str] = orders.ask(known.folder, {"do": "apply"}, START_S + END_S)["said"]
    return said


def down(known: Known, say: Say) -> Down:
    """End a cluster; works too where its host, or whoever uses it, was killed."""
    ended, note = [], ""
    try:
        ended = orders.ask(known.folder, {"do": "end", "why": "headway cluster down"}, START_S)["ended"]
    except TimeoutError:
        note = "its host did not answer, and was killed"
    except orders.Gone:
        note = "it had ended before" if not marked(_mark(known)) else "its host was gone"
    left = end_marked(known.id)
    if known.place:
        shutil.rmtree(known.place, ignore_errors=True)
    leaks = [f"process {pid}" for pid in left]
    if known.place and Path(known.place).exists():
        leaks.append(f"the folder {known.place}")
    return Down(known.name, ended, leaks, note=note)


def end_marked(id: str) -> list[int]:
    """SIGKILL all that was started for a cluster, and return what is still there after a while."""
    deadline = time.monotonic() + GONE_S
    while (left := marked(f"{MARK}={id}")) and time.monotonic() < deadline:
        for pid in left:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)
    return left


def status(known: Known) -> Status:
    """The cluster at this moment, as its host sees it."""
    try:
        found = orders.ask(known.folder, {"do": "status"})
    except TimeoutError:
        return _without(known, "unreachable", "its host does not answer")
    except orders.Gone:
        left = len(marked(_mark(known)))
        if left:
            why = f"its host is gone, and {left} of its processes are there: `headway cluster down` ends them"
            return _without(known, "unreachable", why)
        return _without(known, "down", _why_it_ended(known))
    return Status(
        known.name,
        known.kind,
        "up" if found["up"] else "starting",
        known.address,
        known.jobs,
        found["since"],
        found["ends_at"],
        [_node(each, found["ray"]) for each in [*found["machines"], *found["gone"]]],
        found["news"],
        found["error"] and f"Ray does not say how it is: {found['error']}",
    )


def drain(known: Known, node: str, deadline_s: float, say: Say) -> str:
    """Let a node hand over what it does, and end it at the deadline."""
    order = {"do": "drain", "node": node, "deadline_s": deadline_s, "why": "headway cluster drain"}
    machine = orders.ask(known.folder, order)["machine"]
    return f"node {machine['number']} is drained: it hands over what it does, and ends in {deadline_s:g} s"


def add(known: Known, count: int, node_type: str | None, say: Say) -> list[str]:
    """Start more nodes."""
    said: list[str] = orders.ask(known.folder, {"do": "add", "count": count, "type": node_type}, START_S + END_S)[
        "said"
    ]
    return said


def _node(found: Mapping[str, Any], ray: Mapping[str, Any]) -> Node:
    """A machine, as people see it."""
    state, why = str(found["state"]), str(found["why"])
    seen = ray.get(found["node_id"], {}).get("status", "")
    if state == "running":
        state = "draining" if found["leaves_at"] or seen == "draining" else "lost" if seen == "dead" else "up"
    option, name = found["option"], "head" if found["number"] < 0 else str(found["number"])
    words = " ".join(filter(None, [option.get("zone", ""), "spot" if option.get("spot") else ""]))
    return Node(
        name,
        found["type"],
        {"gone": "down"}.get(state, state),
        found["node_id"],
        found["ip"],
        found["since"],
        words,
        option.get("price_per_hour"),
        why,
    )


def _without(known: Known, state: str, why: str) -> Status:
    return Status(known.name, known.kind, state, known.address, known.jobs, known.since, why=why)


def _why_it_ended(known: Known) -> str:
    try:
        return str(json.loads((known.folder / ENDED).read_text())["why"])
    except (OSError, ValueError, KeyError):
        return "its host is gone"


def _mark(known: Known) -> str:
    return f"{MARK}={known.id}"


def _last_words(known: Known) -> str:
    try:
        said = (known.folder / LOG).read_text(errors="replace").strip().splitlines()
    except OSError:
        said = []
    return said[-1] if said else "its host ended without a word"


def _path() -> str:
    """Where this Headway is, for a process that is started with `-P`, and what was there before."""
    import headway

    here = str(Path(headway.__file__).parent.parent)
    return os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH", "")]))
