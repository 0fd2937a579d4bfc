"""What a run says of itself while it is led: a small file that is written over again and again, and is no record.

    RUN/now.json    {"at": 1790000000.0, "workers": 3, "waits": "", ...}

Of a run in a store its head has the same, as part of what a listing shows. A run that is at an end says nothing.
"""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path

FILE = "now.json"
EVERY_S = 2.0
"""It is not written more often."""
LEAST_S = 10.0
"""And not less often, as a sign of life."""


@dataclass(frozen=True)
class Now:
    """How a run is at one moment.

    Args:
        at: when that was, Unix seconds.
        workers: that train.
        goodput: share of worker-seconds that ended in committed steps, of this start; None before there are any.
        steps_per_s: over the latest minute of training; None before there were any.
        waits: why nobody trains; empty while somebody does.
        since: Unix seconds, since when it waits, or trains.
        trouble: what goes wrong while it trains on; empty where nothing does.
        lately: the newest that happened, oldest first: Unix seconds, and words.
    """

    at: float
    workers: int = 0
    goodput: float | None = None
    steps_per_s: float | None = None
    waits: str = ""
    since: float = 0.0
    trouble: str = ""
    lately: tuple[tuple[float, str], ...] = ()

    def alike(self, other: Now) -> bool:
        """Whether both say the same, whenever they said it."""
        return asdict(self) | {"at": 0.0} == asdict(other) | {"at": 0.0}


NAMES = tuple(field.name for field in fields(Now))


def read(folder: Path) -> Now | None:
    """What a run said last; None where it said nothing that can be read."""
    try:
        tree = json.loads((folder / FILE).read_text(encoding="utf-8"))
        tree["lately"] = tuple((float(at), str(text)) for at, text in tree.get("lately", ()))
        return Now(**{name: tree[name] for name in NAMES if name in tree})
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def write(folder: Path, now: Now) -> None:
    """Say this from now on: whole, but not for good, since the next is as good. Raises OSError."""
    temporary = folder / f".{FILE}.{os.getpid()}"
    temporary.write_text(json.dumps(asdict(now)), encoding="utf-8")
    temporary.replace(folder / FILE)


def say(folder: Path, waits: str) -> None:
    """Say why the run waits, before there is a recorder that does; where nothing can be written, nothing is said."""
    before, at = read(folder), time.time()
    since = before.since if before is not None and before.waits == waits else at
    with suppress(OSError):
        write(folder, Now(at, waits=waits, since=since))
