"""What the user's code recorded outside of lanes, compared over workers: no record may depend on the cluster."""

from __future__ import annotations

import hashlib
import struct
from typing import Any

import numpy as np

from headway.core.digest import WORDS
from headway.errors import BadInput

Entry = tuple[int, str, float]
"""Committed steps, name, value."""
HOOK = "\0hook "
"""Begins the names of hooks' states, which no user's record has."""


class Said:
    """What this worker recorded since workers were last compared."""

    def __init__(self) -> None:
        self._entries: list[Entry] = []
        self._missed = False

    def add(self, step: int, values: dict[str, float]) -> None:
        self._entries += [(step, name, values[name]) for name in values]

    def miss(self) -> None:
        """This worker was not where the others are: it joined them, or took their state."""
        self._entries, self._missed = [], True

    def compared(self) -> None:
        """All were compared."""
        self._entries, self._missed = [], False

    @property
    def words(self) -> np.ndarray[Any, np.dtype[np.uint16]] | None:
        """Digest of it all, shape [WORDS]; None: it is not known here."""
        if self._missed:
            return None
        digest = hashlib.blake2b(digest_size=2 * WORDS)
        for step, name, value in self._entries:
            digest.update(struct.pack("<q", step) + name.encode() + b"\0" + struct.pack("<d", value))
        return np.frombuffer(digest.digest(), "<u2")

    @property
    def told(self) -> list[Entry] | None:
        """For the others; None: it is not known here."""
        return None if self._missed else self._entries


def difference(found: list[list[Entry] | None]) -> BadInput | None:
    """What to say of what workers recorded, by rank; None: there is nothing to say."""
    there = {rank: [tuple(entry) for entry in entries] for rank, entries in enumerate(found) if entries is not None}
    if not there:
        return None
    first, *others = there.items()
    for rank, entries in others:
        for place in range(max(len(entries), len(first[1]))):
            mine, theirs = (each[place : place + 1] for each in (first[1], entries))
            if [_bits(entry) for entry in mine] != [_bits(entry) for entry in theirs]:
                return _unequal({first[0]: mine, rank: theirs})
    return None


def _bits(entry: Any) -> tuple[int, str, bytes]:
    step, name, value = entry
    return step, name, struct.pack("<d", value)


def _unequal(found: dict[int, Any]) -> BadInput:
    (one, mine), (other, theirs) = found.items()
    names = [entries[0][1] for entries in (mine, theirs) if entries]
    hook = next((name.removeprefix(HOOK) for name in names if name.startswith(HOOK)), None)
    if hook is not None:
        return BadInput(
            f"the state of the hook {hook} is another on worker {one} than on {other}",
            "a hook must do the same on all workers: they go on from one another's states",
            "Let it go by the step, the weights and the metrics alone; what a worker has of its own stays out of its "
            "state_dict().",
        )
    if len(set(names)) == 1 and len(names) == 2:
        fact = f"session.record() was given {names[0]!r} = {mine[0][2]!r} on worker {one}, {theirs[0][2]!r} on {other}"
    else:
        which = " and ".join(repr(name) for name in dict.fromkeys(names))
        fact = f"session.record() was called with {which} on some workers only, or in another order"
    return BadInput(
        fact,
        "what is recorded outside of lanes must be the same on all workers, else it would depend on how many there are",
        "Use step.record(name, value) inside the loop over step.lanes() for the mean over the step's rows, or "
        "session.record(..., per_worker=True) for each worker's own.",
    )
