"""A job as a class trainable: it pauses, goes on and is reused, with the numbers of a run that nobody stopped."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import MakeDataset

import headway
from headway.errors import BadCheckpoint, BadInput

TASK = """
import torch
from torch import nn
from headway import Task


class Line(Task):
    def __init__(self, rate=0.1, trouble=False):
        self.rate, self.trouble = rate, trouble

    def model(self):
        return nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 2))

    def optimizer(self, model):
        return torch.optim.SGD(model.parameters(), lr=self.rate, momentum=0.9)

    def loss(self, model, batch):
        if self.trouble:
            raise KeyError("no such thing")
        return nn.functional.cross_entropy(model(batch["x"]), batch["y"])

    def metrics(self, model, batch):
        return {"loss": self.loss(model, batch)}


def loop(rate=0.1):
    import headway

    model = nn.Linear(4, 2)
    with headway.session(model, torch.optim.SGD(model.parameters(), lr=rate)) as session:
        for step in session.steps():
            for batch in step.lanes():
                step.backward(nn.functional.cross_entropy(model(batch["x"]), batch["y"]))
            if session.step % 4 == 0:
                session.evaluate(lambda m, b: {"loss": nn.functional.cross_entropy(m(b["x"]), b["y"])})
"""


@pytest.fixture(name="tree")
def _tree(tmp_path: Path, make_dataset: MakeDataset, one_thread: None) -> dict[str, Any]:
    (tmp_path / "task.py").write_text(TASK)
    train, test = make_dataset(tmp_path / "train", (64,)), make_dataset(tmp_path / "test", (16,))
    return {
        "name": "line",
        "task": f"{tmp_path / 'task.py'}:Line",
        "data": {"train": str(train), "validation": str(test)},
        "lanes": 2,
        "lane_batch": 4,
        "steps": 12,
        "evaluate_every_steps": 4,
        "schedule": {"name": "cosine"},
        "reproducible": "bitwise",
    }


Made = Any


@pytest.fixture(name="make")
def _make(tmp_path: Path) -> Iterator[Made]:
    """Trials of a job, without Ray; ended with the test."""
    trials: list[Any] = []

    def make(tree: dict[str, Any], **config: Any) -> Any:
        trials.append(headway.tune_trainable(tree)(config=config))
        return trials[-1]

    yield make
    for trial in trials:
        trial.stop()


def way(trial: Any) -> list[tuple[int, float]]:
    """Its evaluations to the end."""
    found = []
    while True:
        result = trial.train()
        found.append((result["step"], result["loss"]))
        if result["done"]:
            return found


def test_it_reports_each_evaluation_with_its_step(make: Made, tree: dict[str, Any]) -> None:
    steps = [step for step, _ in way(make(tree))]
    assert steps == [4, 8, 12]


def test_a_task_that_shows_something_trains_there_too(make: Made, tree: dict[str, Any], tmp_path: Path) -> None:
    """There is no record that could take it."""
    plain, file = way(make(tree)), tmp_path / "task.py"
    shows = 'self.log_text("rows", str(len(batch["x"])))'
    file.write_text(
        file.read_text().replace("        return nn.functional", f"        {shows}\n        return nn.functional", 1)
    )
    assert way(make(tree)) == plain


def test_a_trials_settings_are_laid_over_the_job(make: Made, tree: dict[str, Any]) -> None:
    plain, other = way(make(tree)), way(make(tree, **{"arguments.rate": 0.01}))
    assert plain != other
    assert other == way(make(tree, arguments={"rate": 0.01})), "nested, as Tune has it too"


def test_one_that_goes_on_elsewhere_has_the_numbers_of_one_that_was_not_stopped(
    make: Made, tree: dict[str, Any], tmp_path: Path
) -> None:
    whole = way(make(tree))
    first, second = make(tree), make(tree)
    first.train()
    folder = tmp_path / "kept"
    folder.mkdir()
    first.save_checkpoint(str(folder))
    first.stop()
    second.load_checkpoint(str(folder))
    assert way(second) == whole[1:]


def test_the_state_is_that_of_the_evaluation_also_when_others_were_kept_before(
    make: Made, tree: dict[str, Any], tmp_path: Path
) -> None:
    trial, folders = make(tree), [tmp_path / "one", tmp_path / "two"]
    whole = []
    for folder in folders:
        whole.append(trial.train())
        folder.mkdir()
        trial.save_checkpoint(str(folder))
    trial.load_checkpoint(str(folders[0]))
    again = trial.train()
    assert (again["step"], again["loss"]) == (8, whole[1]["loss"])


def test_a_process_takes_the_next_trial(make: Made, tree: dict[str, Any]) -> None:
    other = way(make(tree, **{"arguments.rate": 0.01}))
    trial = make(tree)
    trial.train()
    assert trial.reset({"arguments.rate": 0.01})
    assert way(trial) == other


def test_a_loop_of_ones_own_stands_at_its_evaluations(make: Made, tree: dict[str, Any], tmp_path: Path) -> None:
    own = {**tree, "task": tree["task"].replace(":Line", ":loop"), "schedule": None}
    whole = way(make(own))
    trial, folder = make(own), tmp_path / "kept"
    trial.train()
    folder.mkdir()
    trial.save_checkpoint(str(folder))
    trial.load_checkpoint(str(folder))
    assert way(trial) == whole[1:]
    assert [step for step, _ in whole] == [4, 8, 12]


def test_what_the_task_raises_is_raised_in_the_trial(make: Made, tree: dict[str, Any]) -> None:
    trial = make(tree, **{"arguments.trouble": True})
    with pytest.raises(KeyError, match="no such thing"):
        trial.train()


def test_a_population_hands_weights_to_other_settings(make: Made, tree: dict[str, Any], tmp_path: Path) -> None:
    """What `PopulationBasedTraining` does: the other's state, and rates of its own from there."""
    tree |= {"optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9}, "schedule": None}
    whole, still = way(make(tree)), make(tree, **{"optimizer.lr": 1e-12})
    first, second, folder = make(tree), make(tree, **{"optimizer.lr": 0.1 * (1 + 1e-9)}), tmp_path / "kept"
    first.train()
    folder.mkdir()
    first.save_checkpoint(str(folder))
    second.load_checkpoint(str(folder))
    assert way(second) == [(step, pytest.approx(loss, abs=1e-5)) for step, loss in whole[1:]]
    still.load_checkpoint(str(folder))
    assert [loss for _, loss in way(still)] == [pytest.approx(whole[0][1])] * 2, "where it began, by its own rate"


def test_a_checkpoint_of_another_model_is_refused(make: Made, tree: dict[str, Any], tmp_path: Path) -> None:
    first, second, folder = (
        make(tree),
        make({**tree, "task": tree["task"].replace(":Line", ":loop")}),
        tmp_path / "kept",
    )
    first.train()
    folder.mkdir()
    first.save_checkpoint(str(folder))
    second.load_checkpoint(str(folder))
    with pytest.raises(BadCheckpoint):
        second.train()


def test_a_job_that_cannot_be_judged_is_refused(tree: dict[str, Any]) -> None:
    del tree["data"]["validation"]
    with pytest.raises(BadInput, match=r"data\.validation"):
        headway.tune_trainable(tree)


def test_settings_that_make_no_job_are_refused(make: Made, tree: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match="optimizer"):
        make(tree, **{"optimizer.nam": "sgd"})


def test_a_trial_takes_the_place_of_one_worker(tree: dict[str, Any]) -> None:
    tree["workers"] = {"cpus": 2, "max": 2}
    trial = headway.tune_trainable(tree)
    assert trial.default_resource_request({}).bundles == [{"CPU": 2.0}]


def test_it_travels_with_the_code(tree: dict[str, Any], tmp_path: Path) -> None:
    """By value, as Tune sends it: another machine has neither the task's file nor the class."""
    from ray import cloudpickle

    sent = cloudpickle.dumps(headway.tune_trainable(tree))
    (tmp_path / "task.py").unlink()
    trial = cloudpickle.loads(sent)(config={})
    assert trial.train()["step"] == 4
    trial.stop()
