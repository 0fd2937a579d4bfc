"""The sweep that comes with a recipe, without its data and without running it: tests/recipes runs the job."""

from __future__ import annotations

from pathlib import Path

from headway.sweeps.file import load

RECIPE = Path(__file__).parents[2] / "trainers" / "image_classification"


def test_the_image_recipes_sweep_is_a_good_one() -> None:
    sweep = load(RECIPE / "sweep.yaml")
    job = sweep.job_of({"arguments.rate": 0.01, "arguments.dropout": 0.1, "arguments.channels": 8})
    assert job.arguments == {"rate": 0.01, "dropout": 0.1, "channels": 8}
    assert (sweep.trials, sweep.metric, sweep.scheduler.name) == (12, "accuracy", "asha")
    gates = sweep.scheduler.first, job.evaluate_every_steps
    assert gates == (20, 20), "the first rung is where trials are evaluated"
