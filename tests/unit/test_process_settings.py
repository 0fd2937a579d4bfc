"""Settings of torch's and NumPy's are after a run what they were before it."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
import torch

from headway.driver import determinism
from headway.elastic.worker import settings


def test_what_was_changed_is_put_back() -> None:
    dtype, threads = torch.get_default_dtype(), torch.get_num_threads()
    put_back = settings.as_found()
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(threads + 1)
    put_back()
    assert (torch.get_default_dtype(), torch.get_num_threads()) == (dtype, threads)


@pytest.mark.parametrize("loaded", [True, False])
def test_so_is_what_a_run_told_the_compiler(loaded: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bitwise run has it compile for each shape; the next run of the process may not want that."""
    monkeypatch.delenv(determinism.SHAPES, raising=False)
    told = {
        "torch._dynamo.config": SimpleNamespace(automatic_dynamic_shapes=True),
        "torch._inductor.config": SimpleNamespace(deterministic=False),
    }
    for name, config in told.items():
        monkeypatch.setitem(sys.modules, name, config if loaded else None)
    put_back = settings.as_found()
    for name, config in told.items():
        monkeypatch.setitem(sys.modules, name, config)
    told["torch._dynamo.config"].automatic_dynamic_shapes = False
    told["torch._inductor.config"].deterministic = True
    put_back()
    assert told["torch._dynamo.config"].automatic_dynamic_shapes
    assert not told["torch._inductor.config"].deterministic
