"""Runs on a Ray cluster that is somewhere else, started and looked after from any machine.

The functions are those of the command line: same names, same arguments. No module of this package may be called like
one of them: it would take its place.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headway.jobs.look.closeup import status as status
    from headway.jobs.look.history import events as events
    from headway.jobs.look.listing import ls as ls
    from headway.jobs.look.printed import logs as logs
    from headway.jobs.look.resizing import resize as resize
    from headway.jobs.look.stopping import stop as stop
    from headway.jobs.send.examining import doctor as doctor
    from headway.jobs.send.submitting import resume as resume
    from headway.jobs.send.submitting import submit as submit

_HOMES = {
    "doctor": "headway.jobs.send.examining",
    "events": "headway.jobs.look.history",
    "logs": "headway.jobs.look.printed",
    "ls": "headway.jobs.look.listing",
    "resize": "headway.jobs.look.resizing",
    "resume": "headway.jobs.send.submitting",
    "status": "headway.jobs.look.closeup",
    "stop": "headway.jobs.look.stopping",
    "submit": "headway.jobs.send.submitting",
}
__all__ = ["doctor", "events", "logs", "ls", "resize", "resume", "status", "stop", "submit"]


def __getattr__(name: str) -> Any:
    """Public names are imported when first used, so that `import headway.jobs` stays light."""
    if name not in _HOMES:
        raise AttributeError(f"module 'headway.jobs' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
