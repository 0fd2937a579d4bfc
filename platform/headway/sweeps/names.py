"""What the runs of a sweep are called."""

from __future__ import annotations

import re

_RUN = re.compile(r"(.+)\.(\d{4,})(?:-(\d+))?")


def run_of(sweep: str, trial: int, repeat: int = 1) -> str:
    """The run of a trial: digits.0007, and of its second repeat digits.0007-2.

    Args:
        repeat: from 1.
    """
    return f"{sweep}.{trial:04}" + (f"-{repeat}" if repeat > 1 else "")


def trial_of(run: str) -> tuple[str, int, int] | None:
    """The sweep, trial and repeat that a run's name says; None where it is not one of a sweep."""
    found = _RUN.fullmatch(run)
    return (found[1], int(found[2]), int(found[3] or 1)) if found is not None else None
