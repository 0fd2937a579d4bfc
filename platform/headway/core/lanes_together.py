"""Which lanes of a worker go through the model in one pass, when that is tried both ways, and what comes of it.

Lanes may go together where the loss of all their rows is the mean of theirs, weighed by rows. Nobody can know that of a
user's loss, so it is looked at again and again (docs/decisions/0017). Everything here is arithmetic on what was seen.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise

from headway.core.keys import key

Group = tuple[int, ...]
"""Lanes that are computed in one pass, ascending."""

FIRST = 3
"""Steps of a mode that are looked at from its beginning on."""
EVERY = 1000
"""One step in so many is looked at for ever, at random, the same one on all workers."""
MOST_KNOWN = 256
"""Modes, and groups, that are remembered."""


class Reason(Enum):
    """Why lanes are kept apart. Its value is what people are told."""

    RANDOM = "random numbers are drawn in the loss (dropout, noise), and each lane has its own"
    BUFFERS = "buffers come out otherwise (statistics of a batch)"
    LOSS = (
        "the loss of several lanes' rows is not the mean of the lanes' (it looks at a batch as a whole: batch norm, "
        "pairs within it, a mean over tokens, class weights; or it has random numbers, or a state, of its own)"
    )
    GRADIENT = "the gradient of several lanes' rows is not the mean of the lanes'"
    RAISED = "the loss raised an error when it was given the rows of several lanes"


@dataclass(frozen=True)
class Look:
    """What one of the two ways gave.

    Args:
        loss: of the group's rows, weighed by their share of the step's.
        size: sum of the parts' sizes: what it is compared with.
        norms: L2 norm of each trained parameter's gradient, in order.
        drew: whether random numbers were drawn.
    """

    loss: float
    size: float
    norms: tuple[float, ...]
    drew: bool = False


@dataclass(frozen=True)
class Buffers:
    """How the two ways differ in what they changed in one of the model's buffers.

    Args:
        difference: L2 norm.
        changed: L2 norm of what the lanes changed one by one.
        before: L2 norm of those of its values that were changed, to which changes are rounded.
        counters: of whole numbers instead: whether they are equal.
    """

    difference: float = 0.0
    changed: float = 0.0
    before: float = 0.0
    counters: bool = True


@dataclass(frozen=True)
class Tolerance:
    """What counts as rounding, relative.

    Args:
        loss: of the loss.
        gradient: of the gradient, and of what buffers changed by.
    """

    loss: float = 5e-6
    gradient: float = 2e-3

    @classmethod
    def of(cls, single: bool, device: bool) -> Tolerance:
        """single: all is computed in float32 or more; device: not on a CPU, where kernels differ by the batch."""
        return cls() if single and not device else cls(1e-4, 2e-2)


ROUNDED = 1e-6
"""Of a buffer: what rounding may change in it."""
SMALL_LOSS, SMALL_GRADIENT = 0.1, 0.01
"""A loss or gradient of less than this share of the largest that was seen is compared with that share of it: where a
model has learnt all, what is left is rounding."""


@dataclass(frozen=True)
class Mismatch:
    """The two ways differ.

    Args:
        reason: the first that holds, in the order of `Reason`.
        amount: by how much, relative; 0 where that says nothing.
    """

    reason: Reason
    amount: float = 0.0


def groups(lanes: Sequence[int], most: int) -> list[Group]:
    """Lanes cut into as few groups of at most `most` as can be, of like size, in order."""
    number = -(-len(lanes) // max(1, most)) if lanes else 0
    cuts = [len(lanes) * place // number for place in range(number + 1)] if number else []
    return [tuple(lanes[first:last]) for first, last in pairwise(cuts)]


def lanes_at_once(rows: int, lane_batch: int) -> int:
    """Lanes of a batch of `rows` rows at most; one at least."""
    return max(1, rows // lane_batch)


def fitting(lane_bytes: int, free_bytes: int, share: float) -> int:
    """Lanes whose activations take at most a share of what is free; one at least.

    Args:
        lane_bytes: that one lane takes beyond what stays, at its peak; nothing is known where that is 0.
        free_bytes: before it.
        share: of the free bytes that may be taken.
    """
    return max(1, int(free_bytes * share) // lane_bytes) if lane_bytes > 0 else 1


def verdict(
    apart: Look, together: Look, buffers: Sequence[Buffers], tolerance: Tolerance, largest: Look | None
) -> Mismatch | None:
    """What the two ways say: None where they agree, or where there is nothing to compare (a loss that is no number).

    Args:
        apart: of the lanes one by one.
        together: of all at once.
        buffers: what they changed, in each.
        tolerance: what is rounding.
        largest: the largest size and norms (of the whole gradient, one number) that were seen before; None at first.
    """
    if apart.drew or together.drew:
        return Mismatch(Reason.RANDOM)
    if not _finite(apart):
        return None
    if not _finite(together):
        return Mismatch(Reason.LOSS)
    if not all(each.counters for each in buffers):
        return Mismatch(Reason.BUFFERS)
    numbers = [each for each in buffers if math.isfinite(each.changed)]
    whole = math.hypot(*(each.changed for each in numbers))
    for each in numbers:
        # Not all buffers together: a large one, that of a mask say, would hide the others.
        room = tolerance.gradient * each.changed + ROUNDED * (each.before + whole)
        if not each.difference <= room:
            return Mismatch(Reason.BUFFERS, _relative(each.difference, each.changed))
    size, length = apart.size, math.hypot(*apart.norms)
    least = (
        (SMALL_LOSS * largest.size, SMALL_GRADIENT * math.hypot(*largest.norms)) if largest is not None else (0.0, 0.0)
    )
    off = abs(apart.loss - together.loss)
    if off > tolerance.loss * max(size, least[0]):
        return Mismatch(Reason.LOSS, _relative(off, size))
    off = math.dist(apart.norms, together.norms)
    if off > tolerance.gradient * max(length, least[1]):
        return Mismatch(Reason.GRADIENT, _relative(off, length))
    return None


def says_nothing(apart: Look, together: Look, scaled: bool) -> bool:
    """Whether there is nothing to compare: the lanes' loss, or its gradient, is no number.

    Args:
        scaled: losses are multiplied for half precision. A gradient may overflow then, and one of more rows does first.
    """
    overflow = scaled and math.isfinite(together.loss) and not _finite(together)
    return not _finite(apart) or (overflow and not (apart.drew or together.drew))


def larger(known: Look | None, seen: Look) -> Look:
    """The largest size, and norm of the whole gradient, of what was known and what is seen now."""
    if not _finite(seen):
        return known or Look(0.0, 0.0, (0.0,))
    size, length = seen.size, math.hypot(*seen.norms)
    if known is not None:
        size, length = max(size, known.size), max(length, math.hypot(*known.norms))
    return Look(0.0, size, (length,))


def _relative(difference: float, size: float) -> float:
    return difference / size if size and math.isfinite(difference / size) else 0.0


def _finite(look: Look) -> bool:
    return math.isfinite(look.loss) and all(map(math.isfinite, look.norms))


class Watch:
    """When to try both ways. Only what a worker has seen itself counts; what is random is the same on all.

    Args:
        seed: of the job.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._steps: dict[Hashable, int] = {}
        """Passes of a mode in which lanes went together."""
        self._seen: set[tuple[Hashable, tuple[Group, ...]]] = set()
        """Groups of a mode that were looked at."""

    def due(self, mode: Hashable, parted: Sequence[Group], step: int) -> bool:
        """Whether this pass is to be done both ways.

        Args:
            mode: all that a loss may be another by, as far as it is known.
            parted: the groups.
            step: of the run.
        """
        count = self._steps.get(mode, 0)
        early = count < FIRST or count & (count - 1) == 0
        return early or (mode, tuple(parted)) not in self._seen or at_random(self._seed, step)

    def done(self, mode: Hashable, parted: Sequence[Group], looked: bool) -> None:
        """A pass of a mode was done with lanes together; looked: both ways, and they agreed."""
        if len(self._steps) >= MOST_KNOWN and mode not in self._steps:
            self._steps.clear()
        self._steps[mode] = self._steps.get(mode, 0) + 1
        if looked:
            if len(self._seen) >= MOST_KNOWN:
                self._seen.clear()
            self._seen.add((mode, tuple(parted)))


def at_random(seed: int, step: int) -> bool:
    """Whether this is one of the steps, one in EVERY, that all workers look at."""
    return key("together", seed, step) % EVERY == 0
