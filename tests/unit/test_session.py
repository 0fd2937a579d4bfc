"""The engine, without Ray: what a loop may rely on, in one process and over several with gloo."""

from __future__ import annotations

import copy
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from headway.checkpoint.store import Store
from headway.data.read.reader import Batch
from headway.data.read.streams import open_readers
from headway.elastic.worker import context as contexts
from headway.elastic.worker.context import Context
from headway.elastic.worker.members import Alone
from headway.elastic.worker.saver import Saver
from headway.elastic.worker.session import Session, Step, session
from headway.errors import BadCheckpoint, BadInput, NonFiniteLoss
from headway.job import Job, parse
from headway.strategies.group import Group
from headway.testing.workers import run

LANES = 4


class Heard:
    """Takes what a session reports."""

    def __init__(self) -> None:
        self.steps: list[dict[str, Any]] = []
        self.measured: list[tuple[int, dict[str, float]]] = []
        self.records: list[tuple[int, dict[str, float]]] = []
        self.owned: list[tuple[int, dict[str, float]]] = []
        self.saves: list[tuple[int, str]] = []
        self.notes: list[str] = []
        self.compared: list[tuple[int, str]] = []
        self.weights = ""
        self.stop_at: int | None = None
        self.leads = False

    @property
    def stop_requested(self) -> bool:
        return self.stop_at is not None and len(self.steps) >= self.stop_at

    def enter(self, leads: bool) -> None:
        self.leads = leads

    def restart(self, epoch: int, found: bool) -> None:
        pass

    def settle(self) -> bool:
        return True

    def journal(self) -> dict[str, Any]:
        return {}

    def take(self, journal: dict[str, Any]) -> None:
        pass

    def note(self, text: str) -> None:
        self.notes.append(text)

    def replicas(self, step: int, digest: str) -> None:
        self.compared.append((step, digest))

    def began(self, step: int, total_steps: int, steps_per_epoch: int, made: str, of: str) -> None:
        self.start = step

    def step(self, step: int, epoch: int, loss: float, rate: float, rows: int, samples: str) -> None:
        self.steps.append({"step": step, "epoch": epoch, "loss": loss, "lr": rate, "rows": rows, "samples": samples})

    def metrics(self, step: int, values: dict[str, float]) -> None:
        self.measured.append((step, values))

    def recorded(self, step: int, values: dict[str, float]) -> None:
        self.records.append((step, values))

    def own(self, step: int, values: dict[str, float]) -> None:
        self.owned.append((step, values))

    def checkpoint_begun(self, step: int, reason: str, blocked_s: float) -> None:
        self.saves.append((step, reason))

    def checkpoint_skipped(self, step: int, reason: str) -> None:
        pass

    def memory(self, found: dict[str, int]) -> None:
        pass

    def checkpoint_done(self, checkpoint: Any, error: str | None, let_go: Any = ()) -> None:
        pass

    def allows(self, step: int) -> bool:
        return True

    def ended(self, step: int, weights_sha256: str, reason: str = "") -> None:
        self.weights = weights_sha256


class Net(nn.Module):
    """Batch norm and dropout: what depends on lanes in a careless engine. No bias before batch norm: its gradient is
    nought but for rounding, which Adam blows up to whole steps."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(
            nn.Linear(4, 8, bias=False), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 2)
        )
        self.register_buffer("mask", torch.tensor([0.0, float("-inf"), 1 / 3]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.body(x)
        return found


def job(folder: Path, **fields: Any) -> Job:
    tree = {
        "name": "n",
        "task": "t.py:T",
        "data": {"train": str(folder / "train"), "validation": str(folder / "val")},
        "lanes": LANES,
        "lane_batch": 4,
        "epochs": 2,
        "seed": 3,
        "checkpoint": {"every_steps": None},
    }
    return parse({**tree, **fields})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """61 rows: 4 steps per epoch, the last of 13 rows. 10 rows to evaluate."""
    from tests.conftest import make_dataset

    folder = tmp_path_factory.mktemp("data")
    make_dataset(folder / "train", (20, 11), (30,))
    make_dataset(folder / "val", (10,))
    return folder


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def open_session(folder: Path, tmp_path: Path) -> Iterator[Callable[..., Session]]:
    """Makes the session of a worker that is alone; `session.heard` is what it reported."""
    opened = []

    def make(model: nn.Module | None = None, own: Any = None, **fields: Any) -> Session:
        context = alone(folder, tmp_path / "checkpoints", **fields)
        opened.append(context)
        model = model or Net()
        made = Session(context, model, own or torch.optim.AdamW(model.parameters(), lr=0.01), None)
        made.heard = context.journal  # type: ignore[attr-defined]
        return made

    yield make
    for context in opened:
        context.close()


def alone(folder: Path, checkpoints: Path, group: Group | None = None, **fields: Any) -> Context:
    """The context of a worker whose group, if it has one, does not change."""
    made = job(folder, **fields)
    train, validation = open_readers(made)
    share = tuple(range(LANES))[group.rank :: group.size] if group else None
    heard: Any = Heard()
    return Context(
        job=made, device="cpu", train=train, validation=validation,
        saver=Saver(Store(checkpoints, "a" * 64, made.checkpoint), made.checkpoint, heard),
        journal=heard, run="r", members=Alone(LANES, group, share),  # type: ignore[arg-type]
    )  # fmt: skip


def loss(model: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    return nn.functional.cross_entropy(model(batch["x"]), batch["y"])


def backward(training: Session, step: Step, batch: dict[str, torch.Tensor]) -> None:
    step.backward(loss(training.model, batch))


def trained(training: Session, body: Callable[[Session, Step, dict[str, torch.Tensor]], Any] = backward) -> Session:
    """The whole loop; a body that returns "break" breaks off the lanes."""
    with training:
        for step in training.steps():
            for batch in step.lanes():
                if body(training, step, batch) == "break":
                    break
    training.context.saver.finish()
    return training


# -- one loop --------------------------------------------------------------------------------------------------------


def test_a_loop_runs_its_epochs(open_session: Callable[..., Session]) -> None:
    heard = trained(open_session()).heard  # type: ignore[attr-defined]
    assert [s["step"] for s in heard.steps] == list(range(8))
    assert [s["epoch"] for s in heard.steps] == [0] * 4 + [1] * 4
    assert [s["rows"] for s in heard.steps] == [16, 16, 16, 13] * 2
    assert len({s["samples"] for s in heard.steps}) == 8
    assert len(heard.weights) == 64
    assert heard.saves == [(8, "end of the run")]


def test_steps_instead_of_epochs(open_session: Callable[..., Session]) -> None:
    training = trained(open_session(epochs=None, steps=5))
    assert (training.step, training.epoch) == (5, 1)


def test_a_step_equals_a_plain_one(open_session: Callable[..., Session]) -> None:
    """Without batch norm and dropout, a step over lanes is the plain step over all its rows."""
    ours, plain = nn.Linear(4, 2), nn.Linear(4, 2)
    plain.load_state_dict(ours.state_dict())
    seen: list[dict[str, torch.Tensor]] = []
    training = open_session(ours, own=torch.optim.SGD(ours.parameters(), lr=0.5), epochs=1)
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.5)
    with training:
        for step in training.steps():
            seen.clear()
            for batch in step.lanes():
                seen.append(batch)
                step.backward(loss(ours, batch))
            whole = {name: torch.cat([batch[name] for batch in seen]) for name in seen[0]}
            assert len(whole["y"]) == step.rows
            optimizer.zero_grad()
            value = loss(plain, whole)
            value.backward()
            optimizer.step()
            assert step.loss == pytest.approx(value.item(), rel=1e-5)
            for a, b in zip(ours.parameters(), plain.parameters(), strict=True):
                assert torch.allclose(a, b, atol=1e-6)


def test_zero_grad_in_the_loop_is_harmless(open_session: Callable[..., Session], tmp_path: Path) -> None:
    weights = []
    for habit in (False, True):
        training = open_session(epochs=1)
        with training:
            for step in training.steps():
                for batch in step.lanes():
                    if habit:
                        training.optimizer.zero_grad()
                    step.backward(loss(training.model, batch))
        training.context.saver.finish()
        weights.append(training.heard.weights)  # type: ignore[attr-defined]
        (tmp_path / "checkpoints").rename(tmp_path / f"kept-{habit}")
    assert weights[0] == weights[1]


def test_what_a_loop_may_not_do(open_session: Callable[..., Session]) -> None:
    def no_backward(training: Session, step: Any, batch: Any) -> None:
        pass

    def twice(training: Session, step: Any, batch: Any) -> None:
        step.backward(loss(training.model, batch))
        step.backward(loss(training.model, batch))

    def not_scalar(training: Session, step: Any, batch: Any) -> None:
        step.backward(training.model(batch["x"]))

    def own_step(training: Session, step: Any, batch: Any) -> None:
        step.backward(loss(training.model, batch))
        training.optimizer.step()

    def clipped(training: Session, step: Any, batch: Any) -> None:
        step.backward(loss(training.model, batch))
        nn.utils.clip_grad_norm_(training.model.parameters(), 0.01)

    said = {
        no_backward: "gave no loss",
        twice: "called twice for one batch",
        not_scalar: r"loss of shape \(4, 2\)",
        own_step: r"optimizer\.step\(\) was called in the loop",
        clipped: "gradients were changed between the lanes",
    }
    for body, message in said.items():
        training = open_session()
        with pytest.raises(BadInput, match=message) as caught:
            trained(training, body=body)
        assert caught.value.remedy
        assert training.step == 0
        assert training.heard.saves == []  # type: ignore[attr-defined]


def test_a_loop_over_lanes_that_is_broken_off(open_session: Callable[..., Session]) -> None:
    with pytest.raises(BadInput, match="step 0 was left before its lanes were done"):
        trained(open_session(), lambda training, step, batch: backward(training, step, batch) or "break")

    def without_lanes(training: Session) -> None:
        with training:
            for _ in training.steps():
                pass

    with pytest.raises(BadInput, match="step 0 was left"):
        without_lanes(open_session())


def test_leaving_both_loops_in_mid_step(open_session: Callable[..., Session]) -> None:
    def returns(training: Session) -> None:
        with training:
            for step in training.steps():
                for batch in step.lanes():
                    step.backward(loss(training.model, batch))
                    if step.number == 2:
                        return

    training = open_session()
    with pytest.raises(BadInput, match="step 2 was left"):
        returns(training)
    assert training.heard.saves == []  # type: ignore[attr-defined]


def test_leaving_between_steps_ends_the_run(open_session: Callable[..., Session]) -> None:
    training = open_session()
    with training:
        for step in training.steps():
            for batch in step.lanes():
                step.backward(loss(training.model, batch))
            if step.number == 2:
                break
    assert training.heard.saves == [(3, "end of the run")]  # type: ignore[attr-defined]


def test_after_the_session_the_optimizer_is_the_users_again(open_session: Callable[..., Session]) -> None:
    training = trained(open_session(epochs=None, steps=1))
    training.optimizer.step()
    assert all(p.grad is None for p in training.model.parameters())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_is_named_and_not_applied(open_session: Callable[..., Session], value: float) -> None:
    before, lanes = {}, []

    def spoiled(training: Session, step: Step, batch: dict[str, torch.Tensor]) -> None:
        if step.number == 2:
            before.update({n: p.detach().clone() for n, p in training.model.named_parameters()})
            lanes.append(len(lanes))
        found = loss(training.model, batch)
        step.backward(found * value if lanes == [0, 1] else found)

    training = open_session()
    with pytest.raises(NonFiniteLoss, match=r"at step 2, from lane 1") as caught:
        trained(training, spoiled)
    assert "lane 1," not in str(caught.value)
    for name, parameter in training.model.named_parameters():
        assert torch.equal(parameter, before[name])


def test_a_stop_ends_after_the_step_with_a_checkpoint(open_session: Callable[..., Session]) -> None:
    training = open_session()
    training.heard.stop_at = 2  # type: ignore[attr-defined]
    trained(training)
    assert training.step == 3
    assert training.heard.saves == [(3, "interrupted")]  # type: ignore[attr-defined]


def test_outside_a_run_the_session_says_where_it_belongs() -> None:
    with pytest.raises(BadInput, match="outside a run"):
        session(Net(), torch.optim.SGD(Net().parameters(), lr=0.1))


def test_inside_a_run_it_takes_the_process_context(folder: Path, tmp_path: Path) -> None:
    context, model = alone(folder, tmp_path, epochs=None, steps=1), Net()
    contexts.enter(context)
    try:
        with session(model, torch.optim.SGD(model.parameters(), lr=0.1)) as training:
            assert training.total_steps == 1
    finally:
        contexts.enter(None)
        context.close()


# -- randomness, buffers, precision ----------------------------------------------------------------------------------


def test_randomness_follows_the_lane(open_session: Callable[..., Session]) -> None:
    """Whatever else the process draws between lanes, a lane draws the same."""

    def drawn(disturb: bool) -> list[float]:
        found = []
        training = open_session(epochs=1)
        with training:
            for step in training.steps():
                for batch in step.lanes():
                    found.append(torch.rand(()).item())
                    if disturb:
                        torch.rand(7)
                    step.backward(loss(training.model, batch))
            training.stopping = True
            training.context.saver.begin(training.step)  # no checkpoint
        return found

    calm = drawn(False)
    assert drawn(True) == calm
    assert len(set(calm)) == len(calm)


def test_buffers_are_the_lanes_mean(open_session: Callable[..., Session]) -> None:
    """One step with momentum 1: the running mean is the mean over all rows; constants stay to the bit."""
    model = Net()
    norm = nn.BatchNorm1d(4, momentum=1.0)
    model.body = nn.Sequential(norm, nn.Linear(4, 2))
    training = open_session(model, epochs=1)
    with training:
        for step in training.steps():
            rows = []
            for batch in step.lanes():
                rows.append(batch["x"])
                step.backward(loss(model, batch))
            assert torch.allclose(norm.running_mean, torch.cat(rows).mean(0), atol=1e-6)  # type: ignore[arg-type]
            assert norm.num_batches_tracked == step.number + 1
    assert torch.equal(model.mask, Net().mask)  # type: ignore[arg-type]


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_trains(open_session: Callable[..., Session], precision: str) -> None:
    training = open_session(precision=precision, epochs=8, clip_norm=1.0)
    kinds = set()
    with training:
        for step in training.steps():
            for batch in step.lanes():
                out = training.model(batch["x"])
                kinds.add(out.dtype)
                step.backward(nn.functional.cross_entropy(out, batch["y"]))
    assert kinds == {torch.bfloat16 if precision == "bf16" else torch.float16}
    losses = [s["loss"] for s in training.heard.steps]  # type: ignore[attr-defined]
    assert sum(losses[-4:]) < sum(losses[:4])
    assert all(p.dtype == torch.float32 for p in training.model.parameters())


def test_an_overflow_under_fp16_skips_the_update_and_not_the_step(open_session: Callable[..., Session]) -> None:
    training = open_session(precision="fp16", epochs=None, steps=3)
    moved = []
    with training:
        training.schedule = torch.optim.lr_scheduler.LambdaLR(training.optimizer, lambda step: 0.5**step)
        for step in training.steps():
            before = training.model.body[0].weight.detach().clone()  # type: ignore[index,union-attr]
            for batch in step.lanes():
                found = loss(training.model, batch)
                step.backward(found * 1e36 if step.number == 0 else found)
            moved.append(not torch.equal(before, training.model.body[0].weight))  # type: ignore[index,arg-type]
    assert moved == [False, True, True]
    assert training.replica.scaler.get_scale() == 2.0**15
    assert [s["lr"] for s in training.heard.steps] == pytest.approx([0.005, 0.0025, 0.00125])  # type: ignore[attr-defined]


def test_the_jobs_optimizer_and_schedule_take_the_place_of_the_tasks(open_session: Callable[..., Session]) -> None:
    fields = {"optimizer": {"name": "sgd", "lr": 0.5, "momentum": 0.9}, "schedule": {"name": "linear"}}
    training = trained(open_session(epochs=None, steps=4, **fields))
    assert isinstance(training.optimizer, torch.optim.SGD)
    assert training.optimizer.param_groups[0]["lr"] == pytest.approx(0.0)


# -- evaluation and checkpoints --------------------------------------------------------------------------------------


def test_evaluation_weighs_rows(open_session: Callable[..., Session], folder: Path) -> None:
    """10 rows in lanes of 2 or 3, batches of 2: the mean is over rows, not over batches."""
    training = open_session(data={"train": str(folder / "train"), "validation": str(folder / "val"), "eval_batch": 2})
    sizes = []

    def metrics(model: nn.Module, batch: dict[str, torch.Tensor]) -> dict[str, Any]:
        assert not model.training
        assert not torch.is_grad_enabled()
        sizes.append(len(batch["id"]))
        return {"mean": batch["id"].float().mean(), "count": 1}

    with training:
        assert training.evaluate(metrics) == {"mean": 4.5, "count": 1.0}
    assert sorted(sizes) == [1, 1, 2, 2, 2, 2]
    assert training.heard.measured == [(0, {"mean": 4.5, "count": 1.0})]  # type: ignore[attr-defined]
    assert training.model.training


def test_what_the_user_froze_stays_frozen(open_session: Callable[..., Session]) -> None:
    net = Net()
    training = open_session(net)
    with training:
        for step in training.steps():
            if step.number == 0:
                net.body[1].eval()
            assert net.training
            assert not net.body[1].training
            for batch in step.lanes():
                step.backward(loss(net, batch))
            training.evaluate(lambda model, batch: {"loss": loss(model, batch)})


def test_without_a_validation_set_there_is_nothing_to_evaluate(
    open_session: Callable[..., Session], folder: Path
) -> None:
    training = open_session(data={"train": str(folder / "train")})
    with training:
        assert training.evaluate(lambda model, batch: {"x": 1}) == {}


def test_checkpoints_carry_only_metrics_of_their_own_step(open_session: Callable[..., Session]) -> None:
    """Else the best checkpoint is one whose weights nobody judged."""
    fields = {"checkpoint": {"every_steps": 3, "keep_last": 9, "keep_best": 1, "metric": "m"}}
    training = open_session(**fields)
    with training:
        for step in training.steps():
            for batch in step.lanes():
                step.backward(loss(training.model, batch))
            training.context.saver.finish()  # one that is under way would let the next be skipped
            if step.last_of_epoch:
                training.evaluate(lambda model, batch: {"m": 1.0})
    training.context.saver.finish()
    metrics = {c.step: c.facts["metrics"] for c in training.context.saver.store.committed()}
    assert metrics == {3: {}, 4: {"m": 1.0}, 6: {}, 8: {"m": 1.0}}
    assert training.heard.saves[1] == (4, "evaluation")  # type: ignore[attr-defined]


class Counter:
    def __init__(self) -> None:
        self.count = 0

    def state_dict(self) -> dict[str, int]:
        return {"count": self.count}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.count = state["count"]


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_resumed_run_ends_with_the_same_bits(
    folder: Path, tmp_path: Path, open_session: Callable[..., Session], precision: str
) -> None:
    fields: dict[str, Any] = {
        "precision": precision,
        "schedule": {"name": "cosine", "warmup_steps": 2},
        "optimizer": {"name": "adamw", "lr": 0.01},
        "epochs": 3,
    }

    def overflowing(training: Session, step: Step, batch: dict[str, torch.Tensor]) -> None:
        step.backward(loss(training.model, batch) * (1e36 if (precision, step.number) == ("fp16", 1) else 1.0))

    whole = trained(open_session(**fields), overflowing)
    (tmp_path / "checkpoints").rename(tmp_path / "undisturbed")
    counts, steps = [], []
    for until in (3, 6, None):  # stopped in mid-epoch, twice, and gone on with new models
        torch.manual_seed(99)
        part, counter = open_session(**fields), Counter()
        with part:
            part.register("counter", counter)
            for step in part.steps():
                for batch in step.lanes():
                    overflowing(part, step, batch)
                counter.count += 1
                if part.step == until:
                    part.stop()
        part.context.saver.finish()
        counts.append(counter.count)
        steps += part.heard.steps  # type: ignore[attr-defined]
    assert counts == [3, 6, 12]
    assert steps == whole.heard.steps  # type: ignore[attr-defined]
    assert part.heard.weights == whole.heard.weights  # type: ignore[attr-defined]
    assert part.replica.scaler.state_dict() == whole.replica.scaler.state_dict()


def test_state_registered_before_the_session_is_entered_is_loaded_too(open_session: Callable[..., Session]) -> None:
    for expected in (0, 5):
        training, counter = open_session(), Counter()
        training.register("counter", counter)
        with training:
            assert counter.count == expected
            counter.count = 5
            training.save("mine")
        training.context.saver.finish()
    with pytest.raises(BadInput, match="called twice"):
        training.register("counter", counter)


def test_another_model_than_the_checkpoints_is_refused(open_session: Callable[..., Session]) -> None:
    trained(open_session(epochs=None, steps=1))
    other = nn.Linear(4, 2)
    with pytest.raises(BadCheckpoint, match="does not fit the task's model"), open_session(other):
        pass


# -- several workers -------------------------------------------------------------------------------------------------


def worker(group: Group, folder: str, checkpoints: str) -> dict[str, Any]:
    # As Headway's workers do: at most as many workers as there are lanes.
    context = alone(Path(folder), Path(checkpoints), group, workers={"max": group.size}, replica_check_every=3)
    model = Net()
    if group.rank:
        nn.init.zeros_(model.body[0].weight)  # type: ignore[arg-type]  # built unlike rank 0's: it must not matter
    training = Session(context, model, torch.optim.AdamW(model.parameters(), lr=0.01), None)
    values = []
    with training:
        for step in training.steps():
            for batch in step.lanes():
                step.backward(loss(model, batch))
            if step.last_of_epoch:
                values.append(training.evaluate(lambda m, b: {"loss": loss(m, b)})["loss"])
    context.saver.finish()
    context.close()
    heard: Any = context.journal
    state = {name: tensor.tolist() for name, tensor in model.state_dict().items()}
    found = {"steps": heard.steps, "state": state, "weights": heard.weights, "evaluations": values}
    return {**found, "compared": heard.compared}


def test_any_number_of_workers_sees_the_same_samples_and_reaches_the_same_weights(folder: Path, tmp_path: Path) -> None:
    found = {}
    for workers in (1, 2, 3):
        (tmp_path / str(workers)).mkdir()
        checkpoints = tmp_path / f"checkpoints-{workers}"
        found[workers] = run(worker, workers, tmp_path / str(workers), str(folder), str(checkpoints))
        assert len({result["weights"] for result in found[workers]}) == 1, "workers agree to the bit"
        for result in found[workers]:
            assert [step for step, _ in result["compared"]] == ([0, 3, 6] if workers > 1 else [])
    alone, *_ = found[1]
    for workers in (2, 3):
        for result in found[workers]:
            assert [s["samples"] for s in result["steps"]] == [s["samples"] for s in alone["steps"]]
            losses, wanted = ([s["loss"] for s in r["steps"]] for r in (result, alone))
            assert losses == pytest.approx(wanted, abs=1e-5)
            assert losses[0] == pytest.approx(wanted[0], abs=1e-6)
            assert result["evaluations"] == pytest.approx(alone["evaluations"], abs=1e-5)
            for name, values in alone["state"].items():
                assert torch.allclose(torch.tensor(result["state"][name]), torch.tensor(values), atol=1e-5), name


# -- what, not how fast ----------------------------------------------------------------------------------------------


def drawing(group: Group, folder: str, checkpoints: str) -> list[list[float]]:
    """What user's code draws around the lanes of each step."""
    context = alone(Path(folder), Path(checkpoints), group, workers={"max": group.size}, epochs=1)
    model, found = Net(), []
    training = Session(context, model, torch.optim.SGD(model.parameters(), lr=0.01), None)
    with training:
        for step in training.steps():
            drawn = [torch.rand(()).item(), float(np.random.rand()), random.random()]
            for batch in step.lanes():
                step.backward(loss(model, batch))
            drawn += [torch.rand(()).item(), float(np.random.rand()), random.random()]
            training.evaluate(lambda m, b: {"loss": loss(m, b)})
            found.append([*drawn, torch.rand(()).item(), float(np.random.rand()), random.random()])
    context.saver.finish()
    context.close()
    return found


def test_2_14d_what_is_drawn_outside_of_lanes_follows_the_step(folder: Path, tmp_path: Path) -> None:
    found = {}
    for workers in (1, 3):
        (tmp_path / str(workers)).mkdir()
        checkpoints = tmp_path / f"checkpoints-{workers}"
        found[workers] = run(drawing, workers, tmp_path / str(workers), str(folder), str(checkpoints))
    alone, *_ = found[1]
    assert all(result == alone for result in found[3])
    flat = [value for step in alone for value in step]
    assert len(set(flat)) == len(flat)


def test_2_14d_and_comes_back_after_a_resume(open_session: Callable[..., Session], tmp_path: Path) -> None:
    def drawn(until: int) -> list[float]:
        found = []
        training = open_session(epochs=1)
        with training:
            for step in training.steps():
                found.append(torch.rand(()).item())
                for batch in step.lanes():
                    step.backward(loss(training.model, batch))
                found.append(torch.rand(()).item())
                if training.step == until:
                    training.stop()
        training.context.saver.finish()
        return found

    parts = drawn(2) + drawn(4)
    for path in sorted((tmp_path / "checkpoints").glob("step-*")):
        shutil.rmtree(path)
    assert parts == drawn(4)


class Head(nn.Module):
    """A loss with parameters of its own, outside of the model, as ArcFace has."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.weight = nn.Parameter(torch.randn(2, 2))

    def forward(self, features: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(features @ self.weight, labels)


def headed(group: Group, folder: str, checkpoints: str, until: int = 0) -> tuple[list[float], list[float]]:
    context = alone(Path(folder), Path(checkpoints), group, workers={"max": group.size}, reproducible="bitwise")
    model, head = nn.Linear(4, 2), Head()
    nn.init.ones_(model.weight)
    training = Session(context, model, torch.optim.Adam([*model.parameters(), *head.parameters()], lr=0.05), None)
    with training:
        for step in training.steps():
            for batch in step.lanes():
                step.backward(head(model(batch["x"]), batch["y"]))
            if training.step == until:
                training.stop()
    context.saver.finish()
    context.close()
    return model.weight.view(-1).tolist(), head.weight.view(-1).tolist()


def test_2_14e_parameters_of_the_loss_are_reduced_saved_and_resumed(folder: Path, tmp_path: Path) -> None:
    found = []
    for workers in (1, 2):
        (tmp_path / str(workers)).mkdir()
        found += run(headed, workers, tmp_path / str(workers), str(folder), str(tmp_path / f"c{workers}"))
    assert found[0] == found[1] == found[2]
    assert found[0][1] != Head().weight.view(-1).tolist()
    (tmp_path / "r1").mkdir()
    (tmp_path / "r2").mkdir()
    run(headed, 1, tmp_path / "r1", str(folder), str(tmp_path / "c3"), 3)
    resumed = run(headed, 2, tmp_path / "r2", str(folder), str(tmp_path / "c3"))
    assert resumed == [found[0]] * 2


def test_2_14e_parameters_that_are_let_go_later_are_trained_from_then_on(open_session: Callable[..., Session]) -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    plain = copy.deepcopy(model)
    model[0].requires_grad_(False)
    training = open_session(model, own=torch.optim.SGD(model.parameters(), lr=0.5), epochs=1)
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.5)
    with training:
        for step in training.steps():
            model[0].requires_grad_(step.number >= 2)
            seen = []
            for batch in step.lanes():
                seen.append(batch)
                step.backward(loss(model, batch))
            whole = {name: torch.cat([batch[name] for batch in seen]) for name in seen[0]}
            plain[0].requires_grad_(step.number >= 2)
            optimizer.zero_grad()
            loss(plain, whole).backward()
            optimizer.step()
            for a, b in zip(model.parameters(), plain.parameters(), strict=True):
                assert torch.allclose(a, b, atol=1e-6), step.number


@pytest.mark.parametrize("clip_norm", [None, 1.0])
def test_2_16_a_gradient_that_is_no_number_is_named_and_not_applied(
    open_session: Callable[..., Session], clip_norm: float | None
) -> None:
    model = nn.Linear(4, 2)
    training = open_session(model, clip_norm=clip_norm)
    before = model.weight.detach().clone()

    def spoiled(training: Session, step: Step, batch: dict[str, torch.Tensor]) -> None:
        found = loss(model, batch)
        step.backward(found + 0.0 * (model.weight * 0).pow(2).sum().sqrt())  # 0, with a derivative of 0 * inf

    with pytest.raises(NonFiniteLoss, match="gradient's norm is nan at step 0"):
        trained(training, spoiled)
    assert torch.equal(model.weight, before)
    assert training.heard.saves == []  # type: ignore[attr-defined]


class Holes:
    """A reader of which some rows are set aside."""

    def __init__(self, reader: Any, gone: set[int]) -> None:
        self._reader, self._gone = reader, gone

    def batch(self, epoch: int, step: int, lane: int) -> Any:
        found = self._reader.batch(epoch, step, lane)
        kept = np.array([row not in self._gone for row in found.ids.tolist()], dtype=bool)
        return Batch({name: array[kept] for name, array in found.arrays.items()} if kept.any() else {}, found.ids[kept])

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reader, name)


def test_2_15_rows_that_are_set_aside_give_the_others_no_more_weight(
    open_session: Callable[..., Session], folder: Path
) -> None:
    """A step is the plain step over the rows that are left."""
    data = {"train": str(folder / "train"), "on_bad_data": "quarantine"}
    ours = nn.Linear(4, 2)
    plain = copy.deepcopy(ours)
    training = open_session(ours, own=torch.optim.SGD(ours.parameters(), lr=0.5), epochs=1, data=data)
    training.context.train = Holes(training.context.train, set(range(0, 61, 7)) | set(range(40, 48)))
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.5)
    rows = 0
    with training:
        for step in training.steps():
            seen = []
            for batch in step.lanes():
                seen.append(batch)
                step.backward(loss(ours, batch))
            whole = {name: torch.cat([batch[name] for batch in seen]) for name in seen[0]}
            rows += len(whole["y"])
            optimizer.zero_grad()
            value = loss(plain, whole)
            value.backward()
            optimizer.step()
            assert step.loss == pytest.approx(value.item(), rel=1e-5)
            for a, b in zip(ours.parameters(), plain.parameters(), strict=True):
                assert torch.allclose(a, b, atol=1e-6)
    assert rows == 61 - len(set(range(0, 61, 7)) | set(range(40, 48)))
