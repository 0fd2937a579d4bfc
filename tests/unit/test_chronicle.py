"""What happened to a run, in words: every kind of event, from any release."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest

import headway
from headway.core import chronicle
from headway.core.chronicle import Entry, live, tell

RECOVERY = {"kind": "recovery", "workers": ["w1"], "step": 77, "pause_s": 0.553, "lost_steps": 0, "generation": 2}
TOLD: list[tuple[dict[str, Any], str]] = [
    ({"kind": "start", "host": "head", "by": "anna@x", "step": 0}, "started on head: submitted by anna@x"),
    ({"kind": "start", "host": "head", "by": "", "step": 40}, "started on head again, with 40 steps recorded"),
    (
        {"kind": "generation", "members": ["w0", "w1"], "step": 3, "reason": "w1 joined"},
        "2 workers train from step 3 on (w0, w1): w1 joined",
    ),
    (
        {"kind": "generation", "members": [f"w{n}" for n in range(9)], "step": -1, "reason": "9 workers are ready"},
        "9 workers train (w0, w1, w2, w3, w4, w5, w6, w7, ...): 9 workers are ready",
    ),
    ({"kind": "workers", "workers": 1, "step": 5}, "1 worker from step 5 on"),
    (
        {"kind": "policy", "workers": 3, "on_demand": 1, "reason": "as many as are worth their price", "spent": 0.25},
        "3 workers, 1 of them on demand: as many as are worth their price; 0.2500 dollars so far",
    ),
    (
        {"kind": "foreseen", "about": "money", "text": "budget.usd=1 ends it", "over": False},
        "foreseen: budget.usd=1 ends it",
    ),
    (
        {"kind": "foreseen", "about": "money", "text": "budget.usd=1 ends it", "over": True},
        "no longer foreseen: budget.usd=1 ends it",
    ),
    (
        {**RECOVERY, "cause": "node_died"},
        "lost w1: its node is gone; the others went on with step 76 after 0.55 s, nothing was lost",
    ),
    (
        {**RECOVERY, "cause": "hung", "lost_steps": 4},
        "lost w1: its training thread hangs; nobody was left, and training went on from a checkpoint (4 steps back)",
    ),
    (
        {**RECOVERY, "cause": "process_died", "kept": True},
        "lost w1: its process ended; nobody was left, and training went on from a state that was kept in memory",
    ),
    ({**RECOVERY, "cause": "joined"}, "w1 joined before step 77 (a pause of 0.55 s)"),
    ({**RECOVERY, "cause": "drained"}, "w1 left after step 76 (a pause of 0.55 s)"),
    ({**RECOVERY, "cause": "resized"}, "w1 left after step 76 (a pause of 0.55 s)"),
    ({**RECOVERY, "cause": "rebalanced"}, "lanes are shared anew since step 76"),
    (
        {"kind": "restart", "from_step": 40, "lost_steps": 2},
        "going on from the checkpoint of step 40: 2 steps are done again",
    ),
    (
        {"kind": "restart", "from_step": 42, "lost_steps": 0, "kept": True},
        "going on from the state of step 42 that a keeper held: nothing is done again",
    ),
    (
        {"kind": "gone", "worker": "w3", "cause": "start_failed"},
        "w3 is gone before it trained: it could not be started; another is asked for",
    ),
    (
        {"kind": "lost", "worker": "w0", "peers": ["w1"], "reason": "reset by peer", "generation": 1},
        "w0 lost w1 in the middle of a step: reset by peer; the others tell whether anybody is gone",
    ),
    ({"kind": "drain", "worker": "w1", "deadline_s": 30.2}, "w1's machine is taken away in 30 s; its lanes move on"),
    (
        {"kind": "drain", "worker": "w1", "deadline_s": 30.2, "reason": "AWS takes it"},
        "w1's machine is taken away in 30 s: AWS takes it; its lanes move on",
    ),
    (
        {"kind": "at_risk", "worker": "w1", "node_id": "0" * 56, "reason": "AWS says so"},
        "w1's machine may be taken away before long: AWS says so; it leaves when another has taken its place",
    ),
    (
        {"kind": "lingered", "worker": "w1", "seconds": 30.0},
        "w1 was let go, and had not ended 30 s later; it is ended",
    ),
    ({"kind": "head_drain", "deadline_s": 30.2}, "the machine that leads the run is taken away in 30 s"),
    ({"kind": "pause", "reason": "w1 is gone; 1 left, 2 needed"}, "training pauses: w1 is gone; 1 left, 2 needed"),
    ({"kind": "doubt", "reason": "all are silent"}, "nobody is given up for silence now: all are silent"),
    ({"kind": "doubt", "reason": None}, "workers are heard again"),
    (
        {
            "kind": "raised",
            "worker": "w1",
            "starting": True,
            "fault": "user",
            "fact": "f",
            "reason": "r",
            "node_id": "0" * 56,
        },
        "w1 could not start: f: r (node 00000000)",
    ),
    (
        {
            "kind": "raised",
            "worker": "w1",
            "starting": False,
            "fault": "machine",
            "fact": "f",
            "reason": "r",
            "node_id": "ab",
        },
        "w1 leaves: f: r (node ab)",
    ),
    (
        {
            "kind": "raised",
            "worker": "w1",
            "starting": False,
            "fault": "user",
            "fact": "f",
            "reason": "r",
            "node_id": "ab",
        },
        "the task raised on w1: f: r (node ab)",
    ),
    (
        {"kind": "crowded", "worker": "w2"},
        "there is no room for a spare (w2): training goes on without, until there is",
    ),
    (
        {"kind": "rounding", "worker": "w2", "refused": True},
        "w2's machine rounds otherwise than the others: it is not taken",
    ),
    ({"kind": "refused", "counts": {"strangers": 2}}, "refused on the run's ports so far: 2 strangers"),
    (
        {"kind": "replica", "worker": "w1", "step": 100},
        "the replica of w1 differed before step 100, and took the majority's state",
    ),
    ({"kind": "quarantine", "rows": 8, "source": "data.train", "reason": "x"}, "8 rows of data.train are set aside: x"),
    ({"kind": "slow", "worker": "w1", "factor": 3.14}, "w1 takes 3.1 times as long per lane as the others"),
    ({"kind": "slow", "worker": "w1", "factor": 1.0}, "w1 is as fast as the others again"),
    ({"kind": "warned", "worker": "w1", "text": "UserWarning: so"}, "w1 warns: UserWarning: so"),
    ({"kind": "checkpoint", "step": 40, "bytes": 2_500_000}, "the checkpoint of step 40 is written (2.5 MB)"),
    ({"kind": "checkpoint", "step": 40, "bytes": 2_500}, "the checkpoint of step 40 is written (2.5 kB)"),
    (
        {"kind": "checkpoint_failed", "error": "No space left on device"},
        "a checkpoint could not be written: No space left on device; training goes on, and tries again",
    ),
    ({"kind": "stop", "by": "anna@x", "now": False}, "anna@x asks the run to end after a checkpoint"),
    ({"kind": "resize", "by": "anna@x", "min": 2, "max": 4, "request": "a"}, "anna@x asks for 4 workers, at least 2"),
    (
        {"kind": "demand", "workers": 3, "reason": "more would not pay: 9 s are left"},
        "machines are asked for, for 3 workers in all: more would not pay: 9 s are left",
    ),
    (
        {"kind": "purchase", "machine": "i-1", "type": "c", "zone": "a", "spot": True, "since": 0.5, "per_hour": 0.3},
        "machine i-1 is paid for (c in a, spot): $0.3 an hour",
    ),
    (
        {"kind": "purchase", "machine": "i-0", "type": "m", "head": True, "since": 0.5, "unpriced": True},
        "machine i-0 is paid for (m, the head): it has no price",
    ),
    ({"kind": "purchase", "machine": "i-1", "at": 0.9, "per_hour": 0.4}, "machine i-1 costs $0.4 an hour now"),
    ({"kind": "purchase", "machine": "i-1", "until": 0.9}, "machine i-1 costs nothing any more"),
    ({"kind": "stake", "machine": "i-1", "share": 0.5}, "the run pays 50.0% of machine i-1"),
    ({"kind": "stake", "machine": "i-1", "at": 0.9, "workers": 1}, "machine i-1 carries 1 worker of the run"),
    ({"kind": "stake", "stored_gb": 1.5}, "1.5 GB are stored for the run"),
    ({"kind": "stake", "storage": 0.02}, "a gigabyte costs $0.02 a month"),
    ({"kind": "resize", "by": "anna@x", "min": 1, "max": 1, "request": ""}, "anna@x asks for 1 worker"),
    ({"kind": "stop", "by": None, "now": True}, "a signal asks the run to end at once, without a checkpoint"),
    ({"kind": "end", "state": "finished", "message": "", "cause": None, "step": 90}, "finished after step 90"),
    (
        {"kind": "end", "state": "failed", "message": "m", "cause": "task", "step": 9},
        "failed after step 9 by the task's fault: m; headway resume goes on with it",
    ),
    (
        {"kind": "end", "state": "stopped", "message": "stopped by anna@x after step 9", "step": 9},
        "stopped: stopped by anna@x after step 9; headway resume goes on with it",
    ),
    (
        {"kind": "end", "state": "interrupted", "message": "gone", "step": 9, "closed_by": "anna@x"},
        "interrupted after step 9: gone (found by anna@x); headway resume goes on with it",
    ),
    (
        {"kind": "submission", "ended": False, "by": "anna@x", "id": "headway-r-1", "status": "RUNNING"},
        "submitted to the cluster: by anna@x; headway-r-1",
    ),
    (
        {"kind": "submission", "ended": True, "id": "headway-r-1", "status": "FAILED", "message": "so"},
        "Ray says that headway-r-1 has ended: FAILED: so",
    ),
    (
        {
            "kind": "submission",
            "ended": True,
            "id": "headway-r-1",
            "status": "FAILED",
            "message": "failed with exit code 4, last available logs (truncated to 20,000 chars):\nmany\nlines",
        },
        "Ray says that headway-r-1 has ended: FAILED: failed with exit code 4",
    ),
]


@pytest.mark.parametrize(("event", "text"), TOLD)
def test_each_kind_in_words(event: dict[str, Any], text: str) -> None:
    assert tell({"time": 1.0, **event}).text == text


def test_every_kind_is_tried_here() -> None:
    assert {event["kind"] for event, _ in TOLD} == chronicle.KINDS


def test_every_kind_that_is_recorded_has_words() -> None:
    """Of every call in the lead that tells an event, and every line that is written to events.jsonl."""
    found = set()
    for path in (Path(headway.__file__).parent / "elastic" / "lead").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
                first = node.args[0]
                if node.func.attr == "event" and isinstance(first, ast.Constant) and first.value not in NO_RECORDS:
                    found.add(first.value)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "line":
                found |= {
                    value.value
                    for argument in node.args[1:]
                    if isinstance(argument, ast.Dict)
                    for key, value in zip(argument.keys, argument.values, strict=True)
                    if isinstance(key, ast.Constant) and key.value == "kind" and isinstance(value, ast.Constant)
                }
    assert {"generation", "recovery", "start", "end", "gone"} <= found, "the search finds what is known to be there"
    assert found <= chronicle.KINDS


NO_RECORDS = {"members", "waits"}
"""Told to the recorder, and not kept as events."""


@pytest.mark.parametrize(
    "event",
    [
        {"kind": "novel", "worker": "w1", "time": 1.0},
        {"kind": "recovery", "time": 1.0},
        {"kind": "end", "time": 1.0, "state": "finished"},
        {"kind": "start"},
        {"time": 1.0},
        {"kind": "quarantine", "rows": None},
    ],
)
def test_what_another_release_wrote_is_told_as_it_stands(event: dict[str, Any]) -> None:
    told = tell(event)
    assert told == Entry(told.what)
    assert told.what.startswith(str(event.get("kind", "")))


def test_only_what_concerns_who_follows_is_said_live() -> None:
    assert live({**RECOVERY, "cause": "joined"}).startswith("w1 joined")
    assert live({"kind": "slow", "worker": "w1", "factor": 2.0})
    for quiet in (
        {"kind": "slow", "worker": "w1", "factor": 1.0},
        {"kind": "workers", "workers": 1, "step": 5},
        {
            "kind": "raised",
            "worker": "w1",
            "starting": False,
            "fault": "user",
            "fact": "f",
            "reason": "r",
            "node_id": "ab",
        },
        {"kind": "checkpoint", "step": 40, "bytes": 1},
        {"kind": "end", "state": "finished", "step": 1},
    ):
        assert live(quiet) == ""
