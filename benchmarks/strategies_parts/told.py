"""What is printed, and kept as it comes: a benchmark of hours may end at any moment."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from measure import RESULTS


class Book:
    """Figures of one sub-command, in results/strategies.json under its name.

    Args:
        section: the sub-command.
        file: None: nothing is kept.
        add: to what is kept there already.
    """

    def __init__(self, section: str, file: Path | None = RESULTS / "strategies.json", *, add: bool = False) -> None:
        self._section, self._file = section, file
        self.figures: dict[str, Any] = self._whole().get(section, {}) if add else {}
        self.misses: list[str] = []
        """Targets that were not met, in words."""

    def put(self, *path: str, value: Any) -> None:
        """Keep a figure."""
        at = self.figures
        for name in path[:-1]:
            at = at.setdefault(name, {})
        at[path[-1]] = value
        if self._file is None:
            return
        whole = self._whole()
        machine = {"cores": os.cpu_count(), "python": platform.python_version(), "system": platform.platform()}
        whole[self._section] = {**self.figures, "when": time.strftime("%Y-%m-%d"), "machine": machine}
        self._file.parent.mkdir(parents=True, exist_ok=True)
        beside = self._file.with_suffix(".new")
        beside.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
        beside.replace(self._file)

    def _whole(self) -> dict[str, Any]:
        """All sections, as they are kept."""
        if self._file is None or not self._file.exists():
            return {}
        found: dict[str, Any] = json.loads(self._file.read_text())
        return found

    def target(self, what: str, met: bool, value: str) -> None:
        """Say whether a target of the project is met."""
        say(f"{'met' if met else 'MISSED'}: {what}: {value}")
        self.put("targets", what, value={"met": met, "value": value})
        if not met:
            self.misses.append(what)


def say(text: str) -> None:
    print(text, flush=True)


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Mean, standard deviation (None of one), and all."""
    return {
        "mean": _round(statistics.mean(values)),
        "sd": _round(statistics.stdev(values)) if len(values) > 1 else None,
        "all": [_round(value) for value in values],
    }


def shown(found: dict[str, Any] | None, form: str = ".3g") -> str:
    """A spread, for a table."""
    if found is None:
        return "-"
    return f"{found['mean']:{form}}" + (f" ± {found['sd']:.2g}" if found["sd"] is not None else "")


def table(rows: Sequence[Sequence[str]]) -> None:
    """With heads in the first row."""
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    for row in rows:
        cells = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        say("  ".join([row[0].ljust(widths[0]), *cells]).rstrip())
    say("")


def _round(value: float) -> float:
    """To six digits."""
    return float(f"{value:.6g}")
