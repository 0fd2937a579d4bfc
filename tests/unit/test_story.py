"""The story of a drill on a cloud, and what it comes to: on made-up bills and records."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.test_drill import GOOD
from typer.testing import CliRunner

from headway.cli.app import app
from headway.cli.drill import show
from headway.errors import BadInput
from headway.runs import RunFolder
from headway.testing import inside
from headway.testing.faults import CLOUD, Faults, parse
from headway.testing.faults.drawing import lasts
from headway.testing.story import account
from headway.testing.story.account import CloudAccount, Sold
from headway.testing.story.acts import drawn, refuse_foreign, scripted
from headway.testing.story.stage import ACT_S, SLOWEST_S, Stage, pace_s

T = 1000.0


def sold(number: int, asked: float, booted: float | None, gone: float | None, **more: Any) -> Sold:
    times = (T + asked, booted and T + booted, gone and T + gone)
    return Sold(f"m{number}", number, "small in a spot", 0.36, *times, **more)


def test_the_story_strikes_each_machine_once_and_then_its_replacement() -> None:
    acts = scripted(steps=200, most=3)
    assert [act.fault.verb for act in acts] == ["reclaim", "kill", "cut", "empty", "kill"]
    assert [act.fault.which for act in acts if act.fault.target == "node"] == [(0,), (1,), (2,), (3,)]
    assert [act.whole for act in acts] == [True, True, True, True, False]
    assert all(act.after for act in acts)
    steps = [act.fault.step for act in acts]
    assert steps == sorted(steps)
    assert steps[-1] < 100
    for act in acts:
        assert parse(str(act.fault)) == (act.fault,)


@pytest.mark.parametrize(("steps", "most", "said"), [(10, 3, "no story fits"), (100, 1, "nobody is left")])
def test_a_story_wants_steps_and_machines(steps: int, most: int, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        scripted(steps, most)


@given(st.integers(0, 10_000), st.integers(20, 2000), st.integers(2, 6))
def test_a_random_story_names_machines_that_come(seed: int, steps: int, most: int) -> None:
    acts = drawn(seed, steps, most)
    assert acts == drawn(seed, steps, most)
    up, next_one = set(range(most)), most
    for act in acts:
        fault = act.fault
        assert f"{fault.verb} {fault.target}".strip() in CLOUD
        assert fault.step < steps
        assert parse(str(fault)) == (fault,)
        if fault.target == "node":
            assert set(fault.which) <= up
            if lasts(fault):  # another comes for it, with the next number
                up, next_one = (up - set(fault.which)) | {next_one}, next_one + 1


def test_what_a_drill_has_no_means_for_is_refused() -> None:
    with pytest.raises(BadInput, match="needs a cloud"):
        refuse_foreign(parse("reclaim node=0 step=3"), cloud=False)
    with pytest.raises(BadInput, match="autoscaler asks"):
        refuse_foreign(parse("add node step=3"), cloud=True)
    refuse_foreign(parse("empty step=3 for=2s; kill node=1 step=4"), cloud=True)
    refuse_foreign(parse("drain node=1 step=4"), cloud=False)


def test_the_builder_has_the_cloud_too() -> None:
    built = Faults().reclaim(at_step=3, node=1, notice_s=8).empty(at_step=4, for_s=2)
    assert tuple(built) == parse("reclaim node=1 step=3 notice=8s; empty step=4 for=2s")
    assert parse("reclaim node=1 step=3")[0].span_s == 5.0


def test_a_machine_costs_from_its_purchase_until_it_is_gone() -> None:
    gone, there = sold(0, 0.0, 5.0, 100.0), sold(1, 50.0, None, None)
    assert gone.dollars(T + 500) == pytest.approx(0.01)
    assert there.dollars(T + 150) == pytest.approx(0.01)
    first, second = account.bill([gone, there], T, T + 150)
    assert (first["asked_s"], first["booted_s"], first["gone_s"], first["dollars"]) == (0.0, 5.0, 100.0, 0.01)
    assert (second["booted_s"], second["gone_s"]) == (None, None)


def generation(at: float, *members: str) -> dict[str, Any]:
    return {"kind": "generation", "time": T + at, "members": list(members)}


EVENTS = [
    generation(10.0, "w0"),
    {"kind": "other", "time": T + 11},
    generation(12.0, "w0", "w1"),
    {
        "kind": "recovery",
        "cause": "joined",
        "workers": ["w1"],
        "time": T + 12.2,
        "resumed_at": T + 12.2,
        "pause_s": 0.1,
    },
    {"kind": "drain", "worker": "w0", "node_id": "a", "deadline_s": 5.0, "time": T + 20.4},
    generation(21.0, "w1"),
    {"kind": "recovery", "cause": "drained", "workers": ["w0"], "resumed_at": T + 21.1, "pause_s": 0.1},
    generation(22.0, "w1"),
]
FLEET = [sold(0, 0.0, 4.0, 25.0, node_id="a"), sold(1, 0.0, 6.0, None, node_id="b"), sold(2, 22.0, None, None)]


def test_sizes_are_told_when_they_change() -> None:
    found = account.sizes(EVENTS, T)
    assert [(size["at_s"], size["workers"]) for size in found] == [(10.0, 1), (12.0, 2), (21.0, 1)]


def test_a_notice_is_followed_to_the_handing_over() -> None:
    given_at = {"fault": "reclaim node=0 step=3 notice=5s", "time": T + 20, "target": {"node_id": "a"}}
    other = {"fault": "kill node=1 step=3", "time": T + 30, "target": {"node_id": "b"}}
    unheard = {"fault": "reclaim node=1 step=9 notice=2s", "time": T + 40, "target": {"node_id": "b"}}
    first, second = account.notices([given_at, other, unheard], FLEET, EVENTS)
    assert first == {"machine": "m0", "notice_s": 5.0, "visible_s": 0.4, "handed_over_s": 1.0, "in_time": True}
    assert (second["machine"], second["visible_s"], second["in_time"]) == ("m1", None, False)


def test_handing_over_after_the_deadline_is_late() -> None:
    given_at = {"fault": "reclaim node=0 step=3 notice=0.9s", "time": T + 20, "target": {"node_id": "a"}}
    (found,) = account.notices([given_at], FLEET, EVENTS)
    assert found["handed_over_s"] == 1.0
    assert not found["in_time"]


def test_a_machine_has_joined_when_its_first_worker_trains() -> None:
    found = account.joins(FLEET, EVENTS, {"w0": "a", "w1": "b"})
    assert found == [
        {"machine": "m0", "joined_s": 6.0, "pause_s": None},
        {"machine": "m1", "joined_s": 6.0, "pause_s": 0.1},
    ]
    assert account.joins(FLEET, EVENTS, {}) == []


def test_idle_machines_are_gone_when_all_are() -> None:
    head = Sold("h", None, "large", 1.0, T, T, None, head=True)
    assert account.idle_s([head, FLEET[0]], T + 20) == 5.0
    assert account.idle_s([head, *FLEET], T + 20) is None
    assert account.idle_s([head], T) == 0.0


def test_what_was_asked_of_the_cloud_is_told_once() -> None:
    log = [
        (T + 1, "launch", "a", "capacity: none"),
        (T + 1, "machines", "drill", "ok"),
        (T + 1, "launch", "b", "capacity: none"),
        (T + 2, "launch", "a", "capacity: none"),
        (T + 3, "launch", "b", "i-1"),
        (T + 9, "terminate", "i-1", "ok"),
    ]
    found = account.asked(log, T)
    assert [(line["asked"], line["for"], line["answer"], line["times"]) for line in found] == [
        ("launch", "a", "capacity: none", 2),
        ("launch", "b", "capacity: none", 1),
        ("launch", "b", "i-1", 1),
        ("terminate", "i-1", "ok", 1),
    ]
    assert found[0]["at_s"] == 1.0


def test_the_pace_lets_the_steps_that_are_left_last_for_the_acts_that_are_left() -> None:
    assert pace_s(6, 900) * 900 == pytest.approx(6 * ACT_S)
    assert pace_s(6, 1) == SLOWEST_S
    assert pace_s(1, 900) < pace_s(2, 900)
    assert pace_s(0, 900) == 0.0


def seen(stage: Stage, run: RunFolder, nodes: str, done: list[str], refused: tuple[str, ...] = ()) -> None:
    """Let the stage see members on these nodes, and acts that are done: their texts, with the node that each hit."""
    workers = [{"id": f"w-{node}", "node_id": node, "phase": "member"} for node in nodes]
    (run.path / "members.json").write_text(json.dumps({"workers": workers}))
    records = [{"fault": text, "target": {"node_id": text.rpartition("node=")[2][:1]}} for text in done]
    left = [act.fault for act in STORY if str(act.fault) not in done]
    stage._looked = -1e9
    stage.look(run, SimpleNamespace(done=records, left=left, refused=dict.fromkeys(refused, ""), newest=10))  # type: ignore[arg-type]


STORY = scripted(steps=200, most=3)


def test_the_acts_of_a_story_wait_for_each_other_and_for_who_replaces_the_lost(tmp_path: Path) -> None:
    reclaim, kill, _, empty, last = (act.fault for act in STORY)
    run, stage = RunFolder(tmp_path), Stage(STORY, 3, 200)
    assert not stage.ready(reclaim)
    seen(stage, run, "01", [])
    assert not stage.ready(reclaim), "two of three train"
    seen(stage, run, "012", [])
    assert stage.ready(reclaim)
    assert not stage.ready(kill), "the act before it has not happened"
    seen(stage, run, "012", [str(reclaim)])
    assert not stage.ready(kill), "the run does not know yet that a machine goes"
    seen(stage, run, "12", [str(reclaim)])
    assert not stage.ready(kill)
    seen(stage, run, "123", [str(reclaim)])
    assert stage.ready(kill)
    assert stage.carriers == {f"w-{node}": node for node in "0123"}
    before = [str(act.fault) for act in STORY[:3]]
    seen(stage, run, "345", before)
    assert stage.ready(empty)
    assert not stage.ready(last)
    seen(stage, run, "34", [*before, str(empty)])
    assert stage.ready(last), "it waits for nobody but the act before it"


def test_a_run_is_held_back_until_its_story_is_over(tmp_path: Path) -> None:
    run, stage = RunFolder(tmp_path), Stage(STORY, 3, 200)
    everything = [str(act.fault) for act in STORY]
    seen(stage, run, "012", [])
    assert inside.pace(run.path) == pytest.approx(min(SLOWEST_S, 6 * ACT_S / 189))
    seen(stage, run, "45", everything)
    assert inside.pace(run.path) > 0, "the last that was lost has not been replaced"
    seen(stage, run, "456", everything)
    assert inside.pace(run.path) == 0


def test_what_cannot_be_done_is_not_waited_for(tmp_path: Path) -> None:
    run, stage = RunFolder(tmp_path), Stage(STORY, 3, 200)
    first, second = STORY[0].fault, STORY[1].fault
    seen(stage, run, "012", [], refused=(str(first),))
    assert stage.ready(second)
    seen(stage, run, "012", [], refused=tuple(str(act.fault) for act in STORY))
    assert inside.pace(run.path) == 0


def told(**changes: Any) -> CloudAccount:
    whole: dict[str, Any] = {**GOOD, "seed": None, "most": 3, "idle_s": 4.0}
    return CloudAccount(**{**whole, "sizes": [{"at_s": 1.0, "workers": 1}, {"at_s": 2.0, "workers": 3}], **changes})


def test_what_a_cloud_must_have_seen() -> None:
    assert told().good
    assert not told(leftovers=["i-3 is running"]).good
    assert not told(idle_s=None).good
    assert not told(sizes=[{"at_s": 1.0, "workers": 2}]).good
    assert not told(same_weights=False).good
    assert not told(samples_missed=1).good
    assert told().shown()["most"] == 3


def test_the_account_is_told_to_people(capsys: pytest.CaptureFixture[str]) -> None:
    given_at = {"fault": "reclaim node=0 step=3 notice=5s", "time": T + 20, "target": {"node_id": "a"}}
    deaf = {"fault": "reclaim node=1 step=9 notice=2s", "time": T + 40, "target": {"node_id": "b"}}
    show(
        told(
            machines=account.bill([Sold("h", None, "large", 1.0, T, T, None, head=True), *FLEET], T, T + 60),
            notices=account.notices([given_at, deaf], FLEET, EVENTS),
            joins=account.joins(FLEET, EVENTS, {"w1": "b"}),
            autoscaler=account.asked([(T + 1, "launch", "c1 in a", "capacity: none")] * 2, T),
            leftovers=["the cloud lists i-3"],
            faults=[],
        )
    )
    said = capsys.readouterr().out
    for line in (
        "workers  1 after 1.0 s, 3 after 2.0 s (from 1 to 3)",
        "notice  of 5 s to m0: known after 0.4 s, handed over after 1.0 s",
        "notice  of 2 s to m1: NOT heard",
        "joined  m1: 6.0 s after it booted",
        "machine  h (large, the head): bought at 0.0 s, up at 0.0 s, still there, $0.01667",
        "machine  m0 (small in a spot): bought at 0.0 s, up at 4.0 s,  at 25.0 s, $0.00250",
        "machine  m2 (small in a spot): bought at 22.0 s, never booted, still there",
        "autoscaler  at 1.0 s launch c1 in a: capacity: none (2 times)",
        "idle  machines all gone 4.0 s after the run's end",
        "left  the cloud lists i-3",
    ):
        assert line in said


def test_a_drill_on_a_cloud_needs_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    job = Path(__file__).parents[2] / "benchmarks" / "mlp" / "job.yaml"
    result = CliRunner().invoke(app, ["drill", str(job), "--cloud"])
    assert isinstance(result.exception, BadInput), result.output
    assert "cannot be done on this machine" in str(result.exception)
