"""What is believed of a cloud's list of machines: it lags, forgets, and shows what is gone."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from headway.core.inventory import (
    INSIST_LONGEST_S,
    INSIST_S,
    SETTLE_S,
    Belief,
    Draining,
    Known,
    Limits,
    Standing,
    believe,
    ended,
)

LIMITS = Limits(boot_s=100.0, drained_s=300.0)
NEW = Known(since=0.0)
OLD = Known(since=-1000.0, joined=True, listed=True)


def look(
    known: dict[str, Known],
    listed: dict[str, bool],
    nodes: dict[str, Standing] | None,
    now: float = 10.0,
    head: str = "",
) -> Belief:
    return believe(known, listed, nodes, now, LIMITS, head)


def test_what_is_listed_is_shown() -> None:
    belief = look({}, {"i-1": False}, {})
    assert belief.shown == ("i-1",)
    assert belief.known == {"i-1": Known(since=10.0, listed=True)}


def test_a_machine_just_asked_for_may_not_be_listed_yet() -> None:
    assert look({"i-1": NEW}, {}, {}, now=SETTLE_S - 1).shown == ("i-1",)
    late = look({"i-1": NEW}, {}, {}, now=SETTLE_S + 1)
    assert (late.shown, late.lost, late.known) == ((), ("i-1",), {})


def test_one_that_was_listed_and_is_not_is_gone_if_no_node_is_on_it() -> None:
    belief = look({"i-1": replace(NEW, listed=True)}, {}, {}, now=11.0)
    assert (belief.shown, belief.lost) == ((), ("i-1",))


def test_one_that_works_is_kept_though_the_cloud_forgets_it() -> None:
    """Ray's autoscaler would write it off for good, and end it once it is listed again."""
    standings: list[Standing] = ["alive", Draining(), Draining(500.0)]
    for standing in standings:
        belief = look({"i-1": OLD}, {}, {"i-1": standing})
        assert belief.shown == belief.masked == ("i-1",)
        assert belief.lost == ()
    assert look({"i-1": OLD}, {}, {"i-1": "dead"}).shown == ()


def test_where_ray_cannot_be_asked_one_that_worked_is_kept_too() -> None:
    assert look({"i-1": OLD}, {}, None).shown == ("i-1",)


def test_it_is_noticed_once_that_a_machine_has_joined() -> None:
    belief = look({"i-1": NEW}, {"i-1": False}, {"i-1": "alive"})
    assert belief.joined == ("i-1",)
    assert look(dict(belief.known), {"i-1": False}, {"i-1": "alive"}).joined == ()


def test_a_machine_that_does_not_boot_is_ended_and_counts_as_a_failed_boot() -> None:
    known = {"i-1": replace(NEW, listed=True)}
    assert look(known, {"i-1": False}, {}, now=99.0).endings == ()
    belief = look(known, {"i-1": False}, {}, now=100.0)
    assert [(each.machine, each.failed_boot) for each in belief.endings] == [("i-1", True)]
    assert belief.shown == ()
    assert look(known, {"i-1": False}, None, now=1000.0).endings == ()  # Ray may know better


def test_one_whose_announced_end_does_not_come_is_ended() -> None:
    belief = look({"i-1": OLD}, {"i-1": False}, {"i-1": Draining()}, now=10.0)
    assert belief.endings == ()
    later = look(dict(belief.known), {"i-1": False}, {"i-1": Draining()}, now=10.0 + LIMITS.drained_s)
    assert [each.failed_boot for each in later.endings] == [False]
    back = look(dict(belief.known), {"i-1": False}, {"i-1": "alive"}, now=10.0 + LIMITS.drained_s)
    assert back.endings == ()


def test_one_that_drains_is_left_alone_until_its_announced_end() -> None:
    slow: dict[str, Standing] = {"i-1": Draining(until=1810.0)}
    belief = look({"i-1": OLD}, {"i-1": False}, slow, now=10.0)
    before = look(dict(belief.known), {"i-1": False}, slow, now=1809.0 + LIMITS.drained_s)
    assert before.endings == (), "a worker may work there until then"
    late = look(dict(before.known), {"i-1": False}, slow, now=1811.0 + LIMITS.drained_s)
    assert [each.reason for each in late.endings] == ["it was to end 301 s ago, and did not"]
    sooner: dict[str, Standing] = {"i-1": Draining(until=20.0)}
    assert look(dict(before.known), {"i-1": False}, sooner, now=20.0 + LIMITS.drained_s).endings, "what was said last"


def test_one_that_was_ended_is_not_shown_again_and_its_end_is_insisted_on() -> None:
    """Shown, it would be a machine on its way in Ray's eyes, and nothing would be bought in its stead."""
    known = {"i-1": ended(OLD, 10.0)}
    belief = look(known, {"i-1": False}, {"i-1": "dead"}, now=10.0 + INSIST_S - 1)
    assert (belief.shown, belief.endings) == ((), ())
    now, times = 10.0, []
    for _ in range(8):
        while not look(known, {"i-1": False}, {}, now=now).endings:
            now += 1.0
        times.append(now)
        known = {"i-1": ended(known["i-1"], now)}
    pauses = [after - before for before, after in pairwise(times)]
    assert pauses[0] == 2 * INSIST_S
    assert pauses[-1] == INSIST_LONGEST_S


def test_once_it_is_listed_no_more_it_is_forgotten_and_was_no_failed_boot() -> None:
    belief = look({"i-1": ended(NEW, 10.0)}, {}, {}, now=11.0)
    assert (belief.known, belief.lost, belief.shown) == ({}, (), ())


def test_one_on_its_way_out_is_not_shown() -> None:
    assert look({"i-1": OLD}, {"i-1": True}, {"i-1": "alive"}).shown == ()
    taken = look({"i-1": replace(NEW, listed=True)}, {"i-1": True}, {})
    assert taken.lost == ("i-1",)
    assert look(dict(taken.known), {"i-1": True}, {}).lost == ()


def test_the_head_is_shown_whatever_the_cloud_says_and_never_ended() -> None:
    head = {"i-0": Known(since=0.0, listed=True)}
    assert look(head, {"i-0": False}, {}, now=1e6, head="i-0").endings == ()
    assert look(head, {"i-0": True}, {"i-0": "alive"}, head="i-0").shown == ("i-0",)
    assert look({"i-0": OLD}, {}, {"i-0": "alive"}, head="i-0").shown == ("i-0",)


MACHINES = [f"i-{i}" for i in range(4)]
LOOKS = st.tuples(
    st.dictionaries(st.sampled_from(MACHINES), st.booleans()),
    st.none()
    | st.dictionaries(st.sampled_from(MACHINES), st.sampled_from(["alive", Draining(), Draining(500.0), "dead"])),
    st.floats(0, 200),
)


@given(st.lists(LOOKS, max_size=30))
def test_whatever_the_cloud_says_what_works_is_shown_until_it_is_ended_and_what_is_ended_is_not(
    looks: list[tuple[dict[str, bool], dict[str, Standing] | None, float]],
) -> None:
    known: dict[str, Known] = {}
    now = 0.0
    for listed, nodes, pause in looks:
        now += pause
        belief = believe(known, listed, nodes, now, LIMITS)
        assert set(belief.joined) | set(belief.lost) <= known.keys() | listed.keys()
        known = dict(belief.known)
        for ending in belief.endings:
            assert ending.machine in listed
            known[ending.machine] = ended(known[ending.machine], now)
        assert not {each for each in belief.shown if known[each].ended is not None}
        for machine, item in known.items():
            works = (nodes or {}).get(machine) == "alive" and not listed.get(machine, False)
            if works and item.ended is None:
                assert machine in belief.shown
        assert set(belief.shown) <= known.keys()
        assert set(belief.masked) <= set(belief.shown)
