"""What a driver settles before its run begins: how stores are spoken to, the job, and whose a run of that name is."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from headway import config
from headway.errors import BadInput
from headway.job import Job
from headway.jobs.spec import Spec
from headway.runs import RunFolder
from headway.storage.options import Options


@contextmanager
def laid(spec: Spec) -> Iterator[None]:
    """What the submission says of stores, under what this node says itself; put back after it.

    Raises:
        BadInput: either cannot be used.
    """
    own = config.load().store.model_dump()
    usual = Options().model_dump()
    added = {
        f"{config.PREFIX}{name.upper()}": str(value)
        for name, value in spec.store.items()
        if value is not None and value != usual.get(name) and own.get(name) == usual.get(name)
    }
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


def job_of(spec: Spec) -> Job:
    """The job that was submitted, with what it refers to on this node. Raises BadInput."""
    from headway.jobs import secrets
    from headway.notation.plain import read

    return secrets.resolved(read(spec.job or ""), spec.sent)


def facts_of(run: RunFolder) -> dict[str, Any]:
    """What a run says of itself; of one that was made a moment ago, what stands where it was made."""
    facts: dict[str, Any] = {}
    with suppress(BadInput):
        facts = run.read()
    return facts if "submission" in facts else {**run.first_facts(), **facts}


def is_ours(facts: dict[str, Any], spec: Spec) -> bool:
    """Whether a run, by what it says of itself, was begun last by this very submission."""
    return bool((facts.get("submission") or {}).get("id") == spec.submission)


def taken(run: RunFolder, facts: dict[str, Any]) -> BadInput:
    """Of a name that another submission's run has."""
    state = facts.get("state", "in a state that is not known")
    by = (facts.get("submission") or {}).get("by")
    since = facts.get("created")
    when = time.strftime(" since %Y-%m-%d %H:%M:%S", time.localtime(since)) if since else ""
    whose = f", submitted by {by}" if by else ""
    reason = f"a run of that name is there{when}{whose}; it is {state}"
    ways = f"look at it (headway status {run.name}), or go on with it (headway resume {run.name})"
    return BadInput(f"{run.where} is taken", reason, f"Choose another --name, {ways}.")
