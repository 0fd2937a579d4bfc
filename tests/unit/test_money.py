"""`headway cost`: a run's dollars, made of its records alone, whoever wrote them and however it ended."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from headway.cli.app import app
from headway.cluster import file as files
from headway.core.bill import cents
from headway.core.worst import machines_for, worst
from headway.errors import BadInput
from headway.job import parse
from headway.report import money
from headway.report.page.account import account
from headway.report.spending import told as spent
from headway.report.worst import of
from headway.runs import RunFolder

EVENTS: list[dict[str, Any]] = [
    {"kind": "start", "time": 1000.0, "step": 0, "host": "x"},
    {"kind": "purchase", "time": 1001.0, "machine": "h", "type": "m", "head": True, "since": 900.0, "per_hour": 1.8},
    {"kind": "purchase", "time": 1010.0, "machine": "i", "type": "c", "zone": "a", "spot": True, "since": 1010.0,
     "per_hour": 36.0, "share": 1.0},
    {"kind": "purchase", "time": 1021.0, "machine": "i", "at": 1020.0, "workers": 1},
    {"kind": "purchase", "time": 1100.0, "machine": "i", "at": 1100.0, "workers": 0},
    {"kind": "purchase", "time": 1111.0, "machine": "i", "until": 1110.0},
    {"kind": "end", "time": 1200.0, "state": "finished"},
]  # fmt: skip
SECONDS = {"start": 10.0, "compute": 60.0, "data": 5.0, "idle": 5.0}


def invoked(*arguments: str) -> str:
    """What a command prints."""
    done = CliRunner().invoke(app, list(arguments))
    assert done.exit_code == 0, done.output
    return done.stdout


def made(folder: Path, events: list[dict[str, Any]], steps: int = 8, **facts: Any) -> RunFolder:
    folder.mkdir()
    run = RunFolder(folder)
    lines = [{"step": step, "epoch": 0.0, "loss": 1.0, "lr": 0.1, "rows": 8, "time": 1030.0} for step in range(steps)]
    run.events_file.write_text("".join(json.dumps(event) + "\n" for event in events))
    (folder / "steps.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "ledger.jsonl").write_text(json.dumps({"time": 1090.0, "step": 5, "seconds": SECONDS}) + "\n")
    run.write({"state": "finished", "created": 1000.0, "ledger_s": SECONDS, **facts})
    return run


def test_the_dollars_of_a_run_by_cause_market_and_machine(tmp_path: Path) -> None:
    found = money.told(made(tmp_path / "r", EVENTS))
    assert found.by == "machines"
    assert found.dollars == pytest.approx(0.1 + 1.0)
    expected = {"start": 0.1 + 0.1, "compute": 0.6, "data": 0.05, "idle": 0.05 + 0.1, "head": 0.1}
    assert found.by_cause == pytest.approx(expected)
    assert found.by_market == pytest.approx({"m": 0.1, "c in a, spot": 1.0})
    assert found.wasted == pytest.approx(0.35)
    assert [(each.machine, each.dollars) for each in found.machines] == [("h", 0.1), ("i", 1.0)]
    assert found.per_step == pytest.approx(1.1 / 8)
    assert found.per_1000_steps == pytest.approx(137.5)
    assert (found.per_hour, found.shared, found.unpriced, found.at) == (0.0, False, [], 1200.0)
    assert round(sum(cents(found.by_cause).values()), 2) == 1.1


def test_of_a_leader_that_was_killed_the_last_word_counts_and_each_start_has_its_own_causes(tmp_path: Path) -> None:
    again = [{**event, "time": event["time"] + 1000.0} for event in (EVENTS[0], EVENTS[1], EVENTS[-1])]
    carried = {"kind": "purchase", "time": 2050.0, "machine": "h", "at": 2050.0, "workers": 1}
    events = [*EVENTS[:4], again[0], again[1], carried, again[2]]
    run = made(tmp_path / "r", events, ledger_s={**SECONDS, "checkpoint": 7.0})
    found = money.told(run)
    first = 0.045 + 0.8  # until 1090, when the account was kept last
    assert found.dollars == pytest.approx(first + 0.1)
    assert found.by_cause["checkpoint"] == pytest.approx(0.075), "the second start spent its time on nothing else"
    assert found.by_cause["compute"] == pytest.approx(0.7 * 60 / 80)


def test_hosts_clocks_differ_and_starts_stay_in_their_order(tmp_path: Path) -> None:
    """The second start's host is ten minutes behind: by its clock it begins before the first has ended."""
    again = [{**event, "time": event["time"] - 150.0} for event in (EVENTS[0], EVENTS[-1])]
    bought = {"kind": "purchase", "time": 860.0, "machine": "h", "type": "m", "head": True, "since": 860.0,
              "per_hour": 1.8}  # fmt: skip
    first = made(tmp_path / "first", EVENTS)
    run = made(tmp_path / "r", [*EVENTS, again[0], bought, again[1]], ledger_s={**SECONDS, "checkpoint": 7.0})
    whole = money.told(run)
    assert whole.dollars == pytest.approx(money.told(first).dollars + 0.095)
    assert whole.by_cause["compute"] == pytest.approx(0.6), "what the first start spent its time on"
    assert whole.at == 1050.0
    killed = [*EVENTS[:4], again[0], bought, again[1]]
    run = made(tmp_path / "killed", killed, ledger_s=SECONDS)
    assert money.told(run).dollars == pytest.approx(0.045 + 0.8 + 0.095), "it lived until 1090, by its own clock"


def test_without_prices_of_machines_an_hour_of_a_worker_has_one(tmp_path: Path) -> None:
    found = money.told(made(tmp_path / "r", [EVENTS[0], EVENTS[-1]], price_per_hour=36.0))
    assert found.by == "workers.price_per_hour"
    assert found.dollars == pytest.approx(0.8)
    assert found.by_cause == pytest.approx({"start": 0.1, "compute": 0.6, "data": 0.05, "idle": 0.05})
    assert money.told(made(tmp_path / "before", EVENTS[:1], price_per_hour=36.0, dollars=0.5)).dollars == 0.5


def test_what_has_no_price_is_told_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="nothing that r used has a price") as refused:
        money.told(made(tmp_path / "r", [EVENTS[0]]))
    assert "provider.headway.prices" in str(refused.value)
    strange = {"kind": "purchase", "time": 1001.0, "machine": "i", "type": "c", "zone": "a", "since": 1.0}
    run = made(tmp_path / "q", [EVENTS[0], {**strange, "unpriced": True}])
    with pytest.raises(BadInput, match="q ran on c in a, which has no price"):
        money.told(run)
    assert money.known(run) is None


def test_a_run_that_shared_its_machines_says_so(tmp_path: Path) -> None:
    half = {"kind": "purchase", "time": 1100.0, "machine": "h", "share": 0.5}
    found = money.told(made(tmp_path / "r", [*EVENTS[:2], half, EVENTS[-1]]))
    assert found.shared
    assert found.dollars == pytest.approx(0.05 + 0.025)


def test_the_command_and_the_page_tell_it(tmp_path: Path) -> None:
    run = made(tmp_path / "r", EVENTS)
    said = invoked("cost", str(run.path))
    assert "r: $1.10 so far, by its machines" in said
    assert "c in a, spot: $1.00" in said
    told = json.loads(invoked("cost", str(run.path), "--json"))
    assert told["dollars"] == 1.1
    of_page = spent(run.path, run.read(), 1000.0, money.told(run))
    drawn: dict[str, Any] = {}
    section = account({"ledger": of_page.model_dump(), "headline": {"dollars": 1.1}}, drawn)
    assert section is not None
    text = "".join(map(str, section.inside))
    assert "the head&#x27;s machine" in text or "the head's machine" in text
    assert "$0.60" in text


def test_storage_is_no_machine_though_it_be_the_dearest_of_a_jobs_prices() -> None:
    tree: dict[str, Any] = {"name": "j", "task": "t.py:T", "data": {"train": "d"}, "steps": 9, "workers": {"max": 4}}
    storage, machine = {"type": "storage", "per_hour": 9.0}, {"type": "c7i.large", "per_hour": 0.1}
    assert of(parse({**tree, "lanes": 8, "prices": [storage, machine]}), 9).per_hour == pytest.approx(0.4)
    with pytest.raises(BadInput, match="nothing says what its machines cost"):
        of(parse({**tree, "lanes": 8, "prices": [storage]}), 9)


def test_the_worst_is_all_machines_from_the_beginning_to_the_end() -> None:
    assert worst(4, 3.0, 1.0).dollars is None
    found = worst(4, 3.0, 1.0, steps=3600, step_worker_s=2.0, fewest=1)
    assert (found.per_hour, found.hours, found.dollars) == (13.0, 2.0, 26.0)
    found = worst(4, 3.0, 1.0, deadline_s=1800.0, steps=3600, step_worker_s=2.0)
    assert (found.hours, found.dollars, found.why) == (0.5, 6.5, "until its deadline")
    assert machines_for(5, {"CPU": 2.0}, {"CPU": 4.0}) == 3
    assert machines_for(10, {"GPU": 0.1}, {"GPU": 1.0}) == 1
    assert machines_for(5, {"CPU": 2.0, "GPU": 1.0}, {"CPU": 4.0}) is None


CLUSTER = """\
cluster_name: t
provider: {type: aws, region: eu-central-1, headway: {prices: [{type: dear, per_hour: 9}]}}
head_node_type: head
available_node_types:
  head: {resources: {CPU: 0}, one_of: [{type: m7i.large}]}
  worker:
    max_workers: 4
    resources: {CPU: 4}
    one_of: [{type: c7i.xlarge, spot: true, price_per_hour: 0.07}, {type: TYPE, spot: true}]
"""


def test_a_job_costs_at_most_what_its_dearest_machines_do_on_demand(tmp_path: Path) -> None:
    job = parse(
        {"name": "j", "task": "t.py:T", "data": {"train": "d"}, "lanes": 8, "lane_batch": 4, "steps": 3600,
         "workers": {"min": 2, "max": 4, "cpus": 2}}
    )  # fmt: skip
    file = files.parse(tmp_path / "c.yaml", CLUSTER.replace("TYPE", "g4dn.xlarge"))
    found = of(job, 3600, file)
    assert found.machines == "2 x g4dn.xlarge spot at $0.658, and the head at $0.12075", "as if none were spot"
    assert found.per_hour == pytest.approx(2 * 0.658 + 0.12075)
    assert found.dollars is None
    timed = of(job, 3600, file, step_worker_s=2.0)
    assert timed.dollars == pytest.approx(timed.per_hour)
    assert of(job, 3600, file, 2.0, 900.0).dollars == pytest.approx(timed.per_hour / 4)
    dear = files.parse(tmp_path / "c.yaml", CLUSTER.replace("TYPE", "dear"))
    assert of(job, 3600, dear).per_hour == pytest.approx(18.12075)
    strange = files.parse(tmp_path / "c.yaml", CLUSTER.replace("TYPE", "strange"))
    with pytest.raises(BadInput, match="no price of strange in eu-central-1, spot"):
        of(job, 3600, strange)
    with pytest.raises(BadInput, match="holds a worker"):
        of(job.model_copy(update={"workers": job.workers.model_copy(update={"cpus": 9})}), 3600, file)
    with pytest.raises(BadInput, match="nothing says what its machines cost"):
        of(job, 3600)
    priced = job.model_copy(update={"workers": job.workers.model_copy(update={"price_per_hour": 0.5})})
    assert of(priced, 3600, step_worker_s=2.0).dollars == pytest.approx(2.0)


def test_the_command_wants_one_of_a_run_and_a_job() -> None:
    done = CliRunner().invoke(app, ["cost"])
    assert "one of RUN and --worst JOB" in str(done.exception)
