"""Which sizes pay, and what is asked for of a cluster that buys machines."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.core.demand import ENDLESS_S, Outlook, fastest, pays, sizes, worth


def outlook(**fields: float) -> Outlook:
    known = {
        "lanes": 8,
        "at_once": 1,
        "most": 8,
        "training": 2,
        "there": 2,
        "asked": 2,
        "rest_s": 3600.0,
        "come_s": 60.0,
    }
    return Outlook(**{**known, **fields})  # type: ignore[arg-type]


def test_sizes_that_pay_are_those_at_which_the_slowest_has_a_lane_less() -> None:
    assert sizes(8, 8) == (1, 2, 3, 4, 8)
    assert sizes(8, 7) == (1, 2, 3, 4)
    assert sizes(1, 5) == (1,)
    assert sizes(12, 12) == (1, 2, 3, 4, 6, 12)
    assert fastest(8, 7) == 4
    for lanes, most in ((0, 1), (1, 0)):
        with pytest.raises(ValueError, match="lanes on"):
            sizes(lanes, most)


@given(st.integers(1, 300), st.integers(1, 300))
def test_no_other_size_is_faster_or_cheaper(lanes: int, most: int) -> None:
    found = sizes(lanes, most)
    longest = [-(-lanes // size) for size in range(1, min(lanes, most) + 1)]
    assert [size for size in range(1, len(longest) + 1) if size == 1 or longest[size - 1] < longest[size - 2]] == list(
        found
    )


def test_a_long_run_has_all_that_are_faster_and_a_short_one_none() -> None:
    assert worth(outlook()).workers == 8
    assert worth(outlook(most=7)).workers == 4
    assert "more than 4 workers are no faster with 8 lanes" in worth(outlook(most=7)).reason
    short = worth(outlook(rest_s=100.0))
    assert short.workers == 2
    assert short.reason == "more would not pay: 100 s are left, and a machine takes 60 s to come"
    assert [worth(outlook(rest_s=float(rest))).workers for rest in (179, 181, 299, 301)] == [2, 4, 4, 8]


def test_min_is_asked_for_at_once_and_more_once_a_step_is_known() -> None:
    first = worth(outlook(at_once=3, training=0, there=0, asked=0, rest_s=None))
    assert (first.workers, first.reason) == (3, "more are asked for once it is known how long a step takes")
    assert worth(outlook(at_once=3, rest_s=61.0)).workers == 3, "whether or not it pays"
    assert worth(outlook(at_once=8, rest_s=None)).workers == 8
    assert worth(outlook(at_once=5, most=6, rest_s=1.0)).workers == 5, "somebody said so"


def test_what_was_asked_for_stays_so_while_it_could_still_come() -> None:
    assert worth(outlook(asked=4, rest_s=100.0)).workers == 4
    assert worth(outlook(asked=4, rest_s=None)).workers == 4, "a new generation has no pace yet"
    assert worth(outlook(asked=4, rest_s=59.0)).workers == 2
    assert worth(outlook(asked=4, there=4, rest_s=59.0)).workers == 4, "those that are there are not sent away"


def test_dearer_machines_pay_less() -> None:
    assert worth(outlook(rest_s=ENDLESS_S, price=1.9)).workers == 8
    assert worth(outlook(rest_s=400.0, price=1.0)).workers == 8
    assert worth(outlook(rest_s=400.0, price=1.5)).workers == 2
    assert worth(outlook(rest_s=ENDLESS_S, price=3.0)).workers == 2
    assert "at 3.0 times the price" in worth(outlook(rest_s=7200.0, price=3.0)).reason
    assert worth(outlook(rest_s=ENDLESS_S, price=0.3)).workers == 8


looks = st.builds(
    Outlook,
    lanes=st.integers(1, 64),
    at_once=st.integers(1, 64),
    most=st.integers(1, 64),
    training=st.integers(0, 64),
    there=st.integers(0, 64),
    asked=st.integers(0, 64),
    rest_s=st.none() | st.floats(0.0, 1e6),
    come_s=st.floats(0.0, 1e4),
    price=st.floats(0.1, 10.0),
)


@given(looks)
def test_never_more_than_wanted_nor_less_than_at_once_nor_any_that_is_no_faster(look: Outlook) -> None:
    found = worth(look)
    assert found.reason
    assert min(look.at_once, look.most) <= found.workers <= look.most
    if found.workers > max(look.at_once, look.there, look.asked):
        assert found.workers in sizes(look.lanes, look.most)
        assert pays(look, found.workers)


@given(looks, st.floats(1.0, 100.0))
def test_with_more_left_to_do_no_fewer_are_worth_it(look: Outlook, longer: float) -> None:
    if look.rest_s is not None:
        assert worth(replace(look, rest_s=look.rest_s * longer)).workers >= worth(look).workers
