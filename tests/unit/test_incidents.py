"""What an interruption is called."""

from __future__ import annotations

import pytest

from headway.core.events import Committed, Generation, Recovered
from headway.core.incidents import Incidents

ACTIVE = Generation(3, ("w0",), ((0,),), True, "r")


def told(incidents: Incidents) -> Recovered | None:
    found = incidents.over(Committed("w0", 3, 8, 0.4, 9.0), ACTIVE)
    return found[0] if found else None


def test_it_is_told_once_with_its_times() -> None:
    incidents = Incidents()
    incidents.note("link_cut", ["w1"], 5.0, 2.0)
    incidents.note("link_cut", ["w1", "w2"], 5.5, 2.5)
    reason = "step 8 is committed by generation 3"
    assert told(incidents) == Recovered("link_cut", ("w1", "w2"), 3, 8, 5.0, 9.0, 2.0, 0.4, reason)
    assert told(incidents) is None


@pytest.mark.parametrize("first", ["joined", "drained", "rebalanced"])
def test_a_planned_change_takes_the_name_of_what_comes_into_it(first: str) -> None:
    incidents = Incidents()
    incidents.note(first, ["w1"], 5.0)
    incidents.note("process_died", ["w2"], 6.0)
    found = told(incidents)
    assert found is not None
    assert (found.cause, found.workers, found.detected_at) == ("process_died", ("w2",), 6.0)


@pytest.mark.parametrize("first", ["connection_lost", "stuck"])
def test_what_broke_is_named_by_what_explains_it_from_when_it_broke(first: str) -> None:
    incidents = Incidents()
    incidents.note(first, [], 5.0)
    incidents.note("parted", ["w2"], 5.3)
    found = told(incidents)
    assert found is not None
    assert (found.cause, found.workers, found.detected_at) == ("parted", ("w2",), 5.0)


@pytest.mark.parametrize("says", ["connection_lost", "stuck"])
def test_who_lost_the_others_is_not_lost_itself(says: str) -> None:
    incidents = Incidents()
    incidents.note("process_died", ["w1"], 5.0)
    incidents.note(says, ["w0"], 5.1)
    found = told(incidents)
    assert found is not None
    assert (found.cause, found.workers) == ("process_died", ("w1",))


def test_who_joins_while_another_is_gone_is_no_part_of_it() -> None:
    incidents = Incidents()
    incidents.note("process_died", ["w1"], 5.0)
    incidents.note("joined", ["w3"], 6.0)
    found = told(incidents)
    assert found is not None
    assert found.workers == ("w1",)


def test_who_joins_in_the_same_generation_is_told_of_beside_the_loss() -> None:
    incidents = Incidents()
    incidents.note("process_died", ["w1"], 5.0)
    incidents.note("joined", ["w0"], 6.0)
    incidents.note("joined", ["w0"], 6.5)
    found = incidents.over(Committed("w0", 3, 8, 0.4, 9.0), ACTIVE)
    assert [(r.cause, r.workers, r.detected_at) for r in found] == [
        ("process_died", ("w1",), 5.0),
        ("joined", ("w0",), 6.0),
    ]
    assert told(incidents) is None


def test_who_is_still_to_join_when_a_loss_is_over_is_told_of_later() -> None:
    incidents = Incidents()
    incidents.note("process_died", ["w1"], 5.0)
    incidents.note("joined", ["w2"], 6.0)
    (lost,) = incidents.over(Committed("w0", 3, 8, 0.4, 9.0), ACTIVE)
    assert lost.cause == "process_died"
    joined = Generation(4, ("w0", "w2"), ((0,), (1,)), False, "r")
    (found,) = incidents.over(Committed("w0", 4, 9, 0.1, 9.5), joined)
    assert (found.cause, found.workers, found.detected_at, found.resumed_at) == ("joined", ("w2",), 6.0, 9.5)


def test_one_that_dies_before_it_has_joined_takes_no_name() -> None:
    incidents = Incidents()
    incidents.note("process_died", ["w1"], 5.0)
    incidents.note("joined", ["w2"], 6.0)
    incidents.over(Committed("w0", 3, 8, 0.4, 9.0), ACTIVE)
    incidents.note("process_died", ["w2"], 9.2)
    found = told(incidents)
    assert found is not None
    assert (found.cause, found.workers, found.detected_at) == ("process_died", ("w2",), 9.2)
