"""A run's account of worker-seconds over time, in ledger.jsonl: of all its starts together, growing.

{"time": 1790000012.5, "step": 210, "seconds": {"start": 9.1, "compute": 14.2, ...}, "exchanged_bytes": 80400000}
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from headway.core import thinning
from headway.durable import last_line

FILE = "ledger.jsonl"


class Accounts:
    """Few lines of many accounts: closer together at first, and never more than some thousands.

    Args:
        line: keeps one.
        begun: Unix seconds, of the run.
    """

    def __init__(self, line: Callable[[dict[str, Any]], None], begun: float) -> None:
        self._line, self._begun = line, begun
        self._last = float("-inf")

    def look(self, at: float, step: int, account: Callable[[], tuple[Mapping[str, float], int | None]]) -> None:
        """There is a newer account. account: gives it, see `keep`."""
        if thinning.due(at - self._begun, at - self._last):
            self.keep(at, step, *account())

    def keep(self, at: float, step: int, seconds: Mapping[str, float], exchanged_bytes: int | None = None) -> None:
        """Keep the account as it is now: seconds by cause, and what workers have sent to each other, where known."""
        self._last = at
        told = {} if exchanged_bytes is None else {"exchanged_bytes": exchanged_bytes}
        self._line({"time": round(at, 3), "step": step, "seconds": dict(seconds), **told})


def known(folder: Path, facts: Mapping[str, Any]) -> dict[str, float]:
    """The newest account of a run, seconds by cause: of its run.json where it was closed; of one whose leader is gone,
    or trains still, the newest line. Empty where nothing is known."""
    if facts.get("ledger_s"):
        return dict(facts["ledger_s"])
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        newest = json.loads(last_line(folder / FILE))["seconds"]
        return {str(cause): float(seconds) for cause, seconds in newest.items()}
    return dict(facts.get("ledger_before") or {})


def exchanged(folder: Path, facts: Mapping[str, Any]) -> int | None:
    """Bytes that a run's workers have sent to each other, likewise; None where nobody counted them."""
    if facts.get("exchanged_bytes") is not None:
        return int(facts["exchanged_bytes"])
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        return int(json.loads(last_line(folder / FILE))["exchanged_bytes"])
    before = facts.get("exchanged_before")
    return None if before is None else int(before)
