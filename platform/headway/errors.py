"""Errors that Headway raises on purpose: the fact, the reason, the remedy, and the command line's exit code."""

from __future__ import annotations

FINISHED = 0
TASK_FAILED = 1
"""What the user brought failed as it ran: code, data, a loss that is no number. Trying again gives the same."""
AMISS = 1
"""Of a command that only looks (doctor, drill): something that it found is not as it should be."""
BAD_INPUT = 2
PLATFORM_FAILED = 3
"""Machines, Ray, the store or Headway itself failed: the same may succeed when it is tried again."""
STOPPED = 4
"""Stopped on request (`headway stop`); resumable."""
INTERRUPTED = 130
"""Ended by a signal; resumable."""


class HeadwayError(Exception):
    """Something that a person can understand and mend.

    Args:
        fact: what was found, naming the field or file as the user wrote it.
        reason: why that is a problem; may be empty where the fact says it.
        remedy: what to do about it; may be empty where nothing can be done.
    """

    exit_code = PLATFORM_FAILED
    traceback = ""
    """The user's own traceback, where their code raised."""

    def __init__(self, fact: str, reason: str = "", remedy: str = "") -> None:
        super().__init__(fact, reason, remedy)
        self.fact, self.reason, self.remedy = fact, reason, remedy

    def __str__(self) -> str:
        head = f"{self.fact}: {self.reason}" if self.reason else self.fact
        stop = "" if head.endswith((".", "?", "!")) else "."
        return f"{head}{stop} {self.remedy}".rstrip()


class BadInput(HeadwayError):
    """The job, the data, the run's name or an option cannot be used as given. Nothing was started or changed."""

    exit_code = BAD_INPUT


class BadData(BadInput):
    """A dataset is missing, incomplete, or not what its manifest says."""


class BadCheckpoint(HeadwayError):
    """A checkpoint is incomplete, altered, or belongs to another job."""

    exit_code = BAD_INPUT


class RunFailed(HeadwayError):
    """The run started and could not go on. Its exit code tells whose failure it is, see `headway.core.ends`."""

    passes = False
    """Whether the same may succeed when it is tried again: a machine was lost, or was full."""


class Amiss(HeadwayError):
    """Something that a command looked at is not as it should be."""

    exit_code = AMISS


class HeadwayFault(RunFailed):
    """A fault of Headway's own: neither the task nor the machine is to blame. The remedy names the report to send."""


class NonFiniteLoss(RunFailed):
    """A loss became NaN or infinite before the step was applied."""

    exit_code = TASK_FAILED


class UserCodeFailed(RunFailed):
    """The user's own code raised.

    Args:
        where: the worker and the step, in words.
        error: the last line of the traceback.
        traceback: the user's own traceback, shown once.
    """

    exit_code = TASK_FAILED

    def __init__(self, where: str, error: str, traceback: str) -> None:
        super().__init__(f"the task raised {error} in {where}", "", "")
        self.args = (where, error, traceback)
        self.traceback = traceback


def nearest(word: str, known: list[str]) -> str:
    """' Did you mean X?' for the closest of the known words, else the list of them."""
    import difflib

    by_lower = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.lower(), list(by_lower), n=1, cutoff=0.6)
    return f"Did you mean {by_lower[close[0]]!r}?" if close else f"Known: {', '.join(sorted(known))}."
