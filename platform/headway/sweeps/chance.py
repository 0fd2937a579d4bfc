"""Chance for code of others, which draws from the generators that belong to everybody."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_inside = threading.RLock()


@contextmanager
def rolled(seed: int, call: int) -> Iterator[None]:
    """The generators of `random` and of numpy as the number of a call has them; afterwards as they were before.

    What is called inside says the same again when its calls are made again. One thread is inside at a time, and others
    wait: they would draw from its numbers (a searcher has a thread of its own, beside the scheduler's).
    """
    import numpy as np

    with _inside:
        before, numpys = random.getstate(), np.random.get_state()
        random.seed(f"{seed}/{call}")
        np.random.seed(random.getrandbits(32))
        try:
            yield
        finally:
            random.setstate(before)
            np.random.set_state(numpys)
