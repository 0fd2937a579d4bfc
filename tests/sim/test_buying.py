"""What a run costs whose machines are bought as far as they pay, beside all at once and beside none but the fewest."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from headway.core.demand import fastest
from headway.core.membership import Policy
from headway.sim.buying import Bill, Buying, Market

HOURS = 3600.0


def bill(hours: float, at_once: int | None = 1, most: int = 8, boot_s: float = 60.0, lanes: int = 8) -> Bill:
    """Of a run that takes so long on one worker."""
    lane_s = 0.5
    return Buying(Policy(lanes, 1, most), Market(boot_s), int(hours * HOURS / (lane_s * lanes)), lane_s, at_once).run()


def test_a_short_run_buys_one_machine_and_a_long_one_all_that_are_faster() -> None:
    short, all_at_once = bill(0.05), bill(0.05, at_once=None)
    assert short.bought == 1
    assert all_at_once.bought == 8
    assert short.dollars < all_at_once.dollars / 2
    long = bill(8.0)
    assert long.bought == 8
    assert long.seconds < 1.1 * bill(8.0, at_once=None).seconds
    assert long.sizes[0][1] == 1, "it begins as soon as one is there"
    assert long.sizes[-1][1] == 8


def test_machines_that_are_no_faster_are_not_bought() -> None:
    as_it_pays, all_at_once = bill(4.0, most=7), bill(4.0, at_once=None, most=7)
    assert (as_it_pays.bought, all_at_once.bought) == (4, 7)
    assert as_it_pays.seconds < 1.1 * all_at_once.seconds
    assert as_it_pays.dollars < 0.7 * all_at_once.dollars


def test_machines_that_take_long_to_come_are_bought_for_long_runs_only() -> None:
    assert bill(1.0, boot_s=30.0).bought == 8
    assert bill(1.0, boot_s=1800.0).bought == 1


def test_what_somebody_asks_for_comes_and_goes() -> None:
    run = Buying(Policy(8, 1, 2), Market(30.0), 3000, 0.5, 1, {600.0: (4, 4), 1200.0: (1, 1)}).run()
    assert 4 in [size for _, size in run.sizes]
    assert run.sizes[-1][1] == 1


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.floats(0.02, 3.0), st.floats(5.0, 900.0))
def test_it_is_never_slower_than_the_fewest_nor_dearer_than_twice_their_price(
    lanes: int, most: int, hours: float, boot_s: float
) -> None:
    """Twice: an hour sooner costs no more than an hour, and there are no more hours to save than there are."""
    most = min(lanes, most)
    found, fewest = bill(hours, most=most, boot_s=boot_s, lanes=lanes), bill(hours, most=1, boot_s=boot_s, lanes=lanes)
    assert found.bought <= fastest(lanes, most)
    assert found.seconds <= fewest.seconds + 2.0
    assert found.dollars <= 2.1 * fewest.dollars + 0.01
