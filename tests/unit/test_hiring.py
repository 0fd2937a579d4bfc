"""Back-off, avoided nodes, and when to give up."""

from __future__ import annotations

from headway.core.hiring import ATTEMPTS, ATTEMPTS_S, FORGIVEN_S, LONGEST_DELAY_S, Hiring


def hiring(most: int = 2) -> Hiring:
    found = Hiring(most, 900.0)
    for node in ("n0", "n1"):
        found.ask(1, "r", 0.0)
        found.placed(f"w{node[1]}", node)
    return found


def test_names_are_given_once() -> None:
    found = Hiring(3, 900.0)
    assert [a.worker for a in found.ask(2, "r", 0.0) + found.ask(1, "r", 0.0)] == ["w0", "w1", "w2"]
    assert found.ask(0, "r", 0.0) == found.ask(-1, "r", 0.0) == []
    assert found.placed("w1", "n")
    assert not found.placed("w1", "n")
    assert found.asked == {"w0", "w2"}


def test_2_3_starts_that_fail_are_backed_off_until_one_succeeds() -> None:
    found = hiring()
    delays = []
    for _ in range(10):
        found.failed(None, 1.0)
        delays.append(found.ask(1, "r", 1.0)[0].after_s)
    assert delays == [0.0, 2.0, 4.0, 8.0, 16.0, 32.0, *[LONGEST_DELAY_S] * 4]
    found.seated()
    assert found.ask(1, "r", 1.0)[0].after_s == 0.0


def test_2_3_a_node_is_avoided_after_its_second_failed_start_and_forgiven_in_time() -> None:
    found = hiring()
    found.failed("n1", 1.0)
    assert found.ask(1, "r", 1.0)[0].avoid == ()
    found.failed("n1", 2.0)
    assert found.ask(1, "r", 2.0)[0].avoid == ("n1",)
    assert found.avoided(2.0 + FORGIVEN_S - 0.1) == ("n1",)
    assert found.avoided(2.0 + FORGIVEN_S) == ()


def test_2_3_two_failures_far_apart_are_chance() -> None:
    found = hiring()
    found.failed("n1", 1.0)
    found.failed("n1", 1.0 + FORGIVEN_S)
    assert found.avoided(1.0 + FORGIVEN_S) == ()


def test_2_3_all_are_forgiven_when_no_other_node_is_left() -> None:
    found = hiring()
    found.avoid("n0", 1.0)
    assert found.avoided(1.0) == ("n0",)
    found.avoid("n1", 1.0)
    assert found.avoided(1.0) == ()


def test_2_3_giving_up_takes_attempts_and_time() -> None:
    found = hiring(most=1)
    assert not any(found.hopeless(float(i), False, False) for i in range(ATTEMPTS + 5)), "many, in seconds"
    assert found.hopeless(ATTEMPTS_S, False, False)
    found.stands()
    assert not found.hopeless(2 * ATTEMPTS_S, False, False), "somebody stood in between"
    assert not found.hopeless(4 * ATTEMPTS_S, False, False), "few, in minutes"


def test_2_3_others_that_are_warming_up_are_waited_for_but_not_for_ever() -> None:
    found = hiring(most=1)
    assert not any(found.hopeless(100.0 * i, False, True) for i in range(9))
    assert found.hopeless(1000.0, False, True)


def test_2_3_the_users_error_needs_no_second_attempt() -> None:
    assert hiring().hopeless(1.0, True, False)
    found = hiring()
    assert [found.hopeless(1.0, True, True) for _ in range(ATTEMPTS)] == [False] * (ATTEMPTS - 1) + [True]
