"""Compressed all-reduce between processes: bytes on their sockets, and what is learnt beside PyTorch's own hooks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from headway.strategies import create
from headway.strategies.compress.exchange import Exchange, compressed_total
from headway.strategies.compress.ways import Among
from headway.strategies.group import Group
from headway.strategies.kept import Kept
from headway.strategies.options import Compression, Strategy
from headway.testing.forks import for_good
from headway.testing.workers import crew, start_values


def counted(group: Group, kind: str) -> int:
    """Bytes on this worker's connections in one exchange, both ways."""
    kept, elements = Kept(), 400_000
    among = Among(group, [(0,), (1,)], 2, torch.device("cpu"))
    exchange = Exchange(Compression(kind=kind), [(1000, 400)], among, kept)
    out = torch.empty(elements)
    group.barrier()
    before = group.bytes_moved()
    compressed_total(exchange, {group.rank: torch.randn(elements)}, out)
    group.barrier()
    found = group.bytes_moved() - before
    group.barrier()  # a connection that the other has closed is not counted
    return found


def test_bytes_on_the_wire(tmp_path: Path) -> None:
    """Received ones too; of two workers' connection."""
    run = crew("gloo", tmp_path)
    dense = run(counted, 2, "none")[0]
    assert dense == pytest.approx(2 * 4 * 400_000, rel=0.05)
    for kind, times in (("fp16", 1.9), ("int8", 3.7), ("top_k", 40), ("power_sgd", 40)):
        assert dense / run(counted, 2, kind)[0] > times, kind


class Student(nn.Module):
    """Learns what another of its kind says."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(16, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 4))
        start_values(self, seed)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.layers(x)
        return result


def rows(step: int, lane: int) -> torch.Tensor:
    return torch.randn(32, 16, generator=torch.Generator().manual_seed(100 * step + lane))


def trained(step_of: Any, model: nn.Module, parameters: Sequence[nn.Parameter]) -> float:
    """Loss over rows that were not trained on."""
    teacher, optimizer = Student(1), torch.optim.SGD(parameters, lr=0.05, momentum=0.9)
    for step in range(80):
        step_of(teacher, step)
        optimizer.step()
        optimizer.zero_grad()
    with torch.no_grad():
        x = torch.cat([rows(1000, lane) for lane in range(8)])
        return float((model(x) - teacher(x)).square().mean())


def beside_torch(group: Group, kind: str, folder: str) -> tuple[float, float, float]:
    """Loss of PyTorch's hook, of ours, and dense."""
    import torch.distributed as dist
    from torch.distributed.algorithms.ddp_comm_hooks import default_hooks, powerSGD_hook

    store = dist.FileStore(f"{folder}/torch", group.size)  # type: ignore[attr-defined]
    dist.init_process_group("gloo", store=store, rank=group.rank, world_size=group.size)
    wrapped = for_good(nn.parallel.DistributedDataParallel(Student(0)))
    if kind == "fp16":
        wrapped.register_comm_hook(None, default_hooks.fp16_compress_hook)
    else:
        state = powerSGD_hook.PowerSGDState(
            None, matrix_approximation_rank=2, start_powerSGD_iter=2, min_compression_rate=1, random_seed=0
        )
        wrapped.register_comm_hook(state, powerSGD_hook.powerSGD_hook)

    def theirs(teacher: nn.Module, step: int) -> None:
        x = rows(step, group.rank)
        (wrapped(x) - teacher(x).detach()).square().mean().backward()

    def ours(how: Compression, model: nn.Module) -> Any:
        found = create(
            Strategy(kind="all_reduce", compression=how),
            list(model.parameters()),
            lanes=2,
            tail=0,
            changes=0,
            group=group,
            replicas=[(0,), (1,)],
        )

        def step_of(teacher: nn.Module, step: int) -> None:
            found.begin([group.rank])
            x = rows(step, group.rank)
            found.before_backward(group.rank, last=True)
            ((model(x) - teacher(x).detach()).square().mean() / 2).backward()
            found.after_backward()
            found.lane_done(torch.zeros(0))
            found.finish(torch.zeros(0))
            found.commit()

        return step_of

    losses = [trained(theirs, wrapped.module, list(wrapped.parameters()))]
    how = Compression(kind=kind) if kind == "fp16" else Compression(kind=kind, rank=2, start_step=2, dense_below=0)
    for each in (how, Compression(kind="none")):
        model = Student(0)
        losses.append(trained(ours(each, model), model, list(model.parameters())))
    dist.destroy_process_group()
    return losses[0], losses[1], losses[2]


@pytest.mark.parametrize("kind", ["fp16", "power_sgd"])
def test_it_learns_as_with_pytorchs_hooks(kind: str, tmp_path: Path) -> None:
    (tmp_path / "crew").mkdir()
    torchs, ours, dense = crew("gloo", tmp_path / "crew")(beside_torch, 2, kind, str(tmp_path))[0]
    assert dense < 0.5 * before_learning(), "nothing was learnt, and nothing shown"
    assert ours < 1.1 * max(torchs, dense)


def before_learning() -> float:
    with torch.no_grad():
        x = torch.cat([rows(1000, lane) for lane in range(8)])
        return float((Student(0)(x) - Student(1)(x)).square().mean())
