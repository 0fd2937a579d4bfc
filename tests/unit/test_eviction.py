"""What leaves a full cache: the needed last, and never what is needed sooner than the newcomer."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from headway.core.eviction import ABANDONED, UNANNOUNCED, Entry, next_uses, removable

ENTRIES = st.lists(
    st.tuples(
        st.integers(1, 100),
        st.one_of(st.integers(0, 20).map(float), st.sampled_from([UNANNOUNCED, ABANDONED])),
        st.integers(0, 5).map(float),
    ),
    max_size=20,
).map(lambda found: [Entry(f"{i:02d}", *entry) for i, entry in enumerate(found)])
LISTS = st.lists(st.lists(st.integers(0, 30), max_size=40), max_size=4)


@given(ENTRIES, st.integers(0, 20).map(float))
def test_only_what_is_needed_later_goes_and_the_latest_goes_first(entries: list[Entry], next_use: float) -> None:
    order = removable(entries, next_use)
    assert {e.name for e in order} == {e.name for e in entries if e.next_use > next_use}
    for first, then in pairwise(order):
        assert first.next_use > then.next_use or (first.next_use == then.next_use and first.last_use <= then.last_use)


def test_the_abandoned_go_before_the_unannounced_and_these_before_the_announced() -> None:
    entries = [Entry("a", 1, 3.0, 9), Entry("b", 1, UNANNOUNCED, 0), Entry("c", 1, ABANDONED, 9)]
    assert [e.name for e in removable(entries, 2.0)] == ["c", "b", "a"]
    assert [e.name for e in removable(entries, UNANNOUNCED)] == ["c"]


@given(LISTS)
def test_next_use_is_the_first_place_in_any_list(lists: list[list[int]]) -> None:
    found = next_uses([np.array(groups, np.int64) for groups in lists])
    for group in range(31):
        places = [groups.index(group) for groups in lists if group in groups]
        told = found[group] if group < len(found) else int(UNANNOUNCED)
        assert told == min(places, default=int(UNANNOUNCED))


def misses(walk: Sequence[int], room: int) -> int:
    """Row groups brought on a walk with room for so many, as the cache decides it."""
    kept: set[int] = set()
    brought = 0
    for at, group in enumerate(walk):
        if group in kept:
            continue
        brought += 1
        uses = next_uses([np.array(walk[at + 1 :], np.int64)])
        when = {g: float(uses[g]) if g < len(uses) else UNANNOUNCED for g in {*kept, group}}
        if len(kept) == room:
            order = removable([Entry(str(g), 1, when[g], 0.0) for g in sorted(kept)], when[group])
            if not order:
                continue
            kept.remove(int(order[0].name))
        kept.add(group)
    return brought


def fewest(walk: tuple[int, ...], room: int) -> int:
    """The fewest that any choice could have brought, by trying all."""
    states = {frozenset[int](): 0}
    for group in walk:
        following: dict[frozenset[int], int] = {}
        for kept, brought in states.items():
            if group in kept:
                options = [(kept, brought)]
            else:
                whole = kept | {group}
                choices = [kept, whole] if len(whole) <= room else [kept, *(whole - {gone} for gone in kept)]
                options = [(choice, brought + 1) for choice in choices]
            for state, count in options:
                following[state] = min(count, following.get(state, count))
        states = following
    return min(states.values())


@given(st.lists(st.integers(0, 5), max_size=12), st.integers(1, 4))
def test_no_choice_would_have_brought_fewer(walk: list[int], room: int) -> None:
    assert misses(walk, room) == fewest(tuple(walk), room)
