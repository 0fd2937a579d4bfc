"""Hears what a worker warns of: Python's warnings, logging from WARNING on, threads that died; each text once.

What is heard is written to standard error all the same, as Python does without us.
"""

from __future__ import annotations

import logging
import os
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from headway.faults import blame

MOST = 200
"""Distinct texts of one worker that are told."""
_SILENT = {"headway", "mlflow", "ray"}
"""Loggers whose warnings are for us: they are in the log."""


class Ears:
    """See the module.

    Args:
        tell: takes a text, in a line; called in whatever thread warns, and must not wait.
    """

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._told: set[str] = set()
        self._hears = threading.local()
        self._process = os.getpid()

    def open(self) -> None:
        """Begin to hear."""
        self._show, self._make, self._ended = warnings.showwarning, logging.getLogRecordFactory(), threading.excepthook
        warnings.showwarning = self._warned  # type: ignore[assignment]
        logging.setLogRecordFactory(self._logged)
        threading.excepthook = self._died

    def close(self) -> None:
        """Hear nothing more; what others have put in the place of ours stays."""
        self._tell = lambda text: None
        if warnings.showwarning == self._warned:
            warnings.showwarning = self._show
        if logging.getLogRecordFactory() == self._logged:
            logging.setLogRecordFactory(self._make)
        if threading.excepthook == self._died:
            threading.excepthook = self._ended

    def _warned(self, message: Any, category: type[Warning], filename: str, lineno: int, *rest: Any) -> None:
        self._show(message, category, filename, lineno, *rest)
        if not blame.is_hidden(filename):
            place = f"{Path(filename).name}:{lineno}"
            self._once(lambda: f"{category.__name__}: {blame.in_a_line(str(message))} ({place})")

    def _logged(self, *arguments: Any, **named: Any) -> logging.LogRecord:
        record = self._make(*arguments, **named)
        if record.levelno >= logging.WARNING and record.name.partition(".")[0] not in _SILENT:
            self._once(lambda: _of_record(record))
        return record

    def _died(self, ended: threading.ExceptHookArgs) -> None:
        self._ended(ended)
        error = ended.exc_value
        if error is not None and ended.exc_type is not SystemExit:
            name = ended.thread.name if ended.thread is not None else "a thread"
            self._once(lambda: f"{name} ended with {blame.reason(error)}")

    def _once(self, make: Callable[[], str]) -> None:
        """Nothing that goes wrong in here may end what warns; and what warns in here is not heard again."""
        if getattr(self._hears, "now", False) or os.getpid() != self._process:
            return  # from a child that was forked nobody would hear it
        self._hears.now = True
        try:
            text = make()
            told = blame.alike(text)
            if told not in self._told and len(self._told) < MOST:
                self._told.add(told)
                self._tell(text)
        except Exception:  # a message of theirs that cannot be made into text
            pass
        finally:
            self._hears.now = False


def _of_record(record: logging.LogRecord) -> str:
    text = f"{record.levelname} {record.name}: {blame.in_a_line(record.getMessage())}"
    error = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
    return f"{text} ({blame.reason(error)})" if error is not None else text
