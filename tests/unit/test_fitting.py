"""How many workers have room on nodes."""

from __future__ import annotations

from headway.core.fitting import room, rooms, short

GIB = 2.0**30
WORKER = {"CPU": 2.0, "GPU": 1.0, "memory": 4 * GIB}


def test_the_scarcest_resource_decides() -> None:
    assert room({"CPU": 16.0, "GPU": 4.0, "memory": 64 * GIB}, WORKER) == 4
    assert room({"CPU": 5.0, "GPU": 4.0, "memory": 64 * GIB}, WORKER) == 2
    assert room({"CPU": 16.0, "GPU": 4.0, "memory": 3 * GIB}, WORKER) == 0
    assert room({"CPU": 16.0}, WORKER) == 0


def test_shares_of_a_gpu_fill_it() -> None:
    assert room({"GPU": 1.0}, {"GPU": 0.1}) == 10
    assert room({"CPU": 0.0}, {"CPU": 1.0}) == 0
    assert room({"CPU": 4.0}, {}) == 0


def test_workers_do_not_reach_over_two_nodes() -> None:
    assert rooms([{"CPU": 3.0}, {"CPU": 3.0}], {"CPU": 2.0}) == 2
    assert rooms([], {"CPU": 2.0}) == 0


def test_what_is_short_is_named_with_the_most_that_there_is() -> None:
    nodes = [{"CPU": 1.0}, {"CPU": 4.0, "GPU": 2.0}]
    assert short(nodes, {"CPU": 8.0, "GPU": 1.0}) == {"CPU": (8.0, 4.0)}
    assert short(nodes, {"CPU": 8.0, "TPU": 1.0}) == {"CPU": (8.0, 4.0), "TPU": (1.0, 0.0)}
    assert short([{"CPU": 8.0}, {"GPU": 1.0}], {"CPU": 8.0, "GPU": 1.0}) == {}
