"""Which worker carries which lanes."""

from __future__ import annotations

from itertools import pairwise


def carried(lanes: int, workers: int) -> list[range]:
    """Lanes cut into one contiguous range per worker, sizes differing by at most one: 8 lanes on 3 workers are 3, 3, 2.

    Raises:
        ValueError: if there is no worker, or more workers than lanes (some would carry nothing).
    """
    if not 1 <= workers <= lanes:
        raise ValueError(f"{lanes} lanes cannot be carried by {workers} workers")
    share, extra = divmod(lanes, workers)
    starts = [rank * share + min(rank, extra) for rank in range(workers + 1)]
    return [range(start, stop) for start, stop in pairwise(starts)]
