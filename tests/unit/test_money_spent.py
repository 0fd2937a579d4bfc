"""A run whose money is spent ends after a checkpoint, and is gone on with; what cannot be is said before it begins."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import make_dataset
from tests.unit.in_process import STEPS, Ground

from headway.core.alarms import BUDGET, Alarms, Limits, Seen
from headway.core.chronicle import live, tell
from headway.core.cost import Terms
from headway.core.offers import Offer, Stock, fit
from headway.driver import means
from headway.driver.means import Known
from headway.elastic.lead.spending import SAVES_S, Spending
from headway.errors import BadInput
from headway.job import Job, parse
from headway.runs import RunFolder
from headway.sweeps import file as sweep_file

NOW = 1_000_000.0
SOLD = Stock(
    (Offer("worker", "c", "a", True, 0.3), Offer("worker", "c", "a", False, 1.0)), {"worker": {"CPU": 1}}, idle_s=60.0
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    make_dataset(folder / "train", (24, 16), (24,))
    make_dataset(folder / "val", (16,))
    return folder


@pytest.fixture
def ground(tmp_path: Path, data: Path) -> Ground:
    return Ground(tmp_path, data)


def job(**more: Any) -> Job:
    workers = {"min": 1, "max": 4, **more.pop("workers", {})}
    return parse({"name": "j", "task": "t.py:T", "data": {"train": "/d"}, "steps": 9, "workers": workers, **more})


# Keys


def test_the_earlier_name_of_the_budget_is_taken_still() -> None:
    found = job(budget={"dollars": 3.0, "worker_hours": None})
    assert found.budget is not None
    assert found.budget.usd == 3.0
    assert parse(found.model_dump()) == found
    assert job(budget={"dollars": None}).budget is not None
    with pytest.raises(BadInput, match=r"usd=4 and dollars=3 are the same"):
        job(budget={"dollars": 3, "usd": 4})


def test_a_deadline_is_a_length_of_time() -> None:
    assert job(deadline="6h").deadline == 6 * 3600.0
    with pytest.raises(BadInput, match="deadline"):
        job(deadline="soon")


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"budget": {"usd": 0}}, "budget.usd=0"),
        ({"budget": {"on_demand_min": 9}}, "on_demand_min=9 is more than workers.max=4"),
        ({"budget": {"usd_per_hour": 1}, "workers": {"price_per_hour": 2}}, "does not pay for workers.min=1"),
    ],
)
def test_what_contradicts_itself_is_said_at_the_door(keys: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        job(**keys)


def test_trials_have_no_money_of_their_own() -> None:
    tree = {
        "name": "s",
        "job": {
            **job(budget={"usd": 3}, deadline="1h").model_dump(exclude_defaults=True),
            "data": {"train": "/d", "validation": "/v"},
        },
        "space": {"seed": {"choice": [1, 2]}},
        "trials": 2,
    }
    with pytest.raises(BadInput) as found:
        sweep_file.parse(tree)
    assert "job.budget.usd is of a run alone" in found.value.reason
    assert "job.deadline is of a run alone" in found.value.reason


# Before it begins


def refused(of: Job, about: Known | None = None, stock: Stock = SOLD, now: float = NOW) -> BadInput:
    with pytest.raises(BadInput) as found:
        means.admit(of, about or Known(NOW), stock, now)
    return found.value


def test_what_can_be_is_admitted() -> None:
    means.admit(job(budget={"usd": 1, "usd_per_hour": 0.3, "on_demand_min": 0}, deadline="1h"), Known(NOW), SOLD, NOW)
    assert means.minds(job(deadline=60))
    assert not means.minds(job())
    assert not means.minds(job(budget={"worker_hours": 3}))


def test_a_missing_price_is_named() -> None:
    error = refused(job(budget={"usd": 1}), stock=Stock())
    assert (error.fact, error.reason) == (
        "budget.usd needs to know what machines cost",
        "the cluster tells no prices, and the job names none",
    )
    bare = replace(SOLD, offers=tuple(replace(offer, price_per_hour=None) for offer in SOLD.offers))
    error = refused(job(budget={"usd_per_hour": 1}), stock=bare)
    assert error.reason == "there is no price of c in a spot, c in a"
    assert "price_per_hour" in error.remedy
    means.admit(job(budget={"usd": 1}, workers={"price_per_hour": 1.0}), Known(NOW), Stock(), NOW)


def test_with_a_budget_no_machine_may_lack_a_price() -> None:
    some = replace(SOLD, offers=(SOLD.offers[0], Offer("worker", "p4d", "a"), Offer("small", "tiny")))
    error = refused(job(budget={"usd": 5}), stock=some)
    assert error.reason == "there is no price of p4d in a", "none that has no room for a worker is named"
    means.admit(job(budget={"usd": 5}, workers={"price_per_hour": 1.0}), Known(NOW), some, NOW)
    means.admit(job(budget={"usd": 5}, prices=[{"type": "p4d", "per_hour": 9.0}]), Known(NOW), some, NOW)
    listed = job(budget={"usd": 5}, prices=[{"type": "other", "per_hour": 9.0}])
    assert refused(listed, stock=some).reason == "there is no price of p4d in a"
    here = Stock((Offer("n0", "node"), Offer("n1", "other")), {"n0": {"CPU": 1}, "n1": {"CPU": 1}})
    with pytest.raises(BadInput) as found:
        means.admit(listed, Known(NOW), Stock(), NOW, here)
    assert found.value.reason == "there is no price of node", "of a Ray of one's own"
    means.admit(job(budget={"usd": 5}, prices=[{"type": "*", "per_hour": 9.0}]), Known(NOW), Stock(), NOW, here)


def test_a_deadline_needs_a_price_where_there_are_two_markets() -> None:
    some = replace(SOLD, offers=(SOLD.offers[0], Offer("worker", "c", "a")))
    assert refused(job(deadline="1h"), stock=some).fact == "deadline needs to know what machines cost"
    means.admit(job(deadline="1h"), Known(NOW), replace(some, offers=some.offers[1:]), NOW)
    means.admit(job(deadline="1h"), Known(NOW), Stock(), NOW)


def test_a_budget_too_small_for_a_step_is_refused() -> None:
    error = refused(job(budget={"usd": 0.0001}))
    assert error.fact == "budget.usd=0.0001"
    assert error.reason.startswith("at 0.3 dollars an hour it lasts for 1 s, in which no step is made")
    assert "until they are given back" in error.reason


def test_money_that_is_spent_is_refused_with_the_way_on() -> None:
    error = refused(job(budget={"usd": 2}), Known(NOW, spent=2.0))
    assert error.fact == "budget.usd=2 is spent"
    assert "--set budget.usd=4" in error.remedy
    error = refused(job(budget={"usd": 5}), Known(NOW, spent=12.0))
    assert "--set budget.usd=24" in error.remedy, "less than was spent would be refused again"


def test_fewer_dollars_an_hour_than_the_least_workers_cost() -> None:
    assert (
        "workers.min=2 cost 0.6 dollars an hour"
        in refused(job(budget={"usd_per_hour": 0.5}, workers={"min": 2})).reason
    )
    floor = refused(job(budget={"usd_per_hour": 0.5, "on_demand_min": 1}))
    assert "workers.min=1 cost 1 dollars an hour" in floor.reason


def test_machines_are_paid_whole() -> None:
    large = Stock((Offer("worker", "c", "a", True, 1.0),), {"worker": {"CPU": 4}})
    assert "workers.min=1 cost 1 dollars an hour" in refused(job(budget={"usd_per_hour": 0.3}), stock=large).reason
    means.admit(job(budget={"usd_per_hour": 1.0}, workers={"min": 4}), Known(NOW), large, NOW)
    assert fit({"GPU": 1.0}, {"GPU": 0.2}) == 5
    assert fit({"CPU": 1.0}, {"CPU": 0.1}) == 10
    assert fit({"CPU": 0.99}, {"CPU": 0.1}) == 9


def test_machines_on_demand_that_nobody_sells() -> None:
    spot = replace(SOLD, offers=SOLD.offers[:1])
    assert "spot machines alone" in refused(job(budget={"on_demand_min": 1}), stock=spot).reason


def test_a_deadline_that_is_over_or_cannot_be_met() -> None:
    assert "was over 60 s ago" in refused(job(deadline=100), Known(NOW - 160.0)).fact
    about = Known(NOW, steps=1000, paces=((1, 1.0),))
    error = refused(job(deadline=100), about)
    assert error.fact == "deadline=2 min cannot be met" or error.fact == "deadline=100 s cannot be met"
    assert "1000 steps take" in error.reason
    assert "--set deadline=" in error.remedy
    means.admit(job(deadline=400), about, SOLD, NOW)


def test_a_deadline_on_spot_machines_wants_checkpoints() -> None:
    """Else all steps would be lost with the machines, and no time could be set aside for that."""
    bare = {"every_steps": None, "every_s": None}
    error = refused(job(deadline="3h", checkpoint=bare))
    assert error.fact == "deadline=3.0 h without checkpoints"
    assert "checkpoint.every_s" in error.remedy
    means.admit(job(deadline="1h", checkpoint={**bare, "every_s": 60.0}), Known(NOW), SOLD, NOW)
    means.admit(job(deadline="1h", checkpoint=bare, budget={"on_demand_min": 1}), Known(NOW), SOLD, NOW)
    means.admit(job(deadline="1h", checkpoint=bare), Known(NOW), replace(SOLD, offers=SOLD.offers[1:]), NOW)
    means.admit(job(deadline="1h", checkpoint=bare), Known(NOW), Stock(), NOW)


def test_whoever_leads_a_run_that_goes_on_knows_what_is_done(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.write({"run": "r", "created": NOW, "state": "stopped"})
    line = {"epoch": 0, "loss": 1.0, "lr": 0.1, "rows": 8, "time": NOW}
    (tmp_path / "steps.jsonl").write_text("".join(json.dumps({"step": step, **line}) + "\n" for step in range(90)))
    made = means.wishing(job(deadline="1h"), run, 100)
    assert made is not None
    assert made()._done == 90


# While it runs


def test_it_ends_while_a_checkpoint_and_the_machines_end_are_still_paid() -> None:
    it = Spending(Terms(price=1.0, dollars=10.0, idle_s=100.0))
    assert it.look(0.0, None, None, 1.0) == ""
    assert it.look(0.0, 9.0, 36.0, 1.0).startswith("its budget of 10 dollars")  # 1 dollar is 100 s
    assert it.look(0.0, 8.7, 36.0, 1.0) == "", "130 s are left, of 112 and a checkpoint's"
    it.saving(0.0)
    it.saved(50.0)
    assert it.look(60.0, 8.7, 36.0, 1.0) != "", "a checkpoint takes longer than was thought"
    assert Spending(Terms(price=1.0)).look(0.0, 1e9, 1.0, 1.0) == ""


def test_what_is_spent_in_an_hour_is_reckoned_where_nobody_tells() -> None:
    it = Spending(Terms(dollars=100.0))
    for second in range(60):
        assert it.look(float(second), second * 0.01, None, 0.0) == ""
    assert it.per_hour == pytest.approx(36.0)


def test_a_run_ends_by_its_budget_and_goes_on_with_more_as_if_nothing_had_happened(ground: Ground) -> None:
    price, reserve = 3600.0, 2 * SAVES_S  # a dollar a second
    slow = "import time; time.sleep(0.1)"
    tree = ground.job(slow, workers={"price_per_hour": price}, budget={"usd": reserve + 1.5})
    report = ground.train(tree, name="poor")
    assert report.state == "stopped"
    assert report.message.startswith("its budget of 11.5 dollars is spent after step ")
    assert 0 < report.steps < STEPS
    assert report.checkpoints[-1]["step"] == report.steps
    assert report.resume_with == ["budget.usd=23"]
    run = RunFolder(ground.runs / "poor")
    (stop,) = [event for event in run.events() if event["kind"] == "stop"]
    assert (stop["by"], stop["why"]) == ("its budget", "its budget of 11.5 dollars is spent")
    spent = run.read()["dollars"]
    assert spent < reserve + 1.5, "never more than it may"
    import headway

    with pytest.raises(BadInput, match=r"it lasts for|is spent"):
        headway.resume("poor", runs_folder=ground.runs, address="in-process", settings=[f"budget.usd={spent + 0.001}"])
    again = headway.resume("poor", runs_folder=ground.runs, address="in-process", settings=["budget.usd=1000000"])
    assert again.state == "finished"
    assert again.resume_with == []
    whole = ground.train(ground.job(slow), name="rich")
    assert again.weights_sha256 == whole.weights_sha256


def test_in_one_process_a_list_of_prices_holds_no_budget(ground: Ground) -> None:
    with pytest.raises(BadInput, match=r"budget\.usd needs to know what machines cost"):
        ground.train(ground.job(budget={"usd": 1}, prices=[{"type": "*", "per_hour": 1}]), name="listed")


def test_what_is_foreseen_is_told_to_people() -> None:
    it = Alarms(Limits(), 0.0, Seen())
    (word,) = it.look(1.0, Seen(foreseen="the deadline will be missed by 2 h"))
    assert (word.kind, word.text, word.over) == (BUDGET, "the deadline will be missed by 2 h", False)
    assert it.look(2.0, Seen(foreseen="the deadline will be missed by 2 h")) == []
    (word,) = it.look(3.0, Seen())
    assert word.over


def test_decisions_are_told_with_their_reasons() -> None:
    event = {"kind": "policy", "time": time.time(), "workers": 3, "on_demand": 1, "reason": "because", "spent": 0.5}
    assert live(event) == "3 workers, 1 of them on demand: because; 0.5000 dollars so far"
    assert tell({**event, "on_demand": 0}).what == "3 workers on spot machines"
    assert tell({**event, "on_demand": 3}).what == "3 workers on demand"
    foreseen = {"kind": "foreseen", "time": 0.0, "about": "money", "text": "it ends before", "over": False}
    assert live(foreseen) == "foreseen: it ends before"
