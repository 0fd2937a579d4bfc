"""Which row groups leave a full cache: those that are needed last, which is known ahead.

Belady's rule (1966): with the future known, nothing beats removing what will be used latest. What nobody alive has
announced comes before everything that somebody has, and data of which no reader is alive comes first of all.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from headway.core.order import Rows

UNANNOUNCED = float(2**60)
"""Next use of what has readers who have not said that they will need it."""
ABANDONED = float("inf")
"""Next use of what has no readers."""


@dataclass(frozen=True)
class Entry:
    """Something kept.

    Args:
        name: of the file.
        bytes: it takes.
        next_use: how many other row groups its soonest reader wants before it, or one of the constants above.
        last_use: seconds on any one clock.
    """

    name: str
    bytes: int
    next_use: float
    last_use: float


def removable(entries: Iterable[Entry], next_use: float) -> list[Entry]:
    """What may go for something that is needed at `next_use`: only what is needed later, the first to go first.

    Of equals the one goes whose last use is longest ago. What is needed no later stays: the newcomer is then read
    without being kept, since to exchange equals costs writes and gains nothing.
    """
    later = [entry for entry in entries if entry.next_use > next_use]
    return sorted(later, key=lambda entry: (-entry.next_use, entry.last_use, entry.name))


def next_uses(announced: Sequence[Rows]) -> Rows:
    """When each row group is needed next by anybody: its first place in any of the readers' lists.

    Args:
        announced: row groups by number, the soonest first; each of shape [announced by that reader].

    Returns:
        Places, UNANNOUNCED for those in no list, shape [largest number + 1].
    """
    soonest = np.full(1 + max((int(groups.max()) for groups in announced if len(groups)), default=-1), int(UNANNOUNCED))
    for groups in announced:
        places = np.full(len(soonest), int(UNANNOUNCED))
        places[groups[::-1]] = np.arange(len(groups))[::-1]  # of several places the first is written last
        soonest = np.minimum(soonest, places)
    return soonest
