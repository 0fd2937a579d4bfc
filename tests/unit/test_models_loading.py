"""`headway.load_model`: the state of the step that is meant, in plain PyTorch."""

from __future__ import annotations

import shutil
from contextlib import chdir
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.unit.trained import TASK, points, trained
from torch import nn

import headway
from headway.checkpoint import store as checkpoints
from headway.errors import BadCheckpoint, BadInput, UserCodeFailed
from headway.job import Checkpoint
from headway.models import kept
from headway.runs import RunFolder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return points(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, data: Path) -> RunFolder:
    return trained(tmp_path_factory.mktemp("run"), TASK, data)


def own(tmp_path: Path, run: RunFolder) -> RunFolder:
    """A copy, to be damaged."""
    return RunFolder(shutil.copytree(run.path, tmp_path / "runs" / run.name))


def state_at(run: RunFolder, step: int) -> dict[str, torch.Tensor]:
    name = next(name for name in checkpoints.names(run.checkpoints) if checkpoints.step_of(name) == step)
    state: dict[str, torch.Tensor] = checkpoints.read(run.checkpoints, name).load()["model"]
    return state


def same(model: nn.Module, state: dict[str, torch.Tensor]) -> bool:
    mine = model.state_dict()
    return mine.keys() == state.keys() and all(torch.equal(mine[key], state[key]) for key in mine)


def test_the_state_of_a_step_and_of_the_last(run: RunFolder) -> None:
    for step, number in ((4, 4), ("4", 4), ("last", 8)):
        model, task = headway.load_model(run.path, step)
        assert same(model, state_at(run, number)), step
        assert not model.training
        assert task is not None
        assert task.width == 8  # type: ignore[attr-defined]


def test_the_best_is_that_of_the_jobs_metric(run: RunFolder) -> None:
    known = {each.step: each.metrics["loss"] for each in kept.there(run)}
    model, _ = headway.load_model(run.path)
    assert len(known) == 4
    assert same(model, state_at(run, min(known, key=lambda step: known[step])))


def test_a_run_by_name(run: RunFolder) -> None:
    model, _ = headway.load_model(run.name, "last", runs_folder=run.path.parent)
    assert same(model, state_at(run, 8))
    with pytest.raises(BadInput, match="no run 'rr'"):
        headway.load_model("rr", runs_folder=run.path.parent)


def test_the_callers_generator_is_left_alone(run: RunFolder) -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()
    headway.load_model(run.path)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_checkpoint_that_is_gone_is_told_with_those_that_are_there(run: RunFolder) -> None:
    with pytest.raises(BadInput, match=r"no checkpoint of step 5.*keep_best.*There are those of: 2, 4, 6, 8"):
        headway.load_model(run.path, 5)
    with pytest.raises(BadInput, match="is the number of a step, best or last"):
        headway.load_model(run.path, "newest")


def test_a_damaged_one_that_was_asked_for_is_refused(run: RunFolder, tmp_path: Path) -> None:
    damaged = own(tmp_path, run)
    for chunk in damaged.checkpoints.glob("step-00000004/*/0*"):
        data = bytearray(chunk.read_bytes())
        data[3] ^= 1
        chunk.write_bytes(data)
    with pytest.raises(BadCheckpoint, match=r"altered.*There are others, of step 2, 6, 8"):
        headway.load_model(damaged.path, 4)
    headway.load_model(damaged.path, 6)


def test_of_the_last_a_damaged_one_is_passed_over_with_a_word(run: RunFolder, tmp_path: Path) -> None:
    damaged = own(tmp_path, run)
    for chunk in damaged.checkpoints.glob("step-00000008/*/0*"):
        chunk.unlink()
    with pytest.warns(UserWarning, match="passed over a damaged checkpoint"):
        model, _ = headway.load_model(damaged.path, "last")
    assert same(model, state_at(run, 6))


def test_a_run_without_validation_gives_its_last(tmp_path: Path, data: Path) -> None:
    plain = trained(tmp_path, TASK, data, validation=False, evaluate_every_steps=None)
    with pytest.warns(UserWarning, match="no checkpoint was evaluated: the last one is taken, of step 8"):
        model, _ = headway.load_model(plain.path)
    assert same(model, state_at(plain, 8))


def test_the_last_one_is_taken_where_no_metric_was_named_and_none_has_the_usual_one(tmp_path: Path, data: Path) -> None:
    """README's own task has an accuracy and no loss, and its job does not say what is best."""
    task = TASK.replace('"loss": self.loss(model, batch), ', "")
    run = trained(tmp_path, task, data)
    with pytest.warns(
        UserWarning, match=r"checkpoint.metric, loss, which no checkpoint has \(they have accuracy\).*step 8"
    ):
        headway.load_model(run.path)


def test_a_metric_that_nobody_has(tmp_path: Path, data: Path) -> None:
    job: dict[str, Any] = {"checkpoint": {"every_steps": 2, "keep_last": 100, "metric": "acuracy"}}
    odd = trained(tmp_path, TASK, data, **job)
    with pytest.raises(BadInput, match="Did you mean 'accuracy'"):
        headway.load_model(odd.path)
    headway.load_model(odd.path, "last")


def test_what_is_not_wanted_of_a_checkpoint_is_not_read(tmp_path: Path) -> None:
    """It may be gone, even."""
    store = checkpoints.Store(tmp_path, "j", Checkpoint())
    parts = {"model": {"w": torch.arange(3.0)}, "optimizer": {"m": torch.zeros(5 << 20)}, "session": {"step": 1}}
    written = store.write(1, parts, {})
    assert written is not None
    (tmp_path / written.name / list(written.parts)[-1]).unlink()
    part = written.load(("model", "session"))
    assert part.keys() == {"model", "session"}
    assert torch.equal(part["model"]["w"], torch.arange(3.0))
    with pytest.raises(BadCheckpoint, match="is missing"):
        written.load()


BESIDE = (
    TASK.replace("self.width = width", "self.width = width\n        self.head = nn.Linear(2, 2)").replace(
        'model(batch["x"])', 'self.head(model(batch["x"]))'
    )
    + """
    def optimizer(self, model):
        return torch.optim.SGD([*model.parameters(), *self.head.parameters()], lr=0.1)
"""
)


def test_modules_beside_the_model_come_too(tmp_path: Path, data: Path) -> None:
    beside = trained(tmp_path, BESIDE, data)
    _, task = headway.load_model(beside.path, "last")
    name = checkpoints.names(beside.checkpoints)[-1]
    held = checkpoints.read(beside.checkpoints, name).load()["session"]["own"]
    assert len(held) == 2
    assert torch.equal(held["head:weight"], task.head.weight)  # type: ignore[union-attr]
    assert not task.head.training  # type: ignore[union-attr]


LAZY = TASK.replace("nn.Linear(2, self.width)", "nn.LazyLinear(self.width)")


def test_lazy_layers_take_their_shapes_from_the_state(tmp_path: Path, data: Path) -> None:
    lazy = trained(tmp_path, LAZY, data)
    model, _ = headway.load_model(lazy.path, "last")
    assert model(torch.zeros(3, 2)).shape == (3, 2)
    assert same(model, state_at(lazy, 8))


def test_a_file_that_the_task_reads_beside_it(tmp_path: Path, data: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "width.txt").write_text("8")
    text = TASK.replace("self.width = width", 'self.width = int(__import__("pathlib").Path("width.txt").read_text())')
    before = Path.cwd()
    with chdir(tmp_path / "home"):
        reads = trained(tmp_path, text, data)
    headway.load_model(reads.path)
    assert Path.cwd() == before


LOOP = """
import headway, torch
from torch import nn

def Points():
    model = nn.Linear(2, 1)
    with headway.session(model, torch.optim.SGD(model.parameters(), lr=0.1)) as session:
        for step in session.steps():
            for batch in step.lanes():
                x = torch.stack([batch["a"], batch["b"]], 1).float()
                step.backward(model(x).square().mean())
"""


def test_a_loop_of_ones_own_wants_the_model(tmp_path: Path, data: Path) -> None:
    loop = trained(tmp_path, LOOP, data)
    with pytest.raises(BadInput, match=r"loop of its own.*model="):
        headway.load_model(loop.path, "last")
    model, task = headway.load_model(loop.path, "last", model=nn.Linear(2, 1))
    assert task is None
    assert same(model, state_at(loop, 8))
    with pytest.raises(BadCheckpoint, match=r"does not fit.*size mismatch for weight"):
        headway.load_model(loop.path, "last", model=nn.Linear(3, 1))


def test_what_the_task_raises_is_its_own(run: RunFolder, tmp_path: Path) -> None:
    broken = own(tmp_path, run)
    path = broken.code / "points.py"
    path.write_text(path.read_text().replace("self.width = width", 'raise LookupError("no width")'))
    with pytest.raises(UserCodeFailed, match="LookupError: no width") as caught:
        headway.load_model(broken.path)
    assert "points.py" in caught.value.traceback
    assert "loading.py" not in caught.value.traceback


AVERAGED = (
    TASK
    + """
    def hooks(self):
        return [headway.hooks.EMA(0.5, evaluate=EVALUATE)]
"""
)


@pytest.mark.parametrize("evaluate", [True, False])
def test_averaged_weights_are_loaded_where_the_run_evaluated_them_or_they_are_asked_for(
    tmp_path: Path, data: Path, evaluate: bool
) -> None:
    averaged = trained(tmp_path, AVERAGED.replace("EVALUATE", str(evaluate)), data)
    by_default, _ = headway.load_model(averaged.path, "last")
    smooth, _ = headway.load_model(averaged.path, "last", averaged=True)
    plain, _ = headway.load_model(averaged.path, "last", averaged=False)
    assert same(plain, state_at(averaged, 8))
    assert not torch.equal(smooth[0].weight, plain[0].weight)  # type: ignore[index]
    assert same(by_default, (smooth if evaluate else plain).state_dict())
    (known,) = [each for each in kept.there(averaged) if each.step == 8]
    found = headway.evaluate(averaged.path, data / "val", step="last")
    assert found.metrics == pytest.approx(known.metrics, abs=1e-6)


def test_averages_that_nobody_made(run: RunFolder) -> None:
    with pytest.raises(BadInput, match="has no averaged weights"):
        headway.load_model(run.path, averaged=True)


SEVERAL = """
import headway, torch
from torch import nn

class Points(headway.Task):
    def model(self):
        return {"one": nn.Linear(2, 1), "other": nn.Linear(2, 1)}

    def optimizer(self, model):
        return {name: torch.optim.SGD(model[name].parameters(), lr=0.1) for name in ("one", "other")}

    def loss(self, model, batch, update):
        return model[update](torch.stack([batch["a"], batch["b"]], 1).float()).square().mean()
"""


def test_several_models_by_name(tmp_path: Path, data: Path) -> None:
    several = trained(tmp_path, SEVERAL, data)
    model, _ = headway.load_model(several.path, "last")
    assert same(model, state_at(several, 8))
    assert model["one"].weight.shape == (1, 2)  # type: ignore[index]
