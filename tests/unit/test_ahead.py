"""Values that are worked out once, by whoever needs them first."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from headway.data.read.ahead import Once


def test_an_error_is_final_for_the_thread_that_met_it_and_tried_again_by_others() -> None:
    tries: list[int] = []

    def make() -> int:
        tries.append(len(tries))
        if len(tries) == 1:
            raise OSError("away")
        return 7

    once = Once(make)
    for _ in range(2):
        with pytest.raises(OSError, match="away"):
            once.get()
    assert len(tries) == 1
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(once.get).result(20) == 7
    assert once.get() == 7
    assert len(tries) == 2


def test_an_interrupt_is_of_the_moment() -> None:
    """A task of the cluster that is cancelled leaves the value to be worked out by the next one in its process."""
    interrupted = iter([True, False])

    def make() -> int:
        if next(interrupted):
            raise KeyboardInterrupt
        return 7

    once = Once(make)
    with pytest.raises(KeyboardInterrupt):
        once.get()
    assert once.get() == 7
