"""A task is tried on a few rows before a worker starts: what is refused, what works, what says nothing of the run."""

from __future__ import annotations

import datetime
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from tests.conftest import make_dataset

from headway import plan, tryout
from headway.carried import code
from headway.checkpoint.store import Store
from headway.data.read.streams import open_readers
from headway.data.write.writer import write_dataset
from headway.elastic.worker import context as contexts
from headway.elastic.worker.batches import tensors_of
from headway.elastic.worker.context import Context
from headway.elastic.worker.loop import train_task
from headway.elastic.worker.members import Alone
from headway.elastic.worker.saver import Saver
from headway.errors import BadInput
from headway.job import Job, parse
from headway.tryout import small
from headway.tryout.small import Tried, try_out

warm = pytest.mark.usefixtures("warm_children")
HEAD = """
import os, signal, sys, threading, time
import headway, torch
from torch import nn
from torch.nn import functional
done = []
"""
GOOD = (
    HEAD
    + """
class T(headway.Task):
    def model(self):
        return nn.Linear(4, 2)
    def loss(self, model, batch):
        return functional.cross_entropy(model(batch["x"]), batch["y"])
"""
)


class Bench:
    """Makes jobs, and tries them in this process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def job(self, text: str, task: str = "T", data: Any = None, **fields: Any) -> Job:
        path = self.folder / f"task_{abs(hash(text))}.py"
        path.write_text(text)
        tree = {
            "name": "n",
            "task": f"{path}:{task}",
            "data": data or {"train": str(self.folder / "train"), "validation": str(self.folder / "val")},
            "lanes": 3,
            "lane_batch": 8,
            "epochs": 2,
            "workers": {"min": 1, "max": 2},
        }
        return parse({**tree, **fields})

    def tried(self, text: str, task: str = "T", **fields: Any) -> Tried:
        job = self.job(text, task, **fields)
        checked = plan.check(job)
        room = self.folder / "room"
        room.mkdir(exist_ok=True)
        return try_out(plan.pinned(job, checked), checked.source, checked.total_steps, room)

    def refused(self, text: str, task: str = "T", **fields: Any) -> BadInput:
        with pytest.raises(BadInput) as caught:
            self.tried(text, task, **fields)
        assert caught.value.remedy
        return caught.value


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    make_dataset(tmp_path / "train", (30, 20), (50,))
    make_dataset(tmp_path / "val", (10,))
    return Bench(tmp_path)


def net(text: str) -> str:
    """A good task with a model of a class of its own."""
    return method("model", "return Net(4, 2)", GOOD.replace("class T", f"{text}\nclass T"))


def method(name: str, body: str, head: str = GOOD) -> str:
    """A good task with one method of another kind."""
    signatures = {
        "model": "self",
        "optimizer": "self, model",
        "schedule": "self, optimizer, steps",
        "loss": "self, model, batch",
        "metrics": "self, model, batch",
        "transform": "self, table, random, training",
        "__init__": "self, **arguments",
    }
    lines = "".join(f"        {line}\n" for line in body.splitlines())
    return f"{head}\n    def {name}({signatures[name]}):\n{lines}"


def test_a_good_task_is_measured(bench: Bench) -> None:
    found = bench.tried(GOOD)
    bytes_kept = 10 * 4 * 3 + 2 * 4  # weights, AdamW's two moments, its step for both tensors
    assert (found.parameters, found.checkpoint_bytes, found.notes) == (10, bytes_kept, [])
    assert found.state_bytes == bytes_kept + 10 * 4
    assert bench.tried(GOOD, optimizer={"name": "sgd", "lr": 0.1}).checkpoint_bytes == 40


@pytest.mark.parametrize(
    ("text", "fields", "said"),
    [
        (GOOD, {}, ""),
        (method("model", "return nn.Sequential(nn.Dropout(0.5), nn.Linear(4, 2))"), {}, "random numbers are drawn"),
        (GOOD, {"reproducible": "bitwise"}, None),
        (GOOD, {"lanes_together": "never"}, None),
        (GOOD, {"lane_batch": 32, "accumulate": 16}, None),
    ],
)
def test_whether_lanes_go_together_is_tried_too(
    bench: Bench, text: str, fields: dict[str, Any], said: str | None
) -> None:
    found = bench.tried(text, **fields)
    assert found.notes == []
    assert (said in (found.together or "")) if said else found.together == said


def test_what_a_row_takes_is_measured(bench: Bench) -> None:
    """Of each row: 4 numbers in, 64 that tanh keeps, the scores that the loss keeps, its class."""
    found = bench.tried(method("model", "return nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 2))"))
    assert found.row_bytes is not None
    assert 4 * 4 + 64 * 4 <= found.row_bytes <= 4 * 4 + 64 * 4 + 100


BLOCKS = "return nn.Sequential(nn.Linear(4, 8), *(nn.Sequential(nn.Linear(8, 64), nn.Linear(64, 8)) for _ in range(9)))"


def test_activation_checkpointing_is_measured_with_and_told(bench: Bench) -> None:
    task = method("model", BLOCKS)
    plain, some = bench.tried(task), bench.tried(task, activation_checkpointing=True)
    assert plain.checkpointed is None
    assert some.checkpointed == "9 Sequential (1 to 9)"
    assert some.row_bytes is not None
    assert plain.row_bytes is not None
    assert 9 * 8 * 4 < some.row_bytes < plain.row_bytes / 3
    assert (some.parameters, some.checkpoint_bytes) == (plain.parameters, plain.checkpoint_bytes)
    refused = bench.refused(task, activation_checkpointing=["layers.*"])
    assert "activation_checkpointing: 'layers.*'" in str(refused)


def test_a_strategy_that_does_not_fit_the_model_is_refused(bench: Bench) -> None:
    refused = bench.refused(GOOD, strategy={"kind": "parameter_server", "sparse": ["tables.*"]})
    assert "strategy.sparse names 'tables.*'" in str(refused)
    assert not refused.traceback, "nothing of the task's raised"


def test_what_replicas_do_is_not_tried(bench: Bench) -> None:
    """Of the few rows that are tried there are fewer lanes than replicas."""
    assert bench.tried(GOOD, strategy={"kind": "diloco", "replicas": 4}, lanes=4).parameters


def test_where_there_are_no_blocks_is_told(bench: Bench) -> None:
    none = bench.tried(GOOD, activation_checkpointing=True)
    assert none.checkpointed == ""
    assert ["no repeated blocks" in note for note in none.notes] == [True]


def test_a_block_that_computes_something_else_the_second_time_is_refused_with_the_reason(bench: Bench) -> None:
    text = net(
        """
class Grows(nn.Module):
    def __init__(self):
        super().__init__()
        self.line, self.seen = nn.Linear(4, 4), []
    def forward(self, x):
        self.seen.append(x)
        return torch.tanh(self.line(torch.cat(self.seen)))[-len(x):]
class Net(nn.Module):
    def __init__(self, a, b):
        super().__init__()
        self.layers, self.end = nn.Sequential(Grows(), Grows()), nn.Linear(a, b)
    def forward(self, x):
        for layer in self.layers:
            layer.seen.clear()
        return self.end(self.layers(x))
"""
    )
    assert bench.tried(text).parameters
    refused = bench.refused(text, activation_checkpointing=["layers.?"])
    assert "set activation_checkpointing: false, or name other blocks" in str(refused)


def test_what_is_compiled_is_not_measured_by_row(bench: Bench) -> None:
    found = bench.tried(method("model", "return torch.compile(nn.Linear(4, 2), backend='eager')"))
    assert found.row_bytes is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (method("model", "return 'a model'"), "task T.model() returned str: a torch Module is needed"),
        (method("optimizer", "return None"), "task T.optimizer() returned NoneType"),
        (method("model", "return nn.Linear(4, 2).requires_grad_(False)"), "no trainable parameter"),
        (method("model", "return nn.Linear(4, 2, device='meta')"), "'weight' of the model is on the meta device"),
        (
            method("optimizer", "return torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=1)"),
            "none of the 2 parameters of optimizer SGD got a gradient",
        ),
        (method("schedule", "return [1]"), "task T.schedule() returned list"),
        (method("schedule", "return 1 / 0"), "task T.schedule() failed: ZeroDivisionError"),
        (
            method("loss", "return {'total_loss': model(batch['x']).mean()}"),
            "returned dict: a scalar tensor is needed.",
        ),
        (method("loss", "return model(batch['x']).mean(), 1"), "task T.loss() returned tuple"),
        (method("loss", "model(batch['x']).mean()"), "task T.loss() returned None"),
        (method("loss", "return model(batch['x']).mean().item()"), "task T.loss() returned float"),
        (method("loss", "return 3"), "task T.loss() returned int"),
        (method("loss", "return model(batch['x'])"), "task T.loss() returned a tensor of shape (8, 2)"),
        (method("loss", "return model(batch['x']).mean().detach()"), "returned a tensor without a gradient"),
        (method("loss", "return model(batch['x']).argmax(1).sum()"), "it is int64, which has no gradient"),
        (method("loss", "return model(batch['x']).mean() * float('nan')"), "task T.loss() returned nan"),
        (method("loss", "return model(batch['z']).mean()"), "task T.loss() failed on the first rows: KeyError: 'z'"),
        (method("loss", "raise SystemExit(3)"), "task T.loss() failed on the first rows: it called sys.exit(3)"),
        (method("model", "sys.exit()"), "task T.model() failed: it called sys.exit()"),
        (method("metrics", "return 0.5"), "task T.metrics() returned float: a dict of numbers"),
        (method("metrics", "return {'scores': model(batch['x'])}"), "gave 'scores' as Tensor of shape (3, 2)"),
        (method("metrics", "return {'who': 'me'}"), "gave 'who' as str"),
        (method("metrics", "return {1: 0.5}"), "task T.metrics() has the name 1"),
        (method("metrics", "raise ValueError('no')"), "task T.metrics() failed on the first rows: ValueError: no"),
        (method("transform", "return [1]"), "transform returned list"),
        (method("transform", "return {'x': [1.0]}"), "transform returned 'x' with shape (1,) for 8 rows"),
        (method("transform", "return {'x': table['id'].to_pylist()[:3]}"), "transform returned 'x' with shape (3,)"),
        (method("transform", "return {'x': ['a'] * len(table)}"), "transform returned 'x' of type <U1"),
        (method("transform", "return table['nothing']"), "task T.transform() failed on the first rows: KeyError"),
        (method("__init__", "raise ValueError('no such width')"), "cannot be built with arguments {}: ValueError: no"),
        (method("model", "import no_such_package"), "ModuleNotFoundError: No module named 'no_such_package'"),
        (method("model", "return nn.Linear(4, 2).cuda()"), "Set workers.gpus"),
        (HEAD + "class T(headway.Task):\n    def model(self): return nn.Linear(4, 1)", "task T has no loss"),
        (HEAD + "class T(headway.Task):\n    def loss(self, model, batch): return 0", "task T has no model"),
        (HEAD + "import no_such_package\n" + GOOD, "install what it needs"),
        (HEAD + "sys.exit(0)\n" + GOOD, "cannot be imported: SystemExit"),
    ],
)
def test_a_task_that_would_fail_is_refused(bench: Bench, text: str, said: str) -> None:
    if said == "Set workers.gpus" and torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    error = bench.refused(text)
    assert said in str(error)
    assert "headway/" not in error.traceback


def test_the_users_own_traceback_is_kept(bench: Bench) -> None:
    error = bench.refused(method("loss", "raise ValueError('odd batch')"))
    assert "raise ValueError('odd batch')" in error.traceback
    assert error.traceback.startswith("Traceback")


def test_sparse_gradients_are_refused_by_name(bench: Bench) -> None:
    text = method("model", "return nn.Sequential(nn.Embedding(100, 8, sparse=True), nn.Linear(8, 2))")
    text = method("loss", "return functional.cross_entropy(model(batch['id'] % 100), batch['y'])", text)
    text = method("optimizer", "return torch.optim.SGD(model.parameters(), lr=0.1)", text)
    for reproducible in ("order", "bitwise"):
        error = bench.refused(text, reproducible=reproducible)
        assert "the gradient of parameter '0.weight' is sparse" in str(error)
        assert "sparse=False" in error.remedy


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ("self.adjacent = nn.Parameter(torch.ones(2, 2).to_sparse())", "parameter 'adjacent' of the model is sparse"),
        ("self.register_buffer('graph', torch.eye(4).to_sparse())", "buffer 'graph' of the model is sparse"),
        ("self.register_buffer('graph', torch.eye(4).to_sparse(), persistent=False)", "buffer 'graph'"),
        (
            "self.turn = nn.Parameter(torch.ones(2, dtype=torch.complex64))",
            "'turn' of the model is complex (complex64)",
        ),
        (
            "self.register_buffer('q', torch.quantize_per_tensor(torch.ones(2), 1.0, 0, torch.qint8))",
            "buffer 'q' of the model is quantised (qint8)",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_tensors_that_cannot_be_trained_are_refused_by_name(bench: Bench, made: str, said: str) -> None:
    text = f"""
class Net(nn.Linear):
    def __init__(self, *sizes):
        super().__init__(*sizes)
        {made}
"""
    assert said in str(bench.refused(net(text)))


@pytest.mark.parametrize(
    "made",
    [
        "self.narrow = nn.Parameter(torch.ones(2, dtype=torch.bfloat16))",
        "self.wide = nn.Parameter(torch.ones(2, dtype=torch.float64))",
        "self.whole = nn.Parameter(torch.ones(2, dtype=torch.int64), requires_grad=False)",
        "self.again = nn.Linear(4, 2); self.again.weight = self.weight",
        "self.register_buffer('mask', torch.tensor(float('-inf')))",
        "self.norm = nn.BatchNorm1d(4)",
    ],
)
def test_tensors_of_many_kinds_are_fine(bench: Bench, made: str) -> None:
    text = f"""
class Net(nn.Linear):
    def __init__(self, *sizes):
        super().__init__(*sizes)
        {made}
    def forward(self, x):
        if hasattr(self, 'wide'):
            x = (x * self.wide.sum()).float()
        return super().forward(self.norm(x) if hasattr(self, 'norm') else x)
"""
    found = bench.tried(net(text))
    assert (found.parameters or 0) >= 10
    assert found.notes == []


@pytest.mark.parametrize(
    "text",
    [
        method("schedule", "return torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=steps)"),
        method("schedule", "return torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, 3)"),
        method("metrics", "return {'loss': 0.5, 'rows': torch.tensor(3)}"),
        method("metrics", "return {}"),
        method("model", "return nn.Sequential(nn.LazyLinear(8), nn.LazyBatchNorm1d(), nn.LazyLinear(2))"),
        method("transform", "return {'x': torch.ones(len(table), 4), 'y': table['y'].to_numpy().copy()}"),
        method("model", "print('hello'); sys.stdout.flush(); return nn.Linear(4, 2)"),
        method("loss", "batch['x'] *= 0; return functional.cross_entropy(model(batch['x']), batch['y'])"),
    ],
)
def test_what_plain_pytorch_does_is_fine(bench: Bench, text: str) -> None:
    assert bench.tried(text).notes == []


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.filterwarnings("ignore")
def test_in_mixed_precision(bench: Bench, precision: str) -> None:
    assert bench.tried(GOOD, precision=precision).notes == []


def test_few_rows_are_no_reason(bench: Bench) -> None:
    """A loss that wants many rows is tried again on the run's own first batch, and refused if that fails too."""
    body = "assert len(batch['x']) >= {} or not model.training\n"
    body += "return functional.cross_entropy(model(batch['x']), batch['y'])"
    assert bench.tried(method("loss", body.format(8))).notes == []
    assert "AssertionError" in str(bench.refused(method("loss", body.format(9))))


ADVERSARY = """
if torch.is_grad_enabled():
    self.theirs.zero_grad()
    self.judge(batch['x']).mean().backward()
    self.theirs.step()
return functional.cross_entropy(model(batch['x']), batch['y'])
"""


def test_a_second_optimiser_is_refused_where_there_is_more_than_a_lane(bench: Bench) -> None:
    built = "self.judge = nn.Linear(4, 1)\nself.theirs = torch.optim.SGD(self.judge.parameters(), lr=0.1)"
    text = method("loss", ADVERSARY, method("__init__", built))
    assert "a second optimiser (SGD) was stepped in a lane" in str(bench.refused(text))
    assert bench.tried(text, lanes=1, workers={"min": 1, "max": 1}).notes == []


@pytest.mark.parametrize(
    ("built", "body", "said"),
    [
        (
            "self.calls = 0",
            "self.calls += 1",
            "T.loss() changes self.calls: what follows",
        ),
        ("self.slow = nn.Linear(4, 2)", "self.slow.weight.data.lerp_(model.weight.data, 0.1)", "self.slow.weight"),
        (
            "self.slow = None",
            "self.slow = self.slow or copy.deepcopy(model).requires_grad_(False)\n"
            "[slow.data.lerp_(own.data, 0.1) for slow, own in zip(self.slow.parameters(), model.parameters())]",
            "",  # made in the loss: seen by nobody
        ),
        (
            "self.rate = 1",
            "for group in self.made.param_groups: group['lr'] *= 0.9",
            "T.loss() changes the rate of the optimiser's group 0",
        ),
        ("self.rate = 1", "for group in self.made.param_groups: group['lr'] = 0.9", ""),
        ("self.calls = 0", "self.last = float(batch['x'].sum())", ""),
    ],
)
def test_what_a_loss_keeps_for_itself_is_told(bench: Bench, built: str, body: str, said: str) -> None:
    text = method("loss", f"{body}\nreturn functional.cross_entropy(model(batch['x']), batch['y'])")
    text = method("__init__", built, "import copy\n" + text)
    text = method("optimizer", "self.made = torch.optim.SGD(model.parameters(), 0.1); return self.made", text)
    assert said in "".join(bench.tried(text).notes)
    assert bool(said) == bool(bench.tried(text).notes)
    assert bench.tried(text, lanes=1, workers={"min": 1, "max": 1}).notes == []


def test_an_average_that_begins_as_the_model_is_told(bench: Bench) -> None:
    text = method("model", "self.net = nn.Linear(4, 2); self.slow = nn.Linear(4, 2)\n"
                  "self.slow.load_state_dict(self.net.state_dict()); return self.net")  # fmt: skip
    body = "self.slow.weight.data.lerp_(model.weight.data, 0.1)\n"
    body += "return functional.cross_entropy(model(batch['x']), batch['y'])"
    assert "T.loss() changes self.slow.weight" in "".join(bench.tried(method("loss", body, text)).notes)


def test_metrics_that_add_up_over_batches_are_told(bench: Bench) -> None:
    text = method("__init__", "self.right = self.rows = 0")
    body = "self.right += int((batch['x'].sum(1) > 0).sum()) + 1\nself.rows += len(batch['x'])\n"
    notes = bench.tried(method("metrics", body + "return {'rate': self.right / self.rows}", text)).notes
    assert "T.metrics() gives another rate for the same rows" in "".join(notes)
    assert bench.tried(method("metrics", body + "return {'one': batch['x'].mean()}", text)).notes == []
    picky = "assert len(batch['x']) > 1\nreturn {'x': batch['x'].std()}"
    assert bench.tried(method("metrics", picky)).notes == []


def test_what_fails_in_metrics_alone_is_not_said_of_the_loss(bench: Bench) -> None:
    """The loss itself is fine, where there are gradients."""
    body = "x = batch['x'].requires_grad_()\n(slope,) = torch.autograd.grad(model(x).sum(), x, create_graph=True)\n"
    text = method("loss", body + "return functional.cross_entropy(model(x), batch['y']) + slope.pow(2).mean()")
    error = bench.refused(text)
    assert error.fact == "task T.metrics() failed on the first rows"
    assert "torch.enable_grad()" in error.remedy
    assert bench.tried(method("metrics", "return {'one': 1.0}", text)).notes == []


def test_it_is_built_again_as_a_resume_would(bench: Bench) -> None:
    text = method(
        "model",
        "model = nn.Linear(4, 2)\n"
        "model.register_buffer('odd', torch.zeros(1 + os.path.exists(self.mark)))\n"
        "open(self.mark, 'w').close()\n"
        "return model",
    )
    text = method("__init__", "self.mark = arguments['mark']", text)
    (note,) = bench.tried(text, arguments={"mark": str(bench.folder / "mark")}).notes
    assert "a resumed run may not take its state: RuntimeError" in note
    assert "size mismatch for odd" in note


def test_state_that_cannot_be_kept_is_refused_by_name(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    text = """
class Net(nn.Linear):
    def get_extra_state(self):
        return {"vocabulary": threading.Lock()}
    def set_extra_state(self, state):
        pass
"""
    text = net(text)
    for most in (small.KEPT_BYTES, 0):
        monkeypatch.setattr(small, "KEPT_BYTES", most)
        error = bench.refused(text)
        assert "model._extra_state.vocabulary holds a _thread.lock" in str(error).replace("model..", "model.")
    assert bench.tried(GOOD).parameters == 10, "a large state is only looked at"


@pytest.mark.parametrize(
    ("column", "said"),
    [
        (pa.array([datetime.date(2026, 1, 1)] * 40), "column 'z' is date32[day]"),
        (pa.array([datetime.datetime(2026, 1, 1)] * 40), "column 'z' is timestamp[us]"),
        (pa.array(["a"] * 40), "column 'z' is string"),
        (pa.array([1.0] * 39 + [None]), "column 'z' has 1 nulls"),
        (pa.array([[1, 2]] * 40), "column 'z' is list<"),
        (pa.array([{"a": 1}] * 40), "column 'z' is struct<"),
    ],
)
@pytest.mark.parametrize("task", ["T", "loop"])
def test_columns_that_are_no_tensors(bench: Bench, column: pa.Array, said: str, task: str) -> None:
    """Without a transform, for a task and for a loop of one's own."""
    x = pa.FixedSizeListArray.from_arrays(pa.array(np.ones(160, np.float32)), 4)
    table = pa.table({"x": x, "y": pa.array([0, 1] * 20), "z": column})
    write_dataset(bench.folder / "odd", [table], name="odd", source="a test")
    error = bench.refused(GOOD + "\ndef loop(): pass\n", task, data={"train": str(bench.folder / "odd")})
    assert said in str(error)
    assert "transform" in error.remedy


def test_a_loop_of_ones_own_is_tried_only_so_far(bench: Bench) -> None:
    text = HEAD + "def loop(width=3):\n    raise RuntimeError('not to be called')\n"
    found = bench.tried(text, "loop")
    assert found.parameters is None
    assert "a loop of its own" in found.notes[0]
    assert "unexpected keyword argument 'depth'" in str(bench.refused(text, "loop", arguments={"depth": 3}))


def test_every_part_of_a_mixture_is_tried(bench: Bench) -> None:
    x = pa.FixedSizeListArray.from_arrays(pa.array(np.ones(160, np.float32)), 4)
    table = pa.table({"id": pa.array(range(40)), "x": x, "y": pa.array([7] * 40)})
    write_dataset(bench.folder / "odd", [table], name="odd", source="a test")
    parts = [{"path": str(bench.folder / "train")}, {"path": str(bench.folder / "odd")}]
    assert "Target 7 is out of bounds" in str(bench.refused(GOOD, data={"train": parts}))


def test_what_says_nothing_of_the_run_is_a_note(bench: Bench) -> None:
    assert "MemoryError" in bench.tried(method("model", "raise MemoryError")).notes[0]
    asks = "import ray.train; ray.train.get_context().get_world_rank(); return model(batch['x']).mean()"
    assert "asks Ray" in bench.tried(method("loss", asks)).notes[0]
    gpu = {"workers": {"min": 1, "max": 1, "gpus": 1}}
    if not torch.cuda.is_available():
        assert "without a GPU" in bench.tried(method("model", "return nn.Linear(4, 2).cuda()"), **gpu).notes[0]


# In the child


def child(bench: Bench, text: str, **fields: Any) -> tryout.Found:
    job = bench.job(text, **fields)
    with tryout.begun(job) as trial:
        checked = plan.check(job)
        trial.ask(plan.pinned(job, checked), checked)
        return trial.answer()


def test_a_child_measures_the_same(bench: Bench) -> None:
    strange = "os.write(1, bytes(range(256))); os.closerange(1, 3); sys.stdin.read(); return nn.Linear(4, 2)"
    text = method("model", f"if done: return nn.Linear(4, 2)\ndone.append(1); {strange}")
    found = child(bench, text)
    assert (found.parameters, found.checkpoint_bytes, found.notes) == (10, 128, [])
    assert (found.together, found.state_bytes) == ("", 168)
    assert found.row_bytes


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("os._exit(0)", "task T ended its process with exit code 0 in T.loss()"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "task T ended its process with SIGSEGV in T.loss()"),
    ],
)
@warm
def test_a_task_that_ends_its_process(bench: Bench, body: str, said: str) -> None:
    with pytest.raises(BadInput) as caught:
        child(bench, method("loss", body))
    assert said in str(caught.value)
    if "SIGSEGV" in said:
        assert f'File "{bench.folder}/task_' in caught.value.traceback, "the user's own path"


@warm
def test_a_task_that_is_killed_or_hangs_is_told_and_starts(bench: Bench) -> None:
    killed = child(bench, method("loss", "os.kill(os.getpid(), signal.SIGKILL)"))
    assert "ended by SIGKILL in T.loss() (was the memory full?)" in killed.notes[0]
    begun = time.monotonic()
    hung = child(bench, method("model", "time.sleep(600)"), check={"limit_s": 5})
    assert time.monotonic() - begun < 60
    assert "check.limit_s=5 seconds were over" in hung.notes[0]


@warm
def test_what_a_task_starts_ends_with_the_trial(bench: Bench) -> None:
    mark = bench.folder / "pid"
    body = "pid = os.fork()\nif not pid:\n    time.sleep(600)\n"
    body += f"open({str(mark)!r}, 'w').write(str(pid))\nreturn nn.Linear(4, 2)"
    assert child(bench, method("model", body)).parameters == 10
    deadline = time.monotonic() + 10
    while _lives(int(mark.read_text())):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_check_false_tries_nothing(bench: Bench) -> None:
    job = bench.job(method("model", "raise ValueError"), check=False)
    assert job.check is None
    assert tryout.check(job).parameters is None
    assert parse({**job.model_dump(), "check": True}).check is not None


def test_lazy_layers_train_as_in_a_plain_loop(bench: Bench) -> None:
    """They have seen the first batch before the optimiser is made, and nothing else is changed by it.

    Buffers are moved by what a lane changed, which rounds once more than batch norm does; how, hangs on the processor.
    """
    text = method(
        "model",
        "self.net = nn.Sequential(nn.LazyLinear(8), nn.LazyBatchNorm1d(), nn.BatchNorm1d(8), nn.LazyLinear(2))\n"
        "return self.net",
    )
    text = method("optimizer", "return torch.optim.SGD(model.parameters(), lr=0.1)", text)
    job = bench.job(text, lanes=1, workers={"max": 1}, epochs=None, steps=3)
    task = code.load(code.locate(job.task))()
    train, _ = open_readers(job)
    journal = small._Unheard(None, "w")
    saver = Saver(Store(bench.folder / "checkpoints", "d", job.checkpoint), job.checkpoint, journal)
    context = Context(job, "cpu", train, None, saver, journal, "r", Alone(1))
    contexts.enter(context)
    try:
        torch.manual_seed(job.seed)
        train_task(task, job)
    finally:
        contexts.enter(None)
        context.close()
        saver.close()

    torch.manual_seed(job.seed)
    plain = type(task)()
    model = plain.model()
    reader, _ = open_readers(job)
    batches = [tensors_of(reader.batch(0, step, 0), torch.device("cpu")) for step in range(3)]
    reader.close()
    model.eval()
    with torch.no_grad():
        plain.loss(model, batches[0])
    model.train()
    optimizer = plain.optimizer(model)
    for batch in batches:
        optimizer.zero_grad()
        plain.loss(model, batch).backward()
        optimizer.step()
    for (name, mine), theirs in zip(task.net.named_parameters(), model.parameters(), strict=True):
        assert torch.equal(mine, theirs), name
    for mine, theirs in zip(task.net.buffers(), model.buffers(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-12)


def test_a_lazy_layer_that_the_loss_does_not_use(bench: Bench) -> None:
    text = "class Net(nn.Linear):\n    def __init__(self, *sizes):\n        super().__init__(*sizes)\n"
    text += "        self.late = nn.LazyLinear(3)\n"
    assert "lazy layers have seen no batch: late" in str(bench.refused(net(text)))


HOOKED = (
    GOOD
    + """
class Mine(headway.Hook):
    def __init__(self, verb):
        self.verb = verb
    def on_step_end(self, session, step):
        if self.verb == "step":
            raise ValueError("not this step")
    def on_evaluate(self, session, metrics):
        if self.verb == "evaluate":
            self.last = metrics["loss"]
class H(T):
    def __init__(self, verb="none"):
        self.verb = verb
    def hooks(self):
        if self.verb == "hooks":
            raise KeyError("none")
        return Mine if self.verb == "class" else [Mine(self.verb), headway.hooks.EMA(0.9)]
import headway.hooks
"""
)


@pytest.mark.parametrize(
    ("verb", "said"),
    [
        ("hooks", "task H.hooks() failed: KeyError: 'none'"),
        ("class", "hooks() returned a type"),
        ("step", "the hook Mine.on_step_end() of H failed: ValueError: not this step"),
        ("evaluate", "the hook Mine changed its last and has no state_dict"),
    ],
)
def test_hooks_are_tried(bench: Bench, verb: str, said: str) -> None:
    assert said in str(bench.refused(HOOKED, "H", arguments={"verb": verb}))


def test_a_stop_by_a_metric_that_nobody_reports_is_refused(bench: Bench) -> None:
    assert bench.tried(HOOKED, "H", stop={"metric": "loss"}).parameters
    refused = bench.refused(HOOKED, "H", stop={"metric": "los"})
    assert refused.fact == "stop.metric=los"
    assert "loss" in refused.remedy


MEASURED = (
    GOOD
    + """
from headway.metrics import AUC
class M(T):
    def __init__(self, kind="good"):
        self.kind = kind
    def measures(self):
        return {"auc": object() if self.kind == "object" else AUC()}
    def metrics(self, model, batch):
        logits = model(batch["x"])
        name = "acu" if self.kind == "name" else "auc"
        return {"loss": functional.cross_entropy(logits, batch["y"]), name: (logits, batch["y"])}
"""
)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("object", "the metric auc (object) has no update() and no merge() and no compute()"),
        ("name", "metrics() gave a tuple for 'acu'"),
    ],
)
def test_measures_are_tried(bench: Bench, kind: str, said: str) -> None:
    assert said in str(bench.refused(MEASURED, "M", arguments={"kind": kind}))


def test_good_measures_start(bench: Bench) -> None:
    assert bench.tried(MEASURED, "M").notes == []
