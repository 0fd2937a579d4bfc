"""A GPU's memory: blocks that are computed again take less of it and give the same bits, and its peak is told."""

from __future__ import annotations

import copy

import pytest
import torch
from tests.gpu.device import DEVICE, device, gpu_only
from torch import nn

from headway.elastic.worker import recompute
from headway.elastic.worker.footprint import Footprint

WIDTH, ROWS, BLOCKS = 256, 4096, 8


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.BatchNorm1d(WIDTH), nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)
        self.drop = nn.Dropout(0.1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.drop(self.down(nn.functional.gelu(self.up(self.norm(x)))))  # type: ignore[no-any-return]


def models() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    plain = nn.Sequential(*(Block() for _ in range(BLOCKS))).to(DEVICE)
    other = copy.deepcopy(plain)
    assert len(recompute.use(True, other, {})) == BLOCKS
    return plain, other


def step(model: nn.Module) -> None:
    torch.manual_seed(1)
    model(torch.rand(ROWS, WIDTH, device=DEVICE)).square().mean().backward()


@device
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_and_statistics_are_the_same_to_the_bit(dtype: torch.dtype) -> None:
    plain, other = models()
    for model in (plain, other):
        with torch.autocast(DEVICE, dtype=torch.bfloat16, enabled=dtype is torch.bfloat16):
            step(model)
    for one, two in zip(plain.parameters(), other.parameters(), strict=True):
        assert one.grad is not None
        assert two.grad is not None
        assert torch.equal(one.grad, two.grad)
    assert all(torch.equal(one, two) for one, two in zip(plain.buffers(), other.buffers(), strict=True))


@gpu_only
@pytest.mark.alone
def test_less_is_taken_and_the_peak_is_told() -> None:
    peaks = []
    for model in models():
        told: list[dict[str, int]] = []
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step(model)
        Footprint(torch.device(DEVICE), 0, told.append).say()
        peaks.append(told[0]["device"] - before)
    assert peaks[1] < peaks[0] / 2
