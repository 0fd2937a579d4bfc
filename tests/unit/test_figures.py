"""A run in figures: what its recorder sees is counted once, over all starts, and never in too many series."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pytest

from headway.core.cost import Paid, Terms, so_far
from headway.core.families import COUNTER, FAMILIES, LOST_BY, OF_A_RUN, OF_A_SWEEP, PREFIX, STATES
from headway.core.figures import Figures, Subject
from headway.core.ledger import CAUSES

SUBJECT = Subject("task.py:Digits", "ab12", (1, 8))
SECONDS = dict.fromkeys(CAUSES, 0.0) | {"compute": 60.0, "data": 20.0, "start": 20.0}


def found(figures: Figures) -> dict[str, Any]:
    """Values by name and labels, as Prometheus would write them."""
    return {f"{name}{{{','.join(labels)}}}" if labels else name: value for name, labels, value in figures.samples()}


def lived(workers: int = 2, metrics: int = 1, nodes: int = 2, figures: Figures | None = None) -> Figures:
    """Of a run to which everything has happened."""
    terms = Terms(price=0.5, worker_hours=1.0)
    made = figures or Figures(SUBJECT, terms)
    made.event({"kind": "waits", "reason": "", "more": ""})
    made.event({"kind": "generation", "generation": 3, "members": ["w0"], "workers": workers, "step": 0})
    lane_s = {f"w{number}": 0.01 * (number + 1) for number in range(workers)}
    told = {"seconds": SECONDS, "goodput": 0.8, "workers": workers}
    made.event({"kind": "ledger", **told, "lane_s": lane_s, "exchanged_bytes": 4096})
    for cause in LOST_BY:
        made.event({"kind": "recovery", "cause": cause, "pause_s": 0.25, "workers": ["w1"], "step": 4})
    made.event({"kind": "restart", "from_step": 3, "lost_steps": 7, "time": 1.0})
    made.event({"kind": "replica", "worker": "w1", "step": 4, "healed": True})
    made.event({"kind": "quarantine", "source": "data.train", "rows": 2, "total_rows": 5})
    of_a_node = {"cpu": 0.5, "memory": 0.25, "gpu": 0.75}
    of_a_node |= dict.fromkeys(("received_bytes", "sent_bytes", "read_bytes", "written_bytes"), 10.0)
    made.event({"kind": "nodes", "nodes": {f"node-{number}": of_a_node for number in range(nodes)}})
    made.record({"kind": "began", "step": 0, "total_steps": 100, "steps_per_epoch": 10, "time": 1.0})
    made.record({"kind": "step", "step": 9, "epoch": 1, "loss": 0.5, "lr": 0.01, "rows": 128, "time": 1700.0})
    made.record({"kind": "metrics", "step": 10, "values": {f"m{number}": 0.9 for number in range(metrics)}})
    made.record({"kind": "checkpoint_begun", "step": 10, "blocked_s": 0.125})
    made.record({"kind": "checkpoint", "step": 10, "time": 1701.0, "bytes": 4096})
    made.record({"kind": "checkpoint_failed", "error": "the disk is full", "time": 1702.0})
    return made


def test_what_happens_is_counted_where_it_belongs() -> None:
    values = found(lived())
    assert values["run_info{task.py:Digits,ab12}"] == 1
    assert [values[f"run_state{{{state}}}"] for state in STATES] == [1, 0, 0, 0, 0, 0]
    assert (values["step"], values["steps_planned"], values["epoch"]) == (10, 100, 1)
    assert (values["loss"], values["learning_rate"], values["samples_total"]) == (0.5, 0.01, 128)
    assert values["last_step_timestamp_seconds"] == 1700.0
    assert (values["workers"], values["workers_min"], values["workers_max"], values["generation"]) == (2, 1, 8, 3)
    assert (values["worker_seconds_total{data}"], values["goodput_ratio"]) == (20.0, pytest.approx(0.8))
    assert (values["recoveries_total{node_died}"], values["recovery_seconds_total{node_died}"]) == (1, 0.25)
    assert (values["lost_steps_total"], values["replica_mismatches_total"]) == (7, 1)
    assert (values["checkpoint_step"], values["checkpoint_bytes"]) == (10, 4096)
    assert values["checkpoint_timestamp_seconds"] == 1701.0
    assert values["checkpoint_blocked_seconds_total"] == 0.125
    assert values["checkpoint_failures_total"] == 1
    assert values["exchanged_bytes_total"] == 4096
    assert values["worker_lane_seconds{w1}"] == 0.02
    assert (values["validation{m0}"], values["quarantined_rows_total{data.train}"]) == (0.9, 5)
    assert values["node_network_bytes_total{node-1,received}"] == 10.0
    assert values["dollars_total"] == pytest.approx(100.0 / 3600 * 0.5)
    assert values["budget_used_ratio"] == pytest.approx(100.0 / 3600)


def test_all_that_can_be_said_of_a_run_is_said_and_nothing_else() -> None:
    """But for the spool, of which its exporter tells."""
    assert {name for name, _, _ in lived().samples()} == set(OF_A_RUN) - {"spool_bytes"}


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_names_follow_prometheus_rules(name: str) -> None:
    family = FAMILIES[name]
    assert name.startswith(PREFIX)
    assert name.endswith("_total") == (family.kind == COUNTER)
    assert not {"run", "sweep", "instance", "job", "le", "quantile"} & set(family.labels)
    assert family.help.endswith(".")
    assert not name.endswith(("_count", "_sum", "_bucket", "_ms"))


def test_eight_workers_have_at_most_200_series() -> None:
    """Each on a node with a GPU, with more metrics than are shown."""
    figures = lived(workers=8, metrics=40, nodes=8)
    by_name = Counter(name for name, _, _ in figures.samples())
    assert sum(by_name.values()) + 1 <= 200
    assert by_name["validation"] == 20


def test_no_family_outgrows_what_it_may_have() -> None:
    figures = lived(workers=3000, metrics=500, nodes=3000)
    for number in range(100):
        figures.event({"kind": "quarantine", "source": f"data.train[{number}]", "rows": 1, "total_rows": 1})
        figures.event({"kind": "recovery", "cause": f"unheard of {number}", "pause_s": 0.1, "workers": [], "step": 1})
    for name, number in Counter(name for name, _, _ in figures.samples()).items():
        assert number <= OF_A_RUN[name].most, name
    slowest = found(figures)
    assert "worker_lane_seconds{w2999}" in slowest
    assert "worker_lane_seconds{w0}" not in slowest


def test_who_is_gone_has_no_figures_any_more() -> None:
    figures = lived(workers=4, nodes=3)
    figures.event({"kind": "ledger", "seconds": SECONDS, "goodput": 0.8, "workers": 1, "lane_s": {"w3": 0.5}})
    figures.event({"kind": "nodes", "nodes": {"node-2": {"cpu": 0.1}}})
    values = found(figures)
    assert [name for name in values if name.startswith("worker_lane")] == ["worker_lane_seconds{w3}"]
    assert [name for name in values if name.startswith("node_")] == ["node_cpu_ratio{node-2}"]


def test_a_run_that_is_resumed_counts_on() -> None:
    facts = {
        "ledger_before": SECONDS,
        "dollars_before": 2.0,
        "dollars_before_s": 100.0,
        "checkpoint": {"step": 8, "time": 900.0, "bytes": 77},
        "checkpoint_blocked_s": 3.0,
        "quarantine": {"data.train": {"0:1": 4, "0:2": 1}},
        "total_steps": 100,
    }
    before: list[dict[str, Any]] = [
        {"kind": "start", "time": 1.0},
        {"kind": "recovery", "cause": "hung", "pause_s": 2.0, "workers": ["w1"]},
        {"kind": "generation", "generation": 9, "workers": 5},
        {"kind": "restart", "lost_steps": 3},
        {"kind": "of another release"},
    ]
    figures = Figures(SUBJECT, Terms(price=3600.0, dollars=100.0), facts, before, step=8)
    values = found(figures)
    assert (values["recoveries_total{hung}"], values["recovery_seconds_total{hung}"]) == (1, 2.0)
    assert (values["lost_steps_total"], values["step"], values["steps_planned"]) == (3, 8, 100)
    assert values["workers"] == 0
    assert "generation" not in values
    assert (values["worker_seconds_total{compute}"], values["goodput_ratio"]) == (60.0, pytest.approx(0.8))
    assert (values["dollars_total"], values["budget_used_ratio"]) == (2.0, 0.02)
    assert (values["checkpoint_step"], values["checkpoint_blocked_seconds_total"]) == (8, 3.0)
    assert values["quarantined_rows_total{data.train}"] == 5
    figures.event({"kind": "ledger", "seconds": {**SECONDS, "compute": 10.0}, "goodput": 0.5, "workers": 1})
    values = found(figures)
    assert values["worker_seconds_total{compute}"] == 70.0
    assert values["dollars_total"] == pytest.approx(52.0)


def test_a_run_of_an_earlier_release_has_what_that_said() -> None:
    before: list[dict[str, Any]] = [{"kind": "recovery", "cause": "hung"}, {"kind": "restart"}, {"kind": "recovery"}]
    values = found(Figures(SUBJECT, None, {"checkpoint": {"step": 8}}, before, step=8))
    assert (values["recoveries_total{hung}"], values["checkpoint_step"], values["lost_steps_total"]) == (1, 8, 0)
    assert "checkpoint_bytes" not in values


def test_what_was_not_said_has_no_figure() -> None:
    """Nor has what is not known yet: a zero would be a lie."""
    values = found(Figures(SUBJECT))
    missing = {"dollars_total", "budget_used_ratio", "loss", "goodput_ratio", "checkpoint_step", "generation"}
    assert not missing & set(values)
    assert values["recoveries_total{node_died}"] == 0, "else its first increase is not seen"


def test_its_state_is_one_of_those_that_are_known() -> None:
    figures = lived()
    figures.event({"kind": "waits", "reason": "for workers", "more": ""})
    assert found(figures)["run_state{waiting}"] == 1
    assert found(figures)["run_state{running}"] == 0
    figures.over("failed")
    values = found(figures)
    assert [values[f"run_state{{{state}}}"] for state in STATES] == [0, 0, 0, 0, 0, 1]
    assert values["workers"] == 0


def test_a_run_whose_workers_are_there_at_once_is_running() -> None:
    """As a trial's in a sweep: nobody says that it waits, or waits no more."""
    figures = Figures(SUBJECT)
    figures.event({"kind": "generation", "generation": 1, "members": ["w0"], "workers": 1, "step": 0})
    assert found(figures)["run_state{running}"] == 1
    figures.event({"kind": "waits", "reason": "its last worker is gone", "more": ""})
    assert found(figures)["run_state{waiting}"] == 1


def test_after_a_rewind_the_step_is_that_and_the_rows_are_counted_again() -> None:
    figures = lived()
    figures.record({"kind": "began", "step": 4, "total_steps": 100, "steps_per_epoch": 10, "time": 2.0})
    assert found(figures)["step"] == 4
    figures.record({"kind": "step", "step": 4, "epoch": 0, "loss": math.nan, "lr": 0.01, "rows": 128, "time": 1800.0})
    values = found(figures)
    assert (values["step"], values["samples_total"]) == (5, 256)
    assert math.isnan(values["loss"]), "that it is no number is to be seen"


def test_a_resize_shows() -> None:
    figures = lived()
    figures.event({"kind": "resize", "min": 2, "max": 6, "by": "mary"})
    values = found(figures)
    assert (values["workers_min"], values["workers_max"]) == (2, 6)


@pytest.mark.parametrize(
    ("terms", "worker_s", "dollars", "used"),
    [
        (Terms(), 3600.0, None, None),
        (Terms(price=2.0), 1800.0, 1.0, None),
        (Terms(price=2.0, dollars=4.0), 3600.0, 2.0, 0.5),
        (Terms(worker_hours=2.0), 3600.0, None, 0.5),
        (Terms(price=2.0, worker_hours=10.0, dollars=4.0), 3600.0, 2.0, 0.5),
        (Terms(price=2.0, worker_hours=1.0, dollars=400.0), 3600.0, 2.0, 1.0),
    ],
)
def test_costs(terms: Terms, worker_s: float, dollars: float | None, used: float | None) -> None:
    assert terms.cost(worker_s) == dollars
    assert terms.used(worker_s, dollars) == used


def test_what_earlier_starts_cost_stays_when_the_price_is_another_or_gone() -> None:
    assert Terms(price=1.0).cost(7200.0, Paid(5.0, 3600.0)) == 6.0
    assert Terms().cost(7200.0, Paid(5.0, 3600.0)) == 5.0


def test_what_a_start_that_was_killed_has_spent_is_paid_by_the_next() -> None:
    assert Terms(price=1.0).cost(10800.0, Paid(5.0, 3600.0)) == 7.0
    assert Terms(price=1.0).cost(3600.0, Paid()) == 1.0


@pytest.mark.parametrize(
    ("facts", "dollars"),
    [
        ({}, None),
        ({"dollars": 3.5, "price_per_hour": 1.0}, 3.5),
        ({"price_per_hour": 2.0}, 4.0),
        ({"price_per_hour": 2.0, "dollars_before": 5.0, "dollars_before_s": 3600.0}, 7.0),
        ({"dollars_before": 5.0, "dollars_before_s": 3600.0}, 5.0),
    ],
)
def test_what_a_run_that_goes_on_has_cost_is_known(facts: dict[str, Any], dollars: float | None) -> None:
    assert so_far(facts, 7200.0) == dollars


def test_a_sweep_and_its_runs_have_names_of_their_own() -> None:
    assert not set(OF_A_RUN) & set(OF_A_SWEEP)


@pytest.mark.parametrize(
    "said",
    [
        {"kind": "recovery", "workers": ["w0"]},
        {"kind": "restart", "lost_steps": None},
        {},
        ["damaged"],
        "damaged",
        None,
    ],
)
def test_what_earlier_starts_left_out_is_passed_over(said: Any) -> None:
    good = {"kind": "restart", "lost_steps": 7}
    facts = {"checkpoint": {"step": 4}, "quarantine": {"data.train": 2}, "total_steps": 9}
    values = found(Figures(SUBJECT, facts=facts, events=[said, good]))
    assert (values["lost_steps_total"], values["steps_planned"], values["checkpoint_step"]) == (7, 9, 4)
    assert all(isinstance(value, float) for value in values.values())
