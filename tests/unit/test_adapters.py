"""Models of other frameworks as tasks: what they need, and what is refused by name. Each where it is installed."""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from torch import nn

from headway.adapters import frameworks, lightning
from headway.adapters.huggingface import HuggingFace, padded
from headway.carried import code
from headway.data.own.opening import opened
from headway.data.read.streams import collate_of, open_readers, transform_of
from headway.elastic.worker import context as contexts
from headway.elastic.worker.context import Context
from headway.elastic.worker.loop import run_step, session_of
from headway.errors import BadInput
from headway.job import Job, load
from headway.testing.elastic import Run, advance

RECIPES = Path(__file__).parents[2] / "trainers"

needs_lightning = pytest.mark.skipif(importlib.util.find_spec("lightning") is None, reason="lightning is not installed")
needs_transformers = pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None, reason="transformers is not installed"
)
# What needs them is of the slow tier, before which .ci/run installs them.


def test_a_framework_that_is_missing_is_named() -> None:
    with pytest.raises(BadInput, match=r"no_such_thing is not installed.* Install headway\[huggingface\]"):
        frameworks.imported("no_such_thing.inner", "huggingface")


# transformers


def test_lists_are_padded_to_the_longest_of_the_batch() -> None:
    assert padded([[1, 2], None, [3]], 7).tolist() == [[1, 2], [7, 7], [3, 7]]
    assert padded([[0.5], []], 0).dtype == "float32"
    table = pa.table({"input_ids": [[1, 2], [3]], "labels": [[1], [2, 3]], "text": ["a", "b"], "x": [1.0, 2.0]})
    made = HuggingFace().transform(table, None, True)  # type: ignore[arg-type]
    assert {name: column.tolist() for name, column in made.items()} == {
        "input_ids": [[1, 2], [3, 0]],
        "labels": [[1, -100], [2, 3]],
        "x": [1.0, 2.0],
    }


def test_rows_of_a_dataset_are_put_together() -> None:
    rows = [{"input_ids": [1, 2], "label": 1, "text": "a"}, {"input_ids": [3], "label": 0, "text": "b"}]
    batch = HuggingFace().collate(rows)
    assert batch["input_ids"].tolist() == [[1, 2], [3, 0]]
    assert batch["label"].tolist() == [1, 0]
    with pytest.raises(BadInput, match="a row of the dataset is a tuple"):
        HuggingFace().collate([(1, 2)])


@pytest.mark.slow
@needs_transformers
def test_a_model_without_a_loss_is_refused() -> None:
    from transformers import BertConfig, BertModel

    config = BertConfig(vocab_size=8, hidden_size=4, num_hidden_layers=1, num_attention_heads=1, intermediate_size=4)
    model, task = BertModel(config), HuggingFace()
    with pytest.raises(BadInput, match=r"BertModel gave no loss: it was called with input_ids, of the columns"):
        task.loss(model, {"input_ids": torch.tensor([[1]]), "label": torch.tensor([1])})
    model.hf_device_map = {"": 0}
    with pytest.raises(BadInput, match="device_map"):
        task.loss(model, {})
    model.hf_device_map, model.is_quantized = {}, True
    with pytest.raises(BadInput, match="is quantised"):
        task.loss(model, {})


# Lightning


def lit(body: str) -> type[lightning.Lightning]:
    """A task of a LightningModule with these methods."""
    from lightning.pytorch import LightningModule

    names: dict[str, Any] = {"torch": torch, "nn": nn, "LightningModule": LightningModule}
    text = (
        "class Lit(LightningModule):\n    def __init__(self):\n        super().__init__(); self.net = nn.Linear(2, 1)\n"
    )
    exec(text + "".join(f"    {line}\n" for line in body.splitlines()), names)
    return type("T", (lightning.Lightning,), {"module": names["Lit"], "columns": ("x", "y")})


def batch() -> dict[str, torch.Tensor]:
    return {"x": torch.ones(3, 2), "y": torch.zeros(3, 1)}


@pytest.mark.slow
@needs_lightning
@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("def on_train_epoch_end(self): pass", "Lit has on_train_epoch_end: a Trainer calls that"),
        ("def train_dataloader(self): pass", "Lit has train_dataloader"),
        ("def configure_callbacks(self): return []", "Lit has configure_callbacks"),
        ("@property\ndef automatic_optimization(self): return False", "automatic_optimization = False"),
    ],
)
def test_what_only_a_trainer_would_call_is_refused(body: str, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        lit(body)().model()


@pytest.mark.slow
@needs_lightning
@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("def training_step(self, batch, i): return None", "training_step returned NoneType"),
        ("def training_step(self, batch, i): return self.trainer.max_time", "Lit asks for trainer.max_time"),
    ],
)
def test_what_a_step_may_not_do_is_refused(body: str, said: str) -> None:
    task = lit(body)()
    with pytest.raises(BadInput, match=said):
        task.loss(task.model(), batch())
    with pytest.raises(BadInput, match="the batch has no 'x'"):
        task.loss(task.model(), {"xx": torch.ones(1)})


@pytest.mark.slow
@needs_lightning
@pytest.mark.parametrize(
    ("returned", "said"),
    [
        ("[torch.optim.SGD(self.parameters(), 1), torch.optim.SGD(self.parameters(), 1)]", "2 optimisers"),
        ("None", "no optimiser"),
    ],
)
def test_other_than_one_optimiser_is_refused(returned: str, said: str) -> None:
    task = lit(f"def configure_optimizers(self): return {returned}")()
    with pytest.raises(BadInput, match=said):
        task.optimizer(task.model())


@pytest.mark.slow
@needs_lightning
@pytest.mark.parametrize(
    ("returned", "every_epoch"),
    [
        ("o", None),
        ("[o]", None),
        ("([o], [s])", True),
        ("{'optimizer': o, 'lr_scheduler': s}", True),
        ("{'optimizer': o, 'lr_scheduler': {'scheduler': s, 'interval': 'step', 'frequency': 2}}", False),
    ],
)
def test_all_ways_to_give_one_optimiser_are_understood(returned: str, every_epoch: bool | None) -> None:
    made = "o = torch.optim.SGD(self.parameters(), 1)\n    s = torch.optim.lr_scheduler.StepLR(o, 2)"
    task = lit(f"def configure_optimizers(self):\n    {made}\n    return {returned}")()
    optimizer, schedule = lightning.configured(task.model())
    assert isinstance(optimizer, torch.optim.SGD)
    assert (schedule is None) == (every_epoch is None)
    if schedule is not None:
        assert schedule[1:] == (every_epoch, 1 if every_epoch else 2)


@pytest.mark.slow
@needs_lightning
def test_what_is_logged_is_a_metric() -> None:
    logs = "self.log('a', batch[0].mean(), prog_bar=True); self.log_dict({'b': 2.0})"
    task = lit(f"def validation_step(self, batch, i): {logs}")()
    model = task.model()
    assert {name: float(value) for name, value in task.metrics(model, batch()).items()} == {"a": 1.0, "b": 2.0}
    assert "log" not in vars(model), "left as it was"
    counted = lit("def validation_step(self, batch, i): self.log('m', type('M', (), {'compute': lambda s: 1})())")()
    with pytest.raises(BadInput, match="measures"):
        counted.metrics(counted.model(), batch())


@pytest.mark.slow
@needs_lightning
def test_what_is_predicted_is_forward_of_the_first_part() -> None:
    task = lit("def forward(self, x): return 2 * x")()
    assert task.predict(task.model(), {"x": torch.ones(3, 2)})["prediction"].tolist() == [[2.0, 2.0]] * 3
    own = lit("def predict_step(self, batch, i): return {'sum': batch[0].sum(1)}")()
    assert own.predict(own.model(), batch())["sum"].tolist() == [2.0] * 3


def test_a_schedule_by_epochs_is_stepped_once_in_so_many_steps() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], 1.0)
    every = lightning.Every(torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5), 3)
    rates = []
    for _ in range(7):
        optimizer.step()
        every.step()
        rates.append(every.get_last_lr()[0])
    assert rates == [1.0, 1.0, 0.5, 0.5, 0.5, 0.25, 0.25]
    again = lightning.Every(torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5), 3)
    again.load_state_dict(every.state_dict())
    assert (again.steps, again.inner.last_epoch) == (7, every.inner.last_epoch)


# Recipes, through a lost and a joining worker


def recipe(name: str) -> Job:
    job = load(
        RECIPES / name / "job.yaml", ["steps=300", "epochs=null", "reproducible=bitwise", "tracking.enabled=false"]
    )
    workers = job.workers.model_copy(update={"silence_s": 1.0, "hang_s": 20.0})
    return job.model_copy(update={"workers": workers})


def trained(context: Context, folder: Path) -> str:
    """A worker's part, as `headway.elastic.worker.main.run` has it; slow until the test says that nobody is missing."""
    job = context.job
    source = code.locate(job.task)
    train, validation = open_readers(job, own=opened(job, source))
    context.train, context.validation = train, validation
    contexts.enter(context)
    torch.manual_seed(job.seed)
    task = code.load(source)(**job.call())
    context.use(transform_of(task), collate_of(task))
    with session_of(task) as training:
        for step in training.steps():
            if not (folder / "joined").exists():
                time.sleep(0.3)
            run_step(task, training, step)
            advance(training.step)
        found = training.evaluate(task.metrics)
    return str([sorted(found.items()), [float(p.detach().double().sum()) for p in training.model.parameters()]])


@pytest.fixture(autouse=True)
def unchanged_path() -> Iterator[None]:
    before = list(sys.path)
    yield
    sys.path[:] = before
    sys.modules.pop("task", None)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("lightning", marks=[pytest.mark.slow, needs_lightning]),
        pytest.param("huggingface", marks=[pytest.mark.slow, needs_transformers]),
    ],
)
def test_a_recipe_trains_to_the_same_bits_through_a_loss_and_a_join(tmp_path: Path, name: str) -> None:
    job = recipe(name)
    (tmp_path / "joined").touch()
    with Run(tmp_path / "alone", job, trained, tmp_path, places=1) as run:
        alone = run.result(200.0)
    (tmp_path / "joined").unlink()
    with Run(tmp_path / "two", job, trained, tmp_path) as run:
        run.wait_until(lambda: run.step >= 2 and len(run.members) == 2, 200.0)
        lost = run.members[1:]
        run.kill(lost[0])
        run.wait_until(lambda: run.members[1:] not in ([], lost), 200.0)
        (tmp_path / "joined").touch()
        two = run.result(200.0)
    assert alone.failure is two.failure is None
    (said,) = alone.results.values()
    assert set(two.results.values()) == {said}
