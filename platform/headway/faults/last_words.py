"""What a worker that crashed said last, found in its log: why its process ended, where somebody said it."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

LATEST_BYTES = 64 << 10
_CRASH = re.compile(
    rb"^(Fatal Python error: .*|terminate called .*|.*what\(\):.*|.*Assertion .* failed\.?.*|.*(CUDA|NCCL) error.*"
    rb"|.*std::bad_alloc.*|malloc\(\): .*|free\(\): .*|corrupted .*|.*[Oo]ut of memory.*)$",
    re.MULTILINE,
)


def last_words(logs: Sequence[Path]) -> str:
    """The line of a worker's log that tells of a crash, with the name of its file; empty where none does.

    Args:
        logs: to look into; the first that has one counts, and in it the last.
    """
    for path in logs:
        found = _CRASH.findall(_end(path))
        if found:
            return f"{found[-1][0].decode(errors='replace').strip()[:300]} ({path.name})"
    return ""


def newest_first(folder: Path) -> list[Path]:
    """The logs in a folder."""
    try:
        return sorted(folder.glob("*.log"), key=lambda path: path.stat().st_mtime, reverse=True)
    except OSError:
        return []


def _end(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - LATEST_BYTES))
            return file.read()
    except OSError:
        return b""
