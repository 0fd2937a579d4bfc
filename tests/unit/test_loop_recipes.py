"""Recipes of loops that are more than a loss: in small, on data of their own, through a lost and a joining worker."""

from __future__ import annotations

import runpy
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.unit.loops import Undisturbed

from headway.carried import code
from headway.data.write.sizing import Sizes
from headway.data.write.writer import write_dataset
from headway.elastic.worker.context import Context
from headway.elastic.worker.loop import run_step, session_of
from headway.job import Job, load
from headway.testing.elastic import Run, advance

TRAINERS = Path(__file__).resolve().parents[2] / "trainers"
SMALL: dict[str, list[str]] = {
    "gan": ["lane_batch=8", "steps=8", "arguments.critic_steps=2", "arguments.width=16"],
    "lbfgs": ["lane_batch=16", "accumulate=2", "steps=8", "arguments.width=8", "arguments.iterations=4"],
}


def trained(context: Context, recipe: str, pace_s: float = 0.0) -> dict[str, Any]:
    """As the ready-made loop does."""

    job = context.job
    torch.manual_seed(job.seed)
    found: Any = code.load(code.locate(str(TRAINERS / recipe / job.task)))
    task = found(**job.call())
    with session_of(task) as session:
        for step in session.steps():
            time.sleep(pace_s)
            run_step(task, session, step)
            advance(session.step)
        session.evaluate(task.metrics)
    weights = {key: value.tolist() for key, value in session.model.state_dict().items()}
    return {"weights": weights, "step": session.step, "metrics": session.metrics}


def small(recipe: str, folder: Path) -> Job:
    source = code.locate(str(TRAINERS / recipe / load(TRAINERS / recipe / "job.yaml").task))
    module = runpy.run_path(str(source.folder / f"{source.module}.py"))
    table = module["points" if recipe == "gan" else "waves"](128)
    write_dataset(folder / "data", [table], name=recipe, source="test", sizes=Sizes(row_group_rows=16))
    places = [f"data.train={folder / 'data'}", f"data.validation={folder / 'data'}", "lanes=4"]
    settings = [*places, *SMALL[recipe], "epochs=null", "reproducible=bitwise", "checkpoint.every_steps=3"]
    settings += ["workers.max=3", "workers.silence_s=1", "workers.hang_s=20", "evaluate_every_steps=null"]
    job = load(TRAINERS / recipe / "job.yaml", settings)
    return job.model_copy(update={"task": job.task.rpartition("/")[2]})


@pytest.mark.parametrize("recipe", sorted(SMALL))
def test_a_lost_and_a_joining_worker_change_nothing(tmp_path: Path, recipe: str) -> None:
    job, threads = small(recipe, tmp_path), torch.get_num_threads()
    torch.set_num_threads(1)
    calm = Undisturbed(job, tmp_path / "calm", lambda context: trained(context, recipe))
    torch.set_num_threads(threads)
    with Run(tmp_path / "run", job, trained, recipe, 0.1, places=2, hold=2) as run:
        run.wait_until(lambda: len(run.members) == 2 and run.step >= 1)
        run.places(1)
        run.kill(run.members[-1])  # two others take its place, one by one
        run.release()
        outcome = run.result()
    assert outcome.failure is None, outcome.failure
    assert [step["loss"] for step in outcome.steps] == [step["loss"] for step in calm.steps]
    assert len(outcome.of("recovery")) >= 1
    for result in outcome.results.values():
        assert result == calm.result
