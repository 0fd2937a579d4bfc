"""Tasks of all kinds that run beside the plain loop of `tests.gpu.loop`, and a worker that trains one of them."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Any

import torch
from tests.gpu.loop import STEPS, Net, Play, job_of, opened
from torch import nn

import headway
from headway.data.own.taking import taken
from headway.data.read.streams import collate_of, transform_of
from headway.elastic.worker import context as contexts
from headway.elastic.worker.line import Dismissed
from headway.elastic.worker.loop import run_step, session_of
from headway.hooks import EMA, Average, Hook
from headway.metrics import AUC, F1, ClassAccuracy, Confusion, Perplexity
from headway.strategies.group import Group
from headway.testing.workers import die

Batch = dict[str, torch.Tensor]
EVERY = 2
"""Steps between two evaluations."""


@dataclass(frozen=True)
class Act(Play):
    """See `Play`.

    Args:
        task: name of a class below.
        arguments: of it.
        own: the training set is a Dataset of the user's own.
    """

    task: str = "Nets"
    arguments: dict[str, Any] = field(default_factory=dict)
    own: bool = False


class Gan(headway.Task):
    """Two models and two optimisers, that take turns: the generator learns in every second step."""

    def model(self) -> dict[str, nn.Module]:
        return {
            "critic": nn.Sequential(nn.Linear(4, 32), nn.LeakyReLU(), nn.Dropout(0.1), nn.Linear(32, 1)),
            "generator": nn.Sequential(nn.Linear(8, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 4)),
        }

    def optimizer(self, model: Any) -> dict[str, torch.optim.Optimizer]:
        return {
            "critic": torch.optim.RMSprop(model["critic"].parameters(), lr=1e-3),
            "generator": torch.optim.Adam(model["generator"].parameters(), lr=1e-3),
        }

    def schedule(self, optimizer: Any, steps: int) -> dict[str, Any]:
        return {"generator": torch.optim.lr_scheduler.StepLR(optimizer["generator"], 3, 0.5)}

    def updates(self, step: Any) -> list[str]:
        return ["critic", "critic"] if step.number % 2 else ["critic", "critic", "generator"]

    def loss(self, model: Any, batch: Batch, update: str) -> torch.Tensor:  # type: ignore[override]
        made = model["generator"](torch.randn(len(batch["x"]), 8, device=batch["x"].device))
        score: torch.Tensor = model["critic"](made).float().mean()
        return score - model["critic"](batch["x"]).float().mean() if update == "critic" else -score

    def metrics(self, model: Any, batch: Batch) -> dict[str, Any]:
        return {"score": model["critic"](batch["x"]).float().mean()}


class Search(headway.Task):
    """An optimiser that evaluates its loss as often as it likes."""

    def model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Dropout(0.1), nn.Linear(16, 1))

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.LBFGS(model.parameters(), max_iter=4, history_size=3, line_search_fn="strong_wolfe")

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        found: torch.Tensor = (model(batch["x"]).float().squeeze(1) - batch["x"].sum(1)).square().mean()
        return found


class Wide(headway.Task):
    """Whose rows know nothing of one another, and which draws nothing."""

    def model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 3))

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        return nn.functional.cross_entropy(model(batch["x"]).float(), batch["y"])


class Nets(headway.Task):
    """The network of `tests.gpu.loop`.

    Args:
        dropout: of it.
        backend: it is compiled with; '' not at all.
        ema: its weights are averaged, and the average is what is evaluated.
        measured: it is measured by what is no mean; by the rows alone, whose bits are the same on any device.
    """

    def __init__(self, dropout: float = 0.1, backend: str = "", ema: bool = False, measured: bool = False) -> None:
        self.dropout, self.backend, self.ema, self.measured = dropout, backend, ema, measured

    def model(self) -> nn.Module:
        model = Net(self.dropout)
        if not self.backend:
            return model
        import torch._dynamo  # takes seconds
        import torch._inductor.config as options

        torch._dynamo.reset()  # as in a process that has compiled nothing
        options.compile_threads = 1  # no processes for so little
        return torch.compile(model, backend=self.backend)  # type: ignore[return-value]

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.AdamW(model.parameters(), lr=0.01)

    def hooks(self) -> list[Hook]:
        return [EMA(0.8, buffers=True, evaluate=True)] if self.ema else []

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        return nn.functional.cross_entropy(model(batch["x"]).float(), batch["y"])

    def measures(self) -> dict[str, Any]:
        if not self.measured:
            return {}
        by_class = {"confusion": Confusion(2), "f1": F1(2), "by_class": ClassAccuracy(["less", "more"])}
        return {"auc": AUC(), "perplexity": Perplexity(), **by_class}

    def metrics(self, model: nn.Module, batch: Batch) -> dict[str, Any]:
        found: dict[str, Any] = {"loss": self.loss(model, batch)}
        if self.measured:
            x, y = batch["x"], batch["y"]
            each = (x[:, :2], y)
            found |= {"auc": each, "confusion": each, "f1": each, "by_class": each, "perplexity": (x, y)}
        return found


class Rows(torch.utils.data.Dataset[Any]):
    """61 rows that nobody has written down; each draws what it is a little."""

    def __len__(self) -> int:
        return 61

    def __getitem__(self, row: int) -> dict[str, Any]:
        x = torch.sin(row * torch.arange(1.0, 5.0)) + torch.randn(4) / 100
        return {"x": x, "y": int(x.sum() > 0), "name": f"row {row}"}


TASKS: dict[str, type[headway.Task]] = {each.__name__: each for each in (Gan, Search, Wide, Nets)}


def own_rows() -> dict[str, Any]:
    """As `open_readers` takes them."""
    return {"train": taken(Rows(), "train", "Rows")}


def worked(group: Group, act: Act, folder: str, data: str) -> dict[str, Any]:
    """One worker's run of a task; what it ends with."""
    me, job = group.rank, job_of(act, data)
    context, company, notes = opened(group, act, job, folder, own_rows() if act.own else None)
    torch.manual_seed(job.seed + me)  # those who join take rank 0's
    task = TASKS[act.task](**act.arguments)
    context.use(transform_of(task), collate_of(task))
    contexts.enter(context)
    found: dict[str, Any] = {"evaluations": []}
    try:
        training = session_of(task)
        vars(task)["loss"] = _watched(task.loss, act, me, training, job.precision == "fp16")
        found["names"] = list(training.replica.snapshot()["model"])
        with training:
            for step in training.steps():
                run_step(task, training, step)
                if training.step % EVERY == 0 or training.step == STEPS:
                    found["evaluations"].append([training.evaluate(task.metrics, task.measures()), training.tables])
                if training.step == act.until:
                    training.stop()
        context.saver.finish()
    except Dismissed:
        found["dismissed"] = True
    finally:
        contexts.enter(None)
        context.close()
        context.saver.close()
        training.engine.pact.close()
    replica = training.replica
    found |= {"words": replica.words().tolist(), "been": company.been, "told": company.told}
    found |= {"weights": notes.weights, "steps": notes.steps, "step": training.step}
    found["state"] = {name: value.cpu().tolist() for name, value in replica.snapshot()["model"].items()}
    found["devices"] = sorted({tensor.device.type for tensor in replica.tensors() if tensor.dim()})
    averages = [hook for hook in training.hooks._hooks.values() if isinstance(hook, Average)]
    found["averages"] = [{n: t.cpu().tolist() for n, t in hook.average.items()} for hook in averages]
    found["finished"] = replica.outcome.finished
    return found | {"scale": replica.scaler.get_scale(), "rates": replica.updates.rates()}


def _watched(loss: Any, act: Act, me: int, training: Any, overflows: bool) -> Any:
    """The task's loss, with what happens to it."""

    @functools.wraps(loss)
    def watched(model: Any, batch: Batch, *update: str) -> torch.Tensor:
        tensors = [value for value in batch.values() if isinstance(value, torch.Tensor)]
        assert {tensor.device.type for tensor in tensors} == {act.device}
        place = training.step, training.replica.passes
        if torch.is_grad_enabled() and (me, place[0]) in act.dies and place[1] == len(update):
            die()  # of several passes, in the second
        value: torch.Tensor = loss(model, batch, *update)
        if overflows and training.step == 1 and torch.is_grad_enabled():
            value = value * 1e5  # more than fp16 holds: the update is left out, and the scale halved
        return value

    return watched
