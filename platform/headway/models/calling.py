"""Calling what a task's author wrote: what it raises is shown as theirs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from headway.errors import HeadwayError, UserCodeFailed
from headway.faults import blame


@contextmanager
def called(where: str) -> Iterator[None]:
    """While this lasts the task's own code runs.

    Args:
        where: in words, after "in".

    Raises:
        UserCodeFailed: it raised; with its own traceback.
        HeadwayError: as it is.
    """
    try:
        yield
    except HeadwayError:
        raise
    except (Exception, SystemExit) as error:
        raise UserCodeFailed(where, blame.reason(error), blame.users_traceback(error)) from error
