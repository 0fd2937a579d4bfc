"""The game of deadlines: its rules, its players, the bound, and the files that it is played on."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tiers import examples
from typer.testing import CliRunner

from headway.cli.app import app
from headway.core.late import Prices
from headway.core.slack import NOTHING, ON_DEMAND, SPOT
from headway.core.spot_habits import LEARNED
from headway.errors import BadInput
from headway.sim import late, spells
from headway.sim.late import Rules
from headway.sim.spells import Spell

MADE_UP = Path(__file__).parents[1] / "golden/late.csv"
PINNED = json.loads(MADE_UP.with_suffix(".json").read_text())
RECORDED = Path(__file__).parents[2].parent / "shared/traces/spot_cant_be_late.csv"
HOUR = Rules(work_s=3600.0, deadline_s=7200.0, restart_s=600.0)


def spell(runs: str) -> Spell:
    return spells._spell(["pool", "0", "600", runs], "here")


def test_uniform_progress_worked_out_by_hand():
    """Idle for a gap, on the line; behind, on demand for five until it is two restarts ahead; three on spot."""
    came = late.play(spell("0x2 1x10"), HOUR, late.uniform_progress(HOUR))
    assert came.in_time
    assert came.starts == 2
    assert came.dollars == pytest.approx(5 / 6 * 3.06 + 3 / 6 * 0.9731)


def test_uniform_progress_that_takes_spot_at_once():
    """One gap on demand, a restart; then seven on spot."""
    came = late.play(spell("0x2 1x10"), HOUR, late.uniform_progress(HOUR, at_once=True))
    assert came.dollars == pytest.approx(1 / 6 * 3.06 + 7 / 6 * 0.9731)


def test_the_bound_worked_out_by_hand():
    """Wait for spot, a restart and an hour."""
    assert late.bound(spell("0x2 1x10"), HOUR) == pytest.approx(7 / 6 * 0.9731)


@pytest.mark.parametrize("restart_s", [0.0, 300.0, 720.0, 1320.0])
@pytest.mark.parametrize("runs", ["1x2 0x1 1x5", "0x1 1x1 0x1 1x4 0x1", "0x8", "1x1 0x2 1x5"])
def test_the_bound_is_the_best_of_all_plans(restart_s: float, runs: str):
    rules = Rules(work_s=2400.0, deadline_s=4800.0, restart_s=restart_s)
    looks = spell(runs).there
    best = float("inf")
    for plan in product((NOTHING, SPOT, ON_DEMAND), repeat=len(looks)):
        if all(there or way != SPOT for way, there in zip(plan, looks, strict=True)):
            came = late.play(spell(runs), rules, lambda now, at, plan=plan: plan[int(at / 600)])
            best = min(best, came.dollars if came.in_time else best)
    assert late.bound(spell(runs), rules) == pytest.approx(best)


def test_a_start_that_lasts_longer_than_a_look_goes_on():
    rules = Rules(work_s=600.0, deadline_s=7200.0, restart_s=1500.0)
    came = late.play(spell("0x12"), rules, late.on_demand)
    assert (came.in_time, came.dollars) == (True, pytest.approx(4 / 6 * 3.06)), "25 minutes and 10, by whole gaps"


def test_what_is_reclaimed_starts_anew():
    came = late.play(spell("1x2 0x1 1x9"), HOUR, lambda now, at: SPOT if now.spot else NOTHING)
    assert came.starts == 2
    assert came.dollars == pytest.approx((2 + 6) / 6 * 0.9731), "one of the first two computes, then a restart and five"


def test_nobody_computes_on_what_is_not_there():
    with pytest.raises(ValueError, match="no spot machine"):
        late.play(spell("0x12"), HOUR, lambda now, at: SPOT)


@pytest.mark.parametrize("pinned", PINNED, ids=lambda pinned: f"{pinned['deadline_h']}-{pinned['restart_h']}")
def test_the_peers_cost_what_they_did(pinned: dict[str, float]):
    """Rule and cost of uniform progress, and the bound, on the recordings made up for it."""
    rules = Rules(8 * 3600.0, pinned["deadline_h"] * 3600.0, pinned["restart_h"] * 3600.0)
    recorded = spells.read(MADE_UP)
    found = [late.play(one, rules, late.uniform_progress(rules)) for one in recorded]
    assert all(came.in_time for came in found)
    assert [came.dollars for came in found] == pytest.approx(pinned["uniform_progress"], abs=1e-3)
    assert [late.bound(one, rules) for one in recorded] == pytest.approx(pinned["bound"], abs=1e-3)


@pytest.mark.skipif(not RECORDED.exists(), reason="the recorded traces lie beside the repository")
@pytest.mark.parametrize(
    ("deadline_h", "restart_s", "uniform"), [(52, 180, 112.42), (52, 720, 127.82), (70, 180, 95.26), (70, 720, 109.02)]
)
def test_uniform_progress_on_the_recorded_ones(deadline_h: int, restart_s: float, uniform: float):
    rules = Rules(deadline_s=deadline_h * 3600.0, restart_s=restart_s)
    found = [late.play(one, rules, late.uniform_progress(rules)) for one in spells.read(RECORDED)]
    assert sum(came.dollars for came in found) / len(found) == pytest.approx(uniform, abs=0.005)
    assert all(came.in_time for came in found)


worlds = st.lists(st.integers(1, 25), min_size=1, max_size=20)
"""Lengths of spells, there and away in turn."""


@settings(max_examples=examples(60, 2000), deadline=None)
@given(
    runs=worlds,
    first=st.booleans(),
    work=st.integers(1, 40),
    slack_s=st.integers(0, 30000),
    restart_s=st.sampled_from([0.0, 7.0, 180.0, 720.0, 1500.0]),
    spot=st.sampled_from([0.1, 0.97, 2.9, 3.5]),
)
def test_never_late_where_on_demand_can_make_it_and_never_far_above_it(
    runs: list[int], first: bool, work: int, slack_s: int, restart_s: float, spot: float
):
    """Whatever comes. At worst a tenth above on demand alone, and a gap, as `core.late.OVER` says."""
    deadline = -(-int(work * 600 + restart_s + slack_s) // 600)
    there: list[bool] = []
    for number, length in enumerate(runs):
        there += [first == (number % 2 == 0)] * length
    there += [False] * max(0, deadline - len(there))
    rules = Rules(work * 600.0, deadline * 600.0, restart_s, Prices(spot, 3.06))
    drawn = Spell("drawn", "0", 600.0, tuple(there))
    came = late.play(drawn, rules, late.ours(LEARNED)(rules)())
    assert came.in_time
    assert late.bound(drawn, rules) <= came.dollars + 1e-9
    alone = late.play(drawn, rules, late.on_demand).dollars
    assert came.dollars <= 1.1 * alone + 2 * 3.06 / 6 + 1e-9


def test_pools_that_teach_never_judge():
    recorded = spells.read(MADE_UP)
    parts = list(spells.halves(recorded))
    assert len(parts) == 2
    for taught, judged in parts:
        assert not {s.pool for s in taught} & {s.pool for s in judged}
        assert len(taught) + len(judged) == len(recorded)
    every = list(spells.halves(recorded, every=True))
    assert len({tuple(sorted({s.pool for s in taught})) for taught, _ in every}) == len(every) == 6
    assert list(spells.halves(recorded[:2])) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "line 1"),
        ("region,trace,availability\n", "line 1"),
        ("region,trace,gap_s,availability\n", "no recording"),
        ("region,trace,gap_s,availability\na,0,600,1x2 0x3\na,1,600\n", "line 3"),
        ("region,trace,gap_s,availability\na,0,ten,1x2\n", "line 2"),
        ("region,trace,gap_s,availability\na,0,nan,1x2\n", "line 2"),
        ("region,trace,gap_s,availability\na,0,600,1x2 2x3\n", "'2x3' is no run"),
        ("region,trace,gap_s,availability\na,0,600,1x0\n", "'1x0' is no run"),
        ("region,trace,gap_s,availability\na,0,600,\n", "0 looks"),
    ],
)
def test_a_bad_file_is_refused_with_its_line(tmp_path: Path, text: str, said: str):
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(BadInput, match=said) as caught:
        spells.read(path)
    assert caught.value.remedy


def test_a_file_that_is_not_there_or_no_text(tmp_path: Path):
    with pytest.raises(BadInput, match="cannot be read"):
        spells.read(tmp_path / "none.csv")
    (tmp_path / "image.csv").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(BadInput, match="no text"):
        spells.read(tmp_path / "image.csv")


SMALL = ("--work", "8", "--deadline", "10", "--restart", "0.05")


def test_the_command_gives_the_table():
    done = CliRunner().invoke(app, ["simulate", "--policy", "budget", str(MADE_UP), *SMALL, "--json"])
    assert done.exit_code == 0, done.exception
    found = json.loads(done.stdout)
    (one,) = found["settings"]
    assert (found["file"], found["spells"], found["late"]) == ("late.csv", 6, 0)
    assert one["bound"] <= one["ours"] <= one["on_demand"] * 1.1
    pinned = next(p for p in PINNED if (p["deadline_h"], p["restart_h"]) == (10, 0.05))
    assert one["uniform_progress"] == pytest.approx(sum(pinned["uniform_progress"]) / 6, abs=1e-3)
    assert set(one["pools"]) == {"east", "north", "west"}
    assert sum(pool["bound"] for pool in one["pools"].values()) / 3 == pytest.approx(one["bound"], abs=1e-2)
    done = CliRunner().invoke(app, ["simulate", "--policy", "budget", str(MADE_UP), *SMALL], env={"COLUMNS": "200"})
    assert "6 recordings of 3 pools" in done.stdout
    assert "uniform progress" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "needs a file"),
        ([str(MADE_UP), "--work", "8", "--deadline", "8"], "cannot be met"),
        ([str(MADE_UP), "--work", "8", "--deadline", "20"], "of 13.3 h"),
        ([str(MADE_UP), "--work", "8", "--deadline", "10", "--restart", "-1"], "before it begins"),
        ([str(MADE_UP), "--work", "inf"], "a work of inf h"),
        ([str(MADE_UP), "--work", "8", "--deadline", "nan"], "a deadline of nan h"),
        ([str(MADE_UP), "--work", "8", "--deadline", "inf"], "a deadline of inf h"),
        ([str(MADE_UP), "--work", "8", "--deadline", "10", "--restart", "nan"], "a restart of nan h"),
        ([str(MADE_UP), "--work", "8", "--deadline", "10", "--restart", "1e308"], "a restart of 1e+308 h"),
    ],
)
def test_what_the_command_refuses(arguments: list[str], said: str):
    done = CliRunner().invoke(app, ["simulate", "--policy", "budget", *arguments])
    assert isinstance(done.exception, BadInput)
    assert said in str(done.exception)
