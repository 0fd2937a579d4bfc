"""Where a run's worker-seconds went: in sum, over time, and in dollars where its machines have prices."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headway.core import ledger
from headway.report.happenings import spaced
from headway.report.shape import Account, OverTime
from headway.runs import accounts, columns

if TYPE_CHECKING:
    from headway.report.money import Cost

POINTS = 500
CAUSES = (*ledger.CAUSES,)


def told(folder: Path, facts: Mapping[str, Any], created: float, cost: Cost | None = None) -> Account:
    """Args:
    folder: of the run, or its working copy.
    facts: of its run.json.
    created: Unix seconds.
    cost: what it has cost, where that is known.
    """
    lines = [line for line in columns.lines(folder / accounts.FILE) if _sound(line)]
    few = spaced(sorted(lines, key=lambda line: float(line["time"])), POINTS)
    causes = [cause for cause in CAUSES if any(line["seconds"].get(cause) for line in few)]
    over = {cause: [round(float(line["seconds"].get(cause, 0.0)), 2) for line in few] for cause in causes}
    seconds = [round(max(0.0, float(line["time"]) - created), 2) for line in few]
    known = {cause: round(spent, 3) for cause, spent in accounts.known(folder, facts).items()}
    dollars = cost.by_cause if cost is not None and cost.by == "machines" else {}
    return Account(seconds=known, over_time=OverTime(seconds=seconds, causes=over), dollars=dollars)


def _sound(line: Mapping[str, Any]) -> bool:
    seconds = line.get("seconds")
    return isinstance(line.get("time"), int | float) and isinstance(seconds, dict)
