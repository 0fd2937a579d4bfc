"""How long two jobs are the same run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from headway.carried import code
from headway.core.prefix import Beginning, Course, beginnings, common
from headway.core.schedules import Shape
from headway.job import Job, parse
from headway.sweeps.prefixes import course, own_of


def job(**fields: Any) -> Job:
    tree = {
        "name": "n",
        "task": "t.py:T",
        "data": {"train": "d"},
        "steps": 100,
        "optimizer": {"name": "sgd", "lr": 0.1},
    }
    return parse({**tree, **fields})


def shared(one: Job, other: Job, own: Any = "") -> int:
    courses = [course(each, each.steps or 0, own) for each in (one, other)]
    assert common(*courses) == common(*courses[::-1])
    return common(*courses)


def test_constant_rates_share_all_of_the_shorter_one() -> None:
    assert shared(job(), job(steps=400)) == 100
    assert shared(job(), job(schedule={"name": "constant"})) == 100
    assert shared(job(), job(evaluate_every_steps=5, name="another", workers={"max": 3})) == 100


def test_schedules_of_another_length_share_their_warm_up() -> None:
    cosine = {"name": "cosine", "warmup_steps": 20}
    # The factor of update 20 is the cosine's first, 1, in both; that of update 21 is not.
    assert shared(job(schedule=cosine), job(schedule=cosine, steps=200)) == 20
    assert shared(job(schedule=cosine), job(schedule={"name": "linear", "warmup_steps": 20}, steps=200)) == 20
    assert shared(job(schedule={"name": "cosine"}), job(schedule={"name": "cosine"}, steps=200)) == 0
    assert shared(job(schedule=cosine), job(schedule=cosine)) == 100


def test_a_drop_that_comes_later_is_a_beginning_in_common() -> None:
    early, late = {"name": "step", "every": 80, "factor": 0.1}, {"name": "step", "every": 90, "factor": 0.1}
    assert shared(job(schedule=early), job(schedule=late)) == 79  # after 80 steps the optimiser holds the lower rate
    assert shared(job(schedule=early), job()) == 79
    assert shared(job(schedule=early), job(schedule=early, steps=300)) == 100


@pytest.mark.parametrize(
    "other", [{"optimizer": {"name": "sgd", "lr": 0.2}}, {"seed": 1}, {"arguments": {"a": 1}}, {"lanes": 4}]
)
def test_whatever_else_differs_leaves_nothing(other: dict[str, Any]) -> None:
    assert shared(job(), job(**other)) == 0


def test_where_the_users_code_or_evaluations_decide_only_the_same_is_the_same() -> None:
    plateau = {"schedule": {"name": "plateau", "metric": "loss"}}
    assert shared(job(**plateau), job(**plateau)) == 100
    assert shared(job(**plateau), job(**plateau, steps=200)) == 0
    assert shared(job(**plateau), job(**plateau, evaluate_every_steps=7)) == 0
    stop = {"stop": {"patience": 2}, "data": {"train": "d", "validation": "v"}}
    assert shared(job(**stop), job(**stop)) == 100
    assert shared(job(**stop), job(**stop, steps=200)) == 0  # the shorter one may have ended, and counts its last one
    assert shared(job(), job(steps=200), "loop") == 0
    assert shared(job(), job(steps=200), "schedule") == 0
    assert shared(job(), job(), "loop") == 100
    named = {"schedule": {"name": "constant"}}
    assert shared(job(**named), job(**named, steps=200), "schedule") == 100  # the job's takes its place
    assert shared(job(**named), job(**named, steps=200), "loop") == 0


def test_each_begins_with_the_longest_that_there_is() -> None:
    def of(steps: int, every: int, rest: str = "a") -> Course:
        return Course(steps, rest, Shape("step", steps, 0, (("every", every), ("factor", 0.1))))

    found = beginnings([of(100, 40), of(100, 80), of(100, 90), of(100, 90, "b"), of(100, 80)])
    assert found == [None, Beginning(0, 39), Beginning(1, 79), None, Beginning(1, 100)]


@pytest.mark.parametrize(
    ("text", "own"),
    [
        ("import headway\nclass T(headway.Task):\n    def loss(self): ...\n", ""),
        ("from headway import Task\nclass T(Task):\n    def schedule(self, optimizer, steps): ...\n", "schedule"),
        ("import headway\nclass T(headway.Task):\n    schedule = None\n", "schedule"),
        ("import other\nclass T(other.Base):\n    pass\n", "loop"),
        ("import headway\nclass T(headway.Task):\n    def hooks(self): ...\n", "loop"),
        ("def T():\n    pass\n", "loop"),
        ("from other import T\n", "loop"),
        ("class T(\n", "loop"),
    ],
)
def test_what_a_tasks_code_may_make_of_the_length(text: str, own: str, tmp_path: Path) -> None:
    (tmp_path / "t.py").write_text(text)
    assert own_of(code.locate(f"{tmp_path / 't.py'}:T")) == own
