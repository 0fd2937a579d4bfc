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


def test_who_joins_while_another_is_gone_is_no_part_of_it() -> None:
    incidents = Incidents()
    incidents.note("process_died", ["w1"], 5.0)
    incidents.note("joined", ["w3"], 6.0)
    found = told(incidents)
    assert found is not None
    assert found.workers == ("w1",)
