"""Random generators of whoever calls, while a run or a model seeds them."""

from __future__ import annotations

import pytest
import torch

from headway import generators


def test_they_are_as_they_were() -> None:
    torch.manual_seed(5)
    drawn = torch.randn(3)
    torch.manual_seed(5)
    with generators.put_back():
        torch.manual_seed(1)
        torch.randn(7)
    assert torch.equal(torch.randn(3), drawn)
    assert torch.initial_seed() == 5


def test_a_device_that_starts_meanwhile_has_the_callers_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a device nothing is lost: the last seed is what counts when one starts."""
    seeds: list[int] = []
    torch.manual_seed(5)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeds.append)
    with generators.put_back():
        torch.manual_seed(1)
    assert seeds == [1, 5]
