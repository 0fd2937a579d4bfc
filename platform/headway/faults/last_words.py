"""What a worker that crashed said last, found in its log: why its process ended, where somebody said it."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from headway.errors import HeadwayError
from headway.logs.layout import WORKER
from headway.logs.reading import Line, Reader

if TYPE_CHECKING:
    from headway.storage.protocol import Storage

LATEST = 2000
"""Lines of each source that are looked into."""
EVERY_S = 1.5
_CRASH = re.compile(
    r"Fatal Python error: .*|terminate called .*|.*what\(\):.*|.*Assertion .* failed\.?.*|.*(CUDA|NCCL) error.*"
    r"|.*std::bad_alloc.*|malloc\(\): .*|free\(\): .*|corrupted .*|.*[Oo]ut of memory.*"
)


def last_words(storage: Storage, sources: Sequence[str] | None = None, within_s: float = 0.0) -> str:
    """The newest line of the workers' logs that tells of a crash, with whose it is; empty where none does.

    Args:
        storage: of the run.
        sources: whose logs are looked into; all workers' when not given.
        within_s: for so long it is waited for: what comes from another machine takes its time, or never comes.
    """
    deadline = time.monotonic() + within_s
    while True:
        with suppress(HeadwayError, OSError):
            reader = Reader(storage, sources)
            reader.skip(LATEST)
            if words := crash_in(reader.news()):
                return words
        if time.monotonic() >= deadline:
            return ""
        time.sleep(EVERY_S)


def crash_in(lines: Iterable[Line]) -> str:
    """The last of a run's lines by which a worker tells of a crash."""
    found = ""
    for line in lines:
        if line.source.startswith(WORKER) and _CRASH.fullmatch(line.text):
            found = f"{line.text.strip()[:300]} ({line.source})"
    return found
