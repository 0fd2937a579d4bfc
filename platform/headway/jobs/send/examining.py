"""`headway doctor --address`: whether runs can be led on a cluster, from this machine and on every one of its own."""

from __future__ import annotations

import ipaddress
import json
import os
import stat
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

import headway
from headway import config
from headway.core import health
from headway.core.health import Finding
from headway.errors import HeadwayError, RunFailed
from headway.jobs import entry
from headway.jobs.api import call, tokens
from headway.jobs.api.client import NoEntry, RayJobs
from headway.jobs.send import install, parcel, sending
from headway.jobs.send.sending import ANSWER_S, Follower, Packed
from headway.jobs.spec import FILE, Spec, new_attempt, to_json
from headway.jobs.there.machine import Examiner
from headway.runs.requests import this_person
from headway.tracking.store import redact

NOBODY = "headway-nobody"
SLOW_S = 0.5
"""An answer of the head that takes longer is told."""


def doctor(
    *,
    address: str | None = None,
    runs: str | Path | None = None,
    tracking: str | None = None,
    found: Callable[[Finding], None] | None = None,
) -> list[Finding]:
    """Look at a cluster, from this machine and from all of its own. It costs a Ray job of some seconds, which leaves
    nothing.

    Args:
        address: http://HOST:PORT of the dashboard of the cluster's head; as for `headway.jobs.submit`.
        runs: where runs are to be kept; likewise.
        tracking: URI of MLflow; the head's own MLFLOW_TRACKING_URI when not given. Its password stays here: it is taken
            from HEADWAY_TRACKING_PASSWORD there.
        found: takes each finding as it comes.

    Raises:
        BadInput: the address or the place for runs is none. All else is a finding.
    """
    from headway.jobs.send.submitting import runs_of

    at, place, every = call.where(address), runs_of(runs), []
    for finding in _found(at, place, tracking or os.environ.get("MLFLOW_TRACKING_URI")):
        every.append(finding)
        if found is not None:
            found(finding)
    return every


def _found(address: str, place: str | None, tracking: str | None) -> Iterator[Finding]:
    try:
        token = tokens.find()
    except HeadwayError as error:
        yield _of(error, "token")
        return
    api = RayJobs(address, token)
    try:
        begin = time.monotonic()
        version = api.admit()
        took_s = (time.monotonic() - begin) / 2
    except HeadwayError as error:
        yield _of(error, "token" if isinstance(error, NoEntry) else "address")
        return
    slow = took_s > SLOW_S
    reason = "every question to the cluster takes so long" if slow else ""
    fact = f"{address} answers in {1000 * took_s:.0f} ms, with Ray {version.ray}"
    yield Finding("address", "warn" if slow else "ok", fact, reason=reason)
    yield from _token(address, token)
    yield from _place(place)
    try:
        yield from _there(api, place, tracking)
    except HeadwayError as error:
        yield _of(error, "cluster")


def _of(error: HeadwayError, name: str) -> Finding:
    return Finding(name, "fail", error.fact, error.remedy, error.reason)


def _token(address: str, token: str | None) -> Iterator[Finding]:
    """Whether the cluster is open to all, and whether others can read our token."""
    try:
        RayJobs(address, None, patience_s=0.0).job(NOBODY)
    except NoEntry:
        yield Finding("token", "ok", "the cluster wants one, and takes this one")
    except HeadwayError as error:
        yield _of(error, "token")
    else:
        remedy = "Start its head with RAY_AUTH_MODE=token and a token, or let nobody else reach it."
        reason = "whoever reaches its address can run anything on it, and read what is sent"
        yield Finding("token", "warn", "the cluster wants none", remedy, reason)
    if token is not None and in_clear(address):
        reason = "whoever is on the way can read it, and run anything on the cluster"
        remedy = "Go through a tunnel (ssh -L 8265:127.0.0.1:8265 HEAD), or by https."
        yield Finding("token", "warn", f"it goes to {address} in clear", remedy, reason)
    named = os.environ.get(tokens.FILE)
    with suppress(OSError, RuntimeError):
        path = Path(named).expanduser() if named else Path.home() / tokens.DEFAULT
        if token is not None and not os.environ.get(tokens.TOKEN) and stat.S_IMODE(path.stat().st_mode) & 0o044:
            yield health.readable_token(str(path), "")


def in_clear(address: str) -> bool:
    """Whether what is sent to an address can be read on the way: by http, to another machine."""
    parts = urlsplit(address)
    host = parts.hostname or ""
    with suppress(ValueError):
        return parts.scheme == "http" and not ipaddress.ip_address(host).is_loopback
    return parts.scheme == "http" and host != "localhost"


def _place(place: str | None) -> Iterator[Finding]:
    """Whether this machine reaches what a run keeps, without which it only hears what Ray knows."""
    if place is None or "://" not in place:
        return
    here = Examiner()
    left = here.leave(place, {}, new_attempt(), "client")
    here.clear()
    if "took_s" in left:
        yield Finding("runs", "ok", f"{place} can be written and read from here, in {left['took_s']:.2f} s")
        return
    reason = f"{left['reason'] or left['fact']}; `ls`, `status`, `logs` and `stop` go by what a run keeps"
    yield Finding("runs", "warn", f"{place} cannot be used from this machine", left["remedy"], reason)


def _there(api: RayJobs, place: str | None, tracking: str | None) -> Iterator[Finding]:
    """What is found on the cluster itself."""
    spec = _spec(place, tracking)
    folder = parcel.packed({FILE: to_json(spec).encode(), entry.FILE: entry.script().encode()})
    packed = Packed(folder, (parcel.headway(),))
    parcel.deliver(api, packed.parcels)
    begin = time.time()
    sending.send(api, spec, packed)
    end = time.time()
    follower = Follower(api, spec, lambda _: None, partial(_gone, api.address), unheard_s=ANSWER_S)
    try:
        job = api.job(spec.submission)
        if job is not None and job.started is not None:
            ahead_s = job.started - (begin + end) / 2
            yield health.clock(ahead_s, "this machine's", "", unsure_s=(end - begin) / 2)
        for tree in follower.told():
            if tree["told"] == "found":
                yield _read(tree)
            elif tree["told"] == "note":
                yield Finding("note", "warn", str(tree["text"]))
            elif tree["told"] == "refused":
                raise sending.refusal(tree)
            elif tree["told"] == "ended":
                return
        raise sending.silent_end(api.job(spec.submission), follower)
    except (KeyboardInterrupt, GeneratorExit):  # nobody waits for it any more
        with suppress(HeadwayError):
            api.stop(spec.submission)
        raise
    finally:
        sending.forget(api, spec.submission)


def _gone(address: str) -> NoReturn:
    reason = "its head was replaced, or somebody took the examiner's job from Ray's list"
    raise RunFailed(f"{address} does not say any more what is found there", reason, "Ask again.")


def _spec(place: str | None, tracking: str | None) -> Spec:
    wanted = install.needed(tracked=True, stores=place is not None and "://" in place)
    asked = {"packages": wanted, "tracking": redact(tracking) if tracking else None}
    return Spec(
        kind="doctor",
        run="doctor",
        attempt=new_attempt(),
        by=this_person(),
        headway=headway.__version__,
        python=(sys.version_info[0], sys.version_info[1]),
        runs=place,
        settings=(json.dumps(asked),),
        store=config.load().store.model_dump(exclude_defaults=True),
    )


def _read(tree: dict[str, Any]) -> Finding:
    known = {name: tree[name] for name in ("name", "level", "found", "remedy", "reason") if name in tree}
    return Finding(**known, where=tuple(tree.get("where") or ()))
