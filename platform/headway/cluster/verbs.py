"""`headway cluster`: what its verbs do, for whatever kind of cluster a file describes.

Each kind is a module with `up`, `apply`, `down`, `status`, `drain` and `add` (see `KINDS`), and `ssh` where its head is
reached by that.
"""

from __future__ import annotations

import importlib
import secrets
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from headway.cluster import file as files
from headway.cluster import known as kept
from headway.cluster.file import ClusterFile
from headway.cluster.known import Known
from headway.cluster.shown import Down, Status, Up
from headway.errors import BadInput, HeadwayError, RunFailed
from headway.runs import Place, audit
from headway.runs.requests import this_person

Say = Callable[[str], None]
KINDS = {
    "this-machine": "headway.cluster.local.verbs",
    "aws": "headway.cluster.aws.cluster",
}
"""Where each kind of cluster is started and ended."""
UNDER_TLS = ("this-machine",)
"""Kinds whose machines are given certificates by `up`."""


BEHIND_SSH = ("aws",)
"""Kinds whose job API is on the head's loopback: `headway tunnel NAME` brings it here."""


def up(path: Path, name: str | None, say: Say) -> Up:
    """Start the cluster that a file describes; one that is up follows its changed file.

    Raises:
        BadInput: the file cannot be used, or the cluster is up and the file is the same.
        HeadwayError: it did not come up; nothing of it is left.
    """
    file = files.load(path, name)
    kind = _module(file.kind)
    if file.headway.tls and file.kind not in UNDER_TLS:
        reason = f"the machines of a cluster of {file.kind} are not given certificates"
        remedy = "Give them to the machines yourself (docs/security.md), and strike tls out."
        raise BadInput(f"{path}: provider.headway.tls is true", reason, remedy)
    with kept.alone(file.name):
        known = kept.find(file.name)
        if known is not None:
            if known.kind != file.kind:
                reason = f"it is one of {known.kind}, and the file is for {file.kind}"
                raise BadInput(f"cluster {file.name} is known already", reason, "Choose another --name.")
            status = kind.status(known)
            if status.state != "down":
                return _applied(file, known, kind, status, say)
            _swept(known, kind, say)
        known = kept.make(file, time.time(), this_person(), secrets.token_hex(32))
        _noted(known, "up", {"file": str(path), "kind": known.kind}, say)
        try:
            known = kind.up(file, known, say)
        except kept.StillThere:
            raise
        except BaseException:  # an interruption too: what it had started is ended by now, else it is StillThere
            kept.forget(file.name)
            raise
    return _up(known, None)


def _swept(known: Known, kind: Any, say: Say) -> None:
    """Forget a cluster that has ended, once nothing of it is left."""
    done: Down = kind.down(known, say)
    if done.leftovers:
        fact, remedy = f"of cluster {known.name}, which has ended,", f"`headway cluster down {known.name}` tries again."
        raise RunFailed(f"{fact} something is still there", "; ".join(done.leftovers), remedy)
    kept.forget(known.name)


def _applied(file: ClusterFile, known: Known, kind: Any, status: Status, say: Say) -> Up:
    if status.state != "up":
        remedy = f"End it with `headway cluster down {known.name}`."
        raise BadInput(f"cluster {known.name} is {status.state}", status.why, remedy)
    before = known.file.read_text(encoding="utf-8")
    if before == file.text:
        remedy = f"`headway cluster down {known.name}` ends it; --name starts another."
        raise BadInput(f"cluster {known.name} is up already", "the file is the one that it was started from", remedy)
    kept.keep_text(known, file.text)
    try:
        changed = kind.apply(file, known, say)
    except BaseException:  # it goes on as it was
        kept.keep_text(known, before)
        raise
    _noted(known, "up", {"file": str(file.path), "changed": changed}, say)
    return _up(known, changed)


def _up(known: Known, applied: list[str] | None) -> Up:
    file = known.keep_environment()
    hints = [f"headway tunnel {known.name}    # in a shell of its own: the job API on this machine's loopback"]
    hints = hints if known.kind in BEHIND_SSH else []
    hints += [f"RAY_AUTH_TOKEN_PATH={known.token_file} headway submit JOB --address {known.jobs}"] if known.jobs else []
    hints += (
        [f". {file}    # in this shell, submit, ls, logs and train then mean this cluster"] if known.address else []
    )
    hints += [f"headway cluster down {known.name}"]
    return Up(known.name, known.kind, known.address, known.jobs, str(known.folder), hints, applied)


def down(which: str, say: Say) -> Down:
    """End a cluster, and say what is left of it. One of which nothing is left is forgotten."""
    known = _which(which)
    with kept.alone(known.name):
        done: Down = _module(known.kind).down(known, say)
        _noted(known, "down", {"left": list(done.leftovers)}, say)
        if not done.leftovers:
            kept.forget(known.name)
    return done


def status(which: str) -> Status:
    """A cluster at this moment."""
    known = _which(which)
    found: Status = _module(known.kind).status(known)
    return found


def every() -> list[Status]:
    """All clusters that are known on this machine."""
    return [_status(known) for known in kept.every()]


def _status(known: Known) -> Status:
    """The same; one that cannot be asked is unreachable, and hides no other."""
    try:
        found: Status = _module(known.kind).status(known)
    except (HeadwayError, OSError) as error:
        return Status(known.name, known.kind, "unreachable", known.address, known.jobs, known.since, why=str(error))
    return found


def drain(which: str | None, node: str, deadline_s: float, say: Say) -> str:
    """Let a node go at a deadline; what it does is handed over before. Returns what was done, in words."""
    known = _only(which)
    with kept.alone(known.name):
        said: str = _module(known.kind).drain(known, node, deadline_s, say)
        _noted(known, "drain", {"node": node, "deadline_s": deadline_s}, say)
    return said


def add(which: str | None, count: int, node_type: str | None, say: Say) -> list[str]:
    """Start more nodes. Returns what was done, in words."""
    known = _only(which)
    with kept.alone(known.name):
        _noted(known, "add", {"count": count, "type": node_type}, say)
        said: list[str] = _module(known.kind).add(known, count, node_type, say)
    return said


def ssh(which: str) -> list[str]:
    """The ssh command line to a known cluster's head, which ends with the host.

    Raises:
        BadInput: its head is not reached by ssh, or not there.
    """
    known = _which(which)
    kind = _module(known.kind)
    if not hasattr(kind, "ssh"):
        where = f": its job API is at {known.jobs}" if known.jobs else ""
        raise BadInput(f"cluster {known.name} needs no tunnel", f"it is one of {known.kind}{where}", "")
    line: list[str] = kind.ssh(known)
    return line


def _noted(known: Known, verb: str, details: Mapping[str, Any], say: Say) -> None:
    """Have it in the log of the place that the cluster keeps runs in; else of this machine's clusters. (Before what
    costs money; after what ends it, which waits for no store.)"""
    try:
        runs = files.load(known.file, known.name).headway.runs
        place = Place.of(runs) if runs else Place.of(kept.home())
    except HeadwayError:  # it was changed by hand
        place = Place.of(kept.home())
    audit.note(place, verb, known.name, details=details, say=say)


def _module(kind: str) -> Any:
    if kind not in KINDS:
        remedy = f"Those of {', '.join(KINDS)} are; `headway cluster check` looks over the others' files."
        raise BadInput(f"clusters of {kind} are not started from here", "", remedy)
    return importlib.import_module(KINDS[kind])


def _which(which: str) -> Known:
    """A cluster by its name, or by its file."""
    if Path(which).suffix in (".yaml", ".yml") or Path(which).is_file():
        return kept.get(files.load(Path(which)).name)
    return kept.get(which)


def _only(which: str | None) -> Known:
    """The cluster of that name; the only one where none is said."""
    if which is not None:
        return _which(which)
    names = [each.name for each in kept.every()]
    if len(names) != 1:
        reason = f"there are {', '.join(names)}" if names else "none is known here"
        raise BadInput("which cluster?", reason, "Give --cluster NAME." if names else "`headway cluster up FILE`.")
    return kept.get(names[0])
