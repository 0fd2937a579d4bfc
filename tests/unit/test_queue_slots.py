"""Where workers fit: against counting node by node."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from headway.core.queued import Each
from headway.core.slots import MANY, Layers, Room, Shape, Slots, fit, less, room

SHAPES = [Shape(each) for each in (Each(1.0, 1.0), Each(2.0, 0.0), Each(4.0, 2.0), Each(0.1, 0.25, 2.0**28))]
ROOMS = st.lists(
    st.builds(lambda cpus, gpus: room(Each(cpus, gpus, 2.0**30)), st.integers(0, 9), st.integers(0, 9)),
    min_size=1,
    max_size=8,
)


def has(cpus: float, gpus: float) -> Room:
    return room(Each(cpus, gpus))


def test_what_fits_is_bound_by_what_is_scarcest() -> None:
    assert fit(room(Each(8.0, 4.0, 100.0)), Shape(Each(1.0, 2.0, 10.0))) == 2
    assert fit(has(-1.0, 4.0), Shape(Each(0.0, 2.0))) == 2, "what is overdrawn and not asked for does not matter"
    assert fit(has(-1.0, 4.0), Shape(Each(1.0, 2.0))) == 0
    assert fit(has(0.0, 0.0), Shape(Each(0.0))) == MANY


def test_tenths_and_thirds_come_out_even() -> None:
    left = has(1.0, 1.0)
    for _ in range(10):
        left = less(left, Shape(Each(0.1, 0.1)), 1)
    assert left == (0, 0, 0)
    assert fit(has(1.0, 1.0), Shape(Each(1 / 3, 1 / 3))) == 3


@given(ROOMS, st.lists(st.tuples(st.sampled_from(SHAPES), st.integers(1, 12)), max_size=12))
def test_counts_are_right_whatever_was_taken(rooms: list[Room], wants: list[tuple[Shape, int]]) -> None:
    slots = Slots(rooms)
    taken = []
    for each, workers in wants:
        before = slots.total(each)
        places = slots.pick(each, workers)
        assert len({node for node, _ in places}) == len(places)
        assert sum(count for _, count in places) == min(workers, before)
        assert all(count <= slots.fits(node, each) for node, count in places)
        slots.put(places, each)
        taken.append((places, each))
        for other in SHAPES:
            assert slots.total(other) == sum(fit(free, other) for free in slots.free)
    for places, each in reversed(taken):
        slots.put(places, each, -1)
    assert slots.free == Slots(rooms).free


def test_few_nodes_are_used_and_the_fullest_that_do() -> None:
    slots = Slots([has(8, 8), has(3, 3), has(8, 8), has(5, 5)])
    assert slots.pick(SHAPES[0], 3) == [(1, 3)]
    assert slots.pick(SHAPES[0], 4) == [(3, 4)]
    assert slots.pick(SHAPES[0], 11) == [(0, 8), (1, 3)]
    assert slots.pick(SHAPES[0], 14) == [(0, 8), (2, 6)]


def test_who_begins_disturbs_nobody_where_there_is_room() -> None:
    layers = Layers([has(0, 0), has(2, 2)], [has(8, 8), has(2, 2)])
    assert layers.take(SHAPES[0], 2) == [(1, 2)]
    assert layers.take(SHAPES[0], 3) == [(0, 3)]
    assert layers.later.free[0] == has(-3, -3)
    assert layers.take(SHAPES[0], 6) is None
