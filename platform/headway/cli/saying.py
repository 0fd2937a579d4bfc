"""News for people, on standard error: standard output belongs to the result."""

from __future__ import annotations

import sys


def say(text: str) -> None:
    """A line of news, which is not the result."""
    print(text, file=sys.stderr, flush=True)
