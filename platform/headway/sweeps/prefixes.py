"""Which trials begin alike: a job as a `core.prefix.Course`."""

from __future__ import annotations

import ast
import hashlib
import json
from typing import Literal

from headway.carried.code import Source
from headway.core.prefix import Course
from headway.core.schedules import SCHEDULES, Shape
from headway.job import Job

Own = Literal["", "schedule", "loop"]
"""What of a task's code may do otherwise in a longer run: nothing, a schedule of its own, all of its loop."""
APART = frozenset(
    {
        "name",
        "schedule",
        "epochs",
        "steps",
        "evaluate_every_steps",
        "workers",
        "checkpoint",
        "tracking",
        "notify",
        "replica_check_every",
        "files",
        "check",
    }
)
"""Keys of a job that its first steps do not hang on, or that are looked at by themselves."""


def course(job: Job, total_steps: int, own: Own) -> Course:
    """What a job computes.

    Args:
        job: of a trial.
        total_steps: that it comes to.
        own: what of the task's code may go by the length of the run; see `own_of`.
    """
    kept = job.model_dump(mode="json", exclude=set(APART))
    rest = hashlib.sha256(json.dumps(kept, sort_keys=True, default=str).encode()).hexdigest()
    shape = _shape(job, total_steps, own)
    if shape is None:  # nothing is known of what it does at which length: only the same job is the same
        length = [job.schedule.model_dump(mode="json") if job.schedule else None, job.evaluate_every_steps]
        rest = hashlib.sha256(json.dumps([rest, length]).encode()).hexdigest()
    return Course(total_steps, rest, shape)


def _shape(job: Job, total_steps: int, own: Own) -> Shape | None:
    section = job.schedule
    if own == "loop" or job.stop is not None or (section is not None and section.name not in SCHEDULES):
        return None
    if section is not None:
        return Shape.of(section, total_steps)
    return None if own == "schedule" else Shape("constant", total_steps)


def own_of(source: Source) -> Own:
    """Of a task, by its text alone; where that does not tell, all. (A hook sees the run's length and its
    evaluations; a class of the user's own that a task is made from may give it some.)"""
    path = source.folder / f"{source.module.replace('.', '/')}.py"
    try:
        tree = ast.parse(path.read_bytes(), str(path))
    except (OSError, SyntaxError, ValueError):
        return "loop"
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == source.name:
            plain = all(ast.unparse(base) in ("headway.Task", "Task") for base in node.bases)
            made = {each.name for each in node.body if isinstance(each, ast.FunctionDef)}
            named = {
                t.id for each in node.body if isinstance(each, ast.Assign) for t in each.targets if hasattr(t, "id")
            }
            if not plain or "hooks" in made | named:
                return "loop"
            return "schedule" if "schedule" in made | named else ""
    return "loop"
