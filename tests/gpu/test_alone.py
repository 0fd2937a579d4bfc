"""One worker on a GPU: it trains, and gives the same bits again, saved and resumed or not."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from tests.gpu.device import DEVICE, device
from tests.gpu.loop import STEPS, Play, alone

from headway.testing.workers import Crew

pytestmark = device


def same(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    """To the bit, the optimiser's state too."""
    assert found["step"] == STEPS
    for name, value in wanted["state"].items():
        assert found["state"][name] == value, name
    assert (found["words"], found["weights"]) == (wanted["words"], wanted["weights"])


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("mode", ["order", "bitwise"])
def test_a_worker_trains_the_same_bits_again_and_after_a_checkpoint(
    processes: Crew, mode: str, precision: str, tmp_path: Path, data: str
) -> None:
    fields = {"reproducible": mode, "precision": precision}
    whole, often = Play(DEVICE, fields=fields), Play(DEVICE, fields={**fields, "checkpoint": {"every_steps": 2}})
    plays = [("first", whole), ("again", often), ("parts", Play(DEVICE, fields=fields, until=3)), ("parts", whole)]
    first, again, begun, ended = processes(alone, 1, plays, str(tmp_path), data)[0]
    losses = [step["loss"] for step in first["steps"]]
    assert all(map(math.isfinite, losses))
    assert losses[-1] < losses[0]
    same(again, first)
    assert begun["step"] == 3
    same(ended, first)
    assert begun["steps"] + ended["steps"] == first["steps"] == again["steps"]
    assert begun["evaluations"] + ended["evaluations"] == first["evaluations"]
    assert ended["scale"] == first["scale"] == (2.0**15 if precision == "fp16" else 1.0)


@pytest.mark.parametrize(("first", "second"), [(DEVICE, "cpu"), ("cpu", DEVICE)], ids=["to cpu", "from cpu"])
def test_a_checkpoint_of_one_device_is_gone_on_from_on_the_other(
    processes: Crew, first: str, second: str, tmp_path: Path, data: str
) -> None:
    fields = {"reproducible": "order"}

    def play(device: str, until: int | None = None) -> Play:
        return Play(device, fields=fields, until=until, dropout=0.0)

    plays = [("whole", play("cpu")), ("parts", play(first, 4)), ("parts", play(second))]
    whole, _, ended = processes(alone, 1, plays, str(tmp_path), data)[0]
    assert ended["step"] == STEPS
    assert [step["step"] for step in ended["steps"]] == [4, 5, 6, 7]
    assert [s["loss"] for s in ended["steps"]] == pytest.approx([s["loss"] for s in whole["steps"][4:]], rel=1e-3)
    assert [s["samples"] for s in ended["steps"]] == [s["samples"] for s in whole["steps"][4:]]
