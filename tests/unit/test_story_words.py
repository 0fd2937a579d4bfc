"""The first lines of a run's page, for each way that a run can go."""

from __future__ import annotations

from typing import Any

import pytest

from headway.report.shape import Best, Data, Headline, Job, Run, Task
from headway.report.words import Known, of, time

RUN = Run(
    name="r",
    state="finished",
    message="",
    cause=None,
    by="",
    created=0.0,
    started=1.0,
    ended=254.0,
    seconds=254.0,
    path="runs/r",
    local=False,
    notes=[],
)
HEAD = Headline(
    steps=940,
    total_steps=940,
    epochs=4.0,
    samples=240_000,
    goodput=0.93,
    workers_max=2,
    worker_seconds=480.0,
    dollars=None,
    best=Best(metric="accuracy", mode="max", value=0.91272, step=900),
    metrics={"accuracy": 0.9071},
    loss=0.21,
    losses=0,
    joins=0,
    recoveries=0,
    repeated_steps=0,
    repeated_seconds=0.0,
    longest_pause_s=None,
    starts=1,
    checkpoints=9,
)
TRAIN = Data(
    role="train",
    name="clothes/train",
    digest="",
    rows=60_000,
    bytes=None,
    version=1,
    source="",
    label="",
    place="",
    columns=[],
    quarantined=0,
)


def told(run: dict[str, Any] | None = None, head: dict[str, Any] | None = None, **more: Any) -> dict[str, str]:
    known: dict[str, Any] = {
        "run": RUN.model_copy(update=run or {}),
        "task": Task(name="clothes", description="", model="CNN", parameters=421_642, arguments={}),
        "job": Job(yaml="", digest="ab" * 32, code_digest=""),
        "data": [TRAIN, TRAIN.model_copy(update={"role": "validation", "name": "clothes/test", "rows": 10_000})],
        "headline": HEAD.model_copy(update=head or {}),
        "validation": {"accuracy": 0.9071},
        "ledger": {"compute": 446.0, "start": 20.0, "idle": 10.0, "regroup": 4.0},
        "saved": [900, 940],
        "command": "headway train runs/r/job.yaml --name r-again",
    }
    return of(Known(**{**known, **more})).model_dump()


def test_a_quiet_run() -> None:
    assert told() == {
        "what": "clothes (CNN, 421,642 parameters) was trained on up to 2 workers.",
        "data": "Trained on clothes/train (60,000 rows); 240,000 rows were seen in training (4 epochs). "
        "It was measured on clothes/test (10,000 rows).",
        "how_well": "The best accuracy was 0.9127, after step 900. The last evaluation gave accuracy 0.9071. "
        "The training loss ended at 0.21.",
        "how_long": "Finished after all 940 steps, 4 min 14 s after it was begun.",
        "cost": "It took 8 min of workers' time; 93.0% of it went into steps that count. "
        "Most of the rest was starting workers (4%) and waiting (2%).",
        "trouble": "Nothing went wrong: no worker was lost and no step was repeated.",
        "again": "Run it again with `headway train runs/r/job.yaml --name r-again`. "
        "The same job has digest abababababab.",
    }


@pytest.mark.parametrize(
    ("run", "head", "long", "trouble"),
    [
        ({"state": "running"}, {"steps": 400}, "Running after 400 of 940 steps", "Nothing went wrong"),
        (
            {"message": "early: the task's loop ended after step 500 of 940 (patience)"},
            {"steps": 500},
            "Finished early after 500 of 940 steps",
            "It ended before its last step: early: the task's loop ended after step 500 of 940 (patience).",
        ),
        (
            {"state": "stopped", "message": "ada asked for it"},
            {"steps": 500},
            "Stopped on request after 500 of 940 steps",
            "It ended before its last step: ada asked for it.",
        ),
        (
            {"state": "interrupted", "message": "the process that led the run is gone"},
            {"steps": 500},
            "Interrupted after 500 of 940 steps",
            "It was interrupted: the process that led the run is gone.",
        ),
        (
            {"state": "failed", "cause": "task", "message": "ValueError: bad"},
            {"steps": 500},
            "Failed by the task's own fault after 500 of 940 steps",
            "It failed: ValueError: bad.",
        ),
        (
            {"state": "failed", "cause": "platform", "message": ""},
            {"steps": 0, "total_steps": None, "loss": None, "best": None},
            "Failed by the platform's fault after 0 steps",
            "It failed.",
        ),
    ],
)
def test_every_end_is_told(run: dict[str, Any], head: dict[str, Any], long: str, trouble: str) -> None:
    words = told(run, head)
    assert words["how_long"].startswith(long)
    assert trouble in words["trouble"]
    goes_on = "`headway resume r`" in words["again"]
    assert goes_on == (run.get("state") in ("stopped", "interrupted", "failed"))


def test_a_loss_that_did_not_matter_is_told_as_one() -> None:
    words = told(head={"losses": 3, "joins": 2, "longest_pause_s": 0.153}, lost={"process_died": 2, "node_died": 1})
    assert words["trouble"] == (
        "3 workers were lost (a process ended twice and a machine was gone). It did not matter: the others went on "
        "after 0.15 s at most, and no step was lost or repeated. 2 workers joined while it trained."
    )


def test_a_loss_that_cost_steps_is_never_told_as_one_that_did_not_matter() -> None:
    words = told(head={"losses": 1, "repeated_steps": 12}, lost={"node_died": 1}, checkpoint=1)
    assert "did not matter" not in words["trouble"]
    assert "Training went back to a checkpoint once. 12 steps were done again." in words["trouble"]
    words = told(head={"losses": 1}, lost={"node_died": 1}, kept=1)
    assert "went on from a state that was kept in memory. No step was done twice." in words["trouble"]


def test_rows_that_were_set_aside_and_dollars_are_told() -> None:
    words = told(head={"dollars": 1.5}, aside=1)
    assert "1 row could not be read and was set aside." in words["trouble"]
    assert "of workers' time, which is $1.50;" in words["cost"]


def test_where_nothing_is_known_nothing_is_made_up() -> None:
    head = {"best": None, "metrics": {}, "loss": None, "worker_seconds": None, "goodput": None, "epochs": None}
    words = told({"seconds": None}, {**head, "steps": 0}, data=[], validation={}, command="", ledger={})
    assert words["data"] == "What it was trained on is not recorded."
    assert words["how_well"] == "No step was committed."
    assert words["cost"] == "What it cost is not recorded."
    assert words["again"] == "How it was started is not recorded."


def test_why_lanes_were_apart_is_said_with_what_it_cost() -> None:
    assert told(apart="lanes are computed one by one from step 4 on: noise")["cost"].endswith(
        " Lanes are computed one by one from step 4 on: noise."
    )
    assert "one by one" not in told()["cost"]


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.153, "0.15 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.7, "1 min"),
        (254, "4 min 14 s"),
        (3599.9, "1 h"),
        (7320, "2 h 2 min"),
        (86400 * 2, "2 days"),
        (86400 * 3 + 3600 * 5, "3 days 5 h"),
    ],
)
def test_time_is_said_as_people_do(seconds: float, said: str) -> None:
    assert time(seconds) == said
