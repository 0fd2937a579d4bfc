"""To wait for a condition, not for a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

_now, _sleep = time.monotonic, time.sleep  # tests may put others in their place


def until(condition: Callable[[], Any], what: str = "", within_s: float = 20.0) -> None:
    """Wait for a condition, looking often; fails by name when the time is up."""
    deadline = _now() + within_s
    while not condition():
        assert _now() < deadline, f"{what or 'the condition holds'}: not within {within_s:g} s"
        _sleep(0.01)
