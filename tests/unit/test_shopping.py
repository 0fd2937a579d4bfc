"""Which machine is asked for next, and what is left alone after a refusal, and for how long."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from headway.cluster.market import Option
from headway.core.shopping import (
    AS_LISTED,
    CAPACITY,
    NEVER_CAME,
    THROTTLED,
    UNREACHABLE,
    Patience,
    Shopping,
    Try,
    Wait,
)

A = Option("c", "a", True, 0.30)
B = Option("c", "b", True, 0.20)
DEAR = Option("d", "a", False, 1.50)
FREE = Option("e", "a")
ALL = [A, B, DEAR]
FIRST_S = Patience().first_s[CAPACITY]

Shop = Shopping[Option]


def chosen(shop: Shop, now: float, options: list[Option] = ALL, order: str = "cheapest") -> Option | None:
    step = shop.choose(options, now, order)
    return step.option if isinstance(step, Try) else None


def test_the_cheapest_first_and_those_of_no_price_last() -> None:
    assert chosen(Shop(), 0.0) == B
    assert chosen(Shop(), 0.0, [FREE, A]) == A
    assert chosen(Shop(), 0.0, [FREE]) == FREE


def test_or_as_listed() -> None:
    assert chosen(Shop(), 0.0, order=AS_LISTED) == A


def test_after_a_refusal_the_next_is_tried_and_the_reason_told() -> None:
    shop = Shop().refused(B, CAPACITY, "none is left", 100.0)
    step = shop.choose(ALL, 105.0)
    assert isinstance(step, Try)
    assert step.option == A
    assert "the next in price" in step.reason
    assert "c in b spot: capacity for 5 s now: none is left, asked again in 15 s" in step.reason


def test_a_refused_one_is_asked_again_when_its_time_is_over() -> None:
    shop = Shop().refused(B, CAPACITY, "none is left", 100.0)
    assert chosen(shop, 100.0 + FIRST_S - 0.1) == A
    assert chosen(shop, 100.0 + FIRST_S) == B


def test_pauses_double_up_to_a_longest_and_end_with_a_machine() -> None:
    shop, now, pauses = Shop(), 0.0, []
    for _ in range(12):
        shop = shop.refused(B, CAPACITY, "", now)
        pauses.append(shop.refusals[B].until - now)
        now = shop.refusals[B].until
    assert pauses[:4] == [FIRST_S, 2 * FIRST_S, 4 * FIRST_S, 8 * FIRST_S]
    assert pauses[-1] == pauses[-2] == Patience().longest_s[CAPACITY]
    assert shop.refusals[B].since == 0.0
    assert shop.served(B).refusals == {}


def test_requests_that_were_refused_together_are_one_refusal() -> None:
    shop = Shop().refused(B, CAPACITY, "", 10.0, asked=9.0)
    for _ in range(5):
        shop = shop.refused(B, CAPACITY, "", 10.5, asked=9.5)
    assert shop.refusals[B].times == 1
    assert shop.refused(B, CAPACITY, "", 40.0, asked=35.0).refusals[B].times == 2


def test_after_a_refusal_one_at_a_time_asks_again() -> None:
    shop = Shop().refused(B, CAPACITY, "", 0.0)
    shop = shop.asked(B, FIRST_S)
    assert chosen(shop, FIRST_S) == A
    assert Shop().asked(B, 0.0) == Shop()  # what never refused may be asked by many at once


def test_a_cloud_that_wants_less_haste_is_left_alone_as_a_whole() -> None:
    for kind in (THROTTLED, UNREACHABLE):
        shop = Shop().refused(B, kind, "slow down", 0.0)
        step = shop.choose(ALL, 0.5)
        assert isinstance(step, Wait)
        assert "the cloud" in step.reason
        assert "slow down" in step.reason
        assert chosen(shop, step.until) == B
        assert chosen(shop.served(B), 0.5) == B


def test_what_the_cloud_says_of_when_to_ask_again_holds() -> None:
    shop = Shop().refused(B, CAPACITY, "", 0.0, retry_s=500.0)
    assert shop.refusals[B].until == 500.0
    assert Shop().refused(B, CAPACITY, "", 0.0, retry_s=1.0).refusals[B].until == FIRST_S


def test_when_all_are_refused_the_soonest_is_waited_for_and_all_reasons_told() -> None:
    shop = Shop()
    for at, option in enumerate(ALL):
        shop = shop.refused(option, CAPACITY, f"no {option}", float(at))
    step = shop.choose(ALL, 3.0)
    assert isinstance(step, Wait)
    assert step.until == FIRST_S
    assert all(f"no {option}" in step.reason for option in ALL)


def test_a_machine_that_was_got_and_never_came_is_no_reason_to_buy_it_again() -> None:
    shop = Shop().served(B).refused(B, NEVER_CAME, "i-1", 0.0)
    assert chosen(shop, 1.0) == A
    again = shop.refusals[B].until
    shop = shop.served(B)  # it is sold, but that is not the question
    assert shop.refusals[B].kind == NEVER_CAME
    shop = shop.refused(B, NEVER_CAME, "i-2", again)
    assert shop.refusals[B].until - again == 2 * Patience().first_s[NEVER_CAME]
    assert shop.came(B).refusals == {}


def test_a_kind_that_is_not_known_counts_as_one() -> None:
    assert Shop().refused(B, "strange", "", 0.0).refusals[B].kind == "unknown"


KINDS = st.sampled_from(sorted(Patience().first_s))


@given(
    st.lists(st.tuples(st.sampled_from(ALL), KINDS, st.floats(0, 1000), st.booleans()), max_size=40),
    st.floats(0, 2000),
)
def test_something_is_tried_or_waited_for_and_the_wait_ends(
    history: list[tuple[Option, str, float, bool]], late: float
) -> None:
    shop, now = Shop(), 0.0
    for option, kind, pause, served in history:
        now += pause
        shop = shop.served(option) if served else shop.refused(option, kind, "", now)
    now += late
    step = shop.choose(ALL, now)
    if isinstance(step, Wait):
        assert now < step.until <= now + max(Patience().longest_s.values())
        step = shop.choose(ALL, step.until)
        while isinstance(step, Wait):  # the market's own pause may end before an option's
            step = shop.choose(ALL, step.until)
    assert step.option in ALL
    assert step.reason
