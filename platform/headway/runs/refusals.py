"""Why a run is not to be had, as kinds of errors, for those who can do something about it."""

from __future__ import annotations

from headway.errors import BadInput


class NoRun(BadInput):
    """There is no run of that name."""


class Taken(BadInput):
    """A run of that name is there already."""


class Led(BadInput):
    """Another process leads the run."""
