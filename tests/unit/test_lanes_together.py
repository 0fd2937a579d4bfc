"""Which lanes go together, when that is tried both ways, and what is concluded."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.core.lanes_together import (
    EVERY,
    Buffers,
    Look,
    Mismatch,
    Reason,
    Tolerance,
    Watch,
    at_random,
    fitting,
    groups,
    lanes_at_once,
    larger,
    says_nothing,
    verdict,
)

EXACT = Tolerance()


@given(st.lists(st.integers(0, 99), unique=True).map(sorted), st.integers(1, 12))
def test_groups_are_all_lanes_in_order_in_as_few_and_as_even_as_can_be(lanes: list[int], most: int) -> None:
    found = groups(lanes, most)
    assert [lane for group in found for lane in group] == lanes
    assert len(found) == math.ceil(len(lanes) / most)
    sizes = [len(group) for group in found]
    assert not sizes or (max(sizes) <= most and max(sizes) - min(sizes) <= 1)


def test_rows_and_bytes_become_lanes() -> None:
    assert [lanes_at_once(rows, 32) for rows in (8, 32, 63, 64, 1000)] == [1, 1, 1, 2, 31]
    assert fitting(100, 1000, 0.5) == 5
    assert fitting(100, 50, 0.5) == 1, "one lane goes, whatever is free: it did so before"
    assert fitting(0, 1000, 0.5) == 1, "where nothing was measured, nothing is risked"


def look(loss: float = 2.0, norms: tuple[float, ...] = (3.0, 4.0), drew: bool = False) -> Look:
    return Look(loss, abs(loss), norms, drew)


@pytest.mark.parametrize(
    ("together", "buffers", "reason"),
    [
        (look(), Buffers(), None),
        (look(2.000004), Buffers(), None),
        (look(2.00004), Buffers(), Reason.LOSS),
        (look(math.nan), Buffers(), Reason.LOSS),
        (look(norms=(3.0, 4.005)), Buffers(), None),
        (look(norms=(4.0, 3.0)), Buffers(), Reason.GRADIENT),
        (look(norms=(3.0, math.inf)), Buffers(), Reason.LOSS),
        (look(drew=True), Buffers(), Reason.RANDOM),
        (look(3.0), Buffers(counters=False), Reason.BUFFERS),
        (look(), Buffers(difference=1e-6, changed=0.0, before=100.0), None),
        (look(), Buffers(difference=1e-2, changed=0.0, before=100.0), Reason.BUFFERS),
        (look(), Buffers(difference=math.nan, changed=1.0), Reason.BUFFERS),
        (look(), Buffers(difference=math.nan, changed=math.inf), None),
        (look(3.0), Buffers(difference=0.1, changed=1.0), Reason.BUFFERS),
    ],
)
def test_what_differs_is_named(together: Look, buffers: Buffers, reason: Reason | None) -> None:
    found = verdict(look(), together, [Buffers(), buffers], EXACT, None)
    assert (found.reason if found else None) is reason


def test_a_large_buffer_hides_no_other() -> None:
    """One that counts, and one that hardly moves."""
    large, noise = Buffers(difference=0.0, changed=1e3, before=1e9), Buffers(difference=1e-9, changed=1e-9)
    found = verdict(look(), look(), [large, Buffers(difference=0.02, changed=0.1)], EXACT, None)
    assert found is not None
    assert found.reason is Reason.BUFFERS
    assert found.amount == pytest.approx(0.2)
    assert verdict(look(), look(), [Buffers(difference=0.0, changed=0.1), noise], EXACT, None) is None


def test_a_gradient_that_overflows_says_nothing_where_losses_are_scaled() -> None:
    overflown = look(norms=(math.inf, 1.0))
    assert says_nothing(overflown, look(), scaled=False)
    assert says_nothing(look(), overflown, scaled=True)
    assert not says_nothing(look(), overflown, scaled=False)
    assert not says_nothing(look(), look(math.nan), scaled=True)
    assert not says_nothing(look(), look(), scaled=True)


def test_by_how_much() -> None:
    found = verdict(look(2.0), look(3.0), [Buffers()], EXACT, None)
    assert found == Mismatch(Reason.LOSS, 0.5)


def test_a_loss_of_parts_that_cancel_is_compared_with_its_parts() -> None:
    apart, together = Look(0.0, 2.0, (1.0,)), Look(4e-6, 1.0, (1.0,))
    assert verdict(apart, together, [Buffers()], EXACT, None) is None


def test_a_loss_that_is_no_number_says_nothing() -> None:
    assert verdict(look(math.nan), look(5.0), [Buffers()], EXACT, None) is None
    assert verdict(look(norms=(math.inf, 1.0)), look(5.0), [Buffers()], EXACT, None) is None


def test_what_is_left_at_the_end_of_learning_is_rounding() -> None:
    """A loss of 1e-7 that was 2 is known to a few parts in a hundred."""
    begun = larger(None, look())
    apart, together = look(1.0e-7, (1e-8, 1e-8)), look(1.1e-7, (1e-8, 2e-8))
    assert verdict(apart, together, [Buffers()], EXACT, begun) is None
    assert verdict(apart, together, [Buffers()], EXACT, None) is not None
    assert larger(begun, look(math.nan)) == begun
    assert larger(begun, apart) == begun
    assert larger(begun, look(9.0)).size == 9.0


def test_half_precision_and_devices_are_given_more_room() -> None:
    assert Tolerance.of(single=True, device=False) == EXACT
    for single, device in ((True, True), (False, False), (False, True)):
        assert Tolerance.of(single, device).loss > EXACT.loss


def looks(watch: Watch, steps: range, mode: str = "a", parted: tuple[tuple[int, ...], ...] = ((0, 1),)) -> list[int]:
    found = []
    for step in steps:
        due = watch.due(mode, parted, step)
        watch.done(mode, parted, due)
        if due and not at_random(7, step):
            found.append(step)
    return found


def test_the_first_steps_are_looked_at_then_fewer_and_fewer() -> None:
    assert looks(Watch(7), range(100)) == [0, 1, 2, 4, 8, 16, 32, 64]


def test_new_groups_are_looked_at_once_and_a_new_mode_from_the_beginning() -> None:
    watch = Watch(7)
    assert looks(watch, range(100)) == [0, 1, 2, 4, 8, 16, 32, 64]
    assert looks(watch, range(100, 110), parted=((0, 1, 2),)) == [100]
    assert looks(watch, range(110, 120)) == [], "those that were there before are known"
    assert looks(watch, range(120, 130), mode="b") == [120, 121, 122, 124, 128]
    assert looks(watch, range(130, 140)) == [138], "it goes on where it was: its 128th step"


def test_a_look_that_said_nothing_is_made_again() -> None:
    watch = Watch(7)
    for step in range(5):
        assert watch.due("a", [(0, 1)], step)
        watch.done("a", [(0, 1)], looked=False)


def test_one_step_in_a_thousand_is_looked_at_by_all_workers() -> None:
    found = [step for step in range(100_000) if at_random(7, step)]
    assert 60 < len(found) < 140
    assert found != [step for step in range(100_000) if at_random(8, step)]
    assert EVERY == 1000


def test_what_is_remembered_is_bounded() -> None:
    watch = Watch(7)
    for mode in range(1000):
        watch.done(mode, [(mode,)], looked=True)
    assert len(watch._steps) <= 256
    assert len(watch._seen) <= 256
