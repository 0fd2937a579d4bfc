"""How a run stands, by what its place and Ray say; why it waits."""

from __future__ import annotations

import pytest

from headway.core import events, waits
from headway.core.known import Records, Standing, Submission, standing
from headway.core.membership import Membership, Policy

NOT_ASKED = "no cluster was asked"
RUNNING = Records("running", waits="", since=10.0, last=20.0)
SILENT = Records("running", since=10.0, last=20.0, unheard=True)
ALIVE = Submission("RUNNING", "Job is currently running.", started=5.0)
DEAD = Submission("FAILED", "the node is gone", started=5.0, ended=30.0)


@pytest.mark.parametrize(
    ("records", "job", "unread", "unasked", "state", "said", "since", "unheard"),
    [
        (RUNNING, None, "", NOT_ASKED, "running", "", 10.0, None),
        (RUNNING, ALIVE, "", "", "running", "", 10.0, None),
        (Records("running", waits="for workers", since=9.0), ALIVE, "", "", "running", "for workers", 9.0, None),
        # What cannot be asked says nothing: it is running until somebody who knows says otherwise.
        (SILENT, None, "", NOT_ASKED, "running", f"not heard of; {NOT_ASKED}", 20.0, 20.0),
        (SILENT, None, "", "connection refused", "running", "not heard of; connection refused", 20.0, 20.0),
        (SILENT, None, "", "", "running", "not heard of; Ray knows no job of it", 20.0, 20.0),
        (SILENT, ALIVE, "", "", "running", "not heard of; Ray says RUNNING", 20.0, 20.0),
        # Ray knows that the driver has ended: at once it is only said, and believed when the run is silent too.
        (RUNNING, DEAD, "", "", "running", "Ray says that its driver has ended (FAILED: the node is gone)", 30.0, None),
        (SILENT, DEAD, "", "", "interrupted", "its driver has ended without a word, Ray says (FAILED", 30.0, None),
        # A driver that has ended long before the run was begun again, by another way, is not this one's.
        (Records("running", since=50.0, last=60.0), DEAD, "", "", "running", "", 50.0, None),
        (Records("finished", since=40.0), ALIVE, "", "", "finished", "", 40.0, None),
        (Records("stopped", "by anna", since=40.0), DEAD, "", "", "stopped", "by anna", 40.0, None),
        (Records("failed", "so", since=4.0), ALIVE, "", "", "starting", "it was failed, and is to go on", 5.0, None),
        (None, ALIVE, "", "", "starting", "it has no run yet", 5.0, None),
        (None, Submission("PENDING", started=5.0), "", "", "starting", "Ray has not begun it yet", 5.0, None),
        (None, DEAD, "", "", "failed", "no run is there; Ray says: FAILED: the node is gone", 30.0, None),
        (None, ALIVE, "no route", "", "running", "its place cannot be read from here: no route", 5.0, None),
        (None, DEAD, "no route", "", "failed", "its place cannot be read from here: no route", 30.0, None),
        (None, None, "no route", NOT_ASKED, "unknown", "no route", None, None),
    ],
)
def test_how_a_run_stands(
    records: Records | None,
    job: Submission | None,
    unread: str,
    unasked: str,
    state: str,
    said: str,
    since: float | None,
    unheard: float | None,
) -> None:
    found = standing(records, job, unread, unasked)
    assert (found.state, found.since, found.unheard_since) == (state, since, unheard)
    assert said in (found.waits or found.message) if said else found.waits + found.message == ""


def test_nothing_is_ever_dead_because_it_could_not_be_asked() -> None:
    """Whatever cannot be reached, a run that was running is not said to have ended."""
    for records in (RUNNING, SILENT):
        for job in (None, ALIVE):
            for unasked in ("", NOT_ASKED, "time-out"):
                assert standing(records, job, "", unasked).state == "running"
    assert standing(None, None, "time-out", "time-out") == Standing("unknown", "time-out")


def test_why_nobody_trains() -> None:
    group = Membership(Policy(lanes=4, min=2, max=3))
    group.begin()
    assert waits.why(group) == "for workers: 0 of 2 are ready, 3 have no place on the cluster yet"
    assert waits.why(group, "none of c in a is left").endswith("place on the cluster yet (none of c in a is left)")
    for name in ("w0", "w1"):
        group.step(events.Placed(name, f"node-{name}", 1.0))
    assert waits.why(group) == "for workers: 0 of 2 are ready, 2 start, 1 has no place on the cluster yet"
    group.step(events.Ready("w0", 2.0))
    assert waits.why(group).startswith("for workers: 1 of 2 is ready, 1 starts")
    group.step(events.Ready("w1", 3.0))
    group.step(events.Tick(10.0))
    assert waits.why(group) == "its 2 workers find each other"
    for name in ("w0", "w1"):
        group.step(events.Arrived(name, 1, -1, 0, False, 11.0))
    assert waits.why(group) == ""
    assert waits.more(group) == "2 of 3 workers train: 1 has no place on the cluster yet"
    assert waits.more(group, "none of c in a is left").endswith("yet (none of c in a is left)")
    group.step(events.Committed("w0", 1, 1, 0.0, 12.0))
    group.step(events.Gone("w1", "process_died", 13.0))
    assert waits.why(group) == "for workers: 1 of 2 is ready, 2 have no place on the cluster yet"
    assert waits.more(group) == "", "that is said already"
