"""Sweeps over recorded curves, on a virtual clock."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headway.errors import BadInput
from headway.sweeps import file
from headway.sweeps.named import Scheduler, Search
from headway.sweeps.replay import table
from headway.sweeps.replay.clock import Cluster
from headway.sweeps.replay.making import STRETCHES, make
from headway.sweeps.replay.replaying import by_name, of_file, replay, sweep_of
from headway.sweeps.replay.table import Table

LENGTH = 20


def curve(lr: float, width: int, kind: str) -> list[float]:
    """Falls from 2.3; how far, and how quickly, is up to the settings. A large lr diverges after five stretches."""
    away = abs(math.log10(lr) + 2.0) + 0.02 * abs(width - 48) + (0.3 if kind == "b" else 0.0)
    floor, speed = 0.3 + 0.4 * away, 1.5 / (1.0 + away)
    values = [floor + (2.3 - floor) * math.exp(-speed * step / 4) if floor < 2.3 else 2.3 for step in range(LENGTH + 1)]
    return values[:6] + [math.nan] * (LENGTH - 5) if lr > 0.5 else values


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    rows: list[dict[str, Any]] = []
    for number in range(160):
        lr, width, kind = float(10 ** rng.uniform(-5, 0)), int(rng.integers(1, 129)), "ab"[number % 2]
        losses = curve(lr, width, kind)
        rows.append({"lr": lr, "width": width, "kind": kind, "loss": losses, "score": [-loss for loss in losses]})
    found = tmp_path_factory.mktemp("tables") / "made.parquet"
    pq.write_table(pa.Table.from_pylist(rows), found)
    return found


@pytest.fixture
def curves(path: Path) -> Table:
    return table.load(path)


def test_a_table_is_read(curves: Table) -> None:
    assert (curves.name, curves.metric, curves.length, len(curves.configs)) == ("made", "loss", LENGTH, 160)
    assert set(curves.configs[0]) == {"lr", "width", "kind"}
    assert curves.regret(math.inf) == curves.regret(curves.start) == 1.0
    assert curves.regret(curves.best) == 0.0


def test_more_may_be_better(path: Path, curves: Table) -> None:
    scores = table.load(path, "score", "max")
    assert scores.regret(curves.best) == 0.0
    assert replay(scores, seeds=2).regrets == replay(curves, seeds=2).regrets


def refused(tmp_path: Path, columns: dict[str, Any] | None, metric: str | None = None) -> str:
    path = tmp_path / "t.parquet"
    if columns is not None:
        pq.write_table(pa.table(columns), path)
    with pytest.raises(BadInput) as caught:
        table.load(path, metric)
    return str(caught.value)


def test_what_is_no_table_is_refused_with_what_it_is(tmp_path: Path) -> None:
    assert "is not there" in refused(tmp_path, None)
    good = {"lr": [0.1, 0.2], "loss": [[2.0, 1.0], [2.0, 1.5]]}
    assert "did you mean" in refused(tmp_path, good, "lose").lower()
    assert "no a column of lists" in refused(tmp_path, {"lr": [0.1]}).replace("it has no", "no")
    assert "no a column of a setting" in refused(tmp_path, {"loss": [[2.0, 1.0]]}).replace("it has no", "no")
    assert "have 2, 3 values" in refused(tmp_path, {"lr": [0.1, 0.2], "loss": [[2.0, 1.0], [2.0, 1.0, 0.5]]})
    assert "not of numbers" in refused(tmp_path, {"lr": [0.1], "loss": [["a", "b"]]})
    assert "nothing is learnt" in refused(tmp_path, {"lr": [0.1], "loss": [[2.0, 2.0]]})
    assert "has no rows" in refused(tmp_path, {"lr": pa.array([], pa.float64())})
    (tmp_path / "t.parquet").write_text("lr,loss\n", encoding="utf-8")
    assert "cannot be read as Parquet" in refused(tmp_path, None)


def test_the_budget_is_spent_to_the_stretch_and_every_row_is_begun_once(curves: Table) -> None:
    for search in (Search(name="random"), Search(startup=10), Search(name="tpe")):
        played = (result := replay(curves, sweep_of(curves, search), budget=8 * LENGTH)).played[0]
        assert sum(played.steps.values()) == len(played.seen) - 1 == 8 * LENGTH
        assert len(set(played.rows.values())) == len(played.rows)
        assert result.regrets[0][0] == 1.0
        assert result.regrets[0] == sorted(result.regrets[0], reverse=True)


def test_stretches_of_what_diverged_count_and_it_goes_no_further(curves: Table) -> None:
    result = replay(curves, sweep_of(curves, Search(name="random"), Scheduler(name="none")), budget=60 * LENGTH)
    played = result.played[0]
    diverged = [
        number for number, row in played.rows.items() if curves.configs[row]["lr"] > 0.5 and number in played.steps
    ]
    assert diverged
    assert {played.steps[number] for number in diverged} == {6}


def test_a_sweep_ends_with_the_table(curves: Table) -> None:
    result = replay(curves, sweep_of(curves, Search(name="random"), Scheduler(name="none")), budget=1_000 * LENGTH)
    assert result.played[0].trials == 160
    assert result.regrets[0][-1] == 0.0


def test_the_same_seed_is_the_same_sweep(curves: Table) -> None:
    assert replay(curves, seeds=2).regrets == replay(curves, seeds=2).regrets
    first, second = replay(curves, seeds=2).played
    assert first.rows != second.rows


def test_the_default_is_better_than_chance_and_promotion_alone(curves: Table) -> None:
    def mean(search: str, scheduler: str) -> float:
        result = replay(curves, sweep_of(curves, Search(name=search), Scheduler(name=scheduler)), 6)
        return result.mean(10 * LENGTH)

    default, promoting, chance = mean("density", "asha"), mean("random", "asha"), mean("random", "none")
    assert default < promoting < chance


def test_returns_come_in_the_order_of_time(curves: Table) -> None:
    budget = 8 * LENGTH
    alone = replay(curves, budget=budget).played[0]
    four = replay(curves, budget=budget, cluster=Cluster(workers=4)).played[0]
    uneven = replay(curves, budget=budget, cluster=Cluster(workers=4, noise=0.5)).played[0]
    assert alone.at == [float(step) for step in range(budget + 1)]
    assert four.at[-1] == 2 * LENGTH
    assert uneven.at == sorted(uneven.at)
    assert uneven.at != four.at
    assert uneven.busy >= 0.99 * 4 * uneven.at[-1]
    assert replay(curves, budget=budget, cluster=Cluster(workers=4, noise=0.5)).played[0].at == uneven.at


def test_trials_share_the_workers_and_the_last_has_all(curves: Table) -> None:
    """Six trials of 4 lanes on 4 workers: who ends gives its workers away, and nobody is idle."""
    sweep = sweep_of(curves, Search(name="random"), Scheduler(name="asha"))
    sweep = sweep.model_copy(update={"trials": 6})
    fixed = replay(curves, sweep, cluster=Cluster(workers=4)).played[0]
    elastic = replay(curves, sweep, cluster=Cluster(workers=4, lanes=4)).played[0]
    assert elastic.steps == fixed.steps
    assert elastic.at[-1] < 0.75 * fixed.at[-1]
    assert elastic.busy == pytest.approx(4 * elastic.at[-1])
    settling = replay(curves, sweep, cluster=Cluster(workers=4, lanes=4, settle=0.1)).played[0]
    assert elastic.at[-1] < settling.at[-1] < 1.5 * elastic.at[-1]


JOB = {"name": "digits", "task": "t.py:T", "data": {"train": "a", "validation": "b"}, "steps": 100}
LR = {"arguments.lr": {"loguniform": [1e-5, 1.0]}, "arguments.width": {"randint": [1, 65]}}


def renamed(curves: Table) -> Table:
    configs = tuple({f"arguments.{key}": value for key, value in config.items()} for config in curves.configs)
    return Table(curves.name, curves.metric, curves.mode, configs, curves.curves)


def test_a_sweeps_file_says_what_of_the_table_counts(curves: Table) -> None:
    sweep = file.taken({"job": JOB, "trials": 30, "search": "random", "space": LR})
    within, _ = of_file(renamed(curves), sweep)
    assert 0 < len(within.configs) < 160
    assert all(set(config) == set(LR) and config["arguments.width"] < 65 for config in within.configs)
    result = replay(within, sweep)
    assert result.played[0].trials == 30


def test_a_file_of_another_table_is_refused(curves: Table) -> None:
    sweep = file.taken({"job": JOB, "trials": 30, "space": {"arguments.widht": {"randint": [1, 65]}}})
    with pytest.raises(BadInput, match=r"arguments\.widht.*no column") as caught:
        of_file(renamed(curves), sweep)
    assert "arguments.width" in str(caught.value)
    empty = file.taken({"job": JOB, "trials": 30, "space": {"arguments.width": {"randint": [1000, 2000]}}})
    with pytest.raises(BadInput, match="no row of the table"):
        of_file(renamed(curves), empty)


def test_searches_and_schedulers_by_name(curves: Table) -> None:
    sweep = by_name(sweep_of(curves), "random", "hyperband")
    assert (sweep.search.name, sweep.scheduler.name) == ("random", "hyperband")
    assert replay(curves, sweep).regrets[0][-1] < 1.0
    with pytest.raises(BadInput, match="unknown search 'radnom'"):
        by_name(sweep_of(curves), "radnom", None)
    with pytest.raises(BadInput, match="unknown scheduler"):
        by_name(sweep_of(curves), None, "ahsa")


def test_a_table_of_our_own_making_is_one(tmp_path: Path) -> None:
    make(tmp_path / "own.parquet", rows=4)
    make(tmp_path / "again.parquet", rows=4)
    own = table.load(tmp_path / "own.parquet")
    assert (len(own.configs), own.length) == (4, STRETCHES)
    assert own.best < 1.0 < own.start
    assert np.array_equal(own.curves, table.load(tmp_path / "again.parquet").curves, equal_nan=True)
    with pytest.raises(BadInput, match="cannot be written"):
        make(tmp_path / "no" / "own.parquet", rows=2)


def test_the_command(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from headway.cli.replay import replay as command

    command(curves=[path], seeds=2, json=True)
    found = json.loads(capsys.readouterr().out)
    assert found["tables"][0]["search"] == "density"
    assert list(found["regret"]) == ["100", "200", "400"]
    assert found["tables"][0]["best"]["settings"].keys() == {"lr", "width", "kind"}
    command(curves=[path, path], seeds=2, search="random", scheduler="none", workers=2, noise=0.2)
    said = capsys.readouterr().out
    assert "random and none, 400 stretches on 2 workers, 2 seeds" in said
    assert "mean over the tables" in said
    command(make=tmp_path / "own.parquet", rows=2)
    assert "2 configurations" in capsys.readouterr().out
    with pytest.raises(BadInput, match="--curves is missing"):
        command()
    with pytest.raises(BadInput, match="--mode lowest"):
        command(curves=[path], mode="lowest")
