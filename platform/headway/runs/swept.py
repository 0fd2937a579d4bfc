"""Runs that are a sweep's are left to it for as long as somebody leads it."""

from __future__ import annotations

from contextlib import suppress

from headway.errors import BadInput
from headway.runs import finding
from headway.runs.listing import Brief
from headway.runs.place import Place


def leave_alone(place: Place, name: str, verb: str) -> None:
    """Look whether a run may be meddled with.

    Args:
        verb: what somebody is about to do with it: resume, stop, resize.

    Raises:
        BadInput: it is a trial of a sweep that is led.
        OutOfReach: the store does not answer.
    """
    brief = finding.glance(place, name)
    if brief is not None:
        admit(place, brief, verb)


def admit(place: Place, brief: Brief, verb: str) -> None:
    """The same of a run that was looked at."""
    led = False
    if brief.sweep:
        with suppress(BadInput):  # there is no such sweep any more
            led = finding.named(place, brief.sweep).is_led()
    if led:
        remedy = f"Stop the sweep first (headway stop {brief.sweep}), or let it come to its end."
        raise BadInput(
            f"{brief.run} is a trial of sweep {brief.sweep}, which is running", f"nobody else can {verb} it", remedy
        )
