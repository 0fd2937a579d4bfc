"""Traces replayed under a virtual clock: the books balance, and nobody is favoured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.tiers import examples
from typer.testing import CliRunner

from headway.cli.app import app
from headway.errors import BadInput
from headway.sim import costs, trace
from headway.sim.account import Account
from headway.sim.compare import POLICIES, compare
from headway.sim.costs import Costs
from headway.sim.drill import drill, drills
from headway.sim.trace import Change, Trace

P3 = Path(__file__).parents[2].parent / "shared/traces/spot_aws_p3.csv"


def offered(changes: Trace) -> float:
    """Worker-seconds that a trace offers, added up anew."""
    total = last = 0.0
    there = 0
    for change in changes.changes:
        total += there * (change.at - last)
        last, there = change.at, there + (1 if change.up else -1)
    return total + there * (changes.until - last)


@pytest.mark.parametrize("kind", ["spot", "faults", "churn"])
@pytest.mark.parametrize("seed", [0, 1])
def test_every_worker_second_has_one_cause(kind: str, seed: int):
    drawn = trace.generate(kind, 24, seed, hours=3.0)
    for account in compare(drawn, Costs()).accounts.values():
        assert account.available_s == pytest.approx(offered(drawn), rel=1e-9)
        assert account.committed_s > 0
        assert all(seconds >= -1e-6 for seconds in account.lost_s.values())


def test_a_single_loss_costs_what_it_should():
    """Four nodes from the start, one of which goes in the middle of a step: silence, regroup and half a step."""
    changes = [Change(0.0, f"n{i}", True) for i in range(4)] + [Change(100.0, "n0", False), Change(200.0, "n9", False)]
    quiet = Trace("one loss", tuple(changes[:-1]), 200.0)
    account = compare(quiet, Costs(), ("live",), lanes=12).accounts["live"]
    assert account.lost_s["start"] == pytest.approx(4 * (10.0 + 0.01 + 0.0), abs=0.1)
    assert account.lost_s["detect"] == pytest.approx(3 * 2.0)
    assert account.lost_s["regroup"] == pytest.approx(4 * 0.05 + 3 * (0.05 + 0.01), abs=0.05)
    assert account.lost_s["repeated"] < 4 * 1.0 + 3 * 4 / 3
    assert account.repeated == 0
    assert account.uneven_s == 0.0, "12 lanes are shared evenly by four and by three"


def test_a_spare_saves_the_seconds_of_a_start_and_its_own_are_accounted_for():
    """Five nodes, four workers at most, one of which goes: the fifth node's comes at once, or warms up first."""
    changes = [Change(0.0, f"n{i}", True) for i in range(5)] + [Change(100.0, "n0", False)]
    one = Trace("one loss", tuple(changes), 200.0)
    without = compare(one, Costs(), ("live",), workers=4, lanes=12).accounts["live"]
    account = compare(one, Costs(), ("live",), workers=4, lanes=12, spares=1).accounts["live"]
    assert without.lost_s["spare"] == 0.0
    # It is asked for with the first step, and is ready ten seconds later.
    assert account.lost_s["spare"] == pytest.approx(100.0 - 21.0 + 2.0, abs=2.0)
    assert account.available_s == without.available_s == pytest.approx(offered(one))
    assert account.steps - without.steps == pytest.approx(2, abs=1), "a third of the speed for ten seconds"


@pytest.mark.parametrize("kind", ["spot", "faults", "churn"])
def test_the_books_balance_with_spares(kind: str):
    drawn = trace.generate(kind, 24, 0, hours=3.0)
    account = compare(drawn, Costs(), ("live",), workers=16, spares=4).accounts["live"]
    assert account.available_s == pytest.approx(offered(drawn), rel=1e-9)
    assert account.lost_s["spare"] > 0
    assert all(seconds >= -1e-6 for seconds in account.lost_s.values())


def test_a_notice_saves_the_silence():
    drawn = trace.generate("churn", 12, 3, hours=2.0)
    told = compare(drawn, Costs(), ("live",), notice_s=20.0).accounts["live"]
    untold = compare(drawn, Costs(), ("live",)).accounts["live"]
    assert told.lost_s["detect"] + told.lost_s["repeated"] < untold.lost_s["detect"] + untold.lost_s["repeated"]


def test_when_all_go_the_checkpoint_is_gone_back_to():
    changes = [Change(0.0, "a", True), Change(100.0, "a", False), Change(150.0, "b", True)]
    account = compare(Trace("all gone", tuple(changes), 300.0), Costs(), ("live",), lanes=1).accounts["live"]
    assert 0 < account.repeated <= 60
    assert account.available_s == pytest.approx(250.0)


def test_live_membership_is_ahead_where_machines_come_and_go():
    accounts = compare(trace.generate("spot", 32, 0, hours=4.0), Costs()).accounts
    assert accounts["live"].goodput > 0.97
    for name in POLICIES[1:]:
        assert accounts["live"].goodput > accounts[name].goodput


@pytest.mark.skipif(not P3.exists(), reason="the recorded traces lie beside the repository")
def test_the_p3_trace():
    accounts = compare(trace.read(P3), Costs()).accounts
    live = accounts["live"]
    assert live.goodput >= 0.97
    assert (live.committed_s - live.uneven_s) / live.available_s >= 0.97, "even if uneven shares count as lost"
    assert all(live.steps > accounts[name].steps for name in POLICIES[1:])


def test_recorded_formats(tmp_path: Path):
    fleet = tmp_path / "fleet.csv"
    fleet.write_text("0,add,a\n0,add,b\n5000,remove,a\n6000,remove,a\n")
    assert trace.read(fleet).changes == (Change(0.0, "a", True), Change(0.0, "b", True), Change(5.0, "a", False))
    numbers = tmp_path / "numbers.csv"
    numbers.write_text("0,2\n60,1\n90,3\n")
    assert (trace.read(numbers).peak, trace.read(numbers).losses) == (3, 1)
    faults = tmp_path / "faults.json"
    two = [("fault_start", 1.0), ("fault_start", 1.5), ("fault_end", 2.0), ("fault_end", 3.0)]
    faults.write_text(json.dumps([{"node_id": "a", "event_type": kind, "event_time": at} for kind, at in two]))
    assert [c.at / 86400 for c in trace.read(faults).changes] == [0.0, 1.0, 3.0], "down from the first to the last"


@pytest.mark.parametrize("text", ["", "a,b\n", "0,gone,a\n", "0,0\n"])
def test_what_is_no_trace_is_refused(tmp_path: Path, text: str):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(BadInput):
        trace.read(tmp_path / "t.csv")


def test_costs(tmp_path: Path):
    path = tmp_path / "costs.json"
    path.write_text('{"costs": {"detect_s": 0.02}, "other": 1}')
    assert costs.load(path).detect_s == 0.02
    path.write_text('{"faults": {"join": {"ours": {"resume_s": {"median": 0.3}}, "torchft": {"resume_s": null}}}}')
    assert costs.load(path) == Costs(join_s=0.3)
    for wrong in ('{"detekt_s": 1}', '{"detect_s": "2"}', "[]", "{"):
        path.write_text(wrong)
        with pytest.raises(BadInput):
            costs.load(path)


def test_the_command(tmp_path: Path):
    picture = tmp_path / "plot.png"
    command = ["simulate", "--generate", "spot", "--workers", "8", "--json", "--plot", str(picture)]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert set(json.loads(done.stdout)["policies"]) == set(POLICIES)
    assert picture.stat().st_size > 1000
    assert "restart, tuned" in CliRunner().invoke(app, ["simulate", "--generate", "faults", "--workers", "8"]).stdout
    assert isinstance(CliRunner().invoke(app, ["simulate"]).exception, BadInput)


def test_the_same_seed_gives_the_same_drill():
    assert drill(7) == drill(7)


def test_a_lane_that_is_lost_shows():
    """The digest can fail: one lane fewer is another digest."""
    from headway.sim.workers import quiet_digest

    assert len({quiet_digest(5, 4), quiet_digest(5, 3), quiet_digest(4, 4)}) == 3


def test_an_account_without_seconds_has_no_goodput():
    assert Account("nothing").goodput == 0.0


@pytest.mark.slow
@pytest.mark.soak
def test_a_hundred_drills_and_thousands_in_a_soak():
    number = examples(100, 5000)
    done, ends = drills(range(number))
    print(f"seeds 0 to {number - 1}: {dict(ends)}")
    assert ends == {"as the quiet run": number}
    assert sum(d.faults for d in done) > 3 * number


@pytest.mark.slow
def test_ten_thousand_workers():
    drawn = trace.generate("faults", 10_000, 0, hours=0.3)
    result = compare(drawn, Costs(), ("live",), lanes=10_000)
    assert result.accounts["live"].goodput > 0.9
    assert result.slowest_decision_s is not None
