"""Optimisers and schedules by name, clipping, scaling, and the digest of weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from headway import optim
from headway.elastic.worker import batches, update
from headway.elastic.worker.draws import seed
from headway.elastic.worker.replica import Replica
from headway.errors import BadInput
from headway.job import OPTIMIZERS, Optimizer, Schedule


def model() -> nn.Module:
    torch.manual_seed(0)
    net = nn.Linear(2, 1)
    for parameter in net.parameters():
        parameter.grad = torch.ones_like(parameter)
    return net


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_named_optimizer_is_torchs(name: str) -> None:
    net = model()
    made = optim.named_optimizer(Optimizer(name=name, lr=0.1, weight_decay=0.01), net)  # type: ignore[call-arg]
    assert type(made).__name__.lower() == name
    assert (made.defaults["lr"], made.defaults["weight_decay"]) == (0.1, 0.01)
    before = net.weight.clone()  # type: ignore[operator]
    made.step()
    assert not torch.equal(before, net.weight)  # type: ignore[arg-type]


def test_frozen_parameters_are_left_out_and_lists_become_tuples() -> None:
    net = model()
    net.bias.requires_grad_(False)  # type: ignore[union-attr]
    made = optim.named_optimizer(Optimizer(name="adamw", lr=0.1, betas=[0.8, 0.9]), net)  # type: ignore[call-arg]
    assert made.param_groups[0]["betas"] == (0.8, 0.9)
    assert len(made.param_groups[0]["params"]) == 1


@pytest.mark.parametrize("options", [{"momentun": 0.9}, {"momentum": -1.0}, {"momentum": "much"}, {"nesterov": True}])
def test_a_bad_option_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match="optimizer sgd with") as caught:
        optim.named_optimizer(Optimizer(name="sgd", lr=0.1, **options), model())
    assert caught.value.reason
    assert caught.value.remedy


def rates(section: Schedule, steps: int) -> list[float]:
    optimizer = torch.optim.SGD(model().parameters(), lr=2.0)
    made = optim.schedule(section, optimizer, steps, None)
    assert made is not None
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        made.step()
    return found


def test_named_schedules() -> None:
    assert rates(Schedule(), 3) == [2.0] * 3
    assert rates(Schedule(name="linear", final=0.5), 4) == pytest.approx([2.0, 1.75, 1.5, 1.25])
    assert rates(Schedule(name="step", every=2, factor=0.5), 5) == [2.0, 2.0, 1.0, 1.0, 0.5]
    assert rates(Schedule(name="cosine"), 4) == pytest.approx([2.0, 1.70711, 1.0, 0.29289], abs=1e-4)


def test_warm_up_comes_before_the_schedules_own_steps() -> None:
    found = rates(Schedule(name="cosine", warmup_steps=2), 6)
    assert found == pytest.approx([1.0, 2.0, 2.0, 1.70711, 1.0, 0.29289], abs=1e-4)
    assert rates(Schedule(name="cosine", warmup_steps=5), 3) == pytest.approx([0.4, 0.8, 1.2]), "longer than the run"


def test_without_a_section_the_tasks_schedule_is_used() -> None:
    optimizer = torch.optim.SGD(model().parameters(), lr=2.0)
    wanted = torch.optim.lr_scheduler.ConstantLR(optimizer)
    assert optim.schedule(None, optimizer, 7, lambda o, steps: wanted if steps == 7 else None) is wanted
    assert optim.schedule(None, optimizer, 7, None) is None


@pytest.mark.parametrize("enabled", [False, True])
def test_clipping_is_of_the_true_gradient_whatever_the_scale(enabled: bool) -> None:
    net = model()
    before = [p.detach().clone() for p in net.parameters()]
    optimizer = torch.optim.SGD(net.parameters(), lr=1.0)
    replica = Replica(net, optimizer, None, "fp16" if enabled else "fp32")
    if enabled:
        replica.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        replica.scaler.scale(torch.ones(()))  # as backward() does; makes the scale
    for parameter in net.parameters():
        parameter.grad = torch.full_like(parameter, 30.0 * (1024.0 if enabled else 1.0))
    guard = optimizer.register_step_pre_hook(replica.refuse_step)
    replica.apply(clip_norm=0.5)
    guard.remove()
    moved = torch.cat([(a - b).flatten() for a, b in zip(before, net.parameters(), strict=True)])
    assert moved.norm().item() == pytest.approx(0.5, rel=1e-4)


def test_autocast_by_precision() -> None:
    for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)):
        with update.autocast(precision, torch.device("cpu")):
            assert model()(torch.ones(1, 2)).dtype == dtype


def test_the_digest_of_weights_notices_names_values_dtypes_and_shapes() -> None:
    def digest(**tensors: torch.Tensor) -> str:
        net = nn.Module()
        for name, tensor in tensors.items():
            net.register_buffer(name, tensor)
        return update.weights_sha256(net)

    x = torch.tensor([[1.0, 2.0]])
    found = [digest(a=x), digest(b=x), digest(a=x + 1e-6), digest(a=x.double()), digest(a=x.T), digest(a=x, b=x)]
    assert len(set(found)) == len(found)
    assert digest(a=x, b=x.T.contiguous().T) == digest(b=x, a=x), "neither order nor memory layout"
    assert digest(a=torch.tensor(True), b=torch.ones(2).bfloat16(), c=torch.empty(0))


# -- from arrays to tensors ------------------------------------------------------------------------------------------

CPU = torch.device("cpu")


def test_arrays_become_tensors() -> None:
    read_only = np.arange(3)
    read_only.flags.writeable = False
    found = batches.tensors({"a": read_only, "b": [1.0, 2.0, 3.0], "c": torch.ones(3, 2), "d": np.eye(3)[::-1]}, 3, CPU)
    assert found["a"].tolist() == [0, 1, 2]
    assert found["b"].dtype == torch.float64
    assert found["c"].shape == (3, 2)
    assert found["d"][0].tolist() == [0.0, 0.0, 1.0]


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ([1, 2], "transform returned list"),
        ({"x": np.ones(4)}, r"'x' with shape \(4,\) for 3 rows"),
        ({"x": np.float32(1)}, r"'x' with shape \(\)"),
        ({"x": np.array(["a", "b", "c"])}, "'x' of type <U1"),
        ({"x": np.array([None, 1, 2])}, "'x' of type object"),
    ],
)
def test_what_is_no_batch_is_refused(arrays: Any, said: str) -> None:
    with pytest.raises(BadInput, match=said) as caught:
        batches.tensors(arrays, 3, CPU)
    assert caught.value.remedy


def test_a_seed_sets_every_generator() -> None:
    import random

    def drawn() -> tuple[float, float, float]:
        return torch.rand(()).item(), float(np.random.rand()), random.random()

    seed("lane", 1, 0, 0, 0)
    first = drawn()
    seed("lane", 1, 0, 0, 1)
    second = drawn()
    seed("lane", 1, 0, 0, 0)
    assert drawn() == first
    assert all(a != b for a, b in zip(first, second, strict=True))
