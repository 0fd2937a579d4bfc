"""The contents of what was logged, beside the journal's entries: they are large, and only so much is held of them."""

from __future__ import annotations

from collections import deque
from typing import Any

MOST_BYTES = 32 << 20
"""Held by a worker, as they travel; the oldest are let go first."""


class Contents:
    """Holds entries with a content (`content`, text of base64); one that is let go has None in its place."""

    def __init__(self, most: int = MOST_BYTES) -> None:
        self._most = most
        self._entries: deque[dict[str, Any]] = deque()
        self._bytes = 0

    def hold(self, entry: dict[str, Any]) -> None:
        """One more."""
        self._entries.append(entry)
        self._bytes += len(entry["content"])
        while self._bytes > self._most and len(self._entries) > 1:
            oldest = self._entries.popleft()
            self._bytes -= len(oldest["content"])
            oldest["content"] = None

    def clear(self) -> None:
        """All of them are needed no more."""
        self._entries.clear()
        self._bytes = 0


def without(entry: dict[str, Any]) -> dict[str, Any]:
    """An entry as it is kept with a state, which must stay small."""
    return {**entry, "content": None} if entry.get("content") else entry
