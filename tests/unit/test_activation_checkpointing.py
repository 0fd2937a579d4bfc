"""Activation checkpointing: less memory, the same bits, and no trace of the second time."""

from __future__ import annotations

import copy
import pickle
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.unit.loops import Undisturbed, job, rows
from torch import nn
from torch.nn import functional

import headway
from headway import weights
from headway.elastic.worker import blocks, recompute
from headway.elastic.worker.loop import train_task
from headway.elastic.worker.session import Session
from headway.errors import BadInput


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rows(tmp_path_factory.mktemp("data"))


class Block(nn.Module):
    """All that a second time could get wrong: dropout, running statistics, a buffer that is read and moved, numbers of
    other generators."""

    mean: torch.Tensor

    def __init__(self, norm: Any) -> None:
        super().__init__()
        self.norm, self.up, self.down, self.drop = norm(8), nn.Linear(8, 32), nn.Linear(32, 8), nn.Dropout(0.3)
        self.register_buffer("mean", torch.zeros(8))
        self.calls = 0

    def forward(self, x: torch.Tensor, *, scale: float) -> torch.Tensor:
        self.calls += 1
        found = self.norm(x)
        if self.training:
            with torch.no_grad():
                self.mean.mul_(0.9).add_(found.mean(0), alpha=0.1)
        found = self.drop(self.down(torch.tanh(self.up(found - self.mean))))
        return x + scale * found * float(np.random.rand()) * random.random()  # type: ignore[no-any-return]


class Model(nn.Module):
    def __init__(self, norm: type[nn.Module] = nn.BatchNorm1d, number: int = 3) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.begin = nn.Linear(4, 8)
        self.layers = nn.ModuleList(Block(norm) for _ in range(number))
        self.end = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.begin(x)
        for layer in self.layers:
            x = layer(x, scale=0.5)
        return self.end(x)  # type: ignore[no-any-return]


def trained(model: nn.Module) -> tuple[list[torch.Tensor], list[Any]]:
    """Gradients and buffers after two passes, and what is drawn next."""
    torch.manual_seed(1)
    np.random.seed(2)
    random.seed(3)
    x = torch.arange(64.0).reshape(16, 4) / 64
    for _ in range(2):
        model(x).square().mean().backward()
    found = [*(p.grad for p in model.parameters() if p.grad is not None), *model.buffers()]
    return found, [torch.rand(3).tolist(), float(np.random.rand()), random.random()]


class Frozen(nn.BatchNorm1d):
    """A norm of the user's own, that moves its statistics by a kernel that no version tells of."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = functional.batch_norm(x, self.running_mean, self.running_var, training=True)
        return found - self.running_mean  # type: ignore[operator]


@pytest.mark.parametrize("norm", [nn.BatchNorm1d, nn.LayerNorm, Frozen])
def test_gradients_and_buffers_are_the_same_to_the_bit(norm: type[nn.Module]) -> None:
    plain, other = Model(norm), Model(norm)
    keys = list(plain.state_dict())
    assert len(recompute.use(True, other, {})) == 3
    assert list(other.state_dict()) == keys
    (one, drawn), (two, drawn_too) = trained(plain), trained(other)
    assert len(one) == len(two) > 20
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    assert drawn == drawn_too
    first, second = plain.layers[0], other.layers[0]
    assert isinstance(first, Block)
    assert isinstance(second, Block)
    assert second.calls == 2 * first.calls, "it was computed again"


def test_a_block_stays_what_it_was() -> None:
    model = Model()
    recompute.use(True, model, {})
    recompute.use(True, model, {})
    block = model.layers[0]
    assert isinstance(block, Block)
    assert repr(block) == repr(Model().layers[0])
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert type(other.layers[0]) is Block, "a copy is a plain one, of its own weights"
        assert torch.equal(other.layers[0].up.weight, block.up.weight)
    with torch.no_grad():
        block.calls = 0
        model(torch.zeros(2, 4))
    assert block.calls == 1


def kept(model: nn.Module) -> int:
    from headway.tryout.activations import per_row

    found = per_row(lambda batch: model(batch["x"]).mean(), model, {"x": torch.rand(32, 4)}, 32)
    assert found is not None
    return found


def test_less_is_kept_and_the_plan_measures_it() -> None:
    plain, other = Model(nn.LayerNorm, 12), Model(nn.LayerNorm, 12)
    recompute.use(True, other, {})
    whole, less = kept(plain), kept(other)
    block = 4 * 8
    assert less < whole / 4
    assert less > 12 * block, "what each block is given, and one of them as a whole"


def test_in_functions_transforms_nothing_is_recomputed() -> None:
    """There autograd takes no hooks."""
    model = Model(nn.LayerNorm).eval()
    recompute.use(True, model, {})
    named: dict[str, torch.Tensor] = dict(model.named_parameters())

    def loss(parameters: dict[str, torch.Tensor]) -> torch.Tensor:
        found: torch.Tensor = torch.func.functional_call(model, parameters, (torch.ones(2, 4),)).mean()
        return found

    assert set(torch.func.grad(loss)(named)) == set(named)


def test_modes_are_those_of_the_first_time() -> None:
    plain, other = Model(nn.LayerNorm), Model(nn.LayerNorm)
    recompute.use(True, other, {})
    for model in (plain, other):
        torch.manual_seed(1)
        np.random.seed(2)
        random.seed(3)
        made = model(torch.ones(4, 4)).mean()
        model.eval()
        made.backward()
        assert not any(module.training for module in model.modules())
    assert all(
        torch.equal(a.grad, b.grad)  # type: ignore[arg-type]
        for a, b in zip(plain.parameters(), other.parameters(), strict=True)
    )


# Compiled


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # the compiler hides it
@pytest.mark.parametrize("where", ["whole", "blocks"])
def test_compiled_models_compute_again_too(where: str) -> None:
    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.line = nn.BatchNorm1d(8), nn.Linear(8, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + torch.tanh(self.line(self.norm(x)))

    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(4, 8), *(Plain() for _ in range(2)), nn.Linear(8, 1))
    other: Any = copy.deepcopy(plain)
    if where == "whole":
        other = torch.compile(other, backend="aot_eager")
    else:
        for number in (1, 2):
            other[number] = torch.compile(other[number], backend="aot_eager")
    assert [block.name for block in recompute.use(True, other, {})] == ["1", "2"]
    for model in (plain, other):
        model(torch.arange(32.0).reshape(8, 4)).mean().backward()
    state = weights.plain_state(other.state_dict())
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(state[name], value), name  # statistics were moved once
    for one, two in zip(plain.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(one.grad, two.grad)


# Which


def named(wanted: Any, model: nn.Module, others: dict[str, nn.Module] | None = None) -> list[str]:
    return [block.name for block in blocks.chosen(wanted, model, others or {})]


class Pair(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Linear(4, 4), nn.ReLU())


class Wide(nn.Module):
    """Experts in it are fewer than its layers."""

    def __init__(self) -> None:
        super().__init__()
        self.experts = nn.ModuleList(Pair() for _ in range(2))


def test_the_largest_group_of_blocks_is_found_and_what_is_beside_it() -> None:
    assert named(True, Model()) == ["layers.0", "layers.1", "layers.2"]
    assert named(False, Model()) == []
    stages = nn.Sequential(nn.Sequential(Pair(), Pair(), Pair()), nn.Sequential(Pair(), Pair()), nn.Sequential(Pair()))
    assert named(True, stages) == ["0.0", "0.1", "0.2", "1.0", "1.1", "2.0"]
    both = nn.ModuleDict({"encoder": nn.ModuleList(Pair() for _ in range(3)), "decoder": nn.ModuleList(
        Wide() for _ in range(2)
    )})  # fmt: skip
    assert named(True, both)[:3] == ["encoder.0", "encoder.1", "encoder.2"]
    several = nn.ModuleDict({"actor": Pair(), "critic": Pair()})
    assert named(True, several) == [], "models are no blocks"
    experts = nn.ModuleDict({"layers": nn.ModuleList(Wide() for _ in range(3))})
    assert named(True, experts) == ["layers.0", "layers.1", "layers.2"]
    mixer = nn.Sequential(nn.Linear(4, 4), *(nn.Sequential(nn.Linear(4, 4), nn.ReLU()) for _ in range(3)))
    assert named(True, mixer) == ["1", "2", "3"]
    assert named(True, nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))) == [], "layers alone gain nothing"


def test_blocks_by_name_by_class_and_beside_the_model() -> None:
    model = Model()
    assert named(["layers.*"], model) == ["layers.0", "layers.1", "layers.2"], "none within another"
    assert named(["layers"], model) == ["layers.0", "layers.1", "layers.2"], "a list is not called itself"
    assert named(["layers.1", "Lin*"], model)[:3] == ["begin", "layers.0.up", "layers.0.down"]
    assert named(["Block"], model) == ["layers.0", "layers.1", "layers.2"]
    assert named(["critic:layers.?"], model, {"critic": Model()}) == [f"critic:layers.{n}" for n in range(3)]
    assert "" not in named(["*"], model)


@pytest.mark.parametrize(("pattern", "said"), [("layer.0", "'layers.0'"), ("Blok", "'Block'"), ("zz", "Known: begin")])
def test_a_pattern_that_matches_nothing_is_refused(pattern: str, said: str) -> None:
    with pytest.raises(BadInput) as caught:
        blocks.chosen([pattern], Model(), {})
    assert repr(pattern) in str(caught.value)
    assert said in str(caught.value)


# In a run


class Made(headway.Task):
    def __init__(self, norm: type[nn.Module] = nn.LayerNorm) -> None:
        self.norm = norm

    def model(self) -> nn.Module:
        self.built = Model(self.norm)
        return self.built

    def loss(self, model: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return functional.cross_entropy(model(batch["x"].float() / 10), batch["id"] % 3)


def _train(task: Made, context: Any) -> None:
    train_task(task, context.job)


@pytest.mark.parametrize(
    "fields", [{"reproducible": "bitwise"}, {"reproducible": "order"}, {"micro_batch": 2}], ids=str
)
def test_a_run_gives_the_same_bits(data: Path, tmp_path: Path, fields: dict[str, Any]) -> None:
    found = []
    for wanted in (False, True, ["layers.0"]):
        task = Made(nn.BatchNorm1d)
        made = job(data, **fields, activation_checkpointing=wanted)
        calm = Undisturbed(made, tmp_path / str(wanted), partial(_train, task))
        found.append((calm.steps, calm.values, {k: v.tolist() for k, v in task.built.state_dict().items()}))
    assert found[0] == found[1] == found[2]


def test_what_a_block_records_is_recorded_once(data: Path, tmp_path: Path) -> None:
    class Told(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.line = nn.Linear(4, 4)
            self.tell: Callable[[torch.Tensor], None] = lambda _: None

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.tell(x.mean())
            return x + torch.tanh(self.line(x))

    def own(context: Any) -> None:
        torch.manual_seed(0)
        told = [Told(), Told()]
        model = nn.Sequential(*told, nn.Linear(4, 1))
        with Session(context, model, torch.optim.SGD(model.parameters(), lr=0.1), None) as session:
            for step in session.steps():
                for batch in step.lanes():
                    for number in (0, 1):
                        told[number].tell = partial(step.record, f"mean{number}")
                    step.backward(session.model(batch["x"].float()).square().mean())

    calm = Undisturbed(job(data, steps=2, activation_checkpointing=True), tmp_path, own)
    assert set(calm.values[0]) == {"mean0", "mean1"}


def test_a_model_without_blocks_is_trained_and_told(data: Path, tmp_path: Path) -> None:
    told: list[str] = []

    class Heard(Undisturbed):
        def note(self, text: str, **_: Any) -> None:
            told.append(text)

    class Flat(Made):
        def model(self) -> nn.Module:
            return nn.Linear(4, 3)

    made = job(data, steps=2, activation_checkpointing=True)
    calm = Heard(made, tmp_path, lambda context: train_task(Flat(), context.job))
    assert len(calm.steps) == 2
    assert told == [blocks.NONE]
