"""`headway compare`: what may be named, what comes of runs, how it is told. The runs themselves are made up here."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from tests.conftest import MakeDataset
from tests.conftest import Run as Command
from tests.unit import test_strategies_run as strategies_run
from tests.unit.test_elastic_run import data as data
from tests.unit.test_strategies_harm import deaf

from headway.errors import BadInput, RunFailed
from headway.report import page
from headway.runs import RunFolder
from headway.testing.compared import words
from headway.testing.compared.compare import Start, compare, lost, read, since
from headway.testing.compared.outcome import Comparison, Result, Run, sent_at
from headway.testing.compared.picture import draw
from headway.testing.compared.ways import link, parse, seeds
from headway.testing.elastic import Run as Elastic

TASK = """
import headway
from torch import nn

class Linear(headway.Task):
    def model(self):
        return nn.Linear(4, 2)

    def loss(self, model, batch):
        return nn.functional.cross_entropy(model(batch["x"]), batch["y"])
"""


@pytest.fixture
def job(tmp_path: Path, make_dataset: MakeDataset) -> Path:
    make_dataset(tmp_path / "train", (100,))
    (tmp_path / "compared_task.py").write_text(TASK)
    tree: dict[str, Any] = {"name": "small", "task": "compared_task.py:Linear", "data": {"train": "train"}}
    tree |= {"lanes": 4, "lane_batch": 8, "steps": 40, "workers": {"max": 2}, "check": False, "seed": 7}
    tree |= {"optimizer": {"name": "sgd", "lr": 0.1}, "checkpoint": {"metric": "accuracy", "mode": "max"}}
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(tree))
    return tmp_path / "job.yaml"


def made(seed: int = 0, steps: int = 40, step_s: float = 0.1, step_bytes: float | None = 1000.0, **more: Any) -> Run:
    """A run whose loss falls from 1 to 1 / steps."""
    step: Any = np.arange(steps)
    sent: Any = (step + 1) * step_bytes if step_bytes is not None else np.full(steps, np.nan)
    told: dict[str, Any] = {"state": "finished", "message": "", "metrics": {"accuracy": 0.9}, "goodput": 0.8}
    told |= {"sent_bytes": None if step_bytes is None else steps * step_bytes, **more}
    return Run(seed, step=step, seconds=step * step_s, loss=1.0 - step / steps, sent=sent, **told)


def comparison(*results: Result, **more: Any) -> Comparison:
    told: dict[str, Any] = {"job": "small", "metric": "accuracy", "mode": "max", "faults": "", "link": "", "nodes": 2}
    return Comparison(**{**told, "seeds": [0], "results": results, **more})


DENSE = Result("all_reduce", {"kind": "all_reduce"}, [made()])
SPARING = Result("diloco:every=10", {"kind": "diloco", "every": 10}, [made(step_s=0.05, step_bytes=100.0)])


# What may be named


def test_names_options_and_files_become_settings(tmp_path: Path) -> None:
    (tmp_path / "far.yaml").write_text("kind: diloco\nevery: 500\n")
    (tmp_path / "both.yml").write_text("strategy: {kind: gossip}\nlane_batch: 16\n")
    text = f"all_reduce, diloco:every=50:outer.lr=0.5:reproducible=bitwise,{tmp_path}/far.yaml,{tmp_path}/both.yml"
    ways = parse(text)
    assert [way.name for way in ways] == [
        "all_reduce",
        "diloco:every=50:outer.lr=0.5:reproducible=bitwise",
        "far",
        "both",
    ]
    assert [way.settings for way in ways] == [
        ("strategy=all_reduce",),
        ("strategy=diloco", "strategy.every=50", "strategy.outer.lr=0.5", "reproducible=bitwise"),
        ('strategy={"kind": "diloco", "every": 500}',),
        ('strategy={"kind": "gossip"}', "lane_batch=16"),
    ]
    assert ways[1].slug == "diloco-every-50-outer.lr-0.5-reproducible-bitwise"


def test_what_stands_in_brackets_is_no_separator() -> None:
    (way,) = parse("parameter_server:sparse=[a.*,b.*]:consistency=ssp")
    assert way.settings == ("strategy=parameter_server", "strategy.sparse=[a.*,b.*]", "strategy.consistency=ssp")
    (way,) = parse("all_reduce:compression={kind: top_k, ratio: 0.1}")
    assert way.settings[1] == "strategy.compression={kind: top_k, ratio: 0.1}"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("all_reduce,,gossip", "one of them has no name"),
        ("allreduce", "Did you mean 'all_reduce'?"),
        ("diloco:evry=5", "'evry' is an option neither of a strategy nor of the job. Did you mean 'every'?"),
        ("diloco:every", "'every' is not of the form key=value"),
        ("diloco:kind=gossip", "'kind' is an option neither"),
        ("gossip,gossip", "names gossip twice"),
        (",".join(f"diloco:every={n}" for n in range(1, 20)), "at most 16"),
        ("nowhere.yaml", "nowhere.yaml"),
    ],
)
def test_what_may_not_be_named_is_said(text: str, said: str) -> None:
    with pytest.raises(BadInput, match=re.escape(said)):
        parse(text)


def test_a_file_must_hold_a_strategy(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("every: 3\n")
    with pytest.raises(BadInput, match="it names no strategy"):
        parse(str(tmp_path / "a.yaml"))
    (tmp_path / "b.yaml").write_text("strategy: gossip\nlane_bath: 3\n")
    with pytest.raises(BadInput, match="Did you mean 'lane_batch'"):
        parse(str(tmp_path / "b.yaml"))


def test_rates_and_seeds() -> None:
    assert [link(text) for text in ("100mbit", "1 gbit", "512kbit/s", "0.5Mbit")] == [1e5, 1e6, 512.0, 500.0]
    for text in ("100", "fast", "0mbit", "-1mbit", "100mb"):
        with pytest.raises(BadInput, match="no rate of a link"):
            link(text)
    assert seeds("0,1, 2,1") == [0, 1, 2]
    for text in ("a", "-1", "1.5", "1,,2", "true"):
        with pytest.raises(BadInput, match="whole numbers from 0 on"):
            seeds(text)


# What comes of runs


def test_bytes_are_told_evenly_over_the_steps_between_two_counts() -> None:
    step = np.arange(6)
    lines = [
        {"step": 0, "exchanged_bytes": 0},
        {"step": 2, "exchanged_bytes": 100},
        {"step": 2, "exchanged_bytes": 200},
        {"step": 3},
        {"step": 6, "exchanged_bytes": 600},
    ]
    assert sent_at(step, lines).tolist() == [100, 200, 300, 400, 500, 600]
    assert np.isnan(sent_at(step, [{"step": 3}])).all(), "of a release that did not count"
    assert len(sent_at(np.arange(0), lines)) == 0


def test_rows_hold_what_each_came_to() -> None:
    dense, sparing = comparison(DENSE, SPARING).rows()
    assert (dense["steps"], dense["seconds"], dense["sent_bytes"]) == (40, pytest.approx(3.9), 40_000)
    assert (dense["bytes_per_step"], dense["times_fewer"]) == (1000, 1)
    assert dense["loss"] == pytest.approx((1 / 40 + 2 / 40) / 2), "the mean of the last twentieth"
    assert (dense["metric"], dense["goodput"], dense["metric_sd"]) == (0.9, 0.8, None)
    assert sparing["times_fewer"] == pytest.approx(10)


def test_means_over_seeds_have_deviations() -> None:
    runs = [made(0, metrics={"accuracy": 0.8}), made(1, metrics={"accuracy": 0.9}, step_s=0.3)]
    (row,) = comparison(Result("gossip", {}, runs), seeds=[0, 1]).rows()
    assert row["metric"] == pytest.approx(0.85)
    assert row["metric_sd"] == pytest.approx(0.0707, abs=1e-4)
    assert row["seconds"] == pytest.approx(39 * 0.2)
    curve = Result("gossip", {}, runs).curve
    assert curve["seconds"][-1] == pytest.approx(39 * 0.2)
    assert curve["step"][-1] == 40


def test_losses_are_told_as_far_as_all_came() -> None:
    told = comparison(DENSE, SPARING).losses()
    assert told["step"]["at"] == [10, 20, 40]
    assert told["seconds"]["at"][-1] == pytest.approx(39 * 0.05), "the faster one's end"
    assert told["sent"]["at"] == [1000, 2000, 4000], "the more sparing one's end"
    assert told["step"]["all_reduce"] == told["step"]["diloco:every=10"]
    slow, fast = (told["sent"][name][2] for name in ("all_reduce", "diloco:every=10"))
    assert slow is not None
    assert fast is not None
    assert slow > 10 * fast
    without = comparison(DENSE, Result("gossip", {}, [made(step_bytes=None)])).losses()
    assert set(without) == {"step", "seconds"}


def test_a_long_curve_is_drawn_with_few_points() -> None:
    curve = Result("gossip", {}, [made(steps=5000)]).curve
    assert len(curve["loss"]) <= 600
    assert curve["step"][-1] == 5000


def test_a_broken_exchange_with_nobody_gone_has_lost_no_worker() -> None:
    def recovery(cause: str, *workers: str) -> dict[str, Any]:
        return {"kind": "recovery", "cause": cause, "workers": workers}

    nobody = [recovery("connection_lost", "w0"), recovery("stuck"), recovery("joined", "w3"), recovery("drained", "w2")]
    assert lost([{"kind": "lost", "worker": "w0"}, *nobody]) == set()
    some = [recovery("process_died", "w1"), recovery("node_died", "w2", "w3"), recovery("parted", "w3")]
    assert lost([*nobody, *some]) == {"w1", "w2", "w3"}


def test_seconds_are_since_workers_began_and_not_since_the_first_round_was_over() -> None:
    events = [
        {"kind": "start", "time": 90.0},
        {"kind": "generation", "time": 100.0},
        {"kind": "generation", "time": 103.0},
    ]
    assert since(events, np.array([105.0, 105.0, 110.0, 110.0])).tolist() == [5, 5, 10, 10]
    assert since(events[:1], np.array([105.0, 106.0])).tolist() == [0, 1], "of a run that nobody led"
    assert since(events, np.empty(0)).tolist() == []


def test_a_run_is_read_from_its_folder(tmp_path: Path, data: Path) -> None:
    """Rounds of half of its steps each, on two workers whose lanes take 0.02 s; one exchange breaks."""
    pace_s, steps, lanes = 0.02, strategies_run.STEPS, strategies_run.LANES
    rounds = {"kind": "diloco", "every": steps // 2, "replicas": 4}
    made = strategies_run.job(data, "diloco", 2, strategy=rounds)
    (tmp_path / "run").mkdir()
    RunFolder(tmp_path / "run").write({"run": "run", "created": time.time()})  # as a driver does
    with Elastic(tmp_path / "run", made, deaf, pace_s, "seal") as run:
        strategies_run.done(run, 120)
    found = read(RunFolder(tmp_path / "run"), 3)
    assert (found.state, found.seed, found.lost, len(found.step)) == ("finished", 3, 0, steps)
    whole = steps * lanes / 2 * pace_s
    assert found.seconds[0] > whole / 2 * 0.9, "the first round's steps are told at its end"
    assert found.seconds[-1] > whole * 0.9


def test_bytes_of_a_step_are_of_the_steps_that_each_run_did() -> None:
    runs = [made(0, steps=40), made(1, steps=10, state="failed")]
    (row,) = comparison(Result("gossip", {}, runs), seeds=[0, 1]).rows()
    assert row["bytes_per_step"] == 1000


# How it is told


def test_the_text_is_two_tables_and_notes() -> None:
    failed = Result(
        "gossip", {"kind": "gossip"}, [made(state="failed", message="it broke", missing=["kill worker=1: no"])]
    )
    found = comparison(DENSE, SPARING, failed, link="100mbit", faults="kill worker=1 step=3", notes=["asp differs"])
    text = "\n".join(words.lines(found))
    assert "under 3 strategies on 2 nodes, each on a link of 100mbit, under kill worker=1 step=3; seed 0" in text
    assert re.search(
        r"^diloco:every=10 +finished +40 +2\.0 +4\.0 kB +0\.1 kB +10 x +0\.0375 +0\.9000 +80\.0%", text, re.M
    )
    assert re.search(r"^loss after +10 steps +20 steps +40 steps ", text, re.M)
    assert "note: gossip, seed 0: failed: it broke" in text
    assert "note: gossip, seed 0: kill worker=1: no" in text
    assert "note: asp differs" in text
    assert not found.good
    assert comparison(DENSE).good


def test_the_document_is_plain_and_makes_a_page_and_a_picture(tmp_path: Path) -> None:
    found = comparison(DENSE, SPARING, notes=["<b>asp</b> differs"])
    document = json.loads(json.dumps(found.shown(), allow_nan=False))
    text = page.render(document)
    for chart in ("loss-step", "loss-seconds", "loss-sent"):
        assert f'id="plot-{chart}"' in text
    drawn = json.loads(re.search(r'<script type="application/json" id="drawn">(.*?)</script>', text, re.S)[1])  # type: ignore[index]
    assert [(chart["own"], len(chart["series"])) for chart in drawn["plots"]] == [
        ("step", 2),
        ("time", 2),
        ("bytes", 2),
    ]
    assert "diloco:every=10" in text
    assert "<b>asp</b>" not in text
    pytest.importorskip("matplotlib")
    assert draw(found, tmp_path) == tmp_path / "comparison.svg"
    assert "diloco:every=10" in (tmp_path / "comparison.svg").read_text()


def test_where_nothing_was_counted_the_page_does_without(tmp_path: Path) -> None:
    nothing = np.empty(0)
    failed = Run(0, "failed", "no", np.empty(0, np.int64), nothing, nothing, nothing, None, {}, None)
    found = comparison(Result("gossip", {}, [failed]), metric="")
    text = page.render(json.loads(json.dumps(found.shown(), allow_nan=False)))
    assert "plot-loss" not in text
    assert "failed" in "\n".join(words.lines(found))


# The whole, with made-up runs


def test_every_strategy_is_run_for_every_seed_with_its_own_job(job: Path, tmp_path: Path) -> None:
    started: list[Start] = []

    def runner(start: Start, folder: Path) -> Run:
        started.append(start)
        if start.way.name == "gossip":
            raise RunFailed("the run stands still", "no step for long", "")
        return made(start.seed)

    told: list[str] = []
    strategies = "all_reduce:reproducible=bitwise,diloco:every=10,gossip"
    found = compare(job, strategies, seeds=[3, 4], steps=20, nodes=2, tell=told.append, runner=runner)
    assert [(start.way.name.partition(":")[0], start.seed) for start in started] == [
        (name, seed) for seed in (3, 4) for name in ("all_reduce", "diloco", "gossip")
    ]
    bitwise, diloco, gossip = (start.job for start in started[:3])
    assert (bitwise.reproducible, diloco.reproducible) == ("bitwise", "order")
    assert (diloco.strategy.kind, diloco.strategy.every, gossip.strategy.kind) == ("diloco", 10, "gossip")
    assert (diloco.steps, diloco.seed, diloco.workers.max, diloco.tracking.enabled) == (20, 3, 2, False)
    assert [result.name for result in found.results] == strategies.split(",")
    assert [run.state for run in found.results[2].runs] == ["failed", "failed"]
    assert (found.metric, found.mode, found.good) == ("accuracy", "max", False)
    assert any("stands still" in text for text in told)


@pytest.mark.parametrize(
    ("strategies", "more", "said"),
    [
        ("diloco:quorum=9", {}, "diloco:quorum=9"),
        ("all_reduce", {"faults": "kill worker=1 step=999"}, "comes too late"),
        ("all_reduce", {"faults": "rate node=0 kbit=9 step=3 for=1s", "rate": "1mbit"}, "both say how fast a link is"),
        ("all_reduce", {"rate": "fast"}, "no rate of a link"),
        ("all_reduce", {"nodes": 9}, "the job has 4 lanes"),
        ("all_reduce", {"settings": ["workers.spares=1"]}, "Compare without spares"),
    ],
)
def test_nothing_starts_where_something_is_wrong(job: Path, strategies: str, more: dict[str, Any], said: str) -> None:
    def never(start: Start, folder: Path) -> Run:
        raise AssertionError("it was started")

    with pytest.raises(BadInput) as caught:
        compare(job, strategies, runner=never, **more)
    assert said in str(caught.value)


def test_links_are_refused_where_they_cannot_be_shaped(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from headway.testing import links

    monkeypatch.setattr(links, "cut_possible", lambda: "network namespaces need root")
    with pytest.raises(BadInput, match="network namespaces need root"):
        compare(job, "all_reduce", rate="100mbit", runner=lambda start, folder: made())


def test_what_does_not_repeat_is_noted(job: Path) -> None:
    found = compare(job, "parameter_server:consistency=asp", runner=lambda start, folder: made(start.seed))
    assert any("results differ from run to run" in note for note in found.notes)


def test_the_command_writes_and_prints(
    job: Path, run: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from headway.testing.compared import compare as comparing

    monkeypatch.setattr(comparing, "compare", lambda *given, **more: comparison(DENSE, SPARING))
    status, out, _ = run("compare", str(job), "--strategies", "a,b", "--out", str(tmp_path / "out"))
    assert status == 0
    assert "loss after" in out
    assert json.loads((tmp_path / "out/comparison.json").read_text())["kind"] == "strategies"
    assert (tmp_path / "out/comparison.html").read_text().startswith("<!doctype html>")
    status, out, _ = run("compare", str(job), "--strategies", "a,b", "--out", str(tmp_path / "out"), "--json")
    assert json.loads(out)["rows"][1]["strategy"] == "diloco:every=10"
    status, _, error = run("compare", str(job), "--strategies", "a", "--seeds", "x", "--out", str(tmp_path / "out"))
    assert (status, "whole numbers from 0 on" in error) == (2, True)


@pytest.mark.slow
def test_two_strategies_on_a_real_cluster(job: Path) -> None:
    found = compare(job, "all_reduce,all_reduce:reproducible=bitwise", steps=30, settings=["check=true"])
    assert found.good, "\n".join(words.lines(found))
    order, bitwise = found.rows()
    assert (order["steps"], bitwise["steps"]) == (30, 30)
    assert abs(order["loss"] - bitwise["loss"]) < 1e-4
    for row in (order, bitwise):
        assert row["sent_bytes"] > 0
        assert row["goodput"] > 0
