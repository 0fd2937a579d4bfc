"""Checkpoints of formats before this one and of this one, as the code of then wrote them: read, checked, and let go.

`tests/golden/checkpoint-1` to `-3` hold one state: a model with tied weights, bfloat16 and versions of modules, an
optimiser, and the session's own.
"""

from __future__ import annotations

import shutil
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch

from headway.checkpoint import found
from headway.checkpoint.store import Store
from headway.job import Checkpoint as Policy

GOLDEN = Path(__file__).parents[1] / "golden"
STEPS = {1: 5, 2: 10, 3: 15}


def store(root: Path, **policy: Any) -> Store:
    return Store(root, "a" * 64, Policy(**{"keep_last": 9, **policy}))


def state(step: int) -> dict[str, Any]:
    model = OrderedDict(w=torch.arange(6.0).view(2, 3) + step, b=torch.ones(2, dtype=torch.bfloat16))
    model._metadata = OrderedDict({"": {"version": 1}})  # type: ignore[attr-defined]
    model["tied"] = model["w"]
    optimizer = {"step": torch.tensor(float(step)), "exp_avg": torch.full((2, 3), 0.5)}
    group = {"lr": 0.1, "params": [0, 1], "betas": (0.9, 0.999)}
    session = {"schedule": None, "samples": "00", "own": [], "state": {"mine": {"a": [1, 2], "s": {1}}}}
    return {"model": model, "optimizer": {"state": {0: optimizer}, "param_groups": [group]}, "session": session}


@pytest.mark.parametrize("number", STEPS)
def test_a_checkpoint_of_each_format_is_read(number: int) -> None:
    there = store(GOLDEN / f"checkpoint-{number}")
    checkpoint, passed_over = there.newest()
    assert checkpoint is not None
    assert (checkpoint.step, checkpoint.epoch, checkpoint.finite) == (
        STEPS[number],
        0 if number == 1 else 3,
        number > 1,
    )
    again, parts, _ = there.restore()
    assert again == checkpoint
    assert passed_over == []
    wanted = state(STEPS[number])
    assert parts["model"]._metadata == wanted["model"]._metadata
    for name, value in wanted["model"].items():
        assert parts["model"][name].dtype == value.dtype
        assert torch.equal(parts["model"][name], value)
    assert parts["model"]["tied"].data_ptr() == parts["model"]["w"].data_ptr()
    assert torch.equal(parts["optimizer"]["state"][0]["exp_avg"], torch.full((2, 3), 0.5))
    assert parts["optimizer"]["param_groups"] == wanted["optimizer"]["param_groups"]
    assert parts["session"] == wanted["session"]


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("part", ["model.pt", "session.pt", "manifest.json"])
def test_a_damaged_one_of_an_earlier_format_is_passed_over(tmp_path: Path, number: int, part: str) -> None:
    shutil.copytree(GOLDEN / f"checkpoint-{number}", tmp_path, dirs_exist_ok=True)
    (path,) = tmp_path.glob(f"step-*/{part}")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    for look in (store(tmp_path).newest, store(tmp_path).restore):
        checkpoint, *_, (said,) = look()
        assert checkpoint is None
        assert f"step-{STEPS[number]:08d}" in said


def test_a_run_of_an_earlier_release_goes_on_and_lets_its_checkpoints_go(tmp_path: Path) -> None:
    for number in (1, 2):
        shutil.copytree(GOLDEN / f"checkpoint-{number}", tmp_path, dirs_exist_ok=True)
    there = store(tmp_path, keep_last=2)
    there.write(15, state(15), {"metrics": {}})
    assert [c.step for c in there.committed()] == [10, 15]
    there.write(10, state(11), {"metrics": {}})
    checkpoint, parts, passed_over = store(tmp_path).restore()
    assert checkpoint is not None
    assert (checkpoint.step, passed_over) == (15, [])
    assert torch.equal(parts["model"]["w"], state(15)["model"]["w"])
    assert not list(tmp_path.glob("step-*/*.pt")), "that of the same step was replaced"


def test_2_16_an_earlier_releases_checkpoint_with_nan_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(GOLDEN / "checkpoint-1", tmp_path, dirs_exist_ok=True)
    monkeypatch.setattr("headway.checkpoint.store.flaw", lambda parts, parameters: "NaN in w")
    checkpoint, (said,) = store(tmp_path).newest()
    assert checkpoint is None
    assert "step-00000005 holds NaN in w" in said


def test_cleaning_puts_back_what_an_earlier_release_moved_aside(tmp_path: Path) -> None:
    shutil.copytree(GOLDEN / "checkpoint-2", tmp_path, dirs_exist_ok=True)
    (tmp_path / "step-00000010").rename(tmp_path / ".replaced-step-00000010")
    (tmp_path / ".writing-00000020-ab").mkdir()
    there = store(tmp_path)
    there.clean()
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000010"]
    assert there.newest()[1] == []


def test_this_format_is_that_of_the_newest_golden_one(tmp_path: Path) -> None:
    """To write it anew: give this test's `tmp_path` its place."""
    Store(tmp_path, "a" * 64, Policy(), 3).write(15, state(15), {"run": "r", "metrics": {}}, attempt="0123456789ab")
    name = "step-00000015/e000003-0123456789ab"
    wanted = GOLDEN / "checkpoint-3" / name
    files = sorted(path.name for path in (tmp_path / name).glob("[!.]*"))
    assert files == sorted(path.name for path in wanted.iterdir())
    for file in files:
        assert (tmp_path / name / file).read_bytes() == (wanted / file).read_bytes()
    assert found.FORMAT == "headway-checkpoint/3"
