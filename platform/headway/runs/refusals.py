"""Why a run is not to be had, as kinds of errors, for those who can do something about it."""

from __future__ import annotations

from headway.errors import BadInput


class NoRun(BadInput):
    """There is no run of that name."""


class Taken(BadInput):
    """A run of that name is there already."""


class Led(BadInput):
    """Another process leads the run."""


class Away(BadInput):
    """What is asked cannot be had now; the same may succeed when it is tried again."""


def no_run_but_a_sweep(name: str) -> NoRun:
    """What is asked of a sweep, and there only is for runs."""
    remedy = f"Name one of its trials (headway ls --trials), or look at the whole: headway report {name}"
    return NoRun(f"{name} is no run", "it is a sweep", remedy)
