"""What appears in a model at first use is agreed on, resumed and handed on; what cannot be is refused in words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.unit.test_session import alone, loss
from torch import nn

from headway.checkpoint.finite import flaw
from headway.elastic.worker.modules import Modules, of_task
from headway.elastic.worker.replica import Replica
from headway.elastic.worker.session import Session
from headway.errors import BadCheckpoint, BadInput

WIDTH = 4


class Asks(nn.Module):
    """Makes its buffers where it has none."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(WIDTH, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not hasattr(self, "mean"):
            self.register_buffer("mean", torch.zeros(WIDTH))
            self.register_buffer("count", torch.tensor(0))
        if self.training:
            self.mean += x.detach().mean(0) / 8
            self.count += 1
        found: torch.Tensor = self.head(x - self.mean)
        return found


class Remembers(Asks):
    """Has a flag of its own, which no checkpoint has."""

    built = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.built:
            self.register_buffer("mean", torch.zeros(WIDTH))
            self.register_buffer("count", torch.tensor(0))
            self.built = True
        return super().forward(x)


class Declares(Asks):
    """Says at once that they will come."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", None)
        self.register_buffer("count", None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.mean is None:
            self.mean, self.count = torch.zeros(WIDTH), torch.tensor(0)
        return super().forward(x)


class Eager(Asks):
    """What all of them are to come to."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(WIDTH))
        self.register_buffer("count", torch.tensor(0))


class Caches(Asks):
    """A cache that grows, and is in no checkpoint."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.register_buffer("rows", torch.zeros(len(x)), persistent=False)
        return super().forward(x)


@pytest.fixture(scope="module", name="folder")
def _folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.conftest import make_dataset

    folder = tmp_path_factory.mktemp("data")
    make_dataset(folder / "train", (20, 11), (30,))
    make_dataset(folder / "val", (10,))
    return folder


pytestmark = pytest.mark.usefixtures("one_thread")


Body = Callable[[Session, Any, dict[str, torch.Tensor]], Any]


def trained(
    folder: Path, checkpoints: Path, model: nn.Module, until: int = 0, before: Any = None, body: Body | None = None,
    optimizer: Any = None, modules: Any = (), evaluated: bool = False, **fields: Any,
) -> Session:  # fmt: skip
    context = alone(folder, checkpoints, **fields)
    training = Session(context, model, optimizer or torch.optim.SGD(model.parameters(), lr=0.1), None, modules)
    try:
        with training:
            if evaluated:
                training.evaluate(lambda m, b: {"loss": loss(m, b)})
            for step in training.steps():
                if before is not None:
                    before(training, step)
                for batch in step.lanes():
                    if body is not None:
                        body(training, step, batch)
                    step.backward(loss(model, batch))
                if training.step == until:
                    training.stop()
        context.saver.finish()
    finally:
        context.saver.close()
        context.close()
    return training


def state(model: nn.Module) -> dict[str, Any]:
    return {name: value.tolist() for name, value in model.state_dict().items()}


@pytest.fixture(scope="module", name="wanted")
def _wanted(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    torch.manual_seed(0)
    return state(trained(folder, tmp_path_factory.mktemp("wanted"), Eager()).model)


def built(kind: type[nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return kind()


@pytest.mark.parametrize("kind", [Asks, Remembers, Declares, Caches])
@pytest.mark.parametrize("evaluated", [False, True], ids=["trained", "evaluated first"])
def test_buffers_that_are_made_at_first_use_are_as_if_they_had_always_been_there(
    kind: type[nn.Module], evaluated: bool, folder: Path, tmp_path: Path, wanted: dict[str, Any]
) -> None:
    whole = trained(folder, tmp_path / "whole", built(kind), evaluated=evaluated)
    assert state(whole.model) == wanted
    trained(folder, tmp_path / "parts", built(kind), until=3, evaluated=evaluated)
    rest = trained(folder, tmp_path / "parts", built(kind), evaluated=evaluated)
    assert state(rest.model) == wanted


def test_evaluation_leaves_buffers_as_they_were(folder: Path, tmp_path: Path) -> None:
    """Which batches a worker evaluates depends on how many there are."""

    class Counts(Eager):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.count += 1
            return super().forward(x)

    plain = trained(folder, tmp_path / "a", built(Counts))
    assert state(plain.model) == state(trained(folder, tmp_path / "b", built(Counts), evaluated=True).model)


def test_a_checkpoint_that_has_more_than_the_model_is_still_refused(folder: Path, tmp_path: Path) -> None:
    trained(folder, tmp_path, built(Eager), until=3)
    with pytest.raises(BadCheckpoint, match="does not fit the task's model"):
        trained(folder, tmp_path, built(Asks))


def test_a_job_without_such_things_keeps_its_checkpoints_layout() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    parts = Replica(model, torch.optim.SGD(model.parameters(), lr=0.1), None, "fp32").snapshot()
    assert set(parts["session"]) == {"schedule", "scaler", "samples", "own", "state"}
    assert parts["session"]["own"] == []
    assert list(parts["model"]) == list(model.state_dict())


def test_an_earlier_releases_list_of_own_parameters_is_read() -> None:
    model, own = nn.Linear(2, 2), nn.Parameter(torch.zeros(2))
    replica = Replica(model, torch.optim.SGD([*model.parameters(), own], lr=0.1), None, "fp32")
    parts = replica.snapshot()
    assert list(parts["session"]["own"]) == ["optimizer.group0.2"]
    parts["session"]["own"] = [torch.ones(2)]
    replica.load(parts)
    assert own.tolist() == [1.0, 1.0]
    parts["session"]["own"] = {"loss:scale": torch.ones(2)}
    with pytest.raises(KeyError, match=r"loss:scale, optimizer\.group0\.2"):
        replica.load(parts)


def test_a_nan_in_a_parameter_beside_the_model_is_no_checkpoint() -> None:
    model, own = nn.Linear(2, 2), nn.Parameter(torch.tensor([0.0, float("nan")]))
    replica = Replica(model, torch.optim.SGD([*model.parameters(), own], lr=0.1), None, "fp32")
    assert flaw(replica.snapshot(), replica.names()) == "NaN in the optimiser's own parameters"


def test_replicas_at_other_rates_are_not_the_same() -> None:
    model = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    replica = Replica(model, optimizer, None, "fp32")
    before = replica.words().tolist()
    optimizer.param_groups[0]["lr"] = 0.2
    assert replica.words().tolist() != before


# -- what is refused -------------------------------------------------------------------------------------------------


def adds_a_layer(training: Session, step: Any) -> None:
    if step.number == 2:
        training.model.more = nn.Linear(2, 2)


def adds_a_parameter(training: Session, step: Any) -> None:
    if step.number == 2:
        training.optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(3))]})


def adds_a_cache(training: Session, step: Any) -> None:
    if step.number == 2:
        training.model.more = nn.BatchNorm1d(2, affine=False)


def lets_go_in_a_lane(training: Session, step: Any, batch: Any) -> None:
    if step.number == 2:
        training.model.head.bias.requires_grad_(False)  # type: ignore[union-attr]


def grows(training: Session, step: Any, batch: Any) -> None:
    if step.number == 2:
        training.model.count = torch.zeros(3, dtype=torch.int64)


def always_new(training: Session, step: Any, batch: Any) -> None:
    count = len(list(training.model.buffers()))
    training.model.register_buffer(f"b{count}", torch.zeros(1))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"before": adds_a_layer}, r"parameter of shape \(2, 2\) was made after the session began"),
        ({"before": adds_a_parameter}, r"parameter of shape \(3,\) was made after the session began"),
        ({"before": adds_a_cache}, r"buffer more\.running_mean is in a module that was made after"),
        ({"body": lets_go_in_a_lane}, r"requires_grad_\) in the lanes of step 2"),
        ({"body": grows}, r"a buffer changed its size in a step: count"),
        ({"body": always_new}, r"buffers were made anew 10 times in step 0"),
    ],
    ids=lambda value: "" if isinstance(value, str) else next(iter(value.values())).__name__,
)
def test_what_others_could_not_have_is_refused(given: dict[str, Any], said: str, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=said) as caught:
        trained(folder, tmp_path, built(Eager), **given)
    assert caught.value.remedy


def test_layers_without_a_shape_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"lazy layers have seen no batch: 0"):
        trained(folder, tmp_path, nn.Sequential(nn.LazyLinear(2)), optimizer=torch.optim.SGD([nn.Parameter()], lr=1.0))


def test_a_group_that_the_schedule_knows_nothing_of_is_refused() -> None:
    model = nn.Linear(2, 2)
    optimizer = torch.optim.SGD([model.weight], lr=0.1)
    replica = Replica(model, optimizer, torch.optim.lr_scheduler.StepLR(optimizer, 1), "fp32")
    replica.check_groups()
    optimizer.add_param_group({"params": [model.bias]})
    with pytest.raises(BadInput, match="2 groups of parameters, and its schedule was made for 1"):
        replica.check_groups()


# -- losses ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (lambda v: {"loss": v, "scores": v}, r"the loss is a dict of loss, scores.*Give its 'loss' alone"),
        (lambda v: (v, v), r"the loss is a tuple.*step\.record"),
        (lambda v: None, r"the loss is a NoneType"),
        (lambda v: v.item(), r"the loss is a float.*Leave out \.item"),
        (lambda v: v.detach(), r"a loss that no parameter has a part in"),
        (lambda v: v.to(torch.complex64), r"a loss of torch\.complex64"),
        (lambda v: v.expand(3), r"a loss of shape \(3,\)"),
    ],
)
def test_a_loss_that_is_none_is_refused_in_words(
    value: Callable[[torch.Tensor], Any], said: str, folder: Path, tmp_path: Path
) -> None:
    def body(training: Session, step: Any, batch: Any) -> None:
        step.backward(value(loss(training.model, batch)))

    with pytest.raises(BadInput, match=said) as caught:
        trained(folder, tmp_path, built(Eager), body=body)
    assert caught.value.remedy


@pytest.mark.parametrize("mode", ["order", "bitwise"])
def test_sparse_gradients_are_refused_in_words(mode: str, folder: Path, tmp_path: Path) -> None:
    model = nn.EmbeddingBag(8, 2, sparse=True)

    def body(training: Session, step: Any, batch: Any) -> None:
        found = model(batch["y"].view(-1, 1))
        step.backward(nn.functional.cross_entropy(found, batch["y"]))

    with pytest.raises(BadInput, match="sparse gradient"):
        trained(folder, tmp_path, model, body=body, reproducible=mode)


# -- modules beside the model ----------------------------------------------------------------------------------------


def test_the_modules_of_a_task_are_found_wherever_they_are() -> None:
    class Parts:
        def __init__(self, task: Task) -> None:
            self.task, self.norm = task, nn.BatchNorm1d(1)

    class Task:
        shared = nn.BatchNorm1d(1)

        def __init__(self) -> None:
            self.net = nn.Linear(1, 1)
            self.parts = Parts(self)
            self.again: list[Any] = [self.parts]
            self.again.append(self.again)
            self.criterion = nn.BatchNorm1d(1)
            self.heads = [nn.Linear(1, 1), {"deep": nn.Linear(1, 1)}]
            self.number = 3

    task = Task()
    assert list(of_task(task, task.net)) == ["parts.norm", "criterion", "heads.0", "heads.1.deep", "shared"]


def test_what_they_share_counts_once() -> None:
    net, norm = nn.Linear(1, 1), nn.BatchNorm1d(1)
    modules = Modules(net, {"whole": nn.Sequential(net, norm), "norm": norm})
    assert [key for key, _, _ in modules.places()] == [
        "whole:1.running_mean", "whole:1.running_var", "whole:1.num_batches_tracked"
    ]  # fmt: skip
    assert [name for name, _ in modules.named_parameters()] == ["weight", "bias", "whole:1.weight", "whole:1.bias"]


def average(model: nn.Module, optimizer: torch.optim.Optimizer) -> nn.Module:
    """A moving average, as torch has it, that follows the optimiser."""
    made = torch.optim.swa_utils.AveragedModel(
        model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9), use_buffers=True
    )
    optimizer.register_step_post_hook(lambda *_: made.update_parameters(model))
    return made


def test_a_moving_average_beside_the_model_is_as_in_plain_pytorch_and_resumed(folder: Path, tmp_path: Path) -> None:
    def ran(place: str, until: int = 0) -> dict[str, Any]:
        model = built(Eager)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        modules = {"average": average(model, optimizer)}
        trained(folder, tmp_path / place, model, until, optimizer=optimizer, modules=modules)
        return state(modules["average"])

    whole = ran("whole")
    model = built(Eager)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    plain, count = average(model, optimizer), 0

    def moves(training: Session, step: Any) -> None:
        nonlocal count
        if count:
            plain.update_parameters(training.model)  # type: ignore[operator]
        count += 1

    free = torch.optim.SGD(model.parameters(), lr=0.1)
    trained(folder, tmp_path / "free", model, before=moves, optimizer=free)
    plain.update_parameters(model)  # type: ignore[operator]
    assert whole == state(plain)
    assert whole["n_averaged"] == count > 3
    ran("parts", until=3)
    assert ran("parts") == whole


def test_a_frozen_module_beside_the_model_is_in_no_checkpoint() -> None:
    model, teacher = nn.Linear(2, 2), nn.Linear(2, 2)
    replica = Replica(model, torch.optim.SGD(model.parameters(), lr=0.1), None, "fp32", others={"teacher": teacher})
    assert "beside" not in replica.snapshot()["session"]
    teacher.weight.data.mul_(0.5)
    assert list(replica.snapshot()["session"]["beside"]) == ["teacher:weight"]


# -- optimisers beside the session's ---------------------------------------------------------------------------------


@pytest.mark.parametrize("known", [True, False])
def test_a_second_optimiser_in_the_lanes_is_refused(known: bool, folder: Path, tmp_path: Path) -> None:
    """Each worker would move its parameters by its own rows."""
    judge = nn.Linear(WIDTH, 1)
    theirs = torch.optim.SGD(judge.parameters(), lr=0.1)

    def body(training: Session, step: Any, batch: Any) -> None:
        theirs.zero_grad()
        judge(batch["x"]).mean().backward()
        theirs.step()

    with pytest.raises(BadInput, match=r"second optimiser \(SGD\) was stepped in a lane") as caught:
        trained(folder, tmp_path, built(Eager), body=body, modules={"judge": judge} if known else ())
    assert "by name" in caught.value.remedy


def test_an_optimiser_that_is_made_and_used_up_in_a_lane_is_the_lanes(folder: Path, tmp_path: Path) -> None:
    """An attack on the inputs, an inner loop."""
    moved = []

    def body(training: Session, step: Any, batch: Any) -> None:
        change = torch.zeros_like(batch["x"], requires_grad=True)
        attack = torch.optim.SGD([change], lr=1.0)
        for _ in range(2):
            value = loss(training.model, {**batch, "x": batch["x"] + change})
            (change.grad,) = torch.autograd.grad(-value, change)
            attack.step()
        moved.append(float(change.detach().abs().max()))

    trained(folder, tmp_path, built(Eager), until=3, body=body)
    assert min(moved) > 0


class Noisy(torch.optim.SGD):
    """Draws in its step, as Langevin's and private ones do."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        super().step()
        with torch.no_grad():
            for group in self.param_groups:
                for parameter in group["params"]:
                    parameter += 0.01 * torch.randn_like(parameter)


def test_what_an_optimiser_draws_does_not_follow_the_last_lane(folder: Path, tmp_path: Path) -> None:
    """Which is another on every worker."""
    drawn: list[int] = []

    def ran(place: str, draws: int) -> dict[str, Any]:
        def body(training: Session, step: Any, batch: Any) -> None:
            drawn.append(draws)
            torch.rand(draws)

        model = built(Eager)
        return state(
            trained(folder, tmp_path / place, model, body=body, optimizer=Noisy(model.parameters(), 0.1)).model
        )

    assert ran("a", 1) == ran("b", 2)
    assert set(drawn) == {1, 2}


@pytest.mark.parametrize("mode", ["order", "bitwise"])
def test_another_default_dtype_is_the_users_own_affair(mode: str, folder: Path, tmp_path: Path) -> None:
    def body(training: Session, step: Any, batch: Any) -> None:
        batch["x"] = batch["x"].double()
        step.record("half", 0.5)

    try:
        torch.set_default_dtype(torch.float64)
        made = trained(folder, tmp_path / mode, built(Eager), body=body, reproducible=mode, evaluated=False)
    finally:
        torch.set_default_dtype(torch.float32)
    assert next(made.model.parameters()).dtype == torch.float64
    assert made.replica.outcome.records == {"half": 0.5}
