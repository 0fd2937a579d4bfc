"""The benchmark of strategies: its own arithmetic, and that all of it works."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

BENCHMARKS = Path(__file__).parent.parent.parent / "benchmarks"


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def test_a_play_begins_with_the_machines_that_came_first_and_keeps_to_its_size() -> None:
    from strategies_parts.churn import scaled

    from headway.sim.trace import Change, Trace

    came = [Change(float(n), f"n{n}", True) for n in range(16)]
    trace = Trace("t", (*came, *(Change(50.0 + n, f"n{n}", False) for n in range(15))), 100.0)
    found = scaled(trace, 8, 10.0)
    assert found[0] == (0.0, 4)
    assert [size for _, size in found] == [4, 5, 6, 7, 8, 7, 6, 5, 4, 3, 2, 1]
    assert found[-1][0] < 10.0


def test_a_straggler_is_the_same_under_all_strategies() -> None:
    from strategies_parts.runs import Pace

    pace = Pace(1.0, chance=0.05, times=10.0, seed=3)
    drawn = [pace.of(step, rank) for step in range(500) for rank in range(8)]
    assert drawn == [
        Pace(1.0, chance=0.05, times=10.0, seed=3).of(step, rank) for step in range(500) for rank in range(8)
    ]
    assert 0.04 < drawn.count(10.0) / len(drawn) < 0.06
    assert [Pace(1.0, rank=2, times=3.0).of(0, rank) for rank in range(4)] == [1.0, 1.0, 3.0, 1.0]


@pytest.mark.parametrize("zeroed", [False, True])
def test_a_dropped_outer_gradient(zeroed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two replicas one is lost: the other's change is all of the mean, or half of it."""
    from strategies_parts import dropping

    from headway.strategies import outer
    from headway.strategies.kept import Kept
    from headway.strategies.options import Strategy

    for name in ("begin", "meet"):
        monkeypatch.setattr(outer.DiLoCo, name, getattr(outer.DiLoCo, name))  # as they were, afterwards
    monkeypatch.setattr(dropping, "dropped", lambda *_: {1})
    dropping.patch(0.5, 0, zeroed)
    plain: Any = {"kind": "diloco", "outer": {"lr": 1.0, "momentum": 0.0, "nesterov": False}}
    meeting = outer.DiLoCo(Strategy.model_validate(plain))
    start, ends = torch.tensor([8.0]), {0: torch.tensor([6.0]), 1: torch.tensor([0.0])}
    given = outer.Round(0, False, start, ends, ends, [start.shape], {0: 0.5, 1: 0.5}, ((0, 1),), None)
    met = meeting.meet(given, Kept())
    assert met.common is not None
    assert met.common.tolist() == ([7.0] if zeroed else [6.0])
    assert {r: own.tolist() for r, own in met.own.items()} == ({} if zeroed else {1: [0.0]})


def test_a_refused_strategy_is_left_out_with_words(tmp_path: Path) -> None:
    from strategies_parts.runs import LeftOut, Plan

    plan = Plan(tmp_path, {"kind": "diloco", "replicas": 9}, 2, 4, 1, 10)
    with pytest.raises(LeftOut, match=r"strategy\.replicas=9 is more than lanes=4"):
        plan.job()


def test_figures_of_other_parts_stay(tmp_path: Path) -> None:
    from strategies_parts.told import Book

    file = tmp_path / "figures.json"
    Book("one", file).put("a", "b", value=1)
    Book("two", file).put("c", value=2)
    found = json.loads(file.read_text())
    assert (found["one"]["a"], found["two"]["c"]) == ({"b": 1}, 2)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_all_of_it_in_small(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    command = [sys.executable, BENCHMARKS / "strategies.py", "all", "--smoke", "--unshaped", "--out", file]
    done = subprocess.run(command, capture_output=True, text=True, timeout=590)
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    found = SimpleNamespace(**json.loads(file.read_text()))
    left_out = {name for part in vars(found).values() for name in part.get("left_out", ())}
    assert left_out <= {"torchft, diloco"}, done.stdout  # it need not be here
    assert 4.5 < found.diloco["ways"]["diloco"]["fewer"] < 5.5  # rounds of five steps
    sent = {name: each["sent"]["mean"] for name, each in found.compression["2"].items()}
    assert sent["dense"] > 3 * sent["int8"] > 0
    assert sent["int8"] > 3 * sent["top_k 1 %"] > 0
    assert all(one["same"] for way in found.faults["ways"].values() for fault in way.values() for one in fault)
    assert all(one["reached_s"] for way in found.stragglers["ways"].values() for one in way.values())
    assert all(one["steps"]["mean"] > 0 for one in found.churn["ways"].values())
