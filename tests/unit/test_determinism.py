"""What bits hang on beside the job: held on GPUs, and compared when a run is resumed."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from headway.driver import determinism
from headway.errors import BadInput
from headway.job import Job, parse


def job(reproducible: str = "bitwise", **workers: Any) -> Job:
    tree = {"name": "n", "task": "task.py:T", "data": {"train": "d"}, "epochs": 1}
    return parse({**tree, "reproducible": reproducible, "workers": workers})


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv(determinism.WORKSPACE, "")
    monkeypatch.delenv(determinism.WORKSPACE)
    monkeypatch.setenv(determinism.SHAPES, "1")
    monkeypatch.delenv(determinism.SHAPES)
    compiler = sys.modules.get("torch._dynamo.config")
    dynamic = getattr(compiler, "automatic_dynamic_shapes", True)
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    yield
    torch.use_deterministic_algorithms(before[0])
    torch.backends.cudnn.benchmark = before[1]
    torch.backends.cudnn.deterministic = False
    if compiler is not None:
        compiler.automatic_dynamic_shapes = dynamic  # type: ignore[attr-defined]


def test_2_14b_gpus_are_made_to_sum_in_one_order() -> None:
    torch.backends.cudnn.benchmark = True
    determinism.enforce(job(gpus=1))
    assert torch.are_deterministic_algorithms_enabled()
    assert (torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark) == (True, False)
    assert determinism.os.environ[determinism.WORKSPACE] == ":4096:8"


def test_code_is_compiled_for_each_shape_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Found on a GPU: what is compiled for any shape is compiled so only after two were seen, and rounds otherwise."""
    determinism.enforce(job("order"))
    assert determinism.SHAPES not in os.environ
    determinism.enforce(job())
    assert os.environ[determinism.SHAPES] == "0"
    loaded = SimpleNamespace(automatic_dynamic_shapes=True)
    with monkeypatch.context() as here:  # no longer than this: torch imports it as it likes
        here.setitem(sys.modules, "torch._dynamo.config", loaded)
        determinism.enforce(job())
        assert not loaded.automatic_dynamic_shapes
        here.setenv(determinism.SHAPES, "1")  # by the user's own will
        determinism.enforce(job())
        assert loaded.automatic_dynamic_shapes


@pytest.mark.parametrize(("reproducible", "gpus"), [("bitwise", 0), ("order", 1)])
def test_2_14b_nothing_is_set_where_it_would_only_cost(reproducible: str, gpus: int) -> None:
    determinism.enforce(job(reproducible, gpus=gpus))
    assert not torch.are_deterministic_algorithms_enabled()
    assert determinism.WORKSPACE not in determinism.os.environ


def test_2_14b_what_cannot_be_set_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(determinism.WORKSPACE, ":0:0")
    with pytest.raises(BadInput, match="CUBLAS_WORKSPACE_CONFIG=:0:0 with reproducible: bitwise"):
        determinism.enforce(job(gpus=1))
    monkeypatch.delenv(determinism.WORKSPACE)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    with pytest.raises(BadInput, match="CUDA was started before"):
        determinism.enforce(job(gpus=1))
    assert not torch.are_deterministic_algorithms_enabled()
    monkeypatch.setenv(determinism.WORKSPACE, ":16:8")
    determinism.enforce(job(gpus=1))
    assert torch.are_deterministic_algorithms_enabled()


def test_2_14c_the_facts_are_those_that_rounding_follows() -> None:
    found = determinism.facts(job(cpus=2))
    assert found == {"threads": 2, "torch": torch.__version__, "device": "cpu"}
    assert determinism.facts(job(gpus=1))["device"] == "gpu"
    assert determinism.facts(job("order")) == {}
    assert set(found) == set(determinism.KEYS)


def test_2_14c_a_difference_is_told_and_must_be_allowed() -> None:
    before = {"threads": 1, "torch": "2.12.0", "device": "cpu"}
    now = {"threads": 2, "torch": "2.13.0", "device": "cpu"}
    with pytest.raises(BadInput) as caught:
        determinism.admit("r", before, now, {"torch"})
    for words in ["threads=2, and 1 before", "torch=2.13.0, and 2.12.0 before", "workers.cpus", "--allow threads"]:
        assert words in str(caught.value)
    notes = determinism.admit("r", before, now, {"torch", "threads"})
    assert [note.partition(": ")[2] for note in notes] == ["threads=2, and 1 before", "torch=2.13.0, and 2.12.0 before"]
    assert determinism.admit("r", now, now, set()) == []


def test_2_14c_a_run_from_before_there_were_facts_goes_on_and_says_so() -> None:
    (note,) = determinism.admit("r", None, {"threads": 2}, set())
    assert "it is not known" in note
    assert "threads=2" in note
    assert determinism.admit("r", None, {}, set()) == []


def test_2_14c_what_may_differ_is_named() -> None:
    assert determinism.chosen(["threads,torch", "device"]) == {"threads", "torch", "device"}
    assert determinism.chosen([]) == set()
    with pytest.raises(BadInput, match=r"--allow thread: .* Did you mean 'threads'"):
        determinism.chosen(["thread"])
